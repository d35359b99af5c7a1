"""Pre-train an encoder on the wholes of a store, by a pretext task that needs no labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from parts2whole.errors import Parts2WholeError, plural
from parts2whole.methods.base import FixedBank, Method, make_views
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.base import Network
from parts2whole.networks.unet3d import UNet3D
from parts2whole.report.runs import read_run
from parts2whole.report.summary import judge_pretraining
from parts2whole.run_folder import EMBEDDING, MODEL, SPLIT, WEIGHTS
from parts2whole.scans.volume import Size, Triple
from parts2whole.spec import check_specs
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task
from parts2whole.training.continual import begin_from, check_longer
from parts2whole.training.embedding import EmbedError, embed_parts
from parts2whole.training.examine import Examiner
from parts2whole.training.folder import Resume, RunFolder, keeps_split
from parts2whole.training.loop import Plan, fit
from parts2whole.training.optim import Optimiser, Schedule, choose_optimiser, parameter_groups
from parts2whole.training.provenance import peak_memory_mb
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.scans import SCANS, choose_sides, make_card
from parts2whole.training.step import check_batch
from parts2whole.verbs import paste, words
from parts2whole.weights.load import SCRATCH
from parts2whole.weights.native import save_encoder, write_tensors
from parts2whole.wholes.sampler import Wholes, WholeSampler, WholeSize
from parts2whole.wholes.where import Anywhere, Where


class PretrainError(Parts2WholeError, ValueError):
    """Settings or data that can't be pre-trained on."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a pre-training left.

    Attributes:
        folder: the run.
        result: the figures of its ``result.json``.
        held_out: the task that it is meant for, whose test scans it has not seen; None where none was named.
    """

    folder: Path
    result: dict[str, Any]
    held_out: Task | None = None

    def __fspath__(self) -> str:
        return str(self.folder)

    def summary(self) -> str:
        """Whether it has learned anything, where the report is, and what may come next."""
        verdict = judge_pretraining(read_run(self.folder))
        lines = [f"{verdict.headline}.", *words.tell_report(self.folder)]
        if self.held_out is None:
            embedded = paste.command("embed", self.folder)
            return "\n".join([*lines, *paste.next_step("whether parts of one whole come together", embedded)])
        options = {"task": self.held_out, "init": self.folder}
        tuned = paste.unused(self.folder.with_name(f"{self.folder.name}-finetuned"))
        typed = paste.command("probe", **options), paste.command("finetune", **options, out=tuned)
        return "\n".join([*lines, *paste.next_step("what it is worth on the held-out task", *typed)])


def pretrain(
    store: str | Path,
    *,
    out: str | Path,
    init: str | Path = SCRATCH,
    method: Method = Parts2Whole(),
    network: Network = UNet3D(),
    steps: int = 2000,
    batch_size: int = 8,
    whole_size: Size = (32, 64, 64),
    whole_mm: Triple | None = None,
    where: Where | None = None,
    weights: Literal["scans", "voxels"] = "scans",
    preset: Literal["modern", "genesis"] = "modern",
    optimiser: Optimiser | None = None,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    seed: int = 0,
    held_out: Task | None = None,
    validation_fraction: float = 0.1,
    validation_wholes: int = 64,
    validate_every: int = 200,
    panel_every: int = 1000,
    embed_wholes: int = 16,
    checkpoint_every: int = 500,
    hardware: Hardware = Hardware(),
    resume: Resume = False,
    logger: str | Sequence[str] = (),
    progress: bool = True,
) -> Pretrained:
    """Pre-train an encoder and write a run folder.

    Args:
        store: folder made by `prepare`, or a URL that fsspec knows.
        out: the run folder to make.
        init: where the encoder begins: ``scratch``, a run folder, a weights folder,
            ``hf:OWNER/NAME[@REVISION]`` on a hub, or ``SOURCE:PATH`` of published weights. What
            they were trained on counts as seen by the new weights, too.
        method: the pretext task.
        network: the encoder; with ``init`` that of the weights.
        steps: optimiser steps. With ``resume`` they may be more than the run was planned for, where the
            schedule doesn't look ahead (``Constant``, ``Plateau``).
        batch_size: wholes in a batch, over all devices.
        whole_size: size of a whole in voxels (z, y, x), as the network sees it.
        whole_mm: extent of a whole in mm (z, y, x), resized to ``whole_size``; default: ``whole_size``
            voxels at native spacing.
        where: rule for where in a scan wholes come from (``Anywhere``, ``Body``, ``Lungs``, ``Labelled``,
            ``GenesisTissue``); default ``Body`` where most voxels are air, else ``Anywhere``.
        weights: draw all ``scans`` alike, or larger ones more often, by their ``voxels``.
        preset: optimiser and schedule: ``modern`` (AdamW, cosine) or ``genesis`` (SGD, rate 1, momentum
            0.9, plateau).
        optimiser: instead of the preset's.
        schedule: instead of the preset's.
        clip_norm: largest gradient norm; default no clipping.
        seed: of initial weights, wholes and views.
        held_out: a target task whose validation and test scans must not be pre-trained on; scans of the
            store with the same voxels are left out, and all others of their patients.
        validation_fraction: share of the patients held out to measure the loss.
        validation_wholes: fixed wholes, with fixed views, that the validation loss is measured on.
        validate_every: steps between validations.
        panel_every: steps between pictures of reconstructions.
        embed_wholes: at the end, embed parts of so many held-out wholes for the report; 0 doesn't.
        checkpoint_every: steps between resumable checkpoints.
        hardware: devices, precision, loader threads.
        resume: ``true`` goes on with the run in ``out``, from its newest complete checkpoint and on its own
            split; ``auto`` too, or starts one if there is none.
        logger: log to these, too, beside TensorBoard: ``mlflow``, ``wandb``, or another that is installed.
        progress: show a progress bar.

    Returns:
        The run folder and its result.

    Raises:
        PretrainError: settings that don't fit each other or the network.
        parts2whole.training.continual.ContinualError: a run that can't be made longer, or weights that are
            of another network or have seen scans of ``held_out``.
        parts2whole.training.transfer.TransferError: weights for other channels or another window.
        parts2whole.weights.native.WeightsError: ``init`` names no usable weights.
        parts2whole.training.folder.RunFolderError: ``out`` already holds a run, or other files.
        parts2whole.training.loggers.LoggerError: a logger that isn't known or installed.
        parts2whole.training.loop.PlanError: a number of steps or the like that makes no sense.
        parts2whole.store.split.SplitError: no scans are left to train on.
        parts2whole.store.store.StoreError: ``store`` is not a store.
    """
    settings = dict(locals())  # all parameters, and nothing else yet
    check_specs(settings, method=Method, network=Network, where=Where, held_out=Task, hardware=Hardware)
    chosen_optimiser, chosen_schedule = choose_optimiser(preset, optimiser, schedule)
    folder = RunFolder(
        out,
        settings,
        resume=resume,
        later={"init": SCRATCH},
        check_longer=partial(check_longer, chosen_schedule),
    )
    if folder.result is not None:
        return Pretrained(folder.path, folder.result, held_out)
    if embed_wholes < 0:
        raise PretrainError(f"embed_wholes must be 0 or more, got {embed_wholes}")
    plan = Plan(
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        validate_every=min(validate_every, steps),
        checkpoint_every=checkpoint_every,
        validate_first=True,
        clip_norm=clip_norm,
        independent=method.rows_are_independent,
    )
    method.check_batch(batch_size)
    size = WholeSize(whole_size, whole_mm)
    scans = Store.open(store)
    runtime = Runtime(folder.as_begun(hardware))
    check_batch(batch_size, independent=plan.independent, runtime=runtime)

    sides = choose_sides(scans, held_out=held_out, validation_fraction=validation_fraction, seed=seed)
    begun = bool(resume) and keeps_split(folder.path, SCANS)
    sides = sides.kept_in(folder.path / SPLIT) if begun else sides
    beginning = begin_from(init, network, scans, held_out=held_out, shown_mm=size.shown_mm)
    chosen_where = where or sides.choose_where(scans, folder.path / SPLIT if begun else None)
    bank = method.bank if isinstance(method, FixedBank) else None
    sampler_of = partial(WholeSampler, scans, size=size, seed=seed, where=chosen_where, weights=weights)
    sampler = sampler_of(cases=sides.train, bank=bank)
    notes = [*sides.notes, *beginning.notes, *beginning.tell_seen(scans, sides.validation)]
    if where is None and chosen_where != Anywhere():
        notes.append(
            f"most voxels are air: wholes are drawn by {chosen_where}; where=Anywhere() draws them anywhere"
        )
    if padded := sampler.padded_cases():
        notes.append(f"{len(padded)} of {len(sides.train)} scans are smaller than the whole and are padded")
    if bank:
        notes.append(f"the validation loss is that of new views of the {bank} wholes that are trained on")
    torch.manual_seed(seed)
    module = method.build(beginning.network, in_channels=sampler.channels, whole_size=whole_size)
    if not module.encoder.takes(whole_size):
        edge = module.encoder.divisor
        raise PretrainError(f"whole_size must be divisible by {edge} for this network, got {whole_size}")
    examiner = Examiner(
        method,
        sampler if bank else sampler_of(cases=sides.validation),
        sampler,
        wholes=validation_wholes,
        plan=plan,
        runtime=runtime,
        folder=folder.path,
        panel_every=panel_every,
        schedule=chosen_schedule,
    )

    scans_told = plural(len(sides.train) + len(sides.held_out), "scan")
    work = f"{plural(steps, 'step')} of {plural(batch_size, 'whole')}"
    first = words.describe_work(
        type(method).__name__, scans_told, work, network=beginning.network, module=module, runtime=runtime
    )
    lines = [first, sides.describe().capitalize(), *(f"Note: {note}." for note in notes)]
    with folder.enter(runtime, say=lines if progress else ()):
        if runtime.is_main:
            sides.write(folder.path / SPLIT, where=chosen_where)
        done = fit(
            module,
            views=partial(make_views, method),
            objective=method.loss,
            samples=Wholes(sampler, batch_size),
            groups=parameter_groups(module),
            optimiser=chosen_optimiser,
            schedule=chosen_schedule,
            plan=plan,
            runtime=runtime,
            folder=folder.path,
            name=type(method).__name__,
            validate=examiner,
            resume=bool(resume),
            show=progress,
            loggers=folder.loggers,
        )
        collapsed, memory = examiner.judge(module, done.step), peak_memory_mb()
        if runtime.is_main:
            card = make_card(scans, sides, network=network, size=size, method=method, steps=done.step)
            card = beginning.pass_on(card)
            save_encoder(folder.path / WEIGHTS, module.encoder, card)
            write_tensors(folder.path / WEIGHTS / MODEL, module.state_dict())
            if embed_wholes:
                try:
                    embed_parts(
                        module.encoder,
                        card,
                        scans,
                        sides.validation,
                        out=folder.path / EMBEDDING,
                        runtime=runtime,
                        wholes=embed_wholes,
                        initial_seed=seed,
                    )
                except EmbedError as error:
                    notes.append(f"no embedding: {error}")
        result = {
            "kind": "pretrain",
            "init": str(init),
            "init_fetched": beginning.card.fetched if beginning.card else "",
            "method": method.to_dict(),
            "network": network.to_dict(),
            "steps": done.step,
            "validation_loss": done.values[-1] if done.values and math.isfinite(done.values[-1]) else None,
            **examiner.baselines,
            "collapsed": collapsed,
            "train_cases": len(sides.train),
            "validation_cases": len(sides.validation),
            "held_out_cases": sides.held_out,
            "sides": sides.counts,
            "patients_by": sides.patients_by,
            "where": chosen_where.to_dict(),
            "duration_s": done.seconds,
            "data_fingerprint": scans.fingerprint(),
            "notes": notes,
            **memory,
        }
        if runtime.is_main:
            folder.close(result)
    return Pretrained(folder.path, result, held_out)
