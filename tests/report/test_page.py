"""The page: complete, self-contained, escaped, small, and alive in a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parts2whole.report.curves import mean_of, thin
from parts2whole.report.figures import grey_png
from parts2whole.report.page import case_tables, write_report
from parts2whole.report.runs import Panel, RunError, read_run, write_volumes
from parts2whole.report.study import Listing

MakeRun = Callable[..., Path]
EVIL = "</script><script>alert('patient')</script>"


class Reader(HTMLParser):
    """Collects tags, the text that is shown, and the data of the script."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = ""
        self.data: Any = None
        self.feed(page.read_text())
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script" and self.tags[-1][1].get("id") == "data":
            self.data = json.loads(data)
        elif not self.inside:
            self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def test_a_pretraining_page(tmp_path: Path, pretrained: MakeRun) -> None:
    path = write_report(pretrained(tmp_path / "run", loss=0.0124, notes=["3 scans are padded"]))
    assert path == tmp_path / "run" / "report.html"
    page = Reader(path)
    for text in (
        "Validation loss 0.0124, 38 % below the better trivial baseline",
        "162 scans to train on, 18 to validate",
        "3 scans are padded",
        "part_fraction",
        "torch 2.13.0",
    ):
        assert text in page.text
    names = [series["name"] for series in page.data["charts"][0]["series"]]
    assert names == ["training", "validation", "mean whole", "what the network sees"]
    (viewer,) = page.data["viewers"]
    assert [sample["name"] for sample in viewer["samples"]] == ["case_a", "case_b"]
    assert viewer["samples"][0]["shape"] == [4, 6, 5]
    assert not list(tmp_path.rglob("*.part"))


def test_a_collapse_and_an_unfinished_run_are_the_first_thing_seen(
    tmp_path: Path, pretrained: MakeRun
) -> None:
    page = Reader(write_report(pretrained(tmp_path / "bad", loss=0.05), tmp_path / "out.html"))
    assert ("div", {"class": "verdict bad"}) in page.tags
    assert "Collapsed" in page.text
    page = Reader(write_report(pretrained(tmp_path / "stopped", finished=False)))
    assert "Not finished: step 200" in page.text


def test_a_finetuning_page_shows_the_worst_cases_first(tmp_path: Path, finetuned: MakeRun) -> None:
    page = Reader(write_report(finetuned(tmp_path / "run", names=("bad one", "middle", "best one"))))
    assert "Dice mean 80.00 % on 3 test cases" in page.text
    assert page.text.index("bad one") < page.text.index("middle") < page.text.index("best one")
    assert page.data["charts"][0]["percent"]


def test_a_comparison_page(comparison: Path) -> None:
    page = Reader(write_report(comparison))
    for text in (
        "Parts2Whole is better than scratch in 1 of 2 comparisons",
        "5 cases",
        "two-sided",
        "n = 3 pairs of equal seed",
        "Other metrics (2)",
        "1 pre-training, 12 fine-tuning",
        "All runs (13)",
        "p2w-10-2",
    ):
        assert text in page.text
    titles = [chart["title"] for chart in page.data["charts"]]
    assert "Segmentation, hippocampus, 5 labelled cases: validation" in titles
    assert ("strong", {"class": "best"}) in page.tags


def test_cases_of_a_classification_are_judged_by_their_true_class(tmp_path: Path, finetuned: MakeRun) -> None:
    folder = finetuned(tmp_path / "run")
    (folder / "test_cases.csv").write_text("case,target,p_0,p_1\na,0,0.9,0.1\nb,1,0.8,0.2\n")
    (table,) = case_tables([read_run(folder)])
    assert table["score"] == "probability of the true class"
    assert [(row["case"], row["mean"]) for row in table["rows"]] == [("b", 0.2), ("a", 0.9)]


def test_every_name_is_escaped(tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun) -> None:
    folder = pretrained(tmp_path / "a&b" / "pre", notes=[EVIL])
    whole = np.zeros((1, 4, 6, 5), np.float32)
    write_volumes(folder, Panel(whole, whole, whole, names=(EVIL,)))
    method = {"class_path": f"x.{EVIL}", "init_args": {EVIL: EVIL}}
    for seed in range(2):
        for arm in ("scratch", EVIL):
            finetuned(
                tmp_path / "a&b" / f"{'evil' if arm == EVIL else arm}{seed}",
                seed=seed,
                arm=arm,
                task_name=EVIL,
                names=(EVIL, "b", "c"),
                method=method,
                dice=0.7 + seed / 10,
            )
    evil = json.loads((tmp_path / "a&b" / "evil0" / "result.json").read_text())
    for page in (
        write_report(tmp_path / "a&b"),
        write_report(folder),
        write_report(tmp_path / "a&b" / "evil0"),
    ):
        text = page.read_text()
        assert "<script>alert" not in text
        assert text.count("<script") == 6
        assert EVIL in Reader(page).text
    assert evil["task_name"] == EVIL


