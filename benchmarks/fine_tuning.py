"""How to fine-tune on very few labels: recipes tried on validation cases alone, one change at a time.

    python benchmarks/fine_tuning.py --data FOLDER --init RUN --write docs/fine-tuning.md

``FOLDER`` holds images/ and labels/ of a segmentation (the page is of hippocampus); ``RUN`` is a pre-training
that has not seen its validation and test cases (``--held-out``).  Nothing looks at a test case.  What is
finished is kept in ``OUT`` and not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import parts2whole as p2w
from parts2whole.networks.heads import Model
from parts2whole.scans.preprocess import Preprocess
from parts2whole.tasks.base import default_cache
from parts2whole.tasks.labelled import LabelledData
from parts2whole.training.model import as_function, build_model, load_pretrained_decoder
from parts2whole.training.optim import AdamW, Cosine, Sawtooth, parameter_groups, set_rates
from parts2whole.training.rescale import match_scale
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.weights.load import load_initialisation
from parts2whole.wholes.random import BatchGenerator

RUNTIME = Runtime(Hardware(accelerator="cpu", devices=1, nodes=1, precision="32-true"))
STEPS, BATCH, RATE, CASES = 120, 4, 4e-3, 16
LOST, ENOUGH = 0.15, 6
RECIPES: dict[str, dict[str, Any]] = {
    "scratch, Dice and cross-entropy": {"loss": "dice_ce"},
    "scratch, the same with instance norm": {"loss": "dice_ce", "norm": "instance"},
    "scratch, balanced cross-entropy": {},
    "scratch, balanced, instance norm": {"norm": "instance"},
    "scratch, balanced, group norm": {"norm": "group"},
    "pre-trained": {"start": True},
    "pre-trained, encoder at a fifth of the rate": {"start": True, "encoder_lr": 0.2},
    "pre-trained, scale of fresh weights": {"start": True, "scale": True},
    "pre-trained, two ramps": {"start": True, "schedule": Sawtooth(first_fraction=0.2)},
    "pre-trained, with its decoder": {"start": True, "decoder": "pretrained"},
    "pre-trained, encoder frozen": {"start": True, "freeze": True},
}
"""What is changed; else balanced cross-entropy, batch norm, a fresh decoder and one rate for all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--init", type=Path, required=True, help="a pre-training with batch norm")
    parser.add_argument("--out", type=Path, default=Path("runs/fine-tuning"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    task = p2w.Segmentation(
        chosen.data,
        preprocess=Preprocess(modality="MR"),
        patch_size=(24, 32, 24),
        window_size=(48, 64, 48),
        validation_fraction=0.13,
        test_fraction=0.33,
    )
    labelled = task.labelled(cache=default_cache())
    chosen.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[list[float]]] = {name: [] for name in RECIPES}
    for seed in range(chosen.seeds):
        for name, recipe in RECIPES.items():
            kept = chosen.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}.json"
            if not kept.exists():
                kept.write_text(json.dumps(try_recipe(task, labelled, chosen.init, seed, **recipe)))
            found[name].append(json.loads(kept.read_text()))
            print(f"seed {seed}: {row(name, found[name])}", flush=True)
        if chosen.write:
            chosen.write.write_text(page(found, seed + 1))


