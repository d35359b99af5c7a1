"""Weights in formats that other tools load as they are, checked against what they were made from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import yaml

from parts2whole.files import replacing, write_json, write_text
from parts2whole.run_folder import CARD, ENCODER, MODEL, MODEL_CARD, OWN_DECODER, WEIGHTS
from parts2whole.scans.volume import Size
from parts2whole.spec import to_plain
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.training.model import ModelCard, load_model
from parts2whole.weights.card import Card
from parts2whole.weights.formats.model import Exportable, ExportError
from parts2whole.weights.formats.plain import FILE as PLAIN
from parts2whole.weights.formats.plain import to_plain_torch
from parts2whole.weights.hub import HubName, check_repository
from parts2whole.weights.hub import push as push_folder
from parts2whole.weights.load import SCRATCH, load_initialisation
from parts2whole.weights.native import DECODER, write_tensors

Format = Literal["monai", "monai-bundle", "nnunet", "torchscript", "onnx", "safetensors"]
EXAMPLE_EDGE = 64


@dataclasses.dataclass(frozen=True)
class ExportedWeights:
    """What was written, and how it was checked."""

    folder: Path
    files: tuple[str, ...]
    check: str
    pushed: HubName | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Files and check, and the name of what was pushed."""
        lines = [f"{', '.join(self.files)} in {self.folder}", self.check]
        lines += [f"Note: {note}." for note in self.notes]
        if self.pushed is not None:
            lines.append(f"pushed; use it as --init {self.pushed}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Written:
    """What a format left: how it was checked, and how to load it (Markdown)."""

    check: str
    usage: str


def export_weights(
    run: str | Path,
    *,
    to: Format = "safetensors",
    out: str | Path,
    size: Size | None = None,
    push: str | None = None,
    public: bool = False,
) -> ExportedWeights:
    """Write weights for another tool, with a model card (``README.md``) in the Hugging Face layout.

    Args:
        run: a pre-training run, a fine-tuning run, a weights folder, ``hf:OWNER/NAME[@REVISION]`` on a hub,
            or ``SOURCE:PATH`` of published weights.
        to: ``monai`` (a state dict and the lines that build its network), ``monai-bundle`` (a fine-tuned
            segmentation that MONAI's runner applies to scans), ``nnunet`` (a checkpoint for
            ``-pretrained_weights`` and ``-pc``, and what adapts a plan to it), ``torchscript``, ``onnx``
            (needs the extra ``export``) or ``safetensors``.
        out: the folder to make.
        size: size in voxels (z, y, x) that TorchScript and ONNX are made for; default: that of training, at
            most 64 along an axis.
        push: ``OWNER/NAME`` of a repository on a hub to put the files of ``out`` into, an encoder as
            ``safetensors``; it is made if need be, and others then begin with ``--init hf:OWNER/NAME``.
        public: a repository that is made can be seen by everybody; otherwise only by you and its owner.

    Returns:
        The files and how they were checked.

    Raises:
        parts2whole.weights.formats.model.ExportError: the format can't take this network.
        parts2whole.weights.base.WeightsError: there are no weights, or the hub refuses them; ``out`` stays.
    """
    with_card = {"nnunet": _write_nnunet, "monai-bundle": _write_bundle}
    writers = {
        "monai": _write_monai,
        "torchscript": _write_torchscript,
        "onnx": _write_onnx,
        "safetensors": _write_safetensors,
    }
    if to not in get_args(Format):
        raise ExportError(f"unknown format {to!r}; choose from {', '.join(get_args(Format))}")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} exists and isn't an empty folder; choose another --out")
    if push is not None:
        check_repository(push)
    model, card = _open(run, size)
    if push is not None and (to != "safetensors" or not isinstance(card, Card)):
        what = "an encoder" if isinstance(card, Card) else "a fine-tuned model"
        raise ExportError(
            f"what is pushed must be an encoder with --to safetensors, got {what} with --to {to}"
        )
    with replacing(folder) as beside:
        beside.mkdir()
        written = with_card[to](model, card, beside) if to in with_card else writers[to](model, beside)
        about = {field.name: to_plain(getattr(card, field.name)) for field in dataclasses.fields(card)}
        write_json(beside / CARD, about)
        write_text(beside / "README.md", model_card(model, card, written))
    files = tuple(sorted(p.name for p in folder.iterdir()))
    if push is None:
        return ExportedWeights(folder, files, written.check)
    return ExportedWeights(
        folder, files, written.check, push_folder(folder, push, public=public), _tell_identities(card)
    )


def _tell_identities(card: Card | ModelCard) -> tuple[str, ...]:
    """What whoever pushes a card should know of it: series UIDs that were kept say which scans were used."""
    kept = [series for series in card.series if "." in series]
    return (f"its card names {len(kept)} DICOM series by their UIDs, as they were kept",) if kept else ()


