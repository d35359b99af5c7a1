"""Batches from an endless numbered sequence of samples, divided over devices without changing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class LoaderError(ValueError):
    """A batch that can't be divided over the devices."""


@dataclasses.dataclass(frozen=True)
class Share:
    """This process among all, and its loader processes.

    Attributes:
        rank: this process.
        ranks: number of processes.
        workers: loader processes; 0 reads in the training process.
    """

    rank: int = 0
    ranks: int = 1
    workers: int = 0

    def rows(self, batch_size: int) -> range:
        """This process's rows of a global batch; the first processes take one more where it is uneven.

        Raises:
            LoaderError: there is less than a row for every process.
        """
        if batch_size < self.ranks:
            raise LoaderError(
                f"a batch of {batch_size} can't be divided over {self.ranks} devices: "
                f"choose a batch_size of at least {self.ranks}"
            )
        each, more = divmod(batch_size, self.ranks)
        first = self.rank * each + min(self.rank, more)
        return range(first, first + each + (self.rank < more))


class _Numbers(Sampler[list[int]]):
    """Sample numbers of this process: its rows of every global batch."""

    def __init__(self, first_step: int, steps: int, batch_size: int, share: Share) -> None:
        self.first_step, self.steps, self.batch_size, self.share = first_step, steps, batch_size, share

    def __len__(self) -> int:
        return max(0, self.steps - self.first_step)

    def __iter__(self) -> Iterator[list[int]]:
        rows = self.share.rows(self.batch_size)
        for step in range(self.first_step, self.steps):
            yield [step * self.batch_size + row for row in rows]


def load_batches(
    samples: Dataset[Any], *, batch_size: int, first_step: int, steps: int, share: Share
) -> DataLoader[Any]:
    """One batch a step, from ``first_step`` to ``steps``.

    Args:
        samples: maps a sample number (step x batch size + index) to tensors, arrays or numbers.
        batch_size: rows of the global batch.
        first_step: where to begin; a resumed run goes on where it stopped.
        steps: where to end.
        share: which rows of each batch are this process's.

    Raises:
        LoaderError: the batch can't be divided over the processes.
    """
    share.rows(batch_size)  # refuses before a loader process does
    return DataLoader(
        samples,
        batch_sampler=_Numbers(first_step, steps, batch_size, share),
        num_workers=share.workers,
        persistent_workers=share.workers > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if share.workers else None,
    )
