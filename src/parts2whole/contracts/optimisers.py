"""What every optimiser and every schedule of the learning rate promise."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from parts2whole.contracts.base import Contract, promise
from parts2whole.training.optim import Optimiser, Schedule, parameter_groups, set_rates

CURVATURE = torch.tensor([0.3, 0.1, 0.05, 0.02])


class OptimiserContract(Contract):
    """Promises of an optimiser."""

    family = Optimiser
    spec: Optimiser

    def start(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A bowl to roll down: weight and bias, each far from its minimum at zero."""
        module = nn.Linear(4, 1)
        nn.init.ones_(module.weight)
        nn.init.ones_(module.bias)
        return module, self.spec.build(parameter_groups(module))

    def roll(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        steps: Iterable[int],
        rate: float | None = None,
    ) -> list[float]:
        """Take steps at the base rate, or another; returns the heights."""
        heights = []
        for step in steps:
            set_rates(optimiser, self.spec.base_lr if rate is None else rate, step)
            height: Tensor = sum(
                (0.5 * CURVATURE[: p.numel()] * p.square()).sum() for p in module.parameters()
            )  # type: ignore[assignment]
            optimiser.zero_grad()
            torch.autograd.backward(height)
            optimiser.step()
            heights.append(float(height.detach()))
        return heights

    def test_the_base_rate_is_above_zero(self) -> None:
        """The base learning rate is a number above zero."""
        promise(0 < self.spec.base_lr < math.inf, f"base_lr is {self.spec.base_lr}")

    def test_groups_keep_what_they_say(self) -> None:
        """Parameter groups keep their scale, their first step and their own weight decay."""
        module = nn.Linear(2, 2)
        wanted: list[dict[str, Any]] = [
            {"params": [module.weight], "scale": 0.5, "from_step": 3},
            {"params": [module.bias], "scale": 1.0, "from_step": 0, "weight_decay": 0.0},
        ]
        groups = self.spec.build([dict(group) for group in wanted]).param_groups
        for group, expected in zip(groups, wanted, strict=True):
            for key in set(expected) - {"params"}:
                promise(group.get(key) == expected[key], f"{key} is {group.get(key)}, not {expected[key]}")

    def test_it_goes_downhill(self) -> None:
        """At its base rate it goes down a smooth bowl."""
        heights = self.roll(*self.start(), range(50))
        lower = heights[-1] < heights[0]
        promise(lower, f"it went from {heights[0]:.4g} to {heights[-1]:.4g} in 50 steps")

    def test_a_rate_of_zero_moves_nothing(self) -> None:
        """At a rate of zero nothing moves, whatever happened before: so an encoder can wait for its turn."""
        module, optimiser = self.start()
        self.roll(module, optimiser, range(3))
        before = copy.deepcopy(module.state_dict())
        self.roll(module, optimiser, range(3, 6), rate=0.0)
        for key, value in module.state_dict().items():
            promise(torch.equal(value, before[key]), f"{key} has moved; multiply every change by group['lr']")

    def test_a_restored_state_goes_on_as_before(self) -> None:
        """One that loads the state of another goes on exactly as it would have."""
        module, optimiser = self.start()
        self.roll(module, optimiser, range(3))
        again, other = self.start()
        again.load_state_dict(copy.deepcopy(module.state_dict()))
        other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        expected = self.roll(module, optimiser, range(3, 8))
        found = self.roll(again, other, range(3, 8))
        promise(found == expected, f"heights {found}, not {expected}")


class ScheduleContract(Contract):
    """Promises of a schedule."""

    family = Schedule
    spec: Schedule

    HISTORIES = ((), (1.0,), (1.0, 0.5, 0.25), (1.0,) * 60, (0.5, math.nan, 0.4))

    def test_a_factor_is_a_number_not_below_zero(self) -> None:
        """At every step of a short or a long run the factor is a finite number, not below zero."""
        for steps in (1, 2, 7, 1000):
            for step in {*range(0, steps, max(1, steps // 50)), steps - 1}:
                for values in self.HISTORIES:
                    found = self.spec.factor(step, steps=steps, values=values)
                    good = math.isfinite(found) and found >= 0
                    promise(good, f"{found} at step {step} of {steps}, after validations {values}")

    def test_a_run_learns(self) -> None:
        """Some step of a run has a factor above zero, even if there is only one."""
        for steps in (1, 2, 7, 1000):
            highest = max(self.spec.factor(step, steps=steps, values=()) for step in range(steps))
            promise(highest > 0, f"every factor of a run of {steps} steps is {highest}")

    def test_a_factor_depends_on_its_arguments_alone(self) -> None:
        """The factor is a function of step, steps and validations: asked backwards, it is the same."""
        asked = [(step, values) for step in range(0, 100, 9) for values in self.HISTORIES]
        forwards = [self.spec.factor(step, steps=100, values=values) for step, values in asked]
        backwards = [self.spec.factor(step, steps=100, values=values) for step, values in reversed(asked)]
        promise(forwards == backwards[::-1], "asked in another order, it answers otherwise")

    def test_validations_are_left_alone(self) -> None:
        """Asking doesn't change the list of validations."""
        values = [1.0, 0.5, 0.7]
        self.spec.factor(50, steps=100, values=values)
        promise(values == [1.0, 0.5, 0.7], f"[1.0, 0.5, 0.7] has become {values}")
