"""`start`: folders of scans become a plan that `benchmark` reads, or one sentence on why not."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
import time
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import yaml

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.files import PresentError
from parts2whole.phantom.example import write_structure_sets
from parts2whole.progress import fill
from parts2whole.report.study import read_runs
from parts2whole.scans.read import read_volume, write_nifti
from parts2whole.scans.volume import LabelVolume, Volume
from parts2whole.study import trial
from parts2whole.study.budget import Length, choose_length
from parts2whole.study.plan import PRETRAININGS
from parts2whole.study.resolve import read_study
from parts2whole.training.model import load_model
from parts2whole.verbs.benchmark import study_verbs
from parts2whole.verbs.inspect import inspect
from parts2whole.verbs.start import StartError, start
from task_trees import write_series


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Six labelled cubes of tissue with something denser in them, and four more, one a copy of one of these."""
    root = tmp_path_factory.mktemp("data")
    for number in range(9):
        random = np.random.default_rng(number)
        scan = np.full((20, 20, 20), -1000, np.int16)
        scan[2:-2, 2:-2, 2:-2] = random.normal(40, 20, (16, 16, 16))
        label = np.zeros(scan.shape, np.uint8)
        label[6:12, 6:12, 6:12] = 3
        scan[label == 3] += 600
        if number < 6:
            write_nifti(Volume(scan), root / "labelled" / "images" / f"c{number}.nii.gz")
            write_nifti(LabelVolume(label), root / "labelled" / "labels" / f"c{number}.nii.gz")
        if number > 4:
            write_nifti(Volume(scan), root / "scans" / f"s{number}.nii.gz")
    return root


