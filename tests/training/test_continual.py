"""What a pre-training begins from, what it passes on, and which runs can be made longer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import parts2whole as p2w
from parts2whole.errors import Parts2WholeError
from parts2whole.methods.base import Method
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.spec import discover
from parts2whole.store.store import Store
from parts2whole.training.continual import Beginning, ContinualError, begin_from, check_longer
from parts2whole.training.optim import Constant, Cosine, Plateau, Sawtooth, Schedule
from parts2whole.training.transfer import TransferError
from parts2whole.weights.card import Card
from parts2whole.weights.native import save_encoder

TINY = p2w.UNet3D(size="tiny")
CT = Preprocess(modality="CT", window_hu=(-500, 500))
METHODS = discover(Method, "parts2whole.methods")


def make_card(**fields) -> Card:
    plain = {
        "network": TINY, "in_channels": 1, "preprocess": CT, "whole_size": (8, 8, 8), "whole_mm": None,
        "spacing_mm": (1.0, 1.0, 1.0), "method": {"class_path": "SimCLR"}, "steps": 7, "seen": ("b", "c"),
        "fingerprint": "f", "citation": "theirs", "licence": "CC-BY", "series": ("1.2", "1.3"),
    }  # fmt: skip
    return Card(**plain | fields)


@pytest.fixture
def weights(tmp_path) -> Path:
    (tmp_path / "weights").mkdir()
    torch.manual_seed(3)
    save_encoder(tmp_path / "weights", TINY.build_encoder(1), make_card())
    return tmp_path / "weights"


def make_store(folder: Path, preprocess: Preprocess = CT, *, channels: int = 1) -> Store:
    store = Store.create(folder, preprocess=preprocess)
    for case in range(3):
        shape = (channels, 8, 8, 8) if channels > 1 else (8, 8, 8)
        voxels = np.random.default_rng(case).integers(-900, 900, shape).astype(np.int16)
        store.write_volume(f"c{case}", Volume(voxels, (1.0, 1.0, 1.0)), patient=f"p{case}", modality="CT")
    store.finish()
    return Store.open(folder)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_begins_with_the_weights(name, weights, tmp_path):
    beginning = begin_from(weights, TINY, make_store(tmp_path / "s"), held_out=None)
    torch.manual_seed(0)
    module = METHODS[name]().build(beginning.network, in_channels=1, whole_size=(16, 16, 16))
    expected = p2w.load_encoder(weights).state_dict()
    encoders = [module.encoder] + ([module.key.encoder] if hasattr(module, "key") else [])
    for encoder in encoders:
        assert all(torch.equal(value, expected[key]) for key, value in encoder.state_dict().items())
    with torch.no_grad():
        next(module.encoder.parameters()).zero_()
    again = beginning.network.build_encoder(1).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.items())
    assert beginning.notes == ()


def test_scratch_is_the_network_and_changes_no_card(tmp_path):
    beginning = begin_from("scratch", TINY, make_store(tmp_path / "s"), held_out=None)
    assert beginning == Beginning(TINY)
    assert beginning.pass_on(make_card()) is not None
    assert beginning.pass_on(make_card()) == make_card()
    assert beginning.tell_seen(make_store(tmp_path / "t"), ("c0",)) == []


def test_the_new_card_has_also_seen_what_the_old_one_has():
    new = make_card(seen=("a", "b"), series=("1.1", "1.2"), citation="ours", licence="default", steps=9)
    card = Beginning(TINY, make_card(begun_from={"steps": 2})).pass_on(new)
    assert card.seen == ("a", "b", "c")
    assert card.series == ("1.1", "1.2", "1.3")
    assert card.fingerprint not in (new.fingerprint, "f")
    assert (card.citation, card.licence, card.steps) == ("ours; theirs", "CC-BY", 9)
    assert card.begun_from == {
        "method": {"class_path": "SimCLR"}, "steps": 7, "fingerprint": "f", "fetched": "", "origin": {},
            "begun_from": {"steps": 2},
    }  # fmt: skip
    untouched = {"seen", "series", "fingerprint", "citation", "licence", "begun_from"}
    for field in dataclasses.fields(Card):
        assert field.name in untouched or getattr(card, field.name) == getattr(new, field.name)


def test_validation_scans_that_the_weights_know_are_told(tmp_path):
    store = make_store(tmp_path / "s")
    known = store.record("c1").hashes()
    beginning = Beginning(TINY, make_card(seen=tuple(known), series=("", "c2")))
    (note,) = beginning.tell_seen(store, ("c0", "c1", "c2"))
    assert note.startswith("the weights of init were trained on 2 of 3 validation scans")
    assert beginning.tell_seen(store, ("c0",)) == []


@pytest.mark.parametrize(
    ("network", "store", "error", "message"),
    [
        (
            p2w.UNet3D(size="small"),
            {},
            ContinualError,
            r"weights are of UNet3D\(size='tiny'.*not of UNet3D\(size='small'.*; give their network",
        ),
        (TINY, {"channels": 2}, TransferError, "expect 1 input channels, the data have 2"),
        (
            TINY,
            {"preprocess": Preprocess(modality="CT", window_hu=(-1000, 1000))},
            TransferError,
            r"with window \(-500.*, this store uses \(-1000.*; prepare the scans with the --window-hu of the weights",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(network, store, error, message, weights, tmp_path):
    scans = make_store(tmp_path / "s", **store)
    with pytest.raises(error, match=message):
        begin_from(weights, network, scans, held_out=None)


def test_weights_that_are_nowhere_are_refused(tmp_path):
    with pytest.raises(Parts2WholeError, match="nowhere doesn't exist"):
        begin_from(tmp_path / "nowhere", TINY, make_store(tmp_path / "s"), held_out=None)


def test_weights_that_have_seen_the_held_out_task_are_refused(weights, tmp_path):
    class Task:
        def held_out_hashes(self, *, cache: Path) -> set[str]:
            return {"c", "d"}

    with pytest.raises(ContinualError, match="trained on 1 scans of the held-out task"):
        begin_from(weights, TINY, make_store(tmp_path / "s"), held_out=Task())


@dataclasses.dataclass(frozen=True)
class Halved(Schedule):
    """Knows nothing of the length of a run."""

    def factor(self, step, *, steps, values):
        return 0.5 ** (step // 10)


@pytest.mark.parametrize("schedule", [Constant(), Plateau(), Halved()])
def test_a_schedule_that_does_not_look_ahead_can_go_on(schedule):
    check_longer(schedule, 100, 200)
    with pytest.raises(ContinualError, match="planned for 100 steps and can't be made shorter, got 99"):
        check_longer(schedule, 100, 99)


@pytest.mark.parametrize("schedule", [Cosine(), Sawtooth()])
def test_a_schedule_over_all_steps_can_not(schedule):
    name = type(schedule).__name__
    with pytest.raises(
        ContinualError, match=f"planned for 100 steps, and {name} divides its rates over them"
    ):
        check_longer(schedule, 100, 101)