def test_the_page_asks_for_nothing(comparison: Path) -> None:
    page = Reader(write_report(comparison))
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "action"):
            assert (attributes.get(key) or "data:").startswith("data:")
    text = (comparison / "report.html").read_text()
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(
        r"(?:https?:)?//[a-z]+\.[a-z]|@import|url\(", text.replace("http://www.w3.org/2000/svg", "")
    )


def test_the_page_stays_small(tmp_path: Path, pretrained: MakeRun) -> None:
    noise = np.random.default_rng(0).uniform(size=(6, 40, 80, 80)).astype(np.float32)
    for name in ("a", "b"):
        folder = pretrained(tmp_path / name, panel=False)
        np.savez(
            write_volumes(folder, Panel(noise[:1], noise[:1], noise[:1])),
            part=noise,
            reconstruction=noise,
            whole=noise,
        )
        with (folder / "metrics.jsonl").open("a") as file:
            for step in range(300, 20_000):
                file.write(json.dumps({"step": step, "time_s": 1.0, "split": "train", "loss": 0.01}) + "\n")
    path = write_report(tmp_path)
    assert path.stat().st_size < 8_000_000
    page = Reader(path)
    for viewer in page.data["viewers"]:
        assert (len(viewer["samples"]), viewer["left"]) == (2, 4)
        assert all(sample["thinned"] == 1 for sample in viewer["samples"])
    assert all(len(series["points"]) <= 400 for series in page.data["charts"][0]["series"])


def test_damage_is_told_and_is_not_the_end(comparison: Path) -> None:
    (comparison / "pretrain" / "panels" / "latest.npz").write_bytes(b"not a file of arrays")
    (comparison / "scratch-5-0" / "result.json").write_text("{")
    shutil.copytree(comparison / "scratch-5-1", comparison / "again")
    page = Reader(write_report(comparison))
    assert "latest.npz can't be read" in page.text
    assert "1 of 14 runs are not finished" in page.text
    assert "scratch-5-0: result.json can't be read" in page.text
    assert "run twice" in page.text


def test_an_undefined_distance_is_the_worst_case(tmp_path: Path, finetuned: MakeRun) -> None:
    """Of b one arm has missed all; of d both masks are empty, so that there is nothing to be judged."""
    text = {"scratch": "a,5.0,0.9\nb,1.0,0.9\nc,9.0,0.8\nd,,\n", "ours": "a,4.0,0.9\nb,,0\nc,2.0,0.7\nd,,\n"}
    for arm, rows in text.items():
        folder = finetuned(tmp_path / arm, arm=arm, task_name="T", test={"assd_mm_liver": 3.0})
        (folder / "test_cases.csv").write_text(f"case,assd_mm_liver,dice_liver\n{rows}")
    (table,) = case_tables([read_run(tmp_path / arm) for arm in text])
    assert table["score"] == "ASSD mm liver"
    assert [row["case"] for row in table["rows"]] == ["b", "c", "a"]
    assert table["rows"][0]["values"] == {"scratch": 1.0, "ours": math.inf}


def test_undefined_distances_are_called_so_on_the_page(tmp_path: Path, finetuned: MakeRun) -> None:
    for seed, rows in enumerate(("a,5.0\nb,1.0\n", "a,4.0\nb,\n")):
        folder = finetuned(tmp_path / str(seed), seed=seed, test={"assd_mm": 3.0})
        (folder / "test_cases.csv").write_text(f"case,assd_mm\n{rows}")
    page = Reader(write_report(tmp_path))
    assert "It is undefined where one of two masks is empty, which is worst." in page.text
    assert page.text.index("b undefined") < page.text.index("a 4.500")


def test_what_does_not_fit_the_page_is_told(tmp_path: Path, pretrained: MakeRun, finetuned: MakeRun) -> None:
    """Eight pre-trainings, fourteen other metrics and thirteen numbers of labels."""
    for place in range(8):
        pretrained(tmp_path / f"pre{place}", panel=False, loss=0.05, arm=f"arm {place}")
    for cases in range(1, 14):
        for arm in ("scratch", "ours"):
            test = {"dice_mean": 0.7} | {f"iou_{number}": 0.5 for number in range(14)}
            about = {"arm": arm, "task_name": "T", "cases": cases, "test": test}
            finetuned(tmp_path / f"{arm}{cases}", **about)
    page = Reader(write_report(tmp_path))
    for text in (
        "2 more pre-training verdicts (see the page that report writes of each).",
        "4 more pre-training headlines (see",
        "2 more metric tables (parts2whole compare --metric makes them).",
        "1 more fine-tuning chart (figures are in metrics.jsonl).",
    ):
        assert f"Left out of this page: {text}" in page.text
    assert "Other metrics (12)" in page.text
    groups = [chart["group"] for chart in page.data["charts"]]
    assert groups.count("finetuning") == 12


def test_a_page_that_shows_all_says_nothing_of_more(comparison: Path) -> None:
    assert "Left out of this page" not in Reader(write_report(comparison)).text


