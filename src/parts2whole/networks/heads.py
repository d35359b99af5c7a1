"""Whole models: an encoder with what a pretext or target task puts on it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.networks.base import Encoder, Own
from parts2whole.networks.blocks import build_decoder
from parts2whole.networks.repeatable import enlarge
from parts2whole.scans.volume import size_of
from parts2whole.shapes import Float


class Model(nn.Module):
    """A module on top of an encoder.

    Attributes:
        encoder: the part that is pre-trained and transferred.
        encoder_frozen: the encoder stays in eval mode, so that its running statistics don't move either.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_frozen = False

    def freeze_encoder(self) -> None:
        """Train only what is on top of the encoder from now on."""
        self.encoder.requires_grad_(False)
        self.encoder_frozen = True
        self.encoder.eval()

    def train(self, mode: bool = True) -> Model:
        """Training mode, but not for a frozen encoder."""
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
        return self


class EncoderDecoder(Model):
    """Encoder, decoder and a 1 x 1 x 1 convolution: (B, C, D, H, W) to (B, out_channels, D, H, W).

    Serves reconstruction (sigmoid outside) and segmentation (softmax outside).
    """

    def __init__(self, encoder: Encoder, *, out_channels: int, skips: bool, width: int | None = None) -> None:
        super().__init__(encoder)
        self.decoder = build_decoder(encoder, skips=skips, width=width)
        self.head = nn.Conv3d(self.decoder.out_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b out d h w"]:
        """Logits at input resolution."""
        logits: Tensor = self.head(self.decoder(self.encoder(x)))
        return logits


class LinearDecoder(Model):
    """Encoder and one linear map of all its levels: (B, C, D, H, W) to (B, classes, D, H, W).

    Every level has its 1 x 1 x 1 convolution, which commutes with the interpolation to input resolution.
    """

    def __init__(self, encoder: Encoder, *, classes: int) -> None:
        super().__init__(encoder)
        self.heads = nn.ModuleList(nn.Conv3d(width, classes, 1) for width in encoder.channels)

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b classes d h w"]:
        """Logits at input resolution."""
        maps = [head(level) for head, level in zip(self.heads, self.encoder(x), strict=True)]
        return torch.stack([m if size_of(m) == size_of(x) else enlarge(m, size_of(x)) for m in maps]).sum(0)


class OwnDecoder(Model):
    """Encoder and the decoder it was published with: (B, C, D, H, W) to (B, classes, D, H, W).

    Logits at a lower resolution are interpolated to that of the input.
    """

    def __init__(self, encoder: Encoder, own: Own) -> None:
        super().__init__(encoder)
        self.decoder = own

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b classes d h w"]:
        """Logits at input resolution."""
        logits: Tensor = self.decoder(self.encoder(x))
        if logits.shape[2:] == x.shape[2:]:
            return logits
        return enlarge(logits, size_of(x))


class PooledClassifier(Model):
    """Encoder, global average pooling of its deepest map, and a head: (B, C, D, H, W) to (B, classes)."""

    def __init__(self, encoder: Encoder, *, classes: int, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__(encoder)
        width = encoder.channels[-1]
        layers: list[nn.Module] = [nn.AdaptiveAvgPool3d(1), nn.Flatten()]
        if hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        if dropout:
            layers.append(nn.Dropout(dropout))
        self.head = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b classes"]:
        """Class logits."""
        logits: Tensor = self.head(self.encoder(x)[-1])
        return logits


def pooled_features(encoder: Encoder, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b features"]:
    """Global average of the deepest map: (B, C, D, H, W) to (B, channels[-1])."""
    pooled: Tensor = encoder(x)[-1].mean(dim=(2, 3, 4))
    return pooled


def bottleneck_features(encoder: Encoder, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b 9 features"]:
    """The bottleneck map in 2 x 2 x 2 means, and after these its global average: (B, 9, channels[-1]).

    The map is what a decoder without skip connections gets. Instance norm makes its average nearly constant.
    """
    deepest: Tensor = encoder(x)[-1].float()
    cells = [F.adaptive_avg_pool3d(deepest, cells).flatten(2) for cells in (2, 1)]
    return torch.cat(cells, dim=2).transpose(1, 2)
