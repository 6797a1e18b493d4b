from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_lite.errors import UserError
from parrot_lite.lm.tokens import IGNORE, Renderer
from parrot_lite.types import Dialogue, Role
from tests.lm.test_template import EVERY, dialogues, messages, session, shared
from tests.lm.tokenizers import TEMPLATES, byte_level, strings

ICE = session("Why is ice cold?", "Because heat leaves.", "And snow?", "It too.")

# (token, user, assistant), written by hand. The end-of-turn mark belongs to the turn that it ends.
MASKS = {
    "chatml": [
        ("<|im_start|>", 0, 0), ("user", 0, 0), ("\n", 0, 0),
        ("Why", 1, 0), ("▁is", 1, 0), ("▁ice", 1, 0), ("▁cold", 1, 0), ("?", 1, 0), ("<|im_end|>", 1, 0), ("\n", 0, 0),
        ("<|im_start|>", 0, 0), ("assistant", 0, 0), ("\n", 0, 0),
        ("Because", 0, 1), ("▁heat", 0, 1), ("▁leaves", 0, 1), (".", 0, 1), ("<|im_end|>", 0, 1), ("\n", 0, 0),
        ("<|im_start|>", 0, 0), ("user", 0, 0), ("\n", 0, 0),
        ("And", 1, 0), ("▁snow", 1, 0), ("?", 1, 0), ("<|im_end|>", 1, 0), ("\n", 0, 0),
        ("<|im_start|>", 0, 0), ("assistant", 0, 0), ("\n", 0, 0),
        ("It", 0, 1), ("▁too", 0, 1), (".", 0, 1), ("<|im_end|>", 0, 1), ("\n", 0, 0),
    ],
    "llama-2": [
        ("<s>", 0, 0), ("[", 0, 0), ("INST]", 0, 0),
        ("▁Why", 1, 0), ("▁is", 1, 0), ("▁ice", 1, 0), ("▁cold", 1, 0), ("?", 1, 0), ("▁[/INST]", 1, 0),
        ("▁Because", 0, 1), ("▁heat", 0, 1), ("▁leaves", 0, 1), (".", 0, 1), ("▁", 0, 1), ("</s>", 0, 1),
        ("<s>", 0, 0), ("[", 0, 0), ("INST]", 0, 0),
        ("▁And", 1, 0), ("▁snow", 1, 0), ("?", 1, 0), ("▁[/INST]", 1, 0),
        ("▁It", 0, 1), ("▁too", 0, 1), (".", 0, 1), ("▁", 0, 1), ("</s>", 0, 1),
    ],
    "vicuna": [
        ("<s>", 0, 0), ("USER", 0, 0), (":", 0, 0),
        ("▁Why", 1, 0), ("▁is", 1, 0), ("▁ice", 1, 0), ("▁cold", 1, 0), ("?", 1, 0), ("▁ASSISTANT:", 1, 0),
        ("▁Because", 0, 1), ("▁heat", 0, 1), ("▁leaves", 0, 1), (".", 0, 1), ("</s>", 0, 1),
        ("USER", 0, 0), (":", 0, 0),
        ("▁And", 1, 0), ("▁snow", 1, 0), ("?", 1, 0), ("▁ASSISTANT:", 1, 0),
        ("▁It", 0, 1), ("▁too", 0, 1), (".", 0, 1), ("</s>", 0, 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_masks_by_hand(template: str) -> None:
    rendered = shared(template).render(ICE)
    user, assistant = rendered.mask("user"), rendered.mask("assistant")
    tokens = strings(shared(template), rendered.ids)
    assert [(t, int(u), int(a)) for t, u, a in zip(tokens, user, assistant, strict=True)] == MASKS[template]


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        ("chatml", ["<|im_end|>"] * 4),
        ("llama-2", ["▁[/INST]", "▁", "▁[/INST]", "▁"]),  # the assistant's: a space and </s>
        ("vicuna", ["▁ASSISTANT:", "</s>", "▁ASSISTANT:", "</s>"]),
    ],
)
def test_where_marks_begin(template: str, marks: list[str]) -> None:
    rendered = shared(template).render(ICE)
    tokens = strings(shared(template), rendered.ids)
    assert [tokens[end] for end in rendered.ends if end is not None] == marks
    assert [rendered.messages[end] for end in rendered.ends if end is not None] == [0, 1, 2, 3]


def test_a_space_that_is_a_token_of_its_own_is_the_speakers() -> None:
    # LLaMA has no "▁7": the model must write "▁" and then "7", so both are labelled and neither is in the prompt.
    made = shared("llama-2")
    rendered = made.render(session("Why", "7"))
    tokens = strings(made, rendered.ids)
    assert tokens == ["<s>", "[", "INST]", "▁Why", "▁[/INST]", "▁", "<0x37>", "▁", "</s>"]
    assert rendered.messages == (None, None, None, 0, 0, 1, 1, 1, 1)
    assert strings(made, made.prompt(session("Why"))) == tokens[:5]


@pytest.mark.parametrize("speaker", ["user", "assistant"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_labels_by_hand(template: str, speaker: Role) -> None:
    example = shared(template).example(ICE, speaker, max_tokens=99)
    assert example is not None
    column = 1 if speaker == "user" else 2
    trained = [row[0] for row in MASKS[template] if row[column]]
    if speaker == "user":  # the first user turn is context: of the asker's labels only "And snow?" is left
        trained = [row[0] for row in MASKS[template] if row[1]][-4:]
        assert trained[:3] in (["And", "▁snow", "?"], ["▁And", "▁snow", "?"])
    assert strings(shared(template), [label for label in example.labels if label != IGNORE]) == trained
    assert all(label in (IGNORE, i) for label, i in zip(example.labels, example.ids, strict=True))
    assert example.labels[-1] != IGNORE  # nothing behind the last labelled turn
    assert example.cut == 0


@pytest.mark.parametrize("template", TEMPLATES)
@EVERY
@given(dialogue=dialogues)
def test_masks_are_disjoint_and_cover_every_content_token(template: str, dialogue: Dialogue) -> None:
    made = shared(template)
    rendered = made.render(dialogue)
    user, assistant = rendered.mask("user"), rendered.mask("assistant")
    assert not any(u and a for u, a in zip(user, assistant, strict=True))
    text, spans = made.template.text(dialogue)
    offsets = made.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    for (start, end), u, a in zip(offsets, user, assistant, strict=True):
        # Independent of the sweep in render(): overlap of intervals, span by span.
        # A space before a message is the speaker's to write: the prompt stops before it.
        of = {s.role for s in spans if start < s.close and end > len(text[: s.start].rstrip(" "))}
        assert start < end
        assert (u, a) == ("user" in of, "assistant" in of)
    first = rendered.mask("user", first=False)
    assert [m for m, on in zip(rendered.messages, first, strict=True) if on and m == 0] == []
    assert sum(first) == sum(m is not None and m % 2 == 0 and m > 0 for m in rendered.messages)


@pytest.mark.parametrize("template", TEMPLATES)
@EVERY
@given(dialogue=dialogues)
def test_every_message_ends_with_its_labelled_mark(template: str, dialogue: Dialogue) -> None:
    made = shared(template)
    rendered = made.render(dialogue)
    for index, turn in enumerate(dialogue.turns):
        own = [token for token, m in zip(rendered.ids, rendered.messages, strict=True) if m == index]
        assert made.tokenizer.decode(own).rstrip().endswith(made.template.stop(turn.role))
        assert len(own) >= 2


@pytest.mark.parametrize("template", TEMPLATES)
@EVERY
@given(dialogue=dialogues)
def test_a_prompt_is_the_beginning_of_the_longer_session(template: str, dialogue: Dialogue) -> None:
    made = shared(template)
    for length in range(len(dialogue.turns)):
        shorter = dialogue.model_copy(update={"turns": dialogue.turns[:length]})
        prompt = made.prompt(shorter)
        rendered = made.render(dialogue)
        assert tuple(prompt) == rendered.ids[: len(prompt)]
        # and it ends exactly where the due speaker's tokens begin
        assert rendered.messages.index(length) == len(prompt)


@pytest.mark.parametrize("template", TEMPLATES)
@EVERY
@given(dialogue=dialogues, chosen=messages, rejected=messages)
def test_chosen_and_rejected_share_the_prompt(template: str, dialogue: Dialogue, chosen: str, rejected: str) -> None:
    made = shared(template)
    context = dialogue.before(len(dialogue.queries))
    prompt = tuple(made.prompt(context))
    for answer in (chosen, rejected):
        assert made.render(context.say(answer)).ids[: len(prompt)] == prompt


@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_are_those_of_transformers(template: str) -> None:
    made = shared(template)
    tokenizer = made.tokenizer
    chat = [{"role": turn.role, "content": turn.content} for turn in ICE.turns]
    theirs = tokenizer.apply_chat_template(chat, chat_template=made.template.source, tokenize=True, return_dict=True)
    assert list(made.render(ICE).ids) == theirs["input_ids"]
    prompt = tokenizer.apply_chat_template(
        chat[:3], chat_template=made.template.source, add_generation_prompt=True, return_dict=True
    )
    assert made.prompt(ICE.before(2)) == prompt["input_ids"]


MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)


@EVERY
@given(texts=st.lists(messages, min_size=2, max_size=5))
def test_the_assistant_mask_is_that_of_transformers(texts: list[str]) -> None:
    made = shared("chatml")
    dialogue = session(*[made.template.neutral(text.strip()) for text in texts])
    chat = [{"role": turn.role, "content": turn.content} for turn in dialogue.turns]
    theirs = made.tokenizer.apply_chat_template(
        chat, chat_template=MARKED, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    rendered = made.render(dialogue)
    assert list(rendered.ids) == theirs["input_ids"]
    assert [int(on) for on in rendered.mask("assistant")] == theirs["assistant_masks"]


@pytest.mark.parametrize("speaker", ["user", "assistant"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_examples_are_cut_behind_whole_turns(template: str, speaker: Role) -> None:
    made = shared(template)
    long = session("Why is ice cold?", "Because heat leaves.", "And snow?", "It too.", "Why?", "Because.")
    rendered = made.render(long)
    parity = 0 if speaker == "user" else 1
    wanted = [m for m in range(6) if m % 2 == parity and m > 0]
    end = {m: max(i for i, owner in enumerate(rendered.messages) if owner == m) + 1 for m in wanted}
    for limit in range(1, len(rendered.ids) + 2):
        fitting = [m for m in wanted if end[m] <= limit]
        example = made.example(long, speaker, limit)
        if not fitting:
            assert example is None
            continue
        assert example is not None
        assert tuple(example.ids) == rendered.ids[: end[fitting[-1]]]
        assert example.cut == len(wanted) - len(fitting)
        assert len(example.labels) == len(example.ids) <= limit
        labelled = {rendered.messages[i] for i, label in enumerate(example.labels) if label != IGNORE}
        assert labelled == set(fitting)
    assert end[wanted[-1]] > end[wanted[0]]


def test_nothing_to_train_on_is_none() -> None:
    made = shared("chatml")
    assert made.example(session("only a query"), "assistant", 99) is None
    assert made.example(session("a query", "an answer"), "user", 99) is None


@pytest.mark.parametrize(
    ("template", "speaker", "ids", "text"),
    [
        ("chatml", "user", ["<|im_end|>"], None),
        ("chatml", "assistant", ["<|im_end|>"], None),
        ("llama-2", "user", ["</s>"], "[/INST]"),
        ("llama-2", "assistant", ["</s>"], None),
        ("vicuna", "user", ["</s>"], "ASSISTANT:"),
        ("vicuna", "assistant", ["</s>"], None),
    ],
)
def test_stops(template: str, speaker: Role, ids: list[str], text: str | None) -> None:
    made = shared(template)
    stop_ids, stop_text = made.stop_ids(speaker)
    assert made.tokenizer.convert_ids_to_tokens(stop_ids) == ids
    assert stop_text == text


def test_an_end_of_turn_token_that_is_not_the_end_of_text_also_stops() -> None:
    tokenizer: Any = byte_level()
    tokenizer.eos_token = "<|endoftext|>"
    stop_ids, text = Renderer(tokenizer, "chatml").stop_ids("assistant")
    assert set(tokenizer.convert_ids_to_tokens(stop_ids)) == {"<|endoftext|>", "<|im_end|>"}
    assert text is None


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="gives no offsets"):
        Renderer(Slow())
