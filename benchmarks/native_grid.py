"""The same runs scored on prepared voxels, as in 0.1.0, and on those of the label files.

    python benchmarks/native_grid.py --data FOLDER --write

``FOLDER`` holds ``hippocampus`` and ``head_neck_ct/labelled``, each with ``images`` and ``labels``.  One
short fine-tuning from scratch each, at a coarser spacing, on the first cases; one thread, a few minutes.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch

import parts2whole as p2w
from parts2whole.scans.preprocess import Preprocess
from parts2whole.store.split import read_split
from parts2whole.training.model import as_function, load_model
from parts2whole.training.runtime import Hardware, Runtime

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
START, END = "<!-- native grid -->", "<!-- end of native grid -->"
HEAD = """## Scored on prepared voxels, and on those of the label files

Spacings in mm; Dice on prepared voxels, as in version 0.1.0, and on those of the files.

| data | files | prepared at | test cases | class | prepared | file | difference |
|---|---|---|---:|---|---:|---:|---:|
"""
SETS = {
    "hippocampus": ("hippocampus", Preprocess(modality="MR", spacing_mm=(2.0, 2.0, 2.0)), (16, 16, 16), 40),
    "head and neck": (
        "head_neck_ct/labelled",
        Preprocess(modality="CT", window_hu=(-200.0, 300.0), spacing_mm=(5.0, 5.0, 5.0)),
        (32, 32, 32),
        20,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in SETS for row in measure(name, chosen.data, Path(folder), chosen.steps)]
    stamp = (
        f"\nWritten by `python benchmarks/native_grid.py --data FOLDER --steps {chosen.steps} --write` on "
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, one thread. One short run each: the difference "
        "between the columns says what is counted, not how good a method is.\n"
    )
    table = HEAD + "\n".join(rows) + "\n" + stamp
    print(table)
    if chosen.write:
        before, _, rest = PAGE.read_text().partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before.rstrip()}\n\n{START}\n{table}{END}\n{after}")


def measure(name: str, data: Path, folder: Path, steps: int) -> list[str]:
    """One row a class, and one for their mean."""
    place, preprocess, patch, count = SETS[name]
    few = link_some(data / place, folder / name, count)
    cache, run = folder / "cache", folder / f"run-{name}"
    task = p2w.Segmentation(few, preprocess=preprocess, patch_size=patch, validation_fraction=0.15)
    done = p2w.finetune(
        task,
        out=run,
        cache=cache,
        network=p2w.UNet3D(size="tiny"),
        steps=steps,
        batch_size=4,
        validate_every=steps // 3,
        hardware=Hardware(accelerator="cpu", precision="32-true"),
        progress=False,
    )
    module, card = load_model(run)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    labelled = card.task.labelled(cache=cache, progress=False)
    test = read_split(run / "split.json").test
    predictor = as_function(runtime.place_module(module), runtime)
    before = card.task.examine(predictor, labelled, test, thorough=False).metrics
    (low, high), wanted = card.spacing_range_mm or ((), ()), preprocess.spacing_mm or ()
    files = " x ".join(
        f"{a:.3g}" if f"{a:.3g}" == f"{b:.3g}" else f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True)
    )
    new = done.test
    about = f"| {name} | {files} | {' x '.join(f'{mm:g}' for mm in wanted)} | {len(test)} |"
    return [
        f"{about} {key.removeprefix('dice_')} | {old:.4f} | {new[key]:.4f} | {new[key] - old:+.4f} |"
        for key, old in before.items()
        if key.startswith("dice_")
    ]


def link_some(source: Path, target: Path, count: int) -> Path:
    """The first cases of a folder of pairs, by links."""
    for image in sorted((source.resolve() / "images").iterdir())[:count]:
        for kind in ("images", "labels"):
            (target / kind).mkdir(parents=True, exist_ok=True)
            (target / kind / image.name).symlink_to(source.resolve() / kind / image.name)
    return target


if __name__ == "__main__":
    main()
