"""Options as people type them, as settings of a function."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from parts2whole.command_line.options import parse
from parts2whole.networks.base import Network
from parts2whole.networks.unet3d import UNet3D
from parts2whole.study.read import COMMAND_LINE, ArgumentsError, Reader
from parts2whole.tasks.base import Task
from parts2whole.training.runtime import Hardware


def verb(
    run: str | Path,
    scans: list[str | Path],
    *,
    out: str | Path = "out",
    task: Task | None = None,
    network: Network = UNet3D(),
    steps: int = 3,
    size: tuple[int, int, int] = (1, 2, 3),
    extent: tuple[float, float, float] | None = None,
    names: tuple[str, ...] = (),
    hardware: Hardware = Hardware(),
    resume: bool | Literal["auto"] = False,
    progress: bool = True,
) -> None:
    """A verb with every kind of parameter."""


def read(text: str, positional: tuple[str, ...] = ("run", "*scans")) -> dict[str, object]:
    typed = parse(text.split(), verb, positional)
    return Reader().arguments(typed.settings, verb, COMMAND_LINE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c", {"run": "a", "scans": ["b", "c"]}),
        ("a b --out x c", {"run": "a", "scans": ["b", "c"], "out": "x"}),
        ("--out x a b", {"run": "a", "scans": ["b"], "out": "x"}),
        ("--run a b", {"run": "a", "scans": ["b"]}),
        ("--out=x a", {"run": "a", "out": "x"}),
        ("a --steps 5", {"run": "a", "steps": 5}),
        ("--size 4,5,6", {"size": (4, 5, 6)}),
        ("--size 4 5 6", {"size": (4, 5, 6)}),
        ("--size [4,5,6]", {"size": (4, 5, 6)}),
        ("--size [4, 5, 6] a", {"size": (4, 5, 6), "run": "a"}),
        ("--size 4, 5, 6 a", {"size": (4, 5, 6), "run": "a"}),
        ("--size 4 5 6 a b", {"size": (4, 5, 6), "run": "a", "scans": ["b"]}),
        ("--size 4,5,6 a b", {"size": (4, 5, 6), "run": "a", "scans": ["b"]}),
        ("--extent -1 .5 1e3", {"extent": (-1.0, 0.5, 1000.0)}),
        ("--extent null", {"extent": None}),
        ("--names a,b c", {"names": ("a", "b", "c")}),
        ("--names 5", {"names": ("5",)}),
        ("a 1,5.nii --progress", {"run": "a", "scans": ["1,5.nii"], "progress": True}),
        ("--no-progress a", {"run": "a", "progress": False}),
        ("--progress false a", {"run": "a", "progress": False}),
        ("--resume a", {"run": "a", "resume": True}),
        ("--resume auto a", {"run": "a", "resume": "auto"}),
        ("--resume --progress no", {"resume": True, "progress": False}),
        ("--network.size tiny", {"network": UNet3D(size="tiny")}),
        ("--network.norm group --network UNet3D", {"network": UNet3D(norm="group")}),
        ("--network {UNet3D: {size: base}}", {"network": UNet3D(size="base")}),
        ("--hardware.micro-batch 2", {"hardware": Hardware(micro_batch=2)}),
        ("--hardware.micro_batch 2 --hardware.compile", {"hardware": Hardware(micro_batch=2, compile=True)}),
        ("--hardware.no-compile", {"hardware": Hardware()}),
        ("--steps 1_000 --steps 7", {"steps": 7}),
    ],
)
def test_what_is_typed_is_what_is_meant(text: str, expected: dict[str, object]) -> None:
    assert read(text) == expected


def test_the_data_of_a_task_need_no_prefix() -> None:
    task = read("--task Segmentation --data labelled --task.preprocess.modality MR")["task"]
    assert str(task.data) == "labelled"  # type: ignore[attr-defined]
    assert task.preprocess.modality == "MR"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--stpes 3", r"no option --stpes; did you mean --steps\?"),
        ("--micro-batch 3", r"no option --micro-batch; did you mean --hardware.micro-batch\?"),
        ("--wholly", r"no option --wholly; --help lists"),
        ("--steps.many 3", r"no option --steps.many; did you mean --steps\?"),
        ("--steps 5 000", r"--steps takes one value, got 5 000"),
        ("--no-progress false", r"--no-progress takes no value, got false"),
        ("--steps", r"--steps needs a value: a whole number"),
        ("--steps five", r"--steps must be a whole number; got five"),
        ("--size 4 5", r"--size must be 3 whole numbers, such as 1,2,3; got 4 5"),
        ("--size 4.5,1,1", r"--size must be 3 whole numbers, such as 1,2,3; got 4.5,1,1"),
        ("--resume maybe", r"--resume must be true or false or auto; got maybe"),
        ("--network.sise tiny", r"--network \(UNet3D\) has no setting 'sise'; did you mean --network.size\?"),
        ("--network.size tine", r"--network.size must be one of tiny, small, base; got tine; did you mean tiny\?"),
        ("--network UNet", r"--network: there is no Network called 'UNet'; did you mean UNet3D\?"),
        ("--task.data x", r"--task must name a Task: .*Segmentation"),
        ("--network {UNet3D: [}", r"--network: .* is not YAML"),
    ],
)  # fmt: skip
def test_what_is_mistyped_is_told_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ArgumentsError, match=message):
        read(f"run {text}", ("run",))


def test_a_value_that_belongs_nowhere_is_refused() -> None:
    with pytest.raises(ArgumentsError, match="'b' belongs to no option: only RUN may stand without a name"):
        parse(["a", "b"], verb, ("run",))
    with pytest.raises(ArgumentsError, match="'a' belongs to no option: every value follows its option"):
        parse(["a"], verb, ())
