"""Pre-train an encoder on the wholes of a store, by a pretext task that needs no labels."""

from __future__ import annotations

import dataclasses
import statistics
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from parts2whole.errors import Parts2WholeError
from parts2whole.files import write_json
from parts2whole.methods.base import FixedBank, Method, make_views
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model
from parts2whole.networks.unet3d import UNet3D
from parts2whole.report.embedding import FOLDER as EMBEDDING
from parts2whole.report.page import write_report
from parts2whole.scans.volume import Size, Triple
from parts2whole.spec import digest, to_plain
from parts2whole.store.split import split_by_patient
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task, default_cache
from parts2whole.training.examine import Examiner
from parts2whole.training.folder import Resume, read_result, start_run
from parts2whole.training.lock import one_run_a_folder
from parts2whole.training.loop import Plan, fit
from parts2whole.training.optim import Optimiser, Schedule, choose_optimiser, parameter_groups
from parts2whole.training.provenance import peak_memory_mb, reset_peak_memory
from parts2whole.training.runtime import Hardware, Runtime, describe_environment
from parts2whole.verbs.embed import EmbedError, embed_encoder
from parts2whole.weights.card import Card
from parts2whole.weights.native import save_encoder, write_tensors
from parts2whole.wholes.sampler import Wholes, WholeSampler, WholeSize
from parts2whole.wholes.where import Where


class PretrainError(Parts2WholeError, ValueError):
    """Settings or data that can't be pre-trained on."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a pre-training left: its folder, and the figures of `result.json`."""

    folder: Path
    result: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.folder)


@one_run_a_folder
def pretrain(
    store: str | Path,
    *,
    out: str | Path,
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
    progress: bool = True,
) -> Pretrained:
    """Pre-train an encoder and write a run folder.

    Args:
        store: folder made by `prepare`, or a URL that fsspec knows.
        out: the run folder to make.
        method: the pretext task.
        network: the encoder.
        steps: optimiser steps.
        batch_size: wholes in a batch, over all devices.
        whole_size: size of a whole in voxels (z, y, x), as the network sees it.
        whole_mm: extent of a whole in mm (z, y, x), resized to ``whole_size``; default: ``whole_size``
            voxels at native spacing.
        where: rule for where in a scan wholes come from (``Body``, ``Lungs``, ``Labelled``,
            ``GenesisTissue``); default anywhere.
        weights: draw all ``scans`` alike, or larger ones more often, by their ``voxels``.
        preset: optimiser and schedule: ``modern`` (AdamW, cosine) or ``genesis`` (SGD, rate 1, momentum
            0.9, plateau).
        optimiser: instead of the preset's.
        schedule: instead of the preset's.
        clip_norm: largest gradient norm; default no clipping.
        seed: of initial weights, wholes and views.
        held_out: a target task whose validation and test scans must not be pre-trained on; scans of the
            store with the same voxels are left out.
        validation_fraction: share of the patients held out to measure the loss.
        validation_wholes: fixed wholes, with fixed views, that the validation loss is measured on.
        validate_every: steps between validations.
        panel_every: steps between pictures of reconstructions.
        embed_wholes: at the end, embed parts of so many held-out wholes for the report; 0 doesn't.
        checkpoint_every: steps between resumable checkpoints.
        hardware: devices, precision, loader threads.
        resume: ``true`` goes on with the run in ``out``, from its newest complete checkpoint; ``auto`` too,
            or starts one if there is none.
        progress: show a progress bar.

    Returns:
        The run folder and its result.

    Raises:
        PretrainError: nothing to train on, or sizes that don't fit.
        parts2whole.training.folder.RunFolderError: ``out`` already holds a run.
        parts2whole.store.store.StoreError: ``store`` is not a store.
    """
    config = {key: to_plain(value) for key, value in dict(locals()).items()}
    out = Path(out)
    scans = Store.open(store)
    runtime = Runtime(hardware)
    environment = describe_environment(runtime)
    if runtime.is_main:
        start_run(out, config, environment=environment, resume=resume)
    runtime.barrier()
    finished = read_result(out)
    if resume and finished is not None:
        return Pretrained(out, finished)

    reset_peak_memory()
    cases = _choose_cases(scans, held_out, validation_fraction, seed)
    notes = list(cases.notes)
    size = WholeSize(whole_size, whole_mm)
    bank = method.bank if isinstance(method, FixedBank) else None
    wholes = partial(WholeSampler, scans, size=size, seed=seed, where=where, weights=weights)
    sampler = wholes(cases=cases.train, bank=bank)
    padded = sampler.padded_cases()
    if padded:
        notes.append(f"{len(padded)} of {len(cases.train)} scans are smaller than the whole and are padded")
    if bank:
        notes.append(f"the validation loss is that of new views of the {bank} wholes that are trained on")
    torch.manual_seed(seed)
    module = method.build(network, in_channels=sampler.channels, whole_size=whole_size)
    _check_size(module, whole_size)
    examiner = Examiner(
        method,
        sampler if bank else wholes(cases=cases.validation),
        sampler,
        wholes=validation_wholes,
        batch_size=batch_size,
        seed=seed,
        runtime=runtime,
        folder=out,
        panel_every=panel_every,
        every=min(validate_every, steps),
        steps=steps,
    )
    if progress and runtime.is_main:
        for note in notes:
            print(f"Note: {note}.", flush=True)
    chosen_optimiser, chosen_schedule = choose_optimiser(preset, optimiser, schedule)
    plan = Plan(
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        validate_every=min(validate_every, steps),
        checkpoint_every=checkpoint_every,
        clip_norm=clip_norm,
        independent=method.rows_are_independent,
    )

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
        folder=out,
        name=type(method).__name__,
        validate=examiner,
        resume=bool(resume),
        show=progress,
    )
    result = {
        "kind": "pretrain",
        "method": method.to_dict(),
        "network": network.to_dict(),
        "steps": done.step,
        "validation_loss": done.values[-1] if done.values else None,
        **examiner.baselines,
        "collapsed": examiner.collapsed,
        "train_cases": len(cases.train),
        "validation_cases": len(cases.validation),
        "held_out_cases": sorted(set(cases.validation) - set(cases.train)),
        "duration_s": done.seconds,
        "data_fingerprint": scans.fingerprint(),
        "notes": notes,
        **peak_memory_mb(),
    }
    if runtime.is_main:
        card = _card(scans, network, sampler, size, method, done.step, cases)
        save_encoder(out / "weights", module.encoder, card)
        write_tensors(out / "weights" / "model.safetensors", module.state_dict())
        if embed_wholes:
            try:
                embed_encoder(
                    module.encoder,
                    card,
                    scans,
                    cases.validation,
                    out=out / EMBEDDING,
                    runtime=runtime,
                    wholes=embed_wholes,
                    initial_seed=seed,
                )
            except EmbedError as error:
                notes.append(f"no embedding: {error}")
        write_json(out / "result.json", result)
        write_report(out)
    runtime.barrier()
    return Pretrained(out, result)


