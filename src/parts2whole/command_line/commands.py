"""The commands: which function each one calls, and what may be given without its name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        function: ``module:name`` of the verb.
        summary: one line for the list of commands.
        positional: parameters that may be given without their names; ``*`` takes several.
    """

    function: str
    summary: str
    positional: tuple[str, ...] = ()


COMMANDS = {
    "demo": Command("parts2whole.verbs.demo:demo", "Run the whole path on data it makes itself, in minutes."),
    "start": Command(
        "parts2whole.verbs.start:start",
        "Look at your scans, try a few steps, and write a plan that benchmark runs.",
        ("scans", "labelled"),
    ),
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
    ),
    "finetune": Command(
        "parts2whole.verbs.finetune:finetune",
        "Fine-tune on a target task, from scratch or from a pre-trained encoder.",
    ),
    "evaluate": Command(
        "parts2whole.verbs.evaluate:evaluate", "Measure a fine-tuned model, case by case.", ("run",)
    ),
    "predict": Command(
        "parts2whole.verbs.predict:predict", "Apply a fine-tuned model to new scans.", ("run", "*scans")
    ),
    "encode": Command(
        "parts2whole.verbs.encode:encode",
        "Write a vector for every scan, or for boxes around points, into a table.",
        ("model", "*scans"),
    ),
    "embed": Command(
        "parts2whole.verbs.embed:embed",
        "Embed parts of wholes before and after pre-training: plots, distances, retrieval.",
        ("run",),
    ),
    "probe": Command(
        "parts2whole.verbs.probe:probe",
        "Measure frozen features with a linear probe, beside an untrained encoder.",
    ),
    "choose": Command(
        "parts2whole.verbs.choose:choose", "Try weights on your own few labels, and say which to use."
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
    "check": Command(
        "parts2whole.verbs.check:check",
        "Check a class of your own against what its family promises.",
        ("member",),
    ),
    "check-method": Command(
        "parts2whole.verbs.check:check", "The same for a method: check-method FILE.py:Class.", ("member",)
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
