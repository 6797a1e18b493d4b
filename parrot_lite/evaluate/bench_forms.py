"""A benchmark's session from its line, in whichever of four published forms it is; the form is told by its keys.

``turns`` of texts: FastChat's ``question.jsonl``. ``turns`` or ``messages`` of messages: sessions as this kit and
OpenAI write them. ``conv`` or ``conversation`` of user and sys: MT-Eval (arXiv 2401.16745). ``history`` of user and
bot: MT-Bench-101 (arXiv 2402.14762). An answer that a session brings is its reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from parrot_lite.evaluate.records import Label, Question

PAIRS = {"conv": "sys", "conversation": "sys", "history": "bot"}  # where the exchanges are: who answers
FORMS = (
    'A line is {"question_id", "category", "turns": [texts]}, with "reference" and "labels" where there are any; '
    '{"id", "turns" or "messages": [{"role", "content"}]}; MT-Eval\'s {"id", "conv"}; or MT-Bench-101\'s '
    '{"task", "id", "history"}'
)


def question(row: Any, category: str) -> Question:
    """A session from its row; ``category`` stands in where the form has none.

    Raises KeyError with the missing key, or TypeError or ValueError with what does not hold.
    """
    if not isinstance(row, dict):
        raise TypeError("the line is no object")
    if (key := next((key for key in PAIRS if key in row), None)) is not None:
        return _pairs(row, key, category)
    listed = row["messages"] if "messages" in row else row["turns"]
    if isinstance(listed, list) and listed and all(isinstance(message, dict) for message in listed):
        return _messages(row, listed, category)
    return _fastchat(row)


def answers(row: Any) -> tuple[str, list[str | None], tuple[str, ...]]:
    """A session's id and its answers by turn, from FastChat's answer files, a dialogue, or a session in any form.

    With the queries that they answer; without any where the form tells none.

    Raises as ``question`` does.
    """
    if isinstance(row, dict) and isinstance(row.get("choices"), list):
        turns = row["choices"][0]["turns"] if row["choices"] and isinstance(row["choices"][0], dict) else None
        if not isinstance(turns, list) or not all(isinstance(text, str) for text in turns):
            raise ValueError("'choices' must begin with an object whose 'turns' are strings")
        return _id(row, "question_id"), [text.strip() or None for text in turns], ()
    if isinstance(row, dict) and isinstance(row.get("dialogue"), dict):
        row = row["dialogue"]  # a session that a model has played
    read = question(row, "")
    return read.id, list(read.references), read.queries


def _fastchat(row: Mapping[str, Any]) -> Question:
    turns, references = row["turns"], row.get("reference") or []
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise ValueError("'turns' must be a list of non-empty strings")
    if not isinstance(references, list) or not all(isinstance(text, str | None) for text in references):
        raise ValueError("'reference' must be a list of strings or null")
    if len(references) > len(turns):
        raise ValueError(f"{len(references)} references for {len(turns)} turns")
    if not isinstance(row["category"], str):
        raise ValueError("'question_id' must be a number or a string, 'category' a string")
    padded = [*references, *[None] * (len(turns) - len(references))]
    return _question(_id(row, "question_id"), row["category"], turns, padded, _labels(row.get("labels")))


def _messages(row: Mapping[str, Any], listed: Sequence[Mapping[str, Any]], category: str) -> Question:
    said = [message for message in listed if message.get("role") != "system"]
    for at, message in enumerate(said):
        if message.get("role") != ("user", "assistant")[at % 2]:
            raise ValueError(f"message {at + 1} should be the {('user', 'assistant')[at % 2]}'s")
        if not isinstance(message.get("content"), str):
            raise ValueError(f"message {at + 1} has no text as 'content'")
    texts = [message["content"] for message in said]
    replies = [*texts[1::2], *[None] * (len(texts) % 2)]
    return _question(_id(row, "id"), _category(row, category), texts[0::2], replies, _labels(row.get("labels")))


def _pairs(row: Mapping[str, Any], key: str, category: str) -> Question:
    exchanges, other = row[key], PAIRS[key]
    if not isinstance(exchanges, list) or not exchanges or not all(isinstance(one, dict) for one in exchanges):
        raise ValueError(f"'{key}' must be a list of objects with 'user' and '{other}'")
    for number, exchange in enumerate(exchanges, 1):
        if not isinstance(exchange.get("user"), str) or not isinstance(exchange.get(other), str | None):
            raise ValueError(f"exchange {number} of '{key}' needs a text as 'user', and one or none as '{other}'")
    name = _id(row, "question_id" if "question_id" in row else "id")
    # Each task of MT-Bench-101 may number its own.
    name = f"{row['task']}-{name}" if isinstance(row.get("task"), str) else name
    queries = [exchange["user"] for exchange in exchanges]
    return _question(name, _category(row, category), queries, [exchange.get(other) for exchange in exchanges], ())


def _question(
    name: str, category: str, queries: Sequence[str], references: Sequence[str | None], labels: tuple[Label | None, ...]
) -> Question:
    for turn, query in enumerate(queries, 1):
        if not query.strip():
            raise ValueError(f"turn {turn} asks nothing")
    try:
        return Question(
            id=name,
            category=category,
            queries=tuple(query.strip() for query in queries),
            references=tuple(text.strip() or None if text else None for text in references),
            labels=labels,
        )
    except ValidationError as error:
        raise ValueError(_first(error)) from None


def _labels(listed: Any) -> tuple[Label | None, ...]:
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise ValueError("'labels' must be a list with an object or null for each turn")
    labels: list[Label | None] = []
    for turn, label in enumerate(listed, 1):
        try:
            labels.append(None if label is None else Label.model_validate_json(json.dumps(label)))
        except ValidationError as error:
            raise ValueError(f"label of turn {turn}: {_first(error)}") from None
    return tuple(labels)


def _first(error: ValidationError) -> str:
    """The first mistake in few words."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] in ("missing", "extra_forbidden"):
        return f"{'no' if first['type'] == 'missing' else 'unknown key'} '{where}'"
    what = str(first.get("ctx", {}).get("error", first["msg"][:1].lower() + first["msg"][1:]))
    return f"'{where}': {what}" if where else what


def _id(row: Mapping[str, Any], key: str) -> str:
    name = row[key]
    if not isinstance(name, int | str) or name == "":
        raise ValueError(f"'{key}' must be a number or a string")
    return str(name)


def _category(row: Mapping[str, Any], otherwise: str) -> str:
    found = next((row[key] for key in ("category", "task", "source") if isinstance(row.get(key), str)), "")
    return found or otherwise
