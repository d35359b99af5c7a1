"""What pre-training gains on real scans: runs everything behind docs/results-0.1.0.md, and writes that page.

    python benchmarks/real_data.py --data ../shared/data --out runs/real --write docs/results-0.1.0.md

Finished parts are never run again, so it can be stopped and started.  Nothing is chosen on test cases: the
settings in `sets` were chosen on validation cases (docs/results-0.1.0.md says what was tried), and
pre-training never sees a validation or test scan of the task it is measured on (``held_out``).
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.scans.preprocess import Preprocess
from parts2whole.tasks.base import Task, default_cache
from parts2whole.training.optim import AdamW

INSTANCE = p2w.UNet3D(size="tiny", norm="instance")


@dataclasses.dataclass(frozen=True)
class Set:
    """One data set: how it is pre-trained on, and the task it is measured on."""

    name: str
    scans: str | None
    """Unlabelled scans below the data folder; None pre-trains on the task's own volumes."""
    task: Task
    whole_size: tuple[int, int, int]
    pretrain_steps: int
    methods: dict[str, Method]
    labels: tuple[dict[str, Any], ...]
    finetune: dict[str, Any]
    probe_labels: tuple[dict[str, Any], ...]
    whole_mm: tuple[float, float, float] | None = None
    network: Network = INSTANCE


PARTS = p2w.Parts2Whole(part_fraction=(0.5, 1.0), per_axis=False)


def sets(data: Path) -> list[Set]:
    hippocampus = p2w.Segmentation(
        data / "hippocampus",
        preprocess=Preprocess(modality="MR"),
        patch_size=(32, 48, 32),
        validation_fraction=0.13,
        test_fraction=0.33,
    )
    sarcoma = p2w.Segmentation(
        data / "sarcoma" / "CT",
        preprocess=Preprocess(modality="CT", window_hu=(-200.0, 300.0), spacing_mm=(4.0, 3.0, 3.0)),
        patch_size=(24, 48, 48),
        window_size=(56, 64, 64),
        overlap=0.25,
        validation_fraction=0.15,
        test_fraction=0.34,
    )
    adrenal = p2w.Classification(data / "adrenal" / "adrenal64.npz", patch_size=(32, 32, 32))
    return [
        Set(
            name="hippocampus",
            scans="hippocampus/images",
            task=hippocampus,
            whole_size=(24, 32, 24),
            pretrain_steps=2500,
            methods={"parts2whole": PARTS, "autoencoder": p2w.Autoencoder()},
            labels=({"cases": 5}, {"cases": 10}, {"cases": 20}),
            finetune={"steps": 250, "batch_size": 4, "optimiser": AdamW(lr=8e-3), "validate_every": 125},
            probe_labels=({"cases": 5},),
        ),
        Set(
            name="sarcoma",
            scans="sarcoma/CT/images",
            task=sarcoma,
            whole_size=(24, 32, 32),
            pretrain_steps=2000,
            methods={"parts2whole": PARTS},
            labels=({"fraction": 0.1}, {"fraction": 0.5}),
            finetune={"steps": 250, "batch_size": 4, "optimiser": AdamW(lr=8e-3), "validate_every": 125},
            probe_labels=(),
        ),
        Set(
            name="adrenal",
            scans=None,
            task=adrenal,
            whole_size=(32, 32, 32),
            whole_mm=(64.0, 64.0, 64.0),
            pretrain_steps=400,
            methods={"parts2whole": PARTS, "autoencoder": p2w.Autoencoder()},
            labels=(),
            finetune={},
            probe_labels=({"fraction": 1.0}, {"fraction": 0.1}),
            # With instance norm a channel's mean over a map, which is probed, is nearly the same everywhere;
            # with group norm Parts2Whole did no better than the mean whole here.
            network=p2w.UNet3D(size="tiny", norm="batch"),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with hippocampus/ and sarcoma/")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--only", choices=["hippocampus", "sarcoma", "adrenal"], help="one data set")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one thread each")
    parser.add_argument("--write", type=Path, help="write the page from what is finished")
    parser.add_argument("--skip-runs", action="store_true", help="only write the page")
    parser.add_argument(
        "--studies",
        type=Path,
        nargs="*",
        default=(),
        help="folders of `parts2whole benchmark` to add to the page",
    )
    arguments = parser.parse_args()
    chosen = [s for s in sets(arguments.data.resolve()) if arguments.only in (None, s.name)]
    if not arguments.skip_runs:
        for one in chosen:
            run_set(one, arguments.data, arguments.out / one.name, arguments.seeds, arguments.jobs)
    if arguments.write:
        import real_data_page

        page = sets(arguments.data.resolve())
        real_data_page.write_page(
            page, arguments.out, arguments.write, seeds=arguments.seeds, studies=arguments.studies
        )


def run_set(one: Set, data: Path, out: Path, seeds: int, jobs: int) -> None:
    task = one.task
    labelled = task.labelled(cache=default_cache(), progress=False)  # once, before several processes want it
    store = out / "store" if one.scans else labelled.store.path
    if one.scans:
        p2w.prepare(
            [data / one.scans],
            out=store,
            modality=task.preprocess.modality,
            window_hu=task.preprocess.window_hu,
            spacing_mm=task.preprocess.spacing_mm,
            progress=False,
        )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=one_thread) as pool:
        pretraining = {
            pool.submit(pretrain_one, one, store, out, name): name
            for name in one.methods
            if not (out / f"pretrain-{name}" / "result.json").exists()
        }
        finish(pretraining)
        cells = {}
        for labels in one.labels:
            for seed in range(seeds):
                for arm in ("scratch", "parts2whole"):
                    name = cell_name(arm, labels, seed)
                    if not (out / "cells" / name / "result.json").exists():
                        cells[pool.submit(finetune_one, one, out, arm, labels, seed)] = name
        probes = {
            pool.submit(probe_one, one, out, name, labels): f"probe-{name}"
            for name in ("untrained", *one.methods)
            for labels in one.probe_labels
            if not probe_path(out, name, labels).exists()
        }
        finish(probes | cells)


