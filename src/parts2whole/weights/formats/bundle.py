"""MONAI bundle: a fine-tuned segmentation that MONAI's own runner applies to scans, without this package.

    configs/metadata.json   what goes in and out, and which packages it takes
    configs/inference.json  MONAI's transforms, sliding windows and evaluator
    models/model.ts         the network as TorchScript, for windows of one size
    scripts/resample.py     where scans are resampled: as here, which MONAI's transforms don't do

Scans are brought to canonical orientation by MONAI's ``Orientationd`` with axes S, P, L, which are z, y, x.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from parts2whole.files import write_json, write_text
from parts2whole.networks.blocks import BatchStatisticsNorm3d
from parts2whole.scans import preprocess as scans_preprocess
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Size
from parts2whole.weights.formats.model import Exportable, ExportError
from parts2whole.weights.formats.traced import to_torchscript

PACKAGES = ("nibabel", "pytorch-ignite", "scipy")
TRANSFORMS = '''

class ToSpacing(MapTransform):
    """Change the spacing (z, y, x) and keep the middle of the scan where it is."""

    def __init__(self, keys, spacing_mm):
        super().__init__(keys)
        self.spacing_mm = spacing_mm

    def __call__(self, data):
        data = dict(data)
        for key in self.keys:
            image = data[key]
            affine = image.affine.numpy().copy()
            old = np.linalg.norm(affine[:3, :3], axis=0)
            array = image.numpy()
            data[f"{key}_grid"] = torch.tensor(np.array([array.shape[1:], old]))
            data[f"{key}_affine"] = torch.from_numpy(affine.copy())
            for axis, (had, want) in enumerate(zip(old, self.spacing_mm)):
                if abs(want / had - 1) < 1e-3:
                    continue
                before = array.shape[axis + 1]
                after = max(1, round(before * had / want))
                places = (np.arange(after) + 0.5 - after / 2) * (want / had) + before / 2 - 0.5
                array = _along(array, axis - 3, places, want / had, nearest=False)
                affine[:3, 3] += affine[:3, axis] * places[0]
                affine[:3, axis] *= want / had
            data[key] = MetaTensor(
                torch.from_numpy(np.ascontiguousarray(array)),
                meta={**image.meta, "affine": torch.from_numpy(affine)},
                applied_operations=image.applied_operations,
            )
        return data


class BackToGrid(MapTransform):
    """Bring a mask from the spacing of ToSpacing back onto the voxels of its scan, by nearest neighbour."""

    def __init__(self, keys, image_key, spacing_mm):
        super().__init__(keys)
        self.image_key, self.spacing_mm = image_key, spacing_mm

    def __call__(self, data):
        data = dict(data)
        shape, old = data[f"{self.image_key}_grid"].numpy()
        affine = data[f"{self.image_key}_affine"]
        data[self.image_key].affine = affine  # which Invertd goes by
        for key in self.keys:
            mask = data[key]
            array = mask.numpy()
            for axis, (size, had, want) in enumerate(zip(shape.astype(int), old, self.spacing_mm)):
                if abs(want / had - 1) < 1e-3:
                    continue
                after = array.shape[axis + 1]
                first = (0.5 - after / 2) * (want / had) + size / 2 - 0.5
                places = (np.arange(size) - first) * (had / want)
                array = _along(array, axis - 3, places, had / want, nearest=True)
            data[key] = MetaTensor(
                torch.from_numpy(np.ascontiguousarray(array)),
                meta={**mask.meta, "affine": affine},
                applied_operations=mask.applied_operations,
            )
        return data
'''
HEAD = '''"""Spacing as parts2whole changes it: linear, averaged where the grid gets coarser."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import sparse


