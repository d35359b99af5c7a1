"""A fine-tuned model on disk: its tensors, and what is needed to build it and to prepare its input again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from parts2whole.errors import Parts2WholeError
from parts2whole.files import read_json, write_json
from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.heads import EncoderDecoder, LinearDecoder, Model, OwnDecoder
from parts2whole.run_folder import MODEL, MODEL_CARD, WEIGHTS
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Triple
from parts2whole.spec import UnknownClassError, from_plain, spec_from_dict, to_plain
from parts2whole.tasks.base import Predictor, Task
from parts2whole.tasks.channels import channel_names
from parts2whole.tasks.labelled import LabelledData
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.runtime import Runtime, unwrap
from parts2whole.weights.native import write_tensors

Decoder = Literal["fresh", "own", "pretrained", "light", "linear"]
"""What goes on an encoder to segment: the task's decoder, fresh or from the weights of the pre-training's;
the one its network was published with; the task's, but narrow; or a linear map of all levels."""
LIGHT_WIDTH = 16
"""Channels at every step of a light decoder."""


class ModelError(Parts2WholeError, ValueError):
    """A folder without a fine-tuned model, or with a damaged one, or a model that can't be built."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """How to build a fine-tuned model and prepare its input.

    Attributes:
        task: the target task.
        network: the encoder.
        in_channels: number of input channels.
        classes: names of the classes.
        preprocess: how scans were prepared, with the modality resolved.
        seen: content hashes of the scans its encoder was pre-trained on.
        series: series UIDs of these scans, hashed unless they were kept.
        trained: content hashes of the scans it was fine-tuned on.
        chosen_on: content hashes of the scans that its step was chosen on.
        decoder: what is on the encoder.
        mask_values: of a segmentation, the value of every class in written masks; empty in cards of version
            0.1.0, where values are names.
        spacing_range_mm: smallest and largest spacing (z, y, x) of the files it was fine-tuned on; None in
            cards of version 0.1.0.
        channel_names: what files of single channels are called after ``_``; empty if a file holds them all.
        boxed: whether every item was a box of a scan, so that a whole scan is nothing that it knows.
    """

    task: Task
    network: Network
    in_channels: int
    classes: tuple[str, ...]
    preprocess: Preprocess
    seen: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    decoder: Decoder = "fresh"
    mask_values: tuple[int, ...] = ()
    channel_names: tuple[str, ...] = ()
    spacing_range_mm: tuple[Triple, Triple] | None = None
    boxed: bool = False
    chosen_on: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[int, ...]:
        """The value of every class in written masks, of a segmentation."""
        return self.mask_values or tuple(int(name) for name in self.classes)


def files_of(task: Task, labelled: LabelledData) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What a card says of files: the values of masks, and the names of channels."""
    values = task.mask_values(labelled.classes) if isinstance(task, SegmentationTask) else ()
    return values, channel_names(labelled.store.cases[0])


def build_model(
    task: Task, network: Network, encoder: Encoder, classes: Sequence[str], *, decoder: Decoder
) -> Model:
    """The model for a task: with the task's own decoder or head, the network's, or a lighter one.

    Raises:
        ModelError: the network's decoder is asked for, but it has none, or the task doesn't segment.
    """
    if decoder == "fresh":
        return task.build(encoder, classes)
    if not isinstance(task, SegmentationTask):
        raise ModelError(
            f"decoder='{decoder}' is for segmentation; {type(task).__name__} has a head: leave it out"
        )
    if decoder == "pretrained":
        return task.build(encoder, classes)
    if decoder == "light":
        return EncoderDecoder(encoder, out_channels=len(classes), skips=True, width=LIGHT_WIDTH)
    if decoder == "linear":
        return LinearDecoder(encoder, classes=len(classes))
    own = network.build_own(encoder.in_channels, len(classes))
    if own is None or not own.is_decoder:
        raise ModelError(f"{type(network).__name__} was published without a decoder; use decoder='fresh'")
    return OwnDecoder(encoder, own)


def load_own_decoder(module: Model, state: Mapping[str, Tensor]) -> list[str]:
    """Load the weights of the network's own decoder, but its last layer.

    Returns:
        What the user should know: whether there were any.
    """
    if not isinstance(module, OwnDecoder):
        raise ModelError(f"{type(module).__name__} has no decoder of its own")
    last = f"{module.decoder.final}."
    if not state:
        return ["the network's own decoder is fresh: the weights hold the encoder alone"]
    kept = {key: value for key, value in state.items() if not key.startswith(last)}
    missing = module.decoder.load_state_dict(kept, strict=False)
    wrong = [key for key in missing.missing_keys if not key.startswith(last)] + missing.unexpected_keys
    if wrong:
        raise ModelError(f"the weights of the own decoder don't fit it: {', '.join(wrong[:4])}")
    return [f"{len(kept)} tensors of the network's own decoder are loaded; its last layer is fresh"]


