import copy

import pytest
import torch
from torch import nn

import parts2whole as p2w
from parts2whole.networks.blocks import BatchStatisticsNorm3d
from parts2whole.training.cpu_norm import SMALLEST, speed_up_norms
from parts2whole.training.runtime import Hardware, Runtime, to_channels_last

NORMS = {
    "batch": nn.BatchNorm3d,
    "batch without momentum": lambda channels: nn.BatchNorm3d(channels, momentum=None),
    "batch without running statistics": lambda channels: nn.BatchNorm3d(channels, track_running_stats=False),
    "batch_statistics": BatchStatisticsNorm3d,
    "instance": lambda channels: nn.InstanceNorm3d(channels, affine=True),
}
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}


def make(norm: str, channels: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = NORMS[norm](channels)
    nn.init.uniform_(plain.weight, 0.5, 1.5)
    nn.init.normal_(plain.bias)
    fast = copy.deepcopy(plain)
    speed_up_norms(fast)
    return plain, fast


def make_map(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return to_channels_last((3 * torch.randn(shape) + 2).to(dtype))


def expected(norm: nn.Module, x: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """The definition, in double precision."""
    x = x.double()
    variance, mean = torch.var_mean(x, over, keepdim=True, correction=0)
    weight, bias = (p.double().view(-1, 1, 1, 1) for p in (norm.weight, norm.bias))
    return (x - mean) / (variance + norm.eps).sqrt() * weight + bias


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 16, 32, 32), (3, 5, 21, 35, 33)])
@pytest.mark.parametrize("norm", NORMS)
def test_values_gradients_and_running_statistics_are_those_of_the_definition(norm, shape, dtype):
    plain, fast = make(norm, shape[1])
    x = make_map(*shape, dtype=dtype).requires_grad_()
    y = fast(x)
    assert "Normalised" in y.grad_fn.name(), "the fast way must have been taken"
    wanted = expected(plain, x, (2, 3, 4) if norm == "instance" else (0, 2, 3, 4))
    slope = torch.randn_like(x)
    found = torch.autograd.grad(y, [x, *fast.parameters()], slope)
    right = torch.autograd.grad(wanted, [x, *plain.parameters()], slope.double())
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    for a, b in zip((y, *found), (wanted, *right), strict=True):
        torch.testing.assert_close(
            a.double() / b.abs().max(), b.double() / b.abs().max(), rtol=0, atol=TOLERANCE[dtype]
        )
    plain.double()(x.detach().double())
    for (name, a), b in zip(fast.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_batch_norm_in_eval_mode_uses_its_running_statistics(dtype):
    plain, fast = make("batch", 6)
    for norm in (plain, fast):
        torch.manual_seed(1)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    before = copy.deepcopy(fast.state_dict())
    x = make_map(2, 6, 16, 32, 32, dtype=dtype).requires_grad_()
    y, wanted = fast.eval()(x), plain.eval().double()(x.double())
    torch.testing.assert_close(y.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    found, right = (
        torch.autograd.grad(out.sum(), [norm.weight, norm.bias, x])
        for out, norm in ((y, fast), (wanted, plain))
    )
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(
            a.double() / b.abs().max(), b.double() / b.abs().max(), rtol=0, atol=TOLERANCE[dtype]
        )
    assert all(torch.equal(value, before[name]) for name, value in fast.state_dict().items())


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(make_map(2, 16, 16, 32, 32), id="channels that fill registers"),
        pytest.param(make_map(1, 8, 8, 8, 8), id=f"fewer numbers than {SMALLEST}"),
        pytest.param(make_map(2, 8, 16, 32, 32).contiguous(), id="contiguous"),
        pytest.param(make_map(2, 8, 16, 32, 32).double(), id="double precision"),
    ],
)
def test_what_pytorch_does_well_or_alone_is_left_to_it(x):
    plain, fast = (norm.to(x.dtype) for norm in make("batch", x.shape[1]))
    assert torch.equal(fast(x), plain(x))


def test_a_value_far_from_zero_costs_no_precision():
    _, fast = make("batch", 8)
    x = make_map(2, 8, 16, 32, 32) + 1000
    torch.testing.assert_close(fast(x).double(), expected(fast, x, (0, 2, 3, 4)), rtol=1e-3, atol=1e-3)


def test_a_network_on_a_cpu_has_fast_norms_and_the_same_names():
    module = p2w.UNet3D(size="tiny").build_encoder(1)
    names = list(module.state_dict())
    placed = Runtime(Hardware(accelerator="cpu", precision="32-true")).place_module(copy.deepcopy(module))
    x = to_channels_last(torch.rand(2, 1, 16, 32, 32))
    twin = copy.deepcopy(placed)
    for fine, right in zip(twin(x), to_channels_last(module)(x), strict=True):
        torch.testing.assert_close(fine, right, rtol=1e-3, atol=1e-3)
    assert list(twin.state_dict()) == names
    assert int(twin.levels[0][0][1].num_batches_tracked) == 1
    assert int(placed.levels[0][0][1].num_batches_tracked) == 0, "a copy must use its own buffers"
