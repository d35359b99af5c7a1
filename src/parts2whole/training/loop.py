"""The one training loop: pre-training and fine-tuning both run through `fit`.

A step is: set the rate, take a batch, compute the objective, go back, step.  Between steps the loop
validates, logs, saves, and stops when asked.  What the objective is, the loop doesn't know; how steps are
computed on which device, `runtime` knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from parts2whole.data.loader import Share, load_batches
from parts2whole.data.random import BatchGenerator, stream_seed
from parts2whole.training.checkpoint import Progress, load_checkpoint, save_best, save_checkpoint
from parts2whole.training.optim import Optimiser, Schedule, set_rates
from parts2whole.training.runtime import Runtime, unwrap
from parts2whole.training.track import Track

MakeViews = Callable[[Any, BatchGenerator], Any]
Objective = Callable[[nn.Module, Any], dict[str, Tensor]]
Validate = Callable[[nn.Module, int], dict[str, float]]


class FitError(RuntimeError):
    """Training that can't go on: a loss that is not a number, or a folder in use."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved its state."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and what to do when.

    Attributes:
        steps: number of optimiser steps.
        batch_size: rows of the global batch.
        seed: of every random number drawn while training.
        log_every: steps between training records.
        validate_every: steps between validations.
        checkpoint_every: steps between resumable checkpoints.
        monitor: validation value that decides about the best weights and early stopping.
        higher_is_better: direction of ``monitor``.
        patience: validations without improvement before stopping early; None never stops early.
        clip_norm: largest gradient norm; None doesn't clip.
        keep_best: keep the weights with the best ``monitor``.
    """

    steps: int
    batch_size: int
    seed: int = 0
    log_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 500
    monitor: str = "loss"
    higher_is_better: bool = False
    patience: int | None = None
    clip_norm: float | None = None
    keep_best: bool = False


def fit(
    module: nn.Module,
    *,
    views: MakeViews,
    objective: Objective,
    samples: Dataset[Any],
    groups: list[dict[str, Any]],
    optimiser: Optimiser,
    schedule: Schedule,
    plan: Plan,
    runtime: Runtime,
    folder: Path,
    name: str,
    validate: Validate | None = None,
    on_step: Callable[[nn.Module, int], None] | None = None,
    resume: bool = False,
    show: bool = True,
) -> Progress:
    """Train ``module`` in place.

    Args:
        module: what is trained; moved to the runtime's device.
        views: (batch on the device, generator) to what the objective needs; full precision, no gradient.
        objective: (module, views) to scalars in the runtime's precision; ``loss`` is minimised.
        samples: numbered training samples, ``batch_size`` a step.
        groups: parameter groups with a ``scale`` of the learning rate.
        optimiser: how gradients move parameters.
        schedule: how the rate changes.
        plan: how long, and what when.
        runtime: device, precision, processes.
        folder: the run folder.
        name: what the progress bar says.
        validate: (module, step) to values, in eval mode without gradients; it chooses its precision.
        on_step: called after every step, before validation.
        resume: go on from the newest checkpoint in ``folder``.
        show: draw the progress bar.

    Returns:
        How far the run got, its validation values and the best of them.

    Raises:
        FitError: the loss is not finite.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved.
    """
    built = optimiser.build(groups)
    module, built = runtime.prepare(module, built)
    inner = unwrap(module)
    progress, messages = (
        load_checkpoint(folder, module=inner, optimiser=built) if resume else (Progress(), [])
    )
    track = Track(
        folder,
        steps=plan.steps,
        name=name,
        first_step=progress.step,
        seconds=progress.seconds,
        show=show,
        write=runtime.is_main,
    )
    averages = _Averages()
    with track, _StopSignal() as stop:
        for message in messages:
            track.say(message)
        for batch in load_batches(
            samples,
            batch_size=plan.batch_size,
            first_step=progress.step,
            steps=plan.steps,
            share=Share(runtime.rank, runtime.ranks, runtime.hardware.workers),
        ):
            step = progress.step
            rate = optimiser.base_lr * schedule.factor(step, steps=plan.steps, values=progress.values)
            set_rates(built, rate, step)
            losses = _train_step(module, batch, step, views, objective, built, plan, runtime)
            averages.add(losses)
            progress.step = step = step + 1
            progress.seconds = track.seconds
            track.advance(step)
            if on_step is not None:
                on_step(inner, step)
            last = step == plan.steps
            if step % plan.log_every == 0 or last:
                _log(track, averages, step, rate, plan, runtime, folder)
            if validate is not None and (step % plan.validate_every == 0 or last):
                _validate(module, inner, validate, progress, plan, runtime, track, folder)
            waited = (step - progress.best_step) // plan.validate_every
            early = plan.patience is not None and bool(progress.values) and waited > plan.patience
            if runtime.is_main and (step % plan.checkpoint_every == 0 or last or early or stop.asked):
                save_checkpoint(folder, module=inner, optimiser=built, progress=progress)
            if early:
                track.say(f"Stopped early at step {step}: best {plan.monitor} was at {progress.best_step}.")
                break
            if stop.asked and not last:
                raise Interrupted(f"stopped at step {step}; the state is saved, go on with --resume")
    return progress


def _train_step(
    module: nn.Module,
    batch: Any,
    step: int,
    views: MakeViews,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    runtime: Runtime,
) -> dict[str, Tensor]:
    """One optimiser step; returns the objective's scalars, detached."""
    module.train()
    # Dropout and the like draw from the global generator: tie it to the step, so that a resume is exact.
    torch.manual_seed(stream_seed(plan.seed, "step", step, runtime.rank))
    generator = BatchGenerator.of_step(
        plan.seed,
        "views",
        step,
        rows=plan.batch_size // runtime.ranks,
        rank=runtime.rank,
        ranks=runtime.ranks,
        device=runtime.device,
    )
    with torch.no_grad():
        seen = runtime.place(views(runtime.place(batch), generator))
    optimiser.zero_grad(set_to_none=True)
    with runtime.autocast():
        losses = objective(module, seen)
    runtime.backward(losses["loss"])
    if plan.clip_norm is not None:
        runtime.fabric.clip_gradients(module, optimiser, max_norm=plan.clip_norm)
    optimiser.step()
    return {key: value.detach() for key, value in losses.items()}


