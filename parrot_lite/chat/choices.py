"""A choice among texts, weighed by what a server tells of its likeliest tokens.

An OpenAI-compatible server tells at most some twenty tokens at each place of the one reply that it writes. That is
enough where a reply begins as one of the texts: where two of them part, a place on the way of the reply shows it, and
what leaves that way and can still be only one of the texts is taken as that text. Where two texts part off the way (1
and 10, with a tokenizer of single digits, in a reply of 7), only a server that goes on from a given beginning can tell
them apart; else their probability is lost. What is lost is counted, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

COVERED = 0.9  # of the probability must be read, or the choice is refused
LEAST = 1e-3  # the probability from which a beginning off the way is worth a call

Likeliest = Mapping[str, float]  # tokens' texts and log-probs at one place


def way(places: Sequence[tuple[str, Likeliest]]) -> dict[str, Likeliest]:
    """What was told behind each beginning of a reply; ``places`` are its tokens and what was likeliest at each.

    >>> sorted(way([("[[", {"[[": -0.1}), ("7", {"7": -0.2, "8": -2.0})]))
    ['', '[[']
    """
    found: dict[str, Likeliest] = {}
    beginning = ""
    for token, likeliest in places:
        found[beginning] = likeliest
        beginning += token
    return found


def weigh(texts: Sequence[str], told: Callable[[str], Likeliest | None]) -> list[float]:
    """The probability that a reply begins as each of the texts, as far as ``told`` says; the rest is lost.

    ``told`` gives the likeliest tokens behind a beginning, or None where nobody knows. White space before a reply is
    none of it. Of texts that begin each other a reply is the longest that it can be.

    >>> tokens = {"": {"1": math.log(0.6), "7": math.log(0.3)}, "1": {"0": math.log(0.5), "!": math.log(0.5)}}
    >>> [round(weight, 3) for weight in weigh(["1", "7", "10"], tokens.get)]
    [0.3, 0.3, 0.3]
    >>> [round(weight, 3) for weight in weigh(["1", "7", "10"], {"": tokens[""]}.get)]
    [0.0, 0.3, 0.0]
    """
    weights = dict.fromkeys(texts, 0.0)

    def follow(beginning: str, weight: float) -> None:
        likeliest = told(beginning) if weight >= LEAST or not beginning else None
        for token, log_prob in (likeliest or {}).items():
            text, share = (beginning + token).lstrip(), weight * math.exp(log_prob)
            possible = [one for one in texts if one.startswith(text)]
            whole = [one for one in texts if text.startswith(one)]
            if token == "" or (whole and not any(one not in whole for one in possible)):
                # The end of the reply, or more than a whole text and the beginning of no longer one.
                if whole:
                    weights[max(whole, key=len)] += share
            elif len(possible) == 1:
                weights[possible[0]] += share
            elif possible:
                follow(beginning + token, share)

    follow("", 1.0)
    return list(weights.values())
