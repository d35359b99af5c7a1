"""UNet3D of parts2whole as nnU-Net builds networks: plain PyTorch, to lie on the PYTHONPATH of nnU-Net."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class UNet3D(nn.Module):
    """Four levels of two units, max-pooling between them, transposed convolutions back.

    Args:
        input_channels: of the image.
        num_classes: channels of the logits.
        width: of the finest level; every further level doubles it.
        norm: ``batch``, ``instance``, ``group`` or ``none``.
        strides: of every level; nnU-Net reads them in the plan, the network has these alone.
        deep_supervision: give logits at every resolution but the coarsest, finest first.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        width: int,
        norm: str,
        strides: Any,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if [list(stride) for stride in strides] != [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]:
            raise ValueError(f"UNet3D has strides 1, 2, 2, 2 along every axis, the plan says {strides}")
        widths = [width * 2**level for level in range(4)]
        self.encoder = _Encoder(input_channels, widths, norm)
        self.decoder = _Decoder(widths, num_classes, norm, deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, C, D, H, W) to logits, or a list of them."""
        found: Tensor | list[Tensor] = self.decoder(self.encoder(x))
        return found


class _Encoder(nn.Module):
    def __init__(self, channels: int, widths: list[int], norm: str) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for width in widths:
            self.levels.append(
                nn.Sequential(_unit(channels, width // 2, norm), _unit(width // 2, width, norm))
            )
            channels = width
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for level in self.levels:
            maps.append(level(self.pool(maps[-1]) if maps else x))
        return maps


class _Decoder(nn.Module):
    def __init__(self, widths: list[int], classes: int, norm: str, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision  # nnU-Net's trainers switch it
        self.ups, self.units, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.ups.append(nn.ConvTranspose3d(below, below, 2, stride=2))
            self.units.append(nn.Sequential(_unit(below + width, width, norm), _unit(width, width, norm)))
            self.seg_layers.append(nn.Conv3d(width, classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        x, logits = maps[-1], []
        for up, units, layer, skip in zip(self.ups, self.units, self.seg_layers, maps[-2::-1], strict=True):
            x = units(torch.cat([up(x), skip], dim=1))
            if self.deep_supervision or layer is self.seg_layers[-1]:
                logits.append(layer(x))
        return logits[::-1] if self.deep_supervision else logits[-1]


def _unit(channels: int, width: int, norm: str) -> nn.Sequential:
    norms: dict[str, nn.Module] = {
        "batch": nn.BatchNorm3d(width),
        "instance": nn.InstanceNorm3d(width, affine=True),
        "group": nn.GroupNorm(min(8, max(1, width // 4)), width),
        "none": nn.Identity(),
    }
    return nn.Sequential(nn.Conv3d(channels, width, 3, padding=1), norms[norm], nn.ReLU(inplace=True))
