"""The alarm: a network that gives the same for every whole has collapsed, whatever its loss."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from parts2whole.methods.base import Method
from parts2whole.methods.masked_autoencoder import MaskedAutoencoder
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.methods.simclr import SimCLR
from parts2whole.networks.unet3d import UNet3D
from parts2whole.report.runs import read_volumes
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.store import Store
from parts2whole.training.examine import Examiner
from parts2whole.training.loop import Plan
from parts2whole.training.optim import Constant, Cosine, Schedule
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.wholes.sampler import WholeSampler, WholeSize

SIZE = (8, 16, 16)
CONSTANT = Constant()


@pytest.fixture
def sampler(tmp_path) -> WholeSampler:
    store = Store.create(tmp_path / "store", preprocess=Preprocess(modality="unit"))
    for case in range(4):
        coarse = np.random.default_rng(case).integers(0, 30000, (5, 5, 5)).astype(np.int16)
        voxels = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
        store.write_volume(f"c{case}", Volume(voxels, (1.0, 1.0, 1.0)), patient=f"p{case}")
    store.finish()
    return WholeSampler(store, size=WholeSize(SIZE))


def examine(method: Method, sampler: WholeSampler, folder: Path, schedule: Schedule = CONSTANT) -> Examiner:
    return Examiner(
        method,
        sampler,
        sampler,
        wholes=5,
        plan=Plan(steps=20, batch_size=2, validate_every=2),
        runtime=Runtime(Hardware(accelerator="cpu", precision="32-true")),
        folder=folder,
        panel_every=4,
        schedule=schedule,
    )


@pytest.fixture
def examiner(sampler, tmp_path) -> Examiner:
    return examine(Parts2Whole(), sampler, tmp_path / "run")


@dataclasses.dataclass(frozen=True)
class Echo(Parts2Whole):
    """Gives back what it sees, or always the same."""

    deaf: bool = False

    def reconstruct(self, module: torch.nn.Module, part: torch.Tensor) -> torch.Tensor:
        return torch.full_like(part, 0.3) if self.deaf else part


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    return Parts2Whole().build(UNet3D(size="tiny"), in_channels=1, whole_size=SIZE).eval()


@torch.no_grad()
def test_a_constant_output_is_a_collapse_and_an_untrained_one_is_not(examiner, capsys):
    module = build()
    with torch.enable_grad():  # a few steps, so that batch norm knows the wholes
        optimiser = torch.optim.AdamW(module.train().parameters(), lr=3e-3)
        for views in examiner.views * 5:
            Parts2Whole().loss(module, views)["loss"].backward()
            optimiser.step()
            optimiser.zero_grad()
    examiner.method = Echo()
    lively = examiner(module.eval(), 10)
    assert lively["output_spread"] > 0.1
    assert not examiner.is_constant
    examiner.method = Echo(deaf=True)
    still = examiner(module, 10)
    assert still["output_spread"] == pytest.approx(0, abs=1e-12)
    assert examiner.is_constant
    assert examiner.collapsed
    said = capsys.readouterr().out
    assert "spread of its output" in said
    assert "It has collapsed" in said
    assert "bottleneck map" not in said  # which is lively


@torch.no_grad()
def test_features_that_are_all_alike_are_a_collapse(examiner):
    module = build()
    for parameter in module.encoder.levels[-1].parameters():
        parameter.zero_()
    module.encoder.levels[-1][-1][1].bias.fill_(1.0)
    assert examiner(module, 10)["map_spread"] < 1e-6
    assert examiner.is_constant


@torch.no_grad()
def test_only_what_was_measured_is_told_of_a_collapse(examiner, capsys):
    """A method that rebuilds nothing has no output whose spread could be told."""
    examiner.method, examiner.baselines = SimCLR(), {}
    module = SimCLR().build(UNet3D(size="tiny"), in_channels=1, whole_size=SIZE).eval()
    for parameter in module.encoder.parameters():
        parameter.zero_()
    module.encoder.levels[-1][-1][1].bias.fill_(1.0)
    examiner.views = [{"part": views["whole"].repeat_interleave(2, 0)} for views in examiner.views]
    examiner(module, 10)
    assert re.search(r"map 0 of the size of that\)\. It has collapsed", capsys.readouterr().out)


@torch.no_grad()
@pytest.mark.parametrize(("warm_up", "silent", "loud"), [(0.05, (0, 2, 5), 6), (0.5, (0, 6, 10), 11)])
def test_no_collapse_is_told_of_before_the_warm_up_ends(sampler, tmp_path, capsys, warm_up, silent, loud):
    examiner = examine(Parts2Whole(), sampler, tmp_path, Cosine(warmup_fraction=warm_up))
    examiner.method = Echo(deaf=True)
    for step in silent:
        examiner(build(), step)
    assert examiner.collapsed
    assert "WARNING" not in capsys.readouterr().out
    examiner(build(), loud)
    assert "WARNING" in capsys.readouterr().out


def test_an_untrained_network_is_measured_with_norms_that_know_data(examiner):
    module = build()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    random = torch.random.get_rng_state()
    with torch.no_grad():
        untrained = examiner(module, 0)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.momentum = None
    with torch.no_grad():
        for views in examiner.views:
            Parts2Whole().loss(module.train(), views)
        assert examiner(module.eval(), 1) == pytest.approx(untrained, rel=1e-4)


@torch.no_grad()
def test_losses_are_means_over_wholes_of_batches_of_unequal_size(examiner):
    module = build()
    values = examiner(module, 1)
    by_hand = [float(Parts2Whole().loss(module, views)["loss"]) for views in examiner.views]
    assert [len(views["whole"]) for views in examiner.views] == [2, 3]
    assert values["loss"] == pytest.approx((2 * by_hand[0] + 3 * by_hand[1]) / 5)


@torch.no_grad()
def test_panels_come_when_due_whatever_was_drawn_before(examiner):
    """A resumed run draws the pictures that the unbroken run would have drawn."""
    drawn = []
    examiner._draw_panel = lambda module, step: drawn.append(step)
    for step in (2, 4, 6, 8, 10, 20):
        examiner(build(), step)
    assert drawn == [4, 8, 20]


@torch.no_grad()
def test_panels_know_where_their_parts_were_cut_from(examiner):
    """A part is its box of the whole, brought to the whole's size: their means agree where values are smooth."""
    examiner(build(), 20)
    panel = read_volumes(examiner.folder)
    assert panel is not None
    assert panel.boxes is not None
    for part, whole, box in zip(panel.part, panel.whole, panel.boxes.astype(int), strict=True):
        inside = whole[tuple(slice(low, high) for low, high in box)]
        assert 0.4 <= inside.size ** (1 / 3) / whole.size ** (1 / 3) <= 0.75
        corners = part[0, 0, 0], part[-1, -1, -1]
        assert corners == pytest.approx((inside[0, 0, 0], inside[-1, -1, -1]), abs=1e-4)


