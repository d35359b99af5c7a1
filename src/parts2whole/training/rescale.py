"""Brings the scale of trained weights back to that of fresh ones, where a normalisation follows.

A convolution that is followed by a normalisation gives the same map whatever the scale of its weights, but an
optimiser's step is relative to it: weights that have grown in pre-training learn that much more slowly than
fresh ones at the same rate.  This leaves the function as it is, and gives every arm steps of equal size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

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
    """Convolutions whose output goes into a normalisation and nowhere else, by name, with it.

    Found by a forward pass.  Of an output that is also added to another, past the normalisation, the scale
    counts.
    """
    uses = _Uses()
    made: dict[int, tuple[str, nn.Conv3d, Tensor]] = {}
    found: dict[str, tuple[nn.Conv3d, nn.Module]] = {}

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        uses.counting = False
        if id(inputs[0]) in made:
            name, convolution, _ = made[id(inputs[0])]
            found[name] = convolution, norm

    def leave(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        uses.counting = True

    def keep(name: str) -> object:
        def hook(convolution: nn.Conv3d, _: object, output: Tensor) -> None:
            made[id(output)] = name, convolution, output  # held, so that no other tensor gets its id
            uses.tensors.discard(id(output))  # which another may have had

        return hook

    hooks = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv3d):
            hooks.append(module.register_forward_hook(keep(name)))  # type: ignore[arg-type]
        elif isinstance(module, _BatchNorm | _InstanceNorm | nn.GroupNorm):
            hooks += [module.register_forward_pre_hook(take), module.register_forward_hook(leave)]
    training = encoder.training
    encoder.eval()
    try:
        with uses:
            encoder(torch.rand(1, encoder.in_channels, *(2 * encoder.divisor,) * 3))
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    elsewhere = {name for key, (name, _, _) in made.items() if key in uses.tensors}
    return {name: unit for name, unit in found.items() if name not in elsewhere}


class _Uses(TorchFunctionMode):
    """Remembers by id which tensors others are computed from, while ``counting``."""

    def __init__(self) -> None:
        self.counting = True
        self.tensors: set[int] = set()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if self.counting and any(isinstance(one, Tensor) for one in tree_leaves(made)):
            self.tensors |= {id(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        return made
