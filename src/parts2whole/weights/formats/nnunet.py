"""nnU-Net v2: the checkpoint that ``nnUNetv2_train ... -pretrained_weights FILE`` takes for a matching plan.

The same file has the adaptation plan of nnssl, by which nnU-Net begins with encoders pre-trained elsewhere
(``-pc`` of ``nnUNetv2_preprocess_like_nnssl`` and ``nnUNetv2_plan_like_dynamic``).  `UNet3D`, which nnU-Net
hasn't got, goes along as a file of plain PyTorch.

nnU-Net's loader (nnunetv2/run/load_pretrained_weights.py) wants every tensor of the network but
``seg_layers`` under "network_weights", in names and shapes of dynamic_network_architectures' PlainConvUNet or
ResidualEncoderUNet: units appear twice (as ``conv``/``norm`` and in ``all_modules``), and the encoder once
more inside of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder
from parts2whole.networks.plain_unet import SLOPE, PlainUNet3D
from parts2whole.networks.resenc_unet3d import PLANS, ResEncUNet3D
from parts2whole.networks.unet3d import WIDTHS, UNet3D
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size
from parts2whole.weights.formats import nnunet_adapt, nnunet_unet3d
from parts2whole.weights.formats.model import Exportable, ExportError, compare
from parts2whole.weights.formats.nnunet_unet3d import UNet3D as NnUNet3D

PARTS = {"0": "conv", "1": "norm"}
UNET3D = Path(nnunet_unet3d.__file__)
ADAPT = Path(nnunet_adapt.__file__)
PERCENTILES = "PercentileTo01Normalization"
NORMALIZATIONS = {"CT": "CTNormalization", "MR": PERCENTILES, "unit": "NoNormalization"}
NORMALIZATION = '''"""MR as parts2whole prepares it, for nnU-Net's folder preprocessing/normalization."""

import numpy as np

from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization


