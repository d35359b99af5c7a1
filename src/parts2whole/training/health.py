"""Numerical health: the first loss that was not finite, without waiting for the device at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from parts2whole.training.runtime import Runtime

NAMED_AT_MOST = 12


class Health:
    """Watches the losses of a run.

    The number of the first bad step is kept on the device; asking for it, which waits for the device, is
    left to the steps that log, validate or save.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.never = torch.iinfo(torch.int64).max
        self.first_bad = torch.tensor(self.never, device=runtime.device)

    def watch(self, loss: Tensor, step: int) -> None:
        """Note whether ``loss`` of ``step`` is finite."""
        bad = ~torch.isfinite(loss) & (self.first_bad == self.never)
        self.first_bad = torch.where(bad, step, self.first_bad)

    def bad_step(self) -> int | None:
        """The first step with a loss that was not finite on any process; None where all were."""
        first = min(self.runtime.gather(int(self.first_bad)))
        return None if first == self.never else first


def name_cases(samples: Any, *, step: int, batch_size: int) -> str:
    """The cases in the batch of a step, in words; sample numbers where samples have no names."""
    numbers = range(step * batch_size, (step + 1) * batch_size)
    if not hasattr(samples, "case_of"):
        return f"samples {numbers[0]} to {numbers[-1]}"
    names = list(dict.fromkeys(str(samples.case_of(number)) for number in numbers))
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return f"cases {', '.join(names[:NAMED_AT_MOST])}{more}"
