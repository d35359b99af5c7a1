from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from parts2whole.training.checkpoint import (
    CheckpointError,
    Progress,
    list_checkpoints,
    load_best,
    load_checkpoint,
)
from parts2whole.training.loop import FitError, Interrupted, Plan, fit
from parts2whole.training.optim import AdamW, Constant, Cosine, Plateau, parameter_groups
from parts2whole.training.runtime import Hardware, Runtime


class Numbers(Dataset[Tensor]):
    def __getitem__(self, number: int) -> Tensor:
        return torch.randn(3, generator=torch.Generator().manual_seed(number))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.encoder(x).relu()))


def objective(module: nn.Module, views: Tensor) -> dict[str, Tensor]:
    return {"loss": (module(views) - views.sum(dim=1, keepdim=True)).square().mean()}


def run(folder: Path, *, steps: int = 40, resume: bool = False, on_step=None, schedule=None, **plan) -> Small:
    folder.mkdir(exist_ok=True)
    module = Small()
    settings = {"batch_size": 4, "log_every": 5, "validate_every": 10, "checkpoint_every": 10} | plan

    def validate(module: nn.Module, step: int) -> dict[str, float]:
        x = torch.stack([Numbers()[10_000 + i] for i in range(32)])
        return {"loss": float(objective(module, x)["loss"])}

    module.progress = fit(
        module,
        views=lambda batch, generator: batch + 0.1 * generator.normal(3),
        objective=objective,
        samples=Numbers(),
        groups=parameter_groups(module),
        optimiser=AdamW(lr=0.02),
        schedule=schedule or Cosine(),
        plan=Plan(steps=steps, **settings),
        runtime=Runtime(Hardware(accelerator="cpu", precision="32-true")),
        folder=folder,
        name="test",
        validate=validate,
        on_step=on_step,
        resume=resume,
        show=False,
    )
    return module


def records(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time_s", "samples_per_s")} for line in lines]


def test_it_learns_and_logs(tmp_path):
    module = run(tmp_path, steps=200)
    losses = [r["loss"] for r in records(tmp_path) if r["split"] == "validation"]
    assert losses[-1] < 0.5 * losses[0]
    assert module.progress.step == 200
    assert module.progress.best == min(losses)


@pytest.mark.parametrize("stop_at", [10, 17, 30])
def test_a_stopped_and_resumed_run_is_the_run(tmp_path, stop_at):
    whole = run(tmp_path / "whole")

    def stop(module: nn.Module, step: int) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"step {stop_at}.*--resume"):
        run(tmp_path / "parts", on_step=stop)
    again = run(tmp_path / "parts", resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert records(tmp_path / "whole") == records(tmp_path / "parts")


def test_a_validation_before_the_first_step_is_recorded_and_changes_nothing(tmp_path):
    settings = {"schedule": Plateau(patience=0, min_delta=10.0), "patience": 3, "keep_best": True}
    plain = run(tmp_path / "plain", **settings)
    first = run(tmp_path / "first", validate_first=True, **settings)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, first.state_dict()[key]), key
    (start, *others) = records(tmp_path / "first")
    assert others == records(tmp_path / "plain")
    untrained = objective(Small().eval(), torch.stack([Numbers()[10_000 + i] for i in range(32)]))
    assert start == {"step": 0, "split": "validation", "loss": pytest.approx(untrained["loss"].item())}
    assert dataclasses.replace(first.progress, seconds=0) == dataclasses.replace(plain.progress, seconds=0)


@pytest.mark.parametrize("stop_at", [3, 17])
def test_a_resumed_run_has_one_validation_before_the_first_step(tmp_path, stop_at):
    """Whether it goes on from a checkpoint, or starts again because there was none yet."""

    def stop(module: nn.Module, step: int) -> None:
        if step == stop_at:
            raise KeyError

    whole = run(tmp_path / "whole", validate_first=True)
    with pytest.raises(KeyError):
        run(tmp_path / "parts", validate_first=True, on_step=stop)
    again = run(tmp_path / "parts", validate_first=True, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert records(tmp_path / "whole") == records(tmp_path / "parts")


def test_a_plateau_is_where_it_was_after_a_resume(tmp_path):
    schedule = Plateau(patience=0, min_delta=10.0)
    whole = run(tmp_path / "whole", schedule=schedule)
    run(tmp_path / "parts", steps=20, schedule=schedule)
    again = run(tmp_path / "parts", resume=True, schedule=schedule)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    run(tmp_path, steps=20)
    newest = list_checkpoints(tmp_path)[-1]
    later = newest.with_name("step-00000099.ckpt")
    later.write_bytes(newest.read_bytes()[:100])
    later.with_suffix(".sha256").write_text("0" * 64)
    module = Small()
    optimiser = AdamW().build(parameter_groups(module))
    progress, _, messages = load_checkpoint(tmp_path, module=module, optimiser=optimiser)
    assert progress.step == 20
    assert "step-00000099.ckpt is damaged" in messages[0]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(tmp_path, steps=10)
    module = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="doesn't fit this network"):
        load_checkpoint(tmp_path, module=module, optimiser=torch.optim.SGD(module.parameters()))


