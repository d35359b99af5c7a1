"""What is told of a command before torch is imported, which takes seconds: slips that a look shows."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parts2whole.command_line import foresee, outline
from parts2whole.errors import Parts2WholeError
from parts2whole.files import refuse_present
from parts2whole.run_folder import CARD, WEIGHTS
from parts2whole.scans.layout import holds_dicom, is_labelled, tell_unlabelled
from parts2whole.spec import Spec
from parts2whole.store.location import MANIFEST, tell_used
from parts2whole.study.read import COMMAND_LINE, ArgumentsError, at, leaves_of
from parts2whole.training.cluster import is_first_process
from parts2whole.training.leak import WAYS_OUT
from parts2whole.training.lock import refuse_begun, refuse_busy

OUTPUTS = frozenset({"out", "cache"})
"""Parameters whose paths needn't exist; all others must."""

ROOM = ("prepare", "pretrain", "finetune", "benchmark", "start", "choose")
"""Commands that write much."""

SIZES = {"pretrain": ("whole_size",), "finetune": ("task", "patch_size")}
"""Where the size of what a network takes is, by command."""


def check(
    command: str, positional: Sequence[str], function: Callable[..., Any], values: Mapping[str, Any]
) -> None:
    """Raise `ArgumentsError` for what can't work: missing paths, a used out folder, sizes that don't divide.

    Also for a disk without room, scans that don't say whether they are CT or MR, and weights that have seen
    every labelled scan.

    Args:
        command: its name.
        positional: parameters that may be given without their names.
        function: the outline of its verb.
        values: arguments, as outlines read them.
    """
    _check_paths(positional, function, values)
    try:
        if command in (*SIZES, "prepare", "start") and is_first_process():
            _check_out(command, function, values)
    except Parts2WholeError as error:
        raise ArgumentsError(str(error)) from error
    _check_labelled(command, positional, values)
    if command in SIZES:
        _check_size(SIZES[command], function, values)
    if command in ROOM and is_first_process():
        _check_room(command, function, values)
    _check_modality(command, values)
    _check_seen(values)


def place_of(parameter: str, positional: Sequence[str]) -> str:
    """An option, or the capital letters that stand for it in the usage of a command."""
    names = [name.lstrip("*") for name in positional]
    return parameter.upper() if parameter in names else at(COMMAND_LINE, parameter)


