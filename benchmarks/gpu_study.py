"""The studies of gain with larger networks: what one sitting at a GPU gives.

    python benchmarks/gpu_study.py --data FOLDER --out runs/gpu-study --minutes 24 --write docs/gpu-study.md
    python benchmarks/gpu_study.py --data FOLDER --out runs/dry --dry          # a few steps of tiny networks
    python benchmarks/gpu_study.py --data FOLDER --pack data.tar.xz            # what the GPU's machine needs

``FOLDER`` holds what the recipes ask for below ``$P2W_DATA``.  A study is a recipe, ``recipes/gain-*.yaml``,
with a network of another size, fewer arms and labels.  Networks are small, so many fine-tunings share
the GPU.  When the minutes are over, work stops; the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
STUDIES = (
    "gain-head-neck:tiny",
    "gain-hippocampus:small",
    "gain-head-neck:small",
    "gain-hippocampus:base",
    "gain-head-neck:base",
)
ARMS = ("scratch", "Masked autoencoder", "Parts2Whole")
LIMIT_MB = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that $P2W_DATA names in the recipes")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-study"))
    parser.add_argument("--minutes", type=float, default=24.0, help="stop then, wherever it is")
    parser.add_argument("--studies", nargs="+", default=STUDIES, metavar="RECIPE:SIZE", help="in this order")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--labels", nargs="+", type=int, default=(1, 3))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument(
        "--dry", action="store_true", help="a few steps of tiny networks, to see that it runs"
    )
    parser.add_argument("--pack", type=Path, metavar="ARCHIVE", help="only write the data into an archive")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    chosen = parser.parse_args()
    studies = dict.fromkeys(tuple(name.split(":")) for name in chosen.studies)
    recipes = {name: ROOT / "recipes" / f"{name}.yaml" for name, _ in studies}
    if absent := [str(path) for path in recipes.values() if not path.exists()]:
        parser.error(f"no recipe {', '.join(absent)}")
    if chosen.pack:
        pack(chosen.data, chosen.pack, list(recipes.values()))
        return
    deadline = time.monotonic() + 60 * chosen.minutes
    folders: dict[str, Path] = {}
    for name, size in studies:
        study = yaml.safe_load(recipes[name].read_text())
        study = reduced(study, size, arms=chosen.arms, labels=chosen.labels, seeds=chosen.seeds)
        folder = chosen.out / f"{name}-{size}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.with_suffix(".yaml").write_text(yaml.safe_dump(shortened(study) if chosen.dry else study))
        folders[f"{study['name']}, {size}"] = folder
        finished = run(folder, chosen.data, chosen.workers, deadline)
        print(f"{folder}: {'finished' if finished else 'not finished, the same command goes on'}", flush=True)
    if chosen.write:
        chosen.write.write_text(page(folders))


def reduced(
    study: dict[str, Any], size: str, *, arms: Sequence[str], labels: Sequence[int], seeds: int
) -> dict[str, Any]:
    """A recipe with a network of another size, and the arms and labels that one sitting has time for."""
    (network,) = study["network"]
    study["network"][network]["size"] = size
    study["arms"] = {name: arm for name, arm in study["arms"].items() if name in arms}
    return study | {"cases": list(labels), "seeds": seeds}


def shortened(study: dict[str, Any]) -> dict[str, Any]:
    """A few steps and one seed of a study with a tiny network."""
    (network,) = study["network"]
    study["network"][network]["size"] = "tiny"
    study["finetune"] |= {"steps": 2, "validate_every": 2}
    study["pretrain"]["validate_every"] = 2
    for arm in study["arms"].values():
        if isinstance(arm, dict):
            arm["pretrain"] = {"steps": 4}
    return study | {"seeds": 1}


def run(folder: Path, data: Path, workers: int, deadline: float) -> bool:
    """Go on with a study until it is finished (True) or time is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    study = folder.with_suffix(".yaml")
    command = [sys.executable, "-m", "parts2whole", "benchmark", str(study), "--out", str(folder)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        env=os.environ | {"P2W_DATA": str(data.resolve())},
        start_new_session=True,
    )
    try:
        return process.wait(timeout=left) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        return False


def pack(data: Path, archive: Path, recipes: Sequence[Path]) -> None:
    """Write what the recipes need into an archive of at most `LIMIT_MB`."""
    named = {word for recipe in recipes for word in recipe.read_text().replace('"', " ").split()}
    wanted = sorted({word.removeprefix("${P2W_DATA}/") for word in named if word.startswith("${P2W_DATA}/")})
    tops = [name for name in wanted if not any(name.startswith(f"{other}/") for other in wanted)]
    with tarfile.open(archive, "w:xz") as tar:
        for name in tops:
            tar.add(data / name, arcname=name)
    size = archive.stat().st_size / 2**20
    print(f"{archive}: {', '.join(tops)}; {size:.1f} MB")
    if size > LIMIT_MB:
        sys.exit(f"that is more than {LIMIT_MB} MB")


def page(folders: dict[str, Path]) -> str:
    """Verdict and table of every study, as they are now."""
    lines = ["# The studies of gain with larger networks", ""]
    lines += [f"Written by `python benchmarks/gpu_study.py --write` from {len(folders)} studies.", ""]
    for name, folder in folders.items():
        lines += [f"## {name}", ""]
        parts = [folder / "verdict.txt", folder / "table.md"]
        lines += [part.read_text() for part in parts if part.exists()] or ["Nothing is finished yet.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
