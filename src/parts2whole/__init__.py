"""Parts2Whole: pre-train 3D encoders on unlabelled CT and MR scans, and measure what it gains.

    import parts2whole as p2w

    store = p2w.prepare("scans/", out="store/")
    run = p2w.pretrain("store/", out="runs/p2w", method=p2w.Parts2Whole(), network=p2w.UNet3D(size="small"))
    result = p2w.finetune(p2w.Segmentation("labelled/"), init="runs/p2w", fraction=0.1, out="runs/ft0")

Names are imported on first use, so that importing the package costs nothing.  Methods, networks, tasks and
other specs are not listed here: every one in the folder of its family is found by its class name, as
``p2w.SimCLR`` is.  The bases are here, too, for classes of your own: ``class Mine(p2w.Reconstruction): ...``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parts2whole.errors import Parts2WholeError as Parts2WholeError
    from parts2whole.methods.base import Discrimination as Discrimination
    from parts2whole.methods.base import FixedBank as FixedBank
    from parts2whole.methods.base import Method as Method
    from parts2whole.methods.base import Reconstruction as Reconstruction
    from parts2whole.networks.base import Encoder as Encoder
    from parts2whole.networks.base import Network as Network
    from parts2whole.scans.preprocess import Preprocess as Preprocess
    from parts2whole.tasks.augment import Augmentation as Augmentation
    from parts2whole.tasks.base import Task as Task
    from parts2whole.tasks.segmenting import SegmentationTask as SegmentationTask
    from parts2whole.training.optim import Optimiser as Optimiser
    from parts2whole.training.optim import Schedule as Schedule
    from parts2whole.training.runtime import Hardware as Hardware
    from parts2whole.training.scan_encoder import load as load
    from parts2whole.verbs.benchmark import benchmark as benchmark
    from parts2whole.verbs.choose import choose as choose
    from parts2whole.verbs.compare import compare as compare
    from parts2whole.verbs.doctor import doctor as doctor
    from parts2whole.verbs.embed import embed as embed
    from parts2whole.verbs.encode import encode as encode
    from parts2whole.verbs.evaluate import evaluate as evaluate
    from parts2whole.verbs.export import export_weights as export_weights
    from parts2whole.verbs.finetune import finetune as finetune
    from parts2whole.verbs.inspect import inspect as inspect
    from parts2whole.verbs.predict import predict as predict
    from parts2whole.verbs.prepare import prepare as prepare
    from parts2whole.verbs.pretrain import pretrain as pretrain
    from parts2whole.verbs.probe import probe as probe
    from parts2whole.verbs.start import start as start
    from parts2whole.verbs.weights import import_weights as import_weights
    from parts2whole.verbs.weights import show_weights as show_weights
    from parts2whole.weights.base import WeightSource as WeightSource
    from parts2whole.weights.load import load_encoder as load_encoder
    from parts2whole.wholes.where import Where as Where

_FAMILIES = {
    "Method": "parts2whole.methods.base",
    "Network": "parts2whole.networks.base",
    "Task": "parts2whole.tasks.base",
    "WeightSource": "parts2whole.weights.base",
    "Where": "parts2whole.wholes.where",
    "Optimiser": "parts2whole.training.optim",
    "Schedule": "parts2whole.training.optim",
}
"""Families of specs, whose members are found by listing their folder or module."""

_HOMES = _FAMILIES | {
    "Discrimination": "parts2whole.methods.base",
    "FixedBank": "parts2whole.methods.base",
    "Reconstruction": "parts2whole.methods.base",
    "Encoder": "parts2whole.networks.base",
    "Parts2WholeError": "parts2whole.errors",
    "SegmentationTask": "parts2whole.tasks.segmenting",
    "Preprocess": "parts2whole.scans.preprocess",
    "Augmentation": "parts2whole.tasks.augment",
    "Hardware": "parts2whole.training.runtime",
    "benchmark": "parts2whole.verbs.benchmark",
    "choose": "parts2whole.verbs.choose",
    "compare": "parts2whole.verbs.compare",
    "doctor": "parts2whole.verbs.doctor",
    "embed": "parts2whole.verbs.embed",
    "encode": "parts2whole.verbs.encode",
    "evaluate": "parts2whole.verbs.evaluate",
    "export_weights": "parts2whole.verbs.export",
    "finetune": "parts2whole.verbs.finetune",
    "import_weights": "parts2whole.verbs.weights",
    "inspect": "parts2whole.verbs.inspect",
    "predict": "parts2whole.verbs.predict",
    "prepare": "parts2whole.verbs.prepare",
    "pretrain": "parts2whole.verbs.pretrain",
    "probe": "parts2whole.verbs.probe",
    "show_weights": "parts2whole.verbs.weights",
    "load": "parts2whole.training.scan_encoder",
    "start": "parts2whole.verbs.start",
    "load_encoder": "parts2whole.weights.load",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name[:1].isupper() and name in (members := _family_members()):
        value = members[name]
    else:
        raise AttributeError(f"module 'parts2whole' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_family_members()})


def _family_members() -> dict[str, Any]:
    """Every method, network, task and other member of a family in the package, by class name."""
    from parts2whole.own import is_own
    from parts2whole.spec import members

    bases = [getattr(importlib.import_module(module), name) for name, module in _FAMILIES.items()]
    return {one.__name__: one for base in bases for one in members(base) if not is_own(one.__module__)}