@pytest.fixture(scope="module", autouse=True)
def _short():
    """A trial as short as it can be."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STEPS": 2, "EVERY": 1, "WHOLES": 2, "FEW": 3}.items():
            patch.setattr(trial, name, value)
        patch.setattr("parts2whole.verbs.start.BATCH", 2)
        patch.setattr("parts2whole.study.settings.BATCH", 2)
        patch.setattr("parts2whole.study.settings.FINETUNE_BATCH", 1)
        yield


@pytest.fixture(scope="module")
def started(folders, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("plan")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        done = start(folders / "scans", folders / "labelled", minutes=1, workers=0, progress=False)
        return dataclasses.replace(done, path=done.path.absolute())


def study_of(started, out):
    return read_study(started.path, out=out, verbs=study_verbs())


def test_the_plan_is_a_study_of_two_arms_with_what_was_chosen(started, folders, tmp_path):
    study = study_of(started, tmp_path)
    assert study.arms == ("scratch", "Parts2Whole")
    (task,) = study.tasks.values()
    assert task.data == folders / "labelled"
    assert len(study.finetunings) == started.length.finetunings
    assert {one.settings["steps"] for one in study.finetunings} == {started.length.finetune_steps}
    (pretraining,) = study.pretrainings.values()
    assert {one.fold for one in study.finetunings} == {(fold, 5) for fold in range(1, 6)}
    assert pretraining.settings["held_out"] == task.replace(fold=(0, 5))  # of all folds
    assert pretraining.settings["whole_size"] == task.patch_size
    (store,) = study.stores
    assert store.settings["window_hu"] == task.preprocess.window_hu == (-200, 700)  # 640 and its noise
    assert task.loss_function == "dice_balanced_ce"


def test_inspect_proposes_the_same(started, folders):
    (proposal,) = inspect([folders / "scans", folders / "labelled"], progress=False).survey.proposals
    task = yaml.safe_load(started.path.read_text())["tasks"]["labelled"]["task"]["Segmentation"]
    assert task["preprocess"]["window_hu"] == list(proposal.window_hu)
    assert task["patch_size"] == list(proposal.whole_voxels)


def test_every_value_has_its_reason_beside_it(started):
    text = started.path.read_text()
    for key in ("window_hu", "whole_size", "window_size", "folds", "steps", "seeds", "cases"):
        (line, *_) = [line for line in text.splitlines() if line.strip().startswith(f"{key}:")]
        assert "  # " in line, line
    assert all(len(line) <= 110 or "/" in line for line in text.splitlines())


def test_sentences_are_as_wide_as_the_terminal_and_80_columns_at_most(monkeypatch):
    text = (
        "one two three " * 20
        + "/a/path/that/is/longer/than/the/line/and/is/never/broken/anywhere/as/it/is/pasted"
    )
    for columns, widest in (("60", 60), ("80", 80), ("200", 80)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = fill(text).splitlines()
        assert " ".join(line.strip() for line in lines) == text
        assert widest - 6 < max(map(len, lines[:-1])) <= widest


def test_facts_warnings_and_commands_in_80_columns(started):
    text = started.summary()
    assert "4 scans to pre-train on; 6 labelled cases of 6 patients, 1 label." in text
    assert "1 of 4 scans are scans of labelled cases" in " ".join(text.split())
    assert "too small to show anything" in " ".join(text.split())
    assert "So there are 5 folds: every labelled patient is tested once a seed" in " ".join(text.split())
    assert f"parts2whole benchmark {started.path.name}" in text.replace(f"{started.path.parent}/", "")
    long = [line for line in text.splitlines() if len(line) > 80 and len(max(line.split(), key=len)) < 70]
    assert not long
    for verb in ("prepare", "pretrain", "finetune"):
        assert f"  parts2whole {verb} " in text
    assert "--held-out Segmentation" in text


def test_the_plan_runs_to_a_table_and_a_page(started, tmp_path, monkeypatch):
    plan = yaml.safe_load(started.path.read_text())
    plan["pretrain"] |= {"steps": 2, "validate_every": 2, "embed_wholes": 0, "validation_wholes": 2}
    plan["pretrain"] |= {"batch_size": 2}
    plan["finetune"] |= {"steps": 2, "validate_every": 2, "batch_size": 2}
    plan["tasks"]["labelled"]["folds"] = 3
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(plan | {"seeds": 1}))
    monkeypatch.chdir(tmp_path)
    done = p2w.benchmark("short.yaml", workers=0, progress=False)
    assert done.folder == tmp_path / "short"
    assert done.table is not None
    assert len({case["patient"] for run in read_runs(done.folder) for case in run.cases}) == 6
    assert (done.folder / "report.html").exists()
    assert len(list((done.folder / PRETRAININGS).glob("*/result.json"))) == 1


def test_a_plan_is_not_overwritten(started, folders):
    before = started.path.read_text()
    with pytest.raises(PresentError, match=r"is there already; .*--out .*plan-2\.yaml"):
        start(folders / "scans", out=started.path)
    assert started.path.read_text() == before


def test_without_labels_the_plan_is_a_configuration_of_pretrain(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = start(folders / "scans", minutes=1, workers=0, progress=False)
    assert not done.whole
    plan = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    assert plan["where"] in ("Anywhere", {"Body": {"above_hu": -175.0}})
    assert (
        main(["prepare", str(folders / "scans"), "--out", "store", "--modality", "CT", "--workers", "0"]) == 0
    )
    short = ["--steps", "1", "--embed-wholes", "0", "--validation-wholes", "2", "--batch-size", "2"]
    assert main(["pretrain", "--config", "plan.yaml", *short, "--no-progress"]) == 0
    assert (tmp_path / plan["out"] / "result.json").exists()


def test_series_of_dicom_are_tried_and_timed_by_the_scan(tmp_path, monkeypatch):
    for number in range(2):
        scan = np.random.default_rng(number).integers(-1000, 300, (18, 18, 18)).astype(np.int16)
        write_series(tmp_path / "scans" / str(number), scan, patient=f"p{number}", spacing=(1.0, 1.0, 1.0))
    clock = iter(range(0, 10**6, 4))
    monkeypatch.setattr(trial, "time", SimpleNamespace(monotonic=lambda: next(clock), time=time.time))
    tried = []
    monkeypatch.setattr(
        "parts2whole.verbs.start.choose_length",
        lambda found, *a, **k: tried.append(found) or choose_length(found, *a, **k),
    )
    done = start(tmp_path / "scans", out=tmp_path / "p.yaml", minutes=1, workers=0, progress=False)
    assert done.facts[0] == "2 scans to pre-train on."
    assert tried[0].prepare_s == 2  # two scans in the 4 seconds of a clock that strikes twice, not 36 files


def test_what_is_drawn_in_dicom_is_a_task_of_its_own(tmp_path):
    folder = write_structure_sets(tmp_path / "archive", patients=3)
    done = start(folder, folder, out=tmp_path / "p.yaml", minutes=1, workers=0, progress=False)
    assert done.facts[0] == "3 scans to pre-train on; 3 labelled cases of 3 patients, 2 labels."
    assert not any("can't be used" in text for text in done.warnings)
    assert any("3 of 3 scans are scans of labelled cases, too" in text for text in done.warnings)
    study = study_of(done, tmp_path)
    (task,) = study.tasks.values()
    assert isinstance(task, p2w.DicomSegmentation)
    assert task.structures == ("Liver|liver", "Lesion")  # a lesion is in a liver, and keeps its voxels
    assert "--task DicomSegmentation" in done.steps[-1]


def test_a_trial_reads_labels_as_their_dataset_json_says(folders, tmp_path, monkeypatch):
    """Two channels in a 4-D file, and regions, which a folder of images and labels alone can't say."""
    labelled = tmp_path / "Task"
    for folder in ("imagesTr", "labelsTr"):
        (labelled / folder).mkdir(parents=True)
    training = []
    for number in range(6):
        label = read_volume(folders / "labelled" / "labels" / f"c{number}.nii.gz").array.astype(np.uint8)
        label[6:8, 6:12, 6:12] = 1
        image = np.random.default_rng(number).normal(100 + 50 * label, 9).astype(np.float32)
        write_nifti(Volume(image), tmp_path / "one.nii.gz")
        one = nibabel.load(tmp_path / "one.nii.gz")
        two = np.stack([one.get_fdata(), 2 * one.get_fdata()], axis=-1)
        nibabel.save(nibabel.Nifti1Image(two, one.affine), labelled / "imagesTr" / f"c{number}.nii.gz")
        write_nifti(LabelVolume(label), labelled / "labelsTr" / f"c{number}.nii.gz")
        training.append({"image": f"./imagesTr/c{number}.nii.gz", "label": f"./labelsTr/c{number}.nii.gz"})
    meaning = {
        "labels": {"background": 0, "whole": [1, 3], "core": 3},
        "regions_class_order": [1, 3],
        "modality": {"0": "T1", "1": "T2"},
        "tensorImageSize": "4D",
        "numTraining": 6,
        "training": training,
    }
    (labelled / "dataset.json").write_text(json.dumps(meaning))
    tried = []
    monkeypatch.setattr(trial, "load_model", lambda run: tried.append(load_model(run)) or tried[-1])
    done = start(folders / "scans", labelled, out=tmp_path / "p.yaml", minutes=1, workers=0, progress=False)
    assert done.length.finetunings > 0
    ((_, card),) = tried
    assert card.in_channels == 2
    assert card.classes == ("background", "whole", "whole+core")


