"""How many optimizer steps a section makes of its data: needed before anything heavy is loaded."""

from __future__ import annotations

import math

from parrot_lite.recipe import Training


def steps_of(section: Training, examples: int) -> int:
    """Optimizer steps over ``examples``, a last incomplete one counted."""
    an_epoch = math.ceil(examples / (section.batch * section.accumulation))
    steps = max(1, math.ceil(an_epoch * section.epochs))
    return min(steps, section.max_steps or steps)
