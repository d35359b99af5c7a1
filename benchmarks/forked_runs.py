"""Small pre-trainings in forked processes, for `reliability.py`: start, wait, compare."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.store import Store
from parts2whole.training.runtime import Hardware

EXACT = Hardware(accelerator="cpu", precision="32-true")


def make_store(path: Path) -> None:
    store = Store.create(path, preprocess=Preprocess(modality="unit"))
    for case in range(6):
        generator = np.random.default_rng(case)
        coarse = generator.integers(0, 30000, (6, 6, 6)).astype(np.int16)
        voxels = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
        store.write_volume(f"case{case}", Volume(voxels, (1.0, 1.0, 1.0)), patient=f"p{case}")
    store.finish()


def pretrain(work: Path, out: Path, *, steps: int = 24, method: Method | None = None) -> None:
    p2w.pretrain(
        work / "store",
        out=out,
        method=method or p2w.Parts2Whole(),
        network=p2w.UNet3D(size="tiny"),
        steps=steps,
        batch_size=4,
        whole_size=(8, 16, 16),
        validation_fraction=0.34,
        validation_wholes=4,
        validate_every=5,
        panel_every=10,
        checkpoint_every=3,
        hardware=EXACT,
        resume="auto",
        progress=False,
    )


def start(action: Callable[[], None]) -> int:
    """Run in a forked process; returns its id. Its exit code is the action's."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            action()
        code = 0
    except KeyboardInterrupt as stopped:
        code = getattr(stopped, "exit_code", 130)
    except BaseException as error:
        Path(tempfile.gettempdir(), f"error-{os.getpid()}").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def wait(child: int, seconds: float | None = None) -> int | None:
    """Exit code of a child (negative for a signal), or None if it still runs after ``seconds``."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        done, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def said(child: int) -> str:
    path = Path(tempfile.gettempdir(), f"error-{child}")
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


def same(one: Path, other: Path) -> bool:
    """Whether two finished runs have the same weights, to the bit, and the same log but for times."""
    a, b = (load_file(run / "weights" / "model.safetensors") for run in (one, other))
    logs = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, other)]
    records = [
        [{k: v for k, v in json.loads(line).items() if k not in ("time_s", "samples_per_s")} for line in log]
        for log in logs
    ]
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) and records[0] == records[1]
