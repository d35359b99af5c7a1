"""Makes the golden folders beside it.  RUN ONCE, WITH VERSION 0.1.0 (commit b7c84ac); NEVER RUN IT WITH LATER CODE.

What lies here is what a user of 0.1.0 has on disk.  Later code must open it and give the figures in
expected.json; folders made again by later code would prove nothing.

    cd /tmp/golden && PYTHONPATH=/tmp/base/src XDG_CACHE_HOME=/tmp/golden-cache XDG_CONFIG_HOME=/tmp/golden-config \
        OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= PYTHONDONTWRITEBYTECODE=1 .../python make_golden.py

Everything runs with this folder as the working directory and with relative paths, so that a copy of the folder
can be used as a user would use it: change into it first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.chdir(HERE)
sys.dont_write_bytecode = True

import nibabel as nib
import numpy as np
import torch
from safetensors.torch import load_file

import parts2whole as p2w
from parts2whole.cli import main

assert metadata.version("parts2whole") == "0.1.0", "this made the fixtures of version 0.1.0, and is not run again"
assert not (HERE / "expected.json").exists(), "the fixtures are there; they are not made again"
torch.set_num_threads(1)

AFFINE = np.diag([-1.5, 1.2, 2.5, 1.0])
AFFINE[:3, 3] = (17.0, -12.0, 30.0)
EXACT = ["--hardware.accelerator", "cpu", "--hardware.precision", "32-true"]
QUIET = ["--progress", "false"]
NETWORK = ["--network", "PlainUNet3D", "--network.widths", "[4,8]"]
NETWORK += ["--network.strides", "[[1,1,1],[2,2,2]]"]
PRETRAIN = ["store", *NETWORK, "--method", "Parts2Whole", "--method.part_fraction", "[0.5,0.8]"]
PRETRAIN += ["--whole_size", "[16,16,16]", "--steps", "4", "--batch_size", "2", "--validation_wholes", "4"]
PRETRAIN += ["--validate_every", "2", "--panel_every", "4", "--embed_wholes", "4", "--checkpoint_every", "2"]
PRETRAIN += ["--validation_fraction", "0.3", *EXACT, *QUIET]
TASK = ["--task.patch_size", "[16,16,16]", "--task.validation_fraction", "0.25", "--task.test_fraction", "0.25"]
TASK += ["--task.preprocess.modality", "CT"]
FINETUNE = ["--seed", "1", "--steps", "40", "--batch_size", "2", "--validate_every", "10", *EXACT, *QUIET]

STUDY = """\
# Two arms, two seeds, all finished by version 0.1.0: run with --out out, nothing is left to do.
name: golden
data:
  stores:
    unlabelled: {scans: ../scans, modality: CT}
network: {PlainUNet3D: {widths: [4, 8], strides: [[1, 1, 1], [2, 2, 2]]}}
hardware: {accelerator: cpu, precision: 32-true}
arms:
  scratch: scratch
  Parts2Whole: {method: {Parts2Whole: {part_fraction: [0.5, 0.8], per_axis: false}}}
tasks:
  Ellipsoids:
    task:
      Segmentation:
        data: ../labelled
        patch_size: [16, 16, 16]
        preprocess: {modality: CT}
        validation_fraction: 0.25
        test_fraction: 0.25
cases: [3]
seeds: 2
pretrain:
  store: unlabelled
  held_out: task
  whole_size: [16, 16, 16]
  batch_size: 2
  steps: 4
  optimiser: {AdamW: {lr: 4e-3}}
  validation_wholes: 4
  validate_every: 2
  panel_every: 4
  embed_wholes: 0
finetune:
  steps: 10
  optimiser: {AdamW: {lr: 8e-3}}
  schedule: {Cosine: {warmup_fraction: 0.25}}
  batch_size: 2
  validate_every: 5
