"""A short search for the learning rate, on validation cases: the same for every arm that is compared.

Weights that were pre-trained often want another rate than fresh ones, and one rate for both hides what is
gained.  Every rate is tried from the same start, on the same samples, with the schedule drawn together to a
share of the steps.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from parts2whole.files import read_json, write_json
from parts2whole.training.checkpoint import Progress
from parts2whole.training.loop import LossError, Plan
from parts2whole.training.optim import Optimiser, OptimiserError


class Train(Protocol):
    """Trains a module in place, in a folder of its own."""

    def __call__(
        self, module: nn.Module, optimiser: Optimiser, plan: Plan, place: Path, *, resume: bool, show: bool
    ) -> Progress:
        """How it went."""


FACTORS = (0.1, 0.3, 1.0, 3.0)
"""Rates that are tried, as multiples of the optimiser's own."""
FOUND = "found.json"
SHARE = 0.25
"""Steps of a trial, as a share of the run's."""


@dataclasses.dataclass(frozen=True)
class RateSearch:
    """What a search found.

    Attributes:
        chosen: the rate that was best on validation cases; the optimiser's own where none was told from it.
        tried: for every rate, the validation value at the end of its trial; None where undefined.
        steps: of a trial.
        duration_s: of all trials together, validation included.
    """

    chosen: float
    tried: dict[str, float | None]
    steps: int
    duration_s: float

    def to_dict(self) -> dict[str, Any]:
        """As it is written into a result."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """What was tried and chosen, in a sentence."""
        tried = ", ".join(
            f"{rate}: {'undefined' if v is None else f'{v:.3g}'}" for rate, v in self.tried.items()
        )
        return (
            f"learning rate {self.chosen:g}, the best on validation cases after {self.steps} steps each "
            f"({tried}), which took {self.duration_s:.0f} s"
        )


def with_rate(optimiser: Optimiser, rate: float) -> Optimiser:
    """The optimiser at another base rate.

    Raises:
        OptimiserError: it has no field ``lr``, or the rate isn't above 0.
    """
    if "lr" not in {field.name for field in dataclasses.fields(optimiser)}:
        raise OptimiserError(f"{type(optimiser).__name__} has no field lr; leave lr out")
    changed: Optimiser = optimiser.replace(lr=rate)
    return changed


def search_rate(
    module: nn.Module, optimiser: Optimiser, *, plan: Plan, folder: Path, train: Train, show: bool = False
) -> RateSearch:
    """Try rates around that of ``optimiser``, each on a copy of ``module``; finished trials aren't run again.

    Args:
        module: where every trial starts; left as it is.
        optimiser: in the middle.
        plan: of the run that the search is for.
        folder: for the curves of the trials, a folder each.
        train: trains a module by a plan.
        show: say which rate is tried, and show how far each trial is.

    Raises:
        LossError: no rate can be trained with.
    """
    if (folder / FOUND).exists():
        return RateSearch(**read_json(folder / FOUND))
    began = time.monotonic()
    steps = max(1, round(SHARE * plan.steps))
    short = dataclasses.replace(
        plan,
        steps=steps,
        validate_every=steps,
        validate_first=False,
        checkpoint_every=steps,
        patience=None,
        keep_best=False,
    )
    own = optimiser.base_lr
    found: dict[float, float] = {}
    tried: dict[str, float | None] = {}
    for factor in sorted(FACTORS, key=lambda factor: abs(math.log(factor))):
        rate = float(f"{own * factor:.3g}")
        trial = with_rate(optimiser, rate)
        place = folder / f"lr-{rate:g}"
        if show:
            print(f"Trying learning rate {rate:g}, {len(tried) + 1} of {len(FACTORS)}", flush=True)
        try:
            value = train(copy.deepcopy(module), trial, short, place, resume=True, show=show).best
            found[rate] = value
        except LossError:  # it diverges, so it isn't chosen
            value = math.inf
            if not found and len(tried) == len(FACTORS) - 1:
                raise
        tried[f"{rate:g}"] = (
            (value if not plan.higher_is_better else -value) if math.isfinite(value) else None
        )
    chosen = min(found, key=found.__getitem__)  # among equals the nearest to its own
    search = RateSearch(chosen, tried, steps, round(time.monotonic() - began, 2))
    write_json(folder / FOUND, search.to_dict())
    for kept in folder.rglob("*.ckpt*"):
        kept.unlink(missing_ok=True)
    return search
