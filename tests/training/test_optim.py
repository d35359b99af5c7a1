"""Learning rates by hand, and which parameters get which share of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from parts2whole.networks.heads import PooledClassifier
from parts2whole.networks.swin_unetr import SwinUNETR
from parts2whole.training.optim import (
    AdamW,
    Cosine,
    Optimiser,
    OptimiserError,
    Plateau,
    Sawtooth,
    parameter_groups,
    set_rates,
)


def test_cosine_by_hand():
    schedule = Cosine(warmup_fraction=0.2, final_fraction=0.1)
    factors = [schedule.factor(step, steps=20, values=()) for step in range(20)]
    # Four steps of warm-up rise by fifths, so that the fifth step is the first at the full rate.
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    # Then 0.1 + 0.9 (1 + cos(pi k / 16)) / 2 at k steps after: cos(pi / 4) = 0.70711, cos(pi / 2) = 0.
    assert factors[8] == pytest.approx(0.1 + 0.45 * 1.7071068)
    assert factors[12] == pytest.approx(0.55)
    assert factors[16] == pytest.approx(0.1 + 0.45 * 0.2928932)
    assert factors[19] == pytest.approx(0.1 + 0.45 * 0.0192147, abs=1e-7)
    assert schedule.factor(20, steps=20, values=()) == pytest.approx(0.1)


def test_without_warm_up_a_cosine_begins_at_the_full_rate():
    schedule = Cosine(warmup_fraction=0.0, final_fraction=0.0)
    assert [schedule.factor(step, steps=2, values=()) for step in (0, 1)] == pytest.approx([1.0, 0.5])
    assert schedule.factor(0, steps=1, values=()) == 1.0


def test_a_warm_up_that_ends_within_a_step_counts_it():
    schedule = Cosine(warmup_fraction=0.25, final_fraction=0.0)  # 2.5 of 10 steps
    factors = [schedule.factor(step, steps=10, values=()) for step in range(3)]
    assert factors == pytest.approx([1 / 3.5, 2 / 3.5, 3 / 3.5])


def test_plateau_halves_the_rate_when_nothing_improves():
    schedule = Plateau(decay=0.5, patience=2, min_delta=0.0)
    values: list[float] = []
    factors = []
    for value in [5, 4, 4, 4, 4, 4, 4, 3, 3]:
        values.append(value)
        factors.append(schedule.factor(0, steps=100, values=values))
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("values", [[0.0] * 9, [math.nan] * 9, [math.inf] * 9])
def test_an_undefined_or_tied_value_is_no_plateau(values):
    schedule = Plateau(decay=0.5, patience=2, min_delta=0.0)
    assert schedule.factor(0, steps=100, values=values) == 1
    assert schedule.factor(0, steps=100, values=[*values, -1.0]) == 1


def test_sawtooth_by_hand():
    schedule = Sawtooth(first_fraction=0.3, warmup_fraction=0.2, power=2.0)
    factors = [schedule.factor(step, steps=10, values=()) for step in range(10)]
    # Three steps up and down, two of warm-up, then (1 - k / 5) squared at k steps after.
    assert factors == pytest.approx([0.5, 1, 0.5, 1 / 3, 2 / 3, 1, 0.64, 0.36, 0.16, 0.04])
    waits = [schedule.encoder_factor(step, steps=10, values=()) for step in range(10)]
    assert waits == [0, 0, 0, *factors[3:]]


@pytest.mark.parametrize("wrong", [{"first_fraction": 1.0}, {"warmup_fraction": 0.95}, {"power": 0.0}])
def test_a_sawtooth_that_never_gets_there_is_refused(wrong):
    with pytest.raises(OptimiserError, match=next(iter(wrong))):
        Sawtooth(**wrong)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.head = nn.Linear(3, 1)


def test_groups_scale_the_encoder_and_spare_biases_from_decay():
    module = Small()
    groups = parameter_groups(module, encoder_scale=0.5, encoder_from_step=7)
    kinds = {(g["scale"], g["from_step"], g.get("weight_decay")): len(g["params"]) for g in groups}
    assert kinds == {(0.5, 7, None): 1, (0.5, 7, 0.0): 1, (1.0, 0, None): 1, (1.0, 0, 0.0): 1}


def test_an_encoder_that_waited_rises_over_as_many_steps():
    module = Small()
    optimiser = AdamW().build(parameter_groups(module, encoder_from_step=3))
    rates = []
    for step in range(8):
        set_rates(optimiser, 1.0, step)
        rates.append({group["from_step"]: group["lr"] for group in optimiser.param_groups})
    assert [rate[3] for rate in rates] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])
    assert {rate[0] for rate in rates} == {1.0}


def test_a_schedule_may_treat_the_encoder_apart():
    module = Small()
    optimiser = AdamW().build(parameter_groups(module, encoder_scale=0.5, encoder_apart=True))
    set_rates(optimiser, 1.0, 0, encoder_rate=0.2)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in module.encoder.parameters()} == {0.1}
    assert {rates[id(p)] for p in module.head.parameters()} == {1.0}
    assert Sawtooth().treats_encoder_apart
    assert not Cosine().treats_encoder_apart


def test_an_optimiser_is_a_spec():
    assert isinstance(AdamW(), Optimiser)
    assert AdamW(lr=1e-4).digest() != AdamW().digest()


def test_levels_that_an_encoder_does_not_name_cannot_learn_at_rates_of_their_own():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(2, 2)

    assert {group["scale"] for group in parameter_groups(Flat())} == {1.0}
    with pytest.raises(
        OptimiserError, match="layer_decay needs an encoder with levels, and Linear names none"
    ):
        parameter_groups(Flat(), layer_decay=0.8)


@pytest.mark.parametrize("v2", [False, True])
def test_a_swin_transformer_decays_by_stage(v2):
    with torch.device("meta"):
        encoder = SwinUNETR(feature_size=12, v2=v2).build_encoder(1)
    groups = parameter_groups(PooledClassifier(encoder, classes=2), layer_decay=0.5)
    rates = {id(p): group["scale"] for group in groups for p in group["params"]}
    assert {rates[id(p)] for p in encoder.swinViT.patch_embed.parameters()} == {0.5**4}
    assert {rates[id(p)] for p in encoder.swinViT.layers4.parameters()} == {1.0}
    assert {rates[id(p)] for p in encoder.swinViT.layers1.parameters()} == {0.5**3}
