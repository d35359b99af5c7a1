"""Which bfloat16 convolutions of this torch are wrong on this CPU, for training/cpu_bfloat16.py.

    python benchmarks/bfloat16.py

Forward, input gradient and weight gradient against float32 of the same rounded numbers, with memory filled
with NaN before.  Each convolution has a process of its own, as some write past their memory.
"""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch
from torch import nn

LAYERS = {
    "kernel 3": lambda: nn.Conv3d(32, 64, 3, padding=1),
    "kernel 1": lambda: nn.Conv3d(32, 64, 1),
    "kernel 1, stride 2": lambda: nn.Conv3d(32, 64, 1, stride=2),
    "kernel 3, stride 2": lambda: nn.Conv3d(32, 64, 3, stride=2, padding=1),
    "kernel 3, dilation 2": lambda: nn.Conv3d(32, 64, 3, padding=2, dilation=2),
    "kernel 5": lambda: nn.Conv3d(32, 64, 5, padding=2),
    "kernel 7, stride 2": lambda: nn.Conv3d(32, 64, 7, stride=2, padding=3),
    "transposed, kernel 2": lambda: nn.ConvTranspose3d(32, 64, 2, stride=2),
    "transposed, kernel 3": lambda: nn.ConvTranspose3d(32, 64, 3, stride=2, padding=1, output_padding=1),
}
DEPTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16)
TOLERANCE = 0.02


def main() -> None:
    print(f"torch {torch.__version__}\n")
    print("| layer | " + " | ".join(f"depth {depth}" for depth in DEPTHS) + " |")
    print("|---|" + "---|" * len(DEPTHS))
    for layer in LAYERS:
        found = [in_own_process(layer, depth) for depth in DEPTHS]
        print(f"| {layer} | " + " | ".join(found) + " |", flush=True)


def in_own_process(layer: str, depth: int) -> str:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(check, layer, depth).result()
        except BrokenProcessPool:
            return "**crash**"


def check(name: str, depth: int) -> str:
    torch.set_num_threads(2)
    return "right" if all(one_pass(name, depth) for _ in range(4)) else "**wrong**"


def one_pass(name: str, depth: int) -> bool:
    layer = LAYERS[name]().to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.bfloat16())
    exact = copy.deepcopy(layer)
    x = torch.randn(4, 32, depth, 8, 8).bfloat16().float().to(memory_format=torch.channels_last_3d)
    x.requires_grad_()
    x_exact = x.detach().clone().requires_grad_()
    try:
        expected = exact(x_exact)
    except RuntimeError:  # the layer doesn't take maps as small as this
        return True
    poison()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    gradient = torch.randn_like(y)
    poison()
    y.backward(gradient)
    expected.backward(gradient.float())
    got = [y, x.grad, *(p.grad for p in layer.parameters())]
    wanted = [expected, x_exact.grad, *(p.grad for p in exact.parameters())]
    errors = [(a.float() - b).norm() / b.norm() for a, b in zip(got, wanted, strict=True)]
    return all(bool(error < TOLERANCE) for error in errors)


def poison() -> None:
    """Fill the memory that the allocator hands out next with NaN."""
    sizes = (1_000, 10_000, 50_000, 100_000, 300_000, 600_000, 1_200_000)
    filled = [torch.full((size,), float("nan")) for size in sizes for _ in range(4)]
    del filled


if __name__ == "__main__":
    main()
