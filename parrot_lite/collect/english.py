"""Whether a conversation is in English, by its letters and its most frequent words."""

from __future__ import annotations

import re

from parrot_lite.types import Dialogue

HEAD = 500  # characters of every message by which its language is told: long code and tables say little
# Frequent in English and rare elsewhere: "a", "in", "is", "no", "me" are words of its neighbours, too.
ENGLISH = re.compile(
    r"\b(?:the|and|to|of|you|for|what|how|that|with|this|are|can|it|be|on|as|your|my|i|have|from|by|or|an|not|if|which"
    r"|will|do|write|please|make|give|use|more|about|when|they|we|should|would|their|at)\b"
)
ENGLISH_SHARE = 0.08  # of the words; English prose has about 0.35, a table or program with a question about 0.1
ENGLISH_KINDS = 2  # different ones


def foreign(dialogue: Dialogue, share: float) -> str | None:
    """Why the text does not look English, or None; ``share`` of its letters must be ASCII."""
    text = "\n".join(turn.content[:HEAD] for turn in dialogue.turns)
    if not text.isascii():
        letters = [character for character in text if character.isalpha()]
        ascii_letters = sum(map(str.isascii, letters))
        if letters and ascii_letters < share * len(letters):
            return f"{ascii_letters / len(letters):.2f} of the letters are ASCII"
    words = re.findall(r"[^\W\d_]+", text)
    common = ENGLISH.findall(text.lower())
    if len(set(common)) < ENGLISH_KINDS or len(common) < ENGLISH_SHARE * len(words):
        return f"{len(common)} of {len(words)} words are common in English"
    return None
