"""Batch norm over processes: with one process it must be batch norm (several are tried in test_processes)."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from parts2whole.networks.blocks import BatchStatisticsNorm3d
from parts2whole.networks.synchronised import SynchronisedNorm, synchronise_norms


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [nn.BatchNorm3d, BatchStatisticsNorm3d])
@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_batch_norm(group, kind, training):
    torch.manual_seed(0)
    expected, original = kind(5), kind(5)
    for norm in (expected, original):
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.running_mean, 2.0)
    norm = SynchronisedNorm(original)
    expected.train(training)
    norm.train(training)
    x = 3 + torch.randn(4, 5, 2, 3, 4)
    results = []
    for module in (expected, norm):
        given = x.clone().requires_grad_()
        out = module(given)
        out.square().mul(torch.arange(4.0).view(4, 1, 1, 1, 1)).sum().backward()
        results.append((out, given.grad, module.weight.grad, module.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for key in ("running_mean", "running_var"):
        torch.testing.assert_close(norm.state_dict()[key], expected.state_dict()[key])
    assert norm.state_dict().keys() == expected.state_dict().keys()


def test_one_process_keeps_its_own_norms(group):
    module = nn.Sequential(nn.BatchNorm3d(2))
    synchronise_norms(module, device=torch.device("cpu"))
    assert type(module[0]) is nn.BatchNorm3d
