"""What a pre-training costs here, and what that means for many scans and many GPUs.

    python benchmarks/scaling.py --write docs/scaling.md

Measured: reading a whole, a step and its parts, the bytes of a scan in a store, of a manifest record, of a
checkpoint and of the gradients, and how much of an exchange the backward pass hides (`scaling_exchange.py`).
All else is arithmetic on these and on the assumptions given as options.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scaling_exchange
import torch
from scipy.ndimage import gaussian_filter

import parts2whole as p2w
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.volume import Volume
from parts2whole.store.chunks import CHUNK
from parts2whole.store.store import Store
from parts2whole.training.checkpoint import Progress, save_checkpoint
from parts2whole.wholes.random import BatchGenerator
from parts2whole.wholes.sampler import Wholes, WholeSampler, WholeSize

WHOLE = (32, 64, 64)
UNMEASURED = {"forward": 1 / 3, "ready": [(1.0, 1.0)]}
"""Where it can't be measured: backward takes twice as long as forward, gradients are ready at its end."""
MEASURED_CASES, SHAPE = 4, (96, 192, 192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="small")
    parser.add_argument("--batch", type=int, default=4, help="wholes a step, here")
    parser.add_argument("--scans", type=int, default=100_000)
    parser.add_argument("--scan-megavoxels", type=float, default=60.0, help="voxels of one scan, in millions")
    parser.add_argument("--devices", type=int, default=64)
    parser.add_argument("--per-node", type=int, default=8)
    parser.add_argument("--wholes-per-device", type=int, default=32, help="rows of the batch on one device")
    parser.add_argument("--device-speed", type=float, default=1000.0, help="wholes/s one device trains")
    parser.add_argument("--link-gbit", type=float, default=100.0, help="network of a node")
    parser.add_argument("--storage-gbyte", type=float, default=20.0, help="GB/s the storage gives to all")
    parser.add_argument("--request-ms", type=float, default=20.0, help="latency of one read of an object")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), given)
    found = scaling_exchange.measure_all() if scaling_exchange.can_slow_links() else {}
    first = next(iter(found.values()))[0] if found else UNMEASURED
    text = write_up(
        measured,
        model(measured, given, **{key: first[key] for key in UNMEASURED}),
        exchange_section(found),
        given,
    )
    print(text)
    if given.write:
        given.write.write_text(text)


def seconds_each(action: Callable[[int], object], *, at_least_s: float = 3.0) -> float:
    """Processor seconds, which don't count the time that other work has taken."""
    action(0)
    began, done = time.process_time(), 0
    while time.process_time() - began < at_least_s:
        done += 1
        action(done)
    return (time.process_time() - began) / done


def measure(work: Path, given: argparse.Namespace) -> dict[str, float]:
    store = Store.create(work / "store", preprocess=Preprocess(modality="unit"))
    for case in range(MEASURED_CASES):
        generator = np.random.default_rng(case)
        smooth = gaussian_filter(generator.normal(size=SHAPE).astype(np.float32), 3)
        noisy = smooth / smooth.std() * 4000 + generator.normal(size=SHAPE) * 200 + 12000
        voxels = np.clip(noisy, 0, 32767).astype(np.int16)
        store.write_volume(f"c{case}", Volume(voxels, (1.0, 1.0, 1.0)), patient=f"p{case}")
    store.finish()
    voxels = MEASURED_CASES * float(np.prod(SHAPE))
    stored = sum(path.stat().st_size for path in (work / "store" / "cases").rglob("*") if path.is_file())
    files = sum(path.is_file() for path in (work / "store").rglob("*")) / MEASURED_CASES
    manifest = (work / "store" / "manifest.json").stat().st_size / MEASURED_CASES

    wholes = Wholes(WholeSampler(store, size=WholeSize(WHOLE)), given.batch)
    method = p2w.Parts2Whole()
    torch.manual_seed(0)
    module = method.build(p2w.UNet3D(size=given.size), in_channels=1, whole_size=WHOLE)
    module = module.to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(module.parameters())
    batch = torch.stack([wholes[i] for i in range(given.batch)])
    views = method.views(batch, BatchGenerator.of_step(0, rows=given.batch))

    def compute(number: int) -> None:
        optimiser.zero_grad()
        method.loss(module, views)["loss"].backward()
        optimiser.step()

    def cut(number: int) -> None:
        method.views(batch, BatchGenerator.of_step(0, number, rows=given.batch))

    measured = {
        "bytes a voxel in the store": stored / voxels,
        "files a scan": files,
        "bytes of a manifest record": manifest,
        "read_s": seconds_each(lambda n: wholes[n]),
        "views_s": seconds_each(cut) / given.batch,
        "compute_s": seconds_each(compute) / given.batch,
    }
    parameters = sum(p.numel() for p in module.parameters())
    began = time.monotonic()
    path = save_checkpoint(work, module=module, optimiser=optimiser, progress=Progress(step=1))
    measured |= {
        "parameters": parameters,
        "gradient_bytes": 4 * parameters,
        "checkpoint_bytes": path.stat().st_size,
        "checkpoint_s": time.monotonic() - began,
    }
    # Chunks are read whole: a whole touches more voxels than it holds.
    measured["read_voxels"] = float(
        np.prod([edge + chunk - 1 for edge, chunk in zip(WHOLE, CHUNK, strict=True)])
    )
    return measured


