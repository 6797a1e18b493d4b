"""What a data set is like, in numbers: the paper's Table 1 and what tells one asker from another.

Sessions come one by one and none is kept: sums, histograms and samples of a fixed size take the same memory for a
hundred sessions as for a hundred thousand. An interval treats the session as the sample, not the query.
"""

from __future__ import annotations

import heapq
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice

from parrot_lite.collect import filters
from parrot_lite.context import dependence
from parrot_lite.types import Dialogue, Record, derive_seed

SAMPLE = 2_000  # words over which distinct-n is taken: it falls with the size of a text, so all texts have this one
DRAWS = 20  # such samples, averaged
POOL = 4_000  # queries that they are drawn from
HEAD = 40  # words of a query that enter a sample: one long paste must not be all of it
DISTINCT = 1 << 17  # different queries remembered to find repeated ones; beyond it, a share of them
TOKEN = re.compile(r"[a-z0-9]+")  # rouge_score's

Part = tuple[float, int]  # a session's sum, and how many values it is over


def leaning(session: Dialogue) -> tuple[bool, ...]:
    """Which queries lean on the history, by the rules of ``context``."""
    return tuple(dependence(query, turn) is not None for turn, query in enumerate(session.queries, 1))


def parts(session: Dialogue, leans: Sequence[bool]) -> dict[str, Part]:
    """What one session adds to each statistic that is a mean; a statistic without a value here is left out.

    ``leans`` is ``leaning(session)``. *Later* queries are those after the first, which is the seed and not the asker's.
    """
    queries, answers = session.queries, session.answers
    later = queries[1:]
    found: dict[str, Part] = {
        "turns": (len(queries), 1),
        "dependent": (sum(leans), 1),
        "dependent later": (sum(leans), len(later)),
        "topics": (1 + shifts(session, leans), 1),
        "query words": (sum(map(words, queries)), len(queries)),
        "later query words": (sum(map(words, later)), len(later)),
        "answer words": (sum(map(words, answers)), len(answers)),
        **{name: (sum(map(rule, later)), len(later)) for name, rule in FAULTS.items()},
    }
    likeness = self_rouge(queries)
    if likeness is not None:
        found["self-rouge"] = (likeness, 1)
    return {name: part for name, part in found.items() if part[1]}


FAULTS: dict[str, Callable[[str], bool]] = {
    "role drift": filters.role_drift,
    "answers itself": filters.answers_itself,
    "thanks": filters.thanks,
}


def words(text: str) -> int:
    """How many words a text has, split at white space."""
    return len(text.split())


def self_rouge(queries: Sequence[str]) -> float | None:
    """Mean ROUGE-L f-measure x 100 of each query against the session's others (our reading of "Self-Rouge").

    None where fewer than two queries have a token: ROUGE reads a-z and 0-9 only.
    """
    import numpy as np
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    codes: dict[str, str] = {}
    # A character a word: the longest common subsequence is then one of strings, some 500 times faster than rouge_score.
    coded = ["".join(codes.setdefault(w, chr(len(codes))) for w in TOKEN.findall(query.lower())) for query in queries]
    coded = [text for text in coded if text]
    if len(coded) < 2:
        return None
    common = cdist(coded, coded, scorer=LCSseq.similarity, dtype=np.int32)
    lengths = np.array([len(text) for text in coded])
    measures = 2 * common / (lengths[:, None] + lengths)  # f-measure; 1 on the diagonal
    return 100 * float(measures.sum() - len(coded)) / (len(coded) * (len(coded) - 1))


def shifts(session: Dialogue, leans: Sequence[bool]) -> int:
    """Queries after the first that neither lean on the history nor share a content word with anything said before."""
    count, said = 0, set[str]()
    for index, query in enumerate(session.queries):
        asked = content_words(query)
        if index and asked and not leans[index] and asked.isdisjoint(said):
            count += 1
        said |= asked
        if index < len(session.answers):
            said |= content_words(session.answers[index])
    return count


