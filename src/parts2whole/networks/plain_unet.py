"""The plain U-Net that nnU-Net plans: two units a stage, strided convolutions, instance norm, leaky ReLU.

F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation", Nature Methods 18, 2021, https://doi.org/10.1038/s41592-020-01008-z.  Pre-train this one to
go on in nnU-Net: its weights can be exported as they are.  MONAI's DynUNet is the same network.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from parts2whole.networks.base import Network, Stride
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.published import JoiningDecoder, NamedEncoder

SLOPE = 0.01


@dataclasses.dataclass(frozen=True)
class PlainUNet3D(Network):
    """Plain convolutional U-Net; its fields are those of an nnU-Net plan.

    Attributes:
        widths: ``features_per_stage``, finest first.
        strides: ``strides`` (z, y, x) of every stage; the first is 1.
        kernels: ``kernel_sizes`` (z, y, x) of every stage; one is used for all.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 320)
    strides: tuple[Stride, ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    kernels: tuple[Stride, ...] = ((3, 3, 3),)

    def __post_init__(self) -> None:
        stages = len(self.widths)
        if stages < 2 or len(self.strides) != stages or len(self.kernels) not in (1, stages):
            raise NetworkError(
                f"expected as many strides as the {stages} widths, and as many kernels or one; got "
                f"{len(self.strides)} strides, {len(self.kernels)} kernels"
            )
        if tuple(self.strides[0]) != (1, 1, 1):
            raise NetworkError(f"the first stride must be 1, 1, 1, got {self.strides[0]}")
        if any(edge % 2 == 0 for kernel in self.kernels for edge in kernel):
            raise NetworkError(f"kernels must be odd, got {self.kernels}")

    def all_kernels(self) -> tuple[Stride, ...]:
        """One kernel a stage."""
        return self.kernels * len(self.widths) if len(self.kernels) == 1 else self.kernels

    def build_encoder(self, in_channels: int) -> PlainEncoder:
        """A freshly initialised encoder."""
        return PlainEncoder(in_channels, self)

    def build_own(self, in_channels: int, out_channels: int) -> PlainDecoder:
        """The decoder of the same plan."""
        return PlainDecoder(self, out_channels)


class Unit(nn.Sequential):
    """Convolution with bias, instance norm, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Stride, stride: Stride) -> None:
        z, y, x = (edge // 2 for edge in kernel)
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=(z, y, x)),
            nn.InstanceNorm3d(out_channels, eps=1e-5, affine=True),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class PlainEncoder(NamedEncoder):
    """Contracting path; see `PlainUNet3D`."""

    def __init__(self, in_channels: int, network: PlainUNet3D) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(network.widths)
        self.norm = "instance"
        self.level_names = tuple(f"stage{number}" for number in range(len(self.channels)))
        self.input_axes = {"levels.0.0.0.weight": 1}
        self.levels = nn.ModuleList()
        below, total, strides = in_channels, (1, 1, 1), []
        for width, stride, kernel in zip(network.widths, network.strides, network.all_kernels(), strict=True):
            units = Unit(below, width, kernel, stride), Unit(width, width, kernel, (1, 1, 1))
            self.levels.append(nn.Sequential(*units))
            below = width
            total = (total[0] * stride[0], total[1] * stride[1], total[2] * stride[2])
            strides.append(total)
        self.strides = tuple(strides)

    def forward_endpoints(self, x: Tensor) -> dict[str, Tensor]:
        """``stage0`` to the deepest."""
        found: dict[str, Tensor] = {}
        for name, level in zip(self.level_names, self.levels, strict=True):
            x = level(x)
            found[name] = x
        return found


class PlainDecoder(JoiningDecoder):
    """Expanding path: a transposed convolution to the width of the skip, which follows it, and two units."""

    def __init__(self, network: PlainUNet3D, out_channels: int) -> None:
        super().__init__()
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        kernels = network.all_kernels()
        for level in range(len(network.widths) - 1, 0, -1):
            below, skip = network.widths[level], network.widths[level - 1]
            stride, kernel = network.strides[level], kernels[level - 1]
            self.ups.append(nn.ConvTranspose3d(below, skip, stride, stride=stride))
            units = Unit(2 * skip, skip, kernel, (1, 1, 1)), Unit(skip, skip, kernel, (1, 1, 1))
            self.stages.append(nn.Sequential(*units))
        self.classes = nn.Conv3d(network.widths[0], out_channels, 1)
