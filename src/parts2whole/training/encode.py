"""What frozen encoders make of images: the one loop, for the monitor, for embeddings and for probes.

Batches go one after the other to the run's device and through the encoder, in eval mode, in the run's
precision and without gradients; what comes back is float32 on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import bottleneck_features, pooled_features
from parts2whole.training.runtime import Runtime

AT_ONCE = 16
"""Images in a batch."""

Read = Callable[[Encoder, Tensor], Tensor]
"""What is read off an encoder for a batch (B, C, D, H, W)."""


def embed_images(encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime) -> Tensor:
    """Global average of the deepest map of every image: (images, channels[-1])."""
    return torch.cat(list(read_features(encoder, batches, runtime, pooled_features)))


def embed_map(encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Of every image its bottleneck map in 2 x 2 x 2 means, flattened, and its global average.

    Shapes (images, 8 channels[-1]) and (images, channels[-1]), from one pass of the encoder.
    """
    both = torch.cat(list(read_features(encoder, batches, runtime, bottleneck_features)))
    return both[:, :-1].flatten(1), both[:, -1]


@torch.no_grad()
def read_features(
    encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime, read: Read
) -> Iterator[Tensor]:
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


def settle_norms(encoder: Encoder, batches: Iterable[Tensor], runtime: Runtime, read: Read) -> None:
    """Show data to batch norms that have seen none yet, instead of made-up statistics; see `settled`."""

    def show(module: Any) -> None:
        for batch in batches:
            with runtime.autocast():
                read(module, runtime.place(batch))

    _settle(encoder, show)


def settled(module: nn.Module, show: Callable[[nn.Module], object], device: torch.device) -> nn.Module:
    """The module with norms that know data: itself, or a copy where batch norms have seen none yet.

    ``show`` calls a module on data; what batch norms then know is the mean over all of its batches alike.
    Random numbers of the process are as they were before.
    """
    if not _fresh_norms(module):
        return module
    copied = copy.deepcopy(module)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        _settle(copied, show)
    return copied.eval()


@torch.no_grad()
def _settle(module: nn.Module, show: Callable[[nn.Module], object]) -> None:
    trained = module.training
    fresh = {layer: layer.momentum for layer in _fresh_norms(module)}
    for layer in fresh:
        layer.momentum = None  # means over all batches alike: with a momentum, some of 0 and 1 would be left
    show(module.train())
    module.train(trained)
    for layer, momentum in fresh.items():
        layer.momentum = momentum


def _fresh_norms(module: nn.Module) -> list[_BatchNorm]:
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    return [
        layer for layer in norms if layer.num_batches_tracked is not None and not layer.num_batches_tracked
    ]


def batches_of(images: Tensor) -> Iterator[Tensor]:
    """Images (N, C, D, H, W) in batches."""
    return (images[first : first + AT_ONCE] for first in range(0, len(images), AT_ONCE))
