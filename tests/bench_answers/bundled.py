"""The bundled benchmark as its references are worked out again from it, and the sums that they show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import parrot_lite


@cache
def _sessions() -> dict[int, dict[str, list[Any]]]:
    path = Path(parrot_lite.__file__).parent / "data" / "bench.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["question_id"]: row for row in rows}


def reference(question_id: int, turn: int) -> str:
    """The reference of one turn, counted from 1."""
    return str(_sessions()[question_id]["reference"][turn - 1])


def query(question_id: int, turn: int) -> str:
    """What the user says in one turn, counted from 1."""
    return str(_sessions()[question_id]["turns"][turn - 1])


NUMBER = r"(?<![\w.^)])\d[\d,]*(?:\.\d+)?(?![\w.]*[\w(])"
TERM = rf"-?{NUMBER}(?: ?[-+x/] ?{NUMBER})*"


def value(term: str) -> Fraction:
    """The value of a sum of products of numbers."""
    total = Fraction(0)
    for sign, product_text in re.findall(r"(^|[-+] ?)([^-+]+)", term.replace(",", "")):
        factors = re.split(r" ?([x/]) ?", product_text.strip())
        result = Fraction(factors[0])
        for operator, factor in zip(factors[1::2], factors[2::2], strict=True):
            result = result * Fraction(factor) if operator == "x" else result / Fraction(factor)
        total += -result if sign.startswith("-") else result
    return total


def sums_hold(text: str) -> None:
    """Every equation between plain numbers in a reference holds, to the digits shown."""
    for chain in re.findall(rf"(?<![-+x/] ){TERM}(?: = {TERM})+", text):
        terms = chain.split(" = ")
        digits = min(len(number.partition(".")[2]) for number in terms if re.fullmatch(r"[-\d.,]+", number))
        for one, other in pairwise(terms):
            assert abs(value(one) - value(other)) <= Fraction(1, 2 * 10**digits), chain


def with_sums(question_id: int, turn: int, answer: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """A check that looks at the equations of the reference as well."""

    def check() -> list[str]:
        """Check the equations, then work the answer out."""
        sums_hold(reference(question_id, turn))
        return answer()

    return check
