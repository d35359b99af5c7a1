"""Parts2Whole that also asks for alignment: its rebuilding, and a contrastive loss on the bottleneck map.

Rebuilding: Feng et al., DART 2020, https://doi.org/10.1007/978-3-030-60548-3_9 (see `parts2whole`); the
contrastive loss: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML
2020, https://arxiv.org/abs/2002.05709 (see `simclr`).

The idea.  Parts2Whole says that parts of a whole come together by themselves, as all of them must give the
same picture.  Others found that alignment must be asked for (https://arxiv.org/abs/2509.13846).  Here is
Parts2Whole with both: the map that the decoder gets, z, must also find the one of another part of its whole
in the batch.  Comparing it with Parts2Whole, by the monitor and by fine-tuning, tells who is right.

    z = normalised E(part), in 2 x 2 x 2 means
    loss = mean (sigmoid(D(E(part))) - W)^2 + w NT-Xent(z)

What is ours: all of it, as no paper is followed.  There is no projection head, since it is the bottleneck map
itself that is said to be aligned, and that the monitor looks at.  w = 0.01 brings both terms to one order of
size (squared errors here are 0.02 to 0.05, and guessing among 15 parts costs 2.7); it was not tuned.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.methods.base import MethodError, Views
from parts2whole.methods.contrast import check_others, check_parts, check_temperature, contrast_parts
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.repeatable import average_cells


@dataclasses.dataclass(frozen=True)
class Parts2WholeContrast(Parts2Whole):
    """Rebuild a whole from its parts, whose bottleneck maps must find each other in the batch.

    Attributes:
        parts_per_whole: parts cut from every whole in the batch, at least 2.
        contrast_weight: w, weight of the contrastive loss; 0 only logs it.
        temperature: of the contrastive loss.
    """

    citation: ClassVar[str] = (
        f"{Parts2Whole.citation}; with the loss of Chen, Kornblith, Norouzi, Hinton: A Simple Framework for "
        "Contrastive Learning of Visual Representations. ICML 2020, arXiv:2002.05709"
    )
    rows_are_independent: ClassVar[bool] = False
    parts_per_whole: int = 2
    contrast_weight: float = 0.01
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature(self.temperature)
        check_parts(self.parts_per_whole)
        if not self.contrast_weight >= 0:
            raise MethodError(f"contrast_weight must be 0 or more, got {self.contrast_weight}")

    def check_batch(self, wholes: int) -> None:
        """There must be parts of other wholes to tell from."""
        check_others(wholes)

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        """Both losses (``reconstruction``, ``contrast``), and the share of parts that find one of theirs."""
        encoder, decoder, head = (module.get_submodule(name) for name in ("encoder", "decoder", "head"))
        pyramid = encoder(views["part"])
        rebuilding = self.error(torch.sigmoid(head(decoder(pyramid)).float()), views)
        z = F.normalize(average_cells(pyramid[-1].float(), 2).flatten(1), dim=1)
        contrast, accuracy = contrast_parts(
            z,
            training=module.training,
            parts_per_whole=self.parts_per_whole,
            temperature=self.temperature,
        )
        return {
            "loss": rebuilding + self.contrast_weight * contrast,
            "reconstruction": rebuilding,
            "contrast": contrast,
            "accuracy": accuracy,
        }
