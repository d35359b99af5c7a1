"""Trains methods for a few steps on one or more processes and writes what came out; run by test_devices.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.methods.contrast import gather_rows
from parts2whole.training.runtime import Hardware, Runtime, unwrap
from parts2whole.training.step import Computation
from parts2whole.wholes.random import BatchGenerator

WHOLE = (8, 8, 16)
ROWS = 4
METHODS = {
    "SimCLR": p2w.SimCLR(),
    "MoCo": p2w.MoCo(queue=10, momentum=0.8),
    "Exemplar": p2w.Exemplar(bank=ROWS),
    "VolumeFusion": p2w.VolumeFusion(),
    "Parts2WholeContrast": p2w.Parts2WholeContrast(contrast_weight=0.3),
}


def train(method: Method, runtime: Runtime) -> dict:
    torch.manual_seed(0)
    module = method.build(p2w.UNet3D("tiny", norm="instance"), in_channels=1, whole_size=WHOLE)
    module, optimiser = runtime.prepare(module, torch.optim.SGD(module.parameters(), lr=0.1))
    computed = runtime.distribute(Computation(module, method.loss))
    losses = []
    rows = ROWS // runtime.ranks
    for step in range(3):
        wholes = torch.rand(ROWS, 1, *WHOLE, generator=torch.Generator().manual_seed(step))
        mine = wholes[runtime.rank * rows :][:rows]
        generator = BatchGenerator.of_step(step, rows=rows, rank=runtime.rank, ranks=runtime.ranks)
        optimiser.zero_grad()
        loss = computed(method.views(mine, generator))["loss"]
        runtime.backward(loss)
        optimiser.step()
        losses.append(float(gather_rows(loss.detach()[None])[0].mean()))
    inner = unwrap(module)
    return {
        "losses": losses,
        "state": {key: value.double().abs().sum().item() for key, value in inner.state_dict().items()},
        "queue": inner.queue.tolist() if hasattr(inner, "queue") else [],
    }


def main(devices: int, folder: Path) -> None:
    torch.set_num_threads(1)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true", devices=devices))
    found = {name: train(method, runtime) for name, method in METHODS.items()}
    (folder / f"{devices}-{runtime.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
