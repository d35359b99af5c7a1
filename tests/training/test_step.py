"""Out of memory: smaller pieces of the same batch, or a refusal where that would change the objective."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.plugins.precision.amp import MixedPrecision
from torch import nn

from parts2whole.training.runtime import Hardware, Runtime, resolve_precision
from parts2whole.training.step import MemoryShortage, TrainStep, check_batch, divide_rows
from parts2whole.wholes.loader import LoaderError, Share

ROWS = 6


class Scarce:
    """An objective on a device with room for ``room`` rows."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.seen: list[int] = []

    def __call__(self, module: nn.Module, views: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.seen.append(len(views["whole"]))
        if len(views["whole"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        error = module(views["part"]) - views["whole"].repeat_interleave(2, dim=0)
        return {"loss": error.square().mean()}


def gradients(room: int, *, independent: bool = True, micro_batch: int | None = None):
    torch.manual_seed(0)
    module, said = nn.Linear(3, 3), []
    objective = Scarce(room)
    step = TrainStep(
        module,
        torch.optim.SGD(module.parameters(), lr=0.0),
        views=lambda batch, generator: {"part": batch.repeat_interleave(2, dim=0), "whole": batch},
        objective=objective,
        batch_size=ROWS,
        seed=0,
        clip_norm=None,
        independent=independent,
        micro_batches=1,
        runtime=Runtime(Hardware(accelerator="cpu", precision="32-true", micro_batch=micro_batch)),
        say=said.append,
    )
    batch = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
    losses = [float(step(batch, number)["loss"]) for number in range(2)]
    return losses, module.weight.grad, objective.seen, said


@pytest.mark.parametrize(("room", "too_large"), [(3, [6]), (1, [6, 3, 2])])
def test_a_batch_that_does_not_fit_is_computed_in_pieces(room, too_large):
    whole_losses, whole, _, _ = gradients(ROWS)
    losses, divided, seen, said = gradients(room)
    assert losses == pytest.approx(whole_losses, rel=1e-5)
    torch.testing.assert_close(divided, whole)
    assert [n for n in seen if n > room] == too_large
    assert seen[-ROWS // room :] == [room] * (ROWS // room)
    assert "out of memory at step 1" in said[0]
    assert "effective batch stays 6" in said[-1]


def test_the_size_of_a_piece_may_be_given():
    _, whole, _, _ = gradients(ROWS)
    _, divided, seen, said = gradients(2, micro_batch=2)
    torch.testing.assert_close(divided, whole)
    assert seen == [2] * 6
    assert "micro_batch is 2" in said[0]


class OneOf(Runtime):
    """One of several processes, without the others."""

    rank, ranks = 0, 1

    def __init__(self, rank: int, ranks: int, *, micro_batch: int | None = None) -> None:
        self.rank, self.ranks = rank, ranks
        super().__init__(Hardware(accelerator="cpu", precision="32-true", micro_batch=micro_batch))

    def distribute(self, module: nn.Module) -> nn.Module:
        """The test averages gradients."""
        return module


def mean_by_pieces(numbers: list[float], *, pieces: int = 1, ranks: int = 1) -> tuple[float, list[float]]:
    """The gradient of the mean of ``w * number``, and the losses of all processes, at w = 1."""
    gradients, losses = [], []
    for rank in range(ranks):
        module = nn.Linear(1, 1, bias=False)
        nn.init.ones_(module.weight)
        step = TrainStep(
            module,
            torch.optim.SGD(module.parameters(), lr=0.0),
            views=lambda batch, generator: batch,
            objective=lambda module, rows: {"loss": module(rows).mean()},
            batch_size=len(numbers),
            seed=0,
            clip_norm=None,
            independent=True,
            micro_batches=pieces,
            runtime=OneOf(rank, ranks),
            say=print,
        )
        mine = torch.tensor([numbers[row] for row in step.rows])[:, None]
        losses.append(float(step(mine, 0)["loss"]))
        gradients.append(float(module.weight.grad))
    return sum(gradients) / ranks, losses


def test_uneven_pieces_count_by_their_rows():
    numbers = [1.0, 2.0, 3.0, 4.0, 10.0]  # mean 4; in halves of 2 and 3 rows the means are 1.5 and 17/3
    for pieces in (1, 2, 3, 4, 5):
        assert mean_by_pieces(numbers, pieces=pieces) == (pytest.approx(4), [pytest.approx(4)])


def test_uneven_processes_count_by_their_rows():
    numbers = [1.0, 2.0, 3.0, 4.0, 10.0]
    gradient, losses = mean_by_pieces(numbers, ranks=2)
    assert sorted(losses) in ([1.5, pytest.approx(17 / 3)], [2.0, 7.0])  # 2 and 3 rows, or 3 and 2
    assert gradient == pytest.approx(4)
    assert mean_by_pieces(numbers, ranks=3, pieces=2)[0] == pytest.approx(4)


def one_of_two(rank: int, objective) -> TrainStep:
    module = nn.Linear(1, 1, bias=False)
    return TrainStep(
        module,
        torch.optim.SGD(module.parameters(), lr=0.0),
        views=lambda batch, generator: batch,
        objective=objective,
        batch_size=5,
        seed=0,
        clip_norm=None,
        independent=True,
        micro_batches=1,
        runtime=OneOf(rank, 2, micro_batch=2),
        say=print,
    )


def test_uneven_processes_pass_equally_often():
    steps = [one_of_two(rank, lambda module, rows: {"loss": module(rows).mean()}) for rank in range(2)]
    assert sorted(len(step.rows) for step in steps) == [2, 3]
    assert [step.micro_batches for step in steps] == [2, 2]


def test_one_of_several_does_not_try_again_as_others_have_gone_on():
    def short(module: nn.Module, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    rank = next(rank for rank in range(2) if len(Share(rank, 2).rows(5)) == 3)
    with pytest.raises(MemoryShortage, match=r"resume with --hardware\.micro-batch 1"):
        one_of_two(rank, short)(torch.ones(3, 1), 0)


def test_an_objective_over_the_batch_is_never_changed_in_silence():
    with pytest.raises(MemoryShortage, match="compares the rows of a batch"):
        gradients(3, independent=False)


def test_one_row_that_does_not_fit_is_the_end():
    with pytest.raises(MemoryShortage, match="one row at a time"):
        gradients(0)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(self: Scarce, module: nn.Module, views: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.seen.append(len(views["whole"]))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Scarce, "__call__", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        gradients(1)


def test_views_are_cut_by_row_however_they_come():
    views = {
        "part": torch.arange(12),
        "whole": torch.arange(6),
        "scale": torch.tensor(2.0),
        "name": list("abcdef"),
    }
    pieces = list(divide_rows(views, rows=6, parts=4))
    assert [count for _, count in pieces] == [1, 2, 1, 2]
    assert torch.equal(torch.cat([piece["part"] for piece, _ in pieces]), views["part"])
    assert [name for piece, _ in pieces for name in piece["name"]] == views["name"]
    assert all(float(piece["scale"]) == 2 for piece, _ in pieces)


@pytest.mark.parametrize(("batch_size", "ranks"), [(8, 4), (7, 3), (5, 5)])
def test_every_row_belongs_to_one_process(batch_size, ranks):
    rows = [row for rank in range(ranks) for row in Share(rank, ranks).rows(batch_size)]
    assert rows == list(range(batch_size))


def test_less_than_a_row_for_each_is_refused():
    with pytest.raises(LoaderError, match="at least 4"):
        Share(0, 4).rows(3)


@pytest.mark.parametrize(
    ("batch", "limit", "fits"), [(3, 1, False), (5, 2, True), (4, 1, True), (5, 1, False)]
)
def test_processes_make_equally_many_passes_or_none(monkeypatch, batch, limit, fits):
    monkeypatch.setattr(Runtime, "ranks", 2)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true", micro_batch=limit))
    if fits:
        check_batch(batch, independent=True, runtime=runtime)
        return
    with pytest.raises(MemoryShortage, match=r"micro_batch is 1, .* choose a batch_size divisible by 2"):
        check_batch(batch, independent=True, runtime=runtime)


def small_step(module: nn.Module, optimiser, runtime: Runtime, **changed) -> TrainStep:
    settings = {"batch_size": 2, "seed": 0, "clip_norm": None, "independent": True, "micro_batches": 1}
    return TrainStep(
        module,
        optimiser,
        views=lambda batch, generator: {"x": batch},
        objective=lambda module, views: {"loss": module(views["x"]).float().square().mean()},
        runtime=runtime,
        say=print,
        **settings | changed,
    )


def test_pieces_of_a_checkpoint_are_no_more_than_the_rows_there_are():
    """A run that was divided into eight for want of memory goes on where a device has two rows."""
    runtime, found = Runtime(Hardware(accelerator="cpu", precision="32-true")), []
    for pieces in (1, 8):
        torch.manual_seed(0)
        module = nn.Linear(3, 3)
        step = small_step(module, torch.optim.SGD(module.parameters(), lr=0.1), runtime, micro_batches=pieces)
        found.append((float(step(torch.ones(2, 3), 0)["loss"]), module.weight.detach().clone()))
    assert found[1][0] == pytest.approx(found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1])


def test_a_step_that_overflows_in_float16_is_skipped_with_clipping_too():
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    runtime.fabric.strategy.precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    module = nn.Linear(3, 3)
    wrapped, optimiser = runtime.fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    before = module.weight.detach().clone()
    module.weight.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    scale = runtime.scaler_state()["scale"]
    small_step(wrapped, optimiser, runtime, clip_norm=1.0)(torch.ones(2, 3), 0)
    assert torch.equal(module.weight, before)
    assert runtime.scaler_state()["scale"] < scale


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_that_only_emulates_bfloat16_takes_float16(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation
    )
    assert resolve_precision("auto", "cuda")[0] == precision
