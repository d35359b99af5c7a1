"""Optimisers and schedules as specs, and what share of the learning rate each parameter gets.

A schedule is a pure function of the step and of the validation values so far: it has no state to lose,
so a resumed run is at the same learning rate.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from parts2whole.errors import Parts2WholeError
from parts2whole.spec import Spec
from parts2whole.training.choice import informative


class OptimiserError(Parts2WholeError, ValueError):
    """An optimiser or schedule setting that makes no sense."""


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise OptimiserError(f"{name} must be {expected}, got {value}")


@dataclasses.dataclass(frozen=True)
class Optimiser(Spec, abc.ABC):
    """How gradients move parameters."""

    @property
    @abc.abstractmethod
    def base_lr(self) -> float:
        """Learning rate before schedule and parameter-group scale."""

    @abc.abstractmethod
    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """The torch optimiser over parameter groups."""


@dataclasses.dataclass(frozen=True)
class AdamW(Optimiser):
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Attributes:
        lr: peak learning rate.
        weight_decay: decoupled weight decay, not applied to biases and norms.
        betas: decay rates of the moment estimates.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        _check("lr", self.lr, self.lr > 0, "above 0")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        _check("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "two values in [0, 1)")

    @property
    def base_lr(self) -> float:
        """Peak learning rate."""
        return self.lr

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.AdamW."""
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay, betas=self.betas)