keep_models: false
"""


def write_scan(folder: Path, name: str, seed: int, *, labelled: bool) -> None:
    """A smooth ellipsoid or two in air: integers of HU that compress well."""
    generator = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.arange(n) for n in (20, 22, 18)], indexing="ij")
    body = ((x - 10) / 9) ** 2 + ((y - 11) / 10) ** 2 + ((z - 9) / 12) ** 2 < 1
    image = np.where(body, 40, -1000)
    centre, axes = generator.integers(7, 12, 3), generator.integers(3, 6, 3)
    organ = sum(((v - c) / a) ** 2 for v, c, a in zip((x, y, z), centre, axes, strict=True)) < 1
    image[organ & body] = 150 + 10 * int(generator.integers(0, 8))
    image = image + 5 * (x // 3) * body + 3 * (z // 2) * body
    for kind, array in (("images", image.astype(np.int16)), ("labels", (organ & body).astype(np.uint8))):
        if labelled or kind == "images":
            path = folder / kind / f"{name}.nii.gz" if labelled else folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), path)


def command(*arguments: str) -> str:
    """Run one command line in this process; returns what it printed."""
    print("parts2whole", *arguments, flush=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(list(arguments))
    print(said.getvalue(), flush=True)
    assert code == 0, code
    return said.getvalue()


def interrupt_at_step(step: int):
    """Send this process SIGTERM while it takes step number ``step``, as a queueing system would."""
    plain, count = torch.optim.AdamW.step, 0

    def counted(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *args, **kwargs)

    torch.optim.AdamW.step = counted
    return lambda: setattr(torch.optim.AdamW, "step", plain)


def make() -> dict[str, str]:
    said = {}
    for case in range(4):
        write_scan(HERE / "scans", f"scan_{case}", case, labelled=False)
    for case in range(8):
        write_scan(HERE / "labelled", f"case_{case}", 100 + case, labelled=True)
    command("prepare", "scans", "--out", "store", "--modality", "CT", "--workers", "0", *QUIET)
    command("pretrain", *PRETRAIN, "--out", "pretrain")
    restore = interrupt_at_step(2)
    try:
        print("interrupted, exit code", main(["pretrain", *PRETRAIN, "--out", "unfinished"]), flush=True)
    finally:
        restore()
    assert (HERE / "unfinished/checkpoints").exists() and not (HERE / "unfinished/result.json").exists()
    command("weights", "export", "pretrain", "--to", "safetensors", "--out", "weights")
    segment = ["--task", "Segmentation", "--data", "labelled", *TASK]
    command("finetune", *segment, "--init", "pretrain", *FINETUNE, "--out", "finetune")
    command("finetune", *segment, "--init", "scratch", *NETWORK, *FINETUNE, "--out", "finetune-scratch")
    said["compare"] = command("compare", "finetune", "finetune-scratch")
    said["evaluate"] = command("evaluate", "finetune", "--out", "/tmp/golden-evaluation", *EXACT, *QUIET)
    rows = ["path,label"]
    for case in range(8):
        rows.append(f"../labelled/images/case_{case}.nii.gz,{'odd' if case % 2 else 'even'}")
    (HERE / "classes").mkdir()
    (HERE / "classes/classes.csv").write_text("\n".join(rows) + "\n")
    classify = ["--task", "Classification", "--data", "classes/classes.csv", *TASK]
    command("finetune", *classify, "--init", "weights", *FINETUNE, "--out", "finetune-classes")
    (HERE / "study").mkdir()
    (HERE / "study/study.yaml").write_text(STUDY)
    said["benchmark"] = command("benchmark", "study/study.yaml", "--out", "study/out", "--workers", "0", *QUIET)
    return said


def digits(values: torch.Tensor | np.ndarray) -> dict[str, float]:
    array = np.asarray(values, dtype=np.float64)
    return {"sum": float(array.sum()), "square_sum": float((array**2).sum()), "shape": list(array.shape)}


def NETWORKS() -> dict:
    """Every network, small where it can be."""
    small = {"UNet3D": {"size": "tiny"}, "PlainUNet3D": {"widths": (4, 8), "strides": ((1, 1, 1), (2, 2, 2))}}
    names = ("UNet3D", "PlainUNet3D", "DenseVNet", "HighRes3DNet", "I3D", "ResNet3D")
    return {name: getattr(p2w, name)(**small.get(name, {})) for name in names}


def names_of(module: torch.nn.Module) -> dict:
    """Names and shapes of a module's tensors in order, as a hash, and the sum of squares of all."""
    state = module.state_dict()
    lines = [f"{key} {list(value.shape)}" for key, value in state.items()]
    squares = sum(float((value.double() ** 2).sum()) for value in state.values())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return {"count": len(lines), "sha256": digest, "first": lines[0], "last": lines[-1], "square_sum": squares}


