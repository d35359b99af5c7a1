"""Weights meet labelled data: what is refused, what is told, and what two arms have in common."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from parts2whole.networks.unet3d import UNet3D
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.split import Split
from parts2whole.store.store import Store
from parts2whole.tasks.classification import Classification
from parts2whole.tasks.labelled import Item, LabelledData, TaskError
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.training.leak import ACCEPTANCE, LeakError
from parts2whole.training.transfer import Transfer, TransferError, check_contract, open_transfer
from parts2whole.weights.card import Card
from parts2whole.weights.native import save_encoder

TINY = UNet3D(size="tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def task(folder) -> Classification:
    arrays = {}
    for seed, (side, count) in enumerate({"train": 12, "val": 4, "test": 4}.items()):
        images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 8)).astype(np.uint8)
        arrays |= {f"{side}_images": images, f"{side}_labels": np.arange(count)[:, None] % 2}
    np.savez(folder / "set.npz", **arrays)
    return Classification(folder / "set.npz", patch_size=(8, 8, 8))


def transfer(task, folder, init="scratch", **changed) -> Transfer:
    settings = {
        "network": TINY if init == "scratch" else None,
        "reported": ("validation", "test"),
        "accept_leak": None,
        "cache": folder / "cache",
        "progress": False,
    }
    return open_transfer(task, init, **settings | changed)


def weights(folder: Path, *, seen: tuple[str, ...] = (), **changed) -> Path:
    """Weights of the tiny network, as pre-training leaves them."""
    card = {
        "network": TINY,
        "in_channels": 1,
        "preprocess": Preprocess(modality="unit"),
        "whole_size": (8, 8, 8),
        "whole_mm": None,
        "spacing_mm": None,
        "method": {"class_path": "Parts2Whole", "init_args": {}},
        "steps": 1,
        "seen": seen,
        "fingerprint": "",
    }
    out = folder / f"weights-{len(list(folder.iterdir()))}"
    channels = changed.get("in_channels", 1)
    save_encoder(out, TINY.build_encoder(channels), Card(**card | changed))
    return out


def test_arms_share_the_labels_and_what_is_fresh(task, folder):
    arms = transfer(task, folder), transfer(task, folder, weights(folder))
    chosen = [arm.choose_labels(fraction=0.5, cases=None, seed=3) for arm in arms]
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) < set(arms[0].split.train)
    assert len(arms[0].choose_labels(fraction=1.0, cases=4, seed=3)) == 4
    heads = [arm.build_model(decoder="fresh", seed=3)[0].head.state_dict() for arm in arms]
    assert all(torch.equal(value, heads[1][key]) for key, value in heads[0].items())


def test_a_fresh_encoder_depends_on_the_seed_and_given_weights_do_not(task, folder):
    scratch, given = transfer(task, folder), transfer(task, folder, weights(folder))

    def first(arm: Transfer, seed: int) -> torch.Tensor:
        return next(iter(arm.build_encoder(seed).parameters()))

    assert torch.equal(first(scratch, 0), first(scratch, 0))
    assert not torch.equal(first(scratch, 0), first(scratch, 1))
    assert torch.equal(first(given, 0), first(given, 1))


def test_only_sides_that_are_reported_can_leak(task, folder):
    scratch = transfer(task, folder)
    case = scratch.labelled.item(scratch.split.test[0]).case_id
    seen = weights(folder, seen=(scratch.labelled.store.record(case).content_hash,))
    assert transfer(task, folder, seen, reported=("validation",)).leaks == ()
    with pytest.raises(LeakError, match=case):
        transfer(task, folder, seen)
    accepted = transfer(task, folder, seen, accept_leak=ACCEPTANCE)
    assert accepted.leaks == (case,)
    assert accepted.notes[0] == accepted.mark
    assert accepted.mark.startswith("LEAK")


def test_weights_that_do_not_fit_are_refused(task, folder):
    with pytest.raises(TransferError, match="the weights expect 2 input channels, the data have 1"):
        transfer(task, folder, weights(folder, in_channels=2))
    with pytest.raises(TransferError, match="leave the network out to use theirs"):
        transfer(task, folder, weights(folder), network=UNet3D(size="small"))


def test_other_intensities_and_spacings_are_told(task, folder):
    other = transfer(task, folder, weights(folder, preprocess=Preprocess("MR", spacing_mm=(2.0, 1.0, 1.0))))
    assert any("trained on MR" in note for note in other.notes)
    assert any("trained at spacing (2.0, 1.0, 1.0), this task uses None" in note for note in other.notes)


# --- the weights decide the preprocessing ------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(folder) -> Segmentation:
    """CT in Hounsfield units at 2 mm; nothing is said of how to prepare it."""
    return Segmentation.example(folder / "pairs").replace(preprocess=Preprocess(), patch_size=(8, 8, 8))


THEIRS = Preprocess("CT", window_hu=(-160.0, 240.0), spacing_mm=(4.0, 4.0, 4.0))


def test_the_weights_decide_what_the_task_leaves_open(pairs, folder):
    found = transfer(pairs, folder, weights(folder, preprocess=THEIRS))
    assert found.task.preprocess == found.labelled.store.preprocess == THEIRS
    assert found.make_card(found.split.train, decoder="fresh").preprocess == THEIRS
    assert {record.spacing_mm for record in found.labelled.store.cases} == {(4.0, 4.0, 4.0)}
    (note,) = [note for note in found.notes if "prepared as those of the weights" in note]
    assert "window_hu (-160.0, 240.0)" in note
    assert "spacing_mm (4.0, 4.0, 4.0)" in note
    assert transfer(pairs, folder).task == pairs
    beside = transfer(pairs, folder, network=None, network_from=weights(folder, preprocess=THEIRS))
    assert beside.start is None
    assert (beside.task, beside.network) == (found.task, found.network)


def test_what_the_task_says_counts_more_than_the_weights(pairs, folder):
    at = weights(folder, preprocess=THEIRS)
    asked = pairs.replace(preprocess=Preprocess("CT", spacing_mm=(3.0, 3.0, 3.0)))
    found = transfer(asked, folder, at)
    assert found.task.preprocess == THEIRS.replace(spacing_mm=(3.0, 3.0, 3.0))
    assert any("at spacing (4.0, 4.0, 4.0), this task uses (3.0, 3.0, 3.0)" in note for note in found.notes)
    with pytest.raises(TransferError, match="set the task's preprocess"):
        transfer(pairs.replace(preprocess=Preprocess("CT", window_hu=(0.0, 80.0))), folder, at)


def test_a_modality_that_cannot_be_told_is_that_of_the_weights(pairs, folder):
    moved = folder / "positive"
    for path in (*pairs.data.rglob("*.nii"), *pairs.data.rglob("*.nii.gz")):
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        shifted = array if path.parent.name == "labels" else (array + 3000).astype(np.int16)
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(shifted, image.affine), moved / path.parent.name / path.name)
    task = pairs.replace(data=moved)
    with pytest.raises(TaskError, match="can't tell the modality"):
        transfer(task, folder)
    theirs = Preprocess("MR", percentiles=(2.0, 98.0))
    found = transfer(task, folder, weights(folder, preprocess=theirs))
    assert found.labelled.store.cases[0].modality == "MR"
    assert found.task.preprocess == theirs


def test_published_weights_that_take_any_intensities_decide_nothing(pairs, folder):
    given = weights(folder, preprocess=Preprocess("unit", spacing_mm=(4.0, 4.0, 4.0)))
    assert transfer(pairs, folder, given).task == pairs


def test_the_card_knows_the_spacings_of_the_files(pairs, folder):
    found = transfer(pairs.replace(preprocess=Preprocess("CT", spacing_mm=(4.0, 4.0, 4.0))), folder)
    low, high = found.make_card(found.split.train, decoder="fresh").spacing_range_mm
    files = {path.name.partition(".")[0]: path for path in (pairs.data / "images").iterdir()}
    zooms = np.array([nib.load(files[case]).header.get_zooms()[::-1] for case in found.split.train])
    assert low == pytest.approx(zooms.min(axis=0))
    assert high == pytest.approx(zooms.max(axis=0))


def test_a_result_says_the_modality_that_the_scans_have(task, folder):
    found = transfer(task, folder)
    assert task.preprocess.modality == "auto"
    said = found.describe(found.split)["task"]["init_args"]["preprocess"]["init_args"]["modality"]
    assert said == found.labelled.store.cases[0].modality != "auto"


def test_wholes_that_were_cut_by_physical_size_have_another_spacing_than_their_scans(task, folder):
    start = weights(folder, whole_size=(8, 8, 8), whole_mm=(32.0, 16.0, 16.0))
    notes = transfer(task, folder, start).notes
    assert any("was trained at spacing (4.0, 2.0, 2.0), this task uses None" in note for note in notes)
    assert not any("spacing" in note for note in transfer(task, folder, weights(folder)).notes)


@pytest.fixture
def mixed(tmp_path) -> Store:
    """A store whose first case is MR, and the others CT."""
    store = Store.create(tmp_path / "mixed", preprocess=Preprocess())
    for number, modality in enumerate(("MR", "CT", "CT")):
        voxels = np.random.default_rng(number).integers(0, 30000, (8, 8, 8)).astype(np.int16)
        store.write_volume(f"c{number}", Volume(voxels), patient=f"p{number}", modality=modality)
    store.finish()
    return store


def test_the_window_of_weights_counts_where_any_scan_is_ct(mixed, folder):
    card = Card.read(weights(folder, preprocess=Preprocess(modality="CT", window_hu=(-175.0, 250.0))))
    with pytest.raises(TransferError, match=r"trained with window \(-175.0, 250.0\) HU"):
        check_contract(card, mixed, None)
    alike = Card.read(weights(folder, preprocess=Preprocess(modality="CT")))
    assert check_contract(alike, mixed, None) == ["the encoder was trained on CT, these are CT and MR"]


def test_the_card_of_a_model_names_a_modality_that_all_scans_have(task, folder, mixed):
    one = transfer(task, folder)
    assert one.make_card(one.split.train, decoder="fresh").preprocess.modality != "auto"
    items = tuple(Item(f"c{number}", f"c{number}", f"p{number}", target=number % 2) for number in range(3))
    several = dataclasses.replace(
        one,
        task=task.replace(preprocess=Preprocess()),
        labelled=LabelledData(mixed, items, ("x", "y")),
        split=Split(("c0", "c1"), ("c2",), ()),
    )
    assert several.make_card(("c0", "c1"), decoder="fresh").preprocess.modality == "auto"
