"""What DPO logs for each kind of negative, in either layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from parrot_lite.types import Kind


def per_kind(
    kinds: Sequence[Kind],
    margins: Iterable[float],
    chosen: Iterable[float],
    rejected: Iterable[float],
    reference_chosen: Iterable[float],
) -> Iterator[tuple[str, float]]:
    """A row of pairs → named numbers, to be averaged over a step. Log-probs are summed over an answer, in nats."""
    for kind, margin, more, less, before in zip(kinds, margins, chosen, rejected, reference_chosen, strict=True):
        yield f"{kind}/margin", margin
        yield f"{kind}/accuracy", float(margin > 0)
        yield f"{kind}/chosen", more
        yield f"{kind}/rejected", less
        yield f"{kind}/chosen_change", more - before


def means(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of every number of a kind over logged steps; a step without that kind does not count."""
    found: dict[str, list[float]] = {}
    for line in lines:
        for key, value in line.items():
            if key.endswith(("/margin", "/accuracy", "/chosen_change")):
                found.setdefault(key, []).append(float(value))
    return {key: round(sum(values) / len(values), 4) for key, values in sorted(found.items())}


def falling(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Kinds whose chosen answers ended less likely than under the reference, with the change in nats an answer.

    Over the last quarter of the steps. Both sides of a pair becoming less likely is a known failure of DPO
    (arXiv 2402.13228): the margin grows, and the model forgets what it should prefer.
    """
    last = means(lines[-max(1, len(lines) // 4) :])
    return {key.partition("/")[0]: value for key, value in last.items() if key.endswith("/chosen_change") and value < 0}
