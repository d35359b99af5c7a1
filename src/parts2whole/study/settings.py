"""What a first study is made of: settings that suit folders of scans, each with its reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.unet3d import UNet3D
from parts2whole.scans.preprocess import Modality, Preprocess
from parts2whole.study.budget import FINETUNE_VALIDATIONS, PRETRAIN_VALIDATIONS, Length, Sizes
from parts2whole.study.draft import Draft, Reason
from parts2whole.study.plan import Settings
from parts2whole.survey.propose import Proposal
from parts2whole.tasks.dicom_segmentation import DicomSegmentation
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.tasks.sides import FEW_TESTED
from parts2whole.training.optim import AdamW
from parts2whole.wholes.where import Anywhere, Body, Where

BATCH, FINETUNE_BATCH = 8, 4
"""Wholes and patches in a batch."""

TEST_SHARE, VALIDATION_SHARE = 0.3, 0.15
MOST_TESTED, MOST_VALIDATED = 40, 10
"""More patients cost time, and the interval of a mean hardly narrows."""

FOLDS = 5
"""Of a cross-validation: a fifth is tested at a time, as nnU-Net does it."""

ENOUGH_SEEDS = 6
"""With fewer pairs no two-sided permutation test can reach p < 0.05."""

Reasons = dict[str, Reason]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Settings of `prepare`, `pretrain`, `finetune` and its task, before it is known how long there is.

    Attributes:
        prepare: with ``scans``.
        pretrain: without those that say how long.
        task: fields of its class; empty where nothing is labelled.
        kind: class of the task.
        finetune: without those that say how long.
        network: of all of them.
        method: of the pre-training.
    """

    prepare: Reasons
    pretrain: Reasons
    network: Reason
    method: Reason
    task: Reasons = dataclasses.field(default_factory=dict)
    kind: type[SegmentationTask] = Segmentation
    finetune: Reasons = dataclasses.field(default_factory=dict)

    @property
    def segmentation(self) -> SegmentationTask:
        """The task itself."""
        return self.kind(**values(self.task))

    def prepare_settings(self) -> Settings:
        """Arguments of `prepare`, without the scans."""
        return {key: value for key, value in values(self.prepare).items() if key != "scans"}

    def pretrain_settings(self) -> Settings:
        """Arguments of `pretrain`."""
        return values(self.pretrain) | {"network": self.network.value, "method": self.method.value}

    def finetune_settings(self) -> Settings:
        """Arguments of `finetune`, from scratch."""
        return values(self.finetune) | {"network": self.network.value, "task": self.segmentation}


def values(settings: Mapping[str, Reason]) -> dict[str, Any]:
    """Settings without their reasons, as far as they differ from what is usual."""
    return {key: one.value for key, one in settings.items() if one.value is not None}


def choose(
    proposal: Proposal,
    *,
    modality: Modality,
    modality_why: str,
    scans: Path,
    labelled: Path | None = None,
    structures: Reason | None = None,
    patients: int = 0,
    gpu: bool,
    batch_size: int = BATCH,
) -> Choice:
    """Settings that suit the scans.

    Args:
        proposal: for all of them.
        modality: of all of them.
        modality_why: reason.
        scans: to pre-train on.
        labelled: folder of labelled cases.
        structures: to be learned of what is drawn in DICOM; None where the labels are files of their own.
        patients: that these are of.
        gpu: whether there is one.
        batch_size: wholes in a batch.
    """
    prepare = {"scans": Reason(scans), "modality": Reason(modality, modality_why)}
    prepare |= _intensities(proposal) | {"spacing_mm": Reason(proposal.spacing_mm, proposal.spacing_why)}
    size = (
        Reason(UNet3D(size="small"), "`base` is the published size; it takes about 10 times as long")
        if gpu
        else Reason(UNet3D(size="tiny"), "there is no GPU here; with one, `small` or `base`")
    )
    edges = " x ".join(f"{mm:g}" for mm in proposal.whole_mm)
    as_usual = "as in the studies of this project" if batch_size == BATCH else "fewer, as memory is short"
    pretrain = {
        "whole_size": Reason(proposal.whole_voxels, f"{edges} mm. {proposal.whole_why}"),
        "where": Reason(_where(proposal), proposal.where_why),
        "batch_size": Reason(batch_size, f"wholes; {as_usual}"),
        "optimiser": Reason(AdamW(lr=4e-3), "the rate that small networks learned well with in our studies"),
    }
    method = Reason(
        Parts2Whole(part_fraction=(0.5, 1.0)),
        "parts of half to all of a whole's edges, as in our studies (0.4 to 0.7 did as well)",
    )
    choice = Choice(prepare, pretrain, size, method)
    if labelled is None:
        return choice
    return dataclasses.replace(
        choice,
        task=_task(proposal, prepare, labelled, structures, patients),
        kind=Segmentation if structures is None else DicomSegmentation,
        finetune={
            "batch_size": Reason(FINETUNE_BATCH, "patches"),
            "optimiser": Reason(AdamW(lr=4e-3), "the same for both arms, which differ in their start alone"),
        },
    )


def _intensities(proposal: Proposal) -> Reasons:
    if proposal.window_hu is not None:
        return {"window_hu": Reason(proposal.window_hu, proposal.window_why)}
    same = proposal.percentiles == Preprocess().percentiles
    told = f"{proposal.percentiles}, the default. " if same else ""
    return {"percentiles": Reason(None if same else proposal.percentiles, told + proposal.window_why)}


