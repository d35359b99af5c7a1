"""How long a study may be for the time there is: what a trial measured, laid out over the workers."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterable

from parts2whole.study.trial import Trial

LADDER = ((3, 1), (6, 1), (6, 2), (10, 2), (10, 3))
"""Seeds and numbers of labels, from a try, over what a test can tell apart, to more than most need."""

PRETRAIN_STEPS, FINETUNE_STEPS = 500, 100
"""What a rung of the ladder must have room for; what time is left makes both longer."""

SHORTEST, LONGEST = 0.5, 10.0
"""Limits of how much shorter or longer than that both are."""

MOST_PRETRAINING = 20
"""A pre-training that other processes leave time for takes at most so many steps for one of fine-tuning."""

FEW = 5
"""Labelled patients of the first setting: few, where pre-training has something to give."""

PRETRAIN_VALIDATIONS, FINETUNE_VALIDATIONS = 5, 2
ARMS = 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How many there are of scans, labelled cases, and patients on the sides of the task.

    Attributes:
        scans: to pre-train on.
        labelled: cases.
        train: patients to train on, in a fold if there are several.
        validation: patients to choose the step on.
        test: patients to be tested.
        folds: times that these sides are dealt anew.
        pretrainings: one for all folds, or one for each.
    """

    scans: int
    labelled: int
    train: int
    validation: int
    test: int
    folds: int = 1
    pretrainings: int = 1


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a study is.

    Attributes:
        pretrain_steps: of the pre-training.
        batch_size: wholes in a batch of it.
        finetune_steps: of every fine-tuning.
        cases: numbers of labelled patients; None is all there are.
        seeds: of every arm and number of labels.
        folds: of every seed.
    """

    pretrain_steps: int
    batch_size: int
    finetune_steps: int = 0
    cases: tuple[int | None, ...] = ()
    seeds: int = 0
    folds: int = 1

    @property
    def is_ample(self) -> bool:
        """Whether all training is long enough to show what it is about."""
        enough = self.pretrain_steps >= PRETRAIN_STEPS
        return enough and (not self.cases or self.finetune_steps >= FINETUNE_STEPS)

    @property
    def finetunings(self) -> int:
        """How many there are."""
        return ARMS * len(self.cases) * self.seeds * self.folds


def enough(sizes: Sizes, batch_size: int) -> Length:
    """The shortest study that can be expected to show something."""
    seeds, settings = LADDER[1]
    cases = choose_labels(sizes.train, settings)
    return Length(PRETRAIN_STEPS, batch_size, FINETUNE_STEPS, cases, seeds, sizes.folds)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds: of all of it, of preparing, of the pre-training and of one fine-tuning."""

    total_s: float
    prepare_s: float
    pretrain_s: float
    finetune_s: float


def choose_length(trial: Trial, sizes: Sizes, *, seconds: float, batch_size: int, cores: int) -> Length:
    """The study that the time suffices for, the shortest where it doesn't; without labels a pre-training.

    Args:
        trial: what was measured, with batches of ``batch_size``.
        sizes: of the data.
        seconds: there are.
        batch_size: wholes in a batch; halved where time is short.
        cores: that scans are prepared on.
    """
    if not sizes.labelled:
        return _choose_pretraining(trial, sizes, seconds, batch_size, cores)

    def stretched(rung: tuple[int, int], factor: float, batch: int) -> Length:
        seeds, settings = rung
        return Length(
            _round(factor * PRETRAIN_STEPS),
            batch,
            _round(factor * FINETUNE_STEPS),
            choose_labels(sizes.train, settings),
            seeds,
            sizes.folds,
        )

    def fits(length: Length) -> bool:
        return estimate(length, trial, sizes, tried_batch=batch_size, cores=cores).total_s <= seconds

    whole, half = batch_size, max(1, batch_size // 2)
    rung, batch = next(
        ((rung, whole) for rung in reversed(LADDER) if fits(stretched(rung, 1.0, whole))), (LADDER[0], half)
    )
    factor = _largest(SHORTEST, LONGEST, lambda factor: fits(stretched(rung, factor, batch)))
    length = stretched(rung, factor, batch)
    most = MOST_PRETRAINING * length.finetune_steps

    def longer(steps: float) -> Length:
        return dataclasses.replace(length, pretrain_steps=_round(steps))

    return longer(_largest(length.pretrain_steps, most, lambda steps: fits(longer(steps))))


def _choose_pretraining(trial: Trial, sizes: Sizes, seconds: float, batch_size: int, cores: int) -> Length:
    """A pre-training alone, where nothing is labelled."""

    def fits(steps: float) -> bool:
        length = Length(_round(steps), batch_size)
        return estimate(length, trial, sizes, tried_batch=batch_size, cores=cores).total_s <= seconds

    most = LONGEST * MOST_PRETRAINING * FINETUNE_STEPS
    return Length(_round(_largest(SHORTEST * PRETRAIN_STEPS, most, fits)), batch_size)


def _largest(low: float, high: float, fits: Callable[[float], bool]) -> float:
    """The largest value between ``low``, which needn't fit, and ``high`` that does."""
    if fits(high):
        return high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def choose_labels(train: int, settings: int) -> tuple[int | None, ...]:
    """Numbers of labelled patients, of ``train`` there are, so many ``settings`` as there can be."""
    few: tuple[int | None, ...] = (min(FEW, train),)
    if settings >= 2 and train > 2 * FEW:
        few = (*few, None)
    return (2, *few) if settings >= 3 and train > FEW else few


def estimate(length: Length, trial: Trial, sizes: Sizes, *, tried_batch: int, cores: int) -> Cost:
    """What a study takes, in order: prepare, then the pre-training beside what needs none, then the rest."""
    smaller = length.batch_size / tried_batch
    pretrain = (
        trial.pretrain.fixed_s
        + length.pretrain_steps * trial.pretrain.step_s * smaller
        + (1 + PRETRAIN_VALIDATIONS) * trial.pretrain.validation_s
    )
    finetune = 0.0
    if trial.finetune is not None:
        pace = trial.finetune
        finetune = (
            pace.fixed_s
            + length.finetune_steps * pace.step_s
            + (1 + FINETUNE_VALIDATIONS + 1) * sizes.validation * pace.validation_s
            + sizes.test * pace.test_s
        )
    starts = trial.start_s  # of the command itself
    hands = max(1, cores)
    prepare = sizes.scans * trial.prepare_s / min(hands, max(1, sizes.scans)) + trial.start_s
    if sizes.labelled:
        prepare += sizes.labelled * trial.label_s / min(hands, sizes.labelled) + trial.start_s
    each = length.finetunings // ARMS
    first = trial.start_s + makespan([*[pretrain] * sizes.pretrainings, *[finetune] * each], trial.workers)
    then = trial.start_s + makespan([finetune] * each, trial.workers) if each else 0.0
    return Cost(starts + prepare + first + then, prepare, pretrain, finetune)


def makespan(pieces: Iterable[float], workers: int) -> float:
    """When the last of the pieces is done, each begun by whoever is free first."""
    free = [0.0] * max(1, workers)
    for piece in pieces:
        heapq.heapreplace(free, free[0] + piece)
    return max(free)


def _round(steps: float) -> int:
    """Two digits."""
    size: int = 10 ** max(0, len(str(int(steps))) - 2)
    return max(1, int(steps) // size * size)
