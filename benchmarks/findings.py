"""What the reliability scripts found, kept as JSON, and docs/reliability.md written from it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from parts2whole.files import write_json, write_text

FILE = Path(__file__).with_name("reliability.json")
PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"

INTRODUCTION = """# Reliability: what was tried, how often, and what came of it

Every row was written by the script that did it: faults were injected into real runs, broken files were
really read, and resumed runs were compared bit by bit with runs that were never stopped. A row that failed
would stay. The quick part is in the test suite (`tests/training`, `tests/test_hostile.py`).
"""

KINDS = """
## Right or refused

Inputs that go wrong silently in many tools. Tests make inputs of each kind and compare what comes out with
values that were derived another way; each is right, or refused with a reason that is true of it.
"""

CLOSING = """
## What can be relied on

- **Exact resume** holds on CPUs at the same number of threads and processes, in the same versions of the
  libraries. On GPUs add `--hardware.deterministic true`: on an H100, resumed runs of `UNet3D` and
  `ResEncUNet3D` were then equal to unbroken ones, to the bit ([measured](gpu.md)); the decoder of
  `SegResNet` has no deterministic way.
- **Several processes** give the curve of one to float tolerance, not to the bit: sums are made in another
  order. Dropout draws other numbers on every process. Segmentation's Dice is over the rows of one process.
- **Two checkpoints** stay, so a damaged one costs one interval. Each is written beside its place, forced to
  the disk, and renamed.
- **Weights, checkpoints and settings from others run no code**: tensors are read by `weights_only` or
  safetensors, YAML by the safe loader, and class names only from this package.

How runs behave on a cluster, and their exit codes, is in [Clusters](cluster.md).
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One row: what was done, how often, what came of it."""

    tried: str
    times: int
    outcome: str
    passed: bool


def keep(section: str, command: str, findings: list[Finding]) -> None:
    """Replace a section in the JSON file, and write the page anew."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    known[section] = {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    write_json(FILE, known)
    write_page(known)


def write_page(known: dict) -> None:
    lines = [INTRODUCTION, "| tried | times | outcome | |", "|---|---:|---|---|"]
    lines += [_row(row) for name, section in known.items() if name != "kinds" for row in section["findings"]]
    if "kinds" in known:
        lines += [KINDS, "| input | tests | what happens here | |", "|---|---:|---|---|"]
        lines += [_row(row) for row in known["kinds"]["findings"]]
    lines += ["", "Written by:", ""]
    lines += [f"- `{s['command']}` on {s['date']} ({s['machine']}): {name}" for name, s in known.items()]
    page = PAGE.read_text() if PAGE.exists() else ""
    _, start, others = page.partition("\n<!-- ")  # what other scripts have put below, between markers
    write_text(PAGE, "\n".join(lines) + "\n" + CLOSING + start + others)


def _row(row: dict) -> str:
    verdict = "held" if row["passed"] else "**failed**"
    return f"| {row['tried']} | {row['times']:,} | {row['outcome']} | {verdict} |"


def show(findings: list[Finding]) -> None:
    for row in findings:
        print(
            f"{'held  ' if row.passed else 'FAILED'}  {row.times:>7,}  {row.tried}: {row.outcome}", flush=True
        )
