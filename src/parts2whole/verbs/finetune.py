"""Fine-tune on a target task, from scratch or from a pre-trained encoder, on a fraction of the labels."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_json, write_rows
from parts2whole.networks.base import Network
from parts2whole.networks.unet3d import UNet3D
from parts2whole.report.figures import write_segmentation_panel
from parts2whole.report.page import write_report
from parts2whole.scans.read import safe_name
from parts2whole.spec import to_plain
from parts2whole.store.split import Split, read_split, write_split
from parts2whole.tasks.base import Examination, LabelledData, Predictor, Task, default_cache
from parts2whole.tasks.sides import about_split, print_sides, remarks, undefined_in
from parts2whole.training.checkpoint import load_best
from parts2whole.training.folder import Resume, read_result, start_run
from parts2whole.training.leak import check_leaks, find_leaks, hashes_of
from parts2whole.training.lock import one_run_a_folder
from parts2whole.training.loop import Plan, fit
from parts2whole.training.model import (
    Decoder,
    ModelCard,
    as_function,
    build_model,
    load_own_decoder,
    save_model,
)
from parts2whole.training.optim import AdamW, Cosine, Optimiser, Schedule, parameter_groups
from parts2whole.training.provenance import peak_memory_mb, reset_peak_memory
from parts2whole.training.runtime import Hardware, Runtime, describe_environment
from parts2whole.weights.card import Card
from parts2whole.weights.load import SCRATCH, load_initialisation

SPLIT = "split.json"


class FinetuneError(Parts2WholeError, ValueError):
    """Settings or data that can't be fine-tuned on."""


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning left: its folder, and the figures of `result.json`."""

    folder: Path
    result: dict[str, Any]

    @property
    def test(self) -> dict[str, float]:
        """Metrics on the test side."""
        found: dict[str, float] = self.result["test"]
        return found


@one_run_a_folder
def finetune(
    task: Task,
    *,
    out: str | Path,
    init: str | Path = SCRATCH,
    network: Network | None = None,
    fraction: float = 1.0,
    cases: int | None = None,
    seed: int = 0,
    steps: int = 1000,
    batch_size: int = 4,
    optimiser: Optimiser = AdamW(lr=3e-3),
    schedule: Schedule = Cosine(warmup_fraction=0.1),
    encoder: Literal["train", "freeze"] = "train",
    decoder: Decoder = "fresh",
    encoder_lr: float = 1.0,
    layer_decay: float = 1.0,
    encoder_warmup: float = 0.0,
    clip_norm: float | None = 1.0,
    validate_every: int = 100,
    patience: int | None = None,
    checkpoint_every: int = 500,
    accept_leak: str | None = None,
    cache: str | Path | None = None,
    hardware: Hardware = Hardware(),
    resume: Resume = False,
    progress: bool = True,
) -> Finetuned:
    """Fine-tune a model for ``task``, keep the step that is best on validation cases, and test it.

    Args:
        task: the target task.
        out: the run folder to make.
        init: ``scratch``, a pre-training run folder, a weights folder, or ``SOURCE:PATH`` of published
            weights.
        network: the encoder when training from scratch; default ``UNet3D()``. With ``init`` the weights
            decide.
        fraction: share of the training patients whose labels are used; subsets of one seed are nested.
        cases: number of training patients instead of a fraction.
        seed: of the labelled subset, fresh weights and samples; equal in all arms that are compared.
        steps: optimiser steps at most.
        batch_size: samples in a batch, over all devices.
        optimiser: how gradients move parameters.
        schedule: how the learning rate changes.
        encoder: ``train`` it, or ``freeze`` it and train only what is new.
        decoder: of a segmentation: ``fresh``, the same for every encoder, or ``own``, the one its network was
            published with, whose weights are loaded where ``init`` has them; its last layer is always fresh.
        encoder_lr: learning rate of the encoder relative to what is new.
        layer_decay: each encoder level learns this much slower than the next deeper one.
        encoder_warmup: share of the steps during which the encoder stays as it is.
        clip_norm: largest gradient norm; None doesn't clip.
        validate_every: steps between validations.
        patience: validations without improvement before stopping early.
        checkpoint_every: steps between resumable checkpoints.
        accept_leak: a sentence, which the error names, to go on although validation or test cases were
            seen in pre-training; the result is then marked.
        cache: where prepared labelled data are kept; default ``~/.cache/parts2whole``.
        hardware: devices, precision, loader threads.
        resume: ``true`` goes on with the run in ``out``, from its newest complete checkpoint and on its own
            split; ``auto`` too, or starts one if there is none.
        progress: show a progress bar.

    Returns:
        The run folder and its result.

    Raises:
        FinetuneError: settings that contradict each other, or weights that don't fit the data.
        parts2whole.tasks.base.TaskError: labelled data that can't be used.
        parts2whole.training.leak.LeakError: validation or test cases were seen in pre-training.
        parts2whole.training.folder.RunFolderError: ``out`` already holds a run.
        parts2whole.training.model.ModelError: ``decoder="own"`` where there is none.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
    """
    config = {key: to_plain(value) for key, value in dict(locals()).items()}
    out = Path(out)
    runtime = Runtime(hardware)
    finished = read_result(out) if resume else None
    if finished is not None:
        return Finetuned(out, finished)
    if not (0 <= encoder_warmup < 1 and encoder_lr > 0 and 0 < layer_decay <= 1):
        raise FinetuneError(
            "expected encoder_warmup in [0, 1), encoder_lr > 0, layer_decay in (0, 1]; "
            f"got {encoder_warmup}, {encoder_lr}, {layer_decay}"
        )
    reset_peak_memory()
    start = load_initialisation(init)
    labelled = task.labelled(cache=Path(cache) if cache else default_cache(), progress=progress)
    channels = labelled.store.cases[0].channels
    start = start.adapt(channels) if start else None
    notes = [*labelled.notes, *(check_contract(start.card, labelled, network) if start else [])]
    saved = read_split(out / SPLIT) if resume and (out / SPLIT).exists() else None
    split = saved or task.split(labelled)
    reported = (*split.validation, *split.test)
    leaks = find_leaks(labelled, reported, seen=start.card.seen, series=start.card.series) if start else ()
    leak = check_leaks(leaks, accept_leak=accept_leak, where="validation or test")
    notes = [*([leak] if leak else []), *notes]
    train = (
        saved.train
        if saved
        else labelled.choose_labelled(split.train, fraction=fraction, count=cases, seed=seed)
    )
    split = Split(train, split.validation, split.test)
    notes += remarks(task, labelled, split)
    judged = task.can_judge(labelled, split.validation)
    chosen = start.card.network if start else network or UNet3D()
    torch.manual_seed(seed)
    backbone = start.encoder if start else chosen.build_encoder(channels)
    torch.manual_seed(seed)  # what is fresh in every arm is drawn alike, whatever the encoder drew before
    module = build_model(task, chosen, backbone, labelled.classes, decoder=decoder)
    if start and decoder == "own":
        notes += load_own_decoder(module, start.own)
    if encoder == "freeze":
        module.freeze_encoder()
    samples = task.samples(labelled, train, seed=seed, batch_size=batch_size)
    if runtime.is_main:
        start_run(out, config, environment=describe_environment(runtime), resume=resume)
        write_split(split, out / SPLIT, **about_split(labelled, split))
        if progress:
            print(f"{type(task).__name__} from {init}, seed {seed}.")
            print_sides(labelled, split)
            for note in notes:
                print(f"Note: {note}.", flush=True)
    runtime.barrier()

    def validate(module: nn.Module, step: int) -> dict[str, float]:
        predictor = as_function(module, runtime)
        return task.examine(predictor, labelled, split.validation, thorough=False).metrics

    done = fit(
        module,
        views=task.augment,
        objective=task.loss,
        samples=samples,
        groups=parameter_groups(
            module,
            encoder_scale=encoder_lr,
            layer_decay=layer_decay,
            encoder_from_step=round(encoder_warmup * steps),
        ),
        optimiser=optimiser,
        schedule=schedule,
        plan=Plan(
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            validate_every=min(validate_every, steps),
            checkpoint_every=checkpoint_every,
            monitor=task.monitor if judged else "loss",
            higher_is_better=judged,
            patience=patience if judged else None,
            clip_norm=clip_norm,
            keep_best=True,
            independent=task.rows_are_independent,
        ),
        runtime=runtime,
        folder=out,
        name=type(task).__name__,
        validate=validate,
        resume=bool(resume),
        show=progress,
    )
    load_best(out, module, done.best_step)
    module.eval()
    predictor = as_function(module, runtime)
    on_validation = task.examine(predictor, labelled, split.validation, thorough=False)
    on_test = task.examine(predictor, labelled, split.test, thorough=True)
    notes += undefined_in(task, on_test)
    result = {
        "kind": "finetune",
        "task": task.to_dict(),
        "init": str(init),
        "method": start.card.method if start else None,
        "decoder": decoder,
        "fraction": fraction if cases is None else None,
        "seed": seed,
        "classes": list(labelled.classes),
        "train_cases": list(train),
        "validation_cases": list(split.validation),
        "test_cases": list(split.test),
        "validation": on_validation.metrics,
        "test": on_test.metrics,
        "steps": done.step,
        "best_step": done.best_step,
        "duration_s": done.seconds,
        "leaks": list(leaks),
        "data_fingerprint": labelled.store.fingerprint(),
        "notes": notes,
        **peak_memory_mb(),
    }
    if runtime.is_main:
        resolved = task.preprocess.replace(modality=labelled.store.cases[0].modality)
        seen, series = (start.card.seen, start.card.series) if start else ((), ())
        trained = hashes_of(labelled, train)
        save_model(
            out,
            module,
            ModelCard(task, chosen, channels, labelled.classes, resolved, seen, series, trained, decoder),
        )
        patients = labelled.patients()
        rows = [row | {"patient": patients[row["case"]]} for row in on_test.per_item]
        write_rows(out / "test_cases.csv", rows)
        draw_cases(out / "panels", task, predictor, labelled, on_test)
        write_json(out / "result.json", result)
        write_report(out)
    runtime.barrier()
    return Finetuned(out, result)


def check_contract(card: Card, labelled: LabelledData, network: Network | None) -> list[str]:
    """Compare what the weights expect with what the data are.

    Returns:
        Differences the user should know but that don't make the weights useless.

    Raises:
        FinetuneError: the weights can't be used on these data.
    """
    record = labelled.store.cases[0]
    if card.in_channels != record.channels:
        raise FinetuneError(
            f"the weights expect {card.in_channels} input channels, the data have {record.channels}"
        )
    if network is not None and network != card.network:
        raise FinetuneError(
            f"the weights are of {card.network}, not of {network}; leave the network out to use theirs"
        )
    notes = []
    theirs, ours = card.preprocess, labelled.store.preprocess
    if theirs.modality == "unit":
        notes.append(f"the encoder expects {card.origin.get('expects', 'voxels in [0, 1]')}")
    elif theirs.modality != record.modality:
        notes.append(f"the encoder was trained on {theirs.modality}, these are {record.modality}")
    if record.modality == "CT" and theirs.modality != "unit" and theirs.window_hu != ours.window_hu:
        raise FinetuneError(
            f"the encoder was trained with window {theirs.window_hu} HU, this task uses {ours.window_hu}; "
            "set the task's preprocess.window_hu alike"
        )
    if theirs.spacing_mm != ours.spacing_mm:
        notes.append(
            f"the encoder was trained at spacing {theirs.spacing_mm}, this task uses {ours.spacing_mm}"
        )
    return notes


def draw_cases(
    folder: Path, task: Task, predictor: Predictor, labelled: LabelledData, examined: Examination
) -> None:
    """Pictures of the best, the median and the worst test case, where the task has pictures."""
    rows = [row for row in examined.per_item if math.isfinite(row.get(task.monitor, math.nan))]
    rows.sort(key=lambda row: float(row[task.monitor]))
    if not rows:
        return
    for which, row in (("worst", rows[0]), ("median", rows[len(rows) // 2]), ("best", rows[-1])):
        shown = task.show(predictor, labelled, row["case"])
        if shown is not None:
            write_segmentation_panel(
                folder / f"test-{which}-{safe_name(row['case'])}.png",
                shown.image,
                shown.reference,
                shown.prediction,
                spacing_mm=shown.spacing_mm,
                classes=labelled.classes,
                title=f"{which} test case: {row['case']}, {task.monitor} {row[task.monitor]:.3f}",
            )
