"""Stand-in files of every source, made once, and the recorded outputs of the official networks where they are."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from .reference import stand_in

FILES = {
    "medicalnet": "resnet_{depth}.pth",
    "models_genesis": "Genesis_Chest_CT.pt",
    "i3d": "rgb_imagenet.pt",
    "niftynet": "model.npz",
}


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A file as its source would publish it, an input and the answers, in the source's axes."""

    source: str
    path: Path
    x: np.ndarray
    answers: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"{self.source}:{self.path}"


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """A function from a model of `reference` to its stand-in."""

    @functools.cache
    def make(model: str) -> StandIn:
        tensors, x, answers = stand_in(model)
        source = next(name for name in FILES if model.startswith(name))
        depth = "".join(c for c in model if c.isdigit())
        path = tmp_path_factory.mktemp(model) / FILES[source].format(depth=depth)
        if source == "niftynet" or model == "i3d_deepmind":
            path = path.with_suffix(".npz")
            np.savez(path, **tensors)
        else:
            state = {key: torch.from_numpy(value) for key, value in tensors.items()}
            wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
            torch.save(state if source == "i3d" else wrapped, path)
        return StandIn(source, path, x, answers)

    return make


@pytest.fixture(scope="session")
def parity() -> Path:
    """Recorded outputs of the official networks, in the developers' shared folder."""
    shared = Path(os.environ.get("P2W_SHARED", Path(__file__).parents[3] / "shared" / "data"))
    folder = shared.parent / "parity"
    if not folder.is_dir():
        pytest.skip("the recorded outputs of the official networks are not here (set P2W_SHARED)")
    return folder
