from __future__ import annotations

from pathlib import Path

import pytest

from parrot_lite.chat.scripted import ScriptedChat
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Scripted
from parrot_lite.types import Dialogue

DECODING = Decoding()
LINES = [f"reply {i}" for i in range(50)]


def dialogues(count: int) -> list[Dialogue]:
    return [Dialogue(id=f"d{i}", source="test").say("hello") for i in range(count)]


def script(path: Path, text: str) -> ScriptedChat:
    path.write_text(text, encoding="utf-8")
    return ScriptedChat(Scripted(kind="scripted", path=str(path)))


def test_a_reply_depends_on_id_and_length_alone() -> None:
    chat, several = ScriptedChat.of(LINES), dialogues(20)
    together = chat.reply(several, "assistant", DECODING, seed=1)
    alone = [ScriptedChat.of(LINES).reply([d], "assistant", DECODING, seed=2)[0] for d in reversed(several)]
    assert together == alone[::-1]
    assert len({reply.text for reply in together}) > 5
    longer = [d.say("x").say("y") for d in several]
    assert chat.reply(longer, "assistant", DECODING, seed=1) != together


def test_both_speakers() -> None:
    chat = ScriptedChat.of(["only this"])
    assert chat.reply([Dialogue(id="d", source="test")], "user", DECODING, 0)[0].text == "only this"
    with pytest.raises(ValueError, match="the user is due, not the assistant"):
        chat.reply([Dialogue(id="d", source="test")], "assistant", DECODING, 0)
    chat.close()


def test_null_is_a_failed_reply(tmp_path: Path) -> None:
    chat = script(tmp_path / "script.jsonl", "null\n\n")
    (reply,) = chat.reply(dialogues(1), "assistant", DECODING, 0)
    assert (reply.stop, reply.text, reply.reason) == ("failed", None, "scripted failure")


def test_a_file_keeps_line_separators_inside_strings(tmp_path: Path) -> None:
    chat = script(tmp_path / "script.jsonl", '"one\u2028two"\r\n')
    assert chat.reply(dialogues(1), "assistant", DECODING, 0)[0].text == "one\u2028two"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('"fine"\n"torn\n', "script.jsonl:2: not JSON"),
        ('"fine"\n\n7\n', "script.jsonl:3: neither a string"),
        ('"  "\n', "script.jsonl:1: neither a string"),
        ("\n", "script.jsonl: a script without replies"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        script(tmp_path / "script.jsonl", text)


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        ScriptedChat(Scripted(kind="scripted", path=str(tmp_path / "absent")))
    (tmp_path / "latin").write_bytes('"é"'.encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        ScriptedChat(Scripted(kind="scripted", path=str(tmp_path / "latin")))


def test_no_replies_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ScriptedChat.of([])
