"""MoCo v2 in 3D: momentum contrast, with a queue of past keys instead of a large batch.

Kaiming He, Haoqi Fan, Yuxin Wu, Saining Xie, Ross Girshick: "Momentum Contrast for Unsupervised Visual
Representation Learning", CVPR 2020, https://arxiv.org/abs/1911.05722; version 2 (the head, the temperature):
Xinlei Chen, Haoqi Fan, Ross Girshick, Kaiming He, 2020, https://arxiv.org/abs/2003.04297

The idea.  One part of a whole is the query q, another one the key k.  The query must find its key among a
long queue of keys of earlier batches.  Keys must be comparable over many steps, so a second encoder makes
them, which follows the first slowly and gets no gradient.

    loss = -log( exp(q.k / t) / (exp(q.k / t) + sum over the queue of exp(q.n / t)) )
    key encoder = m key encoder + (1 - m) query encoder, at every step, before the keys are made

Deviations.  Positives are parts of the same whole, without colour distortion or blur; the head is as wide
as the encoder.  Batches are not shuffled over devices before the keys are made, which in the original keeps
batch norm from giving the pair away: use a network with norm="instance" or "group" where that matters.  The
queue and m are smaller by default (4,096 and 0.99 for 65,536 and 0.999), as runs here see far fewer wholes.
The queue begins with the keys of the first batch, over and over, not with random vectors, which are too easy
to tell from a key: the loss would rise while they leave.  Keys of all devices enter the queue in rank order,
so it is equal on every device; it is part of the checkpoint.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.methods.base import Discrimination, MethodError, Views
from parts2whole.methods.contrast import Projector, check_temperature, cosines, gather_rows
from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.heads import Model, pooled_features
from parts2whole.scans.volume import Size
from parts2whole.wholes.geometry import check_band, cut_parts
from parts2whole.wholes.random import BatchGenerator


class MomentumContrast(Model):
    """Query network, the key network that follows it, and the queue.

    Attributes:
        encoder: of the queries; it is the one that is kept.
        queue: (K, F) unit vectors, overwritten in a circle.
        stored: keys that have entered it so far.
    """

    queue: Tensor
    stored: Tensor

    def __init__(self, encoder: Encoder, *, features: int, queue: int, momentum: float) -> None:
        super().__init__(encoder)
        query = Projector(encoder, out=features)
        self.head = query.head
        self.key = copy.deepcopy(query).requires_grad_(False)
        self.momentum = momentum
        self.register_buffer("queue", F.normalize(torch.randn(queue, features), dim=1))
        self.register_buffer("stored", torch.zeros((), dtype=torch.long))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Cosines of every query with its key (column 0) and with the queue: (B, 1 + K).

        In training mode the key network follows first, and the keys enter the queue afterwards.
        """
        q = F.normalize(self.head(pooled_features(self.encoder, query)).float(), dim=1)
        with torch.no_grad():
            if self.training:
                self._follow()
            k = self.key(key)
            queue = self._enqueue(gather_rows(k)[0]) if self.training else self.queue
        positive = (q * k).sum(dim=1, keepdim=True)
        return torch.cat([positive, cosines(q, queue)], dim=1)

    def _follow(self) -> None:
        for mine, theirs in ((self.key.encoder, self.encoder), (self.key.head, self.head)):
            for slow, fast in zip(mine.parameters(), theirs.parameters(), strict=True):
                slow.lerp_(fast, 1 - self.momentum)

    def _enqueue(self, keys: Tensor) -> Tensor:
        """Put the keys of all devices into the queue; returns it as it was before."""
        length = len(self.queue)
        check_queue(len(keys), length)
        if not self.stored:
            self.queue.copy_(keys[torch.arange(length, device=keys.device) % len(keys)])
        before = self.queue.clone()
        rows = (self.stored + torch.arange(len(keys), device=keys.device)) % length
        self.queue[rows] = keys
        self.stored.add_(len(keys))
        return before


def check_queue(keys: int, length: int) -> None:
    """Raise `MethodError` where the keys of a batch don't fit into the queue."""
    if keys > length:
        raise MethodError(f"a batch of {keys} wholes doesn't fit into a queue of {length}; raise queue")


@dataclasses.dataclass(frozen=True)
class MoCo(Discrimination):
    """Find the key of the same whole among those of many earlier ones.

    Attributes:
        temperature: t.
        momentum: m, how slowly the key encoder follows; 0 copies, near 1 is slow.
        queue: number of keys K.
        part_fraction: band (low, high) of the part's edge over the whole's edge.
        per_axis: draw the fraction for every axis.
        features: length of q and k.
    """

    citation: ClassVar[str] = (
        "He, Fan, Wu, Xie, Girshick: Momentum Contrast for Unsupervised Visual Representation Learning. "
        "CVPR 2020, arXiv:1911.05722; Chen, Fan, Girshick, He: Improved Baselines with Momentum Contrastive "
        "Learning. 2020, arXiv:2003.04297"
    )
    temperature: float = 0.2
    momentum: float = 0.99
    queue: int = 4096
    part_fraction: tuple[float, float] = (0.4, 0.7)
    per_axis: bool = True
    features: int = 128

    def __post_init__(self) -> None:
        check_band(self.part_fraction)
        check_temperature(self.temperature)
        if not 0 <= self.momentum < 1:
            raise MethodError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if self.queue < 1:
            raise MethodError(f"queue must be at least 1, got {self.queue}")

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        """Query and key network, and a queue of random unit vectors."""
        encoder = network.build_encoder(in_channels)
        return MomentumContrast(encoder, features=self.features, queue=self.queue, momentum=self.momentum)

    def check_batch(self, wholes: int) -> None:
        """Its keys must fit into the queue."""
        check_queue(wholes, self.queue)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        """``query`` and ``key``: a part of every whole each, (B, C, D, H, W)."""
        parts = cut_parts(wholes, generator, fraction=self.part_fraction, per_axis=self.per_axis, count=2)
        return {"query": parts[0::2], "key": parts[1::2]}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Cross-entropy of the true key, and the share of queries that find it."""
        logits = module(views["query"], views["key"]) / self.temperature
        target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        accuracy = (logits.detach().argmax(dim=1) == 0).float().mean()
        return {"loss": F.cross_entropy(logits, target), "accuracy": accuracy}

    def candidates(self, wholes: int) -> int:
        """The key and the queue."""
        return 1 + self.queue
