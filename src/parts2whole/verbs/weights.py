"""Weights that somebody else trained: brought into a weights folder, and looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from parts2whole.files import replacing, write_json
from parts2whole.run_folder import MODEL_CARD, WEIGHTS
from parts2whole.spec import to_plain
from parts2whole.training.model import ModelCard, load_model
from parts2whole.weights.base import WeightsError, WeightSource
from parts2whole.weights.card import Card
from parts2whole.weights.convert import LoadReport, convert
from parts2whole.weights.load import assemble, open_native, parse_source, sources
from parts2whole.weights.native import Native, save_native

REPORT = "load_report.json"


@dataclasses.dataclass(frozen=True)
class ImportedWeights:
    """What an import left: a weights folder, and what became of every tensor."""

    folder: Path
    card: Card
    report: LoadReport

    def summary(self) -> str:
        """Every tensor, what the user must know, and the folder."""
        origin = self.card.origin
        lines = [self.report.summary(), "", f"{origin['title']}: {self.card.network}"]
        lines += [f"  {key}: {origin[key]}" for key in ("expects", "axes")]
        lines += [f"  licence: {self.card.licence}"]
        if origin["fresh"]:
            lines.append(
                f"  fresh: its own decoder or head ({len(origin['fresh'])} tensors) isn't in the file"
            )
        return "\n".join([*lines, f"written to {self.folder}; use it as --init {self.folder}"])

    def __fspath__(self) -> str:
        return str(self.folder)


def import_weights(
    source: str, *, out: str | Path, in_channels: int | None = None, using: WeightSource | None = None
) -> ImportedWeights:
    """Read published weights and write them as a weights folder, to be used as ``init``.

    Nothing is downloaded, and nothing in the file is executed.

    Args:
        source: ``SOURCE:PATH``; sources are models_genesis, medicalnet, i3d, niftynet, openmind, suprem,
            ct_fm, voco and swin_unetr; paths are PyTorch, ``.npz`` or safetensors files, or TensorFlow
            checkpoints (prefix or folder).
        out: the folder to make.
        in_channels: number of input channels to change the first layer to; default: as trained. Fine-tuning
            changes it to that of the data in any case.
        using: the source with other settings than its defaults, such as another stem policy.

    Returns:
        The folder, the card, and a report that names every tensor.

    Raises:
        parts2whole.weights.base.WeightsError: the file can't be used, or ``out`` isn't empty.
    """
    named = parse_source(source, using=using)
    if named is None:
        raise WeightsError(f"expected SOURCE:PATH with one of {', '.join(sources())}, got {source!r}")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder} exists and isn't an empty folder; choose another --out")
    converted = convert(named.source, named.path)
    start = assemble(converted.card, converted.encoder, converted.own)
    if in_channels is not None:
        start = start.adapt(in_channels)
    with replacing(folder) as beside:
        save_native(beside, Native(start.card, start.encoder.state_dict(), start.own))
        write_json(beside / REPORT, converted.report.to_plain())
    return ImportedWeights(folder, start.card, converted.report)


@dataclasses.dataclass(frozen=True)
class ShownWeights:
    """A card and the tensors that go with it."""

    card: Card | ModelCard
    tensors: Mapping[str, Tensor]
    levels: int

    def summary(self) -> str:
        """The card as YAML, and the tree."""
        plain = {
            field.name: to_plain(getattr(self.card, field.name)) for field in dataclasses.fields(self.card)
        }
        for key in plain.keys() & {"seen", "series", "trained"}:
            if len(plain[key]) > 3:
                plain[key] = [*plain[key][:3], f"and {len(plain[key]) - 3} more"]
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True) + "\n" + "\n".join(self.tree())

    def tree(self) -> list[str]:
        """One line a tensor or module, down to ``levels`` names deep, with shapes or numbers of values."""
        root: dict[str, Any] = {}
        for name, tensor in self.tensors.items():
            here = root
            *path, last = name.split(".")
            for part in path:
                here = here.setdefault(part, {})
            here[last] = tensor
        total = sum(tensor.numel() for tensor in self.tensors.values())
        return [f"{len(self.tensors)} tensors, {total:,} values", *_branches(root, 1, self.levels)]


def show_weights(weights: str | Path, *, levels: int = 3) -> ShownWeights:
    """The card of weights and the tree of their tensors.

    Args:
        weights: a run folder of a pre-training or a fine-tuning, a weights folder,
            ``hf:OWNER/NAME[@REVISION]`` on a hub, or ``SOURCE:PATH``.
        levels: how deep the tree goes; deeper tensors are counted.

    Returns:
        The card and the tensors.

    Raises:
        parts2whole.weights.base.WeightsError: there are no weights, or they are damaged.
        parts2whole.training.model.ModelError: a fine-tuned model that is damaged.
    """
    named = parse_source(weights)
    if not named and (Path(weights) / WEIGHTS / MODEL_CARD).exists():
        module, card = load_model(Path(weights))
        return ShownWeights(card, module.state_dict(), levels)
    found: Any = convert(named.source, named.path) if named else open_native(weights)
    tensors = {f"encoder.{key}": value for key, value in found.encoder.items()}
    tensors |= {f"own.{key}": value for key, value in found.own.items()}
    return ShownWeights(found.card, tensors, levels)


def _branches(node: Mapping[str, Any], level: int, levels: int) -> list[str]:
    lines = []
    for name, below in node.items():
        indent = "  " * level
        if isinstance(below, Tensor):
            lines.append(f"{indent}{name}  [{'x'.join(map(str, below.shape)) or 'scalar'}]")
            continue
        leaves = _leaves(below)
        lines.append(f"{indent}{name}  {len(leaves)} tensors, {sum(t.numel() for t in leaves):,} values")
        if level < levels:
            lines += _branches(below, level + 1, levels)
    return lines


def _leaves(node: Mapping[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for below in node.values():
        found += [below] if isinstance(below, Tensor) else _leaves(below)
    return found
