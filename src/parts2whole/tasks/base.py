"""What a target task is: labelled cases, a split by patient, a model on top of the encoder, loss and metrics.

A task knows nothing of the loop.  `finetune` asks it, in this order, for its `labelled` data, its `split`,
a `build` of the model, the `samples` to train on, the `loss`, and the `examine` of a trained model.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.utils.data import Dataset

from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import Model
from parts2whole.scans.case import SourceCase
from parts2whole.scans.patients import BY_DICOM, PatientError, Told, tell_patients
from parts2whole.scans.preprocess import Modality, Preprocess
from parts2whole.scans.read import find_scans
from parts2whole.scans.volume import Size
from parts2whole.spec import Plain, Spec, digest, to_plain
from parts2whole.store.split import Split, fold_by_patient, split_by_patient
from parts2whole.tasks.labelled import LabelledData, TaskError
from parts2whole.wholes.random import BatchGenerator, sample_generator

Batch = Mapping[str, Tensor]


class Predictor(Protocol):
    """A trained model as a function: (B, C, D, H, W) on the CPU to logits on the CPU."""

    @property
    def divisor(self) -> int:
        """Input edges must be multiples of this many voxels."""

    @property
    def norm(self) -> str:
        """Normalisation of the encoder."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Logits of a batch."""


