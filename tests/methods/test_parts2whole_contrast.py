from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from parts2whole.methods.base import MethodError
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.methods.parts2whole_contrast import Parts2WholeContrast
from parts2whole.networks.unet3d import UNet3D
from parts2whole.wholes.random import BatchGenerator

SIZE = (16, 16, 32)


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return Parts2WholeContrast().build(UNet3D("tiny", norm="group"), in_channels=1, whole_size=SIZE)


def views(method: Parts2Whole, wholes: int = 3) -> dict[str, torch.Tensor]:
    seen = torch.rand(wholes, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    return method.views(seen, BatchGenerator.of_step(0, rows=wholes))


def test_it_is_parts2whole_but_for_the_second_loss(module):
    method, plain = Parts2WholeContrast(contrast_weight=0), Parts2Whole(parts_per_whole=2)
    shared = {field.name for field in dataclasses.fields(Parts2Whole)} - {"parts_per_whole"}
    assert all(getattr(method, name) == getattr(Parts2Whole(), name) for name in shared)
    found, expected = views(method), views(plain)
    assert all(torch.equal(view, found[name]) for name, view in expected.items())
    gradients = []
    for one in (method, plain):
        module.zero_grad()
        one.loss(module, expected)["loss"].backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_both_losses_are_those_of_their_definition(module):
    method = Parts2WholeContrast(contrast_weight=0.3, temperature=0.2)
    seen = views(method)
    with torch.no_grad():
        found = {name: float(value) for name, value in method.loss(module.eval(), seen).items()}
        deepest = module.encoder(seen["part"])[-1].double().numpy()
        rebuilt = 1 / (1 + np.exp(-module(seen["part"]).double().numpy()))
    wholes = seen["whole"].numpy()
    error = np.mean([(rebuilt[part] - wholes[part // 2]) ** 2 for part in range(6)])
    # (6, 64, 2, 2, 4) to the means of 2 x 2 x 2 cells: here pairs along x.
    z = deepest.reshape(6, 64, 2, 2, 2, 2).mean(-1).reshape(6, -1)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    terms = []
    for part in range(6):
        partner, others = part ^ 1, [n for n in range(6) if n != part]
        scores = np.exp([z[part] @ z[n] / 0.2 for n in others])
        terms.append(-np.log(np.exp(z[part] @ z[partner] / 0.2) / scores.sum()))
    assert found["reconstruction"] == pytest.approx(error, rel=1e-5)
    assert found["contrast"] == pytest.approx(np.mean(terms), rel=1e-4)
    assert found["loss"] == pytest.approx(error + 0.3 * np.mean(terms), rel=1e-4)
    nearest = [max((n for n in range(6) if n != part), key=lambda n: z[part] @ z[n]) for part in range(6)]
    assert found["accuracy"] == pytest.approx(np.mean([n == part ^ 1 for part, n in enumerate(nearest)]))


def test_the_second_loss_draws_parts_of_a_whole_together(module):
    method = Parts2WholeContrast(contrast_weight=1.0)
    seen = views(method, wholes=4)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    found = []
    for _ in range(15):
        losses = method.loss(module, seen)
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert found[-1]["contrast"] < 0.5 * found[0]["contrast"]
    assert found[-1]["reconstruction"] < found[0]["reconstruction"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parts_per_whole": 1}, "parts_per_whole must be at least 2, got 1"),
        ({"contrast_weight": -1}, "contrast_weight must be 0 or more, got -1"),
        ({"contrast_weight": float("nan")}, "contrast_weight must be 0 or more, got nan"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(MethodError, match=message):
        Parts2WholeContrast(**fields)


def test_a_batch_of_one_whole_is_refused():
    with pytest.raises(MethodError, match="at least 2 wholes in a batch, got 1"):
        Parts2WholeContrast().check_batch(1)
