"""Whatever part of a module each process uses, all get the gradient of the mean over the global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.shared_gradients import ROWS, Many, gradients, objective

SCRIPT = Path(__file__).with_name("shared_gradients.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What came out on each of two processes."""
    folder = tmp_path_factory.mktemp("gradients")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", ["pieces", "norm", "compiled"])
def test_gradients_are_those_of_the_whole_batch(found, name):
    alone = Many(norm=name != "pieces")
    objective(alone, ROWS)["loss"].backward()
    expected = gradients(alone)
    assert [rank[name]["rows"] for rank in found] in ([[0, 1], [2, 3, 4]], [[0, 1, 2], [3, 4]])
    for rank in found:
        for step in rank[name]["steps"]:
            assert step.keys() == expected.keys()
            for key, gradient in expected.items():
                known = gradient if gradient is None else pytest.approx(gradient, rel=1e-4, abs=1e-6)
                assert step[key] == known, key


def test_what_no_process_trains_has_no_gradient(found):
    for rank in found:
        for name in ("never.weight", "logged.weight"):
            assert rank["pieces"]["steps"][-1][name] is None


def test_all_start_from_the_first_and_buffers_are_left_alone_after(found):
    assert [rank["norm"]["own"] for rank in found] == [0.0, 2.0]