def test_the_lead_of_the_figures_says_whose_test_cases_they_are(comparison: Path) -> None:
    assert "on the same test cases" in Reader(write_report(comparison)).text
    result = comparison / "scratch-5-0" / "result.json"
    changed = json.loads(result.read_text()) | {"test_cases": ["case_1", "case_9"]}
    result.write_text(json.dumps(changed))
    page = Reader(write_report(comparison))
    assert "on the same test cases" not in page.text
    assert "test cases are not the same in all runs" in page.text


def test_a_margin_for_other_metrics_does_not_take_the_table_away(tmp_path: Path, finetuned: MakeRun) -> None:
    """A margin in mm, of the metric that the task is judged by, says nothing of shares."""
    for arm, gain in (("scratch", 0.0), ("ours", 1.0)):
        for seed in range(3):
            test = {"assd_mm": 5.0 - gain + seed * (1 + gain) / 3, "dice_liver": 0.7}
            about = {"arm": arm, "task_name": "T", "seed": seed, "test": test, "monitor": "assd_mm"}
            finetuned(tmp_path / f"{arm}{seed}", **about)
    runs = tuple(tmp_path / f"{arm}{seed}" for arm in ("scratch", "ours") for seed in range(3))
    listing = Listing("s", ("scratch", "ours"), runs, {"margin": 1.5}, metrics={"T": "assd_mm"})
    source = tmp_path / "given.yaml"
    source.write_text("{}")
    listing.write(tmp_path, source=source)
    page = Reader(write_report(tmp_path))
    assert "within ±1.5 (two one-sided paired t-tests" in page.text
    assert "Dice liver: no table (a margin of 1.5 holds any difference of shares" in page.text


def test_what_the_network_sees_is_a_part_or_another_input(tmp_path: Path, pretrained: MakeRun) -> None:
    boxed, masked = (pretrained(tmp_path / name) for name in ("boxed", "masked"))
    whole = np.zeros((2, 4, 4, 4), np.float32)
    write_volumes(masked, Panel(whole, whole, whole, ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0))))
    seen = {}
    for folder in (boxed, masked):
        (viewer,) = Reader(write_report(folder)).data["viewers"]
        seen[folder.name] = {sample["seen"] for sample in viewer["samples"]}
    assert seen == {"boxed": {"Part"}, "masked": {"Input"}}
    assert [sample["spacing"] for sample in viewer["samples"]] == [[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)


def test_long_lines_are_thinned_to_their_last_point() -> None:
    points = [(step, float(step)) for step in range(1, 1001)]
    short = thin(points, 50)
    assert len(short) <= 50
    assert short[-1] == (1000, 1000.0)
    assert [step for step, _ in short] == sorted({step for step, _ in short})
    assert thin(points[:50], 50) == points[:50]
    assert mean_of([[(1, 0.0), (2, 1.0)], [(2, 3.0)]]) == [(2, 2.0)]


def test_the_report_works_without_torch() -> None:
    code = (
        "import sys; import parts2whole.report.page, parts2whole.report.figures, parts2whole.report.formats; "
        "sys.exit(sorted({'torch', 'monai', 'matplotlib.pyplot'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_viewer_opens_at_the_median_sample(tmp_path: Path, pretrained: MakeRun) -> None:
    folder = pretrained(tmp_path / "run")
    whole = np.zeros((5, 4, 4, 4), np.float32)
    errors = np.array([0.5, 0.1, 0.3, 0.2, 0.4], np.float32)[:, None, None, None]
    write_volumes(folder, Panel(whole, whole + errors, whole))
    (viewer,) = Reader(write_report(folder)).data["viewers"]
    assert viewer["first"] == 2
    assert [sample["rank"].split(" of ")[0] for sample in viewer["samples"]] == [
        "number 5", "number 1", "the median", "number 2", "number 4"
    ]  # fmt: skip


def test_figures_of_pretraining_do_not_stand_under_finetuning(comparison: Path) -> None:
    page = Reader(write_report(comparison))
    groups: dict[str, set[str]] = {}
    for chart in page.data["charts"]:
        groups.setdefault(chart["group"], set()).add(chart["title"].split(",")[0])
    assert groups["finetuning"] == {"Segmentation"}
    assert "Learning rate" in groups["more"]
    sections = [attrs.get("id") for tag, attrs in page.tags if tag == "section"]
    assert sections.index("finetuning") < sections.index("curves") < sections.index("more")
    assert "Also recorded while pre-training" in page.text
    # One pre-training and twelve fine-tunings of 20 s.
    assert "pre-training 20 s, fine-tuning 4 min 0 s" in page.text


def test_a_cell_of_a_study_is_called_by_its_place(tmp_path: Path, finetuned: MakeRun) -> None:
    folder = finetuned(tmp_path / "Liver-5-cases-seed0-5dcd60a9784e", arm="Parts2Whole", task_name="Liver")
    (folder / "panels").mkdir()
    (folder / "panels" / "test-worst-case_1.png").write_bytes(grey_png(np.zeros((2, 2), np.uint8)))
    page = Reader(write_report(folder))
    assert "Liver, 5 labelled, Parts2Whole, seed 0" in page.text
    assert "worst test case, case_1" in page.text
    assert "5dcd60a9784e" not in page.text
