"""What training must not have seen: no session that is evaluated on, and no 13 words in a row of its queries.

Shorter queries are no leak: "Please go on." is everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from parrot_lite.collect.overlap import GRAM, Benchmarks, spoken
from parrot_lite.evaluate.records import Question
from parrot_lite.types import Dialogue
from parrot_lite.words import words

HELDOUT, BENCHMARK = "the sessions kept apart", "the benchmark"


def leaks(training: Iterable[Path], heldout: Sequence[Dialogue], questions: Sequence[Question]) -> Iterator[str]:
    """One line for each session of ``training`` that is evaluated on, or says 13 words in a row of such a query.

    ``training`` are files of dialogues or of session trees; what both sides say counts, and rejected answers as well.
    """
    known = Benchmarks()
    for name, queries in (
        (HELDOUT, [query for session in heldout for query in session.queries]),
        (BENCHMARK, [query for question in questions for query in question.queries]),
    ):
        if any(words(query) for query in queries):
            known.add(name, queries)
    evaluated = {session.id for session in heldout}
    for file in training:
        for said in spoken(file):
            if said.id in evaluated:
                yield f"{file}: session {said.id} is kept apart"
                continue
            texts = [words(text) for text in (*said.queries, *said.answers)]
            found = {name for text in texts if len(text) >= GRAM for name in known.shared(text)}
            if found:
                yield f"{file}: session {said.id} says {GRAM} words in a row of {' and '.join(sorted(found))}"
