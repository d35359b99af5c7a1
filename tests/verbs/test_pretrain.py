"""What `pretrain` refuses before it writes anything, what its folder says, and how it begins again."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch
import yaml

import parts2whole as p2w
from brief import write_noise
from parts2whole.errors import Parts2WholeError
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.spec import to_plain
from parts2whole.store.store import Store
from parts2whole.training.folder import RunFolderError
from parts2whole.training.optim import AdamW, Constant, Cosine
from parts2whole.training.runtime import Hardware
from parts2whole.weights.card import Card

EXACT = Hardware(accelerator="cpu", precision="32-true")
SMALL = {
    "network": p2w.UNet3D(size="tiny"),
    "whole_size": (8, 8, 8),
    "steps": 2,
    "batch_size": 2,
    "validation_wholes": 2,
    "embed_wholes": 0,
    "hardware": EXACT,
    "progress": False,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_noise(tmp_path_factory.mktemp("s") / "store")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store": "nowhere"}, "nowhere is not a store"),
        ({"init": "nowhere"}, "nowhere doesn't exist; give"),
        ({"method": "Parts2Whole"}, "method must be a Method, such as .*Autoencoder"),
        ({"network": "UNet3D"}, "network must be a Network, such as"),
        ({"where": "lungs"}, "where must be a Where"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"validate_every": 0}, "validate_every must be 1 or more, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be 1 or more, got 0"),
        ({"panel_every": 0}, "panel_every must be 1 or more, got 0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, or none, got 0.0"),
        ({"validation_wholes": 0}, "validation_wholes must be 1 or more, got 0"),
        ({"embed_wholes": -1}, "embed_wholes must be 0 or more, got -1"),
        ({"method": p2w.SimCLR(), "batch_size": 1}, "at least 2 wholes in a batch, got 1"),
        ({"method": p2w.SimCLR(), "validation_wholes": 1}, "at least 2 wholes in a batch, got 1"),
        ({"method": p2w.MoCo(queue=1)}, "a batch of 2 wholes doesn't fit into a queue of 1"),
        ({"whole_size": (8, 8, 12)}, r"whole_size must be divisible by 8 for this network, got \(8, 8, 12\)"),
        ({"whole_size": (8, 8)}, r"whole_size must be three edges \(z, y, x\) above 0, got \(8, 8\)"),
        ({"whole_mm": (8.0, 0.0, 8.0)}, "whole_mm must be three edges"),
        ({"validation_fraction": 1.0}, r"shares must be in \[0, 1\)"),
        ({"weights": "cases"}, "weights must be scans, voxels"),
        ({"preset": "old"}, "unknown preset 'old'"),
        ({"optimiser": lambda: AdamW(lr=0)}, "lr must be above 0, got 0"),
        ({"schedule": lambda: Cosine(warmup_fraction=2)}, r"warmup_fraction must be in \[0, 1\], got 2"),
        ({"hardware": lambda: EXACT.replace(precision="fp8")}, "precision must be one of auto, 32-true"),
        ({"hardware": EXACT.replace(accelerator="abacus")}, "accelerator 'abacus' .* can't be had"),
        ({"hardware": EXACT.replace(micro_batch=1), "method": p2w.SimCLR()}, "micro_batch is 1, a device has 2 rows"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)  # fmt: skip
def test_a_wrong_setting_is_named_and_leaves_nothing(store, tmp_path, settings, message):
    def attempt() -> None:
        made = {name: value() if inspect.isfunction(value) else value for name, value in settings.items()}
        p2w.pretrain(**{"store": store, "out": tmp_path / "runs" / "run"} | SMALL | made)

    with pytest.raises(Parts2WholeError, match=message):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_all_settings_are_kept_as_they_were_given(store, tmp_path):
    given = {"store": store, "out": tmp_path / "run"} | SMALL | {"optimiser": AdamW(lr=1e-3), "seed": 5}
    p2w.pretrain(**given)
    parameters = inspect.signature(p2w.pretrain).parameters.values()
    expected = {p.name: to_plain(given.get(p.name, p.default)) for p in parameters}
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept == expected
    assert list(kept) == list(expected)


def test_a_run_that_dies_before_its_first_checkpoint_is_overwritten(store, tmp_path, monkeypatch):
    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Parts2Whole, "loss", die)
        with pytest.raises(Died):
            p2w.pretrain(store, out=tmp_path / "run", **SMALL)
    assert (tmp_path / "run" / "config.yaml").exists()
    done = p2w.pretrain(store, out=tmp_path / "run", **SMALL | {"steps": 3})
    assert done.result["steps"] == 3
    with pytest.raises(RunFolderError, match="already holds a finished run"):
        p2w.pretrain(store, out=tmp_path / "run", **SMALL)


STILL = {"optimiser": AdamW(lr=1e-12, weight_decay=0), "schedule": Constant()}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(p2w.load_encoder(run).state_dict())


def test_a_pretraining_begins_with_the_weights_of_another(store, tmp_path):
    other = write_noise(tmp_path / "other", range(50, 53))
    p2w.pretrain(other, out=tmp_path / "first", **SMALL)
    first = dataclasses.replace(Card.read(tmp_path / "first" / "weights"), series=("1.5",))
    first.write(tmp_path / "first" / "weights")
    begun = p2w.pretrain(store, out=tmp_path / "second", init=tmp_path / "first", **SMALL | STILL)
    assert begun.result["init"] == str(tmp_path / "first")
    assert not [note for note in begun.result["notes"] if "validation scans" in note]
    found, expected = weights_of(tmp_path / "second"), weights_of(tmp_path / "first")
    for key, value in expected.items():
        if "running" not in key and "tracked" not in key:
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-9)
    second = Card.read(tmp_path / "second" / "weights")
    scans = [*Store.open(store).cases, *Store.open(tmp_path / "other").cases]
    assert set(second.seen) == {found for record in scans for found in record.hashes()}
    assert second.series == ("1.5",)
    assert (second.steps, second.begun_from["steps"]) == (2, 2)
    third = p2w.pretrain(store, out=tmp_path / "third", init=tmp_path / "second", **SMALL)
    assert any("trained on 1 of 1 validation scans" in note for note in third.result["notes"])


def test_a_run_can_be_made_longer_where_its_schedule_allows_it(store, tmp_path, monkeypatch):
    settings = SMALL | {"schedule": Constant()}
    p2w.pretrain(store, out=tmp_path / "whole", **settings | {"steps": 5})
    p2w.pretrain(store, out=tmp_path / "run", **settings)
    loss, calls = Parts2Whole.loss, []

    def die(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise InterruptedError
        return loss(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Parts2Whole, "loss", die)
        with pytest.raises(InterruptedError):
            p2w.pretrain(store, out=tmp_path / "run", **settings | {"steps": 5, "resume": True})
    assert not (tmp_path / "run" / "result.json").exists()  # it isn't finished any more
    done = p2w.pretrain(store, out=tmp_path / "run", **settings | {"steps": 5, "resume": True})
    assert done.result["steps"] == 5
    found = weights_of(tmp_path / "run")
    assert all(torch.equal(value, found[key]) for key, value in weights_of(tmp_path / "whole").items())
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["steps"] == 5
    assert Card.read(tmp_path / "run" / "weights").steps == 5
    with monkeypatch.context() as patch:
        patch.setattr(Parts2Whole, "loss", die)
        again = p2w.pretrain(store, out=tmp_path / "run", **settings | {"steps": 5, "resume": True})
    assert again.result == done.result


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"steps": 3},
            "planned for 2 steps, and Cosine divides its rates over them: a run of 3 steps would have",
        ),
        ({"steps": 1}, "planned for 2 steps and can't be made shorter, got 1"),
        ({"steps": 3, "seed": 1}, "other settings: seed: was 0, now 1$"),
    ],
)
def test_a_run_that_can_not_be_made_longer_stays_as_it_is(store, tmp_path, settings, message):
    done = p2w.pretrain(store, out=tmp_path / "run", **SMALL)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(Parts2WholeError, match=message):
        p2w.pretrain(store, out=tmp_path / "run", **SMALL | settings | {"resume": True})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert p2w.pretrain(store, out=tmp_path / "run", **SMALL | {"resume": True}).result == done.result
