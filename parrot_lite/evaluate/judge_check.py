"""``parrot judge-check``: the judge of a recipe on answers of which it is known how they should fare; prints its card.

The answers are those of a finished evaluation, so that the judge is checked on what it has to compare. The verdicts are
appended as they come, under the hash of what they come from; running again goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path

from parrot_lite.chat import Chat, all_at_once, inputs_of, lanes, open_chat
from parrot_lite.chat.meter import Meter, check_prices
from parrot_lite.errors import UserError
from parrot_lite.evaluate import agreement, bench, judge
from parrot_lite.evaluate.agreement import LabelledAnswer
from parrot_lite.evaluate.card import ALTERATIONS, CARD, FOLDER, REPEATS, Item, altered, card, draw, evaluated
from parrot_lite.evaluate.estimates import Numbers
from parrot_lite.evaluate.evaluation import keep
from parrot_lite.evaluate.prompts import Prompts, load_prompts
from parrot_lite.evaluate.records import ANSWERS, Played, Question
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Judge, Recipe
from parrot_lite.store import Journal, existing_file, fingerprint, read, require_unchanged, write_atomically
from parrot_lite.table import Report
from parrot_lite.types import Judgment, derive_seed

LABELLED = "labelled"
AGAIN = "again"


def run(recipe: Recipe, items: int, model: str | None, labels: Path | None) -> None:
    """Print the card, and write it as ``card.md`` and ``card.json`` to ``<recipe>/judge-check/``.

    ``model`` is whose answers are taken (None = the first), ``labels`` a file of ``LabelledAnswer`` lines. Raises
    UserError where the recipe has no judge, its evaluation is not finished, calls failed, or there is nothing to check
    on.
    """
    settings = recipe.eval.judge
    if settings is None:
        raise UserError("the recipe has no judge", "eval.judge", "Name one, e.g. by extending a file of recipes/judges")
    name = model or next(iter(recipe.eval.models))
    if name not in recipe.eval.models:
        raise UserError("no such model", name, f"Name one of {', '.join(recipe.eval.models)}")
    check_prices(recipe, [settings.chat])
    made = require_unchanged(recipe, "eval")
    answers = made / ANSWERS
    questions = judge.with_references(list(read(made / bench.QUESTIONS, Question)), settings)  # as they were asked
    played = [one for one in read(answers, Played) if one.model == name]
    seed = derive_seed(recipe.run.seed, "judge-check")
    drawn = draw(played, questions, items, seed)
    if len({item.question.id for item in drawn}) < 2:
        what = f"{name} answered a second turn in fewer than two sessions"
        raise UserError(what, str(answers), "Raise eval.sessions, or name another model by --model")
    labelled = list(read(existing_file(labels), LabelledAnswer)) if labels else []
    folder = recipe.folder(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    prompts = load_prompts(settings.prompt)
    path = folder / f"verdicts-{_computed_from(recipe, settings, drawn, labelled)}.jsonl"
    cases = [*_altered(drawn), *_labelled(labelled)]
    with Meter(recipe, folder) as meter, closing(open_chat(settings.chat, recipe, meter)) as chat:
        _judge(cases, chat, prompts, settings, seed, path)
    verdicts = list(read(path, Judgment))
    numbers = Numbers(recipe.eval.resamples, derive_seed(recipe.run.seed, "bootstrap"))
    lengths = {(item.question.id, item.turn): len(item.answer.split()) for item in drawn}
    judge_name = f"{chat.name}@{prompts.name}"
    found = card(judge_name, _of_items(verdicts, drawn), lengths, numbers)
    found = found.model_copy(update={"evaluation": evaluated(recipe)})
    tables = [found.table()]
    if labelled:
        by_id = {one.dialogue: one.score for one in verdicts}
        scores = [by_id[f"{LABELLED}/{at}"] for at in range(len(labelled))]
        tables.append(agreement.table(judge_name, labelled, scores))
    report = Report(
        title=f"Judge of {recipe.name}",
        facts=(
            ("judge", judge_name),
            ("answers", f"{found.items} turns of {found.sessions} sessions, by {name}"),
            ("seed", str(recipe.run.seed)),
        ),
        warnings=(found.red_line,) if found.red_line else (),
        tables=tuple(tables),
    )
    write_atomically(folder / "card.md", report.markdown())
    write_atomically(folder / CARD, found.model_dump_json(indent=1) + "\n")
    report.show()
    say(f"the same as files: {folder / 'card.md'}, {folder / CARD}; parrot report takes the card up")


Asked = tuple[Played, Question]


def _altered(items: Sequence[Item]) -> Iterator[Asked]:
    """What the judge is asked about the items: each altered, and as it came again and again."""
    for alteration in ALTERATIONS:
        for at, item in enumerate(altered(items, alteration)):
            yield _asked(alteration, at, item)
    for number in range(2, REPEATS + 1):
        for at, item in enumerate(items):
            yield _asked(f"{AGAIN} {number}", at, item)


def _labelled(labelled: Sequence[LabelledAnswer]) -> Iterator[Asked]:
    for at, one in enumerate(labelled):
        queries = one.dialogue.queries
        references = (*[None] * (len(queries) - 1), one.reference)
        question = Question(id=one.id, category=one.category, queries=queries, references=references)
        yield _asked(LABELLED, at, Item(question, one.dialogue))


def _asked(name: str, at: int, item: Item) -> Asked:
    """A session that ends with the item's turn, under an id of its own: a session may have several items."""
    id = f"{name}/{at}"
    question = Question(
        id=id,
        category=item.question.category,
        queries=item.dialogue.queries,
        references=item.question.references[: item.turn],
    )
    return Played(
        model=name, category=item.question.category, dialogue=item.dialogue.model_copy(update={"id": id})
    ), question


