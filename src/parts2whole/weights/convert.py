"""From a source's tensors to this project's: every tensor placed, permuted, and accounted for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parts2whole.networks.published import spread_channels
from parts2whole.spec import digest
from parts2whole.weights.base import Destination, Identified, WeightsError, WeightSource, none_match
from parts2whole.weights.card import Card
from parts2whole.weights.files import checksum, read_checkpoint

AXES = "zyx"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What became of one tensor.

    Attributes:
        source: its name in the file; None where the file has none.
        target: its name here; None where it is skipped.
        shape: in the file, or here where the file has none.
        fate: ``used``, ``permuted``, ``implied``, ``skipped``, ``fresh`` or ``summed`` (or another stem
            policy).
        note: how, or why.
    """

    source: str | None
    target: str | None
    shape: tuple[int, ...]
    fate: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a file, and of every tensor of the network."""

    entries: tuple[Entry, ...]

    def counts(self) -> dict[str, int]:
        """Number of tensors by fate."""
        fates = [entry.fate for entry in self.entries]
        return {fate: fates.count(fate) for fate in dict.fromkeys(fates)}

    def summary(self) -> str:
        """Every tensor on a line, then the counts."""
        lines = []
        for entry in self.entries:
            names = " -> ".join(name for name in (entry.source, entry.target) if name)
            shape = "x".join(map(str, entry.shape)) or "scalar"
            lines.append(f"  {entry.fate:<9} {names}  [{shape}]" + (f"  {entry.note}" if entry.note else ""))
        counts = ", ".join(f"{count} {fate}" for fate, count in self.counts().items())
        return "\n".join([*lines, f"{len(self.entries)} tensors: {counts}"])

    def to_plain(self) -> list[dict[str, Any]]:
        """As plain data."""
        return [dataclasses.asdict(entry) for entry in self.entries]


@dataclasses.dataclass(frozen=True)
class Converted:
    """Published weights in this project's names, axes and card.

    Attributes:
        card: provenance and input contract.
        encoder: state of the encoder.
        own: state of the decoder or head it was published with; empty where the file has none.
        report: what became of every tensor.
    """

    card: Card
    encoder: dict[str, Tensor]
    own: dict[str, Tensor]
    report: LoadReport


def convert(source: WeightSource, path: Path) -> Converted:
    """Read a file of published weights.

    Raises:
        WeightsError: it can't be read, is of another source or depth, or tensors are missing or don't fit.
    """
    tensors, about = read_checkpoint(path)
    source = source.planned(tensors, about)
    found = source.identify(tensors, path.name)
    wanted = _wanted(found)
    state: dict[str, Tensor] = {}
    entries = []
    for name, tensor in tensors.items():
        place = source.destination(name)
        if isinstance(place, str) or place.target not in wanted:
            reason = place if isinstance(place, str) else f"the network has no {place.target}"
            entries.append(Entry(name, None, tuple(tensor.shape), "skipped", reason))
            continue
        value, changes = bring(tensor, place, source.trained_axes)
        like = wanted[place.target]
        if like.ndim == 1 and value.ndim > 1 and value.numel() == len(like):
            value = value.reshape(-1)
            changes = [f"{'x'.join(map(str, tensor.shape))} to a vector"]
        if value.shape != like.shape:
            raise WeightsError(
                f"{name} in {path.name} has shape {tuple(tensor.shape)}, which doesn't fit {place.target} "
                f"{tuple(like.shape)} of {found.network}"
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"{name} in {path.name} holds values that are not finite")
        if place.target in state:
            raise WeightsError(f"{path.name} holds {place.target} twice, the second time as {name}")
        state[place.target] = value.to(like.dtype).contiguous()
        fate = "permuted" if changes else "used"
        entries.append(Entry(name, place.target, tuple(tensor.shape), fate, "; ".join(changes)))
    if not state:
        raise none_match(found.provenance.title, tensors, ", ".join(list(wanted)[:3]))
    entries += _complete(state, wanted, source, tensors, path)
    report = LoadReport((*entries, *_fresh(found)))
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    own = {k.removeprefix("own."): v for k, v in state.items() if k.startswith("own.")}
    return Converted(_card(source, found, path, report), encoder, own, report)


def bring(tensor: Tensor, place: Destination, axes: str) -> tuple[Tensor, list[str]]:
    """A tensor with its axes as here, and what was done to it.

    Kernels become (out, in, z, y, x), transposed convolutions (in, out, z, y, x), maps (1, 1, z, y, x).
    """
    changes = []
    if place.layout == "ras" and tensor.ndim == 5:
        tensor = tensor.permute(0, 1, 4, 3, 2).flip(3, 4)
        changes.append("(R, A, S) to (z, y, x)")
    if place.layout == "tensorflow" and tensor.ndim == 5:
        tensor = tensor.permute(4, 3, 0, 1, 2)
        changes.append("(spatial, in, out) to (out, in, spatial)")
    if place.layout == "prior" and tensor.ndim == 5:
        tensor = tensor.movedim(-1, 1)
        changes.append("channels last to first")
    if axes != AXES and tensor.ndim == 5:
        tensor = tensor.permute(0, 1, *(2 + axes.index(axis) for axis in AXES))
        changes.append(f"({', '.join(axes)}) to (z, y, x)")
    return tensor, changes


def adapt_state(
    state: Mapping[str, Tensor], axes: Mapping[str, int], *, old: int, new: int, policy: str
) -> dict[str, Tensor]:
    """A state for ``new`` input channels made from one for ``old``; see `spread_channels`."""
    return {
        key: spread_channels(value, axes[key], old, new, policy) if key in axes else value
        for key, value in state.items()
    }


def _wanted(found: Identified) -> dict[str, Tensor]:
    """Every tensor of the network by ``encoder.`` and ``own.`` names, without memory."""
    with torch.device("meta"):
        encoder = found.network.build_encoder(found.in_channels)
        wanted = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
        if found.own_classes is not None:
            own = found.network.build_own(found.in_channels, found.own_classes)
            if own is not None:
                wanted |= {f"own.{key}": value for key, value in own.state_dict().items()}
    return wanted


def _complete(
    state: dict[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: WeightSource,
    tensors: Mapping[str, Tensor],
    path: Path,
) -> list[Entry]:
    """Fill in what files leave out because it is constant; anything else that is missing is an error."""
    entries, missing = [], []
    for target, like in wanted.items():
        if target in state:
            continue
        value = source.implied(target, tensors)
        if value is None:
            missing.append(target)
            continue
        state[target] = torch.full(like.shape, value, dtype=like.dtype)
        entries.append(Entry(None, target, tuple(like.shape), "implied", f"not in the file: {value:g}"))
    if missing:
        raise WeightsError(
            f"{path.name} lacks {len(missing)} of {len(wanted)} tensors of {source.prefix}, among them "
            f"{', '.join(missing[:4])}; is it complete, and of that network?"
        )
    return entries


def _fresh(found: Identified) -> list[Entry]:
    """The decoder or head that the network was published with but the file doesn't hold."""
    if found.own_classes is not None:
        return []
    with torch.device("meta"):
        own = found.network.build_own(found.in_channels, 1)
    if own is None:
        return []
    note = "not in the file: fresh where it is used"
    return [Entry(None, f"own.{k}", tuple(v.shape), "fresh", note) for k, v in own.state_dict().items()]


