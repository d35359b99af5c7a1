"""Operations for repeatable training on GPUs against torch's own, and that no network or method needs others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from parts2whole.methods.base import Method
from parts2whole.networks import repeatable
from parts2whole.networks.base import Network
from parts2whole.networks.heads import EncoderDecoder, OwnDecoder
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.wholes.random import BatchGenerator

UNREPEATABLE = {
    "max_pool3d_with_indices_backward", "avg_pool3d_backward", "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool3d_backward", "fractional_max_pool3d_backward", "max_unpool3d", "nll_loss2d_forward",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward", "reflection_pad3d_backward", "replication_pad3d_backward",
    "grid_sampler_3d_backward", "cumsum_backward", "kthvalue", "histc", "_embedding_bag_backward",
}  # fmt: skip
"""What `torch.use_deterministic_algorithms` lists as an error on CUDA, of what maps could be used with."""
REFUSED_BY_TORCH = {"SegResNet": {"upsample_trilinear3d_backward"}}
"""Decoders that are MONAI's modules: fine-tuning one deterministically on a GPU is torch's error."""


class Recorder(TorchDispatchMode):
    """Names of the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def other_way(monkeypatch):
    monkeypatch.setattr(repeatable, "needs_other_way", lambda x: True)


def _both(monkeypatch, run, x):
    """Results and gradients of torch's own way, then of the other."""
    found = []
    for other in (False, True):
        monkeypatch.setattr(repeatable, "needs_other_way", lambda _, other=other: other)
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        y.backward(torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).remainder(7) + 1)
        found.append((y.detach(), leaf.grad))
    return found


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((2, 2, 2), (2, 2, 2), 0),
        ((3, 3, 3), (2, 2, 2), 1),
        ((1, 3, 3), (1, 2, 2), 0),
        ((2, 3, 1), (2, 1, 1), 0),
    ],
)
def test_max_pool_chooses_the_same_voxels_also_among_equal_ones(monkeypatch, kernel, stride, padding):
    x = torch.randint(0, 3, (2, 3, 7, 8, 9), generator=torch.Generator().manual_seed(0)).float()
    (own, grad), (other, other_grad) = _both(
        monkeypatch, lambda x: repeatable.max_pool(x, kernel, stride, padding), x
    )
    assert torch.equal(own, F.max_pool3d(x, kernel, stride, padding))
    assert torch.equal(other, own)
    assert torch.equal(other_grad, grad)  # whole numbers add up exactly


def test_max_pool_hands_on_what_is_not_a_number(other_way):
    x = torch.zeros(1, 1, 2, 2, 4)
    x[0, 0, 0, 1, 0] = x[0, 0, 1, 1, 1] = torch.nan
    found = repeatable.max_pool(x, (2, 2, 2), (2, 2, 2)).flatten()
    assert found[0].isnan()
    assert found[1] == 0


@pytest.mark.parametrize(
    "run",
    [
        lambda x: repeatable.average_pool(x, (3, 3, 3), (2, 2, 2)),
        lambda x: repeatable.average_pool(x, (2, 7, 7), (1, 1, 1)),
        lambda x: repeatable.average_cells(x, 2),
        lambda x: repeatable.average_cells(x, 3),
        lambda x: repeatable.enlarge(x, (14, 8, 27)),
        lambda x: repeatable.enlarge(x, (8, 19, 5)),
        lambda x: repeatable.map_cross_entropy(x, (x[:, 0] > 0).long())[None],
        lambda x: repeatable.map_cross_entropy(
            x, (x[:, 0] > 0).long() - (x[:, 1] > 1).long(), ignore_index=-1, reduction="sum",
            weight=torch.tensor([0.5, 2.0, 1.0]).double(),
        )[None],
    ],
    ids=["average", "average, stride 1", "2 cells", "3 cells", "enlarge", "shrink", "entropy", "entropy, sum"],
)  # fmt: skip
def test_equal_to_torchs_own(monkeypatch, run):
    x = torch.randn(2, 3, 7, 8, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (own, grad), (other, other_grad) = _both(monkeypatch, run, x)
    torch.testing.assert_close(other, own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other_grad, grad, rtol=1e-5, atol=1e-5)


def test_the_recorder_sees_what_may_not_be():
    with Recorder() as seen:
        F.max_pool3d(torch.rand(1, 1, 4, 4, 4, requires_grad=True), 2).sum().backward()
    assert seen.names & UNREPEATABLE == {"max_pool3d_with_indices_backward"}


@pytest.mark.parametrize("name", discover(Method, "parts2whole.methods"))
def test_methods_can_be_trained_repeatably(name, other_way):
    method = discover(Method, "parts2whole.methods")[name]()
    module = method.build(UNet3D(size="tiny"), in_channels=1, whole_size=(16, 16, 16)).train()
    views = method.views(torch.rand(4, 1, 16, 16, 16), BatchGenerator.of_step(name, rows=4))
    with Recorder() as seen:
        method.loss(module, views)["loss"].backward()
    assert not seen.names & UNREPEATABLE


@pytest.mark.parametrize("name", discover(Network, "parts2whole.networks"))
def test_networks_can_be_trained_repeatably(name, other_way):
    network = discover(Network, "parts2whole.networks")[name]()
    encoder = network.build_encoder(1)
    edge = encoder.divisor * 2
    x = torch.rand(1, 1, edge, edge, edge)
    own = network.build_own(1, 2)
    modules = [EncoderDecoder(encoder, out_channels=2, skips=True)]
    if own is not None and own.is_decoder:
        modules.append(OwnDecoder(network.build_encoder(1), own))
    for module in modules:
        with Recorder() as seen:
            module(x).float().sum().backward()
        known = REFUSED_BY_TORCH.get(name, set()) if isinstance(module, OwnDecoder) else set()
        assert not (seen.names & UNREPEATABLE) - known


@pytest.mark.parametrize("loss", ["dice", "dice_ce", "dice_balanced_ce"])
def test_segmentation_can_be_trained_repeatably(loss, other_way, tmp_path):
    task = Segmentation(tmp_path, loss_function=loss)
    module = torch.nn.Conv3d(1, 3, 1)
    label = torch.randint(0, 3, (2, 1, 8, 8, 8))
    with Recorder() as seen:
        task.loss(module, {"image": torch.rand(2, 1, 8, 8, 8), "label": label})["loss"].backward()
    assert not seen.names & UNREPEATABLE