@dataclasses.dataclass(frozen=True)
class _Cases:
    """Which scans to train on, which to measure on, and what the user should know about the choice."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    notes: tuple[str, ...]


def _choose_cases(scans: Store, held_out: Task | None, validation_fraction: float, seed: int) -> _Cases:
    """Divide the scans by patient, without those that a target task will be validated or tested on."""
    records = list(scans.cases)
    notes = []
    if held_out is not None:
        barred = held_out.held_out_hashes(cache=default_cache())
        records = [record for record in scans.cases if barred.isdisjoint(record.hashes())]
        left_out = len(scans.cases) - len(records)
        notes.append(f"{left_out} of {len(scans.cases)} scans belong to the held-out task and are left out")
    if not records:
        raise PretrainError(f"no scans to train on in {scans.path}")
    patients = {record.case_id: record.patient for record in records}
    everything = tuple(sorted(patients))
    if len(set(patients.values())) < 2 or validation_fraction == 0:
        notes.append("no patient is held out: validation wholes come from the training scans")
        return _Cases(everything, everything, tuple(notes))
    split = split_by_patient(patients, validation=validation_fraction, test=0, seed=seed)
    return _Cases(tuple(sorted(split.train)), tuple(sorted(split.validation)), tuple(notes))


def _check_size(module: Model, whole_size: Size) -> None:
    divisor = module.encoder.divisor
    if any(edge % divisor for edge in whole_size):
        raise PretrainError(f"whole_size must be divisible by {divisor} for this network, got {whole_size}")


def _card(
    scans: Store,
    network: Network,
    sampler: WholeSampler,
    size: WholeSize,
    method: Method,
    steps: int,
    cases: _Cases,
) -> Card:
    records = [scans.record(case) for case in sorted({*cases.train, *cases.validation})]
    modalities = {record.modality for record in records}
    preprocess = scans.preprocess
    if len(modalities) == 1:
        preprocess = preprocess.replace(modality=modalities.pop())
    z, y, x = (statistics.median(r.spacing_mm[axis] for r in records) for axis in range(3))
    seen = tuple(sorted({found for record in records for found in record.hashes()}))
    return Card(
        network=network,
        in_channels=sampler.channels,
        preprocess=preprocess,
        whole_size=size.voxels,
        whole_mm=size.mm,
        spacing_mm=(z, y, x),
        method=method.to_dict(),
        steps=steps,
        seen=seen,
        fingerprint=digest(list(seen)),
        series=tuple(sorted({record.series for record in records} - {""})),
        citation=method.citation,
        version=metadata.version("parts2whole"),
    )