@dataclasses.dataclass(frozen=True)
class SGD(Optimiser):
    """Stochastic gradient descent with momentum.

    Attributes:
        lr: learning rate.
        momentum: momentum.
        weight_decay: L2 penalty.
    """

    lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("lr", self.lr, self.lr > 0, "above 0")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        _check("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")

    @property
    def base_lr(self) -> float:
        """Learning rate."""
        return self.lr

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.SGD."""
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclasses.dataclass(frozen=True)
class Schedule(Spec, abc.ABC):
    """How the learning rate changes over a run."""

    @abc.abstractmethod
    def factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """Multiplier of the base rate at ``step`` of ``steps``, after validation ``values`` (low is good)."""

    def encoder_factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """The same for the encoder; here as for everything else."""
        return self.factor(step, steps=steps, values=values)

    @property
    def treats_encoder_apart(self) -> bool:
        """Whether the encoder has a rate of its own."""
        return type(self).encoder_factor is not Schedule.encoder_factor


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """Always the base rate."""

    def factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """One."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Linear warm-up, then half a cosine down (Loshchilov and Hutter 2017, arXiv 1608.03983).

    Attributes:
        warmup_fraction: share of the steps spent rising from zero.
        final_fraction: rate at the end, relative to the peak.
    """

    warmup_fraction: float = 0.05
    final_fraction: float = 0.01

    def __post_init__(self) -> None:
        _check("warmup_fraction", self.warmup_fraction, 0 <= self.warmup_fraction <= 1, "in [0, 1]")
        _check("final_fraction", self.final_fraction, self.final_fraction >= 0, "0 or more")

    def factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """Rises over the warm-up, then falls along a cosine."""
        warmup = self.warmup_fraction * steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1.0, steps - warmup))
        return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * done))


@dataclasses.dataclass(frozen=True)
class Sawtooth(Schedule):
    """Two ramps: what is new learns alone, then everything together, so that noise of a fresh decoder
    doesn't wash out what the encoder has learned.

    As in the fine-tuning of OpenMind (Wald et al. 2024, arXiv 2412.17041): the first ramp goes up over half
    of its share and down over the other half; the second goes up, then down as a power.

    Attributes:
        first_fraction: share of the steps in which the encoder stays as it is.
        warmup_fraction: share of the steps spent rising in the second ramp.
        power: exponent of the fall, ``(1 - done) ** power``.
    """

    first_fraction: float = 0.1
    warmup_fraction: float = 0.1
    power: float = 0.9

    def __post_init__(self) -> None:
        _check("first_fraction", self.first_fraction, 0 <= self.first_fraction < 1, "in [0, 1)")
        both = self.first_fraction + self.warmup_fraction
        _check(
            "warmup_fraction",
            self.warmup_fraction,
            self.warmup_fraction >= 0 and both < 1,
            "0 or more, and both shares below 1",
        )
        _check("power", self.power, self.power > 0, "above 0")

    def factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """A triangle, then a rise and a fall."""
        first = round(self.first_fraction * steps)
        if step < first:
            middle = (first + 1) / 2
            return 1 - abs(step + 1 - middle) / middle
        warmup = self.warmup_fraction * steps
        if step - first < warmup:
            return (step - first + 1) / (warmup + 1)
        done = min(1.0, (step - first - warmup) / max(1.0, steps - first - warmup))
        return float((1 - done) ** self.power)

    def encoder_factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """Zero during the first ramp."""
        waits = step < round(self.first_fraction * steps)
        return 0.0 if waits else self.factor(step, steps=steps, values=values)


@dataclasses.dataclass(frozen=True)
class Plateau(Schedule):
    """Multiply the rate when the validation value stops improving.

    A value that is undefined, or has always been the same, is no plateau.

    Attributes:
        decay: multiplier at every plateau.
        patience: validations without improvement before it acts.
        min_delta: smallest change that counts as an improvement.
    """

    decay: float = 0.5
    patience: int = 10
    min_delta: float = 1e-4

    def __post_init__(self) -> None:
        _check("decay", self.decay, 0 < self.decay <= 1, "in (0, 1]")
        _check("patience", self.patience, self.patience >= 0, "0 or more")

    def factor(self, step: int, *, steps: int, values: Sequence[float]) -> float:
        """``decay`` to the number of plateaus so far."""
        factor, best, waited = 1.0, math.inf, 0
        for value in informative(values):
            if value < best - self.min_delta:
                best, waited = value, 0
                continue
            waited += 1
            if waited > self.patience:
                factor, waited = factor * self.decay, 0
        return factor


PRESETS: dict[str, tuple[Optimiser, Schedule]] = {
    "modern": (AdamW(), Cosine()),
    "genesis": (SGD(lr=1.0, momentum=0.9), Plateau()),
}
"""``genesis``: SGD, rate 1, momentum 0.9, plateau x 0.5, as in the public code of Models Genesis."""


def choose_optimiser(
    preset: str, optimiser: Optimiser | None, schedule: Schedule | None
) -> tuple[Optimiser, Schedule]:
    """The preset's pair, with what was given explicitly in its place.

    Raises:
        OptimiserError: there is no such preset.
    """
    if preset not in PRESETS:
        raise OptimiserError(f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}")
    default_optimiser, default_schedule = PRESETS[preset]
    return optimiser or default_optimiser, schedule or default_schedule


def parameter_groups(
    module: nn.Module,
    *,
    encoder_scale: float = 1.0,
    layer_decay: float = 1.0,
    encoder_from_step: int = 0,
    encoder_apart: bool = False,
) -> list[dict[str, Any]]:
    """Groups with a ``scale`` of the learning rate and no weight decay on biases and norms.

    Args:
        module: has the pre-trained part in its attribute ``encoder``.
        encoder_scale: learning rate of the encoder relative to the rest.
        layer_decay: each encoder level learns this much slower than the next deeper one.
        encoder_from_step: step from which the encoder learns at all; it then rises over as many steps.
        encoder_apart: the encoder is in groups of its own, for a schedule that treats it apart.

    Returns:
        One group for every combination that occurs; parameters that need no gradient are in none.

    Raises:
        OptimiserError: levels that learn more slowly, of an encoder that names no levels.
    """
    encoder = getattr(module, "encoder", None)
    depth_of: dict[int, int] = {}
    if isinstance(encoder, nn.Module):
        levels = getattr(encoder, "levels", None) or [encoder]
        if layer_decay != 1 and len(levels) < 2:
            raise OptimiserError(
                f"layer_decay needs an encoder with levels, and {type(encoder).__name__} names none"
            )
        for level, part in enumerate(levels):
            depth_of |= {id(p): len(levels) - 1 - level for p in part.parameters()}
        for p in encoder.parameters():
            depth_of.setdefault(id(p), len(levels) - 1)
    groups: dict[tuple[bool, float, int, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        inside = id(parameter) in depth_of
        scale = encoder_scale * layer_decay ** depth_of[id(parameter)] if inside else 1.0
        start = encoder_from_step if inside else 0
        groups.setdefault((inside and encoder_apart, scale, start, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "encoder": apart, "scale": scale, "from_step": start}
        | ({} if decays else {"weight_decay": 0.0})
        for (apart, scale, start, decays), parameters in groups.items()
    ]


def set_rates(
    optimiser: torch.optim.Optimizer, rate: float, step: int, *, encoder_rate: float | None = None
) -> None:
    """Set every group's learning rate: ``rate`` times its scale, or that of the encoder.

    Before its first step a group has none; then it rises over as many steps as the group has waited.
    """
    for group in optimiser.param_groups:
        base = encoder_rate if encoder_rate is not None and group.get("encoder") else rate
        risen = min(1.0, (step - group["from_step"] + 1) / (group["from_step"] + 1))
        group["lr"] = base * group["scale"] * max(0.0, risen)
