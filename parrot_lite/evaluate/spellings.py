"""Whether a text names a thing, by any of its spellings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

MARKS = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-", "—": "-", "−": "-"})
THOUSANDS = re.compile(r"(?<=\d)[,'’\u00a0\u2009\u202f](?=\d{3}(?!\d))")
DECIMALS = re.compile(r"(?<![\d.])(\d+)\.(\d*?)0+(?!\d|\.\d)")


def plain(text: str) -> str:
    """``text`` in lower case, with one kind of quotation marks, dashes, white space and numbers.

    >>> plain("It’s 1,200.50 EUR")
    "it's 1200.5 eur"
    """
    text = unicodedata.normalize("NFKC", THOUSANDS.sub("", text)).translate(MARKS)
    text = DECIMALS.sub(lambda match: match[1] + (f".{match[2]}" if match[2] else ""), text)
    return " ".join(text.casefold().split())


def named(text: str, spellings: Iterable[str]) -> bool:
    """Whether ``text`` has any of the spellings as whole words, whatever its case and the form of its numbers.

    >>> named("**Odile's** bakery", ["Odile"]), named("Crocodiles", ["Odile"])
    (True, False)
    >>> named("That is 1200kg.", ["1,200 kg"]), named("It took 12.5 hours", ["12", "5"])
    (True, False)
    """
    within = plain(text)
    return any(_pattern(spelling).search(within) for spelling in spellings)


@lru_cache(maxsize=4096)
def _pattern(spelling: str) -> re.Pattern[str]:
    spelled = plain(spelling)
    # A number and its unit may be written together.
    body = re.sub(r"(?<=\d)\\ (?=[^\W\d_])", r"\\s?", re.escape(spelled))
    before = r"(?<![^\W_])" + (r"(?<!\d[.,])" if spelled[:1].isdigit() else "")
    after = r"(?![^\W_])" + (r"(?![.,]\d)" if spelled[-1:].isdigit() else "")
    return re.compile(before + body + after)
