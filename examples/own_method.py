"""A pretext task of one's own, tried by the suite that every method passes, then trained: which way up is it?

    python examples/own_method.py out/
    parts2whole check-method examples/own_method.py:WhichWayUp
    parts2whole pretrain store/ --out runs/up --method examples/own_method.py:WhichWayUp

Spyros Gidaris, Praveer Singh, Nikos Komodakis: "Unsupervised Representation Learning by Predicting Image
Rotations", ICLR 2018, https://arxiv.org/abs/1803.07728, has the idea in two dimensions.

    loss = cross-entropy of the class (0 to 3) of the quarter turns in the axial plane
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import parts2whole as p2w
from parts2whole.contracts import MethodContract, keep
from parts2whole.methods.base import Discrimination, Views
from parts2whole.networks.base import Network
from parts2whole.networks.heads import Model, PooledClassifier
from parts2whole.phantom.example import write_pairs
from parts2whole.scans.volume import Size
from parts2whole.wholes.random import BatchGenerator


@dataclasses.dataclass(frozen=True)
class WhichWayUp(Discrimination):
    """Tell by how many quarter turns a whole was turned; its height and width must be equal."""

    citation: ClassVar[str] = "Gidaris, Singh, Komodakis. ICLR 2018, arXiv:1803.07728"
    rows_are_independent: ClassVar[bool] = True

    def build(self, network: Network, *, in_channels: int, whole_size: Size) -> Model:
        return PooledClassifier(network.build_encoder(in_channels), classes=4, hidden=32)

    def views(self, wholes: Tensor, generator: BatchGenerator) -> Views:
        turns = (4 * generator.uniform(1)[:, 0]).long()  # every random number comes from the generator
        turned = [whole.rot90(int(k), (2, 3)) for whole, k in zip(wholes, turns, strict=True)]
        return {"image": torch.stack(turned), "turns": turns}

    def loss(self, module: nn.Module, views: Views) -> dict[str, Tensor]:
        logits = module(views["image"])
        accuracy = (logits.argmax(dim=1) == views["turns"]).float().mean()
        return {"loss": F.cross_entropy(logits, views["turns"]), "accuracy": accuracy}

    def candidates(self, wholes: int) -> int:
        return 4


class TestWhichWayUp(MethodContract):  # in a file of tests, pytest finds this and runs it
    member = WhichWayUp


def main(out: Path, *, steps: int = 100) -> None:
    for outcome in keep(TestWhichWayUp):
        print(f"{outcome.fate:<9} {outcome.promise} {outcome.why}")
    store = p2w.prepare(write_pairs(out / "scans") / "images", out=out / "store", modality="CT")
    size = {"network": p2w.UNet3D(size="tiny"), "whole_size": (16, 16, 16)}
    run = p2w.pretrain(store.path, out=out / "run", method=WhichWayUp(), steps=steps, **size)
    print(f"loss {run.result['validation_loss']:.3f}, guessing costs 1.386; see {run.folder / 'report.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
