"""Weights trained here: ``encoder.safetensors`` with its card, saved and loaded without surprises."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from parts2whole.networks.base import Encoder
from parts2whole.weights.card import Card, CardError

FILE = "encoder.safetensors"


class WeightsError(ValueError):
    """Weights that are missing, damaged, or don't fit their card."""


def save_encoder(folder: Path, encoder: Encoder, card: Card) -> None:
    """Write the encoder and its card into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / (FILE + ".part")
    tensors = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    save_file(tensors, beside, metadata={"format": "parts2whole"})
    card.write(folder)
    beside.replace(folder / FILE)


def find_weights(path: Path) -> Path:
    """The weights folder of a run folder, or the folder itself.

    Raises:
        WeightsError: there are no weights.
    """
    for folder in (path / "weights", path):
        if (folder / FILE).exists():
            return folder
    if (path / "checkpoints").exists():
        raise WeightsError(f"the run in {path} isn't finished: go on with --resume true, then use it")
    raise WeightsError(
        f"no {FILE} in {path} or {path / 'weights'}; give a pre-training run or weights folder"
    )


def load_native(path: Path) -> tuple[Encoder, Card]:
    """Build the encoder a card describes and load its tensors, every one of them.

    Raises:
        WeightsError: missing or damaged weights, or tensors that don't match the card.
    """
    folder = find_weights(path)
    try:
        card = Card.read(folder)
    except CardError as error:
        raise WeightsError(str(error)) from error
    encoder = card.network.build_encoder(card.in_channels)
    try:
        tensors = load_file(folder / FILE)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder / FILE} is damaged: {error}") from error
    try:
        encoder.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise WeightsError(f"{folder / FILE} doesn't match its card: {error}") from error
    return encoder, card
