"""NiftyNet: DenseVNet (abdominal organs in CT) and HighRes3DNet (brain parcellation).

E. Gibson et al., "Automatic Multi-Organ Segmentation on Abdominal CT With Dense V-Networks", IEEE TMI 37,
2018; W. Li et al., "On the Compactness, Efficiency, and Representation of 3D Convolutional Networks", IPMI
2017.  Files are TensorFlow checkpoints, or an ``.npz`` of arrays by variable name.  Kernels are (x, y, z,
in, out) and are turned round here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from parts2whole.networks.densevnet import DenseVNet
from parts2whole.networks.highres3dnet import HighRes3DNet
from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.base import (
    Destination,
    Identified,
    Provenance,
    WeightsError,
    WeightSource,
    none_match,
)
from parts2whole.weights.tensorflow_bundle import NORMS

DENSEVNET = Provenance(
    title="NiftyNet DenseVNet, abdominal CT",
    citation="E. Gibson et al. Automatic Multi-Organ Segmentation on Abdominal CT With Dense V-Networks. "
    "IEEE Transactions on Medical Imaging 37(8):1822-1834, 2018.",
    licence="CC BY 4.0 (weights of the NiftyNet model zoo); code Apache-2.0",
    where="dense_vnet_abdominal_ct of the NiftyNet model zoo (NifTK/NiftyNetModelZoo); the project is "
    "archived",
    trained_on="abdominal CT, eight organs and background",
    expects="one channel, CT in Hounsfield units, -1000 outside of the field of view (undone by the "
    "encoder from voxels in [0, 1] of the window -1000 to 1000), cropped to the abdomen and resized to "
    "144 x 144 x 144; what its own configuration normalises besides could not be seen",
    preprocess=Preprocess(modality="CT", window_hu=(-1000.0, 1000.0)),
    whole_size=(144, 144, 144),
)
HIGHRES = Provenance(
    title="NiftyNet HighRes3DNet",
    citation="W. Li et al. On the Compactness, Efficiency, and Representation of 3D Convolutional "
    "Networks: Brain Parcellation as a Pretext Task. IPMI 2017. arXiv:1707.01992.",
    licence="as stated where the checkpoint comes from; code Apache-2.0 (NifTK/NiftyNet)",
    where="a NiftyNet checkpoint of your own, or an entry of the NiftyNet model zoo "
    "(NifTK/NiftyNetModelZoo); the project is archived",
    trained_on="as stated where the checkpoint comes from (in the paper: T1-weighted MR of the brain)",
    expects="one channel, zero mean and unit deviation over the voxels above 0 of a volume (done by the "
    "encoder from voxels in [0, 1]); a histogram standardisation is not done",
    preprocess=Preprocess(modality="MR"),
    whole_size=(96, 96, 96),
)
KERNELS = {"w": "weight", "b": "bias"}
STACK = "dense_feature_stack_block"
LEFT_OUT = re.compile(r"(/(biased|local_step|Adam(_\d+)?|Momentum|RMSProp(_\d+)?)|_power|global_step)$")


@dataclasses.dataclass(frozen=True)
class PublishedNiftyNet(WeightSource):
    """NiftyNet's networks, told apart by their variables' first name.

    Attributes:
        axes: spatial axes of its volumes, first to last. ``xyz`` as its code names them; ``yxz`` where they
            were reoriented to A, R, S, as in the sample configuration of DenseVNet (directions aren't
            turned).
    """

    prefix: ClassVar[str] = "niftynet"
    axes: Literal["xyz", "yxz", "zyx"] = "xyz"

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.axes) != ["x", "y", "z"]:
            raise WeightsError(f"axes must name x, y and z once, got {self.axes!r}")

    @property
    def trained_axes(self) -> str:
        """See ``axes``."""
        return self.axes

    def identify(self, tensors: Mapping[str, Tensor], file: str) -> Identified:
        """By the first part of the names."""
        dense = tensors.get("DenseVNet/conv_bn/conv_/w")
        highres = tensors.get("HighRes3DNet/conv_0_bn_relu/conv_/w")
        if dense is not None:
            last = tensors.get("DenseVNet/conv/conv_/w")
            prior = tensors.get("DenseVNet/spatial_prior_block/prior")
            network = DenseVNet(scaling="hounsfield", prior_size=0 if prior is None else prior.shape[1])
            classes = None if last is None else last.shape[4]
            return Identified(network, dense.shape[3], classes, DENSEVNET)
        if highres is not None:
            last = tensors.get("HighRes3DNet/conv_2_bn/conv_/w")
            classes = None if last is None else last.shape[4]
            return Identified(HighRes3DNet(scaling="zscore"), highres.shape[3], classes, HIGHRES)
        raise none_match("NiftyNet", tensors, "DenseVNet/conv_bn/... or HighRes3DNet/conv_0_bn_relu/...")

    def destination(self, name: str) -> Destination | str:
        """TensorFlow scopes brought to modules."""
        if LEFT_OUT.search(name):
            return "state of the optimiser or of moving averages"
        network, _, rest = name.partition("/")
        scope, _, variable = rest.rpartition("/")
        target: str | None = None
        if network == "DenseVNet":
            if rest == "spatial_prior_block/prior":
                return Destination("own.prior", "prior")
            target = _place_dense(scope, variable)
        elif network == "HighRes3DNet":
            target = _place_highres(scope, variable)
        return Destination(target, "tensorflow") if target else "no part of the published network"


def _last(scope: str, variable: str) -> str | None:
    """``0.weight`` of a convolution or ``1.bias`` of a norm that follow each other in a unit."""
    kind = scope.rpartition("/")[2]
    if kind == "conv_" and variable in KERNELS:
        return f"0.{KERNELS[variable]}"
    if kind == "bn_" and variable in NORMS:
        return f"1.{NORMS[variable]}"
    return None


def _place_dense(scope: str, variable: str) -> str | None:
    last = _last(scope, variable)
    unit = scope.rpartition("/")[0]
    if scope == "batch_norm" and variable in NORMS:
        return f"encoder.input_norm.{NORMS[variable]}"
    if last is None:
        return None
    name = last.partition(".")[2]
    if unit == "conv_bn":
        return f"encoder.stem.{name}" if last.startswith("0") else f"encoder.stem_norm.{name}"
    if unit == "conv":
        return f"own.classes.{name}"
    inner = re.fullmatch(rf"{STACK}(?:_(\d+))?/{STACK}/conv_bn_relu(?:_(\d+))?", unit)
    if inner:
        return f"encoder.stacks.{inner.group(1) or 0}.units.{inner.group(2) or 0}.{last}"
    outer = re.fullmatch(rf"{STACK}(?:_(\d+))?/conv_bn_relu(_1)?", unit)
    if outer:
        part = "encoder.downs" if outer.group(2) else "own.skips"
        return f"{part}.{outer.group(1) or 0}.{last}"
    return None


def _place_highres(scope: str, variable: str) -> str | None:
    last = _last(scope, variable)
    unit = scope.rpartition("/")[0]
    if last and unit in ("conv_0_bn_relu", "conv_1_bn_relu", "conv_2_bn"):
        return f"{'encoder' if unit == 'conv_0_bn_relu' else 'own'}.{unit}.{last}"
    block = re.fullmatch(r"(res_[1-3]_\d+)/((?:conv|bn)_[01])", scope)
    if block:
        name = (KERNELS if block.group(2).startswith("conv") else NORMS).get(variable)
        return f"encoder.{block.group(1)}.{block.group(2)}.{name}" if name else None
    return None
