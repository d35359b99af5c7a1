"""Injects faults into real runs and compares them, bit by bit, with runs that were never stopped.

    python benchmarks/reliability.py --write          everything, about ten minutes on two cores
    python benchmarks/reliability.py --only kill --kills 5

Runs are forked from this process, which has imported everything once, so that fifty kills take minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from findings import Finding, keep, show
from forked_runs import make_store, pretrain, said, same, start, wait

import parts2whole as p2w
from parts2whole.methods.base import Method
from parts2whole.spec import discover
from parts2whole.training.lock import list_checkpoints
from parts2whole.training.runtime import Hardware

EXACT = Hardware(accelerator="cpu", precision="32-true")
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="enter the findings into docs/reliability.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_store(work / "store")
        for name in given.only:
            found = SECTIONS[name](work, given)
            show(found)
            if given.write:
                keep(name, f"python benchmarks/reliability.py --write --only {name}", found)


def kill(work: Path, given: argparse.Namespace) -> list[Finding]:
    """Kill -9 at random moments of runs that are resumed until they end."""
    luck = random.Random(given.seed)
    began = time.monotonic()
    code = wait(start(lambda: pretrain(work, work / "unbroken")))
    length = time.monotonic() - began
    assert code == 0, "the unbroken run failed"
    kills = halves = runs = equal = damaged = 0
    while kills < given.kills:
        out = work / f"killed{runs}"
        while True:
            child = start(lambda out=out: pretrain(work, out))
            # Long enough for a checkpoint now and then, short enough that a run is killed many times.
            code = None if kills >= given.kills else wait(child, luck.uniform(0.02, 0.5) * length)
            if code is None and kills < given.kills:
                os.kill(child, signal.SIGKILL)
                code = wait(child)
            elif code is None:
                code = wait(child)
            if code == -signal.SIGKILL:
                kills += 1
                halves += bool(list(out.rglob("*.part")))
                damaged += sum(not path.with_suffix(".sha256").exists() for path in list_checkpoints(out))
                continue
            assert code == 0, f"a resumed run failed: {said(child)}"
            break
        runs += 1
        equal += same(work / "unbroken", out)
        shutil.rmtree(out)
    return [
        Finding(
            "`kill -9` at a random moment of a pre-training, then `--resume auto`",
            kills,
            f"{equal} of {runs} runs ended with weights and log equal to the unbroken run's, to the bit; "
            f"{halves} kills hit a file half-written, {damaged} left a checkpoint without its checksum",
            equal == runs,
        )
    ]


def resume(work: Path, given: argparse.Namespace) -> list[Finding]:
    """Stopped by SIGUSR1 at every step, for every method, and by other signals."""
    sys.path.insert(0, str(HERE))
    from many_processes import small

    found = []
    for name, member in discover(Method, "parts2whole.methods").items():
        method, steps = small(member), 6
        assert wait(start(lambda m=method, n=name: pretrain(work, work / n, steps=6, method=m))) == 0, name
        equal = codes = 0
        for step in range(1, steps):
            out = work / f"{name}-{step}"
            child = start(lambda o=out, s=step, m=method: stopped(work, o, s, m, signal.SIGUSR1))
            codes += wait(child) == 75
            child = start(lambda o=out, m=method: pretrain(work, o, steps=6, method=m))
            assert wait(child) == 0, said(child)
            equal += same(work / name, out)
        found.append(
            Finding(
                f"{name} stopped by SIGUSR1 after each of its steps, then resumed",
                steps - 1,
                f"{codes} ended with code 75, {equal} then ended equal to the unbroken run, to the bit",
                codes == equal == steps - 1,
            )
        )
    for number, expected in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        out = work / number.name
        code = wait(start(lambda o=out, n=number: stopped(work, o, 2, p2w.Parts2Whole(), n)))
        kept = [path.name for path in list_checkpoints(out)]
        found.append(
            Finding(
                f"{number.name} in the middle of a run",
                1,
                f"the step was finished, {kept[-1] if kept else 'nothing'} saved, exit code {code}",
                code == expected and kept == ["step-00000002.ckpt"],
            )
        )
    return found


def stopped(work: Path, out: Path, step: int, method: Method, number: int) -> None:
    """A run that gets a signal while it computes step ``step``."""
    loss = type(method).loss
    count = 0

    def counted(self: Method, module: torch.nn.Module, views: dict) -> dict:
        nonlocal count
        if module.training:
            count += 1
            if count == step:
                os.kill(os.getpid(), number)
        return loss(self, module, views)

    type(method).loss = counted
    pretrain(work, out, steps=6, method=method)


@contextlib.contextmanager
def mounted(path: Path, size_mb: int) -> Iterator[None]:
    """A small file system of its own; needs the right to mount."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


def disk(work: Path, given: argparse.Namespace) -> list[Finding]:
    """A disk that is full, and one that becomes read-only, on a file system made for it."""
    assert wait(start(lambda: pretrain(work, work / "reference"))) == 0
    place, found = work / "disk", []
    try:
        with mounted(place, 24):
            equal = messages = times = 0
            for left_mb in (0.5, 2.0, 3.2):
                out, filler = place / "run", place / "filler"
                filler.write_bytes(bytes(int((23.8 - left_mb) * 2**20)))
                child = start(lambda o=out: pretrain(work, o))
                code, text = wait(child), said(child)
                filler.unlink()
                if code != 0:
                    times += 1
                    messages += "make room" in text or "No space" in text
                    child = start(lambda o=out: pretrain(work, o))
                    code = wait(child)
                    assert code == 0, said(child)
                equal += same(work / "reference", out)
                shutil.rmtree(out)
            found.append(
                Finding(
                    "disk full during a run (0.5 to 3.2 MB free at its start), room made, then resumed",
                    times,
                    f"{times} of 3 runs stopped, {messages} said that there was no room; all went on to the "
                    f"end, {equal} equal to the run on a large disk, to the bit",
                    times > 0 and messages == times and equal == 3,
                )
            )
    except subprocess.CalledProcessError as error:
        found.append(Finding("disk full", 0, f"not tried: {error}", False))
    return [*found, readonly(work)]


