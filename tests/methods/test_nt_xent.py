from __future__ import annotations

import numpy as np
import pytest
import torch

from parts2whole.evaluation.contrast import info_nce
from parts2whole.methods.base import MethodError, make_views
from parts2whole.methods.contrast import found_share, nt_xent
from parts2whole.methods.exemplar import Exemplar
from parts2whole.methods.moco import MoCo
from parts2whole.methods.simclr import SimCLR
from parts2whole.networks.unet3d import UNet3D
from parts2whole.wholes.geometry import GeometryError
from parts2whole.wholes.random import BatchGenerator

WHOLE = (8, 8, 16)


def unit_rows(rows: int, features: int = 5, seed: int = 0) -> torch.Tensor:
    z = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(z, dim=1)


def slow_nt_xent(z: np.ndarray, parts: int, temperature: float) -> float:
    losses = []
    for a in range(len(z)):
        others = [c for c in range(len(z)) if c != a]
        denominator = sum(np.exp(z[a] @ z[c] / temperature) for c in others)
        losses += [
            -np.log(np.exp(z[a] @ z[p] / temperature) / denominator)
            for p in others
            if p // parts == a // parts
        ]
    return float(np.mean(losses))


@pytest.mark.parametrize(("parts", "temperature"), [(2, 0.1), (3, 0.5)])
def test_nt_xent_is_its_equation(parts, temperature):
    z = unit_rows(6 * parts)
    found = float(nt_xent(z, z, first=0, parts_per_whole=parts, temperature=temperature))
    assert found == pytest.approx(slow_nt_xent(z.double().numpy(), parts, temperature), rel=1e-5)
    monitor = info_nce(z.reshape(6, parts, -1), temperature=temperature)
    assert found == pytest.approx(monitor, rel=1e-5)


def test_the_loss_of_devices_averages_to_that_of_one():
    z = unit_rows(12)
    settings = {"parts_per_whole": 2, "temperature": 0.2}
    apart = [nt_xent(z[first : first + 4], z, first=first, **settings) for first in (0, 4, 8)]
    together = nt_xent(z, z, first=0, **settings)
    assert float(sum(apart)) / 3 == pytest.approx(float(together), rel=1e-6)


def test_equal_vectors_cost_what_guessing_costs():
    z = unit_rows(1).expand(8, -1)
    found = nt_xent(z, z, first=0, parts_per_whole=2, temperature=0.1)
    assert float(found) == pytest.approx(np.log(SimCLR().candidates(4)), rel=1e-6)


def test_found_share_counts_nearest_parts_of_the_same_whole():
    z = torch.eye(3).repeat_interleave(2, dim=0)
    assert float(found_share(z, z, first=0, parts_per_whole=2)) == 1
    assert float(found_share(z[[0, 2, 1, 4, 3, 5]], z[[0, 2, 1, 4, 3, 5]], first=0, parts_per_whole=2)) == 0


def test_a_single_whole_is_refused():
    z = unit_rows(2)
    with pytest.raises(MethodError, match="at least 2 wholes"):
        nt_xent(z, z, first=0, parts_per_whole=2, temperature=0.1)


def views_of(method, rows: int = 4, step: int = 0):
    wholes = torch.rand(rows, 1, *WHOLE, generator=torch.Generator().manual_seed(step))
    return method.views(wholes, BatchGenerator.of_step(step, rows=rows))


def build(method, norm: str = "instance"):
    torch.manual_seed(0)
    return method.build(UNet3D("tiny", norm=norm), in_channels=1, whole_size=WHOLE)


def test_simclr_is_nt_xent_of_projected_parts():
    method = SimCLR(parts_per_whole=3)
    module, views = build(method), views_of(method)
    z = module(views["part"])
    torch.testing.assert_close(z.norm(dim=1), torch.ones(12))
    expected = slow_nt_xent(z.detach().double().numpy(), 3, 0.1)
    assert float(method.loss(module, views)["loss"]) == pytest.approx(expected, rel=1e-4)


def test_moco_follows_its_equations_step_by_step():
    method = MoCo(queue=6, momentum=0.9, temperature=0.2)
    module = build(method)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    queue, oldest = None, 0
    key = {name: value.clone() for name, value in module.key.named_parameters()}
    for step in range(3):
        views = views_of(method, step=step)
        query = {n: p for n, p in module.named_parameters() if not n.startswith("key.")}
        for name in key:  # the key network follows before it makes keys
            key[name] = 0.9 * key[name] + 0.1 * query[name].detach()
        found = method.loss(module, views)
        for name, value in module.key.named_parameters():
            torch.testing.assert_close(value, key[name])
            assert not value.requires_grad
        with torch.no_grad():
            k = module.key(views["key"]).double().numpy()
            pooled = module.encoder(views["query"])[-1].mean(dim=(2, 3, 4))
            q = torch.nn.functional.normalize(module.head(pooled), dim=1).double().numpy()
        if queue is None:
            queue = k[np.arange(6) % 4].copy()
        losses = []
        for row in range(4):
            positive = np.exp(q[row] @ k[row] / 0.2)
            losses.append(-np.log(positive / (positive + sum(np.exp(q[row] @ n / 0.2) for n in queue))))
        assert float(found["loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-4)
        for row in range(4):
            queue[oldest] = k[row]
            oldest = (oldest + 1) % 6
        np.testing.assert_allclose(module.queue.numpy(), queue, atol=1e-6)
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
    assert int(module.stored) == 12


def test_validating_moco_changes_nothing_in_it():
    method = MoCo(queue=8)
    module = build(method, norm="batch")
    method.loss(module, views_of(method))
    with torch.no_grad():  # queries that have moved on, so that following would show
        for parameter in module.encoder.parameters():
            parameter.add_(0.1)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.eval()
    first, again = (float(method.loss(module, views_of(method, step=5))["loss"]) for _ in range(2))
    assert first == again
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_batch_larger_than_the_queue_is_refused():
    method = MoCo(queue=3)
    with pytest.raises(MethodError, match="a batch of 4 wholes doesn't fit into a queue of 3"):
        method.loss(build(method), views_of(method))


def test_exemplar_is_cross_entropy_with_one_output_a_whole():
    method = Exemplar(bank=7, parts_per_whole=2)
    module = build(method)
    assert module.head[-1].weight.shape == (7, 64)
    wholes = torch.rand(3, 1, *WHOLE)
    batch = {"whole": wholes, "number": torch.tensor([5, 0, 5])}
    views = make_views(method, batch, BatchGenerator.of_step(0, rows=3))
    assert views["number"].tolist() == [5, 5, 0, 0, 5, 5]
    logits = module(views["part"]).detach().double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.mean(np.log(shares[np.arange(6), [5, 5, 0, 0, 5, 5]]))
    found = method.loss(module, views)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["accuracy"]) == np.mean(logits.argmax(axis=1) == [5, 5, 0, 0, 5, 5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimCLR(temperature=0), "temperature must be above 0"),
        (lambda: SimCLR(parts_per_whole=1), "at least 2"),
        (lambda: MoCo(momentum=1.0), "momentum must be from 0"),
        (lambda: MoCo(queue=0), "queue must be at least 1"),
        (lambda: Exemplar(bank=1), "at least 2 wholes"),
        (lambda: Exemplar(parts_per_whole=0), "at least 1"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(MethodError, match=message):
        make()
    with pytest.raises(GeometryError):
        SimCLR(part_fraction=(0.9, 0.1))