class _Earlier:
    """Holds every turn but the last of each session, and the last where it is in the journal."""

    def __init__(self, last: Mapping[str, int], journal: Journal[Judgment]) -> None:
        self._last, self._journal = last, journal

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, tuple)
        _, id, turn = key
        return turn != self._last[id] or id in self._journal


def _judge(asked: Sequence[Asked], chat: Chat, prompts: Prompts, settings: Judge, seed: int, path: Path) -> None:
    at_once = (1, len(asked)) if all_at_once(settings.chat) else lanes(settings.chat)
    last = {question.id: len(question.queries) for _, question in asked}
    failures: list[str] = []
    with (
        Journal(path, Judgment, lambda one: one.dialogue) as journal,
        progress("judge-check", len(asked), len(journal)) as bar,
    ):
        bar.announce()
        # A repeat is the same call with another seed: a judge that draws says something else.
        for again, group in groupby(asked, lambda each: each[0].model if each[0].model.startswith(AGAIN) else ""):
            played, questions = zip(*group, strict=True)
            drawn = derive_seed(seed, again) if again else seed
            earlier = _Earlier(last, journal)
            verdicts = judge.judge(played, questions, chat, prompts, settings, drawn, at_once, earlier)
            failures += keep(verdicts, journal, bar)
            if failures:
                break
    if failures:
        what = f"{len(failures)} verdicts failed, the first because: {failures[0]}"
        raise UserError(what, str(path.parent), "The others are kept; run it again to retry these")


def _of_items(verdicts: Sequence[Judgment], items: Sequence[Item]) -> list[Judgment]:
    """The verdicts on the items, under the names of their sessions and turns."""
    return [
        one.model_copy(update={"dialogue": item.question.id, "turn": item.turn})
        for one in verdicts
        if one.model != LABELLED
        for item in (items[int(one.dialogue.rpartition("/")[2])],)
    ]


def _computed_from(recipe: Recipe, settings: Judge, items: Sequence[Item], labelled: Sequence[LabelledAnswer]) -> str:
    named = {
        "judge": settings.model_dump(mode="json"),
        "chat": {name: fingerprint(path) for name, path in inputs_of(settings.chat, recipe).items()},
        "prompts": {name: fingerprint(path) for name, path in judge.inputs(settings).items()},
        "items": [item.dialogue.model_dump(mode="json") for item in items],
        "labelled": [one.model_dump(mode="json") for one in labelled],
        "seed": recipe.run.seed,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]