'''


@dataclasses.dataclass(frozen=True)
class Windows:
    """How whole volumes are segmented.

    Attributes:
        size: of a window, in voxels (z, y, x).
        overlap: of neighbouring windows, as a share of the window.
    """

    size: Size
    overlap: float


def write_bundle(
    model: Exportable, preprocess: Preprocess, windows: Windows, values: Sequence[int], folder: Path
) -> float:
    """Write the bundle into an empty folder; returns the largest relative difference of TorchScript.

    Args:
        model: a fine-tuned segmentation.
        preprocess: how its input was prepared, with the modality resolved.
        windows: how it is applied.
        values: of its classes, in masks.
        folder: that becomes the bundle.

    Raises:
        ExportError: the network depends on its batch, or TorchScript computes something else.
    """
    if any(isinstance(module, BatchStatisticsNorm3d) for module in model.module.modules()):
        raise ExportError(
            "the prediction of a window depends on its neighbours (norm batch_statistics): MONAI would batch "
            "others"
        )
    for name in ("configs", "models"):
        (folder / name).mkdir()
    window = dataclasses.replace(model, size=windows.size)
    worst = to_torchscript(window, folder / "models/model.ts")
    write_json(folder / "configs/metadata.json", _metadata(model, preprocess, windows, values), indent=4)
    write_json(folder / "configs/inference.json", _inference(preprocess, windows, values), indent=4)
    if preprocess.spacing_mm:
        write_text(folder / "scripts/__init__.py", "")
        write_text(folder / "scripts/resample.py", _resample())
    return worst


def _resample() -> str:
    pieces = (scans_preprocess._triangle_integral, scans_preprocess._along)
    plain = (
        re.sub(r"npt\.NDArray\[[^]]*\](\]*)", "np.ndarray", inspect.getsource(piece)) for piece in pieces
    )
    return HEAD + "\n\n".join(plain) + TRANSFORMS


def _scaling(preprocess: Preprocess) -> list[dict[str, Any]]:
    """The transform that makes voxels [0, 1]."""
    limits = {"keys": "image", "b_min": 0.0, "b_max": 1.0, "clip": True}
    if preprocess.modality == "CT":
        low, high = preprocess.window_hu
        return [{"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, **limits}]
    if preprocess.modality == "unit":
        return []
    lower, upper = preprocess.percentiles
    name = "ScaleIntensityRangePercentilesd"
    return [{"_target_": name, "lower": lower, "upper": upper, "channel_wise": True, **limits}]


def _inference(preprocess: Preprocess, windows: Windows, values: Sequence[int]) -> dict[str, Any]:
    spacing = {"spacing_mm": list(preprocess.spacing_mm or ())}
    there = [{"_target_": "scripts.resample.ToSpacing", "keys": "image", **spacing}]
    back = [{"_target_": "scripts.resample.BackToGrid", "keys": "pred", "image_key": "image", **spacing}]
    # A store holds 16 bits, which whole Hounsfield units fit exactly and other voxels are rounded to.
    rounded = "$lambda x: torch.round(x.double() * 32767).float() * (1 / 32767)"
    as_stored = [{"_target_": "Lambdad", "keys": "image", "func": rounded}]
    prepare: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "SPL"},
        *(there if preprocess.spacing_mm else ()),
        *_scaling(preprocess),
        *(as_stored if preprocess.spacing_mm or preprocess.modality != "CT" else ()),
    ]
    finish: list[dict[str, Any]] = [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        *(back if preprocess.spacing_mm else ()),
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": True,
            "to_tensor": True,
        },
        {
            "_target_": "MapLabelValued",
            "keys": "pred",
            "orig_labels": list(range(len(values))),
            "target_labels": list(values),
        },
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "mask",
            "output_dtype": "$np.int16" if max(values) < 2**15 else "$np.int32",
            "separate_folder": False,
            "resample": False,
        },
    ]
    return {
        "imports": ["$import glob", "$import os", "$import sys", "$import numpy as np", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": prepare},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(windows.size),
            "sw_batch_size": 1,
            "overlap": windows.overlap,
            "mode": "gaussian",
            "padding_mode": "constant",
            "cval": 0.0,
        },
        "postprocessing": {"_target_": "Compose", "transforms": finish},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "amp": False,
        },
        "initialize": ["$sys.path.insert(0, @bundle_root)"] if preprocess.spacing_mm else [],
        "run": ["$@evaluator.run()"],
    }


def _metadata(
    model: Exportable, preprocess: Preprocess, windows: Windows, values: Sequence[int]
) -> dict[str, Any]:
    unit = "hounsfield" if preprocess.modality == "CT" else "magnitude"
    common: dict[str, Any] = {"format": unit, "is_patch_data": True}
    common |= {"modality": preprocess.modality, "spatial_shape": list(windows.size), "dtype": "float32"}
    channels = {str(number): f"channel {number}" for number in range(model.in_channels)}
    found = [name for name, value in zip(model.classes, values, strict=True) if value]
    classes = {
        str(number): f"{name} (written as {value})"
        for number, (name, value) in enumerate(zip(model.classes, values, strict=True))
    }
    image = {
        "type": "image",
        "num_channels": model.in_channels,
        "value_range": [0, 1],
        "channel_def": channels,
    }
    pred = {"type": "image", "format": "segmentation", "num_channels": len(classes), "value_range": []}
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": f"written by parts2whole {_version('parts2whole')}"},
        "monai_version": _version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": _version("numpy"),
        "required_packages_version": {name: _version(name) for name in PACKAGES},
        "name": f"{type(model.network).__name__} segmentation",
        "task": f"segmentation of {', '.join(found)}",
        "description": "A segmentation made with parts2whole; README.md says how its input is prepared.",
        "authors": "whoever trained it",
        "copyright": "see README.md",
        "network_data_format": {
            "inputs": {"image": common | image},
            "outputs": {"pred": common | pred | {"channel_def": classes}},
        },
    }


def _version(package: str) -> str:
    """The version that is installed, or a usual one of what only running takes."""
    try:
        return version(package)
    except PackageNotFoundError:
        return {"pytorch-ignite": "0.5.0"}[package]
