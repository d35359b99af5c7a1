"""Fine-tune, evaluate and predict with each target task, and the guard against leaked cases."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import parts2whole as p2w
from parts2whole.report.results import arm_names
from parts2whole.report.runs import read_run
from parts2whole.scans.read import read_volume, write_nifti
from parts2whole.scans.volume import Volume, content_hash, to_canonical
from parts2whole.store.store import Store
from parts2whole.training.leak import ACCEPTANCE, LeakError
from parts2whole.training.runtime import Hardware
from parts2whole.verbs.predict import PredictError
from task_trees import PATCH, build_task, lits, luna16, write_csv, write_series

EXACT = Hardware(accelerator="cpu", precision="32-true")
TARGETS = (
    "NoduleFalsePositives",
    "NoduleSegmentation",
    "LiverSegmentation",
    "EmbolismFalsePositives",
    "BrainTumourSegmentation",
)


def short_finetune(task, out: Path, cache: Path, **settings) -> p2w.finetune:
    defaults = {"steps": 2, "batch_size": 2, "validate_every": 2, "network": p2w.UNet3D(size="tiny")}
    return p2w.finetune(task, out=out, cache=cache, progress=False, hardware=EXACT, **(defaults | settings))


@pytest.fixture(scope="module", params=TARGETS)
def tuned(request, tmp_path_factory) -> tuple[p2w.finetune, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    task = build_task(request.param, folder / "data")
    task.labelled(cache=folder / "cache", workers=0, progress=False)
    return short_finetune(task, folder / "run", folder / "cache"), folder


def test_evaluate_repeats_what_finetune_found(tuned):
    run, folder = tuned
    found = p2w.evaluate(run.folder, cache=folder / "cache", hardware=EXACT, progress=False)
    assert found.metrics == pytest.approx(run.test, abs=1e-5, nan_ok=True)
    assert run.result["leaks"] == []
    main = "auc" if "auc" in run.test else "dice_mean"
    assert 0 <= run.test[main] <= 1
    if main == "auc":
        assert {"auc_lesions", "cpm", "sensitivity_at_1_fp"} <= set(run.test)
    else:
        names = [
            key.removeprefix("iou_") for key in run.test if key.startswith("iou_") and "_pooled" not in key
        ]
        assert all(f"mean_iou_thresholds_{name}" in run.test for name in names)
        assert any(key.endswith("_pooled") for key in run.test)


def test_predict_for_new_scans(tuned, tmp_path):
    run, folder = tuned
    data = folder / "data"
    kind = folder.name.rstrip("0123456789")
    if kind == "NoduleFalsePositives":
        scan = next((data / "subset7").glob("*.mhd"))
        with pytest.raises(PredictError, match="--points"):
            p2w.predict(run.folder, [scan], out=tmp_path / "a", hardware=EXACT, progress=False)
        done = p2w.predict(
            run.folder,
            [scan],
            out=tmp_path / "b",
            points=data / "candidates_V2.csv",
            hardware=EXACT,
            progress=False,
        )
        rows = list(csv.DictReader(done.written[0].open()))
        wanted = [
            r for r in csv.DictReader((data / "candidates_V2.csv").open()) if r["seriesuid"] == scan.stem
        ]
        for row, given in zip(rows, wanted, strict=True):
            assert float(row["coordX"]) == pytest.approx(float(given["coordX"]), abs=1e-3)
        tested = {r["case"]: r for r in csv.DictReader((run.folder / "test_cases.csv").open())}
        same = [float(r["p_lesion"]) for r in tested.values() if r["scan"] == scan.stem]
        assert [float(r["p_lesion"]) for r in rows] == pytest.approx(same, abs=1e-4)
    elif kind == "EmbolismFalsePositives":
        scan = data / "images" / "CT001.nrrd"
        done = p2w.predict(run.folder, [scan], out=tmp_path / "b", hardware=EXACT, progress=False)
        assert len(list(csv.DictReader(done.written[0].open()))) >= 2
    elif kind == "BrainTumourSegmentation":
        case = data / "BraTS2021_00003"
        done = p2w.predict(run.folder, [case], out=tmp_path / "b", hardware=EXACT, progress=False)
        mask, image = nib.load(done.written[0]), nib.load(case / "BraTS2021_00003_flair.nii.gz")
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine)
        (case / "BraTS2021_00003_t1.nii.gz").unlink()
        with pytest.raises(PredictError, match="BraTS2021_00003 was set aside: no t1 "):
            p2w.predict(run.folder, [case], out=tmp_path / "c", hardware=EXACT, progress=False)
    else:
        scan = data / "volume-115.nii.gz" if kind == "LiverSegmentation" else next(data.rglob("series"))
        done = p2w.predict(run.folder, [scan], out=tmp_path / "b", hardware=EXACT, progress=False)
        shape = (26, 24, 10) if kind == "NoduleSegmentation" else nib.load(scan).shape
        assert nib.load(done.written[0]).shape == shape


def test_a_segmentation_looks_only_around_its_points(tuned, tmp_path):
    run, folder = tuned
    if folder.name.rstrip("0123456789") != "LiverSegmentation":
        pytest.skip("one segmentation suffices")
    scan = folder / "data" / "volume-115.nii.gz"
    x, y, z = (nib.load(scan).affine @ [4, 4, 5, 1])[:3]
    write_csv(
        tmp_path / "points.csv", ["seriesuid", "coordX", "coordY", "coordZ"], [["volume-115", -x, -y, z]]
    )
    done = p2w.predict(
        run.folder, [scan], out=tmp_path / "b", points=tmp_path / "points.csv", hardware=EXACT, progress=False
    )
    mask = np.asarray(nib.load(done.written[0]).dataobj)
    assert not mask[14:].any()  # 4 + 8 voxels and a little
    write_csv(tmp_path / "far.csv", ["seriesuid", "coordX", "coordY", "coordZ"], [["volume-115", 900, 0, 0]])
    with pytest.raises(PredictError, match="outside the scan"):
        p2w.predict(run.folder, [scan], out=tmp_path / "c", points=tmp_path / "far.csv", progress=False)


# --- the leak guard ----------------------------------------------------------------------------------------


def test_a_hash_knows_a_scan_in_any_encoding(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8))
    write_series(tmp_path / "dicom", hu, patient="a")
    first = read_volume(tmp_path / "dicom")
    write_nifti(
        Volume(first.array.astype(np.float32), first.spacing_mm, first.origin_mm, first.direction),
        tmp_path / "a.nii.gz",
    )
    # The same scan with axes in another order and direction, as converters leave it.
    turned = nib.as_closest_canonical(nib.load(tmp_path / "a.nii.gz"))
    assert nib.aff2axcodes(turned.affine) != nib.aff2axcodes(nib.load(tmp_path / "a.nii.gz").affine)
    nib.save(turned, tmp_path / "turned.nii")
    hashes = {
        content_hash(to_canonical(read_volume(path)).array)
        for path in (tmp_path / "dicom", tmp_path / "a.nii.gz", tmp_path / "turned.nii")
    }
    assert len(hashes) == 1


@pytest.fixture(scope="module")
def leaked(tmp_path_factory) -> tuple[p2w.LiverSegmentation, Path, Path]:
    """A task whose test case 115 was pre-trained on as DICOM; the task has it as NIfTI."""
    folder = tmp_path_factory.mktemp("leak")
    task = p2w.LiverSegmentation(lits(folder / "lits"), patch_size=PATCH)
    for number in (0, 1, 115):
        scan = to_canonical(read_volume(next((folder / "lits").glob(f"volume-{number}.nii*"))))
        write_series(
            folder / "dicom" / str(number), scan.array, patient=f"p{number}", spacing=scan.spacing_mm
        )
    store = p2w.prepare([folder / "dicom"], out=folder / "store", workers=0, progress=False)
    p2w.pretrain(
        store.path,
        out=folder / "pre",
        network=p2w.UNet3D(size="tiny"),
        whole_size=PATCH,
        steps=2,
        batch_size=2,
        validation_wholes=2,
        progress=False,
        hardware=EXACT,
    )
    task.labelled(cache=folder / "cache", workers=0, progress=False)
    return task, folder, folder / "pre"


def test_a_nifti_copy_of_a_pretraining_dicom_is_caught(leaked, tmp_path):
    task, folder, pre = leaked
    for number, found in ((115, True), (116, False)):
        with pytest.raises(LeakError) as error:
            short_finetune(task, tmp_path / "a", folder / "cache", init=pre, network=None)
        assert (f"liver-{number}" in str(error.value)) == found
    assert not (tmp_path / "a").exists()
    with pytest.raises(LeakError, match="must be exactly"):
        short_finetune(task, tmp_path / "a", folder / "cache", init=pre, network=None, accept_leak="yes")


def test_an_accepted_leak_marks_result_report_and_table(leaked, tmp_path):
    task, folder, pre = leaked
    run = short_finetune(
        task, tmp_path / "runs" / "a", folder / "cache", init=pre, network=None, accept_leak=ACCEPTANCE
    )
    assert run.result["leaks"] == ["liver-115"]
    assert run.result["notes"][0].startswith("LEAK, accepted: 1 validation or test cases")
    assert "LEAK, accepted" in (run.folder / "report.html").read_text()
    assert list(arm_names([read_run(run.folder)]).values()) == ["Parts2Whole [saw test cases]"]
    with pytest.raises(LeakError, match="liver-115"):
        p2w.evaluate(run.folder, cache=folder / "cache", hardware=EXACT, progress=False)
    found = p2w.evaluate(
        run.folder, cache=folder / "cache", hardware=EXACT, progress=False, accept_leak=ACCEPTANCE
    )
    assert found.summary().startswith("LEAK, accepted")
    assert "leak" in json.loads(found.csv.with_name("metrics.json").read_text())
    p2w.evaluate(run.folder, cache=folder / "cache", side="validation", hardware=EXACT, progress=False)


def test_held_out_pretraining_has_no_leak(leaked, monkeypatch, tmp_path):
    task, folder, _ = leaked
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    task.labelled(cache=tmp_path / "parts2whole", workers=0, progress=False)
    run = p2w.pretrain(
        folder / "store",
        out=tmp_path / "pre",
        network=p2w.UNet3D(size="tiny"),
        whole_size=PATCH,
        steps=1,
        batch_size=2,
        validation_wholes=2,
        held_out=task,
        progress=False,
        hardware=EXACT,
    )
    assert run.result["train_cases"] + run.result["validation_cases"] == 2


def test_other_data_that_training_saw_are_caught(leaked, tmp_path):
    task, folder, _ = leaked
    run = short_finetune(task, tmp_path / "run", folder / "cache")
    other = lits(tmp_path / "other", (200, 3))
    task.replace(data=other).labelled(cache=tmp_path / "cache", workers=0, progress=False)
    with pytest.raises(LeakError, match="liver-003"):
        p2w.evaluate(run.folder, data=other, cache=tmp_path / "cache", hardware=EXACT, progress=False)


def test_one_channel_of_a_case_is_recognised(tmp_path):
    task = build_task("BrainTumourSegmentation", tmp_path / "brats")
    labelled = task.labelled(cache=tmp_path / "cache", workers=0, progress=False)
    flair = sorted((tmp_path / "brats").rglob("*_flair.nii.gz"))[:1]
    alone = p2w.prepare(flair, out=tmp_path / "store", modality="MR", workers=0, progress=False)
    hashes = {record.content_hash for record in Store.open(alone.path).cases}
    record = labelled.store.record("BraTS2021_00000")
    assert hashes <= record.hashes()
    assert not hashes & labelled.store.record("BraTS2021_00001").hashes()


def test_a_changed_copy_is_caught_by_its_series_uid(tmp_path):
    task = p2w.NoduleFalsePositives(luna16(tmp_path / "luna"), patch_size=PATCH, hidden=8)
    uid = next((tmp_path / "luna" / "subset7").glob("*.mhd")).stem
    for series in (uid, "1.2.3"):
        hu = np.random.default_rng(0).normal(0, 30, (20, 28, 30))  # as after a crop: no voxel is the same
        write_series(tmp_path / "dicom" / series, hu, patient=series, series=series)
    store = p2w.prepare(
        [tmp_path / "dicom"], out=tmp_path / "store", workers=0, progress=False, keep_series_uids=True
    )
    short = {"network": p2w.UNet3D(size="tiny"), "whole_size": PATCH, "steps": 1, "batch_size": 2}
    pre = p2w.pretrain(
        store.path, out=tmp_path / "pre", validation_wholes=2, progress=False, hardware=EXACT, **short
    )
    cache = tmp_path / "cache"
    with pytest.raises(LeakError, match=f"1 validation or test cases were seen.*{uid}"):
        short_finetune(task, tmp_path / "a", cache, init=pre.folder, network=None)
    with pytest.raises(LeakError, match=uid):
        p2w.probe(task, init=pre.folder, side="test", cache=cache, progress=False)
    run = short_finetune(
        task, tmp_path / "a", cache, init=pre.folder, network=None, steps=1, accept_leak=ACCEPTANCE
    )
    with pytest.raises(LeakError, match=uid):
        p2w.evaluate(run.folder, cache=cache, hardware=EXACT, progress=False)