def _card(source: WeightSource, found: Identified, path: Path, report: LoadReport) -> Card:
    about = found.provenance
    axes = source.trained_axes
    turned = "z, y, x, as here: nothing permuted"
    if axes != AXES:
        turned = f"{', '.join(axes)} when trained: kernels are permuted to z, y, x, so give z, y, x"
    if any("R, A, S" in entry.note for entry in report.entries):
        turned = "R, A, S when trained: kernels are turned to z, y, x, so give z, y, x"
    elif getattr(found.network, "orientation", "SPL") == "RAS":
        turned = "R, A, S when trained: the encoder turns images itself, so give z, y, x"
    files = checksum(path)
    origin = {
        "source": source.prefix,
        "title": about.title,
        "trained_on": about.trained_on,
        "where": about.where,
        "expects": about.expects,
        "axes": turned,
        "files_sha256": files,
        "own_classes": found.own_classes,
        "tensors": report.counts(),
        "fresh": [entry.target for entry in report.entries if entry.fate == "fresh"],
    }
    return Card(
        network=found.network,
        in_channels=found.in_channels,
        preprocess=about.preprocess,
        whole_size=about.whole_size,
        whole_mm=None,
        spacing_mm=None,
        method=source.to_dict(),
        steps=0,
        seen=(),
        fingerprint=digest(files),
        licence=about.licence,
        citation=about.citation,
        version=metadata.version("parts2whole"),
        stem=source.stem,
        origin=origin,
    )