def model(
    measured: dict[str, float], given: argparse.Namespace, *, forward: float, ready: scaling_exchange.Profile
) -> dict[str, float]:
    """Arithmetic on what was measured and what is assumed; for the last two see `overlapped_step`."""
    for_80 = scaling_exchange.exchange_hidden_to(0.8, forward, ready)
    wholes_s = given.devices * given.device_speed
    bytes_a_whole = measured["read_voxels"] * measured["bytes a voxel in the store"]
    nodes = -(-given.devices // given.per_node)
    step_s = given.wholes_per_device / given.device_speed
    # A ring sends and receives twice the gradients, less one share, over each node's link.
    exchange_s = 2 * (nodes - 1) / nodes * measured["gradient_bytes"] * 8 / (given.link_gbit * 1e9)
    return {
        "store_tb": given.scans * given.scan_megavoxels * 1e6 * measured["bytes a voxel in the store"] / 1e12,
        "files": given.scans * measured["files a scan"],
        "manifest_mb": given.scans * measured["bytes of a manifest record"] / 1e6,
        "wholes_s": wholes_s,
        "kb_a_whole": bytes_a_whole / 1e3,
        "read_gbyte_s": wholes_s * bytes_a_whole / 1e9,
        "read_gbit_node": given.device_speed * given.per_node * bytes_a_whole * 8 / 1e9,
        "cores_a_device": given.device_speed * measured["read_s"],
        "requests_a_device": given.device_speed * given.request_ms / 1e3,
        "batch": given.wholes_per_device * given.devices,
        "step_ms": step_s * 1e3,
        "exchange_ms": exchange_s * 1e3,
        "efficiency": 1 / scaling_exchange.overlapped_step(forward, exchange_s / step_s, ready),
        "devices_storage": given.storage_gbyte * 1e9 / (given.device_speed * bytes_a_whole),
        "rows_80": exchange_s * given.device_speed / for_80,
        "epoch_s": given.scans / wholes_s,
    }


def exchange_section(found: dict[tuple[int, str], list[dict[str, Any]]]) -> str:
    """What several processes lose to the exchange, measured, beside the model."""
    if not found:
        return "Not measured: this machine has no network namespaces whose link could be slowed.\n\n"
    first = next(iter(found.values()))[0]
    buckets = "\n".join(
        f"| {number} | {100 * at:.0f} % | {100 * share:.0f} % |"
        for number, (at, share) in enumerate(first["ready"], 1)
    )
    return f"""Processes of one thread on {os.cpu_count()} cores with a load of {os.getloadavg()[2]:.0f},
UNet3D `{scaling_exchange.SIZE}` with {4 * first["numbers"] / 1e6:.0f} MB of gradients, one whole of
{scaling_exchange.WHOLE} voxels each, on one loopback device that `tc` slows: the rates are those at which an
exchange should take {scaling_exchange.SHARES} times what a step computes. Medians of
{scaling_exchange.ROUNDS} rounds, each over what a step of that round computes without any exchange, on as
many processes, which share the cores. *After* has one bucket larger than all gradients, so that nothing
travels before the backward pass is over; *during* is DistributedDataParallel as the project uses it.
*Hidden* is how much less is waited for, over the shorter of exchange and backward pass.

{scaling_exchange.table(found)}

What can be hidden is what is computed after a bucket is ready. Of {len(first["ready"])} buckets, on the first
number of processes:

| bucket | ready after this much of the backward pass | gradients in it |
|---:|---:|---:|
{buckets}

The backward pass begins with the fine levels of the decoder, which compute much and have few weights; most
gradients are those of the coarse levels, in its middle, and the last bucket is ready only at its end. The
models are: after, the sum of both; during, buckets that travel one after the other, each from when it is
ready. Work of others on the cores, and more processes than cores, whose exchange takes time from what they
compute, are in the measurements and not in the models.

"""


def write_up(m: dict[str, float], o: dict[str, float], exchange: str, given: argparse.Namespace) -> str:
    options = f"--size {given.size} --batch {given.batch} --scans {given.scans} --devices {given.devices}"
    step_s = given.batch * (m["read_s"] + m["views_s"] + m["compute_s"])
    stamp = f"{datetime.now(UTC):%Y-%m-%d}, one thread of {os.cpu_count()} cores, {platform.machine()}"
    checkpoint = f"{m['checkpoint_bytes'] / 1e6:.1f} MB; {m['checkpoint_s']:.2f} s"
    work = f"{given.wholes_per_device} to a step, {given.per_node} devices a node"
    per_byte = m["read_s"] / (m["read_voxels"] * m["bytes a voxel in the store"])
    return f"""# Scaling: what it costs here, and what that means for more

Written by `python benchmarks/scaling.py --write docs/scaling.md`
({options}; {stamp}).
Times are processor seconds, as other work was on the machine; the checkpoint's and the exchange's are by the
clock. Nothing on this page was measured on a GPU or on object storage.

## Measured here

UNet3D `{given.size}` without skip connections, {m["parameters"]:,.0f} parameters; wholes of {WHOLE} voxels
cut from synthetic scans of {SHAPE} voxels, int16.

| what | cost |
|---|---:|
| read one whole from the store, files in the system's cache | {m["read_s"] * 1e3:.2f} ms |
| the same, per byte read | {per_byte * 1e9:.2f} ns |
| cut its part | {m["views_s"] * 1e3:.2f} ms |
| forward, backward and optimiser, per whole | {m["compute_s"] * 1e3:.1f} ms |
| one step of {given.batch} wholes | {step_s * 1e3:.0f} ms |
| store, per voxel (compression depends on the scans) | {m["bytes a voxel in the store"]:.2f} bytes |
| files per scan | {m["files a scan"]:.0f} |
| manifest, per scan | {m["bytes of a manifest record"]:.0f} bytes |
| checkpoint: size; time to write it, down to the disk | {checkpoint} |
| gradients exchanged at every step | {m["gradient_bytes"] / 1e6:.1f} MB |

## The exchange of gradients

{exchange}## The model for {given.scans:,} scans on {given.devices} devices

Assumed, each an option of the command: scans of {given.scan_megavoxels:g} million voxels;
a device that trains {given.device_speed:g} wholes/s, {work}, with a link of
{given.link_gbit:g} Gbit/s; storage that gives {given.storage_gbyte:g} GB/s to all, at {given.request_ms:g} ms
a request. The device's speed is the assumption that matters most: measure yours with
`benchmarks/gpu.py`, and put it in.

| what | model |
|---|---:|
| store | {o["store_tb"]:.1f} TB in {o["files"]:,.0f} files |
| manifest, read once by every process | {o["manifest_mb"]:.0f} MB |
| wholes trained, all devices | {o["wholes_s"]:,.0f}/s |
| bytes read for a whole, its chunks included | {o["kb_a_whole"]:.0f} kB |
| bandwidth from the storage, all nodes | {o["read_gbyte_s"]:.1f} GB/s |
| of it into one node | {o["read_gbit_node"]:.1f} Gbit/s |
| cores that read and decode, per device | {o["cores_a_device"]:.1f} |
| requests under way, per device | {o["requests_a_device"]:.0f} |
| global batch | {o["batch"]:,} wholes |
| step; exchange of gradients, while it goes back | {o["step_ms"]:.0f} ms; {o["exchange_ms"]:.1f} ms |
| share of the time spent computing, with buckets ready as measured above | {100 * o["efficiency"]:.0f} % |
| one whole of every scan | {o["epoch_s"]:.1f} s |

Where it stops scaling:

- **Storage**: at {o["devices_storage"]:,.0f} devices the reads fill the assumed {given.storage_gbyte:g} GB/s.
  Beyond, copy the store to the nodes' own disks.
- **Exchange**: gradients travel from when their bucket is ready, as measured above. With fewer than
  {o["rows_80"]:.1f} wholes on a device less than 80 % of the time is spent computing.
- **Reading**: when a device needs more cores than its share of the node, it waits for them. That happens
  above {given.device_speed / max(o["cores_a_device"], 1e-9):,.0f} wholes/s for every core a device has.
- **The manifest** is held by every process and every loader process: {o["manifest_mb"]:.0f} MB of text here,
  several times that in memory. It, and not the scans, sets the number of scans a store can have.
- **The batch** grows with the devices; whether training still gains from {o["batch"]:,} wholes is not a
  question of machines, and has not been tried here.
"""


if __name__ == "__main__":
    main()
