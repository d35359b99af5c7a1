"""MONAI bundles: MONAI's own runner gives the masks that `predict` gives."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, run, verify_net_in_out

import parts2whole as p2w
from parts2whole.networks.heads import EncoderDecoder
from parts2whole.scans.preprocess import Preprocess
from parts2whole.training.model import ModelCard, save_model
from parts2whole.training.runtime import Hardware
from parts2whole.weights.formats.model import ExportError

pytest.importorskip("ignite", reason="MONAI's evaluator needs pytorch-ignite")
PATCH = (16, 24, 16)
SPACINGS = {"as scanned": None, "resampled": (1.43, 1.07, 0.83)}  # no voxel is as near to one as to another


def write_model(folder, preprocess, network=None, **fields):
    """A fine-tuned model with random weights, whose classes are written as 0, 3 and 7."""
    network = network or p2w.UNet3D(size="tiny")
    torch.manual_seed(0)
    module = EncoderDecoder(network.build_encoder(1), out_channels=3, skips=True)
    with torch.no_grad():  # every class is likely
        module.head.bias -= module.eval()(torch.rand(1, 1, *PATCH)).mean(dim=(0, 2, 3, 4))
    task = p2w.Segmentation("data", preprocess=preprocess, patch_size=PATCH, **fields)
    card = ModelCard(task, network, 1, ("background", "liver", "kidney"), preprocess, mask_values=(0, 3, 7))
    save_model(folder, module.eval(), card)
    return folder


def write_scan(file, shape=(19, 31, 23), seed=0):
    """A smooth scan in HU on an oblique grid whose axes point to the right, to the front and down."""
    blocks = np.random.default_rng(seed).normal(0, 400, [-(-edge // 4) for edge in shape])
    array = np.kron(blocks, np.ones((4, 4, 4)))[: shape[0], : shape[1], : shape[2]]
    turn = np.linalg.qr(np.eye(3) + 0.1 * np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.diag(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.9, 0.7, -2.0])
    affine[:3, 3] = 10, -20, 30
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.round().astype(np.int16), affine), file)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_monais_runner_gives_the_masks_that_predict_gives(modality, spacing, tmp_path):
    preprocess = Preprocess(modality=modality, spacing_mm=SPACINGS[spacing])
    model = write_model(tmp_path / "run", preprocess)
    write_scan(tmp_path / "in/a.nii.gz")
    write_scan(tmp_path / "in/b.nii.gz", (12, 40, 9), seed=2)
    exact = Hardware(accelerator="cpu", precision="32-true")
    p2w.predict(model, [tmp_path / "in"], out=tmp_path / "ours", hardware=exact, progress=False)
    bundle = p2w.export_weights(model, to="monai-bundle", out=tmp_path / "bundle").folder
    run(
        config_file=str(bundle / "configs/inference.json"),
        meta_file=str(bundle / "configs/metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / "theirs"),
    )
    for name in ("a", "b"):
        ours, theirs = (
            nib.load(tmp_path / f"ours/{name}.nii.gz"),
            nib.load(tmp_path / f"theirs/{name}_mask.nii.gz"),
        )
        np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)
        mine, other = np.asarray(ours.dataobj), np.asarray(theirs.dataobj)
        assert set(np.unique(mine)) == {0, 3, 7}
        assert np.array_equal(mine, other)


def test_the_network_takes_and_gives_what_the_metadata_say(tmp_path):
    bundle = p2w.export_weights(
        write_model(tmp_path / "run", Preprocess(modality="CT")), to="monai-bundle", out=tmp_path / "b"
    ).folder
    meta = json.loads((bundle / "configs/metadata.json").read_text())
    about = meta["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert about == {
        "0": "background (written as 0)",
        "1": "liver (written as 3)",
        "2": "kidney (written as 7)",
    }
    assert meta["task"] == "segmentation of liver, kidney"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.json"),
        bundle_root=str(bundle),
        device="cpu",
    )
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    for needed in (
        "network_def",
        "inferer",
        "preprocessing",
        "postprocessing",
        "evaluator",
        "dataset",
        "device",
    ):
        assert needed in parser
    assert not (bundle / "scripts").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"window_size": (32, 24, 16)}, "windows of the patch size"),
        ({"crop_size": (8, 8, 8)}, "would give other masks"),
        ({"network": p2w.UNet3D(size="tiny", norm="batch_statistics")}, "depends on its neighbours"),
        ({"preprocess": Preprocess()}, "which modality the model knows"),
    ],
)
def test_what_monai_would_do_otherwise_is_refused(fields, said, tmp_path):
    model = write_model(tmp_path / "run", **({"preprocess": Preprocess(modality="CT")} | fields))
    with pytest.raises(ExportError, match=said):
        p2w.export_weights(model, to="monai-bundle", out=tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_encoder_is_no_bundle(tmp_path, stand_ins):
    with pytest.raises(ExportError, match="give a run that fine-tuned a segmentation"):
        p2w.export_weights(stand_ins("niftynet_highres3dnet").name, to="monai-bundle", out=tmp_path / "b")
