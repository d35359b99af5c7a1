"""What frozen encoders make of images: the one loop, for the monitor, for embeddings and for probes.

Batches go one after the other to the run's device and through the encoder, in eval mode, in the run's
precision and without gradients; what comes back is float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import pooled_features
from parts2whole.training.runtime import Runtime

AT_ONCE = 16
"""Images in a batch."""

Read = Callable[[Encoder, Tensor], Tensor]
"""What is read off an encoder for a batch (B, C, D, H, W)."""


def embed(encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime) -> Tensor:
    """Global average of the deepest map of every image: (images, channels[-1])."""
    return torch.cat(list(encode(encoder, batches, runtime, pooled_features)))


@torch.no_grad()
def encode(encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime, read: Read) -> Iterator[Tensor]:
    """What ``read`` finds for every batch; the next batch is taken when it is asked for.

    The encoder must be on the device (`Runtime.place_module`); its mode is put back in the end.
    """
    trained = encoder.training
    encoder.eval()
    try:
        for batch in batches:
            with runtime.autocast():
                found = read(encoder, runtime.place(batch))
            yield found.float().cpu()
    finally:
        encoder.train(trained)


@torch.no_grad()
def settle_norms(encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime, read: Read) -> None:
    """Let an untrained encoder's batch norms see data once, instead of made-up statistics."""
    trained = encoder.training
    encoder.train()
    for batch in batches:
        with runtime.autocast():
            read(encoder, runtime.place(batch))
    encoder.train(trained)


def batches_of(images: Tensor) -> Iterator[Tensor]:
    """Images (N, C, D, H, W) in batches."""
    return (images[first : first + AT_ONCE] for first in range(0, len(images), AT_ONCE))
