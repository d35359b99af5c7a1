"""Brings the scale of trained weights back to that of fresh ones, where a normalisation follows.

A convolution that is followed by a normalisation gives the same map whatever the scale of its weights, but an
optimiser's step is relative to it: weights that have grown in pre-training learn that much more slowly than
fresh ones at the same rate.  This leaves the function as it is, and gives every arm steps of equal size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from parts2whole.networks.base import Encoder


@torch.no_grad()
def match_scale(trained: Encoder, fresh: Encoder) -> dict[str, float]:
    """Give convolutions that a normalisation follows the norm of those of a fresh encoder, in place.

    Args:
        trained: an encoder on the CPU.
        fresh: the same, freshly initialised.

    Returns:
        The norm of the weights before, as a multiple of that of fresh ones, by name; a convolution whose
        weights are all zero is left alone.
    """
    others = dict(fresh.named_modules())
    found: dict[str, float] = {}
    for name, (convolution, norm) in normalised_convolutions(trained).items():
        ratio = float(convolution.weight.norm() / others[name].get_parameter("weight").norm())
        if not ratio > 0:
            continue
        found[name] = ratio
        convolution.weight /= ratio
        if convolution.bias is not None:
            convolution.bias /= ratio
        if isinstance(norm, _BatchNorm | _InstanceNorm) and norm.running_mean is not None:
            norm.running_mean.div_(ratio)
            norm.get_buffer("running_var").div_(ratio**2)
    return found


@torch.no_grad()
def normalised_convolutions(encoder: Encoder) -> dict[str, tuple[nn.Conv3d, nn.Module]]:
    """Convolutions whose output goes into a normalisation, by name, with it; found by a forward pass."""
    made: dict[int, tuple[str, nn.Conv3d, Tensor]] = {}
    found: dict[str, tuple[nn.Conv3d, nn.Module]] = {}

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            name, convolution, _ = made[id(inputs[0])]
            found[name] = convolution, norm

    def keep(name: str) -> object:
        def hook(convolution: nn.Conv3d, _: object, output: Tensor) -> None:
            made[id(output)] = name, convolution, output  # held, so that no other tensor gets its id

        return hook

    hooks = [
        module.register_forward_hook(keep(name))  # type: ignore[arg-type]
        if isinstance(module, nn.Conv3d)
        else module.register_forward_pre_hook(take)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv3d | _BatchNorm | _InstanceNorm | nn.GroupNorm)
    ]
    training = encoder.training
    encoder.eval()
    try:
        encoder(torch.rand(1, encoder.in_channels, *(2 * encoder.divisor,) * 3))
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return found
