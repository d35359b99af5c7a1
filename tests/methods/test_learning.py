"""Every method learns: on a phantom its own objective and a linear probe improve over the untrained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parts2whole.phantom.shapes import make_torso

from parts2whole.data.random import BatchGenerator
from parts2whole.evaluation.probes import linear_probe
from parts2whole.methods.base import FixedBank, Method, make_views
from parts2whole.networks.heads import pooled_features
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover

METHODS = discover(Method, "parts2whole.methods")
WHOLE = (8, 16, 16)
ROWS, STEPS = 8, 60
FIELDS = {"Exemplar": {"bank": 64}, "MoCo": {"queue": 64, "momentum": 0.9}}
"""Smaller than the defaults, which are for thousands of wholes."""


@pytest.fixture(scope="module")
def wholes() -> tuple[torch.Tensor, np.ndarray]:
    """Pieces of torsos in [0, 1], and the part of the body each is from: three heights by left and right."""
    pieces, labels = [], []
    for case in range(8):
        voxels = make_torso(0, case)[0].array.astype(np.float32)
        volume = torch.from_numpy(np.clip(voxels / 600 + 0.5, 0, 1))[None]
        for third in range(3):
            for side in range(2):
                for shift in range(4):
                    z, y, x = 4 + 12 * third, 12 + 4 * shift, 8 + 22 * side
                    pieces.append(volume[:, z : z + 8, y : y + 16, x : x + 16])
                    labels.append(2 * third + side)
    return torch.stack(pieces), np.array(labels)


def objective(method: Method, module: torch.nn.Module, batch) -> float:
    module.eval()
    with torch.no_grad():
        views = make_views(method, batch, BatchGenerator.of_step("held out", rows=32))
        return float(method.loss(module, views)["loss"])


def probe(module: torch.nn.Module, pieces: torch.Tensor, labels: np.ndarray) -> float:
    module.eval()
    with torch.no_grad():
        features = pooled_features(module.encoder, pieces)
    return linear_probe(features[:96], labels[:96], features[96:], labels[96:], C=0.1)["balanced_accuracy"]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_learns(name, wholes):
    pieces, labels = wholes
    method = METHODS[name](**FIELDS.get(name, {}))
    torch.manual_seed(0)
    module = method.build(UNet3D("tiny"), in_channels=1, whole_size=WHOLE)
    train, held_out = torch.arange(96), torch.arange(96, 128)
    if isinstance(method, FixedBank):
        train = held_out = torch.arange(64)

    def batch_of(numbers: torch.Tensor):
        return (
            {"whole": pieces[numbers], "number": numbers}
            if isinstance(method, FixedBank)
            else pieces[numbers]
        )

    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    first, losses = None, []
    for step in range(STEPS):
        module.train()
        numbers = train[torch.randint(len(train), (ROWS,), generator=torch.Generator().manual_seed(step))]
        loss = method.loss(
            module, make_views(method, batch_of(numbers), BatchGenerator.of_step(step, rows=ROWS))
        )
        optimiser.zero_grad()
        loss["loss"].backward()
        if first is None:  # before the first update, with the queue that the first batch filled
            first = objective(method, module, batch_of(held_out[:32])), probe(module, pieces, labels)
            module.train()
        optimiser.step()
        losses.append(float(loss["loss"].detach()))
    last = objective(method, module, batch_of(held_out[:32])), probe(module, pieces, labels)
    print(name, first, last)
    assert last[0] < 0.95 * first[0]
    assert last[1] > first[1]
