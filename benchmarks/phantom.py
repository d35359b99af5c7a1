"""How long a phantom takes, by region and size; CPU seconds of one core, the median of several patients.

python benchmarks/phantom.py [--rounds 3] [--out docs/phantom-speed.md]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from parts2whole.phantom.brain import make_brain
from parts2whole.phantom.ct import Resolution, make_ct
from parts2whole.phantom.sizes import CT, brain_grid
from parts2whole.phantom.space import Grid


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    lines = ["| phantom | voxels | CPU seconds |", "|---|---|---|"]
    for name, make in subjects().items():
        make(0)  # imports and first allocations
        seconds, voxels = [], 0
        for case in range(1, arguments.rounds + 1):
            began = time.process_time()
            voxels = make(case)
            seconds.append(time.process_time() - began)
        lines.append(f"| {name} | {voxels:,} | {statistics.median(seconds):.2f} |")
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


def subjects() -> dict[str, Callable[[int], int]]:
    made: dict[str, Callable[[int], int]] = {}
    cube = Resolution(96, slices=96)
    for region, sizes in CT.items():
        made[f"{region}, 96 x 96 x 96"] = lambda case, region=region: (
            make_ct(region, cube, seed=0, case=case).image.array.size
        )
        made[f"{region}, small"] = lambda case, region=region, small=sizes["small"]: (
            make_ct(region, small, seed=0, case=case).image.array.size
        )
    head = Grid((96, 96, 96), (1.9, 1.9, 1.9))
    made["brain, one modality, 96 x 96 x 96"] = lambda case: (
        make_brain(head, seed=0, case=case, modalities=("t1",)).label.array.size
    )
    made["brain, four modalities, small"] = lambda case: (
        make_brain(brain_grid("small"), seed=0, case=case).label.array.size
    )
    return made


if __name__ == "__main__":
    main()
