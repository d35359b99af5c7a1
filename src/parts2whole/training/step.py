"""One optimiser step: views, objective and gradients, in as many micro-batches as memory asks for.

Running out of memory halves the micro-batch and adds up the gradients of several, so the effective batch
stays.  That is the same objective only if it is a mean over rows; where rows are compared with each other
(contrastive losses, Dice over the batch) it is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from parts2whole.errors import Parts2WholeError, is_out_of_memory
from parts2whole.training.runtime import Runtime
from parts2whole.wholes.loader import Share
from parts2whole.wholes.random import BatchGenerator, stream_seed

MakeViews = Callable[[Any, BatchGenerator], Any]
Objective = Callable[[nn.Module, Any], dict[str, Tensor]]
COMPARED = (
    "This objective compares the rows of a batch with each other, so computing it in smaller pieces would "
    "change it: choose a smaller batch_size, whole_size or network"
)


class MemoryShortage(Parts2WholeError, RuntimeError):
    """A batch that doesn't fit into memory and can't be divided further."""


class Computation(nn.Module):
    """A module and what is asked of it, whose pass gives the losses: what several processes compute alike.

    Args:
        module: what is trained.
        objective: (module, views) to scalars.
    """

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.module, self.objective = module, objective

    def forward(self, views: Any) -> dict[str, Tensor]:
        """The objective's scalars; only ``loss`` keeps its graph, as what else they use isn't trained."""
        losses = self.objective(self.module, views)
        return {key: value if key == "loss" else value.detach() for key, value in losses.items()}


class TrainStep:
    """Computes steps; called with a batch and the number of the step.

    Args:
        module: what is trained, as `Runtime.prepare` gave it.
        optimiser: its optimiser.
        views: (batch on the device, generator) to what the objective needs.
        objective: (module, views) to scalars; ``loss`` is minimised.
        batch_size: rows of the global batch.
        seed: of every random number.
        clip_norm: largest gradient norm; None doesn't clip.
        independent: whether the objective is a mean over rows that don't see each other.
        micro_batches: how many a device's batch is divided into at first.
        runtime: device, precision, processes.
        say: tells the user.
    """

    def __init__(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        views: MakeViews,
        objective: Objective,
        batch_size: int,
        seed: int,
        clip_norm: float | None,
        independent: bool,
        micro_batches: int,
        runtime: Runtime,
        say: Callable[[str], None],
    ) -> None:
        self.module, self.optimiser = module, optimiser
        self.views, self.compute = views, runtime.distribute(Computation(module, objective))
        self.batch_size, self.seed, self.clip_norm = batch_size, seed, clip_norm
        self.independent, self.runtime, self.say = independent, runtime, say
        self.share = Share(runtime.rank, runtime.ranks, runtime.readers)
        self.rows = self.share.rows(batch_size)
        self.weight = len(self.rows) * runtime.ranks / batch_size
        fewest = len(Share(runtime.ranks - 1, runtime.ranks).rows(batch_size))  # of all, so that all agree
        self.micro_batches = min(micro_batches, fewest)
        check_batch(batch_size, independent=independent, runtime=runtime)
        limit, most = runtime.hardware.micro_batch, -(-batch_size // runtime.ranks)
        if limit is not None and most > limit * self.micro_batches:
            self._divide(-(-most // limit), f"micro_batch is {limit}", agreed=True)

    def __call__(self, batch: Any, step: int) -> dict[str, Tensor]:
        """One step; returns the objective's scalars, means over this device's rows, detached."""
        self.compute.train()
        generator = BatchGenerator.of_rows(
            self.seed, "views", step, rows=self.rows, total=self.batch_size, device=self.runtime.device
        )
        with torch.no_grad():
            seen = self.runtime.place(self.views(self.runtime.place(batch), generator))
        losses = self._gradients(seen, step)
        if self.clip_norm is not None:
            scaled = bool(self.runtime.scaler_state())  # which skips a step that overflows, and scales less
            self.runtime.fabric.clip_gradients(
                self.module, self.optimiser, max_norm=self.clip_norm, error_if_nonfinite=not scaled
            )
        self.optimiser.step()
        return losses

    def _gradients(self, seen: Any, step: int) -> dict[str, Tensor]:
        """Gradients of the mean over this device's rows, in smaller pieces each time memory runs out."""
        while True:
            # Dropout and the like draw from the global generator: tie it to the step, for an exact resume.
            torch.manual_seed(stream_seed(self.seed, "step", step, self.runtime.rank))
            self.optimiser.zero_grad(set_to_none=True)
            try:
                return self._accumulate(seen)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Out of the except block, so that the failed attempt's tensors are gone.
            self.runtime.free_memory()
            self._divide(2 * self.micro_batches, f"out of memory at step {step + 1} ({reason})")

    def _accumulate(self, seen: Any) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        rows = len(self.rows)
        pieces = divide_rows(seen, rows=rows, parts=self.micro_batches)
        for number, (part, count) in enumerate(pieces, start=1):
            share = count / rows
            with self.runtime.exchanging(self.compute, number == self.micro_batches):
                with self.runtime.autocast():
                    losses = self.compute(part)
                self.runtime.backward(losses["loss"] * (share * self.weight))
            for key, value in losses.items():
                scaled = value.detach().float() * share
                sums[key] = sums[key] + scaled if key in sums else scaled
        return sums

    def _divide(self, parts: int, why: str, *, agreed: bool = False) -> None:
        rows = len(self.rows)
        parts = min(parts, rows)
        if not self.independent:
            raise MemoryShortage(f"{why}. {COMPARED}")
        if parts <= self.micro_batches:
            raise MemoryShortage(f"{why}, with one row at a time: choose a smaller whole_size or network")
        if self.runtime.ranks > 1 and not agreed:
            raise MemoryShortage(
                f"{why} on one of {self.runtime.ranks} devices, which must go together: resume with "
                f"--hardware.micro-batch {-(-rows // parts)}"
            )
        self.micro_batches = parts
        norms = [m for m in self.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        note = " Batch norm takes its statistics from each micro-batch." if norms else ""
        self.say(
            f"{why}: going on with {parts} micro-batches of at most {-(-rows // parts)}; gradients add up, "
            f"so the effective batch stays {self.batch_size}.{note}"
        )


def check_batch(batch_size: int, *, independent: bool, runtime: Runtime) -> None:
    """Raise unless a batch can be divided over the processes, and into micro-batches if these are asked for.

    Raises:
        parts2whole.wholes.loader.LoaderError: there is less than a row for every process.
        MemoryShortage: the objective compares rows, so that they must be divided evenly, or not at all.
    """
    limit, ranks = runtime.hardware.micro_batch, runtime.ranks
    rows = Share(0, ranks).rows(batch_size)
    if batch_size % ranks and not independent:
        raise MemoryShortage(
            f"a batch of {batch_size} can't be divided evenly over {ranks} devices, and this objective "
            f"compares the rows of a batch: choose a batch_size divisible by {ranks}"
        )
    if limit is not None and len(rows) > limit and not independent:
        raise MemoryShortage(f"micro_batch is {limit}, a device has {len(rows)} rows. {COMPARED}")
    fewest = len(Share(ranks - 1, ranks).rows(batch_size))
    if limit is not None and -(-len(rows) // limit) > fewest:
        raise MemoryShortage(
            f"micro_batch is {limit}, and {ranks} devices have {fewest} or {len(rows)} rows of a batch of "
            f"{batch_size}, so that they would wait for each other: choose a batch_size divisible by {ranks}"
        )


def divide_rows(seen: Any, *, rows: int, parts: int) -> Iterator[tuple[Any, int]]:
    """Views in ``parts`` pieces, with the rows of each; a view may have several rows for one of the batch."""
    bounds = [rows * part // parts for part in range(parts + 1)]
    for first, end in itertools.pairwise(bounds):
        yield (seen if parts == 1 else _cut(seen, first, end, rows)), end - first


def _cut(thing: Any, first: int, end: int, rows: int) -> Any:
    if isinstance(thing, Mapping):
        return {key: _cut(value, first, end, rows) for key, value in thing.items()}
    if isinstance(thing, Tensor) and thing.ndim and len(thing) % rows == 0:
        each = len(thing) // rows
        return thing[first * each : end * each]
    if isinstance(thing, list | tuple) and len(thing) == rows:
        return thing[first:end]
    return thing