class {name}(ImageNormalization):
    """Percentiles of the image become 0 and 1, and what lies beyond is clipped."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image, seg=None):
        low, high = np.percentile(image, {percentiles})
        return np.clip((image - low) / max(high - low, 1e-8), 0, 1).astype(np.float32)
'''


def to_nnunet(model: Exportable, *, seed: int = 0) -> dict[str, Tensor]:
    """The state of nnU-Net's network; decoder tensors that the model hasn't got are fresh.

    Raises:
        ExportError: the network isn't nnU-Net's.
    """
    network = check_network(model.network)
    if isinstance(network, UNet3D):
        return _unet3d(model, network, seed)
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


def check_network(network: Network) -> PlainUNet3D | ResEncUNet3D | UNet3D:
    """The network, if nnU-Net can build it.

    Raises:
        ExportError: it isn't.
    """
    if isinstance(network, ResEncUNet3D) and network.norm != "instance":
        raise ExportError(
            f"nnU-Net's ResidualEncoderUNet has instance norm, these weights {network.norm}: pre-train with "
            "--network ResEncUNet3D --network.norm instance"
        )
    if isinstance(network, UNet3D) and network.norm == "batch_statistics":
        raise ExportError("nnU-Net has no norm that depends on the batch when it predicts: batch_statistics")
    if not isinstance(network, PlainUNet3D | ResEncUNet3D | UNet3D):
        raise ExportError(
            f"nnU-Net has no {type(network).__name__}: pre-train with --network PlainUNet3D, whose fields "
            "are those of a plan, ResEncUNet3D or UNet3D"
        )
    return network


def plan(network: PlainUNet3D | ResEncUNet3D | UNet3D) -> dict[str, Any]:
    """The ``architecture`` of a configuration in ``nnUNetPlans.json`` that these weights fit."""
    if isinstance(network, UNet3D):
        return {
            "network_class_name": f"{UNET3D.stem}.UNet3D",
            "arch_kwargs": {
                "width": WIDTHS[network.size],
                "norm": network.norm,
                "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
            },
            "_kw_requires_import": [],
        }
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


def adaptation(model: Exportable, preprocess: Preprocess, size: Size) -> dict[str, Any]:
    """What `nnunet_adapt` puts into a plan: network, spacing and normalisation of the weights.

    Args:
        model: of a network that nnU-Net can build.
        preprocess: how its input was prepared; of an unknown modality the plan's normalisation stays.
        size: in voxels (z, y, x) of what it was trained on.

    A window in HU is nnU-Net's CTNormalization with the window in place of percentiles, its lower end in
    place of the mean, and its width in place of the deviation.
    """
    network = check_network(model.network)
    low, high = preprocess.window_hu
    window = {"percentile_00_5": low, "percentile_99_5": high, "mean": low, "std": high - low}
    window |= {"min": low, "max": high, "median": (low + high) / 2}
    return {
        "architecture": plan(network),
        "channels": model.in_channels,
        "divisor": np.max(model.encoder.strides, axis=0).tolist(),
        "spacing": preprocess.spacing_mm and list(preprocess.spacing_mm),
        "normalization": NORMALIZATIONS.get(preprocess.modality),
        "intensities": window if preprocess.modality == "CT" else None,
        "pretrain_info": None if isinstance(network, UNet3D) else _pretrain_info(model, size),
    }


def adaptation_plan(ours: Mapping[str, Any]) -> dict[str, Any]:
    """The plan in nnssl's checkpoints, by which nnU-Net builds its network and finds the encoder's tensors.

    Args:
        ours: see `adaptation`; of a network that nnU-Net has.
    """
    info, architecture = ours["pretrain_info"], ours["architecture"]
    pretrained = {
        "spacing": ours["spacing"],
        "patch_size": info["pt_used_patchsize"],
        "normalization_schemes": [ours["normalization"]] * ours["channels"],
        "use_mask_for_norm": [False] * ours["channels"],
    }
    return {
        "architecture_plans": {
            "arch_class_name": architecture["network_class_name"],
            "arch_kwargs": architecture["arch_kwargs"],
            "arch_kwargs_requiring_import": architecture["_kw_requires_import"],
        },
        "pretrain_plan": {"configurations": {"parts2whole": pretrained}},
        "pretrain_num_input_channels": ours["channels"],
        "recommended_downstream_patchsize": info["pt_recommended_downstream_patchsize"],
        **{name: info[name] for name in ("key_to_encoder", "key_to_stem", "keys_to_in_proj", "key_to_lpe")},
    }


def usage(ours: Mapping[str, Any]) -> str:
    """How the files are used (Markdown); ``ours`` is an `adaptation`."""
    lines = [
        "nnU-Net plans as ever; `adapt_plans.py` (plain Python) then writes `p2wPlans.json` beside its plan, "
        "with the network, the spacing and the normalisation of these weights:",
        "",
        "```",
        "nnUNetv2_plan_and_preprocess -d DATASET_ID -c 3d_fullres --no_pp",
        'python adapt_plans.py "$nnUNet_preprocessed"/DATASET/nnUNetPlans.json',
    ]
    if ours["normalization"] == PERCENTILES:
        where = 'python -c "import nnunetv2; print(nnunetv2.__path__[0])"'
        lines.append(f"cp p2w_normalization.py $({where})/preprocessing/normalization/")
    if ours["pretrain_info"] is None:
        lines.append(f"export PYTHONPATH=$PWD:$PYTHONPATH  # for {UNET3D.name}, in training and prediction")
    lines += [
        "nnUNetv2_preprocess -d DATASET_ID -plans_name p2wPlans -c 3d_fullres",
        "nnUNetv2_train DATASET_ID 3d_fullres FOLD -p p2wPlans -pretrained_weights nnunet_pretrained.pth",
        "```",
    ]
    if ours["intensities"]:
        lines += ["", "CTNormalization gets the window in HU in place of percentiles, and makes it [0, 1]."]
    if ours["normalization"] == PERCENTILES:
        lines += [
            "",
            "Percentiles are those of the scan as nnU-Net crops it, here they were of all its voxels.",
        ]
    if ours["normalization"] is None:
        lines += ["", "Which modality these weights know isn't recorded: the plan's normalisation stays."]
    if ours["pretrain_info"] is not None:
        lines += [
            "",
            "An nnU-Net that begins with checkpoints of nnssl takes the same plan with "
            "`nnUNetv2_train_pretrained DATASET_ID 3d_fullres FOLD -p p2wPlans -tr PretrainedTrainer` (the "
            "encoder alone, warmed up), and the checkpoint with `-pc nnunet_pretrained.pth` of "
            "`nnUNetv2_preprocess_like_nnssl`, which however normalises every scan by z-score.",
        ]
    return "\n".join(lines)


def _pretrain_info(model: Exportable, size: Size) -> dict[str, Any]:
    """Where the encoder and its first layer are, as nnU-Net's trainer for pre-trained encoders asks."""
    residual = isinstance(model.network, ResEncUNet3D)
    stem = "encoder.stem" if residual else "encoder.stages.0"
    first = f"{stem}.convs.0" if residual else f"{stem}.0.convs.0"
    return {
        "checkpoint_name": "parts2whole",
        "key_to_encoder": "encoder.stages",
        "key_to_stem": stem,
        "keys_to_in_proj": [f"{first}.conv", f"{first}.all_modules.0"],
        "key_to_lpe": None,
        "pt_num_in_channels": model.in_channels,
        "pt_used_patchsize": list(size),
        "pt_recommended_downstream_patchsize": list(size),
        "citations": [],
    }


def _unet3d(model: Exportable, network: UNet3D, seed: int) -> dict[str, Tensor]:
    """The state of `nnunet_unet3d.UNet3D`: our names, with the last layer among ``seg_layers``."""
    classes = max(1, len(model.classes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = NnUNet3D(model.in_channels, classes, **plan(network)["arch_kwargs"])
    state = dict(made.state_dict())
    state |= _under("encoder", model.encoder)
    decoder = _decoder(model, state)
    made.load_state_dict(state | decoder)
    if decoder:
        with torch.no_grad():
            compare(model.run(model.example()), [made.eval()(model.example())], UNET3D.name)
    return {key: value.detach().clone() for key, value in made.state_dict().items()}


def has_decoder(model: Exportable) -> bool:
    """Whether the decoder of `to_nnunet` is the model's, and not fresh."""
    network = check_network(model.network)
    if not isinstance(network, UNet3D):
        return model.own is not None
    with torch.device("meta"):
        made = NnUNet3D(model.in_channels, max(1, len(model.classes)), **plan(network)["arch_kwargs"])
    return bool(_decoder(model, made.state_dict()))


def _decoder(model: Exportable, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's decoder by nnU-Net's names; none where it isn't built as nnU-Net's is."""
    found: dict[str, Tensor] = {}
    if isinstance(model.module, EncoderDecoder):
        found = {**model.module.decoder.state_dict(), **_under("head", model.module.head)}
    elif model.own is not None:
        found = {key.removeprefix("decoder."): value for key, value in model.own.state_dict().items()}
    named = {f"decoder.{key.replace('head.', 'seg_layers.2.')}": value for key, value in found.items()}
    fits = all(key in made and made[key].shape == value.shape for key, value in named.items())
    return named if fits else {}


def _under(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


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
