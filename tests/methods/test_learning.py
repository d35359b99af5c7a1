"""Every method learns: on phantoms its own objective and a linear probe improve over the untrained network.

Probes see data whose views the method never had: methods that tell wholes apart are asked which whole a new part
comes from, methods that rebuild which voxels of new patients are liver.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from simple_torso import make_torso

from parts2whole.evaluation.probes import linear_probe, upsampled_pyramid, voxel_probe
from parts2whole.methods.base import Discrimination, Method, Reconstruction
from parts2whole.networks.heads import pooled_features
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover
from parts2whole.wholes.geometry import cut_parts
from parts2whole.wholes.random import BatchGenerator

METHODS = discover(Method, "parts2whole.methods")
WHOLES = 12
PARTS = (0.5, 0.9)
FIELDS = {
    "Exemplar": {"bank": WHOLES, "part_fraction": PARTS},
    "MoCo": {"queue": 4 * WHOLES, "momentum": 0.9, "part_fraction": PARTS},
    "SimCLR": {"part_fraction": PARTS},
    "VolumeFusion": {"shares": 1, "blocks": (1, 4)},
}
"""Smaller, or easier, than the defaults, which are for thousands of wholes."""


@functools.cache
def torso(case: int) -> tuple[torch.Tensor, np.ndarray]:
    """A scan (1, 40, 56, 56), HU -300 to 300 as [0, 1], and where its liver is."""
    volume, label = make_torso(0, case)
    voxels = torch.from_numpy(volume.array.astype(np.float32))
    return (voxels / 600 + 0.5).clamp(0, 1)[None], label.array


def objective(method: Method, module: torch.nn.Module, wholes: torch.Tensor) -> float:
    """Mean loss over views that were never trained on, a queue filled with keys of this network."""
    module = copy.deepcopy(module).eval()
    losses = []
    with torch.no_grad():
        for number in range(3):
            views = method.views(wholes, BatchGenerator.of_step("held out", number, rows=len(wholes)))
            if hasattr(module, "queue"):
                module.queue.copy_(module.key(views["key"]).repeat(4, 1))
            losses.append(float(method.loss(module, views)["loss"]))
    return float(np.mean(losses))


def train(method: Method, module: torch.nn.Module, wholes: torch.Tensor, *, steps: int, rows: int) -> None:
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    module.train()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)  # so that running statistics catch up
        generator = torch.Generator().manual_seed(step)
        chosen = (
            wholes
            if rows == len(wholes)
            else wholes[torch.randint(len(wholes), (rows,), generator=generator)]
        )
        loss = method.loss(module, method.views(chosen, BatchGenerator.of_step(step, rows=rows)))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def build(method: Method, wholes: torch.Tensor) -> torch.nn.Module:
    """A fresh module that has seen the wholes' statistics, as an untrained network would in use."""
    torch.manual_seed(0)
    module = method.build(UNet3D("tiny"), in_channels=1, whole_size=tuple(wholes.shape[2:])).train()
    with torch.no_grad():
        for _ in range(10):
            module.encoder(wholes)
    return module.eval()


def names(family: type) -> list[str]:
    return [name for name, kind in METHODS.items() if issubclass(kind, family)]


@pytest.mark.parametrize("name", names(Discrimination))
def test_a_method_that_tells_wholes_apart_learns(name):
    corners = [(z, *yx) for z in (2, 16, 30) for yx in ((10, 6), (26, 32))]
    wholes = torch.stack(
        [torso(case)[0][:, z : z + 8, y : y + 16, x : x + 16] for case in (0, 1) for z, y, x in corners]
    )
    method = METHODS[name](**FIELDS.get(name, {}))

    def which_whole() -> float:
        module.eval()
        with torch.no_grad():
            features = [
                pooled_features(
                    module.encoder,
                    cut_parts(
                        wholes,
                        BatchGenerator.of_step("probe", number, rows=WHOLES),
                        fraction=PARTS,
                        per_axis=True,
                        count=1,
                    ),
                )
                for number in range(12)
            ]
        number = np.tile(np.arange(WHOLES), 6)
        return linear_probe(torch.cat(features[:6]), number, torch.cat(features[6:]), number, C=0.1)["auc"]

    module = build(method, wholes)
    before = objective(method, module, wholes), which_whole()
    train(method, module, wholes, steps=80, rows=WHOLES)
    assert objective(method, module, wholes) < 0.95 * before[0]
    assert which_whole() > before[1]


@pytest.mark.parametrize("name", [*names(Reconstruction), "VolumeFusion"])
def test_a_method_with_a_decoder_learns(name):
    scans = [torso(case) for case in range(12)]
    wholes = torch.stack([F.avg_pool3d(volume, 2)[:, 2:18, 2:26, 2:26] for volume, _ in scans])
    labels = [label[::2, ::2, ::2][2:18, 2:26, 2:26] for _, label in scans]
    method = METHODS[name](**FIELDS.get(name, {}))

    def liver() -> float:
        module.eval()
        sides = (
            (
                (upsampled_pyramid(module.encoder, wholes[[case]], levels=(2, 3)), labels[case])
                for case in cases
            )
            for cases in (range(8), range(8, 12))
        )
        return voxel_probe(*sides, voxels_per_volume=1000)["iou_1"]

    module = build(method, wholes[:8])
    before = objective(method, module, wholes[8:]), liver()
    train(method, module, wholes[:8], steps=60, rows=4)
    goal = (
        0.8 if name == "VolumeFusion" else 0.7
    )  # Dice and cross-entropy, of wholes it never saw, fall slowly
    assert objective(method, module, wholes[8:]) < goal * before[0]
    assert liver() > before[1]
