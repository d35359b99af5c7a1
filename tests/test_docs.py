"""The documentation is tried: every command in it parses, and every call in it binds to a real signature."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import parts2whole
from parts2whole.cli import load, main, read, split_name
from parts2whole.command_line.commands import COMMANDS
from parts2whole.contracts import Contract, keep
from parts2whole.phantom.example import write_pairs
from parts2whole.study.read import Reader
from parts2whole.verbs.check import check

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block for of, block in found if of == language]


FILES = {
    match[1]: block
    for page in PAGES
    for block in blocks(page, "python")
    if (match := re.match(r"# (\w+\.py)\n", block))
}
"""Files of a user's own that pages show: a block of Python that begins with the name."""

COMMAND_LINES = sorted(
    {
        line.strip()
        for page in PAGES
        for block in blocks(page, "")
        for line in block.splitlines()
        if line.startswith("parts2whole ")
    }
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "runs" / "ft0").mkdir(parents=True)
    (folder / "runs" / "ft0" / "config.yaml").write_text("task: {Segmentation: {data: labelled/}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.mark.parametrize("name", FILES)
def test_every_class_of_ones_own_keeps_the_promises_of_its_family(name, files):
    module = name.removesuffix(".py")
    classes = re.findall(r"^class (\w+)", FILES[name], re.MULTILINE)
    for one in classes:
        found = vars(importlib.import_module(module))[one]
        is_suite = issubclass(found, Contract)
        outcomes = list(keep(found)) if is_suite else check(f"{module}:{one}").outcomes
        assert not [outcome for outcome in outcomes if outcome.fate == "broken"]
    assert classes


STUDIES = {
    match[1]: block
    for page in PAGES
    for block in blocks(page, "yaml")
    if (match := re.match(r"# ([\w-]+\.yaml)\n", block))
}
"""Studies that pages show whole: a block of YAML that begins with the name of its file."""


@pytest.fixture(scope="module")
def around(files):
    """What studies and exports of the pages find beside them: scans, labelled cases, a run, weights."""
    write_pairs(files / "labelled", patients=6)
    write_pairs(files / "scans", patients=7)
    store = parts2whole.prepare(files / "scans", out=files / "store", modality="CT", progress=False)
    tiny = parts2whole.UNet3D(size="tiny")
    short = {"network": tiny, "steps": 1, "batch_size": 2, "validation_wholes": 4, "progress": False}
    held = parts2whole.Segmentation(files / "labelled")
    run = files / "runs" / "p2w"
    parts2whole.pretrain(store.path, out=run, whole_size=(16, 16, 16), held_out=held, **short)
    state = parts2whole.ResNet3D(depth=10).build_encoder(1).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, files / "resnet_10.pth")
    parts2whole.import_weights(f"medicalnet:{files}/resnet_10.pth", out=files / "weights" / "medicalnet-10")
    return files


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_a_page_runs_to_its_table(name, around):
    study = yaml.safe_load(STUDIES[name])
    study["seeds"], study["finetune"]["steps"] = 1, 1
    own = "pretrain" in study  # a study of given weights differs in nothing else, and is only read
    if own:
        study["pretrain"] |= {"steps": 1, "embed_wholes": 0, "validation_wholes": 4}
    (around / name).write_text(yaml.safe_dump(study))
    out = around / "runs" / name
    done = parts2whole.benchmark(around / name, out=out, workers=0, dry_run=not own, progress=False)
    if own:
        assert not done.failures
        assert set(done.table.arms) == set(study["arms"])


EXPORTED = [
    (folder, block)
    for page in PAGES
    for block in blocks(page, "py")
    for folder in re.findall(r"^# in (export/\S+)\n", block)
]
"""Python for other tools, in the folder that an export leaves."""


@pytest.mark.parametrize(("folder", "block"), EXPORTED, ids=[folder for folder, _ in EXPORTED])
def test_what_is_exported_loads_as_the_page_says(folder, block, around, monkeypatch, capsys):
    (line,) = (line for line in COMMAND_LINES if line.endswith(f"--out {folder}") and " export " in line)
    monkeypatch.chdir(around)
    assert main(shlex.split(line)[1:]) == 0
    monkeypatch.chdir(around / folder)
    monkeypatch.syspath_prepend(str(around / folder))
    capsys.readouterr()
    exec(compile(block, folder, "exec"), {})
    said = capsys.readouterr().out
    assert "torch.Size([1, 8, 32, 32, 32])" in said or "unexpected_keys=[]" in said


def test_pages_show_studies_and_exports():
    assert {"two-arms.yaml", "which-weights.yaml"} <= set(STUDIES)
    assert {"export/p2w", "export/monai"} <= {folder for folder, _ in EXPORTED}


