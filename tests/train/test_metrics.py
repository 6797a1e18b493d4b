from __future__ import annotations

import pytest

from parrot_lite.train.metrics import falling, means, per_kind


def test_a_row_of_pairs_by_hand() -> None:
    found = list(per_kind(["neglect", "random"], [0.5, -0.25], [-8.0, -4.0], [-13.0, -3.0], [-10.0, -1.0]))
    assert found == [
        ("neglect/margin", 0.5),
        ("neglect/accuracy", 1.0),
        ("neglect/chosen", -8.0),
        ("neglect/rejected", -13.0),
        ("neglect/chosen_change", 2.0),
        ("random/margin", -0.25),
        ("random/accuracy", 0.0),
        ("random/chosen", -4.0),
        ("random/rejected", -3.0),
        ("random/chosen_change", -3.0),
    ]


def test_a_margin_of_nothing_is_not_right() -> None:
    assert dict(per_kind(["neglect"], [0.0], [-1.0], [-1.0], [-1.0]))["neglect/accuracy"] == 0.0


LOG = [
    {"step": 1, "loss": 0.7, "neglect/margin": 1.0, "neglect/chosen_change": -9.0, "random/chosen_change": 4.0},
    {"step": 2, "loss": 0.7, "neglect/margin": 3.0, "neglect/chosen_change": -9.0},
    {"step": 3, "loss": 0.7, "random/chosen_change": -1.0},
    {"step": 4, "loss": 0.7, "neglect/margin": 5.0, "neglect/chosen_change": 2.0},
    {"step": 5, "loss": 0.7, "neglect/chosen_change": 1.0},
    {"step": 6, "loss": 0.7, "neglect/chosen_change": 1.0},
    {"step": 7, "loss": 0.7, "neglect/chosen_change": -4.0, "random/chosen_change": -0.5},
    {"step": 8, "loss": 0.7, "neglect/chosen_change": 1.0, "random/chosen_change": 0.5},
]


def test_steps_without_a_kind_do_not_count() -> None:
    found = means(LOG)
    assert found["neglect/margin"] == 3
    assert found["random/chosen_change"] == pytest.approx((4 - 1 - 0.5 + 0.5) / 4)
    assert means([{"step": 1, "loss": 0.5}]) == {}


def test_falling_looks_at_the_last_quarter() -> None:
    assert falling(LOG) == {"neglect": -1.5}  # steps 7 and 8; random ends at 0
    assert falling(LOG[:3]) == {"random": -1.0}  # fewer than four steps: the last
    assert falling(LOG[3:6]) == {}
