"""Parts2Whole: pre-train 3D encoders on unlabelled CT and MR scans, and measure what it gains.

    import parts2whole as p2w

    store = p2w.prepare("scans/", out="store/")
    run = p2w.pretrain("store/", out="runs/p2w", method=p2w.Parts2Whole(), network=p2w.UNet3D(size="small"))
    result = p2w.finetune(p2w.Segmentation("labelled/"), init="runs/p2w", fraction=0.1, out="runs/ft0")

Names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parts2whole.methods.autoencoder import Autoencoder as Autoencoder
    from parts2whole.methods.parts2whole import Parts2Whole as Parts2Whole
    from parts2whole.networks.unet3d import UNet3D as UNet3D
    from parts2whole.tasks.classification import Classification as Classification
    from parts2whole.tasks.segmentation import Segmentation as Segmentation
    from parts2whole.verbs.benchmark import benchmark as benchmark
    from parts2whole.verbs.compare import compare as compare
    from parts2whole.verbs.embed import embed as embed
    from parts2whole.verbs.evaluate import evaluate as evaluate
    from parts2whole.verbs.finetune import finetune as finetune
    from parts2whole.verbs.inspect import inspect as inspect
    from parts2whole.verbs.predict import predict as predict
    from parts2whole.verbs.prepare import prepare as prepare
    from parts2whole.verbs.pretrain import pretrain as pretrain
    from parts2whole.verbs.probe import probe as probe
    from parts2whole.weights.load import load_encoder as load_encoder

_HOMES = {
    "benchmark": "parts2whole.verbs.benchmark",
    "compare": "parts2whole.verbs.compare",
    "embed": "parts2whole.verbs.embed",
    "evaluate": "parts2whole.verbs.evaluate",
    "finetune": "parts2whole.verbs.finetune",
    "inspect": "parts2whole.verbs.inspect",
    "predict": "parts2whole.verbs.predict",
    "prepare": "parts2whole.verbs.prepare",
    "pretrain": "parts2whole.verbs.pretrain",
    "probe": "parts2whole.verbs.probe",
    "load_encoder": "parts2whole.weights.load",
    "Autoencoder": "parts2whole.methods.autoencoder",
    "Parts2Whole": "parts2whole.methods.parts2whole",
    "UNet3D": "parts2whole.networks.unet3d",
    "Classification": "parts2whole.tasks.classification",
    "Segmentation": "parts2whole.tasks.segmentation",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'parts2whole' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
