"""What ends a session during collection (paper section 3.2): each rule is a pure function of text.

The paper removes repetitive, short and sensitive queries and gives no thresholds; ours are keys of [collect].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

WORD = re.compile(r"\w+(?:'\w+)*")
# Words that ask for nothing by themselves: with fewer than min_words words and only these, a query says nothing.
STOP_WORDS = frozenset(
    WORD.findall(
        """
        a about ah all also am an and any are as at be because been but by can could did do does for from had has have
        he hello her here hey hi him his how i if in into is it it's its just lol me more my no not nope of oh ok okay
        on or our please really she so some sure thank thanks that that's the their them then there these they this
        those to too very was we well were what what's when where which who why will with would wow yeah yep yes you
        your
        """
    )
)

MODEL = r"(?:an ai|an artificial intelligence|a (?:large )?language model)"
UNABLE = r"(?:can't|can not|cannot|won't|will not|am (?:unable|not able)|'m (?:unable|not able|sorry|afraid))"
SORRY = r"(?:(?:i'm|i am) (?:very |really |so )?sorry|sorry|my apologies|i apologi[sz]e(?: for [^,.]*)?|unfortunately)"
# Only verbs of helping: "I can't believe it" and "I cannot recommend it enough" are no refusals.
HELP = r"(?:to )?(?:assist|help|answer|comply|fulfil|provide|do that|do this|engage|discuss|generate|create|continue)"
REFUSAL = re.compile(
    rf"as {MODEL}\b[^.!?]{{0,60}}?\bi ?(?:{UNABLE}|(?:do not|don't) have (?:access|the ability|the capability))"
    rf"|{SORRY}[,.!]? (?:but )?(?:as {MODEL}\b|i ?{UNABLE})"
    rf"|i ?{UNABLE} {HELP}\b"
)
ROLE_DRIFT = re.compile(
    rf"(?:i'm sorry, but )?as {MODEL}\b"
    r"|certainly[!,]"
    r"|(?:sure|of course|absolutely)[!,.:]? (?:here|i can\b|i'd\b|i'll\b|i will\b|i would\b|let me\b)"
    r"|you're (?:very )?welcome\b"
    r"|(?:i'd|i would|i'm|i am) (?:be )?happy to (?:help|assist)\b"
    r"|how (?:can|may) i (?:help|assist) you\b"
    r"|i hope (?:this|that) helps\b"
    r"|i apologi[sz]e for\b"
    r"|(?:assistant|ai|chatgpt)\s*:"
)


def repeats(query: str, earlier: Sequence[str], max_rouge: float) -> bool:
    """Whether a query says what an earlier one of its session said: ROUGE-L f-measure of ``max_rouge`` or more."""
    # rouge_score keeps only a-z and 0-9, so a query in another script has no tokens: equality still catches it.
    return any(query == other or (max_rouge <= _scorer().score(other, query)["rougeL"].fmeasure) for other in earlier)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # here because it pulls in nltk and takes a second

    return RougeScorer(["rougeL"])


def too_short(query: str, min_words: int) -> bool:
    """Whether a query has fewer than ``min_words`` words and no content word among them."""
    words = WORD.findall(_plain(query))
    return len(words) < min_words and all(word in STOP_WORDS for word in words)


def sensitive(query: str, words: Sequence[str]) -> bool:
    """Whether a query contains one of ``words`` as a whole word or phrase, in any case."""
    text = _plain(query)
    return any(re.search(rf"(?<!\w){re.escape(_plain(word))}(?!\w)", text) for word in words if word.strip())


def refusal(answer: str) -> bool:
    """Whether an answer begins by declining: "As an AI language model, I cannot ...", "I'm sorry, but I can't ..."."""
    return REFUSAL.match(_plain(answer)) is not None


def role_drift(query: str) -> bool:
    """Whether the asker's query begins as an assistant would: "Sure, here is ...", "As an AI ..."."""
    return ROLE_DRIFT.match(_plain(query)) is not None


def _plain(text: str) -> str:
    return text.strip().casefold().replace("’", "'")
