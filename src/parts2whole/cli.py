"""The command line: every verb is a Python function, and its signature is the command.

    parts2whole pretrain store/ --out runs/p2w --method.part_fraction [0.4,0.7] --steps 5000
    parts2whole pretrain --config run.yaml --seed 3

Nothing heavy is imported before a command is chosen, so ``parts2whole --help`` answers at once.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parts2whole.errors import sentence
from parts2whole.training.stop import INTERRUPTED, stopping_at_once

FAMILIES = {
    "Method": ("parts2whole.methods.base", "parts2whole.methods"),
    "Network": ("parts2whole.networks.base", "parts2whole.networks"),
    "Task": ("parts2whole.tasks.base", "parts2whole.tasks"),
    "WeightSource": ("parts2whole.weights.base", "parts2whole.weights"),
}
"""Families of specs whose members may be named by class alone: ``--method Parts2Whole``."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        function: ``module:name`` of the verb.
        summary: one line for the list of commands.
        positional: parameters that may be given without their names; ``*`` takes several.
        families: specs it accepts by class name.
    """

    function: str
    summary: str
    positional: tuple[str, ...] = ()
    families: tuple[str, ...] = ()


COMMANDS = {
    "demo": Command("parts2whole.verbs.demo:demo", "Run the whole path on data it makes itself, in minutes."),
    "inspect": Command(
        "parts2whole.verbs.inspect:inspect", "List scans, what is wrong, and settings that suit.", ("*paths",)
    ),
    "prepare": Command(
        "parts2whole.verbs.prepare:prepare", "Read scans and write them into a store.", ("*scans",)
    ),
    "pretrain": Command(
        "parts2whole.verbs.pretrain:pretrain",
        "Pre-train an encoder on the unlabelled scans of a store.",
        ("store",),
        ("Method", "Network", "Task"),
    ),
    "finetune": Command(
        "parts2whole.verbs.finetune:finetune",
        "Fine-tune on a target task, from scratch or from a pre-trained encoder.",
        (),
        ("Network", "Task"),
    ),
    "evaluate": Command(
        "parts2whole.verbs.evaluate:evaluate", "Measure a fine-tuned model, case by case.", ("run",)
    ),
    "predict": Command(
        "parts2whole.verbs.predict:predict", "Apply a fine-tuned model to new scans.", ("run", "*scans")
    ),
    "embed": Command(
        "parts2whole.verbs.embed:embed",
        "Embed parts of wholes before and after pre-training: plots, distances, retrieval.",
        ("run",),
    ),
    "probe": Command(
        "parts2whole.verbs.probe:probe",
        "Measure frozen features with a linear probe, beside an untrained encoder.",
        (),
        ("Network", "Task"),
    ),
    "benchmark": Command(
        "parts2whole.verbs.benchmark:benchmark",
        "Run a study of arms, tasks, labels and seeds, and tabulate it.",
        ("spec",),
    ),
    "compare": Command(
        "parts2whole.verbs.compare:compare", "Tabulate finished fine-tuning runs, with tests.", ("*runs",)
    ),
    "stats check": Command(
        "parts2whole.verbs.stats:check",
        'Test two published results: stats check "98.67±0.23" "98.26±0.27" --n 10.',
        ("first", "second"),
    ),
    "stats power": Command("parts2whole.verbs.stats:plan", "Say how many runs it takes to see a difference."),
    "stats patients": Command(
        "parts2whole.verbs.stats:patients",
        "Tell the noise of patients from that of runs, by bootstrap.",
        ("*runs",),
    ),
    "phantom": Command(
        "parts2whole.verbs.phantom:phantom", "Write synthetic scans in the public data sets' own formats."
    ),
    "doctor": Command(
        "parts2whole.verbs.doctor:doctor", "Say what this machine and installation give a run."
    ),
    "report": Command(
        "parts2whole.report.page:write_report", "Write report.html for a folder of runs.", ("folder",)
    ),
    "weights import": Command(
        "parts2whole.verbs.weights:import_weights",
        "Bring published weights (SOURCE:PATH) into a weights folder.",
        ("source",),
        ("WeightSource",),
    ),
    "weights show": Command(
        "parts2whole.verbs.weights:show_weights",
        "Print the card of weights and the tree of their tensors.",
        ("weights",),
    ),
    "weights export": Command(
        "parts2whole.verbs.export:export_weights",
        "Write weights in a format that other tools load.",
        ("run",),
    ),
}
"""Commands by their one or two words; two-word commands form a group, such as ``weights``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
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
        import difflib

        name = " ".join([name, *rest[:1]]) if group else name

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        print(f"parts2whole: there is no command {name!r}." + (f" Did you mean {close[0]}?" if close else ""))
        print("Run parts2whole --help for the list.", file=sys.stderr)
        return 2
    try:
        with stopping_at_once():
            return run(COMMANDS[name], name, rest)
    except KeyboardInterrupt as error:
        print(f"\nparts2whole: {str(error) or 'stopped'}", file=sys.stderr)
        return getattr(error, "exit_code", INTERRUPTED)
    except Exception as error:
        said = None if os.environ.get("PARTS2WHOLE_TRACEBACK") else sentence(error)
        if said is None:
            raise
        print(f"\nparts2whole {name}: {said}", file=sys.stderr)
        return 1


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