def _where(proposal: Proposal) -> Where:
    if proposal.above_hu is not None:
        return Body(above_hu=proposal.above_hu)
    return Anywhere() if proposal.above_share is None else Body(above_share=proposal.above_share)


def _task(
    proposal: Proposal, prepare: Reasons, labelled: Path, structures: Reason | None, patients: int
) -> Reasons:
    same = ("modality", "window_hu", "percentiles", "spacing_mm")
    preprocess = Preprocess(**{key: value for key, value in values(prepare).items() if key in same})
    test, validation = choose_sides(patients)
    few = f", too few to show anything: {FEW_TESTED} are needed at least" if test < FEW_TESTED else ""
    tested, validated = (_share(count, patients) for count in (test, validation))
    reported = {"test_fraction": Reason(tested, f"{test} of {patients} patients are reported on{few}")}
    return {
        "data": Reason(labelled),
        **({} if structures is None else {"structures": structures}),
        "preprocess": Reason(preprocess, "as the scans that are pre-trained on"),
        "patch_size": Reason(proposal.whole_voxels, "as a whole, so that the encoder sees what it learned"),
        "window_size": Reason(proposal.window_voxels, f"at inference. {proposal.window_voxels_why}"),
        "validation_fraction": Reason(validated, f"{validation} of {patients} patients choose the best step"),
        **({} if choose_folds(patients) else reported),
        "loss_function": Reason("dice_balanced_ce", "with few labels plain dice_ce loses classes by chance"),
    }


def choose_sides(patients: int) -> tuple[int, int]:
    """Patients to test, in the largest fold if there are folds, and to validate on, of 3 or more."""
    validation = min(MOST_VALIDATED, max(1, round(VALIDATION_SHARE * patients)))
    if folds := choose_folds(patients):
        return math.ceil(patients / folds), validation
    return min(MOST_TESTED, max(1, round(TEST_SHARE * patients))), validation


def choose_folds(patients: int) -> int:
    """Folds, where one test side would be too small to show anything and all patients are not; else 0."""
    return FOLDS if patients >= FEW_TESTED > round(TEST_SHARE * patients) else 0


def _share(count: int, of: int) -> float:
    """The shortest share that gives ``count`` when it is rounded."""
    digits = next(n for n in range(1, 17) if round(round(count / of, n) * of) == count)
    return round(count / of, digits)


def draft_study(
    choice: Choice,
    length: Length,
    sizes: Sizes,
    *,
    name: str,
    task_name: str,
    opening: tuple[str, ...],
    minutes: float,
) -> Draft:
    """The plan as a file: the settings, and how long everything is.

    Args:
        choice: the settings.
        length: how long.
        sizes: of the data.
        name: title of the report.
        task_name: what the task is called.
        opening: what stands above.
        minutes: that were to be spent.
    """
    so_long = f"what fits into the {minutes:g} minutes of --minutes, as tried here"
    every = math.ceil(length.pretrain_steps / PRETRAIN_VALIDATIONS)
    pretrain = choice.pretrain | {
        "steps": Reason(length.pretrain_steps, so_long),
        "validate_every": Reason(every, f"{PRETRAIN_VALIDATIONS} times, and before the first step"),
    }
    if length.batch_size < choice.pretrain["batch_size"].value:
        pretrain["batch_size"] = Reason(
            length.batch_size, f"wholes; half of the usual {BATCH}, for more steps in the time"
        )
    if not choice.task:
        return Draft(opening, name, choice.prepare, choice.network, choice.method, pretrain)
    every = math.ceil(length.finetune_steps / FINETUNE_VALIDATIONS)
    finetune = choice.finetune | {
        "steps": Reason(length.finetune_steps, so_long),
        "validate_every": Reason(every, "the better of these steps is tested"),
    }
    return Draft(
        opening,
        name,
        choice.prepare,
        choice.network,
        choice.method,
        pretrain,
        choice.task,
        choice.kind.__name__,
        task_name,
        _labels(length, sizes),
        finetune,
        *_folds(sizes),
    )


def _folds(sizes: Sizes) -> tuple[Reason | None, Reason]:
    """How many folds, and whose scans are kept out of pre-training."""
    if sizes.folds == 1:
        why = "scans of patients that it is validated and tested on are kept out of pre-training"
        return None, Reason("task", why)
    why = (
        f"{sizes.test} patients are tested at a time, and all of them once a seed: one test side is too small"
    )
    folds = Reason(sizes.folds, why)
    if sizes.pretrainings == 1:
        why = "scans of all labelled patients are kept out of pre-training, as each is tested in some fold"
        return folds, Reason("task", why)
    why = "most scans are of labelled patients: a pre-training for each fold, without those of its sides"
    return folds, Reason("fold", why)


def _labels(length: Length, sizes: Sizes) -> Reasons:
    few = [count for count in length.cases if count is not None]
    each = " in every fold" * (sizes.folds > 1)
    why = f"labelled patients, of {sizes.train} to train on{each}: pre-training pays, if ever, with few"
    labels = {"cases": Reason(few, why)}
    if None in length.cases:
        labels["fractions"] = Reason([1.0], "and all of them")
    why = "runs of every arm; with 6 pairs or more a test can reach p < 0.05"
    if length.seeds < ENOUGH_SEEDS:
        why = f"runs of every arm; a test takes {ENOUGH_SEEDS} to reach p < 0.05: more with more --minutes"
    return labels | {"seeds": Reason(length.seeds, why)}
