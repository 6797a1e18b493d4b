import time

import pytest

from parrot_lite.context import dependence, other_history
from tests.test_types import talk


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("Is it treatable?", "pronoun"),
        ("What are their symptoms?", "pronoun"),
        ("Where was he born?", "pronoun"),
        ("Who invented it?", "pronoun"),
        ("Can you explain that in simpler words?", "demonstrative"),
        ("tell me about that.", "demonstrative"),
        ("What do these numbers mean?", "demonstrative"),
        ("Which ones are free?", "demonstrative"),
        ("How do I choose a new one?", "demonstrative"),
        ("and in winter?", "ellipsis"),
        ("why not?", "ellipsis"),
        ("Now the door stopped working. Why?", "ellipsis"),
        ("continue", "ellipsis"),
        ("shorter", "ellipsis"),
        ("Yes, please.", "ellipsis"),
        ("What is the address and phone number?", "definite"),
        ("What about chickens?", "ellipsis"),
        ("Give me another example.", "cue"),
        ("Please list five more", "cue"),
        ("I would prefer a Thai place instead", "cue"),
        ("Rewrite the second paragraph for children", "cue"),
    ],
)
def test_leans_on_the_history(query: str, rule: str) -> None:
    assert dependence(query, 2) == rule
    assert dependence(query, 1) is None  # a first query has no history


@pytest.mark.parametrize(
    "query",
    [
        "Tell me about lung cancer.",
        "How is ocean crust formed?",
        "What are good sources of vitamin B12?",
        "Is it possible to grow tomatoes indoors?",
        "How long does it take to boil an egg?",
        "It seems the trains to Leeds are late today. Where can I see delays?",
        "Write a story about a dog and its owner.",
        "Who was Marie Curie and why is she famous?",
        "I read that coffee keeps people awake. How does caffeine work?",
        "What should I plant this summer in Norway?",
        "Thank you, goodbye.",
        "That's all I need, thanks!",
        "No, that will be all. Thank you!",
        "Perfect, thank you",
    ],
)
def test_stands_alone(query: str) -> None:
    assert dependence(query, 5) is None


def test_a_query_that_brings_the_referent_is_independent() -> None:
    text = "The harbour was closed for two days because of the storm. " * 5
    assert dependence(f"Summarize this text: {text}", 3) is None
    assert dependence(f"Make it shorter:\n\n{text}", 3) is None
    assert dependence("Summarize this text", 3) == "demonstrative"
    assert dependence(f"Describe harbours.\n\n{text} They opened it again after that.", 3) is None


@pytest.mark.parametrize("query", ["", "   ", "?", "\n", "…"])
def test_nothing_asked(query: str) -> None:
    assert dependence(query, 2) is None


@pytest.mark.parametrize("text", ["A an my " * 20_000, "it is so " * 20_000, "thanks that is " * 20_000, "x" * 200_000])
def test_a_long_paste_takes_no_time(text: str) -> None:
    start = time.monotonic()
    dependence(text, 2)
    assert time.monotonic() - start < 2


def test_another_history_is_as_long_as_the_true_one_where_some_session_has_it():
    one, two, three = talk("A?", "a."), talk("B?", "b.", "C?", "c.", name="two"), talk("D?", name="three")
    sessions = [one.model_copy(update={"id": "one"}), two, three]
    for seed in range(9):
        assert other_history(sessions, "one", 3, seed) == two.turns  # the one with two exchanges
        assert other_history(sessions, "one", 2, seed) == two.turns[:2]
        assert other_history(sessions, "two", 3, seed) == one.turns  # nobody has two: the longest there is
        assert other_history(sessions, "two", 1, seed) == ()
    drawn = {other_history([*sessions, talk("E?", "e.", name="four")], "one", 2, seed) for seed in range(20)}
    assert drawn == {two.turns[:2], talk("E?", "e.").turns}
    with pytest.raises(ValueError, match="no session but one has a history"):
        other_history([sessions[0], three], "one", 2, 0)
