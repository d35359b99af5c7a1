"""Weights on their way to a target task: do they fit its data, what of it have they seen, which labels count?

Fine-tuning and probing both begin here, so that what one refuses the other doesn't take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from parts2whole.errors import Parts2WholeError
from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.heads import Model
from parts2whole.networks.unet3d import UNet3D
from parts2whole.run_folder import MODEL_CARD, WEIGHTS
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Triple
from parts2whole.store.split import Split
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task, default_cache
from parts2whole.tasks.labelled import LabelledData, TaskError
from parts2whole.training.leak import check_leaks, find_leaks, hashes_of
from parts2whole.training.model import (
    Decoder,
    ModelCard,
    build_model,
    files_of,
    load_own_decoder,
    load_pretrained_decoder,
    read_card,
)
from parts2whole.training.rescale import match_scale as rescale
from parts2whole.weights.card import Card
from parts2whole.weights.load import SCRATCH, Initialisation, load_initialisation
from parts2whole.weights.native import encoder_hash

Side = Literal["validation", "test"]


class TransferError(Parts2WholeError, ValueError):
    """Weights that don't fit the labelled data, or data that nothing can be learned or chosen on."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Weights, or none, and the labelled data they are tried on.

    Attributes:
        task: the target task.
        init: what the user calls the weights.
        start: the weights, for the channels of the data; None from scratch.
        network: of the encoder.
        labelled: the data.
        split: the task's own, or that of a run that is gone on with; labels are chosen of its training side.
        leaks: cases to be reported on that the weights have seen, which the user has accepted.
        mark: what a result must then carry.
        notes: what the user should know, the mark first.
    """

    task: Task
    init: str
    start: Initialisation | None
    network: Network
    labelled: LabelledData
    split: Split
    leaks: tuple[str, ...]
    mark: str | None
    notes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Input channels of the data."""
        return self.labelled.store.cases[0].channels

    def untrained(self) -> Transfer:
        """The same network without the weights, on the same data."""
        return dataclasses.replace(self, init=SCRATCH, start=None, leaks=(), mark=None)

    def build_encoder(self, seed: int) -> Encoder:
        """The encoder to start from; a fresh one depends on the seed alone."""
        torch.manual_seed(seed)
        return self.start.encoder if self.start else self.network.build_encoder(self.channels)

    def build_model(
        self, *, decoder: Decoder, match_scale: bool = False, seed: int
    ) -> tuple[Model, list[str]]:
        """The model to fine-tune, and what the user should know of it.

        Raises:
            TransferError: the network doesn't take inputs of the task's size.
            parts2whole.training.model.ModelError: a decoder of its own where there is none.
        """
        encoder, size = self.build_encoder(seed), self.task.patch_size
        if not encoder.takes(size):
            raise TransferError(
                f"the task's patch_size must be divisible by {encoder.divisor} for this network, got {size}"
            )
        if match_scale and self.start:
            torch.manual_seed(seed)
            rescale(encoder, self.network.build_encoder(self.channels))
        torch.manual_seed(seed)  # what is fresh in every arm is drawn alike, whatever the encoder drew before
        module = build_model(self.task, self.network, encoder, self.labelled.classes, decoder=decoder)
        if self.start and decoder == "own":
            return module, load_own_decoder(module, self.start.own)
        if self.start and decoder == "pretrained":
            return module, load_pretrained_decoder(module, self.start.decoder)
        return module, []

    def describe(self, split: Split) -> dict[str, Any]:
        """What a result says of weights and data, with the labels that were used as ``split.train``.

        The modality is the one the scans have, so that a guess and an order of the same aren't told apart.
        """
        card = self.start.card if self.start else None
        task = self.task.replace(preprocess=self._as_prepared())
        return {
            "task": task.to_dict(),
            "init": self.init,
            "init_fetched": card.fetched if card else "",
            "init_hash": encoder_hash(self.init) if card else "",
            "method": card.method if card else None,
            "network": self.network.to_dict(),
            "classes": list(self.labelled.classes),
            "train_cases": list(split.train),
            "train_patients": len({self.labelled.item(item).patient for item in split.train}),
            "validation_cases": list(split.validation),
            "test_cases": list(split.test),
            "leaks": list(self.leaks),
            "data_fingerprint": self.labelled.store.fingerprint(),
            "labels_fingerprint": self.labelled.fingerprint(),
            "pretrained_on": card.fingerprint if card and card.seen else "",
        }

    def make_card(self, train: Sequence[str], *, decoder: Decoder) -> ModelCard:
        """The card of a model that was fine-tuned on the items ``train``."""
        card = self.start.card if self.start else None
        values, channel_names = files_of(self.task, self.labelled)
        return ModelCard(
            task=self.task,
            network=self.network,
            in_channels=self.channels,
            classes=self.labelled.classes,
            preprocess=self._as_prepared(),
            seen=card.seen if card else (),
            series=card.series if card else (),
            trained=hashes_of(self.labelled, train),
            decoder=decoder,
            mask_values=values,
            channel_names=channel_names,
            spacing_range_mm=spacing_range(self.labelled, train),
            boxed=self.task.takes_boxes(),
            chosen_on=hashes_of(self.labelled, self.split.validation),
        )

    def _as_prepared(self) -> Preprocess:
        """How scans were prepared, with their modality where all have the same."""
        modalities = {record.modality for record in self.labelled.store.cases}
        told = {"modality": modalities.pop()} if len(modalities) == 1 else {}
        return self.task.preprocess.replace(**told)

    def choose_labels(self, *, fraction: float, cases: int | None, seed: int) -> tuple[str, ...]:
        """Training items whose labels are used: of a share of the patients, or of a number of them.

        Raises:
            TransferError: both are given.
            parts2whole.store.split.SplitError: no such share, or more patients than there are.
        """
        if cases is not None and fraction != 1.0:
            raise TransferError(f"give either fraction or cases, got fraction {fraction} and cases {cases}")
        return self.labelled.choose_labelled(self.split.train, fraction=fraction, count=cases, seed=seed)