def _check_paths(positional: Sequence[str], function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Files and folders must be there; addresses, sources of weights and patterns are left to the verbs."""
    given = _paths("", typing.get_type_hints(function), values)
    for key, value in values.items():
        if isinstance(value, Spec):
            given |= _paths(f"{key}.", typing.get_type_hints(type(value)), vars(value))
    for parameter, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            text = str(one)
            if set(text) & set(":*?[") or text == "scratch" or os.path.exists(text):
                continue
            beside = Path(text).parent
            names = os.listdir(beside) if os.path.isdir(beside) else []
            close = difflib.get_close_matches(Path(text).name, names, n=1)
            hint = f"did you mean {beside / close[0]}?" if close else f"looked in {beside.resolve()}"
            place = place_of(parameter, positional)
            raise ArgumentsError(f"{place}: there is no file or folder {text}; {hint}")


def _paths(before: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that name what must be there, by their parameter."""
    names = [key for key, hint in hints.items() if Path in leaves_of(hint) and key not in OUTPUTS]
    return {f"{before}{key}": values[key] for key in names if values.get(key) is not None}


def _check_out(command: str, function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """A run needs a folder of its own, unless it goes on with the one there; a store, too."""
    usual = inspect.signature(function).parameters["out"].default
    out = Path(str(values.get("out", usual)))
    if command in SIZES and not values.get("resume"):
        refuse_busy(out)
        refuse_begun(out)
    to_make = command == "prepare" and "://" not in str(values.get("out")) and not (out / MANIFEST).exists()
    if to_make and (used := tell_used(out)):
        raise ArgumentsError(used)
    if command == "start":
        refuse_present(out)


def _check_labelled(command: str, positional: Sequence[str], values: Mapping[str, Any]) -> None:
    """What is segmented must look like labelled data."""
    if command == "start":
        given, place = values.get("labelled"), place_of("labelled", positional)
    else:
        task = values.get("task")
        given = getattr(task, "data", None) if type(task).__name__ == "Segmentation" else None
        place = place_of("task.data", positional)
    if given is None or is_labelled(folder := Path(str(given))):
        return
    if command == "start" and holds_dicom(folder):
        return
    drawn = ", or DICOM series with segmentations or RTSTRUCTs" if command == "start" else ""
    raise ArgumentsError(f"{place}: {tell_unlabelled(folder)}{drawn}")


def _check_room(command: str, function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """There must be space on the disk, for as much as can be foreseen."""
    usual = inspect.signature(function).parameters["out"].default
    given = str(values.get("out") or (Path(str(values["spec"])).stem if command == "benchmark" else usual))
    if "://" in given or values.get("dry_run"):
        return
    out, needed = Path(given), float(foresee.LEAST)
    if command == "prepare" and not (out / MANIFEST).exists():
        needed = max(needed, foresee.room_for_store(_as_list(values["scans"]), dict(values)))
    if command == "benchmark":
        needed = max(needed, foresee.room_for_study(Path(str(values["spec"])), out))
    weights = Path(str(values.get("init", ""))) if command in SIZES else Path()
    for file in {*weights.glob("weights/*.safetensors"), *weights.glob("*.safetensors")}:
        needed = max(needed, foresee.OF_WEIGHTS * file.stat().st_size)
    if told := foresee.tell_no_room(out, needed):
        raise ArgumentsError(told)


def _check_modality(command: str, values: Mapping[str, Any]) -> None:
    """Scans must say whether they are CT or MR, or the command must; weights and runs that go on know it."""
    places: list[str | Path] = []
    option, task = "--modality", values.get("task")
    if command == "prepare" and values.get("modality", "auto") == "auto":
        places = [] if (Path(str(values["out"])) / MANIFEST).exists() else _as_list(values["scans"])
    elif command == "finetune" and type(task).__name__ == "Segmentation":
        known = (
            values.get("init", "scratch") != "scratch" or values.get("network_from") or values.get("resume")
        )
        root, option = Path(str(getattr(task, "data", ""))), "--task.preprocess.modality"
        unsaid = getattr(getattr(task, "preprocess", None), "modality", None) == "auto"
        places = [root / "images"] if unsaid and not known and not (root / "dataset.json").is_file() else []
    if places and (told := foresee.tell_unknown_modality(places)):
        raise ArgumentsError(f"{option} is missing: {told}; add {option} CT or {option} MR")


def _check_seen(values: Mapping[str, Any]) -> None:
    """Weights must not have seen all that is labelled, unless that is accepted, or was when the run began."""
    task, init = values.get("task"), values.get("init")
    asked = not (init is None or values.get("accept_leak") or values.get("resume"))
    if not asked or type(task).__name__ != "Segmentation":
        return
    if told := foresee.tell_all_seen(Path(str(init)), Path(str(getattr(task, "data", "")))):
        raise ArgumentsError(f"{told}; {WAYS_OUT[0].lower()}{WAYS_OUT[1:]}")


def _as_list(scans: Any) -> list[str | Path]:
    return [scans] if isinstance(scans, str | Path) else list(scans)


def _check_size(where: Sequence[str], function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Edges must be divisible by what the network's class says, as far as it can be known."""
    network = _network_of(function, values)
    size: Any = values.get(where[0])
    for name in where[1:]:
        size = getattr(size, name, None)
    step = getattr(network, "least_divisor", None)  # None for a class that is only known by its file
    if not isinstance(step, int) or not isinstance(size, Sequence):
        return
    if any(edge % step or edge < 1 for edge in size):
        near = ",".join(str(max(step, round(edge / step) * step)) for edge in size)
        told = ",".join(map(str, size))
        option = at(COMMAND_LINE, ".".join(where))
        raise ArgumentsError(
            f"{option} must be divisible by {step} along every axis for {network.__name__}, got {told}; "
            f"{near} is near"
        )


def _network_of(function: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """The outline of the network's class; None where it takes more than a look."""
    given = values.get("network") or inspect.signature(function).parameters["network"].default
    init = str(values.get("init", "scratch"))
    if init == "scratch":
        if values.get("network_from") is not None:
            return None
        usual = outline.outline("parts2whole.networks.unet3d").get("UNet3D")
        return usual if given is None else type(given)
    for card in (Path(init) / WEIGHTS / CARD, Path(init) / CARD):
        if card.is_file():
            network = json.loads(card.read_text(encoding="utf-8")).get("network", {})
            name = str(network.get("class_path", "")).rpartition(".")[2]
            base = outline.outline("parts2whole.networks.base").get("Network")
            return outline.find_class(base, name, lenient=True)
    return None
