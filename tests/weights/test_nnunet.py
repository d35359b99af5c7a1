"""Weights that nnU-Net begins with: the plan that fits them, and a real first epoch where nnU-Net is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import parts2whole as p2w
from parts2whole.networks.heads import EncoderDecoder, OwnDecoder
from parts2whole.scans.preprocess import Preprocess
from parts2whole.weights.card import Card
from parts2whole.weights.formats import nnunet_adapt
from parts2whole.weights.formats.model import Exportable, ExportError
from parts2whole.weights.formats.nnunet import NORMALIZATION, PERCENTILES, adaptation, to_nnunet
from parts2whole.weights.formats.nnunet_unet3d import UNet3D
from parts2whole.weights.native import save_encoder

CT = Preprocess(modality="CT", window_hu=(-900.0, 100.0), spacing_mm=(1.5, 1.0, 1.0))
PLANS = {
    "dataset_name": "Dataset001_X",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [1, 0, 2],
    "transpose_backward": [1, 0, 2],
    "original_median_spacing_after_transp": [3.0, 0.7, 0.8],
    "original_median_shape_after_transp": [20, 100, 60],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 5.0}},
    "configurations": {
        "2d": {},
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "patch_size": [20, 96, 50],
            "spacing": [3.0, 0.7, 0.8],
            "median_image_size_in_voxels": [20.0, 100.0, 60.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [True],
            "architecture": {},
        },
    },
}


def encoder_of(network, channels=1, seed=0):
    torch.manual_seed(seed)
    encoder = network.build_encoder(channels)
    with torch.no_grad():
        for value in encoder.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return encoder


def exported(network, folder, preprocess=CT) -> Path:
    """An encoder as it was pre-trained, exported."""
    card = Card(network, 1, preprocess, (16, 32, 32), None, None, {"Parts2Whole": {}}, 1, (), "x")
    save_encoder(folder / "weights", encoder_of(network), card)
    return p2w.export_weights(folder / "weights", to="nnunet", out=folder / "export").folder


def test_a_plan_gets_network_spacing_window_and_axes_of_the_weights(tmp_path):
    export = exported(p2w.UNet3D(size="tiny"), tmp_path)
    file = tmp_path / "plans/nnUNetPlans.json"
    file.parent.mkdir()
    file.write_text(json.dumps(PLANS))
    subprocess.run([sys.executable, "-I", export / "adapt_plans.py", file], check=True, capture_output=True)
    assert json.loads(file.read_text()) == PLANS
    made = json.loads(file.with_name("p2wPlans.json").read_text())
    assert sorted(path.name for path in file.parent.iterdir()) == ["nnUNetPlans.json", "p2wPlans.json"]
    (ours,) = made["configurations"].values()
    # As files have the axes: plan (1, 0, 2) undone, sizes changed with the spacing, patches multiples of 8.
    assert made["transpose_forward"] == made["transpose_backward"] == [0, 1, 2]
    assert made["original_median_spacing_after_transp"] == [0.7, 3.0, 0.8]
    assert ours["spacing"] == [1.5, 1.0, 1.0]
    assert ours["median_image_size_in_voxels"] == pytest.approx([100 * 0.7 / 1.5, 20 * 3.0, 60 * 0.8])
    assert ours["patch_size"] == [96, 24, 56]
    assert (ours["normalization_schemes"], ours["use_mask_for_norm"]) == (["CTNormalization"], [False])
    values = made["foreground_intensity_properties_per_channel"]["0"]
    # nnU-Net's CTNormalization: clip to two percentiles, subtract the mean, divide by the deviation.
    hu = np.array([-2000.0, -900, -400, 100, 3000])
    clipped = np.clip(hu, values["percentile_00_5"], values["percentile_99_5"])
    assert ((clipped - values["mean"]) / values["std"]).tolist() == [0, 0, 0.5, 1, 1]
    assert ours["architecture"]["network_class_name"] == "nnunet_unet3d.UNet3D"
    assert "pretrain_info" not in made


def test_what_does_not_fit_a_plan_is_told(tmp_path):
    model = Exportable(encoder_of(p2w.UNet3D(size="tiny"), 2), p2w.UNet3D(size="tiny"), 2, (8, 8, 8))
    ours = adaptation(model, CT, (8, 8, 8))
    with pytest.raises(SystemExit, match="the data set has 1 channels, the weights 2"):
        nnunet_adapt.adapt(PLANS, ours, tmp_path / "x.pth")
    with pytest.raises(SystemExit, match="no configuration 3d_fullres"):
        nnunet_adapt.adapt({"configurations": {"2d": {}}}, ours, tmp_path / "x.pth")
    network = p2w.UNet3D(size="tiny", norm="batch_statistics")
    with pytest.raises(ExportError, match="depends on the batch when it predicts"):
        to_nnunet(Exportable(encoder_of(network), network, 1, (8, 8, 8)))


def test_mr_is_scaled_as_here_and_an_unknown_modality_left_as_planned(tmp_path):
    export = exported(p2w.UNet3D(size="tiny"), tmp_path, Preprocess(modality="MR", percentiles=(1.0, 98.0)))
    text = (export / "p2w_normalization.py").read_text()
    assert text == NORMALIZATION.format(name=PERCENTILES, percentiles=(1.0, 98.0))
    stripped = text.replace(
        "from nnunetv2.preprocessing.normalization.default_normalization_schemes import", "#"
    )
    names: dict = {"ImageNormalization": object}
    exec(stripped, names)
    image = np.random.default_rng(0).gamma(2, 100, (12, 12, 12)).astype(np.float32)
    found = names[PERCENTILES]().run(image)
    low, high = np.percentile(image, (1, 98))
    np.testing.assert_allclose(found, np.clip((image - low) / (high - low), 0, 1), atol=1e-6)
    assert "cp p2w_normalization.py" in (export / "README.md").read_text()
    network = p2w.UNet3D(size="tiny")
    ours = adaptation(Exportable(encoder_of(network), network, 1, (8, 8, 8)), Preprocess(), (8, 8, 8))
    made = nnunet_adapt.adapt(PLANS, ours, tmp_path / "x.pth")
    assert made["configurations"]["3d_fullres"]["use_mask_for_norm"] == [True]
    assert made["foreground_intensity_properties_per_channel"] == {"0": {"mean": 5.0}}


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("decoder", ["none", "fine-tuned", "own"])
def test_unet3d_of_nnunet_computes_what_it_computes_here(norm, decoder):
    network = p2w.UNet3D(size="tiny", norm=norm)
    encoder = encoder_of(network, 2)
    made = {
        "none": lambda: encoder,
        "fine-tuned": lambda: EncoderDecoder(encoder, out_channels=3, skips=True),
        "own": lambda: OwnDecoder(encoder, network.build_own(2, 3)),
    }
    module = made[decoder]().eval()
    classes = () if decoder == "none" else ("0", "1", "2")
    state = to_nnunet(Exportable(module, network, 2, (8, 16, 16), classes))
    theirs = UNet3D(2, max(1, len(classes)), 8, norm, [[1, 1, 1], *[[2, 2, 2]] * 3]).eval()
    theirs.load_state_dict(state)
    x = torch.rand(1, 2, 8, 16, 16)
    with torch.no_grad():
        for mine, other in zip(encoder(x), theirs.encoder(x), strict=True):
            torch.testing.assert_close(mine, other)
        if classes:
            torch.testing.assert_close(module(x), theirs(x))
        theirs.decoder.deep_supervision = True
        assert [tuple(one.shape[2:]) for one in theirs(x)] == [(8, 16, 16), (4, 8, 8), (2, 4, 4)]
    with pytest.raises(ValueError, match="strides 1, 2, 2, 2"):
        UNet3D(1, 2, 8, norm, [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]])


@pytest.mark.parametrize(
    ("network", "stem", "first"),
    [
        (p2w.PlainUNet3D(widths=(4, 8), strides=((1, 1, 1), (2, 2, 2))), "encoder.stages.0", "encoder.stages.0.0.convs.0"),
        (p2w.ResEncUNet3D(size="tiny"), "encoder.stem", "encoder.stem.convs.0"),
    ],
)  # fmt: skip
def test_the_adaptation_plan_names_tensors_that_are_there(network, stem, first, tmp_path):
    export = exported(network, tmp_path)
    content = torch.load(export / "nnunet_pretrained.pth", weights_only=True)
    made, state = content["nnssl_adaptation_plan"], content["network_weights"]
    assert made == json.loads((export / "adaptation_plan.json").read_text())
    assert made["key_to_stem"] == stem
    assert made["keys_to_in_proj"][0] == f"{first}.conv"
    assert all(state[f"{key}.weight"].shape[1] == 1 for key in made["keys_to_in_proj"])
    assert any(key.startswith(made["key_to_encoder"]) for key in state)
    assert any(key.startswith(made["key_to_stem"]) for key in state)
    (pretrained,) = made["pretrain_plan"]["configurations"].values()
    assert (pretrained["spacing"], pretrained["patch_size"]) == ([1.5, 1.0, 1.0], [16, 32, 32])
    assert made["architecture_plans"]["arch_kwargs"]["n_stages"] == len(made["architecture_plans"]["arch_kwargs"]["strides"])  # fmt: skip


TRAINERS = ["nnUNetTrainer"]
if importlib.util.find_spec("nnunetv2") and importlib.util.find_spec(
    "nnunetv2.experiment_planning.like_nnssl"
):
    TRAINERS.append("PretrainedTrainer")


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    "network",
    [
        p2w.UNet3D(size="tiny"),
        p2w.ResEncUNet3D(size="tiny"),
        p2w.PlainUNet3D(widths=(4, 8, 12), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))),
    ],
    ids=lambda network: type(network).__name__,
)
def test_nnunet_trains_on_from_them_for_an_epoch(network, trainer, tmp_path):
    pytest.importorskip("nnunetv2", reason="nnU-Net isn't installed")
    if isinstance(network, p2w.UNet3D) and trainer != "nnUNetTrainer":
        pytest.skip("this trainer builds nnU-Net's own networks alone")
    export = exported(network, tmp_path)
    script = Path(__file__).with_name("nnunet_first_epoch.py")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, export, tmp_path / "nnunet", trainer],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["loaded"] == found["encoder"] > 0
    assert found["moved"] > 0
    assert np.isfinite(found["loss"])
    assert found["range"][0] == 0
    assert 0.5 < found["range"][1] <= 1 + 1e-6
    assert found["spacing"] == [1.5, 1.0, 1.0]
