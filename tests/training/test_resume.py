"""Every method, stopped at any step and resumed, is the run that was never stopped: weights, queues and log."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from parts2whole.methods.base import Method
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import discover
from parts2whole.training.checkpoint import drop_later, load_best, save_best
from parts2whole.training.lock import list_checkpoints
from parts2whole.training.loop import Interrupted, Plan, fit
from parts2whole.training.optim import AdamW, Plateau, parameter_groups
from parts2whole.training.runtime import Hardware, Runtime

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "many_processes.py"
METHODS = discover(Method, "parts2whole.methods")
EXACT = Hardware(accelerator="cpu", precision="32-true")


@pytest.fixture(scope="module")
def trial():
    spec = importlib.util.spec_from_file_location("many_processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(
    trial, method: Method, folder: Path, *, stop_at: int | None = None, resume: bool = False
) -> nn.Module:
    torch.manual_seed(0)
    module = method.build(UNet3D(size="tiny"), in_channels=1, whole_size=trial.WHOLE)
    folder.mkdir(exist_ok=True)

    def stop(module: nn.Module, step: int) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGUSR1)

    def validate(module: nn.Module, step: int) -> dict[str, float]:
        return {"loss": float(sum(p.double().square().sum() for p in module.parameters()))}

    fit(
        module,
        views=lambda batch, generator: trial.make_views(method, batch, generator),
        objective=method.loss,
        samples=trial.Blobs(method),
        groups=parameter_groups(module),
        optimiser=AdamW(lr=0.01),
        schedule=Plateau(patience=0, min_delta=1e3),
        plan=Plan(steps=5, batch_size=2, log_every=4, validate_every=2, checkpoint_every=2, keep_best=True),
        runtime=Runtime(EXACT),
        folder=folder,
        name="trial",
        validate=validate,
        on_step=stop,
        resume=resume,
        show=False,
    )
    return module


def log(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time_s", "samples_per_s")} for line in lines]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_resumes_to_the_bit(trial, name, tmp_path):
    method = trial.small(METHODS[name])
    whole = train(trial, method, tmp_path / "whole")
    with pytest.raises(Interrupted, match="step 3") as stopped:
        train(trial, method, tmp_path / "parts", stop_at=3)
    assert stopped.value.exit_code == 75
    again = train(trial, method, tmp_path / "parts", resume=True)
    assert whole.state_dict().keys() == again.state_dict().keys()
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert log(tmp_path / "whole") == log(tmp_path / "parts")


def test_a_damaged_newest_checkpoint_costs_one_interval(trial, tmp_path, capsys):
    method = trial.small(METHODS["Parts2Whole"])
    whole = train(trial, method, tmp_path)
    before = log(tmp_path)
    newest = list_checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    again = train(trial, method, tmp_path, resume=True)
    assert f"{newest.name} is damaged" in capsys.readouterr().err.replace("\n", " ")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())
    assert log(tmp_path) == before


def test_the_best_weights_are_those_the_checkpoint_knows(tmp_path):
    """Weights that became the best after the checkpoint belong to a future that may come differently."""
    module = nn.Linear(1, 1)
    save_best(tmp_path, module, 4)
    save_best(tmp_path, nn.Linear(1, 1), 6)
    drop_later(tmp_path, 5)
    other = nn.Linear(1, 1)
    assert not load_best(tmp_path, other, 6)
    assert load_best(tmp_path, other, 4)
    assert torch.equal(other.weight, module.weight)


def test_what_was_half_written_when_a_run_was_killed_is_removed_wherever_it_ran(tmp_path):
    save_best(tmp_path, nn.Linear(1, 1), 4)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    for name in (".step-00000008.ckpt.0a1b2c3d.another-node.17.part", ".best-8.safetensors.ff.gone.18.part"):
        (kept.parent / name).touch()
    drop_later(tmp_path, 5)
    assert list(kept.parent.iterdir()) == [kept]
