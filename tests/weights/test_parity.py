"""What imported networks answer, against a reference in NumPy and against recordings of the official networks.

FoundCases trained in (x, y, z) are given (z, y, x) here, as every network of this project; the recordings are in the source's
own axes, so this adapter turns inputs and outputs round.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import parts2whole as p2w

from .reference import MODELS

TURNED = ("models_genesis", "niftynet")
RECORDED = {
    "i3d": ("full", "odd"),
    "medicalnet_resnet10": ("main",),
    "medicalnet_resnet50": ("main",),
    "models_genesis": ("main", "pair"),
    "niftynet_densevnet": ("main", "odd"),
}


def answers(name: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints of ``SOURCE:PATH`` for an input in the source's own axes, in the source's own axes."""
    turned = name.startswith(TURNED)
    network = p2w.load_encoder(name)
    with torch.no_grad():
        found = network.forward_endpoints(torch.from_numpy(turn(x) if turned else x))
    return {
        key: turn(value.numpy()) if turned and value.ndim == 5 else value.numpy()
        for key, value in found.items()
    }


def turn(x: np.ndarray) -> np.ndarray:
    """(x, y, z) to (z, y, x), and back."""
    return np.ascontiguousarray(x.transpose(0, 1, 4, 3, 2))


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_stand_in_file_is_answered_as_the_reference_does(model, stand_ins):
    made = stand_ins(model)
    found = answers(made.name, made.x)
    assert made.answers.keys() <= found.keys()
    for key, expected in made.answers.items():
        scale = max(1.0, float(np.abs(expected).max()))
        assert found[key].shape == expected.shape, key
        assert np.abs(found[key] - expected).max() <= 1e-4 * scale, key


@pytest.fixture(scope="module")
def generator(parity: Path):
    spec = importlib.util.spec_from_file_location("gen_weights", parity / "gen_weights.py")
    module = importlib.util.module_from_spec(spec)
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = keep
    return module


@pytest.mark.shared
@pytest.mark.parametrize("model", RECORDED)
def test_recorded_outputs_of_the_official_network_are_reproduced(model, generator, tmp_path):
    manifest = generator.load_manifest(model)
    if model.startswith("niftynet"):
        path = tmp_path / "model.npz"
        np.savez(path, **generator.weights(manifest))
    else:
        path = tmp_path / f"resnet_{manifest.get('depth', 0)}.pth"
        torch.save(generator.torch_checkpoint(manifest), path)
    source = next(s for s in ("i3d", "medicalnet", *TURNED) if model.startswith(s))
    for case in RECORDED[model]:
        found = answers(f"{source}:{path}", generator.inputs(manifest, case))
        for output in manifest["cases"][case]["outputs"]:
            agrees, worst = generator.compare(manifest, case, output, found[output])
            assert agrees, (case, output, worst)


@pytest.mark.shared
def test_a_real_tensorflow_checkpoint_gives_what_its_arrays_give(parity, generator):
    manifest = generator.load_manifest("niftynet_densevnet")
    folder = parity / "niftynet_densevnet_tf_checkpoint"
    prefixes = (
        folder,
        folder / "model.ckpt-1",
        folder / "model.ckpt-1.index",
        folder / "model.ckpt-1.data-00000-of-00001",
    )
    states = [p2w.load_encoder(f"niftynet:{path}").state_dict() for path in prefixes]
    for state in states[1:]:
        assert all(torch.equal(value, states[0][key]) for key, value in state.items())
    found = answers(f"niftynet:{folder}", generator.inputs(manifest, "main"))
    agrees, worst = generator.compare(manifest, "main", "output", found["output"])
    assert agrees, worst