def load_pretrained_decoder(module: Model, state: Mapping[str, Tensor]) -> list[str]:
    """Load the weights of the decoder that an encoder was pre-trained with, but the last layer.

    Where pre-training had no skip connections, channels that come through them weigh nothing at first.

    Returns:
        What the user should know: whether there were any.

    Raises:
        ModelError: it was built otherwise than that of the task.
    """
    if not state:
        return ["the decoder is fresh: the weights hold the encoder alone"]
    decoder = module.get_submodule("decoder")
    fresh = decoder.state_dict()
    widened = 0
    for name, mine in fresh.items():
        theirs = state.get(name)
        if theirs is None or not _fits(theirs.shape, mine.shape):
            raise ModelError(f"the pre-trained decoder's {name} doesn't fit the task's; use decoder='fresh'")
        if theirs.shape != mine.shape:  # what came from below is first, see networks.blocks.Decoder
            mine.zero_()[:, : theirs.shape[1]] = theirs
            widened += 1
        else:
            mine.copy_(theirs)
    decoder.load_state_dict(fresh)
    said = f", of which {widened} weigh new skip connections with zero" if widened else ""
    return [f"{len(fresh)} tensors of the pre-trained decoder are loaded{said}; the last layer is fresh"]


def _fits(theirs: torch.Size, mine: torch.Size) -> bool:
    """Whether a tensor fits, but for input channels that it lacks."""
    return theirs == mine or (
        len(theirs) == len(mine) > 1
        and theirs[:1] + theirs[2:] == mine[:1] + mine[2:]
        and theirs[1] < mine[1]
    )


def save_model(folder: Path, module: Model, card: ModelCard) -> None:
    """Write ``weights/model.safetensors`` and ``weights/model.json``."""
    target = folder / WEIGHTS
    write_json(
        target / MODEL_CARD, {f.name: to_plain(getattr(card, f.name)) for f in dataclasses.fields(card)}
    )
    write_tensors(target / MODEL, module.state_dict())


def load_model(folder: Path) -> tuple[Model, ModelCard]:
    """Build the fine-tuned model of a run folder, in eval mode.

    Raises:
        ModelError: the run isn't finished, isn't a fine-tuning, or is damaged.
    """
    target = folder / WEIGHTS
    if not (target / MODEL).exists() or not (target / MODEL_CARD).exists():
        raise ModelError(f"{folder} holds no fine-tuned model; give the --out folder of a finished finetune")
    card = read_card(target)
    encoder = card.network.build_encoder(card.in_channels)
    module = build_model(card.task, card.network, encoder, card.classes, decoder=card.decoder)
    try:
        module.load_state_dict(load_file(target / MODEL), strict=True)
    except Exception as error:
        raise ModelError(f"{target / MODEL} doesn't match {MODEL_CARD}: {error}") from error
    module.eval()
    return module, card


def read_card(target: Path) -> ModelCard:
    """The card in the weights folder of a fine-tuning.

    Raises:
        ModelError: it is damaged.
    """
    try:
        plain: dict[str, Any] = read_json(target / MODEL_CARD)
        return ModelCard(
            task=spec_from_dict(plain["task"], Task),  # type: ignore[type-abstract]
            network=spec_from_dict(plain["network"], Network),  # type: ignore[type-abstract]
            in_channels=int(plain["in_channels"]),
            classes=from_plain(plain["classes"], tuple[str, ...]),
            preprocess=spec_from_dict(plain["preprocess"], Preprocess),
            seen=from_plain(plain.get("seen", []), tuple[str, ...]),
            series=from_plain(plain.get("series", []), tuple[str, ...]),
            trained=from_plain(plain.get("trained", []), tuple[str, ...]),
            decoder=plain.get("decoder", "fresh"),
            mask_values=from_plain(plain.get("mask_values", []), tuple[int, ...]),
            channel_names=from_plain(plain.get("channel_names", []), tuple[str, ...]),
            spacing_range_mm=from_plain(plain.get("spacing_range_mm"), tuple[Triple, Triple] | None),
            boxed=bool(plain.get("boxed", False)),
            chosen_on=from_plain(plain.get("chosen_on", []), tuple[str, ...]),
        )
    except UnknownClassError as error:
        raise ModelError(f"{target / MODEL_CARD}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{target / MODEL_CARD} is damaged: {error!r}") from error


def as_function(module: nn.Module, runtime: Runtime) -> Predictor:
    """The module as a function from CPU images to CPU logits, on the runtime's device and precision."""
    inner = unwrap(module)
    if not isinstance(inner, Model):
        raise ModelError(f"{type(inner).__name__} is not a model on top of an encoder")
    return _Function(module, runtime, inner.encoder.divisor, inner.encoder.norm)


@dataclasses.dataclass(frozen=True)
class _Function:
    """A model to be called; see `parts2whole.tasks.base.Predictor`."""

    module: nn.Module
    runtime: Runtime
    divisor: int
    norm: str

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, D, H, W) to logits."""
        with self.runtime.autocast():
            logits: Tensor = self.module(self.runtime.place(images))
        return logits.float().cpu()
