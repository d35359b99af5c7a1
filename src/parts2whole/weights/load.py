"""From what a user calls an initialisation to an encoder and its card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from parts2whole.networks.base import Encoder
from parts2whole.weights.card import Card
from parts2whole.weights.native import WeightsError, load_native

SCRATCH = "scratch"


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """An encoder to start from, and the card that came with it."""

    encoder: Encoder
    card: Card


def load_initialisation(init: str | Path) -> Initialisation | None:
    """The encoder that ``init`` names; None for ``"scratch"``.

    Raises:
        WeightsError: there is nothing of that name, or it is damaged.
    """
    if str(init) == SCRATCH:
        return None
    path = Path(init)
    if not path.exists():
        raise WeightsError(f'{init} doesn\'t exist; give "scratch", a run folder or a weights folder')
    encoder, card = load_native(path)
    return Initialisation(encoder, card)


def load_encoder(source: str | Path) -> Encoder:
    """The pre-trained encoder of a run or weights folder, in eval mode.

    Returns:
        A module that maps (B, C, D, H, W) to a tuple of feature maps, finest first.

    Raises:
        WeightsError: there are no weights, or they are damaged.
    """
    found = load_initialisation(source)
    if found is None:
        raise WeightsError('"scratch" has no weights; build one with a network\'s build_encoder')
    return found.encoder.eval()
