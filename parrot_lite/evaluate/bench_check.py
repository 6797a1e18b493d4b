"""``parrot bench-check``: a benchmark against the rules for one, every breach on a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from parrot_lite.evaluate import bench, bench_rules
from parrot_lite.evaluate.records import Question


def run(file: str, others: Sequence[str] = ()) -> bool:
    """Print what breaks the rules, and how many such lines of each rule there are; returns whether any does.

    Raises UserError where a benchmark cannot be read.
    """
    questions = bench.load(file)
    known = [(name, [query for one in bench.load(name) for query in one.queries]) for name in others]
    rules = [*bench_rules.GENERAL, *bench_rules.DESIGN, *(bench_rules.BUNDLED if file == "bundled" else ())]
    found = bench_rules.findings(questions, rules)
    for name, queries in known:
        found += bench_rules.against(questions, queries, name)
    console = Console(highlight=False, soft_wrap=True)
    for finding in found:
        console.print(str(finding), markup=False)
    console.print(_summary(file, questions, found), markup=False)
    return bool(found)


def _summary(file: str, questions: Sequence[Question], found: Sequence[bench_rules.Finding]) -> str:
    counts = Counter(finding.rule for finding in found)
    told = ", ".join(f"{count} x {rule}" for rule, count in counts.most_common()) or "no rule is broken"
    turns = [one for question in questions for one in question.queries]
    labelled = sum(one is not None for question in questions for one in question.labels)
    return f"{file}: {len(questions)} sessions, {len(turns)} turns, {labelled} labelled: {told}"
