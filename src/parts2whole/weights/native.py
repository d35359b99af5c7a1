"""Weights in this project's format: ``encoder.safetensors`` with its card, saved and loaded whole.

Published weights that were imported also bring ``own.safetensors``, the decoder or head they came with.
A pre-training also leaves ``model.safetensors``, all that it trained, its decoder among it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from parts2whole.files import hash_file, replacing
from parts2whole.networks.base import Encoder
from parts2whole.run_folder import CHECKPOINTS, ENCODER, MODEL, MODEL_CARD, OWN_DECODER, WEIGHTS
from parts2whole.weights.base import WeightsError as WeightsError
from parts2whole.weights.card import Card, CardError

DECODER = "decoder."
HEADER = {"format": "parts2whole"}


@dataclasses.dataclass(frozen=True)
class Native:
    """What a weights folder holds: a card, and tensors by name.

    Attributes:
        card: of the weights.
        encoder: the encoder's state.
        own: that of the decoder or head it was published with, if any.
        decoder: that of the decoder it was pre-trained with here, if any.
    """

    card: Card
    encoder: dict[str, Tensor]
    own: dict[str, Tensor]
    decoder: dict[str, Tensor] = dataclasses.field(default_factory=dict)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name as safetensors."""
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with replacing(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode  # safetensors makes files that nobody else may read
        save_file(plain, beside, metadata=metadata)
        beside.chmod(mode)


def save_encoder(folder: Path, encoder: Encoder, card: Card) -> None:
    """Write the encoder and its card into ``folder``."""
    save_native(folder, Native(card, encoder.state_dict(), {}))


def save_native(folder: Path, weights: Native) -> None:
    """Write a card and its tensors into ``folder``; the encoder last: a folder with it is complete."""
    if weights.own:
        write_tensors(folder / OWN_DECODER, weights.own, HEADER)
    weights.card.write(folder)
    write_tensors(folder / ENCODER, weights.encoder, HEADER)


def find_weights(path: Path) -> Path:
    """The weights folder of a run folder, or the folder itself.

    Raises:
        WeightsError: there are no weights.
    """
    for folder in (path / WEIGHTS, path):
        if (folder / ENCODER).exists():
            return folder
    if (path / WEIGHTS / MODEL_CARD).exists():
        raise WeightsError(
            f"{path} is a fine-tuning, whose model is for predict, evaluate and encode: give the run or the "
            "weights that it was fine-tuned from"
        )
    if (path / CHECKPOINTS).exists():
        raise WeightsError(f"the run in {path} isn't finished: go on with --resume true, then use it")
    raise WeightsError(
        f"no {ENCODER} in {path} or {path / WEIGHTS}; give a pre-training run or weights folder"
    )


def encoder_hash(init: str | Path) -> str:
    """SHA-256 of the encoder's file in a run or weights folder; empty for what isn't one."""
    try:
        return hash_file(find_weights(Path(init)) / ENCODER)
    except (WeightsError, OSError):
        return ""


def load_native(path: Path) -> Native:
    """Read a weights folder, or that of a run.

    Raises:
        WeightsError: missing or damaged weights.
    """
    folder = find_weights(path)
    try:
        card = Card.read(folder)
    except CardError as error:
        raise WeightsError(str(error)) from error
    own = _read(folder / OWN_DECODER) if (folder / OWN_DECODER).exists() else {}
    return Native(card, _read(folder / ENCODER), own, _read_decoder(folder / MODEL))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    return tensors


def _read_decoder(path: Path) -> dict[str, Tensor]:
    """The decoder among all that was pre-trained; nothing where there was none."""
    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(DECODER)]  # noqa: SIM118
            return {name.removeprefix(DECODER): tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
