"""Which weights: candidates at equal cost, what has seen test cases apart, and a verdict from paired tests."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

import parts2whole as p2w
from parts2whole.evaluation.bootstrap import Bootstrap
from parts2whole.report.certainty import Sure
from parts2whole.training.runtime import Hardware
from parts2whole.verbs.choose import ChooseError, _against, _name, choose
from parts2whole.weights.card import Card
from parts2whole.weights.native import save_encoder

EXACT = Hardware(accelerator="cpu", devices=1, precision="32-true")
NETWORK = p2w.PlainUNet3D(widths=(4, 8), strides=((1, 1, 1), (2, 2, 2)))
HU = p2w.Preprocess(modality="CT", window_hu=(-1000.0, 1000.0))
SHORT = {"seeds": 1, "steps": 1, "batch_size": 2, "workers": 0, "hardware": EXACT, "progress": False}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Eight scans with a bright block each."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(8):
        image = random.integers(-900, -100, (8, 16, 16)).astype(np.int16)
        label = np.zeros_like(image, dtype=np.uint8)
        y, x = random.integers(0, 8, 2)
        label[2:6, y : y + 8, x : x + 8] = 1
        image[label == 1] += 800
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "images" / f"case_{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labels" / f"case_{number}.nii.gz")
    return folder


@pytest.fixture
def task(labelled):
    return p2w.Segmentation(
        labelled,
        preprocess=HU,
        patch_size=(8, 8, 8),
        window_size=(8, 16, 16),
        validation_fraction=0.2,
        test_fraction=0.4,
    )


def weights(folder, *, seen=(), channels=1, seed=0):
    torch.manual_seed(seed)
    card = Card(
        network=NETWORK, in_channels=channels, preprocess=HU, whole_size=(8, 8, 8), whole_mm=None, spacing_mm=None,
        method={"class_path": "Parts2Whole"}, steps=1, seen=tuple(seen), fingerprint="",
    )  # fmt: skip
    save_encoder(folder, NETWORK.build_encoder(channels), card)
    return folder


def test_the_best_is_named_and_what_saw_test_cases_is_set_apart(task, tmp_path):
    data = task.labelled(cache=tmp_path / "cache", progress=False)
    split = task.split(data)
    seen = [next(iter(data.store.record(case).hashes())) for case in split.test[:2]]
    init = [
        weights(tmp_path / "a"),
        weights(tmp_path / "leaky", seen=seen),
        weights(tmp_path / "wide", channels=2),
    ]
    said = f"has seen 2 of your {len(split.test)} test cases"
    with pytest.raises(
        ChooseError, match=rf"two candidates .* only a is left: leaky {said}; wide can't be used: .*channels"
    ):
        choose(task, init=init, out=tmp_path / "no", **SHORT)
    assert not (tmp_path / "no").exists()
    done = choose(task, init=[*init, "scratch"], out=tmp_path / "out", **SHORT)
    assert set(done.apart) == {"leaky", "wide"}
    assert done.apart["leaky"] == said
    assert done.told[0].startswith(f"Use {done.best}: Dice mean ")
    assert f"leaky {said}; it was set apart and not run." in done.told
    runs = {path.parent: json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json")}
    about = {path: json.loads((path / "cell.json").read_text()) for path in runs}
    assert Counter((one["arm"], one["task_name"]) for one in about.values()) == dict.fromkeys(
        [(arm, way) for arm in ("a", "scratch") for way in ("fine-tuned", "frozen")], 1
    )
    # Arms differ in their start alone.
    equal = {
        (one["steps"], str(one["network"]), tuple(one["train_cases"]), one["seed"]) for one in runs.values()
    }
    assert len(equal) == 1
    for path, one in about.items():
        assert done.scores[one["task_name"]][one["arm"]] == pytest.approx(runs[path]["test"]["dice_mean"])
    tuned = done.scores["fine-tuned"]
    assert done.best == max(tuned, key=tuned.get)
    assert yaml.safe_load((tmp_path / "out/choose.yaml").read_text())["table"] == {"focus": done.best}
    kept = json.loads((tmp_path / "out/choice.json").read_text())
    assert (kept["best"], kept["init"], kept["apart"]) == (done.best, done.init, done.apart)
    page = (tmp_path / "out/report.html").read_text()
    assert f"Which weights for Segmentation? Set apart: leaky {said}; wide can" in page
    said = done.summary()
    assert all(
        sentence in " ".join(said.split()) for sentence in (" ".join(one.split()) for one in done.told)
    )
    assert all(len(line) <= 80 for line in said.splitlines() if max(map(len, line.split())) < 70)
    stamps = {path: (path / "result.json").stat().st_mtime_ns for path in runs}
    again = choose(task, init=[*init, "scratch"], out=tmp_path / "out", **SHORT)  # nothing is run once more
    assert again.told[0] == done.told[0]
    assert stamps == {path: (path / "result.json").stat().st_mtime_ns for path in runs}


def test_names_differ_and_what_is_missing_is_said(task, tmp_path):
    first, second = weights(tmp_path / "one/weights"), weights(tmp_path / "two/weights")
    assert [one.name for one in _name([first, second, "scratch", first])] == [
        str(first),
        str(second),
        "scratch",
    ]
    assert [one.name for one in _name(["hf:clinic/hips@v1", first, "scratch"])] == [
        "hips@v1",
        "weights",
        "scratch",
    ]
    assert _name(["suprem:unet.pth"])[0].init == f"suprem:{Path('unet.pth').absolute()}"
    with pytest.raises(
        ChooseError, match=r"only weights is left: nowhere can't be used: .*nowhere doesn't exist"
    ):
        choose(task, init=[first, tmp_path / "nowhere"], out=tmp_path / "no", **SHORT)
    with pytest.raises(ChooseError, match="no test cases"):
        choose(task.replace(test_fraction=0.0), init=[first, second], out=tmp_path / "no", **SHORT)


@pytest.mark.parametrize(
    ("interval", "higher", "said"),
    [
        ((0.01, 0.2), True, "b is worse, by 0.100"),
        ((-0.01, 0.2), True, "b is not told from it: 0.100 apart"),
        ((-0.3, -0.1), False, "b is worse, by 0.100"),
        ((0.01, 0.2), False, "b is not told from it"),
    ],
)
def test_a_rival_is_worse_where_the_interval_says_so(interval, higher, said):
    found = Bootstrap(0.1, interval, interval, interval, 0.0, 0.0, 0.98, (2, 2), 3, 10, 0)
    assert _against("b", Sure("", found, "", "", "fine-tuned", "b"), higher).startswith(said)
    assert "98 % interval" in _against("b", Sure("", found, "", ""), higher)
    one = dataclasses.replace(found, interval_runs=None)
    assert "which one seed doesn't tell from the noise" in _against("b", Sure("", one, "", ""), higher)
    assert "could not be compared: why" in _against("b", Sure("", None, "why", ""), higher)


def test_scratch_is_prepared_as_the_weights_it_is_compared_with(task, tmp_path):
    card = Card.read(weights(tmp_path / "a"))
    own = dataclasses.replace(
        card, preprocess=HU.replace(window_hu=(-500.0, 500.0), spacing_mm=(2.0, 2.0, 2.0))
    )
    save_encoder(tmp_path / "b", NETWORK.build_encoder(1), own)
    usual = task.replace(preprocess=p2w.Preprocess(modality="CT"))
    choose(usual, init=[tmp_path / "b", "scratch"], out=tmp_path / "out", **SHORT)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "out/cells").rglob("result.json")]
    assert {run["init"] == "scratch" for run in runs} == {True, False}
    prepared = {json.dumps(run["task"]["init_args"]["preprocess"], sort_keys=True) for run in runs}
    (one,) = prepared
    assert json.loads(one)["init_args"]["window_hu"] == [-500.0, 500.0]