def try_recipe(
    task: p2w.Segmentation,
    labelled: LabelledData,
    init: Path,
    seed: int,
    *,
    start: bool = False,
    loss: str = "dice_balanced_ce",
    norm: str = "batch",
    encoder_lr: float = 1.0,
    decoder: Any = "fresh",
    scale: bool = False,
    freeze: bool = False,
    schedule: Cosine | Sawtooth = Cosine(warmup_fraction=0.1),
) -> list[float]:
    """Fine-tune on one labelled case; Dice of every class, a mean over validation cases."""
    task = task.replace(loss_function=loss)
    split = task.split(labelled)
    train = labelled.choose_labelled(split.train, fraction=1.0, count=1, seed=seed)
    weights = load_initialisation(init) if start else None
    network = weights.card.network if weights else p2w.UNet3D(size="tiny", norm=norm)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    fresh = network.build_encoder(1)
    encoder = weights.encoder if weights else fresh
    if scale:
        match_scale(encoder, fresh)
    torch.manual_seed(seed)
    module = build_model(task, network, encoder, labelled.classes, decoder=decoder)
    if weights and decoder == "pretrained":
        load_pretrained_decoder(module, weights.decoder)
    if freeze:
        module.freeze_encoder()
    module = RUNTIME.place_module(module)
    samples = task.samples(labelled, train, seed=seed, batch_size=BATCH)
    optimiser = AdamW(lr=RATE).build(parameter_groups(module, encoder_scale=encoder_lr, encoder_apart=True))
    for step in range(STEPS):
        rate, encoder_rate = (
            RATE * factor(step, steps=STEPS, values=())
            for factor in (schedule.factor, schedule.encoder_factor)
        )
        set_rates(optimiser, rate, step, encoder_rate=encoder_rate)
        drawn = [samples[step * BATCH + row] for row in range(BATCH)]
        batch = {key: torch.stack([torch.as_tensor(one[key]) for one in drawn]) for key in drawn[0]}
        batch = task.augment(batch, BatchGenerator.of_step(seed, "views", step, rows=BATCH))
        batch["image"] = RUNTIME.place(batch["image"])
        module.train()
        optimiser.zero_grad()
        task.loss(module, batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    module.eval()
    cases = split.validation[:CASES]
    return np.mean([dice(task, module, labelled, case) for case in cases], axis=0).tolist()  # type: ignore[no-any-return]


@torch.no_grad()
def dice(task: p2w.Segmentation, module: Model, labelled: LabelledData, case: str) -> list[float]:
    predictor = as_function(module, RUNTIME)
    found, wanted = task.segment(predictor, task.image(labelled, case)[None]), task.reference(labelled, case)
    return [
        2
        * float(((found == c) & (wanted == c)).sum())
        / max(1, int((found == c).sum() + (wanted == c).sum()))
        for c in range(1, len(labelled.classes))
    ]


def row(name: str, runs: list[list[float]]) -> str:
    """A line of the table."""
    means = [100 * statistics.mean(run) for run in runs]
    lost = sum(min(run) < LOST for run in runs)
    every = ", ".join(f"{mean:.1f}" for mean in means)
    spread = f" ± {statistics.stdev(means):.1f}" if len(means) > 1 else ""
    return f"| {name} | {statistics.mean(means):.1f}{spread} | {lost} | {every} |"


def page(found: dict[str, list[list[float]]], seeds: int) -> str:
    """The page: a line a recipe."""
    over = f"mean ± deviation over {seeds} seeds" if seeds > 1 else "one seed"
    lines = [
        "# Fine-tuning on very few labels: what was tried",
        "",
        f"Hippocampus, one labelled case, {STEPS} steps of {BATCH} patches of 24x32x24 at rate {RATE:g}, "
        f"`UNet3D` tiny; mean Dice in % on {CASES} validation cases, {over}. No test case was looked at. "
        f"*Lost*: runs with a class below Dice {LOST:g}. What it led to is told "
        "[there](decisions/fine-tuning.md).",
        "",
        "| recipe | Dice | lost | every seed |",
        "|---|---|---:|---|",
        *(row(name, runs[:seeds]) for name, runs in found.items()),
        "",
    ]
    if seeds < ENOUGH:
        lines += [
            f"Fewer than {ENOUGH} seeds show what fails, and no more: between runs that learn both classes, "
            "differences of a few points are those of chance. `--seeds` adds some to what is kept.",
            "",
        ]
    lines.append(
        "Written by `python benchmarks/fine_tuning.py --data FOLDER --init RUN --write docs/fine-tuning.md` "
        f"on {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, one thread."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
