"""What contrastive methods share: unit vectors of parts, the NT-Xent loss, and gathering over devices."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from parts2whole.methods.base import MethodError
from parts2whole.networks.base import Encoder
from parts2whole.networks.heads import Model, pooled_features
from parts2whole.shapes import Float


class ProjectionHead(nn.Sequential):
    """Linear, ReLU, linear: (B, features) to (B, out); thrown away after pre-training."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, out))


class Projector(Model):
    """Encoder, global average pooling and a projection head: (B, C, D, H, W) to (B, out) unit vectors."""

    def __init__(self, encoder: Encoder, *, out: int) -> None:
        super().__init__(encoder)
        self.head = ProjectionHead(encoder.channels[-1], out)

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b features"]:
        """Unit vectors, in float32."""
        return F.normalize(self.head(pooled_features(self.encoder, x)).float(), dim=1)


def check_temperature(temperature: float) -> None:
    """Raise `MethodError` unless the temperature is positive."""
    if not temperature > 0:
        raise MethodError(f"temperature must be above 0, got {temperature}")


def check_parts(parts_per_whole: int) -> None:
    """Raise `MethodError` where a part has no other of its whole to find."""
    if parts_per_whole < 2:
        raise MethodError(f"parts_per_whole must be at least 2, got {parts_per_whole}")


def check_others(wholes: int) -> None:
    """Raise `MethodError` where a batch holds a single whole."""
    if wholes < 2:
        raise MethodError(f"a contrastive loss needs at least 2 wholes in a batch, got {wholes}")


def contrast_parts(
    z: Float[Tensor, "a f"], *, training: bool, parts_per_whole: int, temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`nt_xent` and `found_share` of unit vectors (A, F) of parts; in training among those of all devices."""
    everyone, first = gather_rows(z) if training else (z, 0)
    loss = nt_xent(z, everyone, first=first, parts_per_whole=parts_per_whole, temperature=temperature)
    share = found_share(z.detach(), everyone.detach(), first=first, parts_per_whole=parts_per_whole)
    return loss, share


def cosines(a: Float[Tensor, "a f"], b: Float[Tensor, "b f"]) -> Float[Tensor, "a b"]:
    """Products of all rows of two sets of unit vectors, in full precision: (A, F) and (B, F) to (A, B)."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T


def nt_xent(
    z: Float[Tensor, "a f"],
    everyone: Float[Tensor, "n f"],
    *,
    first: int,
    parts_per_whole: int,
    temperature: float,
) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross-entropy: every part must find the other parts of its whole.

        -mean over pairs (a, p) of parts of one whole of log(exp(a.p / t) / sum over c != a of exp(a.c / t))

    Args:
        z: (A, F) unit vectors of this device's parts.
        everyone: (N, F) unit vectors of all devices' parts; those of one whole follow each other.
        first: row of ``everyone`` at which ``z`` stands.
        parts_per_whole: 2 is the published loss.
        temperature: t.

    Raises:
        MethodError: there are no parts of other wholes to tell from.
    """
    check_others(len(everyone) // parts_per_whole)
    logits = cosines(z, everyone) / temperature
    row = first + torch.arange(len(z), device=z.device)[:, None]
    column = torch.arange(len(everyone), device=z.device)[None, :]
    log_share = logits - logits.masked_fill(row == column, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = (row // parts_per_whole == column // parts_per_whole) & (row != column)
    return -log_share[positive].mean()


def found_share(
    z: Float[Tensor, "a f"], everyone: Float[Tensor, "n f"], *, first: int, parts_per_whole: int
) -> Float[Tensor, ""]:
    """Share of the parts whose nearest other part is one of the same whole."""
    row = first + torch.arange(len(z), device=z.device)
    cosine = cosines(z, everyone).scatter(1, row[:, None], -torch.inf)
    return (cosine.argmax(dim=1) // parts_per_whole == row // parts_per_whole).float().mean()


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """The rows of all devices, in rank order, and where this device's begin; gradients flow back to all.

    Every device must hold equally many rows.  On a single device ``x`` itself.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x, 0
    return _Gather.apply(x), torch.distributed.get_rank() * len(x)  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    """Concatenates over devices; the gradient of a row is the sum of what all devices have for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        torch.distributed.all_reduce(gradient)
        rows = len(gradient) // torch.distributed.get_world_size()
        return gradient[torch.distributed.get_rank() * rows :][:rows]
