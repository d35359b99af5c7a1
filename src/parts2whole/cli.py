"""The command line: every verb is a Python function, and its signature is the command.

    parts2whole pretrain store/ --out runs/p2w --method.part-fraction 0.4,0.7 --steps 5000
    parts2whole pretrain store/ --out runs/mine --method my_method.py:Mine --method.temperature 0.1
    parts2whole pretrain --config run.yaml --seed 3

What is typed is read twice: first against outlines of the verbs, so that a mistake is told before torch is
imported; then against the verbs themselves.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from parts2whole.command_line import options, outline, slips
from parts2whole.command_line.commands import COMMANDS, Command
from parts2whole.command_line.manual import describe, parameters_of
from parts2whole.errors import Parts2WholeError, sentence
from parts2whole.own import OPTION, OwnError, advise, find_class, import_own, split_text
from parts2whole.presets import PREFIX, PresetError, read_preset
from parts2whole.spec import Spec, UnknownClassError
from parts2whole.study.read import (
    COMMAND_LINE,
    ArgumentsError,
    Reader,
    choices_of,
    class_and_fields,
    read_mapping,
    read_yaml,
)
from parts2whole.training.cluster import is_first_process
from parts2whole.training.stop import INTERRUPTED, stopping_at_once

REFUSED = 2
"""Exit code of a command that can't be understood; nothing has been done."""
UNREAD = 141
"""Exit code where nobody reads on: 128 and the number of SIGPIPE, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        code = _run_command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return code


def _run_command(arguments: Sequence[str] | None) -> int:
    name, rest = "", list[str]()
    try:
        own, given = _take_own(list(sys.argv[1:] if arguments is None else arguments))
        if not given or given[0] in ("-h", "--help"):
            print(overview())
            return 0
        if given[0] == "--version":
            from importlib.metadata import version

            print(f"parts2whole {version('parts2whole')}")
            return 0
        name, rest = split_name(given)
        group = [command for command in COMMANDS if command.startswith(f"{name} ")]
        if group and rest[:1] in ([], ["-h"], ["--help"]):
            print(overview(group))
            return 0
        if name not in COMMANDS:
            _refuse_command(" ".join([name, *rest[:1]]) if group else name)
        with stopping_at_once():
            return run(name, rest, own)
    except Refusal as error:
        command = f"parts2whole {name}" if name in COMMANDS else "parts2whole"
        print(f"{command}: {error}{_own_file(error, rest)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt as error:
        print(f"\nparts2whole: {str(error) or 'stopped'}", file=sys.stderr)
        return getattr(error, "exit_code", INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:
        said = None if os.environ.get("PARTS2WHOLE_TRACEBACK") else sentence(error)
        if said is None:
            raise
        print(f"\nparts2whole {name}: {said}{_own_file(error, rest)}", file=sys.stderr)
        return 1


class Refusal(Parts2WholeError, ValueError):
    """A command that can't be understood."""


