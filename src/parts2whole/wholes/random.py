"""Randomness as a function of (seed, step, index): the same samples for any number of workers or devices.

Nothing here keeps state between steps, so a resumed run draws what the unbroken run would have drawn.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch
from torch import Tensor


def stream_seed(*labels: int | str) -> int:
    """A 63-bit seed made from labels, such as ``stream_seed(seed, "views", step)``."""
    text = "/".join(str(label) for label in labels)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def sample_generator(*labels: int | str) -> np.random.Generator:
    """A NumPy generator that belongs to these labels alone."""
    return np.random.Generator(np.random.Philox(key=stream_seed(*labels)))


@dataclasses.dataclass
class BatchGenerator:
    """Random numbers for the rows of a batch, drawn for the global batch and cut to this device's rows.

    Attributes:
        generator: CPU generator of this step.
        total: rows of the global batch, over all devices.
        first: first row that belongs to this device.
        rows: number of rows of this device.
        device: where the numbers are needed.
    """

    generator: torch.Generator
    total: int
    first: int
    rows: int
    device: torch.device

    @classmethod
    def of_step(
        cls, *labels: int | str, rows: int, rank: int = 0, ranks: int = 1, device: torch.device | str = "cpu"
    ) -> BatchGenerator:
        """The generator of the step named by ``labels`` for device ``rank`` of ``ranks``."""
        mine = range(rows * rank, rows * (rank + 1))
        return cls.of_rows(*labels, rows=mine, total=rows * ranks, device=device)

    @classmethod
    def of_rows(
        cls, *labels: int | str, rows: range, total: int, device: torch.device | str = "cpu"
    ) -> BatchGenerator:
        """The generator of the step named by ``labels`` for some ``rows`` of a batch of ``total``."""
        generator = torch.Generator().manual_seed(stream_seed(*labels))
        return cls(generator, total, rows.start, len(rows), torch.device(device))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), shape (rows, *shape)."""
        numbers = torch.rand(self.total, *shape, generator=self.generator)
        return numbers[self.first : self.first + self.rows].to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, shape (rows, *shape)."""
        numbers = torch.randn(self.total, *shape, generator=self.generator)
        return numbers[self.first : self.first + self.rows].to(self.device)

    def row_generators(self) -> list[np.random.Generator]:
        """One NumPy generator for every row, for draws whose number differs from row to row."""
        seeds = torch.randint(2**62, (self.total,), generator=self.generator)
        mine = seeds[self.first : self.first + self.rows].tolist()
        return [np.random.Generator(np.random.SFC64(seed)) for seed in mine]
