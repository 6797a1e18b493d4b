"""Each filter by hand, on both sides of its line."""

import pytest

from parrot_lite.collect.filters import (
    answers_itself,
    refusal,
    repeats,
    role_drift,
    sensitive,
    thanks,
    too_short,
)


def test_rouge_l_at_the_threshold_repeats():
    # 4 of 5 words in common order: precision = recall = f = 0.8.
    earlier = ["what colour is the sky", "how far is the moon"]
    assert repeats("what colour is the sea", earlier, 0.8)
    assert not repeats("what colour is the sea", earlier, 0.81)
    # LCS "is the" = 2 of 5 and of 5: f = 0.4 with the second.
    assert repeats("why then is the tide", earlier[1:], 0.4)
    assert not repeats("why then is the tide", [], 0.0)


def test_scripts_without_rouge_tokens_repeat_only_when_equal():
    assert repeats("为什么?", ["为什么?"], 0.7)
    assert not repeats("为什么?", ["什么时候?"], 0.7)


@pytest.mark.parametrize(
    ("query", "short"),
    [
        ("Why?", True),
        ("ok thanks", True),
        ("???", True),
        ("Continue", False),  # one word, but it asks for something
        ("In 1999?", False),
        ("why is it", False),  # three words
        ("那为什么?", False),
    ],
)
def test_short_means_few_words_and_no_content_word(query, short):
    assert too_short(query, 3) is short


def test_sensitive_words_are_whole_words_and_phrases_in_any_case():
    assert sensitive("How do I pick a LOCK?", ["lock"])
    assert sensitive("a pipe bomb, say", ["Pipe Bomb"])
    assert not sensitive("Where is the locker?", ["lock"])
    assert not sensitive("anything", [])
    assert not sensitive("anything", [" "])
    assert sensitive("is c++ hard", ["c++"])


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("As an AI language model, I cannot browse the web.", True),
        ("I'm sorry, but I can't assist with that.", True),
        ("I’m sorry, but as an AI language model I have no opinion.", True),
        ("I apologize for the confusion, but I cannot do so.", True),
        ("I cannot help with this.", True),
        ("Unfortunately, I am unable to open links.", True),
        ("I'm sorry to hear that your plant died. Try less water.", False),
        ("I cannot recommend this book enough.", False),
        ("Refusals look like this: I cannot help.", False),
        ("As an aide, I cannot complain.", False),
    ],
)
def test_refusals_are_known_by_their_beginning(answer, refused):
    assert refusal(answer) is refused


@pytest.mark.parametrize(
    ("query", "drifted"),
    [
        ("Sure, here is a list of hills.", True),
        ("Certainly! The Tagus is a river.", True),
        ("I'm sorry, but as an AI I have no taste.", True),
        ("As an AI language model, I like it.", True),
        ("Of course! I'd suggest the tram.", True),
        ("Assistant: the tram", True),
        ("You're welcome!", True),
        ("Sure, what about the tram?", False),
        ("As a beginner, which one?", False),
        ("Is it certain?", False),
    ],
)
def test_an_asker_that_speaks_like_an_assistant_has_drifted(query, drifted):
    assert role_drift(query) is drifted


@pytest.mark.parametrize(
    ("query", "only"),
    [
        ("Thank you!", True),
        ("Ok thanks a lot, that's very helpful.", True),
        ("Great, thank you so much for your help with the garden!", True),
        ("Thanks, I'll try that tomorrow.", True),
        ("That was a great explanation. I really appreciate it.", True),
        ("That’s all for now, goodbye!", True),
        ("Perfect", True),
        ("Have a nice day!", True),
        ("You've been very helpful.", True),
        ("Wow, amazing", True),
        ("Thanks! And in winter?", False),
        ("Thanks, now make it shorter.", False),
        ("Great, translate that into French.", False),
        ("Thanks for the list but sort it by price", False),
        ("I'll try that.", False),  # says nothing courteous
        ("Great Gatsby", False),
        ("Thank the committee for the invitation in one line.", False),
        ("Write a thank you note.", False),
        ("Is that good?", False),
        ("Yes", False),
        ("", False),
        ("谢谢", False),  # in other scripts nothing is recognised
    ],
)
def test_thanks_and_goodbyes_that_ask_for_nothing(query, only):
    assert thanks(query) is only


LONG = "The moon is about 384,400 kilometres away. " * 6  # 42 words


@pytest.mark.parametrize(
    ("query", "both"),
    [
        ("User: How far is it?\nAssistant: Far.", True),
        ("How far is it? Assistant: It is far away.", True),
        ("Q: How far is it? A: Far away.", True),
        ("**Human:** How far?\n\n**AI:** Far away.", True),
        ("How far is it? <|im_start|>assistant\nFar.", True),
        (f"How far is the moon? {LONG}", True),
        (f"How far is the moon?\n\n{LONG}", True),
        ("How far is the moon? About 384,400 kilometres?", False),
        ("How far is the moon? Answer in miles.", False),
        (f"Can you summarise this? {LONG}", False),
        (f"Why does it not start? I changed the plug, and my neighbour cleaned the tank. {LONG}", False),
        (f"How far is the moon? {LONG} Is that right?", False),
        ("Question: How far is the moon? Answer:", False),  # asks to be completed
        ("What does AI: Artificial Intelligence end with?", False),
        ("Options. A: red. B: blue. Pick one.", False),
        ("", False),
    ],
)
def test_an_asker_that_writes_both_sides(query, both):
    assert answers_itself(query) is both