@dataclasses.dataclass(frozen=True)
class Examination:
    """Metrics of a model on some items, pooled and per item.

    Attributes:
        metrics: over the items.
        per_item: a row an item.
        grid: of a segmentation, the voxels that were compared: ``native``, those of the label files;
            ``prepared``, those that the network sees; or ``cubes``, prepared ones around each item.
        failed: reason for every item that could not be examined, which no metric counts.
    """

    metrics: dict[str, float]
    per_item: list[dict[str, Any]]
    grid: str = ""
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Segmented:
    """One segmented case, to be looked at: image in [0, 1] and class indices, all (z, y, x)."""

    image: npt.NDArray[np.float32]
    reference: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    spacing_mm: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Task(Spec, abc.ABC):
    """A target task.

    Attributes:
        data: where the labelled data are.
        preprocess: how scans are brought to [0, 1]; must match what the encoder was trained on.
        patch_size: size of the network's input in voxels (z, y, x).
        validation_fraction: share of the patients that settings and stopping are chosen on.
        test_fraction: share of the patients that results are reported on.
        split_seed: another seed, another split.
        patient_pattern: a regular expression with one group, which is the patient, searched for in every
            image's path from ``data`` on; default: what tables, headers and BIDS names say.
        fold: number and count of cross-validation: ``(2, 5)`` tests the second of five disjoint parts of the
            patients, whatever ``test_fraction`` is; ``(0, 5)`` is only for what holds out all of them.
            Studies set it, see ``folds``.
        rows_are_independent: the loss is a mean over samples that don't see each other. Only then may a batch
            be computed in pieces, or divided unevenly over devices.
    """

    rows_are_independent: ClassVar[bool] = False

    data: Path
    preprocess: Preprocess = Preprocess()
    patch_size: Size = (32, 64, 64)
    validation_fraction: float = 0.15
    test_fraction: float = 0.3
    split_seed: int = 0
    patient_pattern: str | None = None
    fold: tuple[int, int] | None = None

    def to_dict(self) -> Plain:
        """Plain data; without ``fold`` where there is none, as before there was one."""
        plain = super().to_dict()
        if self.fold is None:
            del plain["init_args"]["fold"]
        return plain

    @property
    @abc.abstractmethod
    def monitor(self) -> str:
        """The metric (high is good) that chooses the best step on validation items."""

    @abc.abstractmethod
    def labelled(self, *, cache: Path, workers: int | None = None, progress: bool = True) -> LabelledData:
        """Prepare the data once into ``cache``, and open them."""

    @abc.abstractmethod
    def build(self, encoder: Encoder, classes: Sequence[str]) -> Model:
        """The model: ``encoder`` with a fresh decoder or head."""

    @abc.abstractmethod
    def samples(self, labelled: LabelledData, items: Sequence[str], *, seed: int, batch_size: int) -> Samples:
        """What to train on: sample (step, index) of an endless sequence."""

    @abc.abstractmethod
    def augment(self, batch: Batch, generator: BatchGenerator) -> Batch:
        """Random changes of a training batch that keep its meaning."""

    @abc.abstractmethod
    def loss(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars to log, with the one to minimise under ``loss``."""

    @abc.abstractmethod
    def examine(
        self, predictor: Predictor, labelled: LabelledData, items: Sequence[str], *, thorough: bool
    ) -> Examination:
        """Metrics on items; ``thorough`` adds the slow ones."""

    def voxels_to_examine(self, labelled: LabelledData, items: Sequence[str], encoder: Encoder) -> int:
        """How many voxels a network with this encoder computes to examine items."""
        return len(items) * math.prod(self.patch_size)

    @abc.abstractmethod
    def show(self, predictor: Predictor, labelled: LabelledData, item: str) -> Segmented | None:
        """An item to look at; None where there is nothing to draw."""

    @classmethod
    def example(cls, folder: Path) -> Self:
        """The task on a few tiny cases that it makes up and writes into ``folder``, to try it on.

        Contract suites (`parts2whole.contracts`) run on it.  A task that reads a format of its own writes
        that; `parts2whole.phantom.example` helps.

        Raises:
            TaskError: the task has no example.
        """
        raise TaskError(
            f"{cls.__name__} has no example: give it a class method example(folder) that writes tiny data "
            f"in its format and returns {cls.__name__}(folder, ...)"
        )

    def split(self, labelled: LabelledData) -> Split:
        """The task's split: the data set's own where it has one, else by patient.

        Of a patient that the data set's own split has on two sides, only what is on the side that counts more
        (test, then validation) takes part.

        Raises:
            TaskError: folds of a data set that is split already.
            parts2whole.store.split.SplitError: too few patients, or impossible shares.
        """
        if self.fold is not None:
            if any(item.side for item in labelled.items):
                raise TaskError(f"{self.data} says who is tested, so there can be no folds: leave them out")
            return fold_by_patient(
                labelled.patients(),
                fold=self.fold[0],
                of=self.fold[1],
                validation=self.validation_fraction,
                seed=self.split_seed,
                strata=labelled.strata(),
                occurring=labelled.occurring(),
            )
        if not all(item.side for item in labelled.items):
            return split_by_patient(
                labelled.patients(),
                validation=self.validation_fraction,
                test=self.test_fraction,
                seed=self.split_seed,
                strata=labelled.strata(),
                occurring=labelled.occurring(),
            )
        patients: set[str] = set()
        sides: dict[str, tuple[str, ...]] = {}
        for side in ("test", "validation", "train"):
            mine = [i for i in labelled.items if i.side == side and i.patient not in patients]
            patients |= {item.patient for item in mine}
            sides[side] = tuple(item.item_id for item in mine)
        return Split(**sides)

    def prepared_like(self, theirs: Preprocess) -> Self:
        """The task with the preprocessing of weights, as far as its own is left at the default of its class.

        Spacing, window (of CT) and percentiles (of MR) are taken where the class leaves them open; so is the
        modality, unless the data set says it.  Weights that take any intensities decide nothing.
        """
        usual, mine = type(self).__dataclass_fields__["preprocess"].default, self.preprocess
        if theirs.modality == "unit" or not isinstance(usual, Preprocess):
            return self
        fields = ["spacing_mm"]
        fields += ["window_hu"] if theirs.modality != "MR" else []
        fields += ["percentiles"] if theirs.modality != "CT" else []
        fields += ["modality"] if self.modality_said() is None else []
        taken = {f: getattr(theirs, f) for f in fields if getattr(mine, f) == getattr(usual, f)}
        if usual.modality != "auto":
            taken.pop("modality", None)
        return self.replace(preprocess=mine.replace(**taken))

    def modality_said(self) -> Modality | None:
        """The modality that the data set as a whole names; None where it names none."""
        return None

    def can_judge(self, labelled: LabelledData, items: Sequence[str]) -> bool:
        """Whether `monitor` is defined on these items, whatever a model predicts.

        Where it isn't, `examine` gives the ``loss`` too, and that decides instead.
        """
        return True

    def held_out_hashes(self, *, cache: Path) -> set[str]:
        """Content hashes of the validation and test scans, which a fair pre-training must not see.

        Of all folds together these are all scans.
        """
        labelled = self.labelled(cache=cache)
        if self.fold is not None and self.fold[0] == 0:
            cases = {item.case_id for item in labelled.items}
        else:
            split = self.split(labelled)
            cases = {labelled.item(item).case_id for item in (*split.validation, *split.test)}
        return {found for case in cases for found in labelled.store.record(case).hashes()}

    def tell_patients(
        self, cases: Sequence[SourceCase], *, names: Mapping[str, str] | None = None
    ) -> list[SourceCase]:
        """The cases with their patients: those that the data set names, or what headers and paths say.

        Args:
            cases: whose patient is None, or called like the case, where the data set doesn't say.
            names: of patients that nothing tells, by case.

        Raises:
            TaskError: ``patient_pattern`` doesn't say who is who.
        """
        given: dict[str, Told] = {}
        studies: dict[str, str] = {}
        for case in cases:
            source = next((source for source in case.scan_sources() if source.patient), None)
            header = source.patient if source else None
            if source and header and not source.patient_named and case.patient in (None, header):
                studies[case.case_id] = header
                continue
            if case.patient is not None and (case.patient_by or case.patient != case.case_id):
                by = BY_DICOM if case.patient == header else ""
                given[case.case_id] = Told(case.patient, case.patient_by or by)
            elif header is not None:
                given[case.case_id] = Told(header, BY_DICOM)
        root = Path(self.data)
        try:
            told = tell_patients(
                {case.case_id: case.files()[0] for case in cases},
                roots=[root if root.is_dir() else root.parent],
                pattern=self.patient_pattern,
                given=given,
                studies=studies,
                names=names,
            )
        except PatientError as error:
            raise TaskError(f"--task.{error}") from error
        who = {case: (found.patient, found.by) for case, found in told.items()}
        return [
            dataclasses.replace(case, patient=who[case.case_id][0], patient_by=who[case.case_id][1])
            for case in cases
        ]

    def prepared_with(self) -> Any:
        """Settings of a task, as plain data, that change what is stored: other settings, another cache."""
        return None

    def takes_boxes(self) -> bool:
        """Whether every labelled item is a box of a scan that the data name; here none is."""
        return False

    def find_inputs(self, scans: Sequence[str | Path]) -> list[SourceCase]:
        """New scans to predict for: here one a file or DICOM series, with its series UID as it is."""
        found = find_scans(list(scans), keep_series_uids=True)
        return [SourceCase(source.case_id, (source,)) for source in found]

    def cache_folder(self, cache: Path) -> Path:
        """Where this task's prepared data go: changes with the data and with how they are prepared.

        Raises:
            TaskError: ``data`` doesn't exist.
        """
        listing = []
        root = Path(self.data)
        if not root.exists():
            raise TaskError(f"{root} doesn't exist; --task.data must name the labelled data")
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file():
                stat = path.stat()
                listing.append([str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns])
        plain = [type(self).__name__, str(root.resolve()), to_plain(self.preprocess), listing]
        if self.preprocess.spacing_mm is not None:
            plain += ["labels lost are known"]  # stores of version 0.1.0 don't know them
        plain += [self.prepared_with()] if self.prepared_with() is not None else []
        plain += [{"patient_pattern": self.patient_pattern}] if self.patient_pattern is not None else []
        return cache / f"{type(self).__name__.lower()}-{digest(plain)}"


class Samples(Dataset[dict[str, Any]], abc.ABC):
    """Training samples as a function of (step, index), never of workers.

    Items come in shuffled rounds, so that all are seen equally often.
    """

    def __init__(self, items: Sequence[str], *, seed: int, batch_size: int) -> None:
        if not items:
            raise TaskError("no labelled items to train on")
        self.items = list(items)
        self.seed = seed
        self.batch_size = batch_size

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.draw(self.case_of(number), sample_generator(self.seed, "sample", number))

    def case_of(self, number: int) -> str:
        """The item that sample ``number`` is of."""
        round_, place = divmod(number, len(self.items))
        order = sample_generator(self.seed, "round", round_).permutation(len(self.items))
        return self.items[int(order[place])]

    @abc.abstractmethod
    def draw(self, item_id: str, generator: np.random.Generator) -> dict[str, Any]:
        """One sample of an item: arrays or numbers by name."""


def default_cache() -> Path:
    """Where prepared labelled data are kept: ``$XDG_CACHE_HOME/parts2whole``, or below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "parts2whole"
