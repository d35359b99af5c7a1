"""MONAI: the network that takes the weights as they are, where there is one.

- `PlainUNet3D` is DynUNet. Its convolutions have no bias there; in front of an instance norm a bias has no
effect. - `UNet3D` is the contracting path of BasicUNet, whose first unit of a stage is twice as wide: the
added channels are
  zero and stay zero, because neither their values nor their gradients ever differ from it.
- `HighRes3DNet` is HighResNet without the last activation.

MONAI's ResNet has MedicalNet's names and shapes, but strides where MedicalNet is dilated, so it would load
the tensors and compute something else: refused, as is everything without a counterpart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.highresnet import HighResNet
from torch import Tensor, nn

from parts2whole.networks.highres3dnet import HighRes3DNet
from parts2whole.networks.plain_unet import SLOPE, PlainUNet3D
from parts2whole.networks.published import scale_input
from parts2whole.networks.unet3d import UNet3D
from parts2whole.weights.formats.model import Exportable, ExportError, compare

FILE = "monai_state_dict.pt"
STEPS = {"0": "conv", "1": "adn.N"}


@dataclasses.dataclass(frozen=True)
class MonaiExport:
    """A state dict, and Python that builds the network it belongs to.

    Attributes:
        state: tensors by MONAI's names.
        script: lines that build ``net`` and load the state.
        difference: largest relative difference of outputs (or of the encoder's maps) found.
        is_whole: the network is complete; otherwise its decoder is fresh.
    """

    state: dict[str, Tensor]
    script: str
    difference: float
    is_whole: bool


def to_monai(model: Exportable) -> MonaiExport:
    """Find MONAI's network, fill it, and compare what it computes.

    Raises:
        ExportError: MONAI has no network that computes the same.
    """
    network = model.network
    if isinstance(network, PlainUNet3D):
        return _to_dynunet(model, network)
    if isinstance(network, UNet3D) and network.norm in ("batch", "instance"):
        return _to_basic_unet(model, network)
    if isinstance(network, HighRes3DNet):
        return _to_highresnet(model, network)
    reasons = {
        "ResNet3D": "MONAI's ResNet has the same names and shapes, but strides where this one is dilated",
        "UNet3D": "BasicUNet fits with norm='batch' or 'instance' only",
    }
    name = type(network).__name__
    raise ExportError(
        f"MONAI has no network that computes what {name} does: "
        f"{reasons.get(name, 'there is no counterpart')}. Use torchscript, onnx or safetensors"
    )


def _finish(
    net: nn.Module, state: dict[str, Tensor], call: str, lines: list[str], *, is_whole: bool
) -> tuple[nn.Module, str]:
    """Load a state, and write the lines that do."""
    missing = net.load_state_dict(state, strict=is_whole)
    if missing.unexpected_keys:
        raise ExportError(
            f"MONAI's network has no {', '.join(missing.unexpected_keys[:3])}: another version?"
        )
    kind = type(net).__name__
    script = ["import torch", f"from monai.networks.nets import {kind}", "", f"net = {kind}({call})", *lines]
    script += [
        f'state = torch.load("{FILE}", weights_only=True)',
        f"net.load_state_dict(state, strict={is_whole})",
    ]
    return net.eval(), "\n".join(script) + "\n"


@torch.no_grad()
def _to_dynunet(model: Exportable, network: PlainUNet3D) -> MonaiExport:
    if len(network.widths) < 3:
        raise ExportError(f"DynUNet needs at least three stages, this network has {len(network.widths)}")
    classes = max(1, len(model.classes))
    kernels, strides = [list(k) for k in network.all_kernels()], [list(s) for s in network.strides]
    net = DynUNet(
        3,
        model.in_channels,
        classes,
        kernels,
        strides,
        strides[1:],
        filters=list(network.widths),
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"inplace": True, "negative_slope": SLOPE}),
        trans_bias=True,
    )
    call = (
        f"3, {model.in_channels}, {classes}, {kernels}, {strides}, {strides[1:]}, "
        f"filters={list(network.widths)}, "
        'norm_name=("INSTANCE", {"affine": True}), '
        f'act_name=("leakyrelu", {{"inplace": True, "negative_slope": {SLOPE}}}), trans_bias=True'
    )
    last = len(network.widths) - 1
    scopes = ["input_block", *(f"downsamples.{n}" for n in range(last - 1)), "bottleneck"]
    state: dict[str, Tensor] = {}
    for key, value in model.encoder.state_dict().items():
        _, level, unit, part, name = key.split(".")
        state |= _dynunet_unit(scopes[int(level)], unit, part, name, value)
    own = model.own
    for key, value in ({} if own is None else own.state_dict()).items():
        if key.startswith("stages."):
            _, step, unit, part, name = key.split(".")
            state |= _dynunet_unit(f"upsamples.{step}.conv_block", unit, part, name, value)
        elif key.startswith("ups."):
            _, step, name = key.split(".")
            state[f"upsamples.{step}.transp_conv.conv.{name}"] = value
        else:
            state["output_block.conv.conv." + key.removeprefix("classes.")] = value
    if own is not None:
        missing = net.load_state_dict(state, strict=False).missing_keys
        if all(key.startswith("skip_layers.") for key in missing):
            state = net.state_dict()  # DynUNet lists its parts a second time there
    filled, script = _finish(net, state, call, [], is_whole=own is not None)
    x = model.example()
    if own is not None:
        return MonaiExport(state, script, compare(model.run(x), [filled(x)], "DynUNet"), True)
    maps, here = [], x
    for scope in scopes:
        here = filled.get_submodule(scope)(here)
        maps.append(here)
    return MonaiExport(state, script, compare(list(model.encoder(x)), maps, "DynUNet"), False)


def _dynunet_unit(scope: str, unit: str, part: str, name: str, value: Tensor) -> Mapping[str, Tensor]:
    number = int(unit) + 1
    if part == "0":
        return {f"{scope}.conv{number}.conv.weight": value} if name == "weight" else {}
    return {f"{scope}.norm{number}.{name}": value}


@torch.no_grad()
def _to_basic_unet(model: Exportable, network: UNet3D) -> MonaiExport:
    widths = list(model.encoder.channels)
    features = (*widths, 2 * widths[-1], widths[0])
    norm = (network.norm, {"affine": True})
    net = BasicUNet(3, model.in_channels, 1, features, act=("relu", {"inplace": True}), norm=norm)
    call = f'3, {model.in_channels}, 1, {features}, act=("relu", {{"inplace": True}}), norm={norm}'
    scopes = ["conv_0", "down_1.convs", "down_2.convs", "down_3.convs"]
    wanted = net.state_dict()
    state: dict[str, Tensor] = {}
    for key, value in model.encoder.state_dict().items():
        _, level, unit, part, name = key.split(".")
        target = f"{scopes[int(level)]}.conv_{unit}.{STEPS[part]}.{name}"
        state[target] = _pad_zeros(value, wanted[target].shape, fill=1.0 if name == "running_var" else 0.0)
    note = ["# conv_0 to down_3 are pre-trained; down_4 and the expanding path are fresh."]
    filled, script = _finish(net, state, call, note, is_whole=False)
    maps, here = [], model.example()
    for name in ("conv_0", "down_1", "down_2", "down_3"):
        here = filled.get_submodule(name)(here)
        maps.append(here)
    difference = compare(list(model.encoder(model.example())), maps, "BasicUNet")
    return MonaiExport(state, script, difference, False)


def _pad_zeros(value: Tensor, shape: torch.Size, *, fill: float) -> Tensor:
    """``value`` in the first entries of a larger tensor."""
    if value.shape == shape:
        return value.clone()
    larger = torch.full(shape, fill, dtype=value.dtype)
    larger[tuple(slice(edge) for edge in value.shape)] = value
    return larger


@torch.no_grad()
def _to_highresnet(model: Exportable, network: HighRes3DNet) -> MonaiExport:
    if network.scaling != "unit":
        note = [f"# Its input is scaled first: {network.scaling} (see README.md)."]
    else:
        note = []
    classes = max(1, len(model.classes))
    net = HighResNet(3, model.in_channels, classes)
    blocks = [name for name, _ in model.encoder.named_children()]
    state: dict[str, Tensor] = {}
    for key, value in model.encoder.state_dict().items():
        block, part, *rest = key.split(".")
        scope = f"blocks.{blocks.index(block)}"
        if block == "conv_0_bn_relu":
            state[f"{scope}.{STEPS[part]}.{rest[0]}"] = value
        else:
            kind, number = part.split("_")
            layer = f"{2 * int(number)}.N" if kind == "bn" else f"{2 * int(number) + 1}.conv"
            state[f"{scope}.layers.{layer}.{rest[0]}"] = value
    own = model.own
    for key, value in ({} if own is None else own.state_dict()).items():
        block, part, name = key.split(".")
        after = len(blocks) + (1 if block == "conv_2_bn" else 0)
        state[f"blocks.{after}.{STEPS[part]}.{name}"] = value
    cut = "del net.blocks[-1].adn.A  # its last layer has no activation"
    last: Any = net.blocks[-1]
    del last.adn.A
    filled, script = _finish(
        net, state, f"3, {model.in_channels}, {classes}", [*note, cut], is_whole=own is not None
    )
    x = model.example()
    scaled = scale_input(x, network.scaling)
    if own is not None:
        return MonaiExport(state, script, compare(model.run(x), [filled(scaled)], "HighResNet"), True)
    parts: Any = filled.blocks
    deepest = parts[: len(blocks)](scaled)
    return MonaiExport(state, script, compare([model.encoder(x)[-1]], [deepest], "HighResNet"), False)
