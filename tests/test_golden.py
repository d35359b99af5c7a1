"""What version 0.1.0 left on disk opens, and gives the figures it gave then (see tests/golden/README.md)."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.report.contrast import contrast_charts
from parts2whole.report.runs import read_run
from parts2whole.spec import spec_from_dict
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task
from parts2whole.training.model import load_model
from parts2whole.training.optim import Optimiser, Schedule
from parts2whole.training.runtime import Hardware
from parts2whole.weights.base import WeightSource

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
EXACT = Hardware(accelerator="cpu", precision="32-true")
FAMILIES = {"Method": Method, "Network": Network, "Task": Task, "WeightSource": WeightSource}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what 0.1.0 left, as the working folder: its runs hold relative paths."""
    with tarfile.open(GOLDEN / "0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figures(tensor: torch.Tensor) -> dict[str, Any]:
    values = tensor.double()
    return {"sum": float(values.sum()), "square_sum": float(values.square().sum()), "shape": [*tensor.shape]}


def same(found: dict[str, Any], wanted: dict[str, Any], near: float = 1e-6) -> None:
    """Every figure of 0.1.0 is there and equal; later versions may add others."""
    for key, value in wanted.items():
        if isinstance(value, float):
            assert found[key] == pytest.approx(value, rel=1e-4, abs=near, nan_ok=True), key
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("name", ["store", "store-labelled"])
def test_a_store_opens_with_its_voxels(here: Path, name: str) -> None:
    store, wanted = Store.open(here / name), EXPECTED["stores"][name]
    assert (store.fingerprint(), store.dtype) == (wanted["fingerprint"], wanted["dtype"])
    assert [record.case_id for record in store.cases] == sorted(wanted["cases"])
    for record in store.cases:
        case = wanted["cases"][record.case_id]
        assert store.damage(record.case_id) is None
        assert (record.content_hash, record.checksum) == (case["content_hash"], case["checksum"])
        assert int(store.read(record.case_id).astype("int64").sum()) == case["read_sum"]


@pytest.mark.parametrize("family", ["Method", "Network", "Task", "WeightSource"])
def test_specs_are_found_by_their_names(family: str) -> None:
    for name, wanted in EXPECTED["specs"][family].items():
        spec = spec_from_dict(wanted["dict"], FAMILIES[family])
        assert type(spec).__name__ == name
        written = spec.to_dict()
        assert written["class_path"] == name
        assert (
            written["init_args"].items()
            >= {
                key: value
                for key, value in wanted["dict"]["init_args"].items()
                if not isinstance(value, dict)
            }.items()
        )


@pytest.mark.parametrize("name", ["pretrain", "weights"])
def test_encoders_give_the_same_maps(here: Path, name: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        levels = p2w.load_encoder(here / name)(image)
    for level, wanted in zip(levels, EXPECTED["encoders"][name], strict=True):
        same(figures(level), wanted)


def test_the_contrast_of_a_run_is_drawn_as_that_of_the_average(here: Path) -> None:
    run = read_run(here / "pretrain")
    together, info_nce, *_ = contrast_charts([run], {run.folder: "Parts2Whole"})
    assert [s.name for s in together.series] == ["reconstruction loss", "InfoNCE of the average"]
    assert [s.name for s in info_nce.series if s.points] == ["average", "equal embeddings"]
    assert info_nce.series[0].points[-1] == (4, pytest.approx(2.7082690347))


@pytest.mark.parametrize("name", ["finetune", "finetune-classes"])
def test_fine_tuned_models_give_the_same_logits(here: Path, name: str) -> None:
    module, card = load_model(here / name)
    torch.manual_seed(0)
    with torch.no_grad():
        same(figures(module(torch.rand(1, card.in_channels, 16, 16, 16))), EXPECTED["models"][name])


def test_a_fine_tuned_model_is_measured_as_before(here: Path) -> None:
    found = p2w.evaluate("finetune", out="evaluation", hardware=EXACT, progress=False)
    same(found.metrics, EXPECTED["evaluate"]["metrics"])


def test_an_unfinished_run_is_finished_as_if_never_stopped(here: Path) -> None:
    again = p2w.pretrain(
        "store",
        out="unfinished",
        method=p2w.Parts2Whole(part_fraction=(0.5, 0.8), per_axis=True),  # the default of 0.1.0
        network=p2w.PlainUNet3D(widths=(4, 8), strides=((1, 1, 1), (2, 2, 2))),
        whole_size=(16, 16, 16),
        steps=4,
        batch_size=2,
        validation_wholes=4,
        validate_every=2,
        panel_every=4,
        embed_wholes=4,
        checkpoint_every=2,
        validation_fraction=0.3,
        hardware=EXACT,
        resume=True,
        progress=False,
    )
    wanted = EXPECTED["runs"]["pretrain"]
    same(again.result, {key: wanted[key] for key in ("steps", "validation_loss", "data_fingerprint")})
    tensors = load_file("unfinished/weights/model.safetensors")
    assert tensors.keys() == EXPECTED["pretrain_tensors"].keys()
    for name, value in tensors.items():
        # The bias of a convolution before its norm has a gradient of rounding alone, of which AdamW makes steps.
        idle = re.fullmatch(r"(decoder\.units|encoder\.levels)\.\d\.\d\.0\.bias", name)
        same(figures(value), EXPECTED["pretrain_tensors"][name], near=1e-4 if idle else 1e-6)


def fine_tuning(run: Path) -> dict[str, Any]:
    """The settings of a fine-tuning of 0.1.0, as arguments of `finetune`."""
    kept = yaml.safe_load((run / "config.yaml").read_text())
    specs = {"task": Task, "network": Network, "optimiser": Optimiser, "schedule": Schedule}
    settings = {key: spec_from_dict(kept[key], family) for key, family in specs.items() if kept[key]}
    plain = ("init", "fraction", "seed", "steps", "batch_size", "validate_every", "checkpoint_every")
    return settings | {key: kept[key] for key in plain} | {"hardware": EXACT, "progress": False}


def test_a_fine_tuning_comes_out_as_before(here: Path) -> None:
    """Its split, too: every class was on every side."""
    done = p2w.finetune(out="again", **fine_tuning(here / "finetune-scratch"))
    wanted = EXPECTED["runs"]["finetune-scratch"]
    same(done.result, {side: wanted[side] for side in ("train_cases", "validation_cases", "test_cases")})
    same(done.result["test"], wanted["test"])
    assert done.result["best_step"] == wanted["best_step"]


def test_a_fine_tuning_that_was_begun_goes_on_with_its_own_split(here: Path) -> None:
    run = here / "finetune-scratch"
    (run / "result.json").unlink()
    shutil.rmtree(run / "weights", ignore_errors=True)
    split = json.loads((run / "split.json").read_text())
    split["train"][0], split["test"][0] = split["test"][0], split["train"][0]  # as another rule drew it
    (run / "split.json").write_text(json.dumps(split))
    done = p2w.finetune(out=run, resume=True, **fine_tuning(run))
    assert {side: done.result[f"{side}_cases"] for side in split} == split


def test_finished_cells_of_a_study_are_not_run_again(here: Path, tmp_path_factory: Any) -> None:
    moved = tmp_path_factory.mktemp("elsewhere")
    for folder in ("study", "scans", "labelled"):
        shutil.copytree(here / folder, moved / folder)
    cells = sorted((moved / "study/out/cells").glob("*/result.json"))
    before = {path: path.stat().st_mtime_ns for path in cells}
    done = p2w.benchmark(moved / "study/study.yaml", out=moved / "study/out", workers=0, progress=False)
    assert (done.finished, done.reused) == (4, 4)
    assert {
        path: path.stat().st_mtime_ns for path in (moved / "study/out/cells").glob("*/result.json")
    } == before
    assert len(list((moved / "study/out/pretraining").glob("*/config.yaml"))) == 1
    assert done.table is not None
    values = {arm: cell.values for arm, cell in done.table.rows[0].cells.items()}
    wanted = {
        line["arm"]: float(line["mean"])
        for line in csv.DictReader(EXPECTED["study"]["table.csv"].splitlines())
    }
    assert {arm: sum(v.values()) / len(v) for arm, v in values.items()} == pytest.approx(wanted)