def test_the_two_newest_checkpoints_stay(tmp_path):
    run(tmp_path)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000030.ckpt", "step-00000040.ckpt"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def spoil(module: nn.Module, step: int) -> None:
        if step == 12:
            nn.init.constant_(module.head.bias, float("nan"))

    with pytest.raises(
        FitError, match=r"not finite at step 13, in a batch of samples 48 to 51.*step-00000010\.ckpt"
    ):
        run(tmp_path, on_step=spoil)
    assert (tmp_path / "checkpoints" / "step-00000010.ckpt").exists()


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    def fill(module: nn.Module, step: int) -> None:
        if step == 20:
            monkeypatch.setattr(
                torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("no space left"))
            )

    with pytest.raises(CheckpointError, match=r"ckpt: no space is left for .*--resume"):
        run(tmp_path, on_step=fill)
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "checkpoints").glob("*.ckpt")] == ["step-00000010.ckpt"]
    whole, again = run(tmp_path.parent / "whole"), run(tmp_path, resume=True)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


def run_with(folder: Path, figures: list[dict[str, float]], **plan) -> tuple[Progress, list[Small]]:
    """Train with made-up validation values; also every module as it was validated."""
    module, seen = Small(), []

    def validate(module: nn.Module, step: int) -> dict[str, float]:
        seen.append(copy.deepcopy(module))
        return figures[len(seen) - 1]

    settings = {"batch_size": 4, "validate_every": 10, "monitor": "dice", "higher_is_better": True} | plan
    progress = fit(
        module,
        views=lambda batch, generator: batch,
        objective=objective,
        samples=Numbers(),
        groups=parameter_groups(module),
        optimiser=AdamW(),
        schedule=Constant(),
        plan=Plan(steps=10 * len(figures), keep_best=True, **settings),
        runtime=Runtime(Hardware(accelerator="cpu", precision="32-true")),
        folder=folder,
        name="test",
        validate=validate,
        show=False,
    )
    return progress, seen


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([{"dice": 0.0}] * 4, 40),
        ([{"dice": math.nan}] * 3, 30),
        ([{"dice": math.nan, "loss": loss} for loss in (0.5, 0.2, 0.3)], 20),
        ([{"dice": math.nan}, {"dice": 0.5}, {"dice": 0.5}, {"dice": 0.1}], 30),
    ],
)
def test_an_undefined_or_tied_value_never_keeps_the_first_weights(tmp_path, figures, kept):
    progress, seen = run_with(tmp_path, figures)
    assert progress.best_step == kept
    restored = Small()
    assert load_best(tmp_path, restored, progress.best_step)
    for key, value in seen[kept // 10 - 1].state_dict().items():
        assert torch.equal(restored.state_dict()[key], value)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan])
def test_an_undefined_or_tied_value_stops_nothing_early(tmp_path, value):
    assert run_with(tmp_path, [{"dice": value}] * 6, patience=1)[0].step == 60


def test_after_a_tie_patience_counts_from_the_first_change(tmp_path):
    values = [0.0, 0.0, 0.0, 0.0, 0.6, 0.5, 0.4, 0.3, 0.2]
    progress, _ = run_with(tmp_path, [{"dice": value} for value in values], patience=2)
    assert (progress.step, progress.best_step) == (80, 50)


def test_early_stopping_counts_validations_since_the_best(tmp_path):
    module = run(tmp_path, steps=4000, patience=3, schedule=Constant())
    assert module.progress.step < 4000
    assert module.progress.step == module.progress.best_step + 4 * 10


def test_the_rate_of_every_step_is_the_schedules(tmp_path):
    run(tmp_path, steps=5, log_every=1, schedule=Cosine(warmup_fraction=0.4, final_fraction=0.0))
    rates = [(r["step"], r["lr"]) for r in records(tmp_path) if r["split"] == "train"]
    # base 0.02; warm-up over steps 0 and 1, then half a cosine over the other three
    expected = [1 / 3, 2 / 3, 1.0, 0.75, 0.25]
    assert rates == [(step + 1, pytest.approx(0.02 * factor)) for step, factor in enumerate(expected)]