def finish(jobs: dict[Any, str]) -> None:
    began = time.monotonic()
    for done, job in enumerate(as_completed(jobs), start=1):
        job.result()
        print(f"[{done}/{len(jobs)}] {jobs[job]} ({(time.monotonic() - began) / 60:.1f} min)", flush=True)


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def cell_name(arm: str, labels: dict[str, Any], seed: int) -> str:
    ((kind, value),) = labels.items()
    return f"{arm}-{kind}{value}-seed{seed}"


def pretrain_one(one: Set, store: Path, out: Path, name: str) -> None:
    p2w.pretrain(
        store,
        out=out / f"pretrain-{name}",
        method=one.methods[name],
        network=one.network,
        whole_size=one.whole_size,
        whole_mm=one.whole_mm,
        steps=one.pretrain_steps,
        optimiser=AdamW(lr=4e-3),
        held_out=one.task,
        resume="auto",
        progress=False,
    )


def finetune_one(one: Set, out: Path, arm: str, labels: dict[str, Any], seed: int) -> None:
    scratch = arm == "scratch"
    folder = out / "cells" / cell_name(arm, labels, seed)
    p2w.finetune(
        one.task,
        init="scratch" if scratch else out / f"pretrain-{arm}",
        network=one.network if scratch else None,
        seed=seed,
        out=folder,
        resume="auto",
        progress=False,
        **labels,
        **one.finetune,
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def probe_path(out: Path, name: str, labels: dict[str, Any]) -> Path:
    ((kind, value),) = labels.items()
    return out / f"probe-{name}-{kind}{value}.json"


def probe_one(one: Set, out: Path, name: str, labels: dict[str, Any]) -> None:
    p2w.probe(
        one.task,
        init="scratch" if name == "untrained" else out / f"pretrain-{name}",
        network=one.network if name == "untrained" else None,
        seeds=3,
        side="test",
        out=probe_path(out, name, labels),
        progress=False,
        **labels,
    )


if __name__ == "__main__":
    main()