def open_transfer(
    task: Task,
    init: str | Path,
    *,
    network: Network | None,
    network_from: str | Path | None = None,
    split: Split | None = None,
    before: Preprocess | None = None,
    reported: Collection[Side],
    accept_leak: str | None,
    cache: str | Path | None,
    progress: bool,
) -> Transfer:
    """Load the weights, prepare the labelled data, and check one against the other.

    Args:
        task: the target task.
        init: ``scratch``, a run folder, a weights folder, ``hf:OWNER/NAME[@REVISION]``, or ``SOURCE:PATH``.
        network: of the encoder from scratch, default ``UNet3D()``; with weights it must be theirs.
        network_from: the run or the weights whose network and preprocessing an encoder from scratch has.
        split: of a run that is gone on with; default the task's own.
        before: the preprocessing of a run that is gone on with; default what the weights say, see
            `parts2whole.tasks.base.Task.prepared_like`.
        reported: sides that something is chosen or reported on, which the weights must not have seen.
        accept_leak: the sentence that accepts it if they have.
        cache: where prepared labelled data are kept; default ``~/.cache/parts2whole``.
        progress: show how far the preparation is.

    Raises:
        TransferError: the weights can't be used on these data, or there is nothing to choose on.
        parts2whole.tasks.labelled.TaskError: labelled data that can't be used.
        parts2whole.training.leak.LeakError: the weights have seen what is reported on.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
    """
    like: Card | ModelCard | None = None
    if network_from is not None:
        if network is not None:
            raise TransferError(f"give either network or network_from, got {network} and {network_from}")
        like = card_of(network_from)
        network = like.network
    start = load_initialisation(init)
    like = start.card if start else like
    kept = Path(cache) if cache else default_cache()
    task, labelled, told = _prepare(task, like.preprocess if like else None, before, kept, progress)
    start = start.adapt(labelled.store.cases[0].channels) if start else None
    notes = [*labelled.notes, *told, *(check_contract(start.card, labelled.store, network) if start else ())]
    split = split or task.split(labelled)
    for side in ("train", "validation"):
        if not getattr(split, side):
            raise TransferError(
                f"{task.data} has no {side} cases by the split of {type(task).__name__}; change its "
                "validation_fraction or test_fraction, or the data set's own split"
            )
    judged = tuple(dict.fromkeys(item for side in reported for item in getattr(split, side)))
    leaks = find_leaks(labelled, judged, seen=start.card.seen, series=start.card.series) if start else ()
    mark = check_leaks(leaks, accept_leak=accept_leak, where="validation or test")
    return Transfer(
        task,
        str(init),
        start,
        start.card.network if start else network or UNet3D(),
        labelled,
        split,
        leaks,
        mark,
        (*([mark] if mark else []), *notes),
    )