def readonly(work: Path) -> Finding:
    """The folder of checkpoints is mounted over itself, then read-only, while a run goes on."""
    out = work / "readonly"
    folder = out / "checkpoints"
    child = start(lambda: pretrain(work, out))
    while not list_checkpoints(out):
        time.sleep(0.01)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        protect = ["mount", "-o", "remount,bind,ro", folder]
        while subprocess.run(protect, check=False, capture_output=True).returncode:
            time.sleep(0.01)  # a checkpoint is being written
        code, text = wait(child), said(child)
    finally:
        subprocess.run(["umount", folder], check=True)
    kept = len(list_checkpoints(out))
    assert wait(start(lambda: pretrain(work, out))) == 0
    equal = same(work / "reference", out)
    return Finding(
        "folder of checkpoints made read-only during a run, made writable, then resumed",
        1,
        f"exit code {code} ({text.partition(':')[0] or 'no message'}), {kept} checkpoints kept; "
        f"{'equal' if equal else 'NOT equal'} to the unbroken run",
        code not in (0, None) and "writable" in text and kept > 0 and equal,
    )


def damage(work: Path, given: argparse.Namespace) -> list[Finding]:
    """The newest checkpoint cut short, or with a byte changed, at random places."""
    luck = random.Random(given.seed)
    assert wait(start(lambda: pretrain(work, work / "sound"))) == 0
    equal, times = 0, 12
    for number in range(times):
        out = work / f"damaged{number}"
        shutil.copytree(work / "sound", out)
        (out / "result.json").unlink()
        newest = list_checkpoints(out)[-1]
        content = bytearray(newest.read_bytes())
        place = luck.randrange(len(content))
        if number % 2:
            content[place] ^= 1 << luck.randrange(8)
        else:
            del content[place:]
        newest.write_bytes(bytes(content))
        child = start(lambda o=out: pretrain(work, o))
        assert wait(child) == 0, said(child)
        equal += same(work / "sound", out)
        shutil.rmtree(out)
    return [
        Finding(
            "newest checkpoint cut short or one bit changed, then resumed",
            times,
            f"{equal} went on from the one before and ended equal to the unbroken run, to the bit",
            equal == times,
        )
    ]


def processes(work: Path, given: argparse.Namespace) -> list[Finding]:
    """Two, three and four processes against one, every method; and one that dies."""
    script, found = str(HERE / "many_processes.py"), []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(count: int, *options: str) -> tuple[int, dict, float]:
        out = work / "curves.json"
        out.unlink(missing_ok=True)
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *(torchrun if count > 1 else []), script, str(out), *options]
        began = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        curves = json.loads(out.read_text()) if out.exists() else {}
        return done.returncode, curves, time.monotonic() - began

    # With batch norm at this tiny size a rounding error grows tenfold a step, with instance norm it doesn't.
    single: dict[str, dict] = {}
    trials = (
        (2, "8", "instance", 1e-5),
        (4, "8", "instance", 1e-5),
        (4, "8", "batch", 5e-3),
        (3, "8", "batch", 5e-3),
    )
    for count, batch, norm, tolerance in trials:
        if norm not in single:
            single[norm] = run(1, "--batch", batch, "--norm", norm)[1]
        alone = single[norm]
        _, together, _ = run(count, "--batch", batch, "--norm", norm)
        gaps = {
            name: max(
                abs(a - b) / abs(a) for a, b in zip(alone[name]["losses"], curve["losses"], strict=True)
            )
            for name, curve in together.items()
        }
        uneven = int(batch) % count
        worst = max(gaps.values(), default=float("nan"))
        names, size = ", ".join(gaps), f"{batch}{' (uneven)' if uneven else ''}"
        found.append(
            Finding(
                f"{count} processes against one at a batch of {size}, 4 steps, {norm} norm: {names}",
                len(gaps),
                f"largest relative difference of a loss {worst:.1e}",
                bool(gaps) and worst < tolerance and (bool(uneven) or len(gaps) == len(alone)),
            )
        )
    runs = work / "dying"
    code, _, seconds = run(4, "--runs", str(runs), "--methods", "SimCLR", "--die", "2")
    kept = [path.name for path in list_checkpoints(runs / "SimCLR")]
    again, curves, _ = run(4, "--runs", str(runs), "--methods", "SimCLR", "--resume")
    _, whole, _ = run(4, "--methods", "SimCLR")
    equal = again == 0 and curves["SimCLR"]["losses"] == whole["SimCLR"]["losses"]
    found.append(
        Finding(
            "one of 4 processes dies without a word (SimCLR, torchrun), then resumed",
            1,
            f"all had stopped {seconds:.0f} s after the start, imports included; {kept[-1]} kept; the "
            f"resumed curve is {'equal' if equal else 'NOT equal'} to the unbroken one, to the bit",
            code != 0 and seconds < 60 and equal,
        )
    )
    return found


SECTIONS = {
    "kill": kill,
    "resume": resume,
    "damage": damage,
    "disk": disk,
    "processes": processes,
}

if __name__ == "__main__":
    main()