def _open(run: str | Path, size: Size | None) -> tuple[Exportable, Card | ModelCard]:
    path = Path(run)
    if (path / WEIGHTS / MODEL_CARD).exists() and (path / WEIGHTS / MODEL).exists():
        module, model_card = load_model(path)
        wanted = size or model_card.task.patch_size
        edges = _fit(wanted, module.encoder.divisor, exact=size is not None)
        found = Exportable(module, model_card.network, model_card.in_channels, edges, model_card.classes)
        return found, model_card
    start = load_initialisation(run)
    if start is None:
        raise ExportError(f'"{SCRATCH}" has no weights; give a run or weights folder')
    encoder = start.encoder.eval()
    edges = _fit(size or start.card.whole_size, encoder.divisor, exact=size is not None)
    beside = {OWN_DECODER: start.own, MODEL: {DECODER + key: value for key, value in start.decoder.items()}}
    return Exportable(encoder, start.card.network, start.card.in_channels, edges, beside=beside), start.card


def _fit(size: Size, divisor: int, *, exact: bool) -> Size:
    if exact:
        if any(edge % divisor or edge < 1 for edge in size):
            raise ExportError(f"size must be divisible by {divisor} for this network, got {size}")
        return size
    z, y, x = (max(1, math.ceil(min(edge, EXAMPLE_EDGE) / divisor)) * divisor for edge in size)
    return (z, y, x)


def _write_safetensors(model: Exportable, folder: Path) -> _Written:
    name = MODEL if model.classes else ENCODER
    write_tensors(folder / name, model.module.state_dict(), metadata={"format": "pt"})
    load = f'load_file("{name}")'
    imports = "from safetensors.torch import load_file\n"
    if model.classes:
        return _Written("the tensors as they are", f"```python\n{imports}\nstate = {load}\n```")
    for file, tensors in model.beside.items():
        if tensors:
            write_tensors(folder / file, tensors, metadata={"format": "pt"})
    usage = 'This folder is an encoder for parts2whole: `p2w.load_encoder("FOLDER")`, or `--init FOLDER`.'
    plain = to_plain_torch(model)
    if plain is None:
        return _Written(
            "the tensors as they are", f"{usage}\n\nIts network can't be written as plain PyTorch."
        )
    text, worst = plain
    write_text(folder / PLAIN, text)
    usage += (
        f"\n\nAs plain PyTorch, without parts2whole, with `{PLAIN}` of this folder:\n\n"
        f"```python\n{imports}from {PLAIN.removesuffix('.py')} import Encoder\n\n"
        f"encoder = Encoder()\nencoder.load_state_dict({load})\n```\n\n"
        "It maps images to a tuple of feature maps, finest first, and can be trained on."
    )
    return _Written(f"{PLAIN} was run and compared: largest relative difference {worst:.1e}", usage)


def _write_torchscript(model: Exportable, folder: Path) -> _Written:
    from parts2whole.weights.formats.traced import to_torchscript

    worst = to_torchscript(model, folder / "model.ts")
    size = ", ".join(map(str, model.size))
    usage = (
        '```python\nimport torch\n\nnet = torch.jit.load("model.ts")\n'
        f"out = net(torch.rand(1, {model.in_channels}, {size}))\n```\n\nMade for inputs of exactly this size."
    )
    return _Written(f"read back and compared with torch: largest relative difference {worst:.1e}", usage)


def _write_onnx(model: Exportable, folder: Path) -> _Written:
    from parts2whole.weights.formats.traced import to_onnx

    worst = to_onnx(model, folder / "model.onnx")
    shape = f"(1, {model.in_channels}, {', '.join(map(str, model.size))})"
    usage = (
        '```python\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        f'out = session.run(None, {{"image": image}})  # float32 {shape}\n```\n\n'
        "Made for inputs of exactly this size."
    )
    return _Written(
        f"run by onnxruntime and compared with torch: largest relative difference {worst:.1e}", usage
    )


def _write_monai(model: Exportable, folder: Path) -> _Written:
    from parts2whole.weights.formats.monai import FILE, to_monai

    made = to_monai(model)
    torch.save(made.state, folder / FILE)
    write_text(folder / "load_in_monai.py", made.script)
    part = "the whole network" if made.is_whole else "the encoder; the rest of MONAI's network is fresh"
    check = f"loaded into MONAI and compared ({part}): largest relative difference {made.difference:.1e}"
    return _Written(check, f"```python\n{made.script}```\n\nThe state dict holds {part}.")


