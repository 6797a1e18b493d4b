"""Who can speak. One seam for a server, a GGUF file, a local model and a script, and for both speakers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from parrot_lite.chat.meter import Meter, Metered
from parrot_lite.recipe import ChatSpec, Decoding, Gguf, Local, Recipe, Scripted, Server, Stage
from parrot_lite.store import existing, existing_file, locate, model_inputs, require
from parrot_lite.types import Dialogue, Reply, Role


class Chat(Protocol):
    """A speaker. ``name`` is how records name it."""

    name: str

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """One reply a dialogue, in order; ``speaker`` must be due in each.

        What is drawn for a dialogue depends on ``seed``, its id and its length, not on its neighbours. A call that
        fails is a ``Reply(stop="failed")`` with its reason; it raises only UserError, for what no retry can mend.
        ``lanes`` says how many calls may go on at once.
        """
        ...

    def close(self) -> None:
        """Give back memory and connections."""
        ...


def check_due(dialogues: Sequence[Dialogue], speaker: Role) -> None:
    """Raises ValueError where it is not ``speaker``'s turn: a bug of the caller, not of a user."""
    for dialogue in dialogues:
        if dialogue.due != speaker:
            raise ValueError(f"dialogue {dialogue.id}: the {dialogue.due} is due, not the {speaker}")


def lanes(spec: ChatSpec) -> tuple[int, int]:
    """How many calls a speaker takes at once, each from a thread of its own, and how many dialogues a call may hold."""
    match spec:
        case Server():
            # Calls are bounded by the chat itself; those that wait to be made again must keep nobody from calling.
            return 2 * spec.concurrency, 1
        case Local():
            return 1, spec.batch
        case Gguf():
            return 1, spec.parallel
        case _:
            return 1, 1


def normalised(log_weights: Sequence[float]) -> tuple[float, ...]:
    """Probabilities in proportion to exp(log-probability), adding up to 1."""
    highest = max(log_weights)
    weights = [math.exp(weight - highest) for weight in log_weights]
    return tuple(weight / sum(weights) for weight in weights)


def inputs_of(spec: ChatSpec, recipe: Recipe) -> dict[str, Path]:
    """The files whose bytes decide what a speaker says, by name: what a stage fingerprints.

    Raises UserError where the adapter's stage is not finished or a file is missing.
    """
    match spec:
        case Gguf() | Scripted():
            return {spec.path: existing_file(locate(spec.path))}
        case Local():
            return {**model_inputs(recipe.model), **adapter_inputs(spec, recipe)}
        case Server():
            return {}


def all_at_once(spec: ChatSpec) -> bool:
    """Whether a stage should ask for everything in one call: a batch takes hours, however small it is."""
    return isinstance(spec, Server) and spec.batch


def describe(spec: ChatSpec) -> str:
    """A speaker in a few words, for a plan."""
    match spec:
        case Server():
            return f"{spec.model} at {', '.join(spec.addresses)}"
        case Gguf() | Scripted():
            return f"{spec.kind} {spec.path.rsplit('/', 1)[-1]}"
        case Local():
            return f"base with adapter {spec.adapter}" if spec.adapter else "base"


def adapter_inputs(spec: Local, recipe: Recipe) -> dict[str, Path]:
    """The adapter's folder under its name in the recipe; empty for the bare base."""
    if spec.adapter is None:
        return {}
    if spec.adapter in ("train-ask", "train-sft", "train-capo"):
        return {spec.adapter: require(recipe, cast(Stage, spec.adapter)) / "adapter"}
    return {spec.adapter: existing(Path(spec.adapter))}


def open_chat(spec: ChatSpec, recipe: Recipe, meter: Meter | None = None) -> Chat:
    """The speaker that a recipe names, its calls counted and capped by ``meter`` where one is given.

    Heavy libraries load here, each only where it is needed.
    """
    match spec:
        case Server(batch=True):
            from parrot_lite.chat.batch import BatchChat

            return BatchChat(spec, recipe.folder(".batches"), meter)  # counts what it sends, not what it has
        case Server():
            from parrot_lite.chat.server import ServerChat

            return ServerChat(spec, meter)  # counts every single try
        case Gguf():
            from parrot_lite.chat.gguf import GgufChat

            chat: Chat = GgufChat(spec)
        case Local():
            from parrot_lite.chat.local import LocalChat

            chat = LocalChat(spec, recipe)
        case Scripted():
            from parrot_lite.chat.scripted import ScriptedChat

            chat = ScriptedChat(spec)
    return chat if meter is None else Metered(chat, meter)
