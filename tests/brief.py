"""The briefest ways to a store with voxels in it, and to a model to predict with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

import parts2whole as p2w
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.store import Store
from parts2whole.training.runtime import Hardware

EXACT = Hardware(accelerator="cpu", precision="32-true")


def write_noise(folder: Path, seeds: Iterable[int] = range(4)) -> Path:
    """A store of volumes of noise, 10 voxels wide, each of a patient of its own."""
    store = Store.create(folder, preprocess=Preprocess(modality="unit"))
    for seed in seeds:
        voxels = np.random.default_rng(seed).integers(0, 30000, (10, 10, 10)).astype(np.int16)
        store.write_volume(f"c{seed}", Volume(voxels), patient=f"p{seed}")
    store.finish()
    return folder


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
