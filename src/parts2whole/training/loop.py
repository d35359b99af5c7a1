"""The one training loop: pre-training and fine-tuning both run through `fit`.

A step is: set the rate, take a batch, compute the objective, go back, step.  Between steps the loop
validates, logs, saves, and stops when asked.  What the objective is, the loop doesn't know; how steps are
computed on which device, `runtime` knows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from parts2whole.errors import Parts2WholeError
from parts2whole.training.checkpoint import (
    Progress,
    drop_later,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from parts2whole.training.choice import defined, is_best, waited
from parts2whole.training.health import Health, name_cases
from parts2whole.training.lock import list_checkpoints
from parts2whole.training.loggers import Loggers
from parts2whole.training.optim import Optimiser, Schedule, set_rates
from parts2whole.training.runtime import Runtime, unwrap
from parts2whole.training.step import MakeViews, Objective, TrainStep
from parts2whole.training.stop import Interrupted, StopSignal
from parts2whole.training.track import Averages, Track
from parts2whole.wholes.loader import load_batches

__all__ = ["FitError", "Interrupted", "Plan", "PlanError", "fit"]

Validate = Callable[[nn.Module, int], dict[str, float]]


class PlanError(Parts2WholeError, ValueError):
    """Numbers that no training can go by."""


class FitError(Parts2WholeError, RuntimeError):
    """Training that can't go on: a loss that is not a number, or processes that have come apart."""


