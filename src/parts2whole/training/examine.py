"""Examining a pretext task while it trains: fixed wholes, fixed views, trivial baselines, pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from parts2whole.errors import Parts2WholeError
from parts2whole.methods.base import Discrimination, Method, Reconstruction, Views, make_views
from parts2whole.networks.heads import Model
from parts2whole.progress import watch
from parts2whole.report.figures import write_panel
from parts2whole.report.runs import Panel, write_volumes
from parts2whole.run_folder import PANELS
from parts2whole.scans.volume import size_of
from parts2whole.training.encode import embed_map, settled
from parts2whole.training.loop import Plan
from parts2whole.training.monitor import ContrastMonitor
from parts2whole.training.optim import Schedule
from parts2whole.training.runtime import Runtime
from parts2whole.wholes.geometry import Boxes
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import WholeSampler

PANEL_ROWS = 6
CONSTANT = 1e-3
"""Spread over wholes, relative to what it should be, below which an output counts as constant."""
EARLY = 0.25
"""Share of the steps before which a collapse is not spoken of."""
SPREADS = {
    "map_spread": "spread of its bottleneck map {:.2g} of the size of that",
    "output_spread": "spread of its output {:.2g} of that of the wholes",
}


class ExamineError(Parts2WholeError, ValueError):
    """Numbers that nothing can be examined by."""


class Examiner:
    """Measures a pretext task on fixed held-out wholes with fixed views, beside what needs no learning.

    The trivial baselines expose a collapse.  For a method that rebuilds: predicting the mean training whole,
    and giving back what the network sees (the part stretched to the whole).  For one that tells wholes apart:
    guessing.

    Args:
        method: the pretext task.
        sampler: of held-out wholes.
        train: of training wholes.
        wholes: how many are examined.
        plan: of the training.
        runtime: device, precision, processes.
        folder: the run folder; nothing is written before the first call.
        panel_every: steps between pictures.
        schedule: of the learning rate; a collapse is not spoken of before its warm-up ends.

    Raises:
        ExamineError: no wholes, or no steps between pictures.
        parts2whole.methods.base.MethodError: too few wholes for the method.
    """

    def __init__(
        self,
        method: Method,
        sampler: WholeSampler,
        train: WholeSampler,
        *,
        wholes: int,
        plan: Plan,
        runtime: Runtime,
        folder: Path,
        panel_every: int,
        schedule: Schedule,
    ) -> None:
        for name, number in (("validation_wholes", wholes), ("panel_every", panel_every)):
            if number < 1:
                raise ExamineError(f"{name} must be 1 or more, got {number}")
        batch_size, seed = min(plan.batch_size, wholes), plan.seed
        method.check_batch(batch_size)
        self.method, self.seed = method, seed
        self.runtime = runtime
        self.folder = folder
        self.panel_every = panel_every
        self.every = plan.validate_every
        self.steps = plan.steps
        self.judged_from = max(EARLY * plan.steps, _warm_up(schedule, plan.steps))
        self.loss = float("inf")
        self.spreads: dict[str, float] = {}
        drawn = [sampler.draw("validation", i) for i in range(wholes)]
        fixed = [sampler.read_sample(whole) for whole in drawn]
        read = [sample if isinstance(sample, Tensor) else sample["whole"] for sample in fixed]
        self.contrast = ContrastMonitor(drawn, read, seed=seed, batch_size=batch_size, runtime=runtime)
        self.names = tuple(whole.case_id for whole in drawn)
        self.spacings_mm = tuple(sampler.network_spacing(whole) for whole in drawn)
        first_batch = default_collate(fixed[:batch_size])
        self.wholes = first_batch if isinstance(first_batch, Tensor) else first_batch["whole"]
        self.views: list[Views] = []
        self.rows: list[int] = []
        starts = [first for first in range(0, wholes, batch_size) if first == 0 or wholes - first > 1]
        for first, end in zip(starts, [*starts[1:], wholes], strict=True):  # a single whole isn't left over
            batch = default_collate(fixed[first:end])
            self.views.append(make_views(method, batch, self._draws(first, end - first)))
            self.rows.append(end - first)
        self.baselines = self._baselines(train, wholes)

    def _baselines(self, train: WholeSampler, wholes: int) -> dict[str, float]:
        """Losses of predictions that take no learning, on the fixed views."""
        method, found = self.method, dict[str, float]()
        if isinstance(method, Reconstruction):
            mean = torch.stack([train.read(train.draw("mean whole", i)) for i in range(4 * wholes)]).mean(0)
            found["baseline_mean_whole"] = self._error(lambda views: mean.expand_as(views["part"]))
            stretched = self._error(lambda views: views["part"])
            if stretched > 0:  # an autoencoder sees the whole itself
                found["baseline_stretched_part"] = stretched
        if isinstance(method, Discrimination):
            guesses = [rows * math.log(method.candidates(rows)) for rows in self.rows]
            found["baseline_guessing"] = sum(guesses) / wholes
        guessed = [(method.guess(views), rows) for views, rows in zip(self.views, self.rows, strict=True)]
        if costs := [float(loss) * rows for loss, rows in guessed if loss is not None]:
            found["baseline_guessing"] = sum(costs) / wholes
        return found

    def _draws(self, first: int, rows: int) -> BatchGenerator:
        """The random numbers of the fixed views of ``rows`` wholes, beginning with ``first``."""
        return BatchGenerator.of_step(self.seed, "validation views", first, rows=rows)

    def __call__(self, module: nn.Module, step: int) -> dict[str, float]:
        """Losses, spreads and baselines; also draws the panel when it is time."""
        if step == 0:
            module = settled(module, self._show, self.runtime.device)
        batches = list(zip(self.views, self.rows, strict=True))
        mine = [
            self._losses(module, views, rows) if number % self.runtime.ranks == self.runtime.rank else {}
            for number, (views, rows) in enumerate(watch(batches, sum(self.rows), each=self.rows[0]))
        ]
        # Batches are the same for any number of processes and are added in the same order.
        losses = [max(found, key=len) for found in zip(*self.runtime.gather(mine), strict=True)]
        values = {key: sum(batch[key] for batch in losses) / sum(self.rows) for key in losses[0]}
        self.loss = values.get("reconstruction", values["loss"])
        if float(_spread(self.wholes)) > CONSTANT:  # wholes that are all alike can't show a collapse
            self.spreads = {"map_spread": self._map_spread(module)}
            if isinstance(self.method, Reconstruction):
                self.spreads["output_spread"] = self._output_spread(module)
        if isinstance(self.method, Reconstruction):
            due = step // self.panel_every > max(0, step - self.every) // self.panel_every
            if self.runtime.is_main and (due or step >= self.steps):
                self._draw_panel(module, step)
        if self.collapsed and step > self.judged_from and self.runtime.is_main:
            self.warn(step)
        return values | self.spreads | self.baselines | self.contrast(module)

    @torch.no_grad()
    def judge(self, module: nn.Module, step: int) -> bool:
        """Whether the training has ended in a collapse; measured now if a resumed run had no step left."""
        if math.isinf(self.loss):
            self(module.eval(), step)
        return self.collapsed

    def _show(self, module: nn.Module) -> None:
        for views, rows in zip(self.views, self.rows, strict=True):
            self._losses(module, views, rows)

    def _losses(self, module: nn.Module, views: Views, rows: int) -> dict[str, float]:
        """Sums over the rows of a batch."""
        with self.runtime.autocast():
            losses = self.method.loss(module, self.runtime.place(views))
        return {key: float(value) * rows for key, value in losses.items()}

    @property
    def collapsed(self) -> bool:
        """Whether the loss is no better than what needs no learning, or everything looks alike inside."""
        trivial = bool(self.baselines) and not self.loss < min(self.baselines.values())
        return trivial or self.is_constant

    @property
    def is_constant(self) -> bool:
        """Whether output or bottleneck map hardly depend on what the network sees."""
        return any(spread < CONSTANT for spread in self.spreads.values())

    def warn(self, step: int) -> None:
        """Say loudly that nothing has been learned yet."""
        if self.is_constant:
            found = {key: spread for key, spread in self.spreads.items() if spread < CONSTANT}
            figures = ", ".join(SPREADS[key].format(spread) for key, spread in found.items())
            print(
                f"WARNING: at step {step} the network gives nearly the same for every whole ({figures}). "
                "It has collapsed.",
                flush=True,
            )
            return
        figures = ", ".join(f"{key.removeprefix('baseline_')} {v:.4g}" for key, v in self.baselines.items())
        print(
            f"WARNING: at step {step} the validation loss {self.loss:.4g} is no better than a trivial "
            f"prediction ({figures}). The network may have collapsed.",
            flush=True,
        )

    def _map_spread(self, module: nn.Module) -> float:
        """How far the bottleneck maps of different wholes lie apart, relative to their size."""
        assert isinstance(module, Model)
        maps = embed_map(module.encoder, [self.wholes], self.runtime)[0].double()
        return float(_spread(maps) / maps.square().mean().sqrt().clamp_min(1e-30))

    def _output_spread(self, module: nn.Module) -> float:
        """How far what is rebuilt of different wholes lies apart, relative to the wholes themselves."""
        assert isinstance(self.method, Reconstruction)
        part, whole = self.views[0]["part"], self.views[0]["whole"]
        with self.runtime.autocast():
            rebuilt = self.method.reconstruct(module, self.runtime.place(part[:: len(part) // len(whole)]))
        return float(_spread(rebuilt.double().cpu()) / _spread(whole.double()))

    def _error(self, predict: Callable[[Views], Tensor]) -> float:
        """Mean error over wholes of what ``predict`` makes of their views."""
        assert isinstance(self.method, Reconstruction)
        errors = [float(self.method.error(predict(views), views)) for views in self.views]
        return sum(error * rows for error, rows in zip(errors, self.rows, strict=True)) / sum(self.rows)

    def _draw_panel(self, module: nn.Module, step: int) -> None:
        assert isinstance(self.method, Reconstruction)
        views = self.views[0]
        parts = len(views["part"]) // len(views["whole"])
        part = views["part"][::parts][:PANEL_ROWS]
        whole = views["whole"][:PANEL_ROWS]
        with self.runtime.autocast():
            rebuilt = self.method.reconstruct(module, self.runtime.place(part))
        boxes = self.method.boxes(size_of(whole), self._draws(0, self.rows[0]))
        panel = Panel(
            part=_first_channel(part),
            reconstruction=_first_channel(rebuilt),
            whole=_first_channel(whole),
            spacing_mm=self.spacings_mm[: len(part)],
            names=self.names[: len(part)],
            boxes=None if boxes is None else _edges(boxes)[::parts][:PANEL_ROWS],
        )
        write_panel(self.folder / PANELS / f"step-{step:06d}.png", panel, title=f"step {step:,}")
        write_volumes(self.folder, panel)


def _warm_up(schedule: Schedule, steps: int) -> int:
    """The first step at the highest rate, but for a thousandth of the steps."""
    tried = range(0, steps, max(1, steps // 1000))
    return max(tried, key=lambda step: schedule.factor(step, steps=steps, values=()))


def _spread(rows: Tensor) -> Tensor:
    """Root mean square distance of rows from their mean."""
    return (rows - rows.mean(0)).square().mean().sqrt()


def _edges(boxes: Boxes) -> npt.NDArray[np.float32]:
    """First and one-past-last voxel of boxes along (z, y, x): (boxes, 3, 2)."""
    edges = torch.stack([boxes.start, boxes.start + boxes.size], dim=2)
    array: npt.NDArray[np.float32] = edges.float().cpu().numpy()
    return array


def _first_channel(x: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = x[:, 0].float().cpu().numpy()
    return array