def run(command: Command, name: str, arguments: list[str]) -> int:
    """Parse the arguments of a command and call its function; returns 1 if part of the work failed."""
    function = load(command)
    parser = build_parser(function, name, command)
    named = name_positionals(command, arguments)
    chosen = choices_of_class(function, named)
    parser.set_defaults(dict.fromkeys(chosen))
    parsed = parser.parse_args(named)
    values = vars(parser.instantiate(parsed))
    for unwanted in ("config", *(key for key in chosen if values[key] is None)):
        values.pop(unwanted, None)
    outcome = function(**values)
    if outcome is not None and hasattr(outcome, "summary"):
        print(outcome.summary())
    return int(getattr(outcome, "failed", False) is True)


def load(command: Command) -> Callable[..., Any]:
    """Import a command's function."""
    module, _, name = command.function.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def build_parser(function: Callable[..., Any], name: str, command: Command) -> Any:
    """A parser made from the function's signature and docstring."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    from parts2whole.spec import Spec, discover

    for family in command.families:
        base, package = FAMILIES[family]
        discover(getattr(importlib.import_module(base), family), package)
    set_parsing_settings(subclasses_enabled=[Spec], docstring_parse_attribute_docstrings=True)
    words = " ".join(f"[{p[1:].upper()} ...]" if p.startswith("*") else p.upper() for p in command.positional)
    parser = ArgumentParser(
        prog=f"parts2whole {name}" + (f" {words}" if words else ""), description=command.summary
    )
    parser.add_argument("--config", action="config", help="a YAML file with any of these settings")
    parser.add_function_arguments(function, as_positional=False)
    return parser


def choices_of_class(function: Callable[..., Any], arguments: Sequence[str]) -> list[str]:
    """Parameters with a default spec for which another class is named, on the command line or in a file.

    Their default must be forgotten: the parser would hand its values on to fields of the same name of the
    other class, and SimCLR would cut as many parts as Parts2Whole does.
    """
    import inspect

    import yaml

    from parts2whole.spec import Spec

    given: dict[str, Any] = {}
    for number, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        value = value or next(iter(arguments[number + 1 :]), "")
        if name == "--config" and os.path.isfile(value):
            with open(value) as file:
                content = yaml.safe_load(file)
            given |= content if isinstance(content, dict) else {}
        elif name.startswith("--"):
            given[name[2:]] = value
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if isinstance(p.default, Spec) and p.name in given]


def name_positionals(command: Command, arguments: Sequence[str]) -> list[str]:
    """Give leading unnamed arguments their names: ``store/ --out x`` to ``--store store/ --out x``."""
    leading: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            break
        leading.append(argument)
    named: list[str] = []
    unnamed = list(leading)
    for parameter in command.positional:
        if not unnamed:
            break
        if parameter.startswith("*"):
            named.append(f"--{parameter[1:]}={json.dumps(unnamed)}")
            unnamed = []
        else:
            named.append(f"--{parameter}={unnamed.pop(0)}")
    rest = [
        a.replace("--data", "--task.data", 1) if _is_data(a, command) else a
        for a in arguments[len(leading) :]
    ]
    return spell_switches(load(command), named + unnamed + rest)


def spell_switches(function: Callable[..., Any], arguments: Sequence[str]) -> list[str]:
    """Let a switch stand alone: ``--resume`` to ``--resume=true``."""
    parameters = inspect.signature(function).parameters.values()
    switches = {f"--{parameter.name}" for parameter in parameters if isinstance(parameter.default, bool)}
    following = [*arguments, "--"][1:]
    return [
        f"{argument}=true" if argument in switches and after.startswith("--") else argument
        for argument, after in zip(arguments, following, strict=True)
    ]


def _is_data(argument: str, command: Command) -> bool:
    return "Task" in command.families and (argument == "--data" or argument.startswith("--data="))


if __name__ == "__main__":
    sys.exit(main())
