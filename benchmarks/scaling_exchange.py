"""Steps of several processes over a link that is made slow: how much of the exchange the backward pass hides.

    python benchmarks/scaling_exchange.py          # a table, of two, three and four processes

`scaling.py` puts the table into its page.  The processes share one loopback device in a network namespace of
their own (Linux, `unshare` and `tc`), whose rate is set so that exchanging the gradients once takes a given
part of what a step computes.  In every round each kind of step is timed in turn, between barriers.  In a pass
without any exchange it is noted when each bucket of gradients is ready: the model of a step follows from it.
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
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import parts2whole as p2w
from parts2whole.training.runtime import Hardware, Runtime
from parts2whole.training.step import Computation
from parts2whole.wholes.random import BatchGenerator

WHOLE, SIZE = (16, 32, 32), "base"
SHARES = (0.3, 0.6)
"""What an exchange takes of what a step computes; the backward pass is about two thirds of that."""
ROUNDS = 5
Profile = list[tuple[float, float]]
"""Of every bucket, when it is ready, as a share of the backward pass, and its share of the gradients."""
CASES = ("2:instance", "3:instance", "4:instance")


def measure(processes: int, norm: str) -> list[dict[str, Any]]:
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
        found: list[dict[str, Any]] = json.loads(out.read_text())
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
    # Larger than all gradients: nothing travels before the backward pass is over.
    in_one = DistributedDataParallel(
        Computation(twin, method.loss), process_group=runtime.exchange, bucket_cap_mb=2**20,
        find_unused_parameters=True, gradient_as_bucket_view=True,
    )  # fmt: skip
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

    def during() -> None:
        forward().backward()

    def after() -> None:
        in_one(views)["loss"].backward()

    def forward_only() -> None:
        with runtime.exchanging(computed, False):
            forward()

    kinds: dict[str, Callable[[], None]] = {
        "compute": compute, "during": during, "after": after, "exchange": exchange, "forward": forward_only,
    }  # fmt: skip

    def rounds() -> dict[str, float]:
        """Medians of the rounds, each over what the round's step computes; and that, in seconds."""
        spent: list[dict[str, float]] = []
        for _ in range(ROUNDS):
            this = {}
            for kind, action in kinds.items():
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
    found: list[dict[str, Any]] = [rounds() | {"megabits": 0.0, "share": 0.0}]
    seconds = runtime.from_main(found[0]["seconds"])
    for share in SHARES:
        # In a ring every process sends twice the gradients, less one share, and all over one device.
        megabits = 2 * (processes - 1) * 32 * numbers / (share * seconds) / 1e6
        if runtime.is_main:
            set_rate(megabits)
        dist.barrier(group=runtime.control)
        exchange()
        found.append(rounds() | {"megabits": megabits, "share": share})
    ready = profile(computed, views)
    if runtime.is_main:
        out.write_text(json.dumps([row | {"ready": ready, "numbers": numbers} for row in found]))


def profile(computed: nn.Module, views: Any) -> Profile:
    """When each bucket is ready, the median of several passes in which nothing is exchanged."""
    found: list[tuple[float, int]] = []

    def note(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        found.append((time.perf_counter(), bucket.buffer().numel()))
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    note.__annotations__.clear()  # which are texts here, and must be types or nothing
    assert isinstance(computed, DistributedDataParallel)
    computed.register_comm_hook(None, note)
    passes: list[Profile] = []
    for _ in range(ROUNDS):
        found.clear()
        loss = computed(views)["loss"]
        began = time.perf_counter()
        loss.backward()
        took, all_ = time.perf_counter() - began, sum(size for _, size in found)
        passes.append([((at - began) / took, size / all_) for at, size in found])
    return [(statistics.median(at for at, _ in bucket), bucket[0][1]) for bucket in zip(*passes, strict=True)]


def measure_all(cases: Sequence[str] = CASES) -> dict[tuple[int, str], list[dict[str, Any]]]:
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


def overlapped_step(forward: float, exchange: float, ready: Profile) -> float:
    """A step over what it computes: buckets travel one after the other, each from when it is ready.

    Args:
        forward: the forward pass, over what the step computes.
        exchange: the time of exchanging all gradients, over that.
        ready: of every bucket, see `Profile`.
    """
    end = 0.0
    for at, share in ready:
        end = max(end, forward + at * (1 - forward)) + share * exchange
    return max(1.0, end)


def exchange_hidden_to(efficiency: float, forward: float, ready: Profile) -> float:
    """The longest exchange, over what a step computes, with which so much of the time is spent computing."""
    low, high = 0.0, 1 / efficiency
    for _ in range(50):
        middle = (low + high) / 2
        fits = overlapped_step(forward, middle, ready) <= 1 / efficiency
        low, high = (middle, high) if fits else (low, middle)
    return low


def hidden(row: dict[str, Any]) -> float:
    """How much less is waited for than after the backward pass, over the shorter of exchange and backward."""
    gained: float = row["after"] - row["during"]
    return gained / min(row["exchange"], 1 - row["forward"])


def table(found: dict[tuple[int, str], list[dict[str, Any]]]) -> str:
    """The page's table."""
    lines = [
        "| processes | link | compute | forward | exchange | after | model | during | model "
        "| hidden | model |",
        "|" + "---:|" * 11,
    ]
    for (processes, _), rows in found.items():
        for row in rows:
            step = overlapped_step(row["forward"], row["exchange"], row["ready"])
            models = {"after": 1 + row["exchange"], "during": step}
            shares = [f"{100 * hidden(row | given):.0f} %" if row["share"] else "" for given in ({}, models)]
            link = f"{row['megabits']:,.0f} Mbit/s" if row["megabits"] else "loopback"
            lines.append(
                f"| {processes} | {link} | {row['seconds'] * 1e3:.0f} ms | {row['forward']:.2f} | "
                f"{row['exchange']:.2f} | {row['after']:.2f} | {models['after']:.2f} | {row['during']:.2f} | "
                f"{step:.2f} | {shares[0]} | {shares[1]} |"
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