@torch.no_grad()
def test_every_whole_of_a_panel_has_the_spacing_of_its_scan(tmp_path):
    """A store at native spacing: scans of 1 and of 2 mm along z."""
    store = Store.create(tmp_path / "store", preprocess=Preprocess(modality="unit"))
    for case in range(4):
        voxels = np.random.default_rng(case).integers(0, 30000, (20, 20, 20)).astype(np.int16)
        store.write_volume(f"c{case}", Volume(voxels, (1.0 + case % 2, 1.0, 0.5)), patient=f"p{case}")
    store.finish()
    run = examine(Parts2Whole(), WholeSampler(store, size=WholeSize(SIZE)), tmp_path / "run")
    run(build(), 20)
    panel = read_volumes(run.folder)
    assert panel is not None
    assert len({*panel.names}) > 1
    assert panel.spacings_mm == tuple((1.0 + int(name[1:]) % 2, 1.0, 0.5) for name in panel.names)


def test_trivial_baselines_are_measured_where_the_loss_is(sampler, tmp_path):
    """Of hidden voxels: what the network sees of them is 0, and the mean whole is worth what it is there."""
    masked = examine(MaskedAutoencoder(mask_ratio=0.5), sampler, tmp_path / "run")
    drawn = [sampler.read(sampler.draw("mean whole", number)).numpy() for number in range(20)]
    wholes = np.concatenate([views["whole"].numpy() for views in masked.views])
    hidden = np.concatenate([views["hidden"].numpy() == 1 for views in masked.views])
    for name, guess in {"stretched_part": 0.0, "mean_whole": np.mean(drawn, axis=0)}.items():
        errors = [np.mean((whole - guess)[gone] ** 2) for whole, gone in zip(wholes, hidden, strict=True)]
        assert masked.baselines[f"baseline_{name}"] == pytest.approx(np.mean(errors), rel=1e-5)
