"""The local speaker on a random LLaMA in fp32: what it says must follow from the dialogue and the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from parrot_lite.chat.local import LocalChat, RowSeededGumbel
from parrot_lite.recipe import Decoding, Local
from parrot_lite.types import Dialogue, Reply, Role
from tests.tiny import CONTEXT, recipe, sessions, tiny_model

SAMPLED = Decoding(temperature=0.9, top_p=0.95, max_tokens=24)
GREEDY = Decoding(temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_model(tmp_path_factory.mktemp("base") / "tiny") as folder:
        yield folder


def opened(folder: Path, base: Path, batch: int = 4, template: str = "auto") -> LocalChat:
    return LocalChat(Local(kind="local", batch=batch), recipe(folder, base, template=template))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, base: Path) -> LocalChat:
    return opened(tmp_path_factory.mktemp("runs"), base)


def waiting(speaker: Role, count: int = 5) -> list[Dialogue]:
    """Dialogues of different lengths in which ``speaker`` is due."""
    made = []
    for index, one in enumerate(sessions()[:count]):
        turns = 2 * (index % 3) + (1 if speaker == "assistant" else 2)
        made.append(one.model_copy(update={"turns": one.turns[:turns]}))
    return made


def said(replies: list[Reply]) -> list[tuple[str | None, str, int | None]]:
    return [(reply.text, reply.stop, reply.tokens) for reply in replies]


@pytest.mark.parametrize("speaker", ["user", "assistant"])
def test_a_reply_depends_on_its_dialogue_and_seed_alone(
    tmp_path: Path, base: Path, chat: LocalChat, speaker: Role
) -> None:
    dialogues = waiting(speaker)
    together = said(chat.reply(dialogues, speaker, SAMPLED, seed=7))
    assert len({text for text, *_ in together}) == len(dialogues)
    assert said(chat.reply(dialogues, speaker, SAMPLED, seed=7)) == together
    assert said(chat.reply(dialogues[::-1], speaker, SAMPLED, seed=7))[::-1] == together
    assert [said(chat.reply([one], speaker, SAMPLED, seed=7))[0] for one in dialogues] == together
    for batch in (1, 2, 5):
        assert said(opened(tmp_path, base, batch).reply(dialogues, speaker, SAMPLED, seed=7)) == together
    for one, other in zip(said(chat.reply(dialogues, speaker, SAMPLED, seed=8)), together, strict=True):
        assert one != other
    renamed = dialogues[0].model_copy(update={"id": "another"})
    assert said(chat.reply([renamed], speaker, SAMPLED, seed=7))[0] != together[0]


@pytest.mark.parametrize("speaker", ["user", "assistant"])
def test_greedy_is_that_of_transformers(chat: LocalChat, speaker: Role) -> None:
    dialogues = waiting(speaker)
    tokenizer = chat._renderer.tokenizer
    for dialogue, reply in zip(dialogues, chat.reply(dialogues, speaker, GREEDY, seed=1), strict=True):
        role = "<|im_start|>user\n" if speaker == "user" else "<|im_start|>assistant\n"
        text = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in dialogue.turns) + role
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        out = chat._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            pad_token_id=0,
            eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        )
        assert reply.text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert said(chat.reply(dialogues, speaker, GREEDY, seed=2)) == said(chat.reply(dialogues, speaker, GREEDY, seed=1))


def test_an_ended_and_a_cut_reply(tmp_path: Path, base: Path) -> None:
    """With the end-of-turn token made likely, replies end, without it in their text; they are counted with it."""
    chat = opened(tmp_path, base)
    end = chat._renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    head = chat._model.lm_head
    head.register_forward_hook(lambda _module, _inputs, out: out.index_add(-1, torch.tensor([end]), 6 * one(out)))
    replies = [r for seed in range(6) for r in chat.reply(waiting("assistant"), "assistant", SAMPLED, seed)]
    ended = [reply for reply in replies if reply.stop == "end"]
    assert ended
    for reply in ended:
        assert reply.text is not None
        assert reply.tokens is not None
        assert "<|im_end|>" not in reply.text
        assert reply.tokens <= 24
    assert len({reply.tokens for reply in ended}) > 2
    cut = [reply for reply in chat.reply(waiting("assistant"), "assistant", GREEDY, 0) if reply.stop == "length"]
    assert all(reply.tokens == 24 for reply in cut)


def one(out: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(out[..., :1])


@pytest.mark.parametrize(("padding", "stop"), [([], "end"), ([2, 2, 2], "end")])
def test_words_that_end_a_turn(tmp_path_factory: pytest.TempPathFactory, padding: list[int], stop: str) -> None:
    """A template without a token behind the query: the row stops at its words, and is padded if others go on."""
    folder = tmp_path_factory.mktemp("llama")
    with tiny_model(folder / "tiny", "llama_like") as base:
        chat = opened(folder, base, template="vicuna")
        ids, text = chat._renderer.stop_ids("user")
        assert (ids, text) == ([2], "ASSISTANT:")
        new = chat._renderer.encode("USER: And why? ASSISTANT:")[len(chat._renderer.encode("USER:")) :]
        reply = chat._reply(new + padding, 5, set(ids), text, 0.0)
        assert (reply.text, reply.stop, reply.tokens) == ("And why?", stop, len(new))
        replies = chat.reply(waiting("user"), "user", SAMPLED, seed=1)
        assert all(one.text and "</s>" not in one.text for one in replies)


def test_a_prompt_that_fills_the_context_is_a_failed_reply(chat: LocalChat) -> None:
    short = waiting("assistant", 2)
    long = Dialogue(id="long", source="test").say("ice " * CONTEXT)
    first, failed, second = chat.reply([short[0], long, short[1]], "assistant", GREEDY, seed=1)
    assert failed.text is None
    assert failed.stop == "failed"
    assert f"does not fit a context of {CONTEXT}" in (failed.reason or "")
    assert said([first, second]) == said(chat.reply(short, "assistant", GREEDY, seed=1))


def test_a_neighbour_near_the_end_of_the_context_takes_no_room(chat: LocalChat) -> None:
    short = waiting("assistant", 1)[0]
    text = "ice"
    while len(chat._renderer.prompt(Dialogue(id="n", source="t").say(text + " ice"))) <= CONTEXT - 3:
        text += " ice" * max(1, (CONTEXT - len(text)) // 99)
    near = Dialogue(id="n", source="t").say(text)
    room = CONTEXT - len(chat._renderer.prompt(near))
    assert 0 < room < GREEDY.max_tokens
    beside, cut = chat.reply([short, near], "assistant", GREEDY, seed=1)
    assert cut.tokens is None or cut.tokens <= room
    assert said([beside]) == said(chat.reply([short], "assistant", GREEDY, seed=1))


def test_an_empty_reply_is_a_failed_reply(tmp_path: Path, base: Path) -> None:
    chat = opened(tmp_path, base)
    with torch.no_grad():
        chat._model.lm_head.weight.zero_()  # all tokens alike: greedy takes the first, a special one
    for reply in chat.reply(waiting("assistant", 2), "assistant", GREEDY, seed=1):
        assert (reply.text, reply.stop, reply.reason) == (None, "failed", "empty reply")


def test_the_wrong_speaker_is_a_bug_of_the_caller(chat: LocalChat) -> None:
    with pytest.raises(ValueError, match="the assistant is due"):
        chat.reply(waiting("assistant"), "user", GREEDY, seed=1)


LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5, float("-inf")])
CHI_SQUARE = 18.47  # 4 degrees of freedom, p = 0.001


def chi_square(drawn: torch.Tensor) -> float:
    expected = LOGITS.softmax(0)[:5] * len(drawn)
    counts = torch.bincount(drawn, minlength=6)
    assert counts[5] == 0  # what top-p took away stays away
    return float(((counts[:5] - expected) ** 2 / expected).sum())


def test_gumbel_draws_follow_softmax() -> None:
    rows = RowSeededGumbel(range(4000))(torch.empty(0), LOGITS.repeat(4000, 1)).argmax(1)
    assert chi_square(rows) < CHI_SQUARE  # the first draws of many seeds
    stream = RowSeededGumbel([3])
    later = torch.cat([stream(torch.empty(0), LOGITS[None]).argmax(1) for _ in range(4000)])
    assert chi_square(later) < CHI_SQUARE  # the draws of one seed
    assert chi_square(torch.arange(4000) % 5) > CHI_SQUARE


def test_gumbel_rows_have_their_own_stream() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together, alone = RowSeededGumbel([5, 6, 7]), RowSeededGumbel([6])
    for _ in range(3):
        torch.testing.assert_close(together(torch.empty(0), scores)[1], alone(torch.empty(0), scores[1:2])[0])


def test_a_choice_weighs_every_text_by_its_likelihood(chat: LocalChat) -> None:
    (dialogue,) = waiting("assistant", 1)
    choices = ("no", "yes indeed", "a longer answer than the others")
    (reply,) = chat.reply([dialogue], "assistant", Decoding(choices=choices), seed=0)
    prompt = chat._renderer.prompt(dialogue)
    sums = []
    for choice in choices:
        answer = chat._renderer.encode(choice)
        ids = torch.tensor([prompt + answer])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        sums.append(-chat._model(ids, labels=labels).loss.item() * len(answer))
    expected = torch.tensor(sums).softmax(0)
    assert reply.weights == pytest.approx(expected.tolist(), rel=1e-4)
    assert reply.text == choices[int(expected.argmax())]