def _write_nnunet(model: Exportable, card: Card | ModelCard, folder: Path) -> _Written:
    from parts2whole.weights.formats import nnunet

    size = card.whole_size if isinstance(card, Card) else card.task.patch_size
    preprocess = card.preprocess
    if isinstance(card, Card):
        preprocess = preprocess.replace(spacing_mm=card.shown_mm)
    ours = nnunet.adaptation(model, preprocess, size)
    content: dict[str, Any] = {"network_weights": nnunet.to_nnunet(model)}
    is_known = ours["pretrain_info"] is not None
    if is_known:
        content["nnssl_adaptation_plan"] = nnunet.adaptation_plan(ours)
        write_json(folder / "adaptation_plan.json", content["nnssl_adaptation_plan"])
    else:
        write_text(folder / nnunet.UNET3D.name, nnunet.UNET3D.read_text(encoding="utf-8"))
    torch.save(content, folder / "nnunet_pretrained.pth")
    write_json(folder / "nnunet_architecture.json", ours["architecture"])
    write_json(folder / "nnunet_adaptation.json", ours)
    write_text(folder / "adapt_plans.py", nnunet.ADAPT.read_text(encoding="utf-8"))
    if ours["normalization"] == nnunet.PERCENTILES:
        text = nnunet.NORMALIZATION.format(name=nnunet.PERCENTILES, percentiles=card.preprocess.percentiles)
        write_text(folder / "p2w_normalization.py", text)
    fresh = (
        "" if nnunet.has_decoder(model) else " The decoder's tensors are fresh: nnU-Net wants all of them."
    )
    kind = ours["architecture"]["network_class_name"].rpartition(".")[2]
    made = f"{len(content['network_weights'])} tensors in the names and shapes of nnU-Net v2's {kind}"
    return _Written(f"{made}.{fresh}", nnunet.usage(ours) + fresh)


def _write_bundle(model: Exportable, card: Card | ModelCard, folder: Path) -> _Written:
    from parts2whole.weights.formats.bundle import Windows, write_bundle

    task = card.task if isinstance(card, ModelCard) else None
    if not isinstance(card, ModelCard) or not isinstance(task, SegmentationTask):
        raise ExportError("a MONAI bundle segments scans: give a run that fine-tuned a segmentation")
    if task.window_size not in (None, task.patch_size) or task.crop_size not in (None, task.patch_size):
        raise ExportError(
            f"a MONAI bundle looks through windows of the patch size {task.patch_size}; this model has "
            f"window_size {task.window_size} and crop_size {task.crop_size}, which would give other masks"
        )
    if card.preprocess.modality == "auto":
        raise ExportError(
            "which modality the model knows isn't recorded: fine-tune with the modality CT or MR"
        )
    windows = Windows(task.patch_size, task.windows.share(model.encoder.norm))
    worst = write_bundle(model, card.preprocess, windows, card.values, folder)
    usage = (
        "Put NIfTI scans into `data/` of this folder; masks then lie in `eval/`:\n\n```\npython -m "
        "monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json "
        "--bundle_root .\n```\n\nElsewhere: `--dataset_dir SCANS --output_dir MASKS`. It needs MONAI with "
        "pytorch-ignite, nibabel and fire, not parts2whole. Several channels are one 4-D file."
    )
    return _Written(f"TorchScript was read back and compared: largest relative difference {worst:.1e}", usage)


def model_card(model: Exportable, card: Card | ModelCard, written: _Written) -> str:
    """``README.md`` as the Hugging Face hub shows it; pushing it is the user's own step."""
    kind = "image-segmentation" if model.classes else "image-feature-extraction"
    licence = card.licence if isinstance(card, Card) else "that of the data and weights it was made from"
    front: dict[str, Any] = {
        "license": "other",
        "license_name": licence,
        "library_name": "parts2whole",
        "pipeline_tag": kind,
        "tags": ["medical", "3d", "parts2whole", type(model.network).__name__],
    }
    title = f"{type(model.network).__name__} {'model' if model.classes else 'encoder'}"
    pre = card.preprocess
    spacing = card.shown_mm if isinstance(card, Card) else pre.spacing_mm
    inputs = (
        f"Axes (batch, channel, z, y, x), {model.in_channels} channel(s), voxels in [0, 1]: modality "
        f"{pre.modality}, window {pre.window_hu} HU (CT), percentiles {pre.percentiles} (MR), spacing "
        f"{spacing or 'as scanned'}."
    )
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {title}",
        "",
    ]
    lines += ["## Load", "", written.usage, "", "## Input", "", inputs]
    if isinstance(card, Card) and card.origin:
        lines += ["", f"In training: {card.origin['expects']}. Axes: {card.origin['axes']}."]
    lines += [
        "",
        "## Network",
        "",
        f"```yaml\n{model.network.to_yaml()}```",
        "",
        "## Check",
        "",
        f"{written.check}.",
    ]
    if isinstance(card, Card):
        lines += ["", "## Training", "", f"```yaml\n{yaml.safe_dump(card.method, sort_keys=False)}```"]
        lines += [f"{card.steps} steps on {len(card.seen)} scans (fingerprint {card.fingerprint})."]
        lines += ["", "## Citation", "", card.citation or "None given."]
    else:
        lines += ["", "## Classes", "", ", ".join(model.classes)]
        lines += ["", "## Task", "", f"```yaml\n{card.task.to_yaml()}```"]
    lines += ["", "## Licence", "", licence, ""]
    return "\n".join(lines)