def test_what_no_plan_can_be_made_for(folders, tmp_path):
    with pytest.raises(StartError, match="no scans found in"):
        start(tmp_path, out=tmp_path / "p.yaml")
    with pytest.raises(StartError, match="doesn't exist"):
        start(tmp_path / "nowhere", out=tmp_path / "p.yaml")
    with pytest.raises(StartError, match="minutes must be 1 or more, got 0"):
        start(folders / "scans", out=tmp_path / "p.yaml", minutes=0)
    for side in ("images", "labels"):
        (tmp_path / "two" / side).mkdir(parents=True)
        for file in sorted((folders / "labelled" / side).iterdir())[:2]:
            shutil.copy(file, tmp_path / "two" / side)
    with pytest.raises(StartError, match="2 labelled patients; to train, validate and test takes 3"):
        start(folders / "scans", tmp_path / "two", out=tmp_path / "p.yaml", progress=False)
    assert not (tmp_path / "p.yaml").exists()


@pytest.mark.parametrize(
    ("seeds", "takes_s", "said"),
    [
        (3, 170, ["in 3 minutes it is only a try, too short to show anything."]),
        (3, 300, ["no plan fits into 3 minutes; this is the shortest, and only a try."]),
        (6, 170, []),
    ],
)
def test_a_plan_too_short_to_show_anything_says_what_would_do(monkeypatch, seeds, takes_s, said):
    module = importlib.import_module("parts2whole.verbs.start")
    ample = Length(500, 4, finetune_steps=100, cases=(1,), seeds=6)
    monkeypatch.setattr(module, "enough", lambda sizes, batch: ample)
    monkeypatch.setattr(module, "estimate", lambda *_, **__: SimpleNamespace(total_s=419))
    fitted = SimpleNamespace(
        choice=SimpleNamespace(task=object(), pretrain={"batch_size": SimpleNamespace(value=4)}),
        trial=None,
        cost=SimpleNamespace(total_s=takes_s),
        length=dataclasses.replace(ample, seeds=seeds),
    )
    told = module._tell_short(fitted, SimpleNamespace(sizes=tuple), 3.0)
    assert told == [f"{text} --minutes 7 gives 6 seeds of 100 steps or more." for text in said]
