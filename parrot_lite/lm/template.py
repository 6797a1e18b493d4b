"""Dialogue → text, for any chat template, knowing which characters are whose.

The template is rendered once with a sentinel in place of every message; what stands between the sentinels is the
template's own text. Putting the real messages back gives the session's text with exact spans, and comparing it with
the template's rendering of the real messages proves that the template does nothing else with them. This holds for
both speakers and needs neither ``{% generation %}`` marks nor one template class a model.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from parrot_lite.errors import UserError
from parrot_lite.types import Dialogue, Role, Turn

NAMES = ("chatml", "llama-2", "vicuna")


@dataclass(frozen=True)
class Span:
    """One message in a text: characters [start, end) are its content, [end, close) its end-of-turn mark."""

    role: Role
    start: int
    end: int
    close: int


@dataclass(frozen=True)
class Template:
    """A chat template with the special tokens it speaks of.

    ``specials`` are the strings that the tokenizer reads as one special token; the first of them behind a message
    ends that turn, and none of them may come from inside a message.
    """

    source: str
    bos: str
    eos: str
    specials: tuple[str, ...]

    def text(self, dialogue: Dialogue) -> tuple[str, tuple[Span, ...]]:
        """The session's text and a span a message. Raises UserError where the template alters messages."""
        contents = [self.neutral(turn.content) for turn in dialogue.turns]
        pieces = self._pieces(len(contents))
        text, spans = pieces[0], []
        for index, (content, after) in enumerate(zip(contents, pieces[1:], strict=True)):
            start = len(text)
            end = start + len(content)
            spans.append(Span(dialogue.turns[index].role, start, end, end + self._closing(after)))
            text += content + after
        if contents and text != self._render(contents):
            raise UserError(
                "this chat template changes the messages it is given",
                f"dialogue {dialogue.id}",
                "Choose another with model.template = 'chatml', 'llama-2' or 'vicuna'",
            )
        return text, tuple(spans)

    def prompt(self, dialogue: Dialogue) -> str:
        """The text up to where the due speaker's message begins: the exact beginning of the longer session's text."""
        placeholder = Turn(role=dialogue.due, content="x")
        whole = dialogue.model_copy(update={"turns": (*dialogue.turns, placeholder)})
        text, spans = self.text(whole)
        # A space before a message becomes part of its first token, so it is the speaker's to write.
        return text[: spans[-1].start].rstrip(" ")

    def stop(self, speaker: Role) -> str:
        """What ends a turn of ``speaker``: a special token's text, or the template's words behind it."""
        text, spans = self.text(_EXAMPLE)
        span = spans[2 if speaker == "user" else 1]
        return text[span.end : span.close].strip()

    def neutral(self, content: str) -> str:
        """A message in which no special token's text survives, so that nobody can end a turn from inside it."""
        for special in self.specials:
            content = content.replace(special, special[0] + " " + special[1:])
        return content

    def _closing(self, after: str) -> int:
        ends = [after.find(special) + len(special) for special in self.specials if special in after]
        return min(ends) if ends else len(after.rstrip())

    def _pieces(self, count: int) -> tuple[str, ...]:
        return _pieces(self, count)

    def _render(self, contents: Sequence[str]) -> str:
        messages = [{"role": "assistant" if i % 2 else "user", "content": c} for i, c in enumerate(contents)]
        try:
            rendered: str = _compiled(self.source).render(
                messages=messages, bos_token=self.bos, eos_token=self.eos, add_generation_prompt=False
            )
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template refuses a user-assistant dialogue: {error}", "model.template") from None
        return rendered


_EXAMPLE = Dialogue(
    id="example",
    source="example",
    turns=tuple(Turn(role="assistant" if i % 2 else "user", content=c) for i, c in enumerate("abcd")),
)


@functools.lru_cache(maxsize=512)
def _pieces(template: Template, count: int) -> tuple[str, ...]:
    if not count:
        return ("",)
    sentinels = [f"\ue000{index}\ue001" for index in range(count)]
    rest, pieces = template._render(sentinels), []
    for sentinel in sentinels:
        before, found, rest = rest.partition(sentinel)
        if not found:
            raise UserError("the chat template leaves messages out", "model.template", "Choose another template")
        pieces.append(before)
    return (*pieces, rest)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for transformers; here its body just stands where it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    def refuse(message: str) -> str:
        raise jinja2.TemplateError(message)

    # The environment in which model makers write chat templates: blocks trimmed, loop controls, these three names.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    # A fixed day: a prompt that changes with the calendar cannot be reproduced.
    environment.globals["strftime_now"] = datetime.datetime(2024, 7, 26).strftime
    return environment.from_string(source)


def source_of(name: str, own: str | None) -> str:
    """The template text that ``model.template`` names; ``own`` is what the tokenizer brings.

    Raises UserError where the tokenizer brings none or the file is missing.
    """
    if name == "auto":
        if own is None:
            raise UserError(
                "this model has no chat template of its own", "model.template", f"Set one of {', '.join(NAMES)}"
            )
        return own
    if name in NAMES:
        return resources.files("parrot_lite.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"no template '{name}'", "model.template", f"Use auto, {', '.join(NAMES)}, or a file") from None
