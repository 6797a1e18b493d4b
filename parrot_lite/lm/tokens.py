"""Dialogue → tokens, and whose each token is: the one place where text becomes ids.

The text is tokenised whole and every token is given to the message whose content or end-of-turn mark it touches, so
ids are exactly what the model sees elsewhere, and a mask cannot drift from them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parrot_lite.errors import UserError
from parrot_lite.lm.forest import Row
from parrot_lite.lm.template import Template, source_of
from parrot_lite.lm.tree import Answer, Limb, TokenTree
from parrot_lite.types import Dialogue, Role

IGNORE = -100  # what torch's cross-entropy skips; padding labels with anything else trains on padding


@dataclass(frozen=True)
class Rendered:
    """A session as tokens. ``messages[i]`` is the index (from 0) of the message that token i belongs to, or None.

    ``ends[m]`` is the token at which the end-of-turn mark of message m begins; None where the template has no mark.
    """

    ids: tuple[int, ...]
    messages: tuple[int | None, ...]
    ends: tuple[int | None, ...]

    def mask(self, speaker: Role, first: bool = True) -> tuple[bool, ...]:
        """True at the tokens of ``speaker``, content and end-of-turn mark; ``first=False`` spares the first message."""
        parity = 0 if speaker == "user" else 1
        return tuple(m is not None and m % 2 == parity and (first or m > 0) for m in self.messages)


@dataclass(frozen=True)
class Example:
    """One session for SFT: ids and labels of one length, and how many messages did not fit.

    Arrays: all sessions are held at once, and a tuple takes 36 bytes a token instead of 4.
    """

    ids: array[int]
    labels: array[int]
    cut: int

    @property
    def tree(self) -> TokenTree:
        """The session as a trunk, every run of labels being an answer."""
        on = [label != IGNORE for label in self.labels]
        starts = [i for i in range(1, len(on)) if on[i] and not on[i - 1]]
        ends = [i + 1 for i in range(len(on)) if on[i] and (i + 1 == len(on) or not on[i + 1])]
        answers = tuple(Answer(start, end, start - 1) for start, end in zip(starts, ends, strict=True))
        return TokenTree(self.ids, (Limb(0, 0, 0, len(self.ids)),), answers)


class Renderer:
    """A tokenizer together with its template."""

    def __init__(self, tokenizer: Any, template: str = "auto") -> None:
        if not tokenizer.is_fast:
            raise UserError("this tokenizer gives no offsets", "model.base", "Use a model with a fast tokenizer")
        self.tokenizer = tokenizer
        own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
        specials = {
            *tokenizer.all_special_tokens,
            *(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special),
        }
        self.template = Template(
            source_of(template, own), tokenizer.bos_token or "", tokenizer.eos_token or "", tuple(sorted(specials))
        )

    def encode(self, text: str) -> list[int]:
        """Ids of a text that brings its own special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def render(self, dialogue: Dialogue) -> Rendered:
        """The whole session."""
        text, spans = self.template.text(dialogue)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # A space before a message may be a token of its own; the prompt stops before it, so the speaker writes it.
        opens = [len(text[: span.start].rstrip(" ")) for span in spans]
        owners: list[int | None] = []
        ends: list[int | None] = [None] * len(spans)
        message = 0
        for token, (start, end) in enumerate(encoded.offset_mapping):
            while message < len(spans) and spans[message].close <= start:
                message += 1
            touches = message < len(spans) and end > opens[message]
            owners.append(message if touches else None)
            if touches and end > spans[message].end and ends[message] is None:
                ends[message] = token
        return Rendered(tuple(encoded.input_ids), tuple(owners), tuple(ends))

    def prompt(self, dialogue: Dialogue) -> list[int]:
        """What the due speaker continues: a prefix of the longer session's ids."""
        return self.encode(self.template.prompt(dialogue))

    def answer(self, context: Dialogue, prompt: Sequence[int], text: str, ended: bool = True) -> tuple[int, ...]:
        """What follows ``prompt``, the ids of ``context``, where ``text`` and its end-of-turn mark answer it.

        Without the mark where the speaker had not ``ended``. Raises UserError where the template's tokens of the prompt
        are not the beginning of prompt and answer.
        """
        rendered = self.render(context.say(text))
        last = len(context.turns)
        end = max(i for i, message in enumerate(rendered.messages) if message == last) + 1
        mark = rendered.ends[last]
        if not ended and mark is not None:
            end = mark
        if rendered.ids[: len(prompt)] != tuple(prompt):
            raise UserError(
                "the prompt's tokens are not a prefix of prompt and answer",
                f"dialogue {context.id}",
                "Choose a template",
            )
        return rendered.ids[len(prompt) : end]

    def row(self, context: Dialogue, text: str, ended: bool = True) -> Row:
        """The ids of ``context`` as a prompt, and those of its ``answer``. Raises as that does."""
        prompt = tuple(self.prompt(context))
        return prompt, self.answer(context, prompt, text, ended)

    def example(self, dialogue: Dialogue, speaker: Role, max_tokens: int) -> Example | None:
        """The session with labels on the turns of ``speaker`` (paper section 3.1), cut behind the last that fits.

        The first user turn is context, not a label (v1 of the paper). Tokens behind the last labelled turn teach
        nothing and are left off. None where no labelled turn fits.
        """
        rendered = self.render(dialogue)
        mask = rendered.mask(speaker, first=False)
        ends = [i + 1 for i in range(len(mask)) if mask[i] and (i + 1 == len(mask) or not mask[i + 1])]
        fitting = [end for end in ends if end <= max_tokens]
        if not fitting:
            return None
        ids = rendered.ids[: fitting[-1]]
        labels = (token if on else IGNORE for token, on in zip(ids, mask, strict=False))
        return Example(array("i", ids), array("i", labels), len(ends) - len(fitting))

    def stop_ids(self, speaker: Role) -> tuple[list[int], str | None]:
        """Token ids that end a turn of ``speaker``, and the text that does where the template has no special token."""
        stop = self.template.stop(speaker)
        ids = [i for i in (self.tokenizer.eos_token_id,) if i is not None]
        if stop in self.template.specials:
            return [*{*ids, self.tokenizer.convert_tokens_to_ids(stop)}], None
        return ids, stop
