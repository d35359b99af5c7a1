"""nnU-Net v2: the checkpoint that ``nnUNetv2_train ... -pretrained_weights FILE`` takes for a matching plan.

Its loader (nnunetv2/run/load_pretrained_weights.py) wants every tensor of the network but ``seg_layers``
under "network_weights", in names and shapes of dynamic_network_architectures' PlainConvUNet or
ResidualEncoderUNet: units appear twice (as ``conv``/``norm`` and in ``all_modules``), and the encoder once
more inside of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from parts2whole.networks.base import Network
from parts2whole.networks.plain_unet import SLOPE, PlainUNet3D
from parts2whole.networks.resenc_unet3d import PLANS, ResEncUNet3D
from parts2whole.weights.formats.model import Exportable, ExportError

PARTS = {"0": "conv", "1": "norm"}


def to_nnunet(model: Exportable, *, seed: int = 0) -> dict[str, Tensor]:
    """The state of nnU-Net's network; decoder tensors that the model hasn't got are fresh.

    Raises:
        ExportError: the network isn't nnU-Net's.
    """
    network = check_network(model.network)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        own = network.build_own(model.in_channels, max(1, len(model.classes)))
    state = dict(own.state_dict() if model.own is None else model.own.state_dict())
    residual = isinstance(network, ResEncUNet3D)
    units: dict[str, Tensor] = {}
    for key, value in model.encoder.state_dict().items():
        units |= _residual(key, value) if residual else _plain(key, value)
    found = units | {f"decoder.{key}": value for key, value in units.items()}
    steps = sum(key.startswith("ups.") and key.endswith("weight") for key in state)
    for key, value in state.items():
        if key.startswith("stages."):
            _, step, *unit, part, name = key.split(".")
            found |= _unit(f"decoder.stages.{step}.convs.{unit[0] if unit else 0}", part, name, value)
        elif key.startswith("ups."):
            found["decoder.transpconvs." + key.removeprefix("ups.")] = value
        else:
            found[f"decoder.seg_layers.{steps - 1}." + key.removeprefix("classes.")] = value
    return {key: value.detach().clone() for key, value in found.items()}


def check_network(network: Network) -> PlainUNet3D | ResEncUNet3D:
    """The network, if it is nnU-Net's.

    Raises:
        ExportError: it isn't.
    """
    if isinstance(network, ResEncUNet3D) and network.norm != "instance":
        raise ExportError(
            f"nnU-Net's ResidualEncoderUNet has instance norm, these weights {network.norm}: pre-train with "
            "--network ResEncUNet3D --network.norm instance"
        )
    if not isinstance(network, PlainUNet3D | ResEncUNet3D):
        raise ExportError(
            f"nnU-Net has no {type(network).__name__}: pre-train with --network PlainUNet3D, whose fields "
            "are those of a plan, or ResEncUNet3D"
        )
    return network


def plan(network: PlainUNet3D | ResEncUNet3D) -> dict[str, Any]:
    """The ``architecture`` of a configuration in ``nnUNetPlans.json`` that these weights fit."""
    if isinstance(network, ResEncUNet3D):
        name, (widths, blocks) = "ResidualEncoderUNet", PLANS[network.size]
        strides: list[list[int]] = [[1, 1, 1], *([2, 2, 2] for _ in widths[1:])]
        kernels = [[3, 3, 3] for _ in widths]
        counts = {"n_blocks_per_stage": list(blocks), "n_conv_per_stage_decoder": [1] * (len(widths) - 1)}
    else:
        name, widths = "PlainConvUNet", network.widths
        strides, kernels = [list(s) for s in network.strides], [list(k) for k in network.all_kernels()]
        counts = {
            "n_conv_per_stage": [2] * len(widths),
            "n_conv_per_stage_decoder": [2] * (len(widths) - 1),
        }
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": len(widths),
            "features_per_stage": list(widths),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": kernels,
            "strides": strides,
            **counts,
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True, "negative_slope": SLOPE},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _plain(key: str, value: Tensor) -> Mapping[str, Tensor]:
    """A tensor of a `PlainUNet3D` encoder."""
    _, level, unit, part, name = key.split(".")
    return _unit(f"encoder.stages.{level}.0.convs.{unit}", part, name, value)


def _residual(key: str, value: Tensor) -> Mapping[str, Tensor]:
    """A tensor of a `ResEncUNet3D` encoder."""
    *path, part, name = key.split(".")
    if path == ["stem"]:
        return _unit("encoder.stem.convs.0", part, name, value)
    _, level, block, unit = path
    scope = f"encoder.stages.{level}.blocks.{block}."
    if unit != "around":
        return _unit(scope + {"first": "conv1", "second": "conv2"}[unit], part, name, value)
    # Around a block: an average, where it has a stride, then a projection, which is one unit there.
    norm = value.ndim == 1
    return _unit(f"{scope}skip.{int(part) - norm}", "1" if norm else "0", name, value)


def _unit(scope: str, part: str, name: str, value: Tensor) -> Mapping[str, Tensor]:
    return {f"{scope}.{PARTS[part]}.{name}": value, f"{scope}.all_modules.{part}.{name}": value}