def content_words(text: str) -> set[str]:
    """Words of three letters or more, without numbers and stop words, in lower case."""
    return {word for word in CONTENT.findall(text.casefold()) if word not in filters.STOP_WORDS}


CONTENT = re.compile(r"[^\W\d_]{3,}")


class Mean(Record):
    """A mean over ``values`` values of ``sessions`` sessions, and half the width of its 95% interval.

    ``half`` is None where fewer than two sessions, or sessions without any spread, leave nothing to estimate it from.
    """

    mean: float
    half: float | None
    sessions: int
    values: int


def none_of(values: int) -> float:
    """The exact (Clopper-Pearson) upper end of a share's 95% interval where none of ``values`` had it: 1 - 0.025^(1/n).

    It takes the values as independent: where none was found, nothing tells how they cluster in sessions.
    """
    return float(1 - 0.025 ** (1 / values))


class Sums:
    """A mean over values that come in groups, one a session: sum of values by their number, and its interval.

    The interval is the normal one of a ratio estimator with sessions as the sample (Cochran, Sampling Techniques,
    section 6.4): sessions of different lengths are neither weighted alike nor their queries taken as independent.
    """

    def __init__(self) -> None:
        self.sessions = self.values = 0
        self.sum = self._squares = self._products = self._counts = 0.0

    def add(self, total: float, count: int) -> None:
        """One session's sum, over ``count`` values."""
        self.sessions += 1
        self.values += count
        self.sum += total
        self._squares += total * total
        self._products += total * count
        self._counts += count * count

    def mean(self) -> Mean | None:
        """None without a value."""
        if not self.values:
            return None
        ratio = self.sum / self.values
        spread = self._squares - 2 * ratio * self._products + ratio * ratio * self._counts
        half = None
        if self.sessions > 1 and spread > 1e-9 * self._squares:  # less is the rounding of these sums
            half = 1.96 * math.sqrt(spread * self.sessions / (self.sessions - 1)) / self.values
        return Mean(mean=ratio, half=half, sessions=self.sessions, values=self.values)


class Repeats:
    """How many queries another session has word for word, in bounded memory.

    A query is remembered by its hash. When there are too many, only hashes below half the old bound stay: whole
    queries are sampled, so a share over those that stay estimates the share over all.
    """

    def __init__(self) -> None:
        self._bound = 1 << 64
        self._seen: dict[int, tuple[int, int, bool]] = {}  # hash -> times, its last session, whether in two sessions

    def add(self, queries: Iterable[str], session: int) -> None:
        """The queries of session number ``session``; numbers rise."""
        for query in queries:
            key = int.from_bytes(blake2b(query.encode(), digest_size=8).digest(), "big")
            if key < self._bound:
                times, last, several = self._seen.get(key, (0, session, False))
                self._seen[key] = times + 1, session, several or last != session
        while len(self._seen) > DISTINCT:
            self._bound >>= 1
            self._seen = {key: seen for key, seen in self._seen.items() if key < self._bound}

    def share(self) -> float | None:
        """Of the queries, those that more than one session has; None without a query."""
        total = sum(times for times, _, _ in self._seen.values())
        return sum(times for times, _, several in self._seen.values() if several) / total if total else None


class Pool:
    """A random sample of queries, drawn by a rank of session and turn: the same whatever order they come in."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: list[tuple[int, str, int, tuple[str, ...]]] = []  # a heap, the highest rank first

    def add(self, session: Dialogue) -> None:
        """The session's queries after the first."""
        for turn, query in enumerate(session.queries[1:], 2):
            rank = -derive_seed(self._seed, "pool", session.id, turn)
            if len(self._kept) == POOL and rank < self._kept[0][0]:
                continue
            head = tuple(islice((match[0] for match in filters.WORD.finditer(query.casefold())), HEAD))
            push = heapq.heappush if len(self._kept) < POOL else heapq.heappushpop
            push(self._kept, (rank, session.id, turn, head))

    def distinct(self, size: int) -> float | None:
        """Different n-grams of ``size`` words by all of them, in ``SAMPLE`` words: the mean of ``DRAWS`` draws.

        None where the pool has fewer words. An n-gram lies within one query.
        """
        heads = [head for *_, head in sorted(self._kept, reverse=True)]
        if sum(map(len, heads)) < SAMPLE:
            return None
        shares = []
        for draw in range(DRAWS):
            random.Random(derive_seed(self._seed, "distinct", draw)).shuffle(heads)
            grams = [head[at : at + size] for head in _first(heads, SAMPLE) for at in range(len(head) - size + 1)]
            shares.append(len(set(grams)) / len(grams))
        return sum(shares) / len(shares)


