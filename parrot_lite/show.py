"""A dialogue as the model sees it: every token, the trained ones coloured. Masks are where good people err."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.text import Text

from parrot_lite.errors import UserError
from parrot_lite.recipe import Recipe
from parrot_lite.store import read
from parrot_lite.types import Dialogue, Role, SessionTree

if TYPE_CHECKING:
    from parrot_lite.lm.tokens import Renderer


def run(file: Path, recipe: Recipe, speaker: str, number: int) -> None:
    """Print line ``number`` of ``file``. Raises UserError for another speaker or a line that is not there."""
    if speaker not in ("user", "assistant"):
        raise UserError(f"'{speaker}' is no speaker", "--speaker", "Write user or assistant")
    from parrot_lite.lm.model import load_renderer

    dialogue = _pick(file, number)
    view, trained, total = coloured(load_renderer(recipe.model), dialogue, cast(Role, speaker))
    console = Console(highlight=False)
    console.print(view)
    legend = Text(f"{dialogue.id} ({dialogue.source}): the {speaker}'s ")
    legend.append(f"{trained} trained tokens", TRAINED).append(f" of {total}")
    console.print(legend)


TRAINED, OTHER = "bold black on green", "dim"


def coloured(renderer: Renderer, dialogue: Dialogue, speaker: Role) -> tuple[Text, int, int]:
    """The session as text, what the loss of ``speaker`` sees in colour; trained tokens and all tokens."""
    rendered = renderer.render(dialogue)
    mask = rendered.mask(speaker, first=False)
    view = Text()
    # In runs: a character may be several tokens, none of which can be written alone.
    for on, run in groupby(zip(mask, rendered.ids, strict=True), key=lambda pair: pair[0]):
        piece = renderer.tokenizer.decode([token for _, token in run], skip_special_tokens=False)
        view.append(piece, TRAINED if on else OTHER)
    return view, sum(mask), len(mask)


def _pick(file: Path, number: int) -> Dialogue:
    kind: type[Dialogue] | type[SessionTree] = SessionTree if file.name == "trees.jsonl" else Dialogue
    for at, record in enumerate(read(file, kind), 1):
        if at == number:
            return record.dialogue if isinstance(record, SessionTree) else record
    raise UserError(f"no line {number}", str(file), "Choose a smaller --number")
