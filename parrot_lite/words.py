"""The words by which texts are compared: case, white space and punctuation do not count."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*(?=\s)|[。！？]|\n""")
MARKER = re.compile(r"(?:^|\n)\s*(?:\d+[.)]|[-*•#]+)?\s*$")  # of a list's next item, which has not begun


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


def whole(text: str) -> str:
    """A text that was cut off somewhere, up to the end of its last whole sentence or line; empty where it has none.

    >>> whole("It rains. Take an umb")
    'It rains.'
    """
    ends = [match.end() for match in SENTENCE_END.finditer(text.rstrip() + " ")]
    kept = text[: ends[-1]].rstrip() if ends else ""
    while kept != (shorter := MARKER.sub("", kept).rstrip()):
        kept = shorter
    return kept
