"""Feeds broken files to everything that reads files from others, for a bounded time.

    python benchmarks/fuzz.py --seconds 20 --write

Each target is a small sound file and a function that reads it.  Bytes are flipped, cut, repeated and
replaced; text and numbers that parsers trip over are put in.  The only right outcomes are success and the
error that the function documents.  Anything else, death by a signal and asking for much memory included, is
kept in ``--crashes`` for a regression test.  Inputs run in forked processes with a limit on memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK
import torch
from findings import Finding, keep, show

from parts2whole.methods.base import Method, MethodError
from parts2whole.networks.unet3d import UNet3D
from parts2whole.report.runs import read_run
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import ReadError, find_scans, read_scan, read_volume
from parts2whole.scans.volume import Box, Volume, VolumeError
from parts2whole.spec import SpecError, spec_from_yaml
from parts2whole.store.store import Store, StoreError
from parts2whole.training.checkpoint import CheckpointError, load_checkpoint
from parts2whole.weights.card import Card, CardError
from parts2whole.weights.native import WeightsError, load_native, save_encoder
from parts2whole.wholes.geometry import GeometryError

INPUTS_A_FORK = 200
MEMORY = 3 << 30
SECONDS_AN_INPUT = 10
WORDS = [
    b"-1", b"0", b"NaN", b"Infinity", b"1e999", b"99999999999999999999", b"null", b"[]", b"{}", b'""',
    b"true", b"../../etc/passwd", b"/etc/passwd", b"\x00", b"\xff\xff\xff\xff", b"\xff\x7f",
    b"\x00\x00\xc0\x7f", b"!!python/object/apply:os.system", b"&a [*a]", "Ä\u202e\ud7ff".encode(),
    b"[" * 3000, b"\n", b"%s%n",
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What to read, how, and the errors that are right for a broken file."""

    name: str
    suffix: str
    sound: bytes
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="for each target")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", type=Path, default=Path("crashes"))
    parser.add_argument("--write", action="store_true", help="enter the findings into docs/reliability.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        targets = [t for t in make_targets(Path(folder)) if not given.only or t.name in given.only]
        found = []
        for target in targets:
            found.append(fuzz(target, Path(folder), given))
            show(found[-1:])
    if given.write:
        command = f"python benchmarks/fuzz.py --seconds {given.seconds:g} --write"
        keep("fuzz", command, found)


def make_targets(work: Path) -> list[Target]:
    array = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
    nifti = nibabel.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]))
    nibabel.save(nifti, work / "a.nii")
    nibabel.save(nifti, work / "a.nii.gz")
    nibabel.save(nibabel.MGHImage(array, np.eye(4)), work / "a.mgz")
    image = SimpleITK.GetImageFromArray(array)
    for suffix in ("mha", "nrrd"):
        SimpleITK.WriteImage(image, str(work / f"a.{suffix}"))
    store = Store.create(work / "store", preprocess=Preprocess(modality="unit"))
    store.write_volume("case", Volume(array, (1.0, 1.0, 1.0)), patient="p")
    store.finish()
    network = UNet3D(size="tiny")
    method = {"class_path": "parts2whole.methods.parts2whole.Parts2Whole", "init_args": {"skips": False}}
    card = Card(
        network=network, in_channels=1, preprocess=Preprocess(), whole_size=(8, 8, 8), whole_mm=None,
        spacing_mm=(1.0, 1.0, 1.0), method=method, steps=1, seen=("a",), fingerprint="b",
    )  # fmt: skip
    save_encoder(work / "weights", network.build_encoder(1), card)
    module = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    state = {"module": module.state_dict(), "optimiser": optimiser.state_dict(), "progress": {"step": 3}}
    torch.save(state, work / "a.ckpt")
    log = b'{"step": 1, "time_s": 1.0, "split": "train", "loss": 0.5}\n' * 3

    def read_store(path: Path) -> object:
        folder = path.with_name("store")
        path.replace(folder / "manifest.json")
        opened = Store.open(folder)
        return [opened.read(record.case_id, Box((0, 0, 0), (2, 2, 2))) for record in opened.cases[:2]]

    def read_series(path: Path) -> object:
        return [read_scan(source) for source in find_scans([path]) if source.problem is None]

    def read_checkpoint(path: Path) -> object:
        import hashlib

        folder = path.with_name("run") / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        path.replace(folder / "step-00000003.ckpt")
        (folder / "step-00000003.sha256").write_text(hashlib.sha256(content).hexdigest())
        return load_checkpoint(folder.parent, module=torch.nn.Linear(2, 2), optimiser=optimiser)

    def read_weights(path: Path) -> object:
        path.replace(work / "weights" / "encoder.safetensors")
        return load_native(work / "weights")

    def read_card(path: Path) -> object:
        path.replace(path.with_name("card.json"))
        return Card.read(path.parent)

    def read_log(path: Path) -> object:
        run = path.with_name("log")
        run.mkdir(exist_ok=True)
        path.replace(run / "metrics.jsonl")
        (run / "config.yaml").write_text("method: x\n")
        return read_run(run)

    def read_config(path: Path) -> object:
        run = path.with_name("log")
        run.mkdir(exist_ok=True)
        path.replace(run / "config.yaml")
        (run / "metrics.jsonl").write_bytes(log)
        return read_run(run)

    readers = (ReadError, VolumeError)
    targets = [
        Target(suffix, f".{suffix}", (work / f"a.{suffix}").read_bytes(), read_volume, readers)
        for suffix in ("nii", "nii.gz", "mgz", "mha", "nrrd")
    ]
    yaml = method_text(method)
    return [
        *targets,
        Target("dicom", ".dcm", make_dicom(work, array), read_series, readers),
        Target("multi-frame dicom", ".dcm", make_frames(work, array), read_series, readers),
        Target(
            "manifest", ".json", (work / "store" / "manifest.json").read_bytes(), read_store, (StoreError,)
        ),
        Target("card", ".json", (work / "weights" / "card.json").read_bytes(), read_card, (CardError,)),
        Target(
            "weights",
            ".st",
            (work / "weights" / "encoder.safetensors").read_bytes()[:20000],
            read_weights,
            (WeightsError,),
        ),
        Target("checkpoint", ".ckpt", (work / "a.ckpt").read_bytes(), read_checkpoint, (CheckpointError,)),
        Target(
            "method as YAML",
            ".yaml",
            yaml,
            lambda path: spec_from_yaml(path.read_text(), Method),
            (SpecError, MethodError, GeometryError, UnicodeDecodeError),
        ),
        Target("config of a run", ".yaml", yaml, read_config, ()),
        Target("log of a run", ".jsonl", log, read_log, ()),
    ]