class LossError(FitError):
    """A loss that is not a number."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and what to do when.

    Attributes:
        steps: number of optimiser steps.
        batch_size: rows of the global batch.
        seed: of every random number drawn while training.
        log_every: steps between training records.
        validate_every: steps between validations.
        validate_first: validate before the first step, too; only recorded, as nothing is chosen by it.
        checkpoint_every: steps between resumable checkpoints.
        monitor: validation value that decides about the best weights and early stopping; while it is
            undefined, the validation value ``loss`` decides about the weights, if there is one.
        higher_is_better: direction of ``monitor``.
        patience: validations without improvement before stopping early; None never stops early. A value that
            is undefined, or has always been the same, stops nothing.
        clip_norm: largest gradient norm; None doesn't clip.
        keep_best: keep the weights with the best ``monitor``.
        independent: the objective is a mean over rows that don't see each other, so that a batch may be
            computed in pieces.

    Raises:
        PlanError: a number that makes no sense.
    """

    steps: int
    batch_size: int
    seed: int = 0
    log_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 500
    validate_first: bool = False
    monitor: str = "loss"
    higher_is_better: bool = False
    patience: int | None = None
    clip_norm: float | None = None
    keep_best: bool = False
    independent: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.patience is not None and self.patience < 0:
            raise PlanError(f"patience must be 0 or more, or none, got {self.patience}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise PlanError(f"clip_norm must be above 0, or none, got {self.clip_norm}")


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
    then: float = 0.0,
    loggers: Loggers | None = None,
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
        show: show how far it is, and how long the rest will take.
        then: what will be examined after the last step, such as test cases, in validations of the run; the
            time left has it, too.
        loggers: who is told what is logged, beside the files of the run.

    Returns:
        How far the run got, its validation values and the best of them.

    Raises:
        LossError: the loss is not finite.
        FitError: processes have come apart.
        Interrupted: SIGINT, SIGTERM or SIGUSR1 arrived; the state is saved.
        parts2whole.training.step.MemoryShortage: a batch doesn't fit, and can't be computed in pieces.
        parts2whole.training.checkpoint.CheckpointError: a checkpoint can't be written or doesn't fit.
    """
    built = optimiser.build(groups)
    module, built = runtime.prepare(module, built)
    inner = unwrap(module)
    progress, messages = _restore(folder, inner, built, runtime, resume)
    track = Track(
        folder,
        steps=plan.steps,
        name=name,
        first_step=progress.step,
        seconds=progress.seconds,
        show=show,
        write=runtime.is_main,
        validate_every=plan.validate_every if validate is not None else 0,
        then=then,
        loggers=loggers,
    )
    health = Health(runtime)
    with track, StopSignal() as stop:
        for message in messages:
            track.say(message)
        train = TrainStep(
            module,
            built,
            views=views,
            objective=objective,
            batch_size=plan.batch_size,
            seed=plan.seed,
            clip_norm=plan.clip_norm,
            independent=plan.independent,
            micro_batches=progress.micro_batches,
            runtime=runtime,
            say=track.say,
        )
        if validate is not None and plan.validate_first and progress.step == 0:
            _measure(module, inner, validate, 0, runtime, track)
        averages = Averages(progress.sums, progress.summed, device=runtime.device)
        for batch in load_batches(
            samples,
            batch_size=plan.batch_size,
            first_step=progress.step,
            steps=progress.step if _is_over(progress, plan) else plan.steps,
            share=train.share,
        ):
            step = progress.step
            rate, encoder_rate = (
                optimiser.base_lr * factor(step, steps=plan.steps, values=progress.values)
                for factor in (schedule.factor, schedule.encoder_factor)
            )
            set_rates(built, rate, step, encoder_rate=encoder_rate)
            losses = train(batch, step)
            averages.add(losses)
            health.watch(losses["loss"], step)
            progress.step = step = step + 1
            track.advance(step)
            if on_step is not None:
                on_step(inner, step)
            last = step == plan.steps
            log, check, save = (
                last or step % every == 0
                for every in (plan.log_every, plan.validate_every, plan.checkpoint_every)
            )
            if log or check:
                _refuse_bad_loss(health, samples, plan, folder)
            if log:
                _log(track, averages, step, rate, plan, train, runtime)
            if validate is not None and check:
                _validate(module, inner, validate, progress, plan, runtime, track, folder)
            early = _is_over(progress, plan) and not last
            asked = runtime.any(stop.exit_code)
            if save or early or asked:
                _refuse_bad_loss(health, samples, plan, folder)
                progress.seconds, progress.micro_batches = track.seconds, train.micro_batches
                progress.sums, progress.summed = _reduce(averages.sums, train, runtime), averages.count
                if runtime.is_main:
                    scaler = runtime.scaler_state()
                    save_checkpoint(folder, module=inner, optimiser=built, progress=progress, scaler=scaler)
                runtime.barrier()
            if early:
                track.say(f"Stopped early at step {step}: best {plan.monitor} was at {progress.best_step}.")
                break
            if asked and not last:
                text = f"stopped at step {step}; the state is saved, go on with --resume true"
                raise Interrupted(text, exit_code=asked)
    return progress


def _restore(
    folder: Path, inner: nn.Module, optimiser: torch.optim.Optimizer, runtime: Runtime, resume: bool
) -> tuple[Progress, list[str]]:
    """Go on where the run folder's newest complete checkpoint is, on all processes alike."""
    if not resume:
        return Progress(), []
    progress, scaler, messages = load_checkpoint(folder, module=inner, optimiser=optimiser)
    runtime.restore_scaler(scaler)
    steps = runtime.gather(progress.step)
    if len(set(steps)) > 1:
        raise FitError(
            f"the processes found checkpoints of different steps ({steps}): {folder} must be one folder on a "
            "file system that all nodes share"
        )
    if runtime.is_main:
        drop_later(folder, progress.step)
    return progress, messages


def _is_over(progress: Progress, plan: Plan) -> bool:
    """Whether the last step is done, or validation has not improved for long enough."""
    patient = plan.patience is None or waited(progress.values) <= plan.patience
    return progress.step >= plan.steps or not patient


def _measure(
    module: nn.Module, inner: nn.Module, validate: Validate, step: int, runtime: Runtime, track: Track
) -> dict[str, float]:
    """Validate and record."""
    module.eval()
    with torch.no_grad(), track.validating():
        values = runtime.from_main(validate(inner, step))
    track.record(step, "validation", values)
    return values


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
    values = _measure(module, inner, validate, progress.step, runtime, track)
    value = values[plan.monitor] * (-1 if plan.higher_is_better else 1)
    progress.values.append(value)
    new, best = defined(value, values.get("loss", math.nan)), (progress.best, progress.best_other)
    if is_best(new, best):
        progress.best_step, (progress.best, progress.best_other) = progress.step, new
        if plan.keep_best and runtime.is_main:
            save_best(folder, inner, progress.step)


def _log(
    track: Track,
    averages: Averages,
    step: int,
    rate: float,
    plan: Plan,
    train: TrainStep,
    runtime: Runtime,
) -> None:
    """Record the means over all rows since the last record."""
    values, per_second = averages.take()
    figures = {"lr": rate, "samples_per_s": round(per_second * plan.batch_size, 2)}
    track.record(step, "train", _reduce(values, train, runtime) | figures)


def _reduce(values: Mapping[str, Tensor | float], train: TrainStep, runtime: Runtime) -> dict[str, float]:
    """Means over all processes, each by the number of its rows."""
    mine = {key: float(value) * train.weight for key, value in values.items()}
    everyone = runtime.gather(mine)
    return {key: sum(theirs[key] for theirs in everyone) / len(everyone) for key in mine}


def _refuse_bad_loss(health: Health, samples: Dataset[Any], plan: Plan, folder: Path) -> None:
    """Stop at a loss that isn't finite, before it is saved."""
    bad = health.bad_step()
    if bad is None:
        return
    kept = list_checkpoints(folder)
    last = f"The last good checkpoint is {kept[-1]}" if kept else "There is no checkpoint yet"
    raise LossError(
        f"the loss is not finite at step {bad + 1}, in a batch of "
        f"{name_cases(samples, step=bad, batch_size=plan.batch_size)}. {last}. Look at these cases; if they "
        "are sound, start again with a lower learning rate or a clip_norm"
    )
