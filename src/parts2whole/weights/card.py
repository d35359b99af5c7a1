"""The card that travels with weights: what they are, what input they expect, and what they have seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError
from parts2whole.files import JsonError, read_json, write_json
from parts2whole.networks.base import Network
from parts2whole.run_folder import CARD
from parts2whole.scans.preprocess import Preprocess
from parts2whole.spec import UnknownClassError, from_plain, spec_from_dict, to_plain


class CardError(Parts2WholeError, ValueError):
    """A card that is missing or can't be read."""


@dataclasses.dataclass(frozen=True)
class Card:
    """Provenance and input contract of an encoder.

    Attributes:
        network: how the encoder is built.
        in_channels: number of input channels.
        preprocess: how scans were prepared; new scans must be prepared alike.
        whole_size: size in voxels (z, y, x) of what it was trained on.
        whole_mm: the same in mm, where wholes were cut by physical size.
        spacing_mm: median spacing (z, y, x) of the scans it was trained on; None where it isn't known.
        method: the pretext task, as plain data.
        steps: training steps.
        seen: content hash of every scan used, so that test cases can be checked against them.
        fingerprint: one hash over all of `seen`.
        series: series UIDs of these scans, hashed unless they were kept, where they come from DICOM.
        licence: of the weights.
        citation: what to cite.
        version: of parts2whole.
        stem: what becomes of the first layer where data have another number of channels (``sum``, ``mean`` or
            ``repeat``); empty where that isn't allowed.
        origin: of published weights: source, files with checksums, where to get them, axes, and the values
            the network expects, in words; empty for weights trained here.
        begun_from: where training began from other weights, their method, steps, fingerprint, origin, and
            what they were begun from; what they have seen is in ``seen`` and ``series``, too.
        fetched: ``hf:OWNER/NAME@COMMIT`` where they were fetched from a hub; empty otherwise.
    """

    network: Network
    in_channels: int
    preprocess: Preprocess
    whole_size: tuple[int, int, int]
    whole_mm: tuple[float, float, float] | None
    spacing_mm: tuple[float, float, float] | None
    method: dict[str, Any]
    steps: int
    seen: tuple[str, ...]
    fingerprint: str
    licence: str = "set by whoever trained these weights; mind the licences of the scans"
    citation: str = ""
    version: str = ""
    series: tuple[str, ...] = ()
    stem: str = ""
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    begun_from: dict[str, Any] = dataclasses.field(default_factory=dict)
    fetched: str = ""

    @property
    def shown_mm(self) -> tuple[float, float, float] | None:
        """Distance in mm between voxels (z, y, x) as the network saw them; None where each scan kept its own.

        Where wholes were cut by physical size, that is another than `preprocess` says.
        """
        if self.whole_mm is None:
            return self.preprocess.spacing_mm
        z, y, x = (mm / voxels for mm, voxels in zip(self.whole_mm, self.whole_size, strict=True))
        return z, y, x

    def write(self, folder: Path) -> None:
        """Save as ``card.json``."""
        plain = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        write_json(folder / CARD, plain)

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Load ``card.json``.

        Raises:
            CardError: it is missing, or isn't a card.
        """
        path = folder / CARD
        try:
            plain = read_json(path)
        except FileNotFoundError as error:
            raise CardError(f"{folder} holds no weights: {CARD} is missing") from error
        except JsonError as error:
            raise CardError(f"not a card: {error}") from error
        hints: dict[str, Any] = {"whole_size": tuple[int, ...], "whole_mm": tuple[float, ...] | None}
        hints |= {"spacing_mm": tuple[float, ...] | None, "seen": tuple[str, ...], "series": tuple[str, ...]}
        try:
            plain["network"] = spec_from_dict(plain["network"], Network)  # type: ignore[type-abstract]
            plain["preprocess"] = spec_from_dict(plain["preprocess"], Preprocess)
            return cls(**{key: from_plain(value, hints.get(key, Any)) for key, value in plain.items()})
        except UnknownClassError as error:
            raise CardError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CardError(f"{path} is not a card of this version: {error}") from error
