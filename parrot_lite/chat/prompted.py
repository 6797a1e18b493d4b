"""An instruct model that is told to play the user: the paper's baseline for Parrot-Ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_lite.recipe import Decoding
from parrot_lite.store import locate
from parrot_lite.types import Dialogue, Reply, Role

if TYPE_CHECKING:
    from parrot_lite.chat import Chat

# A dialogue opens with its user, whom the model plays as "assistant"; templates insist that "user" comes first.
OPENING = "Hello! What can I do for you?"


def instruction() -> Path:
    """The file that tells the model what to do; its bytes decide what an asker says."""
    return locate("package:parrot_lite/data/prompts/asker.txt")


def flipped(dialogue: Dialogue, told: str) -> Dialogue:
    """The dialogue with its roles exchanged behind a message that tells the model to play the user.

    The instruction is a user's message, since templates of small models have no system role. The id is another one,
    so that seeds and kept prefixes of the two sides are told apart where one model plays both.
    """
    view = Dialogue(id=f"{dialogue.id}/asker", source=dialogue.source).say(f"{told}\n\n{OPENING}")
    for turn in dialogue.turns:
        view = view.say(turn.content)
    return view


class Prompted:
    """A chat whose user's turns come from an instruct model's assistant."""

    def __init__(self, chat: Chat) -> None:
        self.name = chat.name
        self._chat, self._told = chat, instruction().read_text(encoding="utf-8").strip()

    def reply(self, dialogues: Sequence[Dialogue], speaker: Role, decoding: Decoding, seed: int) -> list[Reply]:
        """See ``Chat.reply``."""
        if speaker == "assistant":
            return self._chat.reply(dialogues, speaker, decoding, seed)
        return self._chat.reply([flipped(dialogue, self._told) for dialogue in dialogues], "assistant", decoding, seed)

    def close(self) -> None:
        """Close the chat."""
        self._chat.close()
