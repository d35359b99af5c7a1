"""Start from weights that somebody else published: read the file, see what became of every tensor, fine-tune.

    python examples/published_weights.py out/ --weights resnet_10.pth    # of MedicalNet
    python examples/published_weights.py out/                            # of a stand-in with random values

Nothing is ever downloaded.  `docs/weights.md` says where their files are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import parts2whole as p2w


def write_stand_in(path: Path) -> Path:
    """A file in the form of MedicalNet's, names that start with ``module.`` in a dict, of random values."""
    state = p2w.ResNet3D(depth=10).build_encoder(1).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


def main(out: Path, *, weights: Path | None = None, steps: int = 20) -> None:
    init = f"medicalnet:{weights or write_stand_in(out / 'resnet_10.pth')}"

    # A file is brought into a folder once, with a card: what it is, its licence, and the input it expects.
    imported = p2w.import_weights(init, out=out / "weights")
    print(imported.summary())

    # The encoder takes voxels in [0, 1] like any other, and scales them as its authors did.
    encoder = p2w.load_encoder(out / "weights")
    with torch.no_grad():
        print([tuple(level.shape) for level in encoder(torch.rand(1, 1, 16, 32, 32))])

    # `init` takes the folder, or SOURCE:PATH itself.
    task = p2w.Segmentation.example(out / "labelled")
    run = p2w.finetune(task, init=out / "weights", out=out / "run", steps=steps, batch_size=2)
    print("Dice on test cases:", run.test["dice_mean"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    main(given.out, weights=given.weights, steps=given.steps)