def test_there_are_commands_to_try():
    assert len(COMMAND_LINES) >= 8


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_parses(line, files, monkeypatch):
    monkeypatch.chdir(files)
    name, arguments = split_name(shlex.split(line, comments=True)[1:])
    understood = read(COMMANDS[name], load(COMMANDS[name]), arguments, Reader())
    assert bool(understood) == bool(arguments)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_every_call_binds(page):
    for block in (block for block in blocks(page, "python") if block not in FILES.values()):
        for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
            assert isinstance(call.func, ast.Attribute), ast.unparse(call)
            function = getattr(parts2whole, call.func.attr)
            inspect.signature(function).bind(*call.args, **{k.arg: k.value for k in call.keywords})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_names_both_commands_on_its_first_screen():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:25])
    assert "make demo" in first_screen
    assert "make test" in first_screen


@pytest.mark.parametrize("page", ["README.md", "benchmarks/study_notes/results.md"])
def test_what_is_said_of_the_gain_is_in_the_results(page):
    said = " ".join((ROOT / page).read_text().replace("*", "").split())
    results = (ROOT / "docs/results.md").read_text()
    first = results.split("## One labelled volume")[1].split("\n## ")[0]
    rows = {
        steps: (f"{float(gain):.1f}", f"p = {float(p):.3f}")
        for steps, gain, p in re.findall(
            r"^\| Parts2Whole, ([\d,]+) steps \| .*<br>\+([\d.]+), p = ([\d.]+) \|$", first, re.MULTILINE
        )
    }
    (tenth,) = re.findall(r"worst tenth of the test patients: .* 5,000 steps gains ([\d.]+) points", first)
    gain, p = rows["5,000"]
    assert gain in said
    assert re.search(rf"\b{float(tenth):.0f} (points )?on the worst tenth", said)
    assert "forty seeds" in said
    assert "n = 40." in first
    if "p =" in said:
        assert p in said
    if " to " in said.split("points of Dice")[0].rpartition("gains")[2]:
        assert f"gains {gain} to {rows['2,000'][0]} points" in said
    planned, methods = (
        results.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for name in ("Hippocampus, as start plans it", "Hippocampus")
    )
    (two,) = re.findall(r"^\| Parts2Whole \| .*?<br>\+([\d.]+)", planned, re.MULTILINE)
    assert re.search(rf"`start` writes .*?gains {float(two):.1f}\b", said)
    (masked,) = re.findall(r"^\| Masked autoencoder \| (.*)$", methods, re.MULTILINE)
    one, three = (f"{float(found):.1f}" for found in re.findall(r"<br>\+([\d.]+)", masked))
    assert f"{one} and {three} points with one and three labels" in said
    large = results.split("\n## Hippocampus, large patches\n")[1].split("\n## ")[0]
    alone, ours = (
        [float(found.replace("−", "-")) for found in re.findall(r"<br>(.[\d.]+)", row)]
        for name in ("Autoencoder", "Parts2Whole")
        for row in re.findall(rf"^\| {name} \| (.*)$", large, re.MULTILINE)
    )
    own = results.split("\n## Hippocampus, weights of its own for every seed\n")[1].split("\n## ")[0]
    (losses,) = re.findall(r"^\| Parts2Whole \| (.*)$", own, re.MULTILINE)
    two, three = (f"{float(found):.1f}" for found in re.findall(r"\*\*.*?<br>−([\d.]+), p", losses))
    advice = " ".join((ROOT / "docs/which-weights.md").read_text().split())
    assert f"with two and three, and a pre-training for every seed, it loses {two} and {three}" in advice
    assert f"loses {two}" in said or f"with two and three labels, by {two} and {three} points" in said
    if "a plain autoencoder" in said:
        assert f"{alone[0]:.1f} with one" in said
        (fall,) = re.findall(r"over 10 seeds by ([\d.]+) with Parts2Whole and by −", results)
        assert f"over ten pre-trainings each by {fall} with Parts2Whole" in said
    if "just significant" in said:
        shown = [
            re.findall(r"p = ([\d.]+)", re.findall(rf"^\| {name} \| (.*)$", table, re.MULTILINE)[0])[0]
            for name, table in (("Masked autoencoder", methods), ("Autoencoder", large))
        ]
        assert f"(p of {float(shown[0]):.3f} and {float(shown[1]):.3f})" in said
    if "SimCLR is worse" in said:
        neck = results.split("\n## Head-and-neck CT\n")[1].split("\n## ")[0]
        (worse,) = re.findall(r"^\| SimCLR \| \*\*.*?<br>−([\d.]+)", neck, re.MULTILINE)
        assert f"with one ({float(worse):.1f} points)" in said
    if "show it again" in said:
        low, high = (f"{found:+.1f}".replace("-", "−") for found in (min(ours), max(ours)))
        assert f"one to ten labels, nothing is told ({low} to {high})" in said


