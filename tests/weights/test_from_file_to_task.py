"""From a file of published weights to a fine-tuned task, from the command line, for every source."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from parts2whole.cli import main
from parts2whole.training.model import load_model

PATCH = {"i3d": (32, 32, 32)}
SMALL = (8, 8, 16)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """Six CT-like cases with a ball to segment."""
    folder = tmp_path_factory.mktemp("labelled")
    z, y, x = np.meshgrid(*map(np.arange, SMALL), indexing="ij")
    for case in range(6):
        rng = np.random.default_rng(case)
        inside = (z - 4) ** 2 + (y - 4) ** 2 + (x - 6 - case % 3) ** 2 < 9
        image = rng.integers(-1000, -900, inside.shape) + 950 * inside
        for kind, array in (("images", image.astype(np.int16)), ("labels", inside.astype(np.uint8))):
            path = folder / kind / f"case_{case}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array.T, np.eye(4)), path)
    return folder


def finetune(labelled: Path, out: Path, init: str | Path, *more: str, patch=SMALL) -> int:
    line = (
        f"finetune --task Segmentation --data {labelled} --task.preprocess.modality CT --init {init} --out {out} "
        f"--task.patch_size [{','.join(map(str, patch))}] --steps 2 --batch_size 1 --validate_every 2 --progress false "
        "--hardware.accelerator cpu --hardware.precision 32-true --task.validation_fraction 0.2 --task.test_fraction 0.2"
    )
    return main([*line.split(), *more])


@pytest.mark.parametrize(
    ("model", "decoder"),
    [
        ("models_genesis", "own"),
        ("medicalnet_resnet10_backbone", "fresh"),
        ("i3d", "fresh"),
        ("niftynet_densevnet", "own"),
        ("niftynet_highres3dnet", "fresh"),
    ],
)
def test_from_a_file_to_a_fine_tuned_task(model, decoder, stand_ins, labelled, tmp_path, capsys):
    made = stand_ins(model)
    assert main(["weights", "import", made.name, "--out", str(tmp_path / "w")]) == 0
    printed = capsys.readouterr().out
    assert "tensors: " in printed
    assert "licence: " in printed
    freeze = ["--encoder", "freeze"] if model.startswith("i3d") else []
    patch = PATCH.get(made.source, SMALL)
    code = finetune(labelled, tmp_path / "ft", tmp_path / "w", "--decoder", decoder, *freeze, patch=patch)
    assert code == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "ft" / "result.json").read_text())
    assert "dice_mean" in result["test"]
    assert result["method"]["class_path"].rpartition(".")[2].startswith("Published")
    if decoder == "own":
        assert any("own decoder are loaded" in note for note in result["notes"])
    module, card = load_model(tmp_path / "ft")
    assert card.decoder == decoder
    assert module(torch.rand(1, 1, *patch)).shape == (1, 2, *patch)


def test_the_own_decoder_starts_from_the_file_and_its_last_layer_does_not(stand_ins, labelled, tmp_path):
    made = stand_ins("medicalnet_resnet10")
    more = ("--decoder", "own", "--encoder", "freeze", "--optimiser.lr", "1e-12")
    assert finetune(labelled, tmp_path / "ft", made.name, *more) == 0
    module, _ = load_model(tmp_path / "ft")
    file = {k.removeprefix("module."): v for k, v in torch.load(made.path)["state_dict"].items()}
    assert module(torch.rand(1, 1, *SMALL)).shape == (1, 2, *SMALL)  # its head works at a quarter of that
    state = module.state_dict()
    torch.testing.assert_close(state["decoder.layers.0.weight"], file["conv_seg.0.weight"])
    torch.testing.assert_close(state["encoder.layer4.0.conv1.weight"], file["layer4.0.conv1.weight"])
    assert not torch.allclose(state["decoder.layers.6.weight"], file["conv_seg.6.weight"])
    export = f"weights export {tmp_path / 'ft'} --to safetensors --out {tmp_path / 'out'}"
    assert main(export.split()) == 0
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in exported.items())
    assert "pipeline_tag: image-segmentation" in (tmp_path / "out" / "README.md").read_text()


def test_what_cannot_be_is_refused_with_a_reason(stand_ins, labelled, tmp_path, capsys):
    assert (
        finetune(labelled, tmp_path / "a", stand_ins("i3d").name, "--decoder", "own", patch=PATCH["i3d"]) == 1
    )
    assert "published without a decoder" in capsys.readouterr().err
    wrong = ("--task.preprocess.window_hu", "[-200,300]")
    assert finetune(labelled, tmp_path / "b", stand_ins("models_genesis").name, *wrong) == 1
    assert "trained with window" in capsys.readouterr().err
    assert main(["weights"]) == 0
    assert "weights export" in capsys.readouterr().out
    assert main(["weights", "imprt"]) == 2
    assert "did you mean weights import?" in capsys.readouterr().err


def test_frozen_published_features_are_probed(stand_ins, labelled, tmp_path, capsys):
    line = (
        f"probe --task Segmentation --data {labelled} --task.preprocess.modality CT --cases 2 --seeds 1 --progress false "
        f"--init {stand_ins('medicalnet_resnet10_backbone').name} --out {tmp_path / 'rows.json'}"
    )
    assert main(line.split()) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["encoder"] for row in rows} == {"PublishedMedicalNet", "untrained"}


def test_show_prints_the_card_and_the_tree(stand_ins, capsys):
    assert main(["weights", "show", stand_ins("medicalnet_resnet10").name, "--levels", "2"]) == 0
    printed = capsys.readouterr().out
    assert "MIT (Tencent/MedicalNet)" in printed
    assert "layer4  " in printed
    assert "layer4.0" not in printed
