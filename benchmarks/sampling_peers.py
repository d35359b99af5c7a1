"""How others deliver (part, whole) pairs: each by its own classes, in the fastest way that we found.

Volumes are float tensors (1, D, H, W) in memory.  What a library has no fast way for, it is given: torchio's
parts are cut by `torch.nn.functional.interpolate`, because its own `Resize` goes through SimpleITK.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Size = tuple[int, int, int]
Batches = Iterator[tuple[Tensor, Tensor]]


def monai(
    volumes: Sequence[Tensor], size: Size, fraction: tuple[float, float], *, batch: int, workers: int
) -> Batches:
    """`Dataset` of tensors in memory, `RandSpatialCrop` for the whole and the part, `Resize` for the part."""
    from monai.data import Dataset as MonaiDataset
    from monai.transforms import RandSpatialCrop, Resize

    crop_whole = RandSpatialCrop(size, random_size=False)
    least, most = ([math.ceil(f * edge) for edge in size] for f in fraction)
    crop_part = RandSpatialCrop(least, max_roi_size=most, random_size=True)
    resize = Resize(size, mode="trilinear")

    def pair(volume: Tensor) -> tuple[Tensor, Tensor]:
        whole = crop_whole(volume)
        return resize(crop_part(whole)), whole

    dataset = MonaiDataset(_Repeated(volumes), transform=pair)
    yield from DataLoader(dataset, batch_size=batch, num_workers=workers, shuffle=True)


def torchio(
    volumes: Sequence[Tensor], size: Size, fraction: tuple[float, float], *, batch: int, workers: int
) -> Batches:
    """`Queue` with a `UniformSampler`; parts by `interpolate`."""
    import torchio as tio

    subjects = tio.SubjectsDataset([tio.Subject(image=tio.ScalarImage(tensor=volume)) for volume in volumes])
    generator = torch.Generator().manual_seed(0)
    low, high = fraction
    queue = tio.Queue(
        subjects, max_length=128, samples_per_volume=32, sampler=tio.UniformSampler(size), num_workers=workers
    )
    while True:
        for found in tio.SubjectsLoader(queue, batch_size=batch, num_workers=0):
            wholes = found["image"][tio.DATA]
            parts = []
            for whole in wholes:
                edges = [
                    round(e * (low + (high - low) * float(torch.rand((), generator=generator)))) for e in size
                ]
                start = [
                    int(torch.randint(s - e + 1, (), generator=generator))
                    for e, s in zip(edges, size, strict=True)
                ]
                z, y, x = (slice(s, s + e) for s, e in zip(start, edges, strict=True))
                parts.append(F.interpolate(whole[None, :, z, y, x], size=size, mode="trilinear"))
            yield torch.cat(parts), wholes


def batchgenerators(
    volumes: Sequence[Tensor], size: Size, fraction: tuple[float, float], *, batch: int, workers: int
) -> Batches:
    """`SpatialTransform`: a random crop for the whole, a random crop with scaling for the part."""
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    crop_whole = SpatialTransform(size, [edge // 2 for edge in size], random_crop=True)
    crop_part = SpatialTransform(
        size,
        [math.ceil(edge / 2 * fraction[1]) for edge in size],
        random_crop=True,
        p_scaling=1,
        scaling=fraction,
    )

    class Pairs(Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return MANY

        def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
            whole = crop_whole(image=volumes[int(torch.randint(len(volumes), ()))])["image"]
            return crop_part(image=whole)["image"], whole

    yield from DataLoader(Pairs(), batch_size=batch, num_workers=workers)


MANY = 10**6
PEERS: dict[str, tuple[Callable[..., Batches], tuple[str, ...]]] = {
    "MONAI": (monai, ("monai",)),
    "torchio": (torchio, ("torchio",)),
    "batchgeneratorsv2": (batchgenerators, ("batchgeneratorsv2",)),
}


class _Repeated(Sequence[Any]):
    """Volumes as an epoch that doesn't end."""

    def __init__(self, volumes: Sequence[Tensor]) -> None:
        self.volumes = volumes

    def __len__(self) -> int:
        return MANY

    def __getitem__(self, number: Any) -> Any:
        return self.volumes[number % len(self.volumes)]
