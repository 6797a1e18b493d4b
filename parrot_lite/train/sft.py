"""SFT of either speaker (paper sections 3.1 and 3.2): Parrot-Ask is ``speaker="user"``, Parrot-Chat ``"assistant"``."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal

from parrot_lite.errors import UserError
from parrot_lite.progress import progress, say
from parrot_lite.recipe import Recipe
from parrot_lite.store import RunFolder, count, dialogue_files, model_inputs, read, stage_folder
from parrot_lite.types import Dialogue, Role

if TYPE_CHECKING:
    from parrot_lite.lm.tokens import Example, Renderer

SftStage = Literal["train-ask", "train-sft"]
MANY = 2000  # sessions that take long enough to render for a bar
SPEAKERS: dict[SftStage, Role] = {"train-ask": "user", "train-sft": "assistant"}


def run(recipe: Recipe, stage: SftStage, rerun: bool = False) -> None:
    """Train the stage's speaker; the adapter then lies in the stage's folder under ``adapter/``."""
    section = recipe.ask if stage == "train-ask" else recipe.sft
    files = dialogue_files(recipe, section.data)
    with stage_folder(recipe, stage, {**files, **model_inputs(recipe.model)}, rerun) as folder:
        if folder is None:
            return
        # torch and transformers take seconds to import; a finished stage answers without them.
        from parrot_lite.lm.model import load_renderer
        from parrot_lite.train.speaker_trainer import fit_speaker

        renderer = load_renderer(recipe.model)
        dialogues = chain.from_iterable(read(path, Dialogue) for path in files.values())
        wanted = (first_turns(dialogue, section.turns) for dialogue in islice(dialogues, section.sessions))
        there = sum(map(count, files.values()))
        total = there if section.sessions is None else min(there, section.sessions)
        kept = examples(renderer, wanted, SPEAKERS[stage], section.max_tokens, folder, total)
        fit_speaker(recipe, section, kept, folder)


def first_turns(dialogue: Dialogue, turns: int | None) -> Dialogue:
    """The session's first exchanges; None = all of them."""
    return dialogue if turns is None else dialogue.model_copy(update={"turns": dialogue.turns[: 2 * turns]})


def examples(
    renderer: Renderer, dialogues: Iterable[Dialogue], speaker: Role, max_tokens: int, folder: RunFolder, total: int
) -> list[Example]:
    """What the loss sees, with every turn and session that ``max_tokens`` left off counted in ``folder``.

    ``total`` is the number of dialogues, for the bar. Raises UserError where nothing is left.
    """
    kept = []
    with progress(f"{folder.stage}: rendering", total) if total > MANY else nullcontext() as bar:
        for dialogue in dialogues:
            if bar is not None:
                bar.advance()
            folder.counts["sessions read"] += 1
            example = renderer.example(dialogue, speaker, max_tokens)
            if example is None:
                folder.counts["sessions left out: no turn fits max_tokens"] += 1
                continue
            folder.counts["turns left off behind max_tokens"] += example.cut
            kept.append(example)
    if not kept:
        raise UserError("no session is left to train on", f"{folder.stage}", "Raise max_tokens or add data")
    if folder.counts["turns left off behind max_tokens"]:
        say(
            f"{folder.stage}: {folder.counts['turns left off behind max_tokens']} turns lie behind max_tokens, left off"
        )
    return kept
