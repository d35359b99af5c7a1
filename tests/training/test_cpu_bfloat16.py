import copy

import pytest
import torch
from torch import Tensor, nn

import parts2whole as p2w
from parts2whole.training.cpu_bfloat16 import keep_float32_where_wrong
from parts2whole.training.runtime import Hardware, Runtime, to_channels_last


@pytest.mark.parametrize(
    ("kernel", "depth", "precision"),
    [
        (3, 1, torch.float32),
        (3, 2, torch.float32),
        (3, 3, torch.bfloat16),
        (3, 16, torch.bfloat16),
        (1, 1, torch.bfloat16),
        (5, 16, torch.float32),
        (7, 16, torch.float32),
    ],
)
def test_convolutions_that_bfloat16_gets_wrong_stay_in_float32(kernel, depth, precision):
    convolution = nn.Conv3d(2, 4, kernel, padding=kernel // 2)
    keep_float32_where_wrong(convolution)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution(torch.rand(1, 2, depth, 8, 8)).dtype == precision


def test_gradients_of_a_shallow_whole_are_those_of_float32():
    torch.manual_seed(0)
    exact = to_channels_last(p2w.UNet3D(size="tiny", norm="group").build_encoder(1))
    runtime = Runtime(Hardware(accelerator="cpu", precision="bf16-mixed"))
    module = runtime.place_module(copy.deepcopy(exact))
    x = to_channels_last(torch.rand(4, 1, 16, 32, 32))
    for _ in range(3):
        module.zero_grad()
        exact.zero_grad()
        fill_free_memory_with_nan()
        with runtime.autocast():
            deepest = module(x)[-1]
        fill_free_memory_with_nan()
        deepest.float().square().mean().backward()
        exact(x)[-1].square().mean().backward()
        assert relative_error(module, exact) < 0.1


def test_a_guarded_network_keeps_its_parameters_names_and_copies():
    module = p2w.UNet3D(size="tiny").build_encoder(1)
    names = list(module.state_dict())
    keep_float32_where_wrong(module)
    twin = copy.deepcopy(module)
    assert list(twin.state_dict()) == names
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    x = torch.rand(1, 1, 16, 16, 16)
    assert twin(x)[-1].abs().sum() == 0, "the copy must use its own weights"
    assert module(x)[-1].abs().sum() > 0


def relative_error(module: nn.Module, exact: nn.Module) -> float:
    got, wanted = gradients(module), gradients(exact)
    assert got.isfinite().all()
    return float((got - wanted).norm() / wanted.norm())


def gradients(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def fill_free_memory_with_nan() -> None:
    sizes = (1_000, 10_000, 100_000, 300_000, 600_000)
    filled = [torch.full((size,), float("nan")) for size in sizes for _ in range(4)]
    del filled
