"""Voxel-wise error of a reconstruction as NIfTI, on the grid of the scan, to be laid over it in a viewer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from parts2whole.errors import Parts2WholeError
from parts2whole.evaluation.inference import sliding_window
from parts2whole.files import write_json
from parts2whole.methods.base import Method, Reconstruction
from parts2whole.run_folder import MODEL, WEIGHTS
from parts2whole.scans.read import safe_name, write_nifti
from parts2whole.scans.volume import Size, Volume, size_of
from parts2whole.spec import spec_from_dict
from parts2whole.store.store import Store
from parts2whole.training.runtime import Runtime
from parts2whole.weights.card import Card
from parts2whole.wholes.geometry import resize
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import WholeSize

DRAWS = 4
"""Parts that every whole is rebuilt from; the map is the mean of their errors."""


class ErrorMapError(Parts2WholeError, ValueError):
    """A run that rebuilds nothing, or whose decoder is gone."""


@dataclasses.dataclass(frozen=True)
class ErrorMaps:
    """Files written, and the mean absolute error of every scan."""

    folder: Path
    errors: dict[str, float]

    def summary(self) -> str:
        """How many, where, and how large."""
        mean = sum(self.errors.values()) / len(self.errors)
        return f"{len(self.errors)} error maps in {self.folder}, mean absolute error {mean:.4f}"


def write_error_maps(
    run: Path, store: Store, cases: Sequence[str], *, out: Path, seed: int, runtime: Runtime
) -> ErrorMaps:
    """For every case write ``CASE_error.nii.gz`` and ``CASE_image.nii.gz``, both in [0, 1].

    The scan is covered by overlapping wholes. Each is rebuilt from several parts, and the absolute errors are
    averaged over parts and over wholes.

    Args:
        run: folder of a finished pre-training that rebuilds images.
        store: where the cases are.
        cases: which of them.
        out: folder to write to.
        seed: of the parts.
        runtime: device and precision.

    Raises:
        ErrorMapError: a method that rebuilds nothing, or weights without a decoder.
    """
    weights = run / WEIGHTS
    card = Card.read(weights)
    method = spec_from_dict(card.method, Method)  # type: ignore[type-abstract]
    if not isinstance(method, Reconstruction):
        raise ErrorMapError(f"{type(method).__name__} rebuilds nothing, so there is no error to map")
    tensors = weights / MODEL
    if not tensors.exists():
        raise ErrorMapError(f"{tensors} is missing: only a pre-training run keeps its decoder")
    module = method.build(card.network, in_channels=card.in_channels, whole_size=card.whole_size)
    module.load_state_dict(load_file(tensors))
    placed = runtime.place_module(module).eval()
    size = WholeSize(card.whole_size, card.whole_mm)
    errors = {}
    for case in cases:
        record = store.record(case)
        image = torch.from_numpy(store.read_unit(case))[None]
        numbers = itertools.count()

        def error_of(wholes: Tensor, case: str = case, numbers: Iterator[int] = numbers) -> Tensor:
            generator = BatchGenerator.of_step(seed, "error map", case, next(numbers), rows=len(wholes))
            return _mean_error(method, placed, wholes, generator, card.whole_size, runtime)

        window = size.in_scan(record.spacing_mm)
        error = sliding_window(error_of, image, window=window, overlap=0.5)[0, 0]
        errors[case] = float(error.mean())
        for kind, voxels in (("error", error), ("image", image[0, 0])):
            volume = Volume(voxels.numpy(), record.spacing_mm, record.origin_mm, record.direction)
            write_nifti(volume, out / f"{safe_name(case)}_{kind}.nii.gz")
    write_json(out / "errors.json", errors)
    return ErrorMaps(out, errors)


def _mean_error(
    method: Reconstruction,
    module: torch.nn.Module,
    wholes: Tensor,
    generator: BatchGenerator,
    whole_size: Size,
    runtime: Runtime,
) -> Tensor:
    """Mean absolute error (B, 1, D, H, W) over `DRAWS` draws of parts, and over channels."""
    method = method.unmoved()
    seen = wholes if size_of(wholes) == whole_size else resize(wholes, whole_size)
    total = torch.zeros(len(seen), 1, *whole_size)
    for _ in range(DRAWS):
        views = method.views(seen, generator)
        with runtime.autocast():
            rebuilt = method.reconstruct(module, runtime.place(views["part"])).float().cpu()
        rebuilt = rebuilt.reshape(len(seen), -1, *rebuilt.shape[1:])
        total += (rebuilt - seen[:, None]).abs().mean(dim=(1, 2), keepdim=False)[:, None]
    error = total / DRAWS
    full = size_of(wholes)
    return error if full == whole_size else resize(error, full)
