"""Can a classifier tell generated queries from real ones? TF-IDF and logistic regression; 0.5 is perfect imitation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from parrot_lite.evaluate.statistics import Estimate
from parrot_lite.types import Dialogue, derive_seed

FOLDS = 5


class Query(NamedTuple):
    """A user's message after the first."""

    session: str
    turn: int
    text: str


def later_queries(sessions: Iterable[Dialogue]) -> list[Query]:
    """Every query after the first; turns count from 1."""
    return [
        Query(session.id, turn, text)
        for session in sessions
        for turn, text in enumerate(session.queries, 1)
        if turn > 1
    ]


def matched(real: Sequence[Query], generated: Sequence[Query], seed: int) -> tuple[list[Query], list[Query]]:
    """As many of each at every turn number, drawn where there are more: length of a session must tell nothing."""
    sides: list[dict[int, list[Query]]] = []
    for queries in (real, generated):
        by_turn: dict[int, list[Query]] = defaultdict(list)
        for query in sorted(queries, key=lambda one: (derive_seed(seed, "matched", one.session, one.turn), one)):
            by_turn[query.turn].append(query)
        sides.append(by_turn)
    one, other = sides
    numbers = {turn: min(len(one[turn]), len(other[turn])) for turn in sorted(one.keys() & other.keys())}
    return (
        [query for turn, number in numbers.items() for query in one[turn][:number]],
        [query for turn, number in numbers.items() for query in other[turn][:number]],
    )


def auc(real: Sequence[Query], generated: Sequence[Query], resamples: int, seed: int) -> Estimate | None:
    """The area under the ROC curve of ``FOLDS``-fold cross-validation, no session on both sides of a fold.

    The chance that of a generated and a real query of one fold the generated one scores higher. The interval draws
    whole sessions; it holds the trained classifiers fixed. None where a side has fewer sessions than there are folds.
    """
    if min(len({query.session for query in side}) for side in (real, generated)) < FOLDS:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    sides = [_dealt(side, derive_seed(seed, "folds")) for side in (real, generated)]
    sessions = [sorted({query.session for query in side}) for side in (real, generated)]
    places = [{session: place for place, session in enumerate(side)} for side in sessions]
    # Of each fold: which pairs of a real and a generated query are in order, and whose sessions they are.
    folds: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for fold in range(FOLDS):
        train = [
            (query.text, label) for label, dealt in enumerate(sides) for part in _without(dealt, fold) for query in part
        ]
        texts, labels = zip(*train, strict=True)
        # Case and punctuation are kept: they tell people from models.
        vectors = TfidfVectorizer(lowercase=False, token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True)
        model = make_pipeline(vectors, LogisticRegression(max_iter=1000))
        model.fit(texts, labels)
        rows, columns = (model.decision_function([query.text for query in dealt[fold]]) for dealt in sides)
        ordered = (columns > rows[:, None]) + 0.5 * (columns == rows[:, None])
        owners = (
            np.array([place[query.session] for query in dealt[fold]])
            for place, dealt in zip(places, sides, strict=True)
        )
        folds.append((ordered, *owners))
    rng = np.random.default_rng(derive_seed(seed, "auc"))
    weights = [rng.multinomial(len(side), np.full(len(side), 1 / len(side)), size=resamples) for side in sessions]
    drawn = _area(folds, *weights)
    (point,) = _area(folds, *(np.ones((1, len(side))) for side in sessions))
    low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])  # a draw may have no pair within any fold
    return Estimate(float(point), float(low), float(high), sum(map(len, sessions)), len(real) + len(generated))


def _dealt(queries: Sequence[Query], seed: int) -> list[list[Query]]:
    """The queries in folds, a session's all in one: sessions shuffled, then dealt in turn, so that no fold is empty."""
    sessions = sorted({query.session for query in queries}, key=lambda name: (derive_seed(seed, name), name))
    fold_of = {session: place % FOLDS for place, session in enumerate(sessions)}
    dealt: list[list[Query]] = [[] for _ in range(FOLDS)]
    for query in queries:
        dealt[fold_of[query.session]].append(query)
    return dealt


def _without(dealt: Sequence[list[Query]], fold: int) -> Iterable[list[Query]]:
    return (part for place, part in enumerate(dealt) if place != fold)


def _area(
    folds: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], real: np.ndarray, generated: np.ndarray
) -> np.ndarray:
    """(draws, sessions) weights of either side → (draws,) areas, over the pairs within a fold."""
    above = np.zeros(len(real))
    pairs = np.zeros(len(real))
    for ordered, rows, columns in folds:
        low, high = real[:, rows], generated[:, columns]
        above += ((low @ ordered) * high).sum(axis=1)
        pairs += low.sum(axis=1) * high.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return above / pairs
