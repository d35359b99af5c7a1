"""How often a fine-tuning validates and on which cases, where nobody says: a tenth of its work at most.

That is with the validation before the first step, on the same cases, at which curves begin.

Work is counted in voxels that the network computes, not in seconds, so that it is the same for all arms and
seeds, and for a run that is resumed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from parts2whole.networks.base import Encoder
from parts2whole.tasks.base import Task
from parts2whole.tasks.labelled import LabelledData

SHARE = 0.1
"""Of the work of training, that all validations may take together."""
EVERY = 100
"""Steps between validations, at least."""
OFTEN = 5
"""Validations after steps that a run has, if ``EVERY`` allows, before it is on fewer cases instead."""
FEWEST = 4
"""Cases that decide about the best step, at least, if there are so many."""
THERE_AND_BACK = 3
"""What a voxel costs in training, where looking at it costs 1: the way back is two products for each one."""


@dataclasses.dataclass(frozen=True)
class ValidationPlan:
    """Steps between validations, and what is validated on."""

    every: int
    items: tuple[str, ...]

    def describe(self, of: Sequence[str]) -> str:
        """What there is to know, in words; nothing where that is usual."""
        if self.every == EVERY and len(self.items) == len(of):
            return ""
        cases = f"{len(self.items)} of {len(of)} cases" if len(self.items) < len(of) else "all cases"
        return (
            f"validates every {self.every} steps on {cases}, so that it takes about a tenth of the time; "
            "--validate-every says otherwise"
        )


def plan_validation(
    task: Task, labelled: LabelledData, items: Sequence[str], *, encoder: Encoder, steps: int, batch_size: int
) -> ValidationPlan:
    """Rarer validations as far as that goes, then fewer cases: those with the most classes.

    Args:
        task: what is learned.
        labelled: its data.
        items: validation cases.
        encoder: of the model, which decides about windows.
        steps: of the run.
        batch_size: samples a step.
    """
    work = task.voxels_to_examine(labelled, items, encoder)
    allowed = SHARE * THERE_AND_BACK * batch_size * math.prod(task.patch_size) * steps
    most = max(1, int(allowed / work) - 1)  # on all cases, without the first one
    every = min(max(EVERY, math.ceil(steps / most)), max(EVERY, steps // OFTEN), steps)
    times = 1 + math.ceil(steps / every)
    count = max(min(FEWEST, len(items)), min(len(items), int(len(items) * allowed / (times * work))))
    fullest = sorted(items, key=lambda item: -len(labelled.item(item).holds))[:count]
    return ValidationPlan(every, tuple(item for item in items if item in set(fullest)))
