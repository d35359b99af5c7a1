"""The three properties that the poster claims for Parts2Whole, measured: scalable, feasible, semantic.

    python benchmarks/properties.py --out runs/properties --write docs/properties.md

- Scalable: parameters on top of the encoder, and seconds a step, against the number of wholes. Exemplar has a
  class for every whole, Parts2Whole has none.
- Feasible: peak memory and probe quality against the batch size, beside SimCLR and MoCo, at an equal number
  of wholes seen.
- Semantic: distances between parts of one whole, of two wholes, and at the same place of another patient.

On phantoms of abdomens unless --scans and --labelled name others.  Finished pre-trainings are not run again.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.methods.exemplar import Exemplar
from parts2whole.methods.moco import MoCo
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.methods.simclr import SimCLR
from parts2whole.networks.base import count_parameters
from parts2whole.scans.preprocess import Modality, Preprocess
from parts2whole.scans.volume import Box
from parts2whole.store.store import Store
from parts2whole.tasks.base import Task
from parts2whole.tasks.liver_segmentation import LiverSegmentation
from parts2whole.training.monitor import BAND
from parts2whole.training.optim import AdamW
from parts2whole.verbs.phantom import phantom
from parts2whole.wholes.geometry import crop_resize, draw_boxes
from parts2whole.wholes.random import BatchGenerator

SIZE = (24, 32, 32)
NETWORK = p2w.UNet3D(size="tiny", norm="group")
BANKS = (64, 256, 1024, 4096, 16384, 65536)
BATCHES = (2, 4, 8, 16, 32)
PARTS = 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/properties"))
    parser.add_argument("--scans", type=Path, help="unlabelled scans; default: phantoms made here")
    parser.add_argument("--labelled", type=Path, help="images/ and labels/ for the probe; default: phantoms")
    parser.add_argument("--modality", default="CT")
    parser.add_argument("--seen", type=int, default=3200, help="wholes that every pre-training sees")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each bank")
    parser.add_argument("--write", type=Path, help="write the page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "scalable": scalable(arguments.steps),
        **measure_training(arguments),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "properties.json").write_text(json.dumps(found, indent=1) + "\n")
    text = page(found, arguments)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


def scalable(steps: int) -> list[dict[str, Any]]:
    """Parameters on top of the encoder and median seconds a step, side by side."""
    rows = []
    for bank in BANKS:
        row: dict[str, Any] = {"wholes": bank}
        for name, method in (("Exemplar", Exemplar(bank=bank)), ("Parts2Whole", Parts2Whole())):
            module = method.build(NETWORK, in_channels=1, whole_size=SIZE)
            row[f"{name} parameters"] = count_parameters(module) - count_parameters(module.encoder)
            row[f"{name} seconds"] = statistics.median(step_seconds(method, module, steps))
        rows.append(row)
    return rows


def step_seconds(method: Method, module: torch.nn.Module, steps: int) -> list[float]:
    """Seconds of single training steps on a batch of 4 in memory; the first is left out."""
    wholes = torch.rand(4, 1, *SIZE)
    optimiser = torch.optim.AdamW(module.parameters())
    spent = []
    for step in range(steps + 1):
        began = time.perf_counter()
        with torch.no_grad():
            views = method.views(wholes, BatchGenerator.of_step(0, "timed", step, rows=4))
        optimiser.zero_grad(set_to_none=True)
        method.loss(module, views)["loss"].backward()
        optimiser.step()
        spent.append(time.perf_counter() - began)
    return spent[1:]


def measure_training(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Pre-train every method at every batch size, each in a process of its own, then probe and embed."""
    out = arguments.out
    scans, labelled = arguments.scans, arguments.labelled
    if scans is None or labelled is None:
        phantom(out=out / "data", tasks=["LiverSegmentation", "pool"], cases=40, size="tiny", progress=False)
        scans, labelled = out / "data" / "pool" / "abdomen_ct", out / "data" / "LiTS"
    store = p2w.prepare([scans], out=out / "store", modality=arguments.modality, progress=False).path
    context = multiprocessing.get_context("spawn")
    feasible, semantic = [], []
    methods = (Parts2Whole(), SimCLR(), MoCo(queue=512))
    for method, batch in itertools.product(methods, BATCHES):
        name = type(method).__name__
        folder = out / f"{name.lower()}-{batch}"
        if not (folder / "result.json").exists():
            job = context.Process(
                target=pretrain_one, args=(store, folder, method, batch, arguments.seen // batch)
            )
            job.start()
            job.join()
            if job.exitcode:
                raise SystemExit(f"pre-training in {folder} failed")
        result = json.loads((folder / "result.json").read_text())
        task = target_task(arguments, labelled.resolve())
        probed = p2w.probe(task, init=folder, cases=3, seeds=3, side="test", progress=False)
        scores = [row["iou_mean"] for row in probed.rows]
        feasible.append(
            {
                "method": name,
                "batch": batch,
                "peak_memory_mb": result["peak_memory_mb"],
                "probe": statistics.fmean(scores),
                "probe_sd": statistics.stdev(scores),
            }
        )
        if batch == 8:
            semantic.append({"method": name} | distances(folder, Store.open(store)))
    semantic.insert(0, {"method": "untrained"} | distances(None, Store.open(store)))
    return {"feasible": feasible, "semantic": semantic}


def target_task(arguments: argparse.Namespace, labelled: Path) -> Task:
    """What is probed: livers of phantoms, or the user's own labels."""
    if arguments.labelled is None:
        return LiverSegmentation(labelled, folds="patient", test_fraction=0.3)
    return p2w.Segmentation(labelled, preprocess=Preprocess(cast_modality(arguments.modality)))


def pretrain_one(store: Path, folder: Path, method: Method, batch: int, steps: int) -> None:
    torch.set_num_threads(1)
    p2w.pretrain(
        store,
        out=folder,
        method=method,
        network=NETWORK,
        whole_size=SIZE,
        steps=steps,
        batch_size=batch,
        optimiser=AdamW(lr=2e-3),
        validation_wholes=8,
        validate_every=max(1, steps // 4),
        embed_wholes=0,
        resume="auto",
        progress=False,
    )


@torch.no_grad()
def distances(run: Path | None, store: Store) -> dict[str, float]:
    """Mean distance of unit embeddings; every patient's middle whole, the same boxes in all of them."""
    if run is None:
        torch.manual_seed(0)
        encoder = NETWORK.build_encoder(store.cases[0].channels)
    else:
        encoder = p2w.load_encoder(run)
    encoder.eval()
    middles = [(record.case_id, middle(record.shape)) for record in store.cases]
    wholes = torch.stack([torch.from_numpy(whole) for whole in store.read_units(middles)])
    boxes = draw_boxes(BatchGenerator.of_step(0, "boxes", rows=1), SIZE, fraction=BAND, count=PARTS)
    embedded = []
    for whole in wholes:
        parts = crop_resize(whole[None], boxes, SIZE)
        embedded.append(torch.nn.functional.normalize(encoder(parts)[-1].mean(dim=(2, 3, 4)), dim=1))
    z = torch.stack(embedded).double().numpy()
    apart = np.linalg.norm(z[:, :, None, None] - z[None, None], axis=-1)  # whole, part, whole, part
    patient, place = np.eye(len(z), dtype=bool)[:, None, :, None], np.eye(PARTS, dtype=bool)[None, :, None, :]
    return {
        "same whole": float(apart[np.broadcast_to(patient & ~place, apart.shape)].mean()),
        "same place, another patient": float(apart[np.broadcast_to(~patient & place, apart.shape)].mean()),
        "other place, another patient": float(apart[np.broadcast_to(~patient & ~place, apart.shape)].mean()),
    }


def middle(shape: tuple[int, int, int]) -> Box:
    z, y, x = ((edge - wanted) // 2 for edge, wanted in zip(shape, SIZE, strict=True))
    return Box((z, y, x), SIZE)


def cast_modality(text: str) -> Modality:
    known: dict[str, Modality] = {"CT": "CT", "MR": "MR", "unit": "unit"}
    return known[text]


def page(found: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The page, with the command, the date and the machine."""
    scans = arguments.scans or "phantoms"
    lines = [
        "# Scalable, feasible, semantic",
        "",
        f"Written by `python benchmarks/properties.py --seen {arguments.seen} --steps {arguments.steps}` on "
        f"{datetime.date.today()}, on {os.cpu_count()} CPU cores, one thread, "
        f"torch {torch.__version__}, {scans}, wholes of {'x'.join(map(str, SIZE))} voxels, `{NETWORK}`.",
        "",
        "## Scalable: what grows with the number of wholes",
        "",
        "Parameters on top of the encoder, and median seconds of a step of 4 wholes.",
        "",
        "| wholes | Exemplar, parameters | Parts2Whole, parameters | Exemplar, s | Parts2Whole, s |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in found["scalable"]:
        lines.append(
            f"| {row['wholes']:,} | {row['Exemplar parameters']:,} | {row['Parts2Whole parameters']:,} | "
            f"{row['Exemplar seconds']:.3f} | {row['Parts2Whole seconds']:.3f} |"
        )
    lines += [
        "",
        "## Feasible: batch size",
        "",
        f"{arguments.seen:,} wholes seen at every batch size; voxel-wise linear probe on 3 labelled cases, "
        "IoU on test cases, mean ± sd of 3 seeds.",
        "",
        "| method | batch | peak memory, MB | probe IoU |",
        "|---|---:|---:|---:|",
    ]
    for row in found["feasible"]:
        probe = f"{row['probe']:.3f} ± {row['probe_sd']:.3f}"
        lines.append(f"| {row['method']} | {row['batch']} | {row['peak_memory_mb']:,.0f} | {probe} |")
    kinds = ("same whole", "same place, another patient", "other place, another patient")
    lines += [
        "",
        "## Semantic: what lies close together",
        "",
        "Mean distance of embeddings of unit length; the middle whole of every patient, the same boxes in "
        "all.",
        "",
        f"| encoder | {' | '.join(kinds)} |",
        "|---|---:|---:|---:|",
    ]
    for row in found["semantic"]:
        lines.append(f"| {row['method']} | " + " | ".join(f"{row[kind]:.3f}" for kind in kinds) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