def method_text(method: dict) -> bytes:
    fields = {"part_fraction": [0.4, 0.7], "per_axis": True, "parts_per_whole": 2, "skips": False}
    return json.dumps(method | {"init_args": fields}, indent=1).encode()


def make_dicom(work: Path, array: np.ndarray) -> bytes:
    """One multi-row CT slice; a single file is enough to reach every line that parses a header."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", "<script>", generate_uid()
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 7, 8, 16, 16, 15
    data.PixelRepresentation, data.SamplesPerPixel = 1, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [1, 1], 1, 0
    data.PixelData = array[0].tobytes()
    pydicom.dcmwrite(work / "a.dcm", data, enforce_file_format=True)
    return (work / "a.dcm").read_bytes()


def make_frames(work: Path, array: np.ndarray) -> bytes:
    """A volume in one file, with functional groups for every frame."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.astype(np.uint16)), str(work / "frames.dcm"))
    return (work / "frames.dcm").read_bytes()


def fuzz(target: Target, work: Path, given: argparse.Namespace) -> Finding:
    """Feed a target for a while; counts what came of it."""
    end, counts, crashes, number = time.monotonic() + given.seconds, {"read": 0, "refused": 0}, [], 0
    while time.monotonic() < end:
        number = run_batch(target, work, given.seed, number, end, counts, crashes)
    return judge(target, counts, crashes, given)


def judge(target: Target, counts: dict, crashes: list, given: argparse.Namespace) -> Finding:
    for place, (reason, content) in enumerate(crashes[:20]):
        given.crashes.mkdir(exist_ok=True)
        (given.crashes / f"{target.name.replace(' ', '-')}-{place}{target.suffix}").write_bytes(content)
        print(f"  {target.name} {place}: {reason}", flush=True)
    outcome = (
        f"{counts['refused']:,} refused with the documented error, {counts['read']:,} read, or passed over "
    )
    outcome += "with a note, "
    return Finding(
        f"broken {target.name} files",
        sum(counts.values()) + len(crashes),
        outcome + f"{len(crashes)} other outcomes",
        not crashes,
    )


def run_batch(
    target: Target, work: Path, seed: int, first: int, end: float, counts: dict, crashes: list
) -> int:
    """A forked process reads some inputs; the parent learns what it died of, and at which input."""
    report = work / "report.jsonl"
    report.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)
        with report.open("w", buffering=1) as file:
            for number in range(first, first + INPUTS_A_FORK):
                if time.monotonic() > end:
                    break
                file.write(f"{number} ")
                file.flush()  # it may be the last thing this process does
                signal.alarm(SECONDS_AN_INPUT)
                file.write(outcome(target, work, mutate(target.sound, seed, number)) + "\n")
                signal.alarm(0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    last = first
    for line in report.read_text().splitlines():
        number, _, result = line.partition(" ")
        last = int(number) + 1
        if result in counts:
            counts[result] += 1
        else:
            reason = result or f"died of signal {os.WTERMSIG(status)}"
            crashes.append((reason, mutate(target.sound, seed, int(number))))
    return last


def outcome(target: Target, work: Path, content: bytes) -> str:
    path = work / f"input{target.suffix}"
    path.write_bytes(content)
    try:
        with contextlib.redirect_stdout(None):
            target.read(path)
    except target.errors:
        return "refused"
    except BaseException as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return "read"


def mutate(sound: bytes, seed: int, number: int) -> bytes:
    """Between one and six changes, most of them where headers are; a function of seed and number."""
    luck = random.Random(seed * 1_000_003 + number)
    content = bytearray(sound)
    for _ in range(luck.randint(1, 6)):
        reach = len(content) if luck.random() < 0.4 else min(len(content), 400)
        place = luck.randrange(reach + 1)
        kind = luck.randrange(6)
        if kind == 0 and content:
            content[min(place, len(content) - 1)] ^= 1 << luck.randrange(8)
        elif kind == 1:
            del content[place : place + luck.choice((1, 2, 4, 40, 10**9))]
        elif kind == 2:
            content[place:place] = luck.choice(WORDS)
        elif kind == 3:
            word = luck.choice(WORDS)
            content[place : place + len(word)] = word
        elif kind == 4:
            content[place:place] = content[place : place + luck.randint(1, 60)]
        else:
            size = luck.choice((1, 2, 4, 8))
            content[place : place + size] = luck.randbytes(size)
    return bytes(content)


if __name__ == "__main__":
    main()
