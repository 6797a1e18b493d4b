"""Doubles for the collection's tests: a speaker that is a function, and the recipe that the tests start from."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from parrot_lite.chat import check_due
from parrot_lite.recipe import Decoding, Recipe
from parrot_lite.recipe_file import load
from parrot_lite.types import Dialogue, Reply, Role

DEMO = Path(__file__).parents[2] / "recipes" / "demo.toml"


def said(text: str) -> Reply:
    return Reply(text=text, stop="end", tokens=len(text.split()))


class FunctionChat:
    """Says what a function of the dialogue returns; remembers what it was shown."""

    def __init__(self, answer: Callable[[Dialogue], Reply], name: str = "function") -> None:
        self.name, self._answer = name, answer
        self.shown: list[Dialogue] = []
        self.batches: list[int] = []
        self.seeds: list[int] = []
        self.closed = 0

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        check_due(dialogues, speaker)
        self.shown += dialogues
        self.batches.append(len(dialogues))
        self.seeds.append(seed)
        return [self._answer(dialogue) for dialogue in dialogues]

    def close(self) -> None:
        self.closed += 1


def script(path: Path, lines: Sequence[str | None]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return f'{{ kind = "scripted", path = "{path}" }}'


def recipe_in(folder: Path, *overrides: str) -> Recipe:
    return load(DEMO, [f"run.folder={json.dumps(str(folder / 'runs'))}", *overrides])
