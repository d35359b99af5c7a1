"""What a run says of the time left: steps, every validation that is to come, and what follows them."""

from __future__ import annotations

import json

import pytest

from parts2whole.progress import Left
from parts2whole.run_folder import METRICS
from parts2whole.training import track as tracking
from parts2whole.training.track import Track


class Clock:
    """A clock that only goes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tracking, "time", made)
    return made


def run(
    track: Track, clock: Clock, first: int, last: int, *, step_s: float, validation_s: float = 0.0
) -> None:
    """Steps, and a validation where one is due."""
    for step in range(first, last + 1):
        clock.now += step_s
        track.advance(step)
        if track.every and (step % track.every == 0 or step == track.steps):
            with track.validating():
                clock.now += validation_s


def test_the_time_left_has_validations_and_the_test(tmp_path, clock):
    """Of 25 steps with a validation every 10, there are three; the test is worth two and a half more."""
    with Track(tmp_path, steps=25, name="it", show=False, write=False, validate_every=10, then=2.5) as track:
        assert track.left() is None
        run(track, clock, 1, 9, step_s=2)
        assert track.left() == Left(16 * 2, known=False)
        run(track, clock, 10, 10, step_s=2, validation_s=7)
        assert track.left() == Left(15 * 2 + (2 + 2.5) * 7)
        run(track, clock, 11, 20, step_s=2, validation_s=5)  # later ones are faster than the first
        assert track.left() == Left(5 * 2 + (1 + 2.5) * 5)
        run(track, clock, 21, 25, step_s=2, validation_s=5)
        assert track.left() == Left(2.5 * 5)


def test_the_first_validation_tells_what_all_will_take_while_it_runs(tmp_path, clock):
    with Track(tmp_path, steps=20, name="it", show=False, write=False, validate_every=10, then=1) as track:
        run(track, clock, 1, 9, step_s=1)
        clock.now += 1
        track.advance(10)
        with track.validating():
            clock.now += 3
            track.bar.inner = ("validating", 6, 24)
            assert track.left() == Left(10 * 1 + 3 * 3 + (1 + 1) * 12)


def test_a_run_that_is_gone_on_with_has_only_what_is_missing(tmp_path, clock):
    track = Track(tmp_path, steps=100, name="it", first_step=95, show=False, write=False, validate_every=50)
    with track:
        run(track, clock, 96, 97, step_s=4)
        assert track.left() == Left(3 * 4, known=False)


def test_what_to_expect_and_how_to_see_curves_is_said_once(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "_told", set())
    for name in ("a", "b b"):
        (tmp_path / name).mkdir()
        with Track(tmp_path / name, steps=40, name="it", validate_every=10, then=3) as track:
            run(track, clock, 1, 40, step_s=3, validation_s=10)
    said = capsys.readouterr().err
    assert said.count("tensorboard --logdir") == 1
    assert said.count("About 2:30 left, validations and the test included") == 2  # 30 * 3 + 6 * 10


def test_records_are_what_they_were(tmp_path, clock):
    with Track(tmp_path, steps=2, name="it", show=False) as track:
        clock.now += 1.5
        track.record(1, "train", {"loss": 0.25, "samples_per_s": float("inf")})
    (line,) = (tmp_path / METRICS).read_text().splitlines()
    assert json.loads(line) == {
        "step": 1,
        "time_s": 1.5,
        "split": "train",
        "loss": 0.25,
        "samples_per_s": None,
    }