def test_what_is_said_of_more_studies_is_in_their_tables():
    more = (ROOT / "docs/results-more.md").read_text()
    short, small = (
        more.split(f"\n## {name}\n")[1]
        for name in ("Hippocampus, half the steps", "Sarcoma and adrenal glands")
    )
    (ours,) = re.findall(r"^\| Parts2Whole \| (.*)$", small.split("\n## ")[0], re.MULTILINE)
    adrenal, *_, nine = (float(found.replace("−", "-")) for found in re.findall(r"<br>(.[\d.]+)", ours))
    (ramp,) = re.findall(r"^\| scratch, one ramp \| (.*)$", short.split("\n## ")[0], re.MULTILINE)
    two, three = (f"{float(found):.1f}" for found in re.findall(r"\*\*<br>−([\d.]+)", ramp))
    said = " ".join(more.split())
    assert f"two ramps gain {two} and {three} points" in said
    assert f"nine sarcomas Parts2Whole is {nine:.1f} points ahead" in said
    results = " ".join((ROOT / "docs/results.md").read_text().split())
    assert f"Parts2Whole is {-adrenal:.1f} points of AUC below scratch" in results
    assert (
        round(float(two))
        == round(float(three))
        == int(re.findall(r"help short fine-tuning from scratch by (\d) points", results)[0])
    )
    probes = [
        float(found)
        for found in re.findall(
            r"^\| [^|]+ \| ([\d.]+) ±", (ROOT / "docs/probes.md").read_text(), re.MULTILINE
        )
    ]
    (fresh,) = map(
        float, re.findall(r"untrained, first seed alone: ([\d.]+)\.", (ROOT / "docs/probes.md").read_text())
    )
    assert len(probes) == 6
    assert sorted(probes)[1] - fresh > 19.5  # "all but the smallest parts stand 20 points above"
    assert sorted(probes)[0] == probes[1]


def test_every_study_of_the_short_results_has_all_its_runs_on_the_long_page():
    short, long = ((ROOT / f"docs/{name}.md").read_text() for name in ("results", "results-runs"))
    places = re.findall(r"\]\(results-runs\.md#([\w-]+)\)", short)
    assert len(places) >= 3
    headings = {re.sub(r"[^\w]+", "-", line.lower()) for line in re.findall(r"^## (.*)$", long, re.MULTILINE)}
    assert set(places) <= headings
    assert long.count("### Every seed") == len(places)
    assert "| seed 39 |" in long
    summary, *sections = short.split("\n## ")
    assert len(summary.splitlines()) < 35  # a minute's reading
    assert all(len(section.splitlines()) < 45 for section in sections)


def test_the_readme_begins_with_picture_result_and_commands():
    first_screens = "\n".join((ROOT / "README.md").read_text().splitlines()[:55])
    for wanted in (
        "docs/images/parts2whole.png",
        "docs/results.md",
        "pip install",
        "parts2whole start scans/ labelled/",
        "parts2whole benchmark plan.yaml",
        "make demo",
    ):
        assert wanted in first_screens, wanted


NAMES = sorted(
    {
        name
        for page in PAGES
        for family in re.findall(
            r"`--(?:method|network|task|init) ([A-Z]\w+)`((?:,\s+`[A-Z]\w+`)*)", page.read_text()
        )
        for name in re.findall(r"[A-Z]\w+", " ".join(family))
    }
)


def test_every_class_that_a_page_lists_is_there():
    assert {"SimCLR", "LiverSegmentation"} <= set(NAMES)
    assert not [name for name in NAMES if not hasattr(parts2whole, name)]


NAMED = {
    *(name for file in SOURCES for name in re.findall(r"(?:`| {8,})(parts2whole\.[\w.]+\w)(?:`|:\s)", file.read_text())),
    *(f"parts2whole.{name}" for name in re.findall(r"\| `([a-z]\w*\.[\w.]+)` \|", (ROOT / "docs/glossary.md").read_text())),
} - {"parts2whole.loggers", "parts2whole.own.OwnError"}  # fmt: skip
"""What docstrings and the glossary refer to by module, but a group of entry points and an error in a module that
imports what is asked of it."""


@pytest.mark.parametrize("name", sorted(NAMED))
def test_what_is_referred_to_is_there(name):
    pkgutil.resolve_name(name)
