"""nnU-Net v2: the checkpoint that ``nnUNetv2_train ... -pretrained_weights FILE`` takes for a matching plan.

Its loader (nnunetv2/run/load_pretrained_weights.py) wants every tensor of the network but ``seg_layers``
under "network_weights", in names and shapes of dynamic_network_architectures' PlainConvUNet: units appear
twice (as ``conv``/``norm`` and in ``all_modules``), and the encoder once more inside of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from parts2whole.networks.plain_unet import SLOPE, PlainUNet3D
from parts2whole.weights.formats.model import Exportable, ExportError

PARTS = {"0": "conv", "1": "norm"}


def to_nnunet(model: Exportable, *, seed: int = 0) -> dict[str, Tensor]:
    """The state of a PlainConvUNet; decoder tensors that the model hasn't got are fresh.

    Raises:
        ExportError: the network isn't nnU-Net's.
    """
    network = model.network
    if not isinstance(network, PlainUNet3D):
        raise ExportError(
            f"nnU-Net has no {type(network).__name__}: pre-train with --network PlainUNet3D, whose fields "
            "are those of a plan"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        own = network.build_own(model.in_channels, max(1, len(model.classes)))
    state = dict(own.state_dict() if model.own is None else model.own.state_dict())
    units: dict[str, Tensor] = {}
    for key, value in model.encoder.state_dict().items():
        _, level, unit, part, name = key.split(".")
        units |= _unit(f"encoder.stages.{level}.0.convs.{unit}", part, name, value)
    found = units | {f"decoder.{key}": value for key, value in units.items()}
    steps = len(network.widths) - 1
    for key, value in state.items():
        if key.startswith("stages."):
            _, step, unit, part, name = key.split(".")
            found |= _unit(f"decoder.stages.{step}.convs.{unit}", part, name, value)
        elif key.startswith("ups."):
            found["decoder.transpconvs." + key.removeprefix("ups.")] = value
        else:
            found[f"decoder.seg_layers.{steps - 1}." + key.removeprefix("classes.")] = value
    return {key: value.detach().clone() for key, value in found.items()}


def plan(network: PlainUNet3D) -> dict[str, Any]:
    """The ``architecture`` of a configuration in ``nnUNetPlans.json`` that these weights fit."""
    stages = len(network.widths)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(network.widths),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [list(kernel) for kernel in network.all_kernels()],
            "strides": [list(stride) for stride in network.strides],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
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


def _unit(scope: str, part: str, name: str, value: Tensor) -> Mapping[str, Tensor]:
    return {f"{scope}.{PARTS[part]}.{name}": value, f"{scope}.all_modules.{part}.{name}": value}
