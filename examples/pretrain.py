"""Pre-train an encoder on unlabelled scans, look at its features, and ask whether it helps with few labels.

python examples/pretrain.py out/                                 # on synthetic CT, in a minute
python examples/pretrain.py out/ --scans scans/ --steps 5000     # on your own
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import parts2whole as p2w
from parts2whole.phantom.example import write_pairs


def main(out: Path, *, scans: Path | None = None, steps: int = 100) -> None:
    scans = scans or write_pairs(out / "scans", patients=12) / "images"
    task = p2w.Segmentation.example(out / "labelled")  # of the first five of these patients

    # Any mix of NIfTI, DICOM, MetaImage and NRRD, to one orientation and [0, 1].
    store = p2w.prepare(scans, out=out / "store", modality="CT")

    # A random part of a whole must be enough to rebuild the whole.  What the task is tested on is left out.
    pretrained = p2w.pretrain(
        store.path,
        out=out / "pretrained",
        method=p2w.Parts2Whole(),
        network=p2w.UNet3D(size="tiny"),
        whole_size=(16, 16, 16),
        steps=steps,
        held_out=task,
    )
    print("reconstructions:", pretrained.folder / "report.html")

    # What comes out is a torch module: a volume in, a pyramid of features out, finest first.
    encoder = p2w.load_encoder(pretrained.folder)
    with torch.no_grad():
        for level in encoder(torch.rand(1, 1, 32, 32, 32)):
            print("features of", tuple(level.shape))

    # Same labels, same seed, same network; only the start differs.
    for name, init in (("scratch", "scratch"), ("pretrained", pretrained.folder)):
        network = p2w.UNet3D(size="tiny") if init == "scratch" else None
        p2w.finetune(task, init=init, network=network, cases=1, steps=steps // 2, out=out / "runs" / name)
    print(p2w.compare([out / "runs"]).summary())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    main(given.out, scans=given.scans, steps=given.steps)
