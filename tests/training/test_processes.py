"""Two processes train what one does, and none is left behind when another dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "benchmarks" / "many_processes.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_two_processes_are_one_for_every_method(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for out, command in ((one, [sys.executable]), (two, TORCHRUN)):
        done = start([*command, SCRIPT, str(out), "--batch", "4", "--steps", "3"])
        assert done.returncode == 0, done.stderr[-2000:]
    alone, together = json.loads(one.read_text()), json.loads(two.read_text())
    assert alone.keys() == together.keys()
    for name, expected in alone.items():
        assert together[name]["losses"] == pytest.approx(expected["losses"], rel=2e-3), name
        assert together[name]["losses"][0] == pytest.approx(expected["losses"][0], rel=1e-5), name


def test_one_that_dies_stops_all_and_leaves_a_checkpoint(tmp_path):
    runs = ["--runs", str(tmp_path), "--methods", "Autoencoder"]
    done = start([*TORCHRUN, SCRIPT, str(tmp_path / "x.json"), *runs, "--die", "1"])
    assert done.returncode != 0
    assert not (tmp_path / "x.json").exists()
    assert [p.name for p in (tmp_path / "Autoencoder" / "checkpoints").glob("*.ckpt")] == [
        "step-00000001.ckpt"
    ]
