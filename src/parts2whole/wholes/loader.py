"""Batches from an endless numbered sequence of samples, divided over devices without changing it.

Samples are read ahead by threads, not processes: reading is decoding and copying, which need no interpreter
lock.  So nothing is pickled, sent or held twice, whatever the size of the store, and training begins at once.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from parts2whole.errors import Parts2WholeError


class LoaderError(Parts2WholeError, ValueError):
    """A batch that can't be divided over the devices."""


AHEAD = 2
"""Batches that each thread has read or is reading before they are asked for."""


@dataclasses.dataclass(frozen=True)
class Share:
    """This process among all, and its loader threads.

    Attributes:
        rank: this process.
        ranks: number of processes.
        workers: threads that read ahead; 0 reads when a batch is asked for.
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


def load_batches(
    samples: Dataset[Any], *, batch_size: int, first_step: int, steps: int, share: Share
) -> Iterator[Any]:
    """One batch a step, from ``first_step`` to ``steps``.

    Args:
        samples: maps a sample number (step x batch size + index) to tensors, arrays or numbers, and perhaps
            several at once (``__getitems__``, as torch's own loader asks).
        batch_size: rows of the global batch.
        first_step: where to begin; a resumed run goes on where it stopped.
        steps: where to end.
        share: which rows of each batch are this process's.

    Raises:
        LoaderError: the batch can't be divided over the processes.
    """
    rows = share.rows(batch_size)
    numbers = (
        range(step * batch_size + rows.start, step * batch_size + rows.stop)
        for step in range(first_step, steps)
    )
    return _collated(samples, numbers, share.workers)


def _collated(samples: Dataset[Any], numbers: Iterator[range], workers: int) -> Iterator[Any]:
    # Stacked here and not by the threads, each of which would get its own pool of torch's threads.
    for each in _read_ahead(samples, numbers, workers) if workers else (_read(samples, n) for n in numbers):
        batch = default_collate(each)
        yield _pinned(batch) if torch.cuda.is_available() else batch


def _read_ahead(samples: Dataset[Any], numbers: Iterator[range], workers: int) -> Iterator[list[Any]]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
    waiting: deque[Future[list[Any]]] = deque()
    try:
        for each in numbers:
            waiting.append(pool.submit(_read, samples, each))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(samples: Dataset[Any], numbers: range) -> list[Any]:
    together = getattr(samples, "__getitems__", None)
    return list(together(numbers)) if together else [samples[number] for number in numbers]


def _pinned(batch: Any) -> Any:
    """Tensors in memory that an accelerator fetches from without waiting."""
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory()
    if isinstance(batch, dict):
        return {key: _pinned(value) for key, value in batch.items()}
    return [_pinned(value) for value in batch] if isinstance(batch, list | tuple) else batch