def _validate(
    module: nn.Module,
    inner: nn.Module,
    validate: Validate,
    progress: Progress,
    plan: Plan,
    runtime: Runtime,
    track: Track,
    folder: Path,
) -> None:
    """Validate, record, and keep the weights if they are the best so far."""
    module.eval()
    with torch.no_grad():
        values = validate(inner, progress.step)
    track.record(progress.step, "validation", values)
    value = values[plan.monitor] * (-1 if plan.higher_is_better else 1)
    value = math.inf if math.isnan(value) else value  # undefined is never the best
    progress.values.append(value)
    if value < progress.best or not progress.best_step:
        progress.best, progress.best_step = value, progress.step
        if plan.keep_best and runtime.is_main:
            save_best(folder, inner)


def _log(
    track: Track,
    averages: _Averages,
    step: int,
    rate: float,
    plan: Plan,
    runtime: Runtime,
    folder: Path,
) -> None:
    """Record the averages since the last record, and refuse to go on with a loss that isn't finite."""
    values, per_second = averages.take()
    reduced = {key: float(runtime.mean(value)) for key, value in values.items()}
    if not all(math.isfinite(value) for value in reduced.values()):
        raise FitError(
            f"the loss is not finite by step {step} ({reduced}). The last checkpoint in "
            f"{folder / 'checkpoints'} is from before; lower the learning rate, or set clip_norm"
        )
    track.record(
        step, "train", reduced | {"lr": rate, "samples_per_s": round(per_second * plan.batch_size, 2)}
    )


class _Averages:
    """Running means of the objective's scalars, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.since = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        for key, value in losses.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()
        self.count += 1

    def take(self) -> tuple[dict[str, Tensor], float]:
        """The means and the steps per second since the last call."""
        means = {key: total / self.count for key, total in self.sums.items()}
        per_second = self.count / max(1e-9, time.monotonic() - self.since)
        self.sums, self.count, self.since = {}, 0, time.monotonic()
        return means, per_second


class _StopSignal(contextlib.AbstractContextManager["_StopSignal"]):
    """Turns the first SIGINT or SIGTERM into a wish to stop after the step; the second one kills."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _StopSignal:
        with contextlib.suppress(ValueError):  # signals can only be handled in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for asked, handler in self.before.items():
            signal.signal(asked, handler)
