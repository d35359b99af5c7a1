"""The briefest ways to a store with voxels in it, and to a model to predict with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

import parts2whole as p2w
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume, content_hash
from parts2whole.store.record import CaseRecord
from parts2whole.store.store import Store
from parts2whole.training.runtime import Hardware

EXACT = Hardware(accelerator="cpu", precision="32-true")


def write_volume(store: Store, case_id: str, volume: Volume, *, patient: str, modality: str = "unit") -> None:
    """Store voxels that are of the store's integer type already, its full range meaning [0, 1]."""
    array = volume.array.reshape(-1, *volume.shape)
    record = CaseRecord(
        case_id=case_id,
        patient=patient,
        modality=modality,
        channels=len(array),
        shape=volume.shape,
        spacing_mm=volume.spacing_mm,
        origin_mm=volume.origin_mm,
        direction=volume.direction,
        scale=1 / np.iinfo(store.dtype).max,
        offset=0.0,
        content_hash=content_hash(volume.array),
    )
    store.write_case(record, array)


def write_noise(folder: Path, seeds: Iterable[int] = range(4)) -> Path:
    """A store of volumes of noise, 10 voxels wide, each of a patient of its own."""
    store = Store.create(folder, preprocess=Preprocess(modality="unit"))
    for seed in seeds:
        voxels = np.random.default_rng(seed).integers(0, 30000, (10, 10, 10)).astype(np.int16)
        write_volume(store, f"c{seed}", Volume(voxels), patient=f"p{seed}")
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
