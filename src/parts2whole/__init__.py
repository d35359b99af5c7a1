"""Parts2Whole: pre-train 3D encoders on unlabelled CT and MR scans, and measure what it gains.

    import parts2whole as p2w

    store = p2w.prepare("scans/", out="store/")
    run = p2w.pretrain("store/", out="runs/p2w", method=p2w.Parts2Whole(), network=p2w.UNet3D(size="small"))
    result = p2w.finetune(p2w.Segmentation("labelled/"), init="runs/p2w", fraction=0.1, out="runs/ft0")

Names are imported on first use, so that importing the package costs nothing.  Methods, networks and tasks
are not listed here: every final spec in their folders is found by its class name, as ``p2w.SimCLR`` is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parts2whole.errors import Parts2WholeError as Parts2WholeError
    from parts2whole.verbs.benchmark import benchmark as benchmark
    from parts2whole.verbs.compare import compare as compare
    from parts2whole.verbs.doctor import doctor as doctor
    from parts2whole.verbs.embed import embed as embed
    from parts2whole.verbs.evaluate import evaluate as evaluate
    from parts2whole.verbs.export import export_weights as export_weights
    from parts2whole.verbs.finetune import finetune as finetune
    from parts2whole.verbs.inspect import inspect as inspect
    from parts2whole.verbs.predict import predict as predict
    from parts2whole.verbs.prepare import prepare as prepare
    from parts2whole.verbs.pretrain import pretrain as pretrain
    from parts2whole.verbs.probe import probe as probe
    from parts2whole.verbs.weights import import_weights as import_weights
    from parts2whole.verbs.weights import show_weights as show_weights
    from parts2whole.weights.load import load_encoder as load_encoder

_HOMES = {
    "benchmark": "parts2whole.verbs.benchmark",
    "compare": "parts2whole.verbs.compare",
    "doctor": "parts2whole.verbs.doctor",
    "embed": "parts2whole.verbs.embed",
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
    "load_encoder": "parts2whole.weights.load",
    "Parts2WholeError": "parts2whole.errors",
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
    """Every method, network and task by class name, found by listing their folders."""
    from parts2whole.cli import FAMILIES
    from parts2whole.spec import discover

    found: dict[str, Any] = {}
    for family, (base, package) in FAMILIES.items():
        found |= discover(getattr(importlib.import_module(base), family), package)
    return found
