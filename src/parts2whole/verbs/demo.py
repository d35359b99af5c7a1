"""The whole path in minutes: scans in, a pre-trained encoder, fine-tuned models, a table and a report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parts2whole.jobs.pool import usable_cores
from parts2whole.jobs.run import run_jobs
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.unet3d import UNet3D
from parts2whole.phantom.ct import Resolution, make_ct
from parts2whole.phantom.settings import keep_settings
from parts2whole.progress import fill
from parts2whole.report.contrast import correlate, paired_curves
from parts2whole.report.formats import to_text
from parts2whole.report.judge import measure_endpoints
from parts2whole.report.page import write_report
from parts2whole.report.runs import Run
from parts2whole.report.study import read_runs
from parts2whole.report.verdict import conclude
from parts2whole.scans.preprocess import Modality, Preprocess
from parts2whole.scans.read import read_volume, write_nifti
from parts2whole.store.store import Store
from parts2whole.tasks.segmentation import Segmentation
from parts2whole.training.folder import RunFolderError
from parts2whole.training.optim import AdamW
from parts2whole.verbs.compare import compare
from parts2whole.verbs.finetune import finetune
from parts2whole.verbs.prepare import prepare
from parts2whole.verbs.pretrain import pretrain

UNLABELLED, LABELLED = 60, 34
WHOLE, PATCH, WINDOW = (24, 32, 32), (24, 32, 32), (40, 56, 56)
JUDGED_BY = ("final", "worst_tenth")
NAME = "abdomen_{:03d}.nii.gz"
PATIENT = Resolution(pixels=56, slices=40, smallest_mm=10.0)
"""Coarse, about 6.5 mm, so that all of a patient fits and training takes minutes."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo made."""

    folder: Path
    report: Path
    table: str
    ending: str
    seconds: float

    def summary(self) -> str:
        """The table, what it and the pre-training show, and where the report is."""
        minutes = f"{self.seconds / 60:.1f} minutes"
        ending = "\n".join(map(fill, self.ending.splitlines()))
        return f"{self.table}\n{ending}\nDone in {minutes}. Open the report: {self.report.resolve()}"


