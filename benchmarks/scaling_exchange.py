"""Steps of several processes over a link that is made slow: how much of the exchange the backward pass hides.

    python benchmarks/scaling_exchange.py          # a table, of two, three and four processes

`scaling.py` puts the table into its page.  The processes share one loopback device in a network namespace of
their own (Linux, `unshare` and `tc`), whose rate is set so that exchanging the gradients once takes a given
part of what a step computes.  In every round each kind of step is timed in turn, between barriers.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import parts2whole as p2w
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.step import Computation
from parts2whole.wholes.random import BatchGenerator

WHOLE, SIZE = (16, 16, 32), "small"
SHARES = (0.5, 1.0)
"""What an exchange takes of what a step computes."""
ROUNDS = 3
CASES = ("2:instance", "3:instance", "4:instance")


def measure(processes: int, norm: str) -> list[dict[str, float]]:
    """Medians over the rounds, one row a rate of the link; the first at the loopback's own.

    Raises:
        subprocess.CalledProcessError: this machine has no network namespaces, or the processes failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = f"ip link set lo up && exec {sys.executable} {__file__} --work {out} {processes} {norm}"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        subprocess.run(
            ["unshare", "--map-root-user", "--net", "sh", "-c", command], check=True, env=environment
        )
        found: list[dict[str, float]] = json.loads(out.read_text())
    return found


def set_rate(megabits: float) -> None:
    """Let the loopback pass so much a second, in the order in which it comes."""
    limit = f"tbf rate {megabits:.3f}mbit burst 256kb latency 400ms"
    subprocess.run(["tc", "qdisc", "replace", "dev", "lo", "root", *limit.split()], check=True)


def work(out: Path, processes: int, norm: str) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true", devices=processes, timeout_minutes=2))
    method = p2w.Parts2Whole()
    torch.manual_seed(0)
    plain = method.build(p2w.UNet3D(size=SIZE, norm=norm), in_channels=1, whole_size=WHOLE)
    module, _ = runtime.prepare(plain, torch.optim.SGD(plain.parameters(), lr=0.0))
    twin = copy.deepcopy(plain)
    computed = runtime.distribute(Computation(module, method.loss))
    known = DistributedDataParallel(
        Computation(twin, method.loss), process_group=runtime.exchange, gradient_as_bucket_view=True
    )
    views = runtime.place(method.views(torch.rand(1, 1, *WHOLE), BatchGenerator.of_step(0, rows=1)))
    numbers = sum(p.numel() for p in plain.parameters() if p.requires_grad)
    flat = torch.zeros(numbers)

    def forward() -> torch.Tensor:
        loss: torch.Tensor = computed(views)["loss"]
        return loss

    def compute() -> None:
        with runtime.exchanging(computed, False):
            forward().backward()

    def exchange() -> None:
        dist.all_reduce(flat, group=runtime.exchange)

    def after() -> None:
        compute()
        exchange()

    def during() -> None:
        forward().backward()

    def without_search() -> None:
        known(views)["loss"].backward()

    def forward_only() -> None:
        with runtime.exchanging(computed, False):
            forward()

    kinds: dict[str, Callable[[], None]] = {
        "compute": compute, "after": after, "during": during, "exchange": exchange, "forward": forward_only,
        "without search": without_search,
    }  # fmt: skip

    def rounds(*, slowed: bool) -> dict[str, float]:
        """Medians of the rounds, each over what the round's step computes; and that, in seconds."""
        spent: list[dict[str, float]] = []
        for _ in range(ROUNDS):
            this = {}
            for kind, action in kinds.items():
                if slowed and kind == "without search":
                    continue
                computed.zero_grad(set_to_none=True)
                twin.zero_grad(set_to_none=True)
                dist.barrier(group=runtime.control)
                began = time.perf_counter()
                action()
                dist.barrier(group=runtime.control)
                this[kind] = time.perf_counter() - began
            spent.append({kind: value / this["compute"] for kind, value in this.items()})
            spent[-1]["seconds"] = this["compute"]
        return {kind: statistics.median(round_[kind] for round_ in spent) for kind in spent[0]}

    for action in kinds.values():
        action()
    found = [rounds(slowed=False) | {"megabits": 0.0, "share": 0.0}]
    seconds = runtime.from_main(found[0]["seconds"])
    for share in SHARES:
        # In a ring every process sends twice the gradients, less one share, and all over one device.
        megabits = 2 * (processes - 1) * 32 * numbers / (share * seconds) / 1e6
        if runtime.is_main:
            set_rate(megabits)
        dist.barrier(group=runtime.control)
        exchange()
        found.append(rounds(slowed=True) | {"megabits": megabits, "share": share})
    if runtime.is_main:
        out.write_text(json.dumps(found))


def measure_all(cases: Sequence[str] = CASES) -> dict[tuple[int, str], list[dict[str, float]]]:
    """`measure` for each of ``processes:norm``."""
    pairs = [(int(processes), norm) for processes, norm in (case.split(":") for case in cases)]
    return {(processes, norm): measure(processes, norm) for processes, norm in pairs}


def can_slow_links() -> bool:
    """Whether this machine has network namespaces and the rate limit of `tc`."""
    command = "ip link set lo up && tc qdisc replace dev lo root tbf rate 1mbit burst 256kb latency 400ms"
    try:
        subprocess.run(
            ["unshare", "--map-root-user", "--net", "sh", "-c", command], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def hidden_step(forward: float, exchange: float) -> float:
    """A step over what it computes, if all of the backward pass hides the exchange; both also over that."""
    return forward + max(1 - forward, exchange)


def table(found: dict[tuple[int, str], list[dict[str, float]]]) -> str:
    """The page's table."""
    lines = [
        "| processes | norm | link | compute | exchange | after | model | during | model | hidden |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (processes, norm), rows in found.items():
        for row in rows:
            bound = hidden_step(row["forward"], row["exchange"])
            waited = row["after"] - 1
            hidden = f"{100 * (row['after'] - row['during']) / waited:.0f} %" if row["share"] else ""
            link = f"{row['megabits']:,.0f} Mbit/s" if row["megabits"] else "loopback"
            lines.append(
                f"| {processes} | {norm} | {link} | {row['seconds'] * 1e3:.0f} ms | {row['exchange']:.2f} | "
                f"{row['after']:.2f} | {1 + row['exchange']:.2f} | {row['during']:.2f} | {bound:.2f} | "
                f"{hidden} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--cases", nargs="*", default=CASES, help="processes:norm")
    given = parser.parse_args()
    if given.work:
        work(Path(given.work[0]), int(given.work[1]), given.work[2])
    else:
        print(table(measure_all(given.cases)))


if __name__ == "__main__":
    main()