def _first(heads: Iterable[tuple[str, ...]], count: int) -> Iterator[tuple[str, ...]]:
    for head in heads:
        if count <= 0:
            return
        yield head[:count]
        count -= len(head)


class DataSet(Record):
    """The statistics of one data set."""

    name: str
    file: str
    fingerprint: str  # of the file, as store.fingerprint gives it
    unit: str  # what a session is
    sessions: int
    counts: dict[str, int]  # what was left out, and why
    means: dict[str, Mean]
    medians: dict[str, float]
    shares: dict[str, float]  # without an interval
    histograms: dict[str, dict[int, int]]  # value -> how often: of turns by sessions, of words by messages
    dependent_by_turn: dict[int, tuple[int, int]]  # turn -> dependent queries, queries


class Tally:
    """The statistics of a data set, session by session."""

    def __init__(self, seed: int = 0) -> None:
        self.sessions = 0
        self._sums: dict[str, Sums] = {}
        self._histograms = {
            name: Counter[int]() for name in ("turns", "query words", "later query words", "answer words")
        }
        self._leaning, self._asked = Counter[int](), Counter[int]()
        self._repeats, self._pool = Repeats(), Pool(seed)

    def add(self, session: Dialogue) -> None:
        """One complete session. Raises ValueError where it has no answered query, or one without an answer."""
        if not session.turns or session.due == "assistant":
            raise ValueError(f"session {session.id} is not complete")
        self.sessions += 1
        queries, leans = session.queries, leaning(session)
        for name, (total, count) in parts(session, leans).items():
            self._sums.setdefault(name, Sums()).add(total, count)
        lengths = [words(query) for query in queries]
        self._histograms["turns"][len(queries)] += 1
        self._histograms["query words"].update(lengths)
        self._histograms["later query words"].update(lengths[1:])
        self._histograms["answer words"].update(map(words, session.answers))
        for turn, leant in enumerate(leans[1:], 2):
            self._asked[turn] += 1
            self._leaning[turn] += leant
        self._repeats.add(queries[1:], self.sessions)
        self._pool.add(session)

    def result(self, name: str, file: str, fingerprint: str, unit: str, counts: Mapping[str, int]) -> DataSet:
        """The statistics of what was added."""
        shares = {
            "repeated": self._repeats.share(),
            "distinct-1": self._pool.distinct(1),
            "distinct-2": self._pool.distinct(2),
        }
        medians = {name: median(histogram) for name, histogram in self._histograms.items()}
        means = {name: sums.mean() for name, sums in self._sums.items()}
        return DataSet(
            name=name,
            file=file,
            fingerprint=fingerprint,
            unit=unit,
            sessions=self.sessions,
            counts=dict(sorted(counts.items())),
            means={name: mean for name, mean in means.items() if mean is not None},
            medians={name: value for name, value in medians.items() if value is not None},
            shares={name: value for name, value in shares.items() if value is not None},
            histograms={name: dict(sorted(histogram.items())) for name, histogram in self._histograms.items()},
            dependent_by_turn={turn: (self._leaning[turn], self._asked[turn]) for turn in sorted(self._asked)},
        )


def median(histogram: Mapping[int, int]) -> float | None:
    """The middle value, or the mean of the two middle ones; None without a value."""
    total = sum(histogram.values())
    if not total:
        return None
    middle: list[int] = []
    before = 0
    for value, times in sorted(histogram.items()):
        middle += [value for place in ((total - 1) // 2, total // 2) if before <= place < before + times]
        before += times
    return sum(middle) / 2