def split_name(given: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the command, of one or two words, and its arguments."""
    words = 2 if " ".join(given[:2]) in COMMANDS else 1
    return " ".join(given[:words]), list(given[words:])


def overview(names: Sequence[str] | None = None) -> str:
    """The list of commands, or of some of them."""
    chosen = {name: COMMANDS[name] for name in names or COMMANDS}
    width = max(map(len, chosen))
    lines = ["usage: parts2whole COMMAND ... (parts2whole COMMAND --help for each)", ""]
    lines += [f"  {name:<{width}}  {command.summary}" for name, command in chosen.items()]
    return "\n".join(lines)


def run(name: str, arguments: Sequence[str], own: Sequence[str] = ()) -> int:
    """Run a command with its arguments; returns 1 if part of the work failed."""
    command = COMMANDS[name]
    if {"-h", "--help"} & {*arguments}:
        print(write_help(name, arguments, own))
        return 0
    try:
        function = load_outline(command)
        first = Reader(find=partial(_find_outline, lenient=bool(own)), known=outline.known)
        slips.check(name, command.positional, function, read(command, function, arguments, first))
        for place in own:
            import_own(place)
        function = load(command)
        values = read(command, function, arguments, Reader())
    except (ArgumentsError, OwnError) as error:
        raise Refusal(str(error)) from error
    outcome = function(**values)
    if hasattr(outcome, "summary") and is_first_process():
        print(outcome.summary())
    elif isinstance(outcome, Path):
        print(f"Open the report: {outcome.resolve()}")
    return int(getattr(outcome, "failed", False) is True)


def read(
    command: Command, function: Callable[..., Any], arguments: Sequence[str], reader: Reader
) -> dict[str, Any]:
    """What is typed, as keyword arguments of a verb or of its outline.

    Args:
        command: which one.
        function: the verb or its outline.
        arguments: what follows the command.
        reader: how values are read.

    Raises:
        ArgumentsError: it isn't what the verb takes.
    """
    typed = options.parse(arguments, function, command.positional)
    values: dict[str, Any] = {}
    for config in typed.configs:
        values |= read_config(config, function, reader, values)
    values |= reader.arguments(typed.settings, function, COMMAND_LINE, defaults=values)
    documents = parameters_of(function.__doc__)
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.default is parameter.empty and key not in values:
            place = slips.place_of(key, command.positional)
            raise ArgumentsError(f"{place} is missing: {documents.get(key, 'this command needs it')}")
    return values


def read_config(
    path: str, function: Callable[..., Any], reader: Reader, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a file, or of a preset of fine-tuning; fields alone change what was said ``before``.

    The file may come from others: of the classes it names, none is imported for it.

    Raises:
        ArgumentsError: it can't be read, or a setting isn't what the verb takes.
    """
    try:
        if path.startswith(PREFIX):
            if function.__name__ != "finetune":
                raise PresetError("presets are settings of finetune")
            plain = read_preset(path.removeprefix(PREFIX))
        else:
            plain = read_yaml(Path(path).read_text(encoding="utf-8"))
    except PresetError as error:
        raise ArgumentsError(f"--config {path}: {error}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArgumentsError(f"--config {path} can't be read: {' '.join(str(error).split())}") from error
    by_name = replace(reader, find=lambda base, text: reader.find(base, split_text(text)[1]))
    try:
        return by_name.arguments(read_mapping(plain, "it"), function, "", defaults=before)
    except ArgumentsError as error:
        raise ArgumentsError(f"--config {path}: {error}") from error


def load(command: Command) -> Callable[..., Any]:
    """Import a command's function.

    Raises:
        Refusal: a package that it needs isn't installed.
    """
    module, _, name = command.function.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise Refusal(f"this needs the package {error.name}, which isn't installed") from error
    return function


def load_outline(command: Command) -> Callable[..., Any]:
    """A command's function, without the code in it."""
    module, _, name = command.function.partition(":")
    function: Callable[..., Any] = outline.outline(module).get(name)
    return function


def write_help(name: str, arguments: Sequence[str], own: Sequence[str]) -> str:
    """The help of a command, with the fields of the classes that are named beside ``--help``."""
    command = COMMANDS[name]
    rest = [a for a in arguments if a not in ("-h", "--help")]
    named = own or any(".py" in word or ":" in word for word in rest)
    function = load(command) if named else load_outline(command)
    hints = typing.get_type_hints(function)
    families = {key: c for key, hint in hints.items() for c in choices_of(hint) if _is_spec(c)}
    if not named:
        for family in families.values():
            outline.known(family)
    for place in own:
        import_own(place)
    settings = options.parse(rest, function, command.positional).settings
    find = find_class if named else outline.find_class
    chosen: dict[str, type[Spec]] = {}
    for key in families.keys() & settings.keys():
        value = settings[key]
        text, _ = class_and_fields(" ".join(value) if isinstance(value, tuple) else value, key)
        found = find(families[key], text) if text else None
        if found is not None:
            chosen[key] = found
    return describe(name, command.summary, function, command.positional, chosen)


def _take_own(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Files of ``--own``, which may stand anywhere, and the other arguments."""
    own, rest = [], []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name != OPTION:
            rest.append(argument)
            continue
        place = value if equals else next(left, "")
        if not place or place.startswith("--"):
            raise Refusal(f"{OPTION} needs a value: a file with classes of your own, such as my_method.py")
        if place.endswith(".py") and not Path(place).is_file():
            raise Refusal(f"{OPTION}: there is no file {place}")
        own.append(place)
    return own, rest


def _find_outline(base: type[Spec], text: str, *, lenient: bool) -> type[Spec] | None:
    """The outline of a class; None for one of one's own, which only importing it tells."""
    place, _ = split_text(text)
    if place.endswith(".py") and not Path(place).is_file():
        raise OwnError(f"there is no file {place}")
    return outline.find_class(base, text, lenient=lenient)


def _is_spec(choice: Any) -> bool:
    return isinstance(choice, type) and issubclass(choice, Spec)


def _own_file(error: BaseException | None, arguments: Sequence[str]) -> str:
    """Where a class of the user's own was when the run or weights were made that can't be read without it."""
    while error is not None and not isinstance(error, UnknownClassError):
        error = error.__cause__
    option = advise(error.name, map(Path, arguments)) if error else ""
    return f". It was made with {option}" if option else ""


def _refuse_command(name: str) -> None:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else "; parts2whole --help lists them"
    raise Refusal(f"there is no command {name!r}{hint}")


if __name__ == "__main__":
    sys.exit(main())
