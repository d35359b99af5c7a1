"""Fine-tune on a target task, from scratch or from a pre-trained encoder, on a fraction of the labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from parts2whole.errors import Parts2WholeError, plural
from parts2whole.evaluation.regions import GRIDS
from parts2whole.files import read_json, write_rows
from parts2whole.networks.base import Network, count_parameters
from parts2whole.networks.low_rank import add_low_rank, merge_low_rank
from parts2whole.progress import watching
from parts2whole.report.by_class import list_figures
from parts2whole.report.results import finished_finetunings
from parts2whole.report.runs import Run, find_runs, read_run
from parts2whole.report.summary import judge_finetuning
from parts2whole.run_folder import CONFIG, PANELS, RATES, SPLIT, TEST_CASES
from parts2whole.scans.preprocess import Preprocess
from parts2whole.spec import check_specs, spec_from_dict
from parts2whole.store.split import Split, read_split, write_split
from parts2whole.tasks.base import Examination, Task
from parts2whole.tasks.sides import MARKS, about_split, describe_sides, refuse_changed, remarks, undefined_in
from parts2whole.training.checkpoint import Progress, load_best
from parts2whole.training.folder import Resume, RunFolder, begun_with, keeps_split
from parts2whole.training.loggers import Loggers
from parts2whole.training.loop import Plan, fit
from parts2whole.training.model import Decoder, as_function, save_model
from parts2whole.training.optim import AdamW, Cosine, Optimiser, Schedule, parameter_groups
from parts2whole.training.panels import draw_cases
from parts2whole.training.provenance import peak_memory_mb
from parts2whole.training.rates import search_rate, with_rate
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.step import check_batch
from parts2whole.training.transfer import open_transfer
from parts2whole.training.validation import plan_validation
from parts2whole.verbs import paste, words
from parts2whole.weights.load import SCRATCH

Treatment = Literal["train", "freeze", "lora"]


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

    def summary(self) -> str:
        """What the model is worth, class by class, where the report is, and what may come next."""
        run = read_run(self.folder)
        side = "test" if self.test else "validation"
        grid = GRIDS.get(str(self.result.get("grid" if self.test else "validation_grid")))
        told = [judge_finetuning(run).headline] if self.test else []
        figures = list_figures(self.result[side], self.result["classes"])
        lines = [*told, f"{side} cases{f', {grid}' if grid else ''}:", *figures]
        return "\n".join([*lines, *words.tell_report(self.folder), *_tell_next(self.folder, run)])


def finetune(
    task: Task,
    *,
    out: str | Path,
    init: str | Path = SCRATCH,
    network: Network | None = None,
    network_from: str | Path | None = None,
    fraction: float = 1.0,
    cases: int | None = None,
    seed: int = 0,
    steps: int = 1000,
    batch_size: int = 4,
    optimiser: Optimiser = AdamW(lr=3e-3),
    schedule: Schedule = Cosine(warmup_fraction=0.1),
    lr: float | Literal["auto"] | None = None,
    encoder: Treatment = "train",
    lora_rank: int = 4,
    decoder: Decoder = "fresh",
    match_scale: bool = False,
    encoder_lr: float = 1.0,
    layer_decay: float = 1.0,
    encoder_warmup: float = 0.0,
    clip_norm: float | None = 1.0,
    validate_every: int | Literal["auto"] = "auto",
    patience: int | None = None,
    checkpoint_every: int = 500,
    accept_leak: str | None = None,
    cache: str | Path | None = None,
    hardware: Hardware = Hardware(),
    resume: Resume = False,
    logger: str | Sequence[str] = (),
    progress: bool = True,
) -> Finetuned:
    """Fine-tune a model for ``task``, keep the step that is best on validation cases, and test it.

    Args:
        task: the target task.
        out: the run folder to make.
        init: ``scratch``, a pre-training run folder, a weights folder, ``hf:OWNER/NAME[@REVISION]`` on a
            hub, or ``SOURCE:PATH`` of published weights.
        network: the encoder when training from scratch; default ``UNet3D()``. With ``init`` the weights
            decide.
        network_from: from scratch, the network of this run, these weights or this ``SOURCE:PATH``, so that
            the two can be compared.
        fraction: share of the training patients whose labels are used; subsets of one seed are nested.
        cases: number of training patients instead of a fraction.
        seed: of the labelled subset, fresh weights and samples; equal in all arms that are compared.
        steps: optimiser steps at most.
        batch_size: samples in a batch, over all devices.
        optimiser: how gradients move parameters.
        schedule: how the learning rate changes; ``Sawtooth`` trains what is new alone first.
        lr: learning rate instead of the optimiser's; ``auto`` tries a tenth, 0.3 times, once and 3 times the
            optimiser's for a quarter of the steps each, and takes the best on validation cases.
        encoder: ``train`` it, ``freeze`` it and train only what is new, or freeze it but for low-rank
            adapters in every layer (``lora``), which are merged into it in the end.
        lora_rank: of the adapters.
        decoder: of a segmentation: ``fresh``, the same for every encoder; ``pretrained``, the same but with
            its weights from pre-training, if ``init`` is a run with one; ``own``, the one its network was
            published with, whose weights are loaded where ``init`` has them; ``light``, 16 channels wide; or
            ``linear``, a linear map of the features of all levels. Its last layer is always fresh.
        match_scale: bring pre-trained convolutions that a normalisation follows to the scale of fresh ones,
            which leaves the function as it is and makes steps of equal size.
        encoder_lr: learning rate of the encoder relative to what is new.
        layer_decay: each encoder level learns this much slower than the next deeper one.
        encoder_warmup: share of the steps during which the encoder stays as it is.
        clip_norm: largest gradient norm; None doesn't clip.
        validate_every: steps between validations, on all validation cases; ``auto`` is 100, or as rare, and
            on as few cases, that validations take about a tenth of the time. The first one is before the
            first step, so that curves begin at 0; it decides about nothing.
        patience: validations without improvement before stopping early.
        checkpoint_every: steps between resumable checkpoints.
        accept_leak: a sentence, which the error names, to go on although validation or test cases were
            seen in pre-training; the result is then marked.
        cache: where prepared labelled data are kept; default ``~/.cache/parts2whole``.
        hardware: devices, precision, loader threads.
        resume: ``true`` goes on with the run in ``out``, from its newest complete checkpoint and on its own
            split; ``auto`` too, or starts one if there is none.
        logger: log to these, too, beside TensorBoard: ``mlflow``, ``wandb``, or another that is installed.
        progress: show a progress bar.

    Returns:
        The run folder and its result.

    Raises:
        FinetuneError: settings that contradict each other, or the network.
        parts2whole.tasks.labelled.TaskError: labelled data that can't be used.
        parts2whole.training.leak.LeakError: validation or test cases were seen in pre-training.
        parts2whole.training.folder.RunFolderError: ``out`` already holds a run, or other files.
        parts2whole.training.loggers.LoggerError: a logger that isn't known or installed.
        parts2whole.training.loop.PlanError: a number of steps or the like that makes no sense.
        parts2whole.training.model.ModelError: ``decoder="own"`` where there is none.
        parts2whole.training.transfer.TransferError: weights that don't fit the data.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
    """
    settings = dict(locals())  # all parameters, and nothing else yet
    check_specs(settings, task=Task, network=Network, hardware=Hardware)
    if resume and validate_every == "auto":
        validate_every = settings["validate_every"] = begun_with(out, "validate_every", "auto")
    folder = RunFolder(out, settings, resume=resume, later={"match_scale": False, "lora_rank": 4})
    if folder.result is not None:
        return Finetuned(folder.path, folder.result)
    _check_encoder(encoder, decoder, encoder_lr, layer_decay, encoder_warmup)
    if lora_rank < 1:
        raise FinetuneError(f"lora_rank must be 1 or more, got {lora_rank}")
    if lr is not None:
        optimiser = with_rate(optimiser, optimiser.base_lr if lr == "auto" else lr)
    plan = Plan(
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        validate_every=steps if validate_every == "auto" else min(validate_every, steps),
        checkpoint_every=checkpoint_every,
        validate_first=True,
        monitor=task.monitor,
        higher_is_better=True,
        patience=patience,
        clip_norm=clip_norm,
        keep_best=True,
        independent=task.rows_are_independent,
    )
    runtime = Runtime(folder.as_begun(hardware))
    check_batch(batch_size, independent=plan.independent, runtime=runtime)

    kept = read_split(folder.path / SPLIT) if resume and keeps_split(folder.path, MARKS) else None
    transfer = open_transfer(
        task,
        init,
        network=network,
        network_from=network_from,
        split=kept,
        before=_prepared_before(folder.path, task) if kept else None,
        reported=("validation", "test"),
        accept_leak=accept_leak,
        cache=cache,
        progress=progress,
    )
    task, labelled = transfer.task, transfer.labelled
    if kept:
        refuse_changed(labelled, folder.path, items={*kept.train, *kept.validation})
    train = kept.train if kept else transfer.choose_labels(fraction=fraction, cases=cases, seed=seed)
    split = Split(train, transfer.split.validation, transfer.split.test)
    if not task.can_judge(labelled, split.validation):
        plan = dataclasses.replace(plan, monitor="loss", higher_is_better=False, patience=None)
    module, told = transfer.build_model(decoder=decoder, match_scale=match_scale, seed=seed)
    notes = [*transfer.notes, *remarks(task, labelled, split), *told]
    if encoder != "train":
        module.freeze_encoder()
    if encoder == "lora":
        layers = add_low_rank(module.encoder, lora_rank)
        learned = plural(count_parameters(module.encoder), "value")
        notes.append(f"low-rank adapters in {plural(layers, 'layer')} of the encoder learn {learned}")
    watched = split.validation
    if validate_every == "auto":
        rhythm = plan_validation(
            task,
            labelled,
            watched,
            encoder=module.encoder,
            steps=steps,
            batch_size=batch_size,
        )
        plan, watched = dataclasses.replace(plan, validate_every=rhythm.every), rhythm.items
        notes += filter(None, [rhythm.describe(split.validation)])
    samples = task.samples(labelled, train, seed=seed, batch_size=batch_size)
    first = words.describe_work(
        f"{type(task).__name__} from {init}, seed {seed}",
        plural(len(labelled.store.cases), "scan"),
        f"{plural(steps, 'step')} of {plural(batch_size, 'sample')}",
        network=transfer.network,
        module=module,
        runtime=runtime,
    )
    lines = [first, *describe_sides(labelled, split)]

    def validate(module: nn.Module, step: int) -> dict[str, float]:
        predictor = as_function(module, runtime)
        return task.examine(predictor, labelled, watched, thorough=False).metrics

    def train_model(
        module: nn.Module,
        optimiser: Optimiser,
        plan: Plan,
        place: Path,
        *,
        resume: bool,
        show: bool,
        loggers: Loggers | None = None,
        then: float = 0,
    ) -> Progress:
        return fit(
            module,
            views=task.augment,
            objective=task.loss,
            samples=samples,
            groups=parameter_groups(
                module,
                encoder_scale=encoder_lr,
                layer_decay=layer_decay,
                encoder_from_step=round(encoder_warmup * plan.steps),
                encoder_apart=schedule.treats_encoder_apart,
            ),
            optimiser=optimiser,
            schedule=schedule,
            plan=plan,
            runtime=runtime,
            folder=place,
            name=type(task).__name__,
            validate=validate,
            resume=resume,
            show=show,
            loggers=loggers,
            then=then,
        )

    with folder.enter(runtime, say=[*lines, *(f"Note: {note}." for note in notes)] if progress else ()):
        if runtime.is_main:
            about = about_split(labelled, split) | {"preprocess": task.preprocess.to_dict()}
            write_split(split, folder.path / SPLIT, **about)
        show = progress and runtime.is_main
        found = None
        if lr == "auto":
            place = folder.path / RATES
            found = search_rate(module, optimiser, plan=plan, folder=place, train=train_model, show=show)
            optimiser = with_rate(optimiser, found.chosen)
            notes.append(found.describe())
        done = train_model(
            module,
            optimiser,
            plan,
            folder.path,
            resume=bool(resume),
            show=progress,
            loggers=folder.loggers,
            then=(len(split.validation) + len(split.test)) / len(watched),
        )
        load_best(folder.path, module, done.best_step)
        merge_low_rank(module)
        module.eval()
        predictor = as_function(module, runtime)
        with watching("Validating the best step", len(split.validation), show=show):
            on_validation = task.examine(predictor, labelled, split.validation, thorough=False)
        on_test = Examination({}, [])
        if split.test:
            with watching("Testing", len(split.test), show=show):
                on_test = task.examine(predictor, labelled, split.test, thorough=True)
        if on_test.failed:
            reasons = "; ".join(f"{name}: {why}" for name, why in on_test.failed.items())
            raise FinetuneError(f"the model is trained, but can't be tested: {reasons}; then --resume true")
        notes += undefined_in(task, on_test)
        result = {
            "kind": "finetune",
            **transfer.describe(split),
            "decoder": decoder,
            "fraction": fraction if cases is None else None,
            "seed": seed,
            "validation": on_validation.metrics,
            "test": on_test.metrics,
            "grid": on_test.grid,
            "validation_grid": on_validation.grid,
            "steps": done.step,
            "best_step": done.best_step,
            "lr": optimiser.base_lr,
            "rates": found.to_dict() if found else None,
            "duration_s": done.seconds,
            "notes": notes,
            **peak_memory_mb(),
        }
        if runtime.is_main:
            save_model(folder.path, module, transfer.make_card(train, decoder=decoder))
            patients = labelled.patients()
            rows = [row | {"patient": patients[row["case"]]} for row in on_test.per_item]
            write_rows(folder.path / TEST_CASES, rows)
            draw_cases(folder.path / PANELS, task, predictor, labelled, on_test, seed=seed)
            folder.close(result)
    return Finetuned(folder.path, result)


def _tell_next(folder: Path, run: Run) -> list[str]:
    """The run that this one is to be compared with, its comparison, or what its model is for."""
    init, like = run.result["init"], ("task", "seed", "fraction", "train_cases")
    beside = [read_run(path) for path in find_runs(folder.parent) if path != folder]
    other = next(
        (
            one
            for one in finished_finetunings(beside)
            if (one.result["init"] == SCRATCH) != (init == SCRATCH)
            and all(one.result.get(key) == run.result.get(key) for key in like)
        ),
        None,
    )
    if other is not None:
        arms = (other.folder, folder) if init != SCRATCH else (folder, other.folder)
        return paste.next_step("side by side", paste.command("compare", *arms))
    if init != SCRATCH:
        scratch = paste.unused(folder.with_name(f"{folder.name}-scratch"))
        start = {"init": SCRATCH, "network_from": init, "out": scratch}
        typed = paste.command("finetune", config=folder / CONFIG, **start)
        return paste.next_step("the same from scratch, to be compared with", typed)
    scans = paste.scans_of(run.result["task"]["init_args"]["data"])
    typed = paste.command("predict", folder, scans, out=paste.unused(folder / "predictions"))
    return paste.next_step("its masks or classes for scans", typed)


def _prepared_before(folder: Path, task: Task) -> Preprocess:
    """How a run that is gone on with prepared its scans; in version 0.1.0 the task alone decided."""
    kept = read_json(folder / SPLIT).get("preprocess")
    return spec_from_dict(kept, Preprocess) if kept else task.preprocess


def _check_encoder(
    encoder: str, decoder: str, encoder_lr: float, layer_decay: float, encoder_warmup: float
) -> None:
    """Raise `FinetuneError` unless an encoder can be treated so."""
    for name, value, known in (("encoder", encoder, Treatment), ("decoder", decoder, Decoder)):
        if value not in get_args(known):
            raise FinetuneError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
    if not (0 <= encoder_warmup < 1 and encoder_lr > 0 and 0 < layer_decay <= 1):
        raise FinetuneError(
            "expected encoder_warmup in [0, 1), encoder_lr > 0, layer_decay in (0, 1]; "
            f"got {encoder_warmup}, {encoder_lr}, {layer_decay}"
        )
    if encoder == "freeze" and (encoder_warmup, encoder_lr, layer_decay) != (0, 1, 1):
        raise FinetuneError(
            "a frozen encoder doesn't learn: leave encoder_warmup, encoder_lr and layer_decay as they are, "
            f"or train it; got {encoder_warmup}, {encoder_lr}, {layer_decay}"
        )
