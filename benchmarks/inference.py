"""Speed of whole-volume inference, beside others' with the same network, and what it costs in Dice.

    python benchmarks/inference.py [--rounds 3] [--run RUN --cases 8] [--write docs/inference.md]

Volumes are random and the network is fresh, which changes no time; ``--run`` is the folder of a fine-tuned
segmentation, whose test cases are then scored with both kinds of windows.  Processor time of one thread
counts, in turn, so that others who use the machine change little.  MONAI's inferer, which ours calls, is
beside it, nnU-Net's where `nnunetv2` is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from machine import describe_machine
from monai.inferers.inferer import SlidingWindowInferer
from sampling import installed
from torch import Tensor, nn

import parts2whole as p2w
from parts2whole.networks.heads import EncoderDecoder
from parts2whole.run_folder import SPLIT
from parts2whole.store.split import read_split
from parts2whole.tasks.base import default_cache
from parts2whole.tasks.segmenting import SegmentationTask
from parts2whole.tasks.windows import OVERLAP, Windows
from parts2whole.training.model import as_function, load_model
from parts2whole.training.runtime import Hardware, Runtime

PATCH = (16, 32, 32)
SHAPE = (72, 144, 144)
CLASSES = 4
HALF, DEFAULT = "patches that overlap by half", "windows of `predict` and `finetune`"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="folder of a finished fine-tuning")
    parser.add_argument("--cases", type=int, default=8, help="test cases of the run")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where its data were prepared")
    parser.add_argument("--write", type=Path, help="also write the tables to this Markdown file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [describe_machine(), "", *speed_table(arguments.rounds)]
    if arguments.run:
        lines += ["", *dice_table(arguments.run, arguments.cases, arguments.cache)]
    print("\n".join(lines))
    if arguments.write:
        command = f"python {' '.join(sys.argv)}"
        arguments.write.write_text(f"# Inference\n\nWritten by `{command}`.\n\n" + "\n".join(lines) + "\n")


def measure(rounds: int, names: Sequence[str] = ()) -> dict[str, list[float]]:
    """Seconds of every variant, or of those named, round by round."""
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    encoder = p2w.UNet3D(size="tiny").build_encoder(1)
    module = runtime.place_module(EncoderDecoder(encoder, out_channels=CLASSES, skips=True).eval())
    predictor = as_function(module, runtime)
    image = torch.rand(1, 1, *SHAPE)
    variants: dict[str, Callable[[], Tensor]] = {}
    for name, overlap in ((HALF, 0.5), (DEFAULT, OVERLAP)):
        windows = Windows(PATCH, None, None, overlap)
        inferer = SlidingWindowInferer(PATCH, overlap=overlap, mode="gaussian", sw_batch_size=4)
        variants[f"{name}, MONAI"] = partial(inferer, image, predictor)
        if installed("nnunetv2"):
            variants[f"{name}, nnU-Net"] = partial(nnunet(predictor, overlap), image[0])
        variants[name] = partial(windows.logits, predictor, image)
    variants = {name: run for name, run in variants.items() if not names or name in names}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _, (name, run) in itertools.product(range(rounds), variants.items()):
        began = time.process_time()
        run()
        seconds[name].append(time.process_time() - began)
    return seconds


def nnunet(predictor: Callable[[Tensor], Tensor], overlap: float) -> Callable[[Tensor], Tensor]:
    """nnU-Net's own sliding window, without its mirroring, which would take eight times as long."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with contextlib.redirect_stdout(io.StringIO()):
        its = nnUNetPredictor(1 - overlap, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    its.network = _Network(predictor)
    its.configuration_manager = SimpleNamespace(patch_size=PATCH)
    its.label_manager = SimpleNamespace(num_segmentation_heads=CLASSES)
    run: Callable[[Tensor], Tensor] = its.predict_sliding_window_return_logits
    return run


class _Network(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster, median of rounds."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def speed_table(rounds: int) -> list[str]:
    seconds = measure(rounds)
    lines = [
        f"A volume of {SHAPE} voxels, UNet3D tiny with batch norm, patch {PATCH}, one thread, "
        f"{rounds} rounds in turn.",
        "",
        f"| variant | s of processor time, median | {HALF} / this |",
        "|---|---|---|",
    ]
    for name, found in seconds.items():
        faster = ratio(seconds[HALF], found)
        lines.append(f"| {name} | {statistics.median(found):.2f} | {faster:.2f} |")
    return lines


def dice_table(run: Path, cases: int, cache: Path) -> list[str]:
    """Mean Dice and time of a run's test cases, with both kinds of windows."""
    module, card = load_model(run)
    task = card.task
    assert isinstance(task, SegmentationTask), f"{run} is no segmentation"
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    predictor = as_function(runtime.place_module(module), runtime)
    labelled = task.labelled(cache=cache, progress=False)
    items = read_split(run / SPLIT).test[:cases]
    lines = [
        f"{len(items)} test cases of a fine-tuning of {type(card.network).__name__}, norm "
        f"{module.encoder.norm}, {len(card.classes) - 1} classes, patch {task.patch_size}.",
        "",
        "| windows | mean Dice | s a case |",
        "|---|---|---|",
    ]
    patch = task.patch_size
    for name, chosen in (
        (HALF, task.replace(window_size=patch, overlap=0.5)),
        ("patches that overlap by a quarter", task.replace(window_size=patch, overlap=0.25)),
        (DEFAULT, task.replace(window_size=None, overlap=None)),
        ("twice the patch, by an eighth", task.replace(window_size=tuple(2 * edge for edge in patch))),
    ):
        began = time.process_time()
        found = chosen.examine(predictor, labelled, items, thorough=False).metrics["dice_mean"]
        lines.append(f"| {name} | {found:.4f} | {(time.process_time() - began) / len(items):.2f} |")
    return lines


if __name__ == "__main__":
    main()
