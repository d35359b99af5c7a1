"""Weights of today's sources compute what the public networks compute, for arrays as these were trained on."""

from __future__ import annotations

import pytest
import torch

import parts2whole as p2w
from parts2whole.weights.base import WeightsError
from parts2whole.weights.convert import convert
from parts2whole.weights.files import read_tensors
from parts2whole.weights.load import sources
from weights.public_networks import FILES, openmind

IN_RAS = {"suprem", "voco", "swin_unetr"}


def to_ras(x):
    """From arrays to superior, posterior, left to arrays to right, anterior, superior, by hand."""
    return torch.flip(torch.movedim(x, (2, 3, 4), (4, 3, 2)), (2, 3))


def from_ras(x):
    return torch.movedim(torch.flip(x, (2, 3)), (4, 3, 2), (2, 3, 4))


@pytest.mark.parametrize("name", FILES)
def test_what_the_public_network_computes(name, tmp_path):
    torch.manual_seed(0)
    public = FILES[name](tmp_path)
    converted = convert(sources()[public.source](), public.path)
    skipped = {entry.source for entry in converted.report.entries if entry.fate == "skipped"}
    assert skipped == set(public.skipped)
    targets = [
        entry.target
        for entry in converted.report.entries
        if entry.target and entry.fate in ("used", "permuted")
    ]
    assert len(targets) == len(set(targets)) == len(read_tensors(public.path)) - len(skipped)
    net = p2w.load_encoder(f"{public.source}:{public.path}")
    x = torch.rand(1, 1, *(32, 64, 32) if "swin" in name or name == "voco" else (16, 32, 48))
    seen = to_ras(x) if public.source in IN_RAS else x
    with torch.no_grad():
        maps = [from_ras(m) if public.source in IN_RAS else m for m in public.maps(seen)]
        found = net(x)
        assert [tuple(m.shape) for m in found] == [tuple(m.shape) for m in maps]
        for mine, theirs in zip(found, maps, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-4 * max(1.0, float(theirs.abs().max())))
        if public.logits is not None:
            logits = public.logits(seen)
            theirs = from_ras(logits) if public.source in IN_RAS else logits
            mine = net.forward_endpoints(x)["output"]
            assert torch.allclose(mine, theirs, atol=1e-4 * max(1.0, float(theirs.abs().max())))
        else:
            assert converted.card.origin["own_classes"] is None


def test_turned_arrays_are_said_to_be(tmp_path):
    said = {}
    for name in ("suprem segresnet", "suprem unet", "ct_fm encoder"):
        folder = tmp_path / name
        folder.mkdir()
        public = FILES[name](folder)
        said[name] = convert(sources()[public.source](), public.path).card.origin["axes"]
    assert "the encoder turns images itself" in said["suprem segresnet"]
    assert "kernels are turned" in said["suprem unet"]
    assert "nothing permuted" in said["ct_fm encoder"]


PLAN = {
    "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
    "pretrain_plan": {
        "configurations": {"onemmiso": {"spacing": [1.0, 1.0, 1.5], "patch_size": [64, 64, 64]}}
    },
    "pretrain_num_input_channels": 1,
    "recommended_downstream_patchsize": [160, 160, 128],
    "key_to_encoder": "encoder.stages",
    "key_to_stem": "encoder.stem",
}


def test_the_adaptation_plan_of_a_file_decides(tmp_path):
    card = convert(sources()["openmind"](), openmind(tmp_path, plan=PLAN).path).card
    assert card.whole_size == (160, 160, 128)
    assert card.preprocess.spacing_mm == (1.0, 1.0, 1.5)
    nowhere = PLAN | {"pretrain_plan": {"configurations": {"noresample": {"spacing": None}}}}
    card = convert(sources()["openmind"](), openmind(tmp_path, plan=nowhere).path).card
    assert card.preprocess.spacing_mm is None
    other = PLAN | {"architecture_plans": {"arch_class_name": "PrimusM"}}
    with pytest.raises(
        WeightsError, match="the file's plan says PrimusM; of nnssl's networks only ResEncL can be used"
    ):
        convert(sources()["openmind"](), openmind(tmp_path, plan=other).path)
    with pytest.raises(WeightsError, match="nnssl_adaptation_plan can't be read"):
        convert(
            sources()["openmind"](),
            openmind(tmp_path, plan=PLAN | {"recommended_downstream_patchsize": 3}).path,
        )


def test_stages_that_nobody_published_are_refused(tmp_path):
    path = openmind(tmp_path).path
    file = torch.load(path, weights_only=True)
    weights = {k: v for k, v in file["network_weights"].items() if ".stages.3." not in k}
    torch.save({"network_weights": weights}, path)
    with pytest.raises(
        WeightsError, match=r"stages of widths \(8, 16, 32\) with \(1, 1, 2\) blocks; known are"
    ):
        convert(sources()["openmind"](), path)
