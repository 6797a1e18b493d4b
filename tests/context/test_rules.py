import time

import pytest

from parrot_lite.context import dependence


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("Is it treatable?", "pronoun"),
        ("What are their symptoms?", "pronoun"),
        ("Where was he born?", "pronoun"),
        ("Who invented it?", "pronoun"),
        ("Why did Gutenberg build it?", "pronoun"),  # not Gutenberg: they stand in one clause
        ("Can you explain that in simpler words?", "demonstrative"),
        ("tell me about that.", "demonstrative"),
        ("What do these numbers mean?", "demonstrative"),
        ("Which ones are free?", "demonstrative"),
        ("How do I choose a new one?", "demonstrative"),
        ("and in winter?", "ellipsis"),
        ("why not?", "ellipsis"),
        ("Now the door stopped working. Why?", "ellipsis"),
        ("continue", "ellipsis"),
        ("again", "ellipsis"),
        ("Write something like that.", "demonstrative"),
        ("Can you make this better", "demonstrative"),
        ("Give me a good one.", "demonstrative"),
        ("Thanks, why?", "ellipsis"),
        ("Thanks, in French", "ellipsis"),
        ("thanks, shorter", "ellipsis"),
        ("Thanks, how do I strip those quotation marks?", "demonstrative"),
        ("shorter", "ellipsis"),
        ("Yes, please.", "ellipsis"),
        ("What is the address and phone number?", "definite"),
        ("What about chickens?", "ellipsis"),
        ("I don't mind. Give me a list.", "ellipsis"),
        ("I have no preference", "ellipsis"),
        ("Which models are available?", "relation"),
        ("How loud is the engine?", "definite"),
        ("Could you send me the recipe, please?", "definite"),
        ("What are the consequences for farmers?", None),  # a noun that no rule knows
        ("What are the implications for farmers?", "relation"),
        ("What is an example?", "relation"),
        ("How does Rust compare?", "relation"),
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
        "Did Ford sell his company?",
        "If I boil an egg, when is it done?",
        "How loud is the engine of a Vespa?",
        "What are the implications of drought for farmers?",
        "What about a cheap hotel near the station?",
        "Is there another way to Rome than the motorway?",
        "How does the sun shine?",
        "I don't care about the price range.",
        "No, that's all the help I need, bye!",
        "Who was Marie Curie and why is she famous?",
        "I read that coffee keeps people awake. How does caffeine work?",
        "What should I plant this summer in Norway?",
        "Thank you, goodbye.",
        "That's all I need, thanks!",
        "No, that will be all. Thank you!",
        "Perfect, thank you",
        "sweet",
        "ok good",
        "Great answer",
        "ok got it",
        "That's pretty fair.",
        "That's better!",
        "I like that",
        "thanks again",
        "Thank you, Carlos.",
        "Thanks, I appreciate it",
        "Thanks a lot, it works now!",
        "Thank you, this is exactly what I needed",
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
