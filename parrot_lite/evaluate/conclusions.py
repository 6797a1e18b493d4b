"""One sentence a contrast, made from its statistics and never stronger than they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from parrot_lite.evaluate.estimates import probability
from parrot_lite.evaluate.statistics import ALPHA, Contrast

State = Literal["shown", "in doubt", "not shown", "not tested"]  # in doubt: shown, but there is a caveat


@dataclass(frozen=True)
class Conclusion:
    """What can be said about ``model`` against ``other``."""

    model: str
    other: str
    state: State
    text: str  # goes on behind "model minus other"


@dataclass(frozen=True)
class Scale:
    """How a measure is spoken of. ``more`` and ``less`` say what a positive and a negative difference are."""

    unit: str
    form: str
    more: str
    less: str
    caveat: str = ""  # what stands against reading it as it looks; ends every sentence that shows something


def conclude(model: str, other: str, contrast: Contrast, scale: Scale, family: int) -> Conclusion:
    """What a contrast lets one say, of ``family`` contrasts that it was corrected with.

    A difference is shown where the corrected p lies below 0.05: nothing is read off the interval, which is not
    corrected.
    """
    one, form = contrast.difference, scale.form
    size = f"{one.mean:+{form}} {scale.unit}"
    if one.low is None or one.high is None:
        return Conclusion(model, other, "not tested", f"{size} in a single session, which says nothing about others.")
    decisive = contrast.p if contrast.adjusted is None else contrast.adjusted
    if decisive is None:
        return Conclusion(model, other, "not tested", f"{size} in every session: without a spread nothing is tested.")
    corrected = contrast.adjusted is not None and family > 1
    p = _p(contrast.p) + (f", corrected for {family} comparisons {_p(decisive)}" if corrected else "")
    found = f"{size} (95% interval {one.low:+{form}} to {one.high:+{form}}; {p})"
    limit = None if one.detectable is None else format(one.detectable, form)
    if decisive < ALPHA:
        text = f"{scale.more if one.mean > 0 else scale.less}: {found}"
        if one.detectable is not None and abs(one.mean) < one.detectable:
            text += f", less than the {limit} that so many sessions can be relied on to show: often an overstatement"
        state: State = "in doubt" if scale.caveat else "shown"
        return Conclusion(model, other, state, f"{text}{'; ' + scale.caveat if scale.caveat else ''}.")
    text = f"no difference was shown: {found}"
    few = 2 / 2**one.sessions > ALPHA
    if few:
        text += f", and {one.sessions} sessions can show none, however large"
    elif contrast.p is not None and contrast.p < ALPHA:
        text += ", as among so many comparisons one like it may well be chance"
    if limit is not None and not few:
        text += f"; a true one below {limit} is smaller than what so many sessions can be relied on to show"
    return Conclusion(model, other, "not shown", f"{text}.")


def _p(value: float | None) -> str:
    told = probability(value)
    return f"p\u00a0<\u00a0{told[1:]}" if told.startswith("<") else f"p\u00a0=\u00a0{told}"
