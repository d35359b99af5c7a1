"""Loss curves of every method on the processes it is started with, for comparing one with several.

    python benchmarks/many_processes.py one.json
    torchrun --nproc-per-node 4 benchmarks/many_processes.py four.json --batch 8

The curve, the validation values and the weights' norm of four processes must be those of one.  With
``--die RANK`` that process leaves without a word after its second step, as on a node that fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from parts2whole.methods.base import Method, make_views
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover
from parts2whole.training.loop import Plan, fit
from parts2whole.training.optim import SGD, Constant, parameter_groups
from parts2whole.training.runtime import Hardware, Runtime

WHOLE = (8, 16, 16)
SMALL = {"queue": 32, "bank": 16}
"""Fields that would be large for a trial, where a method has them."""


class Blobs(Dataset[Tensor]):
    """Smooth random wholes, a function of their number; for a method with a bank, its members."""

    def __init__(self, method: Method) -> None:
        self.bank = getattr(method, "bank", None)

    def __getitem__(self, number: int) -> Any:
        member = number if self.bank is None else number % self.bank
        coarse = torch.rand(1, 1, 2, 4, 4, generator=torch.Generator().manual_seed(member))
        whole = nn.functional.interpolate(coarse, size=WHOLE, mode="trilinear")[0]
        return whole if self.bank is None else {"whole": whole, "number": member}


def small(member: type[Method]) -> Method:
    """A method with its large fields made small."""
    fields = {field.name for field in dataclasses.fields(member)}
    return member(**{name: value for name, value in SMALL.items() if name in fields})


def curve(method: Method, runtime: Runtime, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train a few steps; losses, and the norm of the weights and buffers at the end."""
    torch.manual_seed(0)
    module = method.build(UNet3D(size="tiny", norm=given.norm), in_channels=1, whole_size=WHOLE)
    folder.mkdir(parents=True, exist_ok=True)

    def leave(module: nn.Module, step: int) -> None:
        if step == 2 and runtime.rank == given.die:
            os._exit(9)

    fit(
        module,
        views=lambda batch, generator: make_views(method, batch, generator),
        objective=method.loss,
        samples=Blobs(method),
        groups=parameter_groups(module),
        optimiser=SGD(lr=0.05),
        schedule=Constant(),
        plan=Plan(
            steps=given.steps,
            batch_size=given.batch,
            log_every=1,
            checkpoint_every=1,
            clip_norm=1.0,
            independent=method.rows_are_independent,
        ),
        runtime=runtime,
        folder=folder,
        name=type(method).__name__,
        on_step=leave,
        resume=given.resume,
        show=False,
    )
    runtime.barrier()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    norms = {key: float(value.double().norm()) for key, value in module.state_dict().items()}
    return {"losses": [record["loss"] for record in records], "norms": norms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--norm", default="batch")
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--die", type=int)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true", timeout_minutes=0.75))
    runs = given.runs or Path(runtime.from_main(tempfile.mkdtemp()))
    found = {}
    for name, member in discover(Method, "parts2whole.methods").items():
        if given.methods and name not in given.methods:
            continue
        method = small(member)
        if given.batch % runtime.ranks and not method.rows_are_independent:
            continue
        found[name] = curve(method, runtime, runs / name, given)
    if runtime.is_main:
        given.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