def demo(
    *,
    out: str | Path = "demo",
    scans: str | None = None,
    labelled: str | None = None,
    modality: Modality = "auto",
    labelled_cases: int = 1,
    seeds: int = 6,
    pretrain_steps: int = 700,
    finetune_steps: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Demo:
    """Run prepare, pretrain and finetune (from scratch, and pre-trained), and compare.

    Without ``scans`` and ``labelled`` it makes its own: CT of synthetic abdomens, in which the liver must be
    told from spleen, kidneys, vessels and bowel of about the same brightness. Pre-training pays, if ever,
    with very few labels, so there is one. It ends with what its tests show: a gain, a loss or nothing.

    Args:
        out: folder for everything; finished parts of an earlier demo in it are used again.
        scans: your unlabelled scans: a folder, list or glob.
        labelled: your labelled folder (images/ and labels/, or a dataset.json).
        modality: of your scans: ``CT``, ``MR``, or ``auto``, which knows CT only.
        labelled_cases: training patients whose labels are used.
        seeds: runs of each arm.
        pretrain_steps: steps of pre-training.
        finetune_steps: steps of each fine-tuning.
        seed: of the synthetic data.
        progress: show what is going on.

    Returns:
        The folder, the report, and the table and what it shows as text.

    Raises:
        RunFolderError: only one of ``scans`` and ``labelled`` is given, or ``out`` holds synthetic data of
            another seed.
    """
    began = time.monotonic()
    folder = Path(out)
    if (scans is None) != (labelled is None):
        raise RunFolderError("give both scans (unlabelled) and labelled, or neither")
    if scans is None or labelled is None:
        _say("1/4  Making synthetic abdomens", progress)
        scans, labelled = _make_data(folder / "data", seed)
    task = Segmentation(
        Path(labelled),
        preprocess=Preprocess(modality),
        patch_size=PATCH,
        window_size=WINDOW,
        validation_fraction=0.15,
        test_fraction=0.5,
        loss_function="dice_balanced_ce",  # or some runs never learn a class, and chance decides
    )
    _say("2/4  Preparing the unlabelled scans", progress)
    store: Store = prepare([scans], out=folder / "store", modality=modality, progress=progress)
    _say("3/4  Pre-training by Parts2Whole: rebuild the whole from a part", progress)
    network = UNet3D(size="tiny")
    pretrained = pretrain(
        store.path,
        out=folder / "runs" / "pretrain",
        method=Parts2Whole(part_fraction=(0.5, 1.0)),
        network=network,
        whole_size=WHOLE,
        optimiser=AdamW(lr=4e-3),
        steps=pretrain_steps,
        held_out=task,
        validate_every=max(1, pretrain_steps // 10),
        resume="auto",
        progress=progress,
    )
    _say(f"4/4  Fine-tuning on {labelled_cases} labelled patients, {seeds} seeds an arm", progress)
    for number in range(seeds):
        for arm, init in (("scratch", "scratch"), ("parts2whole", pretrained.folder)):
            finetune(
                task,
                init=init,
                network=network if init == "scratch" else None,
                cases=labelled_cases,
                seed=number,
                steps=finetune_steps,
                optimiser=AdamW(lr=4e-3),
                validate_every=max(1, finetune_steps // 4),
                out=folder / "runs" / f"{arm}-seed{number}",
                resume="auto",
                progress=progress,
            )
    table = compare([folder / "runs"]).table
    ending = tell_ending(read_runs(folder / "runs"))
    report = write_report(folder / "runs")
    return Demo(folder, report, to_text(table), ending, time.monotonic() - began)


def tell_ending(runs: Sequence[Run]) -> str:
    """What the tests show, and whether parts of one whole came together, in words."""
    conclusion = conclude(measure_endpoints(runs, dict.fromkeys(JUDGED_BY, 0)))
    told = [conclusion.text] if conclusion else []
    for run in runs:
        pairs = paired_curves(run) if run.kind == "pretrain" else []
        if len(pairs) > 1:
            (_, loss, contrast), (_, last_loss, last_contrast) = pairs[0], pairs[-1]
            told.append(
                f"While the loss of reconstruction went from {loss:.3g} to {last_loss:.3g}, the contrastive "
                f"loss of parts of held-out wholes, which is never trained on, went from {contrast:.2f} to "
                f"{last_contrast:.2f} ({correlate(run).describe()}).\n"
            )
    return "\n".join(told)


@dataclasses.dataclass(frozen=True)
class _Case:
    """A synthetic patient to be written."""

    seed: int
    case: int
    image: Path
    label: Path | None


def _make_data(folder: Path, seed: int) -> tuple[str, str]:
    """Write unlabelled and labelled abdomens as NIfTI, unless they are there.

    Raises:
        RunFolderError: those that are there are of another seed, or they can't be written.
    """
    scans, labelled = folder / "scans", folder / "labelled"
    kept, first = folder / "settings.json", scans / NAME.format(0)
    if first.exists() and not kept.exists():  # of version 0.1.0, which kept no settings
        made = make_ct("abdomen", PATIENT, seed=seed, case=0).image
        same = np.array_equal(read_volume(first).array, made.array)
    else:
        same = keep_settings(kept, {"seed": seed})["seed"] == seed
    if not same:
        raise RunFolderError(
            f"{folder.parent} holds a demo of another seed than {seed}; choose another --out"
        )
    cases = []
    for number in range(UNLABELLED + LABELLED):
        name = NAME.format(number)
        if number < UNLABELLED:
            cases.append(_Case(seed, number, scans / name, None))
        else:
            cases.append(_Case(seed, number, labelled / "images" / name, labelled / "labels" / name))
    missing = [c for c in cases if not (c.image.exists() and (c.label is None or c.label.exists()))]
    workers = min(usable_cores(), len(missing) // 16)  # few are sooner made than a process is started
    problems = [problem for problem in run_jobs(_write_case, missing, workers=workers, lost=_lost) if problem]
    if problems:
        raise RunFolderError(f"synthetic patients could not be written: {problems[0]}")
    return str(scans), str(labelled)


def _write_case(case: _Case) -> str:
    """Write a patient; returns what went wrong."""
    try:
        scan = make_ct("abdomen", PATIENT, seed=case.seed, case=case.case)
        write_nifti(scan.image, case.image)
        if case.label is not None:
            liver = scan.liver_label()
            write_nifti(dataclasses.replace(liver, array=(liver.array > 0).astype("uint8")), case.label)
    except OSError as error:
        return str(error)
    return ""


def _lost(case: _Case) -> str:
    return f"the process that made {case.image.name} was killed (out of memory?)"


def _say(text: str, progress: bool) -> None:
    if progress:
        print(f"\n{text}", flush=True)
