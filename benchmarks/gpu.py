"""What a GPU gives, and whether everything holds on it, in minutes; data are made on the way.

    python benchmarks/gpu.py --minutes 8 --write docs/gpu.md --json gpu.json
    python benchmarks/gpu.py --dry                        # everything on the CPU in tiny sizes
    python benchmarks/gpu.py --only steps resume --json gpu.json     # the others stay as gpu.json has them

Sections run in the order of their worth; one that fails is written as failed, and the others go on.  Page and
figures are written after every section.  Ends with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from gpu_measure import Bench
from gpu_page import Section
from gpu_proofs import agreement, child, everything, resume, shortage
from gpu_speed import compiled, inference, layouts, loader, memory, steps, views

NOTES = Path(__file__).parent / "study_notes"
SECTIONS: dict[str, Callable[[Bench, Section], None]] = {
    "steps": steps,
    "agreement": agreement,
    "everything": everything,
    "shortage": shortage,
    "resume": resume,
    "loader": loader,
    "layouts": layouts,
    "views": views,
    "inference": inference,
    "memory": memory,
    "compiled": compiled,
}
"""In the order in which they are worth their time."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing new after that")
    parser.add_argument("--dry", action="store_true", help="on the CPU, in tiny sizes")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(json.loads(chosen.child))
        return
    if not chosen.dry and not torch.cuda.is_available():
        parser.error("there is no GPU here that torch can use; --dry tries everything on the CPU")
    began = time.monotonic()
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # read once, and sections go on in one process
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(chosen.dry, began + 60 * chosen.minutes, Path(folder))
        machine = describe(bench)
        print(json.dumps(machine), flush=True)
        bench.found["peaks"] = machine["peaks"]
        done = earlier(chosen.json, machine)
        for name in chosen.only:
            section = Section(name, (SECTIONS[name].__doc__ or name).splitlines()[0].rstrip("."))
            done = [s for s in done if s.name != name] + [section]
            done.sort(key=lambda s: list(SECTIONS).index(s.name))
            print(f"\n=== {name}, {bench.left():.0f} s left", flush=True)
            run(section, bench)
            write(chosen.write, chosen.json, machine, done)
    failed = [section.name for section in done if section.wrong]
    print(f"\n{len(done) - len(failed)} of {len(done)} sections hold; failed: {failed or 'none'}", flush=True)
    sys.exit(bool(failed))


def run(section: Section, bench: Bench) -> None:
    """One section; whatever it raises is its own."""
    started = time.monotonic()
    if bench.left() < 5:
        section.say("Not run: the time was over.")
        return
    try:
        SECTIONS[section.name](bench, section)
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        section.fail(f"`{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}`")
        section.raw.append({"error": traceback.format_exc()})
    section.seconds = time.monotonic() - started
    bench.reset_memory()


def describe(bench: Bench) -> dict[str, Any]:
    """The machine and its peaks."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if not bench.dry else f"CPU (dry), {platform.machine()}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if not bench.dry:
        found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return found | {"peaks": {key: round(value, 4) for key, value in bench.peaks().items()}}


def earlier(figures: Path | None, machine: dict[str, Any]) -> list[Section]:
    """What an earlier run on such a machine has left in the file of figures."""
    if figures is None or not figures.exists():
        return []
    found = json.loads(figures.read_text())
    if any(found["machine"].get(key) != machine[key] for key in ("device", "torch", "cuda", "cudnn")):
        return []
    return [Section(**section) for section in found["sections"]]


def write(page: Path | None, figures: Path | None, machine: dict[str, Any], done: list[Section]) -> None:
    """Page and figures of what is done so far."""
    peaks = machine["peaks"]
    if page:
        head = (
            "# On a GPU\n\n"
            f"Written by `python benchmarks/gpu.py` on {machine['date']}: "
            f"{machine['device']}, {machine['cores']} cores, torch {machine['torch']}, CUDA "
            f"{machine['cuda']}, cuDNN {machine['cudnn']}.\n\n"
            f"Measured peaks: matrix products {peaks['bf16_tflops']:.0f} TFLOP/s in bf16, "
            f"{peaks['tf32_tflops']:.0f} in TF32, {peaks['float32_tflops']:.0f} in float32; a copy within "
            f"the memory {peaks['copy_tb_s']:.2f} TB/s, read and written.\n\n"
        )
        notes = NOTES / "gpu.md"
        tail = "\n" + notes.read_text() if notes.exists() else ""
        page.write_text(
            head + "\n".join(section.page() for section in done if section.raw or section.wrong) + tail
        )
    if figures:
        parts = [dataclasses.asdict(section) for section in done]
        figures.write_text(json.dumps({"machine": machine, "sections": parts}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
