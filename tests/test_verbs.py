"""The verbs, one after the other, on small synthetic volumes, as a user would call them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.report.study import read_runs
from parts2whole.scans.preprocess import Preprocess
from parts2whole.tasks.labelled import TaskError
from parts2whole.training.examine import Examiner
from parts2whole.training.folder import RunFolderError
from parts2whole.training.leak import ACCEPTANCE, LeakError
from parts2whole.training.loop import Interrupted
from parts2whole.training.model import ModelError
from parts2whole.training.optim import AdamW, OptimiserError, Sawtooth
from parts2whole.training.runtime import Hardware
from parts2whole.training.transfer import TransferError
from parts2whole.weights.native import WeightsError

SIZE = (16, 16, 16)
EXACT = Hardware(accelerator="cpu", precision="32-true")
UNTIDY = np.array([[-1.5, 0, 0.1, 20], [0, 1.2, 0, -7], [0.1, 0, 2.0, 3], [0, 0, 0, 1]])
"""An oblique, flipped, anisotropic affine: masks must come back onto it."""


def write_case(folder: Path, name: str, seed: int, *, labelled: bool = True, classes: int = 2) -> None:
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.arange(18)] * 3, indexing="ij")
    image = generator.normal(100, 5, (18, 18, 18))
    label = np.zeros(image.shape, dtype=np.uint8)
    for value in range(1, classes + 1):
        centre = generator.integers(5, 13, 3)
        inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 14
        image[inside] += 80 * value
        label[inside] = value
    for kind, array in (("images", image.astype(np.float32)), ("labels", label)):
        if kind == "images" or labelled:
            path = folder / kind / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, UNTIDY), path)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for case in range(8):
        write_case(folder, f"case_{case}", case)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(labelled) -> p2w.Segmentation:
    return p2w.Segmentation(
        labelled,
        preprocess=Preprocess(modality="MR"),
        patch_size=SIZE,
        validation_fraction=0.25,
        test_fraction=0.25,
    )


@pytest.fixture(scope="module")
def store(labelled, tmp_path_factory) -> Path:
    return p2w.prepare(
        [labelled / "images"],
        out=tmp_path_factory.mktemp("s") / "store",
        modality="MR",
        workers=0,
        progress=False,
    ).path


@pytest.fixture(scope="module")
def pretrained(store, task, cache, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pre") / "run"
    short_pretrain(store, out)
    return out


def short_pretrain(store: Path, out: Path, **settings):
    defaults = {
        "network": p2w.UNet3D(size="tiny"),
        "whole_size": SIZE,
        "steps": 8,
        "batch_size": 2,
        "validation_wholes": 4,
        "validate_every": 4,
        "embed_wholes": 0,
        "progress": False,
        "hardware": EXACT,
    }
    return p2w.pretrain(store, out=out, **(defaults | settings))


def short_finetune(task, out: Path, cache: Path, **settings):
    # The few cases there are serve pre-training too; tests/verbs/test_target_tasks.py is about the guard.
    defaults = {
        "accept_leak": ACCEPTANCE,
        "steps": 6,
        "batch_size": 2,
        "validate_every": 3,
        "progress": False,
        "hardware": EXACT,
    }
    return p2w.finetune(task, out=out, cache=cache, **(defaults | settings))


@pytest.fixture(scope="module")
def finetuned(task, pretrained, cache, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ft") / "run"
    short_finetune(task, out, cache, init=pretrained)
    return out


@pytest.mark.parametrize("patience", [None, 0])
def test_a_resumed_finetuning_is_the_run(task, cache, tmp_path, monkeypatch, patience):
    settings = {"steps": 5, "validate_every": 1, "patience": patience, "cases": 2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    short_finetune(task, whole, cache, **settings)
    loss, count = type(task).loss, 0

    def interrupted(self: p2w.Segmentation, module: torch.nn.Module, batch: dict) -> dict:
        nonlocal count
        count += 1
        if count in (1, 3):  # each time in the middle of a step
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, module, batch)

    with monkeypatch.context() as patch:
        patch.setattr(type(task), "loss", interrupted)
        for resume in (False, True):
            with contextlib.suppress(
                Interrupted
            ):  # with patience 0 the second part may end before its signal
                short_finetune(task, parts, cache, resume=resume, **settings)
        assert count >= 1
    short_finetune(task, parts, cache, resume=True, **settings)
    ours, theirs = (load_file(run / "weights" / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    results = [json.loads((run / "result.json").read_text()) for run in (whole, parts)]
    for key in ("test", "validation", "steps", "best_step"):
        assert results[0][key] == results[1][key], key
    logs = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, parts)
    ]
    plain = [
        [{k: v for k, v in r.items() if k not in ("time_s", "samples_per_s")} for r in log] for log in logs
    ]
    assert plain[0] == plain[1]


def test_a_pretraining_leaves_what_the_design_promises(pretrained):
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "environment.json",
        "report.html",
        "result.json",
        "weights/card.json",
    ):
        assert (pretrained / name).stat().st_size > 0, name
    assert list((pretrained / "panels").glob("*.png"))
    assert list((pretrained / "tensorboard").iterdir())
    result = json.loads((pretrained / "result.json").read_text())
    records = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    validations = [r for r in records if r["split"] == "validation"]
    assert [r["step"] for r in validations] == [0, 4, 8]
    assert validations[-1]["loss"] == pytest.approx(result["validation_loss"])
    assert result["train_cases"] + result["validation_cases"] == 8


def test_a_run_no_better_than_the_baselines_says_so_loudly(store, tmp_path, capsys):
    from parts2whole.training.optim import SGD

    out = short_pretrain(store, tmp_path / "run", optimiser=SGD(lr=1e-9))
    assert out.result["collapsed"] is True
    assert "WARNING" in capsys.readouterr().out


def test_load_encoder_gives_a_pyramid(pretrained):
    encoder = p2w.load_encoder(pretrained)
    assert not encoder.training
    pyramid = encoder(torch.rand(1, 1, 16, 16, 16))
    assert tuple(pyramid[0].shape) == (1, 8, 16, 16, 16)


def test_held_out_scans_are_left_out_by_their_voxels(store, task, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    run = short_pretrain(store, tmp_path / "run", held_out=task)
    card = json.loads((tmp_path / "run" / "weights" / "card.json").read_text())
    barred = task.held_out_hashes(cache=cache)
    assert len(barred) == 4
    assert not barred & set(card["seen"])
    assert run.result["train_cases"] + run.result["validation_cases"] == 4


def test_a_resumed_pretraining_is_the_run(store, pretrained, tmp_path, monkeypatch):
    examine = Examiner.__call__

    def interrupted(self: Examiner, module: torch.nn.Module, step: int) -> dict[str, float]:
        if step:
            os.kill(os.getpid(), signal.SIGINT)
        return examine(self, module, step)

    with monkeypatch.context() as patch:
        patch.setattr(Examiner, "__call__", interrupted)
        with pytest.raises(Interrupted, match="step 4"):
            short_pretrain(store, tmp_path / "run")
    with pytest.raises(WeightsError, match="isn't finished"):
        p2w.load_encoder(tmp_path / "run")
    short_pretrain(store, tmp_path / "run", resume=True)
    one, other = (p2w.load_encoder(f).state_dict() for f in (pretrained, tmp_path / "run"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_folder_that_holds_a_run_is_refused(store, pretrained, tmp_path):
    with pytest.raises(RunFolderError, match="already holds a finished run"):
        short_pretrain(store, pretrained)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="not empty"):
        short_pretrain(store, tmp_path)
    with pytest.raises(RunFolderError, match=r"other settings: seed: was 0, now 9"):
        short_pretrain(store, pretrained, seed=9, resume=True)


def test_finetuning_tests_the_best_step_on_cases_it_never_saw(task, finetuned):
    result = json.loads((finetuned / "result.json").read_text())
    sides = [set(result[f"{side}_cases"]) for side in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 8
    assert result["best_step"] in (3, 6)
    assert result["method"]["class_path"] == "Parts2Whole"
    rows = list(csv.DictReader((finetuned / "test_cases.csv").open()))
    assert {row["case"] for row in rows} == sides[2]
    mean = np.mean([float(row["dice_mean"]) for row in rows])
    assert mean == pytest.approx(result["test"]["dice_mean"], abs=1e-9)


def test_arms_share_the_split_and_the_labels(task, cache, finetuned, tmp_path):
    scratch = short_finetune(task, tmp_path / "s", cache, network=p2w.UNet3D(size="tiny"))
    assert scratch.result["method"] is None
    assert json.loads((tmp_path / "s" / "split.json").read_text()) == json.loads(
        (finetuned / "split.json").read_text()
    )


def test_evaluate_repeats_what_finetune_found(finetuned, cache):
    found = p2w.evaluate(finetuned, cache=cache, progress=False, hardware=EXACT, accept_leak=ACCEPTANCE)
    expected = json.loads((finetuned / "result.json").read_text())["test"]
    assert found.metrics == pytest.approx(expected, abs=1e-6, nan_ok=True)
    (mean,) = (line.split() for line in found.summary().splitlines() if line.split()[:1] == ["mean"])
    assert mean[1] == f"{expected['dice_mean']:.4f}"


def test_predict_writes_masks_on_the_voxels_of_the_input(finetuned, labelled, tmp_path):
    scan = labelled / "images" / "case_0.nii.gz"
    done = p2w.predict(finetuned, [scan], out=tmp_path / "masks", progress=False, hardware=EXACT)
    mask, image = nib.load(done.written[0]), nib.load(scan)
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-6)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_predict_sets_a_broken_scan_aside(finetuned, labelled, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes((labelled / "images" / "case_0.nii.gz").read_bytes()[:500])
    good = labelled / "images" / "case_1.nii.gz"
    done = p2w.predict(finetuned, [broken, good], out=tmp_path / "m", progress=False, hardware=EXACT)
    assert len(done.written) == 1
    assert list(done.set_aside) == ["broken"]


def test_frozen_features_are_probed(task, pretrained, cache):
    with pytest.raises(LeakError, match="were seen in training"):
        p2w.probe(task, init=pretrained, cases=3, cache=cache, progress=False)
    found = p2w.probe(
        task, init=pretrained, cases=3, seeds=2, cache=cache, progress=False, accept_leak=ACCEPTANCE
    )
    mine = [row for row in found.rows if row["encoder"] == "Parts2Whole"]
    assert all(row["leak"].startswith("LEAK") for row in mine)
    assert "LEAK" in found.summary()
    assert [row["seed"] for row in mine] == [0, 1]
    assert all(0 <= row["iou_mean"] <= 1 for row in found.rows)


def test_weights_are_probed_beside_the_same_network_untrained(task, pretrained, cache):
    """What stands beside them is what probing the network from scratch gives on the same labels."""
    given = {"cases": 3, "cache": cache, "progress": False}
    found = p2w.probe(task, init=pretrained, seeds=2, accept_leak=ACCEPTANCE, **given)
    (beside,) = (row for row in found.rows if row["encoder"] == "untrained")
    (fresh,) = p2w.probe(task, init="scratch", network_from=pretrained, seeds=1, **given).rows
    assert beside == fresh
    mine = found.rows[0]["iou_mean"]
    gain = f"{mine - fresh['iou_mean']:+.4f}"
    assert gain in found.summary()
    assert "finetune --task" in found.summary()


def test_compare_tabulates_arms(task, cache, pretrained, tmp_path):
    for seed in (0, 1):
        one = short_finetune(task, tmp_path / f"p{seed}", cache, init=pretrained, seed=seed, steps=2)
        assert f"--config {tmp_path / f'p{seed}'}" in one.summary()
        assert f"--network-from {pretrained}" in one.summary()  # and from scratch
        other = short_finetune(
            task, tmp_path / f"s{seed}", cache, seed=seed, steps=2, network=p2w.UNet3D(size="tiny")
        )
        pair = f"{tmp_path / f's{seed}'} {tmp_path / f'p{seed}'}"
        assert f"compare {pair}" in " ".join(other.summary().replace("\\\n", "").split())
        assert f"compare {pair}" in " ".join(one.summary().replace("\\\n", "").split())
    text = p2w.compare([tmp_path], out=tmp_path / "table.md").summary()
    assert "Parts2Whole [saw test cases]" in text
    assert "scratch" in text.lower()
    assert "n = 2" in text
    assert "|" in (tmp_path / "table.md").read_text()


def test_frozen_and_decayed_finetuning_run(task, cache, pretrained, tmp_path):
    before = p2w.load_encoder(pretrained).state_dict()
    short_finetune(task, tmp_path / "f", cache, init=pretrained, encoder="freeze")
    from parts2whole.training.model import load_model

    module, _ = load_model(tmp_path / "f")
    assert all(torch.equal(value, before[key]) for key, value in module.encoder.state_dict().items())
    result = short_finetune(task, tmp_path / "d", cache, init=pretrained, layer_decay=0.7, encoder_warmup=0.5)
    assert result.result["steps"] == 6


@pytest.mark.parametrize("decoder", ["fresh", "light", "linear"])
def test_adapters_are_merged_into_the_encoder_that_is_kept(task, cache, pretrained, tmp_path, decoder):
    from parts2whole.training.model import load_model

    settings = {"init": pretrained, "encoder": "lora", "lora_rank": 2, "decoder": decoder}
    done = short_finetune(task, tmp_path / "l", cache, **settings)
    assert any("low-rank adapters in" in note for note in done.result["notes"])
    module, card = load_model(tmp_path / "l")
    assert card.decoder == decoder
    before = p2w.load_encoder(pretrained).state_dict()
    after = module.encoder.state_dict()
    assert after.keys() == before.keys()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.endswith("weight") and before[key].ndim == 5}
    for key in moved:
        change = (after[key] - before[key]).flatten(1)
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2
    more = {"cache": cache, "hardware": EXACT, "progress": False, "accept_leak": ACCEPTANCE}
    found = p2w.evaluate(tmp_path / "l", out=tmp_path / "e.csv", **more)
    assert found.metrics["dice_mean"] == pytest.approx(done.test["dice_mean"], abs=1e-6)


def test_what_was_learned_is_kept_by_two_ramps_the_decoder_and_the_scale(task, cache, pretrained, tmp_path):
    start = {"decoder": "pretrained", "match_scale": True, "schedule": Sawtooth(first_fraction=0.5)}
    result = short_finetune(task, tmp_path / "a", cache, init=pretrained, **start).result
    assert any("tensors of the pre-trained decoder are loaded" in note for note in result["notes"])
    fresh = short_finetune(task, tmp_path / "b", cache, **start).result  # from scratch there is none
    assert not any("decoder" in note for note in fresh["notes"])
    from parts2whole.training.model import load_model

    assert load_model(tmp_path / "a")[1].decoder == "pretrained"


def test_a_rate_is_searched_on_validation_cases(task, cache, tmp_path, monkeypatch):
    settings = {"lr": "auto", "optimiser": AdamW(lr=1e-3), "steps": 8}
    found = short_finetune(task, tmp_path / "a", cache, **settings).result
    tried = found["rates"]["tried"]
    assert list(map(float, tried)) == pytest.approx([1e-3, 3e-3, 3e-4, 1e-4])  # the nearest first
    assert tried[f"{found['lr']:g}"] == max(tried.values())
    assert found["rates"]["steps"] == 2
    assert any(note.startswith(f"learning rate {found['lr']:g}, the best") for note in found["notes"])
    # The run itself is the one that this rate gives, search or not.
    plain = short_finetune(task, tmp_path / "b", cache, **settings | {"lr": found["lr"]}).result
    assert plain["test"] == found["test"]
    assert plain["rates"] is None
    assert [run.name for run in read_runs(tmp_path / "a")] == ["a"]  # its trials are no runs
    # Broken off after the search, a run goes on without searching again.
    (tmp_path / "a" / "result.json").unlink()
    monkeypatch.setattr("parts2whole.training.rates.with_rate", None)
    again = short_finetune(task, tmp_path / "a", cache, resume=True, **settings).result
    assert again["rates"] == found["rates"]
    assert again["test"] == found["test"]


def test_an_optimiser_without_a_rate_of_that_name_is_refused(task, cache, tmp_path):
    with pytest.raises(OptimiserError, match="lr must be above 0, got -1"):
        short_finetune(task, tmp_path / "a", cache, lr=-1.0)


def test_a_label_missing_is_named(labelled, cache, tmp_path):
    write_case(tmp_path, "one", 0)
    write_case(tmp_path, "two", 1, labelled=False)
    with pytest.raises(TaskError, match=r"1 images have no label .*two"):
        short_finetune(p2w.Segmentation(tmp_path), tmp_path / "out", cache)


def test_a_class_absent_from_the_training_cases_is_named(cache, tmp_path):
    for case in range(6):
        write_case(tmp_path, f"case_{case}", case, classes=1)
    path = tmp_path / "labels" / "case_5.nii.gz"
    nib.save(nib.Nifti1Image(2 * np.asarray(nib.load(path).dataobj), UNTIDY), path)  # the only one, without 1
    task = p2w.Segmentation(tmp_path, preprocess=Preprocess(modality="MR"), patch_size=SIZE)
    with pytest.raises(TaskError, match=r"class [12] is absent from all"):
        short_finetune(task, tmp_path / "out", cache, cases=1)


def test_image_and_label_on_different_grids_are_set_aside(task, cache, tmp_path):
    for case in range(7):
        write_case(tmp_path, f"case_{case}", case)
    path = tmp_path / "labels" / "case_0.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((18, 18, 17), np.uint8), UNTIDY), path)
    other = task.replace(data=tmp_path)
    labelled = other.labelled(cache=cache, progress=False)
    assert len(labelled.items) == 6
    assert "case_0" in labelled.notes[0]


def test_weights_that_do_not_fit_are_refused(task, cache, pretrained, tmp_path):
    with pytest.raises(TransferError, match="the weights are of"):
        short_finetune(task, tmp_path / "a", cache, init=pretrained, network=p2w.UNet3D(size="small"))
    with pytest.raises(WeightsError, match="doesn't exist"):
        short_finetune(task, tmp_path / "b", cache, init=tmp_path / "nothing")
    with pytest.raises(ModelError, match="no fine-tuned model"):
        p2w.evaluate(pretrained, cache=cache)


def test_classification_of_a_csv_and_of_an_npz(labelled, cache, pretrained, tmp_path):
    rows = [f"{labelled}/images/case_{i}.nii.gz,{'big' if i % 2 else 'small'}" for i in range(8)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 2, (24, 16, 16, 16)).astype(np.uint8)
    np.savez(
        tmp_path / "set.npz",
        train_images=images[:16],
        train_labels=np.arange(16)[:, None] % 2,
        val_images=images[16:],
        val_labels=np.arange(8)[:, None] % 2,
    )
    common = {"patch_size": SIZE, "validation_fraction": 0.25, "test_fraction": 0.25}
    by_csv = p2w.Classification(tmp_path / "list.csv", preprocess=Preprocess(modality="MR"), **common)
    run = short_finetune(by_csv, tmp_path / "csv", cache, init=pretrained)
    assert 0 <= run.test["auc"] <= 1
    done = p2w.predict(tmp_path / "csv", [labelled / "images"], out=tmp_path / "p", progress=False)
    table = list(csv.DictReader(done.written[0].open()))
    assert len(table) == 8
    assert all(float(r["p_big"]) + float(r["p_small"]) == pytest.approx(1, abs=1e-4) for r in table)
    by_npz = p2w.Classification(tmp_path / "set.npz", **common)
    run = short_finetune(by_npz, tmp_path / "npz", cache, network=p2w.UNet3D(size="tiny"))
    assert len(run.result["test_cases"]) == 8
    assert len(run.result["validation_cases"]) == 4


def test_the_command_line_is_the_same_functions(store, labelled, tmp_path, capsys):
    out = tmp_path / "run"
    code = main(
        f"pretrain {store} --out {out} --method Autoencoder --network.size tiny --whole_size [16,16,16] --steps 2 "
        "--batch_size 2 --validation_wholes 2 --progress false".split()
    )
    assert code == 0
    assert "Autoencoder" in (out / "config.yaml").read_text()
    assert main(f"pretrain {store} --out {out} --progress false".split()) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    assert main(["pretrian"]) == 2
    assert "did you mean pretrain?" in capsys.readouterr().err
    assert main([]) == 0
    assert "usage: parts2whole COMMAND" in capsys.readouterr().out