def expected(said: dict[str, str]) -> dict:
    """The figures; this is the only part that looks inside the package."""
    from parts2whole.cli import FAMILIES
    from parts2whole.data.store import Store
    from parts2whole.networks.base import Network
    from parts2whole.study.resolve import read_study
    from parts2whole.verbs.benchmark import study_verbs

    found: dict = {
        "version": metadata.version("parts2whole"),
        "commit": "b7c84ac",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "note": "made with 1 thread, float32, CPU; all paths relative to the golden folder as working directory",
    }
    # 1. stores
    two = Path("/tmp/golden-two")
    for case in range(2):
        write_scan(two, f"case_{case}", 100 + case, labelled=True)
    kept = p2w.Segmentation(two).labelled(cache=Path("/tmp/golden-two-cache"), workers=0, progress=False)
    shutil.copytree(kept.store.path, HERE / "store-labelled")
    found["stores"] = {}
    for name in ("store", "store-labelled"):
        store = Store.open(name)
        cases = {}
        for record in store.cases:
            whole = store.read(record.case_id)
            box = store.read(record.case_id, (slice(2, 9), slice(3, 17), slice(1, 12)))
            cases[record.case_id] = {
                "content_hash": record.content_hash,
                "checksum": record.checksum,
                "patient": record.patient,
                "modality": record.modality,
                "shape": list(record.shape),
                "spacing_mm": list(record.spacing_mm),
                "read_sum": int(whole.astype(np.int64).sum()),
                "read_sha256": hashlib.sha256(np.ascontiguousarray(whole).tobytes()).hexdigest(),
                "box_sum": int(box.astype(np.int64).sum()),
            }
            if record.has_label:
                label = store.read_label(record.case_id)
                cases[record.case_id] |= {"label_sum": int(label.astype(np.int64).sum())}
        found["stores"][name] = {
            "fingerprint": store.fingerprint(),
            "dtype": store.dtype,
            "preprocess": store.preprocess.to_dict(),
            "cases": cases,
        }
    # 2. specs: plain form, YAML and digest of every member with its defaults, and of the ones used here
    found["specs"] = {}
    for family in ("Method", "Network", "Task", "WeightSource"):
        found["specs"][family] = {}
        import importlib

        from parts2whole.spec import discover

        base, package = FAMILIES[family]
        for name, kind in discover(getattr(importlib.import_module(base), family), package).items():
            spec = kind(data=Path("data")) if family == "Task" else kind()
            found["specs"][family][name] = {"dict": spec.to_dict(), "digest": spec.digest()}
    others = {
        "parts2whole.training.runtime": ("Hardware",),
        "parts2whole.data.preprocess": ("Preprocess",),
        "parts2whole.data.where": ("Body", "Lungs", "Labelled", "GenesisTissue"),
        "parts2whole.training.optim": ("AdamW", "SGD", "Cosine", "Plateau"),
        "parts2whole.tasks.augment": ("Augmentation",),
    }
    found["specs"]["other"] = {}
    for module, names in others.items():
        for name in names:
            kind = getattr(importlib.import_module(module), name, None)
            if kind is None:
                print("no", module, name)
                continue
            spec = kind()
            found["specs"]["other"][name] = {"dict": spec.to_dict(), "digest": spec.digest()}
    assert issubclass(p2w.PlainUNet3D, Network)
    # 3. encoders, on a fixed input
    found["encoders"] = {}
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16, 16)
    found["input"] = {"recipe": "torch.manual_seed(0); torch.rand(1, 1, 16, 16, 16)"} | digits(image)
    for name in ("pretrain", "weights"):
        with torch.no_grad():
            levels = p2w.load_encoder(name)(image)
        found["encoders"][name] = [digits(level) for level in levels]
    from parts2whole.training.model import load_model

    found["models"] = {}
    for name in ("finetune", "finetune-classes"):
        with torch.no_grad():
            found["models"][name] = digits(load_model(Path(name))[0](image))
    found["pretrain_tensors"] = {
        key: digits(value) for key, value in load_file("pretrain/weights/model.safetensors").items()
    }
    # Names of tensors in files of every network and method, and what a seed makes of them
    found["networks"], found["methods"] = {}, {}
    torch.manual_seed(0)
    larger = torch.rand(1, 1, 32, 32, 32)
    for name, network in NETWORKS().items():
        torch.manual_seed(0)
        encoder = network.build_encoder(1)
        keys = names_of(encoder)
        torch.manual_seed(0)
        own = network.build_own(1, 2)
        encoder.eval()
        with torch.no_grad():
            levels = [digits(level) for level in encoder(larger)]
        found["networks"][name] = {"spec": network.to_dict(), "encoder": keys, "levels": levels}
        found["networks"][name] |= {"own": names_of(own)} if own is not None else {}
    for name in found["specs"]["Method"]:
        torch.manual_seed(0)
        method = p2w.Exemplar(bank=4) if name == "Exemplar" else getattr(p2w, name)()
        module = method.build(p2w.UNet3D(size="tiny"), in_channels=1, whole_size=(16, 16, 16))
        found["methods"][name] = {"tensors": names_of(module)}
    # 4. runs
    found["runs"] = {}
    for name in ("pretrain", "finetune", "finetune-scratch", "finetune-classes"):
        result = json.loads((HERE / name / "result.json").read_text())
        drop = ("duration_s", "peak_memory_mb", "peak_gpu_memory_mb")
        found["runs"][name] = {key: value for key, value in result.items() if key not in drop}
    found["evaluate"] = {
        "metrics": json.loads(Path("/tmp/golden-evaluation/metrics.json").read_text()),
        "text": "".join(said["evaluate"].splitlines(keepends=True)[:-1]),
        "cases_csv": Path("/tmp/golden-evaluation/cases.csv").read_text(),
    }
    found["predict"] = {}
    out = Path("/tmp/golden-predictions")
    p2w.predict(
        "finetune",
        ["labelled/images"],
        out=out,
        hardware=__import__("parts2whole.training.runtime", fromlist=["Hardware"]).Hardware(
            accelerator="cpu", precision="32-true"
        ),
        progress=False,
    )
    for mask in sorted(out.glob("*.nii.gz")):
        array = np.asanyarray(nib.load(mask).dataobj)
        found["predict"][mask.name] = {
            "foreground": int((array > 0).sum()),
            "sha256": hashlib.sha256(np.ascontiguousarray(array.astype(np.int16)).tobytes()).hexdigest(),
        }
    # 5. tables
    found["compare"] = said["compare"]
    out = HERE / "study/out"
    found["study_finished"] = json.loads((out / "benchmark.json").read_text())
    study = read_study(HERE / "study/study.yaml", out=out, verbs=study_verbs())
    found["study"] = {
        "table": "Ellipsoids:" + said["benchmark"].partition("Ellipsoids:")[2].partition("\n4 cells are")[0],
        "table.md": (out / "table.md").read_text(),
        "table.csv": (out / "table.csv").read_text(),
        "cells": {cell.folder.name: cell.digest for cell in study.cells},
        "pretrainings": {one.folder.name: one.digest for one in study.pretrainings.values()},
        "stores": [store.folder.name for store in study.stores],
    }
    return found


