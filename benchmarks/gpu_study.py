"""The studies of gain with larger networks: what one sitting at a GPU gives.

    python benchmarks/gpu_study.py --data FOLDER --out runs/gpu-study --minutes 24 --write docs/gpu-study.md
    python benchmarks/gpu_study.py --data FOLDER --out runs/dry --dry          # a few steps of tiny networks
    python benchmarks/gpu_study.py --data FOLDER --pack data.tar               # what the GPU's machine needs

``FOLDER`` holds what the recipes ask for below ``$P2W_DATA``.  The studies are ``recipes/gain-*.yaml``
with networks of other sizes, fewer arms and labels; nothing else is changed.  When the minutes are over, work
stops where it is and is saved; the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SIZES = ("small", "base")
ARMS = ("scratch", "Masked autoencoder", "Parts2Whole")
LABELS, SEEDS = (1, 3), 5
LIMIT_MB = 64
DRY = {"size": "tiny", "pretrain": 4, "finetune": 2, "seeds": 1, "labels": 1}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that $P2W_DATA names in the recipes")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-study"))
    parser.add_argument("--minutes", type=float, default=24.0, help="stop then, wherever it is")
    parser.add_argument(
        "--dry", action="store_true", help="a few steps of tiny networks, to see that it runs"
    )
    parser.add_argument("--only", help="one recipe, such as gain-hippocampus")
    parser.add_argument("--pack", type=Path, metavar="ARCHIVE", help="only write the data into an archive")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    chosen = parser.parse_args()
    recipes = sorted((ROOT / "recipes").glob(f"{chosen.only or 'gain-*'}.yaml"))
    if not recipes:
        parser.error(f"no recipe {chosen.only!r} in {ROOT / 'recipes'}")
    if chosen.pack:
        pack(chosen.data, chosen.pack, recipes)
        return
    deadline = time.monotonic() + 60 * chosen.minutes
    folders: dict[str, Path] = {}
    for recipe in recipes:
        for size in (DRY["size"],) if chosen.dry else SIZES:
            folder = chosen.out / f"{recipe.stem}-{size}"
            folder.mkdir(parents=True, exist_ok=True)
            study = folder.with_suffix(".yaml")
            study.write_text(
                yaml.safe_dump(resized(yaml.safe_load(recipe.read_text()), size, dry=chosen.dry))
            )
            folders[f"{recipe.stem}, {size}"] = folder
            finished = run(study, folder, chosen.data, deadline)
            print(
                f"{folder}: {'finished' if finished else 'not finished, the same command goes on'}",
                flush=True,
            )
    if chosen.write:
        chosen.write.write_text(page(folders))


def resized(study: dict[str, Any], size: str, *, dry: bool) -> dict[str, Any]:
    """A recipe with networks of another size, and the arms and labels that one sitting has time for."""
    (network,) = study["network"]
    study["network"][network]["size"] = size
    study["arms"] = {name: arm for name, arm in study["arms"].items() if name in ARMS}
    study |= {"cases": list(LABELS), "seeds": SEEDS, "hardware": {"precision": "auto"}}
    if dry:
        study |= {"cases": [DRY["labels"]], "seeds": DRY["seeds"]}
        study["finetune"] |= {"steps": DRY["finetune"], "validate_every": DRY["finetune"]}
        for part in (study, *study["arms"].values()):
            if isinstance(part, dict):
                part["pretrain"] = part.get("pretrain", {}) | {"steps": DRY["pretrain"]}
    return study


def run(study: Path, out: Path, data: Path, deadline: float) -> bool:
    """Go on with a study until it is finished (True) or time is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    command = [sys.executable, "-m", "parts2whole", "benchmark", str(study), "--out", str(out)]
    process = subprocess.Popen(
        command, env=os.environ | {"P2W_DATA": str(data.resolve())}, start_new_session=True
    )
    try:
        return process.wait(timeout=left) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        return False


def pack(data: Path, archive: Path, recipes: list[Path]) -> None:
    """Write what the recipes need into an archive of at most `LIMIT_MB`."""
    named = {word for recipe in recipes for word in recipe.read_text().replace('"', " ").split()}
    wanted = sorted({word.removeprefix("${P2W_DATA}/") for word in named if word.startswith("${P2W_DATA}/")})
    tops = [name for name in wanted if not any(name.startswith(f"{other}/") for other in wanted)]
    with tarfile.open(archive, "w") as tar:
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
