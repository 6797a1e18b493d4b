"""The words by which texts are compared: case, white space and punctuation do not count."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

WORD = re.compile(r"\w+")


def words(text: str) -> tuple[str, ...]:
    """The words of a text by which it is compared; empty where it has none.

    >>> words("What's UP, doc?")
    ('what', 's', 'up', 'doc')
    """
    return tuple(WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def runs(text: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """All runs of ``length`` words; none where the text has fewer.

    >>> list(runs(("a", "b", "c"), 2))
    [('a', 'b'), ('b', 'c')]
    """
    return zip(*(text[start:] for start in range(length)), strict=False)