def rounded(value):
    """Floats to ten significant digits."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def readable(figures: dict) -> str:
    """JSON with a line for every second-level entry."""
    parts = []
    for key, value in rounded(figures).items():
        if isinstance(value, dict):
            lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, default=str)}" for k, v in value.items())
            parts.append(f" {json.dumps(key)}: {{\n{lines}\n }}")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value, default=str)}")
    return "{\n" + ",\n".join(parts) + "\n}"


def trim() -> None:
    """Drop what can be made again from the rest, and what a user may have dropped: half a megabyte is the limit."""
    for lock in [*HERE.rglob(".*.lock"), *HERE.rglob(".locks")]:
        shutil.rmtree(lock) if lock.is_dir() else lock.unlink()
    for name in ("pretrain", "finetune", "finetune-scratch", "finetune-classes"):
        shutil.rmtree(name + "/checkpoints")  # of finished runs only
    shutil.rmtree("finetune-scratch/weights")
    for page in HERE.rglob("report.html"):
        page.unlink()
    for picture in HERE.rglob("*.png"):
        picture.unlink()
    for folder in [*HERE.glob("study/out/*/*/tensorboard"), *HERE.glob("study/out/pretraining/*/panels")]:
        shutil.rmtree(folder)
    (HERE / "pretrain/embedding/embedding.csv").unlink()
    for model in HERE.glob("study/out/pretraining/*/weights/model.safetensors"):
        model.unlink()
    for folder in sorted(HERE.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    said = make()
    figures = expected(said)
    trim()
    (HERE / "expected.json").write_text(readable(figures) + "\n")
    print("done")
