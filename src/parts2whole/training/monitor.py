"""Does it learn contrastive features? Watched on fixed parts of fixed held-out wholes, and never trained on.

Whatever the method, the same parts are embedded at every validation: several of every whole, cut as
Parts2Whole cuts them. They are compared by the bottleneck map, which is what Parts2Whole compels to be alike
(``map_`` before the names of its figures), and by its global average (names as in version 0.1.0). The cost is
one forward pass of the encoder over at most `WHOLES` x `PARTS` parts a validation, without gradients: about
a third of a training step of as many wholes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parts2whole.evaluation.contrast import ContrastError, contrast_monitors, name_both
from parts2whole.networks.base import Encoder
from parts2whole.training.encode import embed_map
from parts2whole.training.runtime import Runtime
from parts2whole.wholes.geometry import cut_parts
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Whole

WHOLES, PARTS = 24, 4
BAND = (0.4, 0.7)
"""Edge of a part over the edge of its whole: the default of Parts2Whole, for every method alike."""


class ContrastMonitor:
    """Embeds fixed parts and measures how they lie.

    Args:
        drawn: held-out wholes; no two that are the same, and those of different scans first, are taken.
        wholes: their voxels (C, D, H, W), in the same order.
        seed: of the parts.
        batch_size: wholes whose parts are embedded at once.
        runtime: device and precision.
    """

    def __init__(
        self,
        drawn: Sequence[Whole],
        wholes: Sequence[Tensor],
        *,
        seed: int,
        batch_size: int,
        runtime: Runtime,
    ) -> None:
        self.runtime = runtime
        self.parts: list[Tensor] = []
        chosen = choose_distinct(drawn, WHOLES)
        self.wholes = len(chosen)
        if self.wholes < 2:
            return
        for first in range(0, len(chosen), batch_size):
            batch = torch.stack([wholes[i] for i in chosen[first : first + batch_size]])
            generator = BatchGenerator.of_step(seed, "monitored parts", first, rows=len(batch))
            self.parts.append(cut_parts(batch, generator, fraction=BAND, count=PARTS))

    def __call__(self, module: nn.Module) -> dict[str, float]:
        """`contrast_monitors` of map and average; nothing with fewer than two different wholes."""
        encoder = getattr(module, "encoder", None)
        if not self.parts or not isinstance(encoder, Encoder):
            return {}
        embedded = embed_map(encoder, self.parts, self.runtime)
        try:
            return name_both(*(contrast_monitors(z.reshape(self.wholes, PARTS, -1)) for z in embedded))
        except ContrastError:  # embeddings that aren't finite; the loop stops at the loss itself
            return {}


def choose_distinct(drawn: Sequence[Whole], most: int) -> list[int]:
    """Places of at most ``most`` wholes, no two the same, one of every scan before a second of any."""
    turns: dict[str, int] = {}
    ranked = []
    for place, whole in enumerate(drawn):
        if whole not in drawn[:place]:
            turn = turns[whole.case_id] = turns.get(whole.case_id, -1) + 1
            ranked.append((turn, place))
    return [place for _, place in sorted(ranked)[:most]]
