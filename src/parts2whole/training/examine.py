"""Examining a pretext task while it trains: fixed wholes, fixed views, trivial baselines, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.data.random import BatchGenerator
from parts2whole.data.sampler import WholeSampler
from parts2whole.methods.base import Method, Reconstruction, Views, repeat_rows
from parts2whole.report.figures import write_panel
from parts2whole.report.runs import Panel, write_volumes
from parts2whole.training.monitor import ContrastMonitor
from parts2whole.training.runtime import Runtime

PANEL_ROWS = 6


class Examiner:
    """Measures a pretext task on fixed held-out wholes with fixed views, beside what needs no learning.

    The trivial baselines expose a collapse: predicting the mean training whole, and, for a method that
    rebuilds, giving back what the network sees (the part stretched to the whole).
    """

    def __init__(
        self,
        method: Method,
        sampler: WholeSampler,
        train: WholeSampler,
        *,
        wholes: int,
        batch_size: int,
        seed: int,
        runtime: Runtime,
        folder: Path,
        panel_every: int,
        steps: int,
    ) -> None:
        self.method = method
        self.runtime = runtime
        self.folder = folder
        self.panel_every = panel_every
        self.steps = steps
        self.last_panel = 0
        self.loss = float("inf")
        drawn = [sampler.draw("validation", i) for i in range(wholes)]
        fixed = [sampler.read(whole) for whole in drawn]
        self.contrast = ContrastMonitor(drawn, fixed, seed=seed, batch_size=batch_size, runtime=runtime)
        self.names = tuple(whole.case_id for whole in drawn)
        self.spacing_mm = sampler.network_spacing(drawn[0])
        self.views: list[Views] = []
        for first in range(0, wholes, batch_size):
            batch = torch.stack(fixed[first : first + batch_size])
            generator = BatchGenerator.of_step(seed, "validation views", first, rows=len(batch))
            self.views.append(method.views(batch, generator))
        self.baselines: dict[str, float] = {}
        if isinstance(method, Reconstruction):
            mean = torch.stack([train.read(train.draw("mean whole", i)) for i in range(4 * wholes)]).mean(0)
            self.baselines["baseline_mean_whole"] = self._error(lambda views: mean.expand_as(views["part"]))
            stretched = self._error(lambda views: views["part"])
            if stretched > 0:  # an autoencoder sees the whole itself
                self.baselines["baseline_stretched_part"] = stretched

    def __call__(self, module: nn.Module, step: int) -> dict[str, float]:
        """Losses and baselines; also draws the panel when it is time."""
        sums: dict[str, float] = {}
        count = 0
        for views in self.views:
            rows = len(views["whole"])
            with self.runtime.autocast():
                losses = self.method.loss(module, self.runtime.place(views))
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + float(value) * rows
            count += rows
        values = {key: total / count for key, total in sums.items()}
        self.loss = values["loss"]
        due = step - self.last_panel >= self.panel_every or step >= self.steps
        if isinstance(self.method, Reconstruction) and self.runtime.is_main and due:
            self._draw_panel(module, step)
            self.last_panel = step
        if self.collapsed and step > 0.25 * self.steps:
            self.warn(step)
        return values | self.baselines | self.contrast(module)

    @property
    def collapsed(self) -> bool:
        """Whether the loss is no better than what needs no learning."""
        return bool(self.baselines) and not self.loss < min(self.baselines.values())

    def warn(self, step: int) -> None:
        """Say loudly that nothing has been learned yet."""
        figures = ", ".join(f"{key.removeprefix('baseline_')} {v:.4g}" for key, v in self.baselines.items())
        print(
            f"WARNING: at step {step} the validation loss {self.loss:.4g} is no better than a trivial "
            f"prediction ({figures}). The network may have collapsed.",
            flush=True,
        )

    def _error(self, predict: Callable[[Views], Tensor]) -> float:
        total, count = 0.0, 0
        for views in self.views:
            parts = len(views["part"]) // len(views["whole"])
            target = repeat_rows(views["whole"], parts)
            guess = predict(views)
            total += float(F.mse_loss(guess, target)) * len(target)
            count += len(target)
        return total / count

    def _draw_panel(self, module: nn.Module, step: int) -> None:
        assert isinstance(self.method, Reconstruction)
        views = self.views[0]
        parts = len(views["part"]) // len(views["whole"])
        part = views["part"][::parts][:PANEL_ROWS]
        whole = views["whole"][:PANEL_ROWS]
        with self.runtime.autocast():
            rebuilt = self.method.reconstruct(module, self.runtime.place(part))
        panel = Panel(
            part=_first_channel(part),
            reconstruction=_first_channel(rebuilt),
            whole=_first_channel(whole),
            spacing_mm=self.spacing_mm,
            names=self.names[: len(part)],
        )
        write_panel(
            self.folder / "panels" / f"step-{step:06d}.png",
            part=panel.part,
            reconstruction=panel.reconstruction,
            whole=panel.whole,
            spacing_mm=panel.spacing_mm,
            names=panel.names,
            title=f"step {step:,}",
        )
        write_volumes(self.folder, panel)


def _first_channel(x: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = x[:, 0].float().cpu().numpy()
    return array