def card_of(source: str | Path) -> Card | ModelCard:
    """The card of a run, fine-tuned or pre-trained, of a weights folder, of a hub, or of ``SOURCE:PATH``.

    Raises:
        TransferError: ``scratch`` has none.
        parts2whole.training.model.ModelError: a damaged model.
        parts2whole.weights.native.WeightsError: there are no weights, or they are damaged.
    """
    weights = Path(source) / WEIGHTS
    if (weights / MODEL_CARD).exists():
        return read_card(weights)
    start = load_initialisation(source)
    if start is None:
        raise TransferError(f'network_from must name a run or weights, got "{source}"')
    return start.card


def _prepare(
    task: Task, theirs: Preprocess | None, before: Preprocess | None, cache: Path, progress: bool
) -> tuple[Task, LabelledData, list[str]]:
    """The task with the preprocessing that counts, its data, and what the user should know of it."""
    alike = task if theirs is None else task.prepared_like(theirs)
    if before is not None:
        alike = task.replace(preprocess=before)
    try:
        labelled = alike.labelled(cache=cache, progress=progress)
    except TaskError:
        # Files may say their modality, and that counts more than what the weights were trained on.
        mine = task.preprocess.modality
        if before is not None or alike.preprocess.modality == mine:
            raise
        alike = alike.replace(preprocess=alike.preprocess.replace(modality=mine))
        labelled = alike.labelled(cache=cache, progress=progress)
    fields = [field.name for field in dataclasses.fields(Preprocess)]
    changed = [f for f in fields if getattr(alike.preprocess, f) != getattr(task.preprocess, f)]
    said = ", ".join(f"{f} {getattr(alike.preprocess, f)}" for f in changed)
    asked = ", ".join(f"{getattr(task.preprocess, f)}" for f in changed)
    note = f"scans are prepared as those of the weights were: {said}, where the task's default is {asked}"
    return alike, labelled, [note] if changed else []


def spacing_range(labelled: LabelledData, items: Sequence[str]) -> tuple[Triple, Triple]:
    """Smallest and largest spacing (z, y, x) in mm of the files of some items, axis by axis."""
    records = (labelled.store.record(labelled.item(item).case_id) for item in items)
    axes = list(zip(*(record.file_spacing_mm or record.spacing_mm for record in records), strict=True))
    (a, b, c), (d, e, f) = (tuple(map(of, axes)) for of in (min, max))
    return (a, b, c), (d, e, f)


def check_contract(
    card: Card,
    store: Store,
    network: Network | None,
    *,
    whose: str = "this task",
    mend: str = "set the task's preprocess.window_hu alike",
    shown_mm: Triple | None = None,
) -> list[str]:
    """Compare what the weights expect with what the data are.

    Args:
        card: of the weights.
        store: the data.
        network: that they should be of; None takes theirs.
        whose: the data are, in words.
        mend: how a window is set, in words.
        shown_mm: spacing (z, y, x) at which the data are shown to the network; default that of the store.

    Returns:
        Differences the user should know but that don't make the weights useless.

    Raises:
        TransferError: the weights can't be used on these data.
    """
    channels, modalities = store.cases[0].channels, sorted({record.modality for record in store.cases})
    if card.in_channels != channels:
        raise TransferError(f"the weights expect {card.in_channels} input channels, the data have {channels}")
    if network is not None and network != card.network:
        raise TransferError(
            f"the weights are of {card.network}, not of {network}; leave the network out to use theirs"
        )
    notes = []
    theirs, ours = card.preprocess, store.preprocess
    if theirs.modality == "unit":
        notes.append(f"the encoder expects {card.origin.get('expects', 'voxels in [0, 1]')}")
    elif [theirs.modality] != modalities:
        trained = "several modalities" if theirs.modality == "auto" else theirs.modality
        notes.append(f"the encoder was trained on {trained}, these are {' and '.join(modalities)}")
    if "CT" in modalities and theirs.modality != "unit" and theirs.window_hu != ours.window_hu:
        raise TransferError(
            f"the encoder was trained with window {theirs.window_hu} HU, "
            f"{whose} uses {ours.window_hu}; {mend}"
        )
    if "MR" in modalities and theirs.modality in ("MR", "auto") and theirs.percentiles != ours.percentiles:
        notes.append(
            f"the encoder was trained with percentiles {theirs.percentiles}, {whose} uses {ours.percentiles}"
        )
    shown = shown_mm or ours.spacing_mm
    if card.shown_mm != shown:
        notes.append(f"the encoder was trained at spacing {card.shown_mm}, {whose} uses {shown}")
    return notes
