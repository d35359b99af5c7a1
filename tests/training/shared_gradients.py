"""Gradients of modules of which every process uses another part; run by test_gradients.py on two processes."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from parts2whole.training import runtime as runtimes
from parts2whole.training.runtime import Hardware, Runtime, unwrap
from parts2whole.training.step import TrainStep

NUMBERS = torch.linspace(-1, 2, 20).sin().view(5, 4)
ROWS = torch.cat([NUMBERS, torch.arange(5.0)[:, None]], dim=1)
"""A row is four numbers and its own number."""


class Many(nn.Module):
    """Layers that an objective calls as it likes."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.never, self.logged = nn.Linear(4, 1), nn.Linear(4, 1)
        self.first, self.twice = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.low, self.high = nn.Linear(4, 1), nn.Linear(4, 1)
        self.before_low = nn.Linear(4, 4)
        self.register_buffer("own", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """What may be compiled."""
        return self.norm(self.twice(self.twice(x).tanh()))


def objective(module: Many, rows: Tensor) -> dict[str, Tensor]:
    """The first two rows, which are the first process's, go another way than the others."""
    x, low = rows[:, :4], rows[:, 4:] < 2
    x = module.first(x)
    if low.any():
        x = torch.where(low, module.before_low(x), x)
    x = module(x)
    errors = [
        (head(x).square() * chosen).sum()
        for head, chosen in ((module.low, low), (module.high, ~low))
        if chosen.any()
    ]
    return {"loss": torch.stack(errors).sum() / len(rows), "logged": module.logged(rows[:, :4]).mean()}


def gradients(module: nn.Module) -> dict[str, list[float] | None]:
    """Of every parameter, by its name."""
    return {
        name: None if p.grad is None else p.grad.flatten().tolist() for name, p in module.named_parameters()
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {}
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true", devices=2))
    torch.compile = partial(torch.compile, backend="aot_eager")  # the same graphs, without a C++ compiler
    for name, norm, micro_batches in (("pieces", False, 2), ("compiled", True, 1), ("norm", True, 1)):
        runtime.hardware = dataclasses.replace(runtime.hardware, compile=name == "compiled")
        if name == "norm":
            runtimes.BUCKET_MB = (1e-4, 25.0)  # several pieces, also of these few parameters
        module: nn.Module = Many(norm=norm)
        module.get_buffer("own").add_(runtime.rank)
        with torch.no_grad():
            module.get_parameter("first.weight").add_(runtime.rank)
        module, built = runtime.prepare(module, torch.optim.SGD(module.parameters(), lr=0.0))
        step = TrainStep(
            module,
            built,
            views=lambda batch, generator: batch,
            objective=objective,
            batch_size=len(ROWS),
            seed=0,
            clip_norm=None,
            independent=True,
            micro_batches=micro_batches,
            runtime=runtime,
            say=print,
        )
        inner = unwrap(module)
        inner.get_buffer("own").add_(2 * runtime.rank)
        steps = []
        for number in range(3):
            step(ROWS[list(step.rows)], number)
            steps.append(gradients(inner))
        found[name] = {"steps": steps, "own": float(inner.get_buffer("own")), "rows": list(step.rows)}
    (folder / f"{runtime.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
