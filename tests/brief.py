"""The briefest fine-tuning that leaves a model to predict with."""

from __future__ import annotations

from pathlib import Path

import parts2whole as p2w
from parts2whole.scans.preprocess import Preprocess
from parts2whole.training.runtime import Hardware

EXACT = Hardware(accelerator="cpu", precision="32-true")


def finetune_briefly(data: Path, *, modality: str) -> Path:
    """The run, beside its labelled data; patches are 16 voxels wide."""
    run = data.parent / "run"
    p2w.finetune(
        p2w.Segmentation(
            data, preprocess=Preprocess(modality=modality), patch_size=(16, 16, 16), test_fraction=0.2
        ),
        out=run,
        cache=data.parent / "cache",
        network=p2w.UNet3D(size="tiny"),
        steps=2,
        batch_size=2,
        validate_every=2,
        hardware=EXACT,
        progress=False,
    )
    return run
