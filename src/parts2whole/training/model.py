"""A fine-tuned model on disk: its tensors, and what is needed to build it and to prepare its input again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from parts2whole.data.preprocess import Preprocess
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model
from parts2whole.spec import from_plain, spec_from_dict, to_plain
from parts2whole.tasks.base import Run, Task
from parts2whole.training.checkpoint import write_tensors
from parts2whole.training.folder import write_json
from parts2whole.training.runtime import Runtime, unwrap

TENSORS = "model.safetensors"
CARD = "model.json"


class ModelError(ValueError):
    """A folder without a fine-tuned model, or with a damaged one."""


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
    """

    task: Task
    network: Network
    in_channels: int
    classes: tuple[str, ...]
    preprocess: Preprocess
    seen: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()


def save_model(folder: Path, module: Model, card: ModelCard) -> None:
    """Write ``weights/model.safetensors`` and ``weights/model.json``."""
    target = folder / "weights"
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / CARD, {f.name: to_plain(getattr(card, f.name)) for f in dataclasses.fields(card)})
    write_tensors(target / TENSORS, module.state_dict())


def load_model(folder: Path) -> tuple[Model, ModelCard]:
    """Build the fine-tuned model of a run folder, in eval mode.

    Raises:
        ModelError: the run isn't finished, isn't a fine-tuning, or is damaged.
    """
    target = folder / "weights"
    if not (target / TENSORS).exists() or not (target / CARD).exists():
        raise ModelError(f"{folder} holds no fine-tuned model; give the --out folder of a finished finetune")
    try:
        plain: dict[str, Any] = json.loads((target / CARD).read_text())
        card = ModelCard(
            task=spec_from_dict(plain["task"], Task),  # type: ignore[type-abstract]
            network=spec_from_dict(plain["network"], Network),  # type: ignore[type-abstract]
            in_channels=int(plain["in_channels"]),
            classes=from_plain(plain["classes"], tuple[str, ...]),
            preprocess=spec_from_dict(plain["preprocess"], Preprocess),
            seen=from_plain(plain.get("seen", []), tuple[str, ...]),
            series=from_plain(plain.get("series", []), tuple[str, ...]),
            trained=from_plain(plain.get("trained", []), tuple[str, ...]),
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{target / CARD} is damaged: {error!r}") from error
    module = card.task.build(card.network.build_encoder(card.in_channels), card.classes)
    try:
        module.load_state_dict(load_file(target / TENSORS), strict=True)
    except Exception as error:
        raise ModelError(f"{target / TENSORS} doesn't match {CARD}: {error}") from error
    module.eval()
    return module, card


def as_function(module: nn.Module, runtime: Runtime) -> Run:
    """The module as a function from CPU images to CPU logits, on the runtime's device and precision."""
    inner = unwrap(module)
    if not isinstance(inner, Model):
        raise ModelError(f"{type(inner).__name__} is not a model on top of an encoder")
    return _Function(module, runtime, inner.encoder.divisor)


@dataclasses.dataclass(frozen=True)
class _Function:
    """A model to be called; see `parts2whole.tasks.base.Run`."""

    module: nn.Module
    runtime: Runtime
    divisor: int

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, D, H, W) to logits."""
        with self.runtime.autocast():
            logits: Tensor = self.module(self.runtime.place(images))
        return logits.float().cpu()
