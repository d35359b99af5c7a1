"""Study files: what they resolve to, and how every mistake is named before anything runs."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.unet3d import UNet3D
from parts2whole.scans.preprocess import Preprocess
from parts2whole.study.asked import Verbs
from parts2whole.study.check import check_paths
from parts2whole.study.plan import Study
from parts2whole.study.read import StudyError
from parts2whole.study.resolve import read_study
from parts2whole.study.work import make_jobs
from parts2whole.tasks.brain_tumour_segmentation import BrainTumourSegmentation
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.training.optim import AdamW
from parts2whole.verbs.finetune import finetune
from parts2whole.verbs.prepare import prepare
from parts2whole.verbs.pretrain import pretrain


def generate(*, out: str | Path, cases: int = 3) -> None:
    """Data of a study, for the tests."""


VERBS = Verbs(
    prepare, pretrain, finetune, {"phantom": f"{__name__}:generate", "broken": f"{__name__}_missing:generate"}
)

PLAIN: dict[str, Any] = {
    "data": {
        "phantom": {"cases": 4},
        "stores": {"pool": {"scans": "phantom:pool", "modality": "CT"}},
    },
    "network": {"UNet3D": {"size": "tiny"}},
    "arms": {
        "scratch": "scratch",
        "given": {"init": "medicalnet:weights/resnet_10.pth"},
        "auto": "Autoencoder",
        "ours": {"method": {"Parts2Whole": {"part_fraction": [0.3, 0.6]}}, "finetune": {"encoder_lr": 0.5}},
    },
    "tasks": {
        "Liver": {"task": {"Segmentation": {"data": "phantom:liver", "patch_size": [16, 16, 16]}}},
        "Own": {
            "task": {"Segmentation": {"data": "labelled", "preprocess": {"modality": "MR"}}},
            "cases": [3, 5],
            "pretrain": {"steps": 7, "held_out": "task"},
            "finetune": {"steps": 9},
        },
    },
    "fractions": [0.1],
    "seeds": 2,
    "pretrain": {"store": "pool", "steps": 5, "optimiser": {"AdamW": {"lr": "1e-3"}}},
    "finetune": {"steps": 8},
}


def read(folder: Path, plain: dict[str, Any], out: str = "out") -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(plain))
    return read_study(folder / "study.yaml", out=folder / out, verbs=VERBS)


def changed(path: str, value: Any) -> dict[str, Any]:
    plain = copy.deepcopy(PLAIN)
    *way, last = path.split(".")
    at = plain
    for key in way:
        at = at.setdefault(key, {})
    at[last] = value
    return plain


def test_a_study_becomes_cells_that_share_their_pretraining(tmp_path: Path) -> None:
    study = read(tmp_path, PLAIN)
    assert len(study.finetunings) == (1 + 2) * 2 * 4
    assert [finetuning.seed for finetuning in study.finetunings] == sorted(
        finetuning.seed for finetuning in study.finetunings
    )
    # Two methods; the task Own pre-trains otherwise (steps, held out), with one run for both of its sizes.
    assert len(study.pretrainings) == 4
    own = [c for c in study.finetunings if c.arm == "ours" and c.task == "Own"]
    assert len({c.pretraining for c in own}) == 1
    start = study.pretrainings[str(own[0].pretraining)]
    assert start.settings["method"] == Parts2Whole(part_fraction=(0.3, 0.6))
    assert start.settings["held_out"] == study.tasks["Own"]
    assert start.settings["steps"] == 7
    assert start.settings["optimiser"] == AdamW(lr=1e-3)
    assert start.settings["store"] == study.stores[0].folder
    assert own[0].settings["encoder_lr"] == 0.5
    assert own[0].settings["steps"] == 9
    assert own[0].settings["init"] == str(start.folder)
    assert {c.settings["cases"] for c in own} == {3, 5}
    liver = next(c for c in study.finetunings if c.arm == "scratch" and c.task == "Liver")
    assert liver.settings["network"] == UNet3D(size="tiny")
    assert liver.settings["fraction"] == 0.1
    given = next(c for c in study.finetunings if c.arm == "given")
    assert "network" not in given.settings
    assert given.settings["init"] == f"medicalnet:{tmp_path / 'weights/resnet_10.pth'}"


def test_paths_belong_to_the_file_and_to_the_data_it_makes(tmp_path: Path) -> None:
    study = read(tmp_path, PLAIN)
    own, liver = study.tasks["Own"], study.tasks["Liver"]
    assert isinstance(own, Segmentation)
    assert own.data == tmp_path / "labelled"
    assert own.preprocess.modality == "MR"
    assert liver.data == study.generated[0].folder / "liver"
    assert study.generated[0].folder.is_relative_to(tmp_path / "out")
    assert study.generated[0].settings == {"cases": 4}


def test_a_pretraining_may_begin_with_weights_that_must_be_there(tmp_path: Path) -> None:
    study = read(tmp_path, changed("pretrain.init", "earlier"))
    assert {str(one.settings["init"]) for one in study.pretrainings.values()} == {str(tmp_path / "earlier")}
    with pytest.raises(StudyError, match=rf"pretrain.init: {tmp_path}/earlier doesn't exist"):
        check_paths(study)
    named = read(tmp_path, changed("pretrain.init", "medicalnet:resnet.pth"))
    with pytest.raises(StudyError, match=rf"pretrain.init: {tmp_path}/resnet.pth doesn't exist"):
        check_paths(named)
    with pytest.raises(StudyError) as others:
        check_paths(read(tmp_path, changed("pretrain.init", "scratch")))
    assert "pretrain.init" not in str(others.value)


def test_digests_follow_the_settings_and_not_the_place(tmp_path: Path) -> None:
    first, moved = read(tmp_path / "a", PLAIN), read(tmp_path / "b", PLAIN)
    assert [c.folder.name for c in first.finetunings] == [c.folder.name for c in moved.finetunings]
    assert set(first.pretrainings) == set(moved.pretrainings)
    other = read(tmp_path / "a", changed("pretrain.steps", 6))
    same = {c.digest for c in first.finetunings} & {c.digest for c in other.finetunings}
    # Cells without a pre-training stay, and those of the task that has its own number of steps.
    assert same == {c.digest for c in first.finetunings if c.pretraining is None or c.task == "Own"}
    faster = read(tmp_path / "a", changed("hardware", {"precision": "32-true"}))
    assert {c.digest for c in first.finetunings} == {c.digest for c in faster.finetunings}


def test_a_pretraining_may_be_repeated_with_every_seed(tmp_path: Path) -> None:
    study = read(tmp_path, changed("pretrain.seed", "cell"))
    assert len(study.pretrainings) == 2 * 4
    assert all(
        study.pretrainings[str(c.pretraining)].settings["seed"] == c.seed
        for c in study.finetunings
        if c.pretraining
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sseds", 3, r"the study has no setting 'sseds'; did you mean seeds\?"),
        ("pretrain.step", 3, r"pretrain has no setting 'step'; did you mean steps\?"),
        ("pretrain.steps", "many", r"pretrain.steps must be a whole number; got 'many'"),
        ("pretrain.steps", True, r"pretrain.steps must be a whole number; got True"),
        ("finetune.seed", 3, r"finetune has no setting 'seed'"),
        ("finetune.encoder", "frozen", r"finetune.encoder must be one of train, freeze, lora; got 'frozen'; did you mean freeze"),
        ("arms.ours.method", "Part2Whole", r"arms.ours.method: there is no Method called 'Part2Whole'; did you mean Parts2Whole"),
        ("arms.ours.method", {"Parts2Whole": {"part": 1}}, r"arms.ours.method \(Parts2Whole\) has no setting 'part'"),
        ("arms.ours.method", {"Parts2Whole": {"part_fraction": [0.9, 0.1]}}, r"arms.ours.method: part_fraction must be"),
        ("arms.ours", {"network": "UNet3D"}, r"arms.ours needs either init .* or method"),
        ("tasks.Own.task", None, r"tasks.Own.task must name a class, alone or with its fields, got None"),
        ("tasks.Own.task", {"data": "x"}, r"tasks.Own.task must name a Task: .*Segmentation.*; or one of your own: FILE.py:CLASS"),
        ("tasks.Own.task", "Segmentation", r"tasks.Own.task.data is missing: Segmentation needs it"),
        ("tasks.Own.task", {"Segmentation": {"data": "x", "patch_size": [1, 2]}}, r"tasks.Own.task.patch_size must be 3 whole numbers, such as \[32, 64, 64\]; got \[1, 2\]"),
        ("tasks.Own.task", {"Segmentation": {"data": "x", "preprocess": {"modality": "CTT"}}}, r"tasks.Own.task.preprocess.modality must be one of auto, CT, MR, unit; got 'CTT'; did you mean CT"),
        ("pretrain.whole_mm", ["a", 1, 2], r"pretrain.whole_mm must be 3 numbers; got \['a', 1, 2\]"),
        ("pretrain.optimiser", {"lr": 1}, r"pretrain.optimiser must name an Optimiser: AdamW, .*SGD"),
        ("pretrain.batch_size", None, r"pretrain.batch_size must be a whole number; got None"),
        ("data.broken", {}, r"data.broken needs the package test_resolve_missing, which isn't installed"),
        ("arms.ours.method", "no_file.py:Mine", r"arms.ours.method: there is no file /.*/no_file.py"),
        ("arms.ours.method", "no_module_at_all:Mine", r"arms.ours.method: there is no module no_module_at_all on the Python path"),
        ("tasks.Own.cases", [0], r"tasks.Own.cases must be 1 or more, got 0"),
        ("fractions", [1.5], r"fractions must be in \(0, 1\], got 1.5"),
        ("seeds", 0, r"seeds must be a number of seeds from 1"),
        ("seeds", [1, 1], r"two fine-tunings have the same"),
        ("table", {"test": "t-test"}, r"table: there is no test 't-test'"),
        ("table", {"focus": "theirs"}, r"table: 'theirs' is not an arm"),
        ("data.stores.pool", {"modality": "CT"}, r"data.stores.pool needs scans"),
        ("data.phantom", {"case": 3}, r"data.phantom has no setting 'case'; did you mean cases"),
        ("imports", ["no_such_module_at_all"], r"imports: there is no module no_such_module_at_all on the Python path"),
        ("endpoints", ["finnal"], r"endpoints: there is no endpoint 'finnal'; did you mean final\?"),
        ("endpoints", ["quickness"], r"endpoints: there is no endpoint 'quickness'; known are final, area, steps_to_90"),
        ("endpoints", ["final", "final"], r"endpoints must be one or more of .*, each once; got"),
        ("endpoints", [], r"endpoints must be one or more of"),
        ("pretrain", {"steps": 3}, r"needs store: one of pool, or a folder"),
        ("arms", {}, r"arms is missing"),
        ("arms.given", {"init": "runs/p2w", "pretrain": {"steps": 9}}, r"arms.given has init, so nothing is pre-trained for it, and pretrain"),
        ("table", {"test": "wilcoxon", "margin": 0.01}, r"table: a margin needs a test by t"),
        ("table", {"margin": -0.01}, r"table: a margin must be above 0"),
        ("table", {"margin": 1}, r"table: a margin of 1 holds any difference of shares.*one point is 0.01"),
    ],
)  # fmt: skip
def test_every_mistake_is_named_by_its_place(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        read(tmp_path, changed(path, value))


def test_a_margin_is_of_the_metric_that_tasks_are_judged_by(tmp_path: Path) -> None:
    plain = changed("table", {"margin": 2})
    for task in plain["tasks"].values():
        task["metric"] = "hd95_mm_mean"
    assert read(tmp_path, plain).table["margin"] == 2


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="can't be read"):
        read_study(tmp_path / "none.yaml", out=tmp_path, verbs=VERBS)
    (tmp_path / "bad.yaml").write_text("arms: [")
    with pytest.raises(StudyError, match=r"bad\.yaml is not YAML"):
        read_study(tmp_path / "bad.yaml", out=tmp_path, verbs=VERBS)
    (tmp_path / "list.yaml").write_text("- arms")
    with pytest.raises(StudyError, match="must be a mapping"):
        read_study(tmp_path / "list.yaml", out=tmp_path, verbs=VERBS)


def test_fields_alone_change_what_the_class_prescribes(tmp_path: Path) -> None:
    task = {"BrainTumourSegmentation": {"data": "x", "preprocess": {"spacing_mm": [2, 2, 2]}}}
    own = read(tmp_path, changed("tasks.Own.task", task)).tasks["Own"]
    default = BrainTumourSegmentation(tmp_path / "x")
    assert own == default.replace(preprocess=default.preprocess.replace(spacing_mm=(2.0, 2.0, 2.0)))
    assert own.preprocess.modality == "MR"
    named = {"BrainTumourSegmentation": {"data": "x", "preprocess": {"Preprocess": {"modality": "CT"}}}}
    assert read(tmp_path, changed("tasks.Own.task", named)).tasks["Own"].preprocess == Preprocess("CT")
    slower = read(tmp_path, changed("tasks.Own.finetune.optimiser", {"lr": 1e-4}))
    assert {c.settings["optimiser"] for c in slower.finetunings if c.task == "Own"} == {
        AdamW(lr=1e-4, weight_decay=inspect.signature(finetune).parameters["optimiser"].default.weight_decay)
    }


def test_a_class_of_ones_own_is_named_by_its_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "nets.py").write_text(
        "import dataclasses, parts2whole as p2w\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class BesideTheStudy(p2w.Network):\n"
        "    width: int = 2\n"
        "    def build_encoder(self, in_channels): ...\n"
    )
    study = read(tmp_path, changed("network", {"mine/nets.py:BesideTheStudy": {"width": 3}}))
    scratch = next(c for c in study.finetunings if c.arm == "scratch")
    assert scratch.settings["network"].to_dict() == {
        "class_path": "BesideTheStudy",
        "init_args": {"width": 3},
    }
    by_name = changed("network", {"BesideTheStudy": {"width": 3}}) | {"imports": ["mine/nets.py"]}
    again = read(tmp_path, by_name)
    assert [c.digest for c in again.finetunings] == [c.digest for c in study.finetunings]


TINY, SMALL = {"UNet3D": {"size": "tiny"}}, {"UNet3D": {"size": "small"}}


def with_arms(arms: dict[str, Any], network: Any = None) -> dict[str, Any]:
    plain = {key: value for key, value in PLAIN.items() if key != "network"} | {"arms": arms}
    return plain | ({"network": network} if network else {})


@pytest.mark.parametrize(
    ("arms", "network", "expected"),
    [
        ({"ours": {"method": "Autoencoder", "network": TINY}}, None, "tiny"),
        (
            {"ours": {"method": "Autoencoder", "network": TINY}},
            SMALL,
            "tiny",
        ),  # that of all it is compared with
        (
            {"ours": "Autoencoder", "theirs": {"method": "SimCLR", "network": SMALL}},
            None,
            None,
        ),  # the default
        ({"ours": "Autoencoder", "theirs": {"method": "SimCLR", "network": TINY}}, SMALL, "small"),
        ({"ours": "Autoencoder"}, TINY, "tiny"),
        ({"ours": "Autoencoder"}, None, None),
        ({"given": {"init": "medicalnet:weights/resnet_10.pth"}}, SMALL, "small"),
        ({}, TINY, "tiny"),
    ],
)
def test_scratch_has_the_network_that_it_is_compared_with(
    tmp_path: Path, arms: dict[str, Any], network: Any, expected: str | None
) -> None:
    study = read(tmp_path, with_arms({"scratch": "scratch"} | arms, network))
    cells = [cell for cell in study.finetunings if cell.arm == "scratch"]
    assert {cell.settings.get("network") for cell in cells} == {expected and UNet3D(size=expected)}
    assert not any("network_from" in cell.settings for cell in cells)


def test_scratch_beside_weights_of_others_has_their_network(tmp_path: Path) -> None:
    study = read(tmp_path, with_arms({"scratch": "scratch", "a": "medicalnet:w/a.pth"}))
    (scratch,) = {c.settings["network_from"] for c in study.finetunings if c.arm == "scratch"}
    assert scratch == f"medicalnet:{tmp_path / 'w/a.pth'}"
    own = read(
        tmp_path, with_arms({"scratch": {"init": "scratch", "network": TINY}, "a": "medicalnet:w/a.pth"})
    )
    assert {c.settings.get("network") for c in own.finetunings if c.arm == "scratch"} == {UNet3D(size="tiny")}
    assert own.notes == ()


@pytest.mark.parametrize(
    "arms",
    [
        {"a": {"method": "Autoencoder", "network": TINY}, "b": {"method": "SimCLR", "network": SMALL}},
        {"a": "medicalnet:w/a.pth", "b": "i3d:w/b.pt"},
    ],
)
def test_scratch_can_not_have_two_networks(tmp_path: Path, arms: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match=r"arms\.scratch needs network: a, b may have different ones"):
        read(tmp_path, with_arms({"scratch": "scratch"} | arms))


def test_networks_that_differ_from_that_of_scratch_are_said(tmp_path: Path) -> None:
    arms = {"scratch": "scratch", "a": {"method": "Autoencoder", "network": TINY}, "b": "SimCLR"}
    study = read(tmp_path, with_arms(arms | {"given": "medicalnet:w/a.pth"}, SMALL))
    assert study.notes == (
        "a trains another network than scratch, so between them not only the start differs",
        "given may bring another network than scratch, so between them not only the start differs",
    )
    assert read(tmp_path, with_arms({"scratch": "scratch", "b": "SimCLR"}, SMALL)).notes == ()


def test_labels_steps_and_seeds_are_nested_and_known_work_keeps_its_digest(tmp_path: Path) -> None:
    one = read(tmp_path, PLAIN)
    study = read(tmp_path, changed("finetune.steps", [8, 16]))
    liver = [c for c in study.finetunings if c.task == "Liver"]
    combined = {(c.arm, c.settings["fraction"], c.settings["steps"], c.seed) for c in liver}
    assert len(combined) == len(liver) == len({c.digest for c in liver}) == 4 * 1 * 2 * 2
    assert {c.steps for c in liver} == {8, 16}
    assert {c.folder for c in one.finetunings} <= {c.folder for c in study.finetunings}
    # The task Own has a single number of its own, which counts before the shared list.
    assert {(c.settings["steps"], c.steps) for c in study.finetunings if c.task == "Own"} == {(9, None)}
    assert "Liver, 10 %, 16 steps, ours, seed 1" in [c.title for c in study.finetunings]
    assert "Own, 3 cases, ours, seed 1" in [c.title for c in study.finetunings]
    assert "numbers of steps" not in one.describe()
    assert ", 3 numbers of steps, " in study.describe()
    jobs, later = make_jobs(study, local_workers=1, cluster=False)
    kinds = {job.kind for job in (*jobs, *later)}
    assert kinds == {"pre-training", "Liver, 8 steps", "Liver, 16 steps", "Own"}
    same = read(tmp_path, changed("finetune.steps", [8]))
    assert [c.digest for c in same.finetunings] == [c.digest for c in one.finetunings]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("finetune.steps", [8, "many"], r"finetune.steps must be a whole number; got 'many'"),
        ("finetune.steps", [8, 0], r"finetune.steps must be 1 or more, or a list of such, got \[8, 0\]"),
        ("finetune.steps", [], r"finetune.steps must be 1 or more, or a list of such, got \[\]"),
        ("tasks.Own.finetune.steps", [9, 9], r"the same arm, task, labels, steps and seed"),
        ("arms.ours.finetune.steps", [8, 16], r"arms.ours.finetune.steps must be a whole number; got \[8, 16\]"),
    ],
)  # fmt: skip
def test_steps_that_make_no_study(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        read(tmp_path, changed(path, value))


def test_an_arm_has_the_steps_of_all_where_there_are_several(tmp_path: Path) -> None:
    plain = changed("finetune.steps", [8, 16])
    plain["arms"]["ours"]["finetune"] = {"steps": 5}
    with pytest.raises(StudyError, match=r"arms.ours.finetune.steps: Liver has several numbers of steps"):
        read(tmp_path, plain)


def test_endpoints_are_named_in_the_file_and_an_area_needs_a_curve(tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN).endpoints == ("final",)
    assert read(tmp_path, changed("endpoints", "spread")).endpoints == ("spread",)
    named = read(tmp_path, changed("endpoints", ["spread", "area", "final"]))  # the task Own has two sizes
    assert named.endpoints == ("final", "area", "spread")
    flat = changed("endpoints", ["area"])
    flat["tasks"]["Own"]["cases"] = [3]
    with pytest.raises(StudyError, match="endpoints: area needs a curve: two or more numbers of labels"):
        read(tmp_path, flat)
    flat["finetune"]["steps"] = [8, 16]
    assert read(tmp_path, flat).endpoints == ("area",)


@pytest.mark.parametrize(
    ("twice", "key"),
    [
        ("finetune: {steps: 30}", "'finetune'"),
        ("seeds: {2: a, 2: b}", "2"),
        ("arms: {P: SimCLR, P: MoCo}", "'P'"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path: Path, twice: str, key: str) -> None:
    text = yaml.safe_dump(PLAIN)
    if key != "'finetune'":
        text = yaml.safe_dump(
            {name: value for name, value in PLAIN.items() if name != twice.partition(":")[0]}
        )
    (tmp_path / "study.yaml").write_text(f"{text}{twice}\n")
    with pytest.raises(StudyError, match=rf"study.yaml is not YAML: {key} is given twice.*line \d+"):
        read_study(tmp_path / "study.yaml", out=tmp_path / "out", verbs=VERBS)


def test_anchors_and_merges_of_yaml_stay_what_they_are(tmp_path: Path) -> None:
    text = yaml.safe_dump({name: value for name, value in PLAIN.items() if name != "finetune"})
    (tmp_path / "study.yaml").write_text(f"{text}finetune: {{<<: &few {{steps: 3}}, steps: 8}}\n")
    study = read_study(tmp_path / "study.yaml", out=tmp_path / "out", verbs=VERBS)
    assert {c.settings["steps"] for c in study.finetunings if c.task != "Own"} == {8}


def test_the_network_of_an_arm_with_given_weights_is_told_to_fine_tuning(tmp_path: Path) -> None:
    study = read(
        tmp_path, changed("arms.given", {"init": "runs/p2w", "network": {"UNet3D": {"size": "base"}}})
    )
    given = [c.settings["network"] for c in study.finetunings if c.arm == "given"]
    assert given
    assert {str(network) for network in given} == {str(UNet3D(size="base"))}


def test_a_renamed_arm_finds_its_pretraining_again(tmp_path: Path) -> None:
    first = read(tmp_path, PLAIN)
    for pretraining in first.pretrainings.values():
        pretraining.folder.mkdir(parents=True)
    plain = copy.deepcopy(PLAIN)
    plain["arms"] = {f"{name}-again": arm for name, arm in plain["arms"].items()}
    second = read(tmp_path, plain)
    assert second.pretrainings.keys() == first.pretrainings.keys()
    assert {p.folder for p in second.pretrainings.values()} == {p.folder for p in first.pretrainings.values()}
