"""Weights out again: what other tools load gives the same results."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
import yaml

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.networks.heads import EncoderDecoder, LinearDecoder, OwnDecoder, PooledClassifier
from parts2whole.weights.card import Card
from parts2whole.weights.formats.model import Exportable, ExportError, compare
from parts2whole.weights.formats.monai import to_monai
from parts2whole.weights.formats.nnunet import has_decoder, plan, to_nnunet
from parts2whole.weights.formats.traced import to_onnx
from parts2whole.weights.native import save_encoder

SIZE = (8, 16, 16)
THREE = p2w.PlainUNet3D(widths=(4, 8, 12), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
SMALL = p2w.PlainUNet3D(widths=(4, 8), strides=((1, 1, 1), (1, 2, 2)))


def exportable(network, *, own: bool) -> Exportable:
    """A network with settled statistics and nothing at its initial value."""
    torch.manual_seed(0)
    encoder = network.build_encoder(2)
    size = (4, 4, 4) if isinstance(network, p2w.HighRes3DNet) else SIZE
    module = OwnDecoder(encoder, network.build_own(2, 3)) if own else encoder
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.05 * torch.randn_like(value))
        module.train()(torch.rand(2, 2, *size))
    return Exportable(module.eval(), network, 2, size, ("0", "1", "2") if own else ())


@pytest.mark.parametrize(
    ("network", "own", "is_whole"),
    [
        (THREE, True, True),
        (THREE, False, False),
        (p2w.UNet3D(size="tiny"), False, False),
        (p2w.UNet3D(size="tiny", norm="instance"), True, False),
        (p2w.HighRes3DNet(scaling="zscore"), True, True),
        (p2w.HighRes3DNet(), False, False),
    ],
    ids=str,
)
def test_monai_computes_the_same(network, own, is_whole, tmp_path, monkeypatch):
    made = to_monai(exportable(network, own=own))
    assert made.is_whole is is_whole
    assert made.difference < 1e-5
    monkeypatch.chdir(tmp_path)
    torch.save(made.state, "monai_state_dict.pt")
    names: dict = {}
    exec(made.script, names)  # the lines that users are given
    state = names["net"].state_dict()
    assert all(torch.equal(state[key], value) for key, value in made.state.items())


@pytest.mark.parametrize(
    "network", [p2w.ResNet3D(), p2w.I3D(), p2w.DenseVNet(), p2w.UNet3D(size="tiny", norm="group")]
)
def test_monai_without_a_counterpart_is_refused(network):
    with pytest.raises(ExportError, match="MONAI has no network that computes what"):
        to_monai(Exportable(network.build_encoder(1), network, 1, SIZE))


def test_nnunet_gets_every_tensor_that_its_loader_asks_for():
    model = exportable(SMALL, own=True)
    state = to_nnunet(model)
    # The names of PlainConvUNet with two stages in dynamic_network_architectures 0.4.4, listed from its public code.
    unit = [
        f"{part}.{name}"
        for part in ("conv", "norm", "all_modules.0", "all_modules.1")
        for name in ("weight", "bias")
    ]
    encoder = [f"encoder.stages.{s}.0.convs.{c}.{u}" for s in (0, 1) for c in (0, 1) for u in unit]
    expected = [*encoder, *(f"decoder.{key}" for key in encoder)]
    expected += [f"decoder.stages.0.convs.{c}.{u}" for c in (0, 1) for u in unit]
    expected += [f"decoder.{m}.0.{n}" for m in ("transpconvs", "seg_layers") for n in ("weight", "bias")]
    assert sorted(state) == sorted(expected)
    assert state["encoder.stages.1.0.convs.0.conv.weight"].shape == (8, 4, 3, 3, 3)
    assert state["decoder.stages.0.convs.0.conv.weight"].shape == (4, 8, 3, 3, 3)
    assert state["decoder.transpconvs.0.weight"].shape == (8, 4, 1, 2, 2)
    arguments = plan(SMALL)["arch_kwargs"]
    assert arguments["features_per_stage"] == [4, 8]
    assert arguments["strides"] == [[1, 1, 1], [1, 2, 2]]
    with pytest.raises(ExportError, match="--network PlainUNet3D"):
        to_nnunet(exportable(p2w.HighRes3DNet(), own=False))
    with pytest.raises(ExportError, match="has instance norm, these weights group"):
        to_nnunet(exportable(p2w.ResEncUNet3D(size="tiny", norm="group"), own=False))


@pytest.mark.parametrize("own", [True, False])
def test_nnunet_gets_its_residual_encoder(own):
    network = p2w.ResEncUNet3D(size="tiny")
    torch.manual_seed(0)
    encoder = network.build_encoder(2)
    decoder = network.build_own(2, 3) if own else None
    module = OwnDecoder(encoder, decoder) if decoder else encoder
    state = to_nnunet(Exportable(module, network, 2, SIZE, ("0", "1", "2") if own else ()))
    # The names of ResidualEncoderUNet in dynamic_network_architectures 0.4.4: blocks 1, 1, 2, 2, and ways around the
    # first of every stage but the finest, whose width is that of the stem; a projection comes after an average.
    bare = ["conv.weight", "norm.weight", "norm.bias"]
    unit = [
        f"{part}.{n}"
        for part in ("conv", "norm", "all_modules.0", "all_modules.1")
        for n in ("weight", "bias")
    ]
    around = [*bare, "all_modules.0.weight", "all_modules.1.weight", "all_modules.1.bias"]
    names = [f"encoder.stem.convs.0.{u}" for u in unit]
    for stage, blocks in enumerate((1, 1, 2, 2)):
        scope = f"encoder.stages.{stage}.blocks"
        names += [f"{scope}.{b}.{c}.{u}" for b in range(blocks) for c in ("conv1", "conv2") for u in unit]
        names += [f"{scope}.0.skip.1.{u}" for u in around if stage]
    expected = [*names, *(f"decoder.{name}" for name in names)]
    expected += [f"decoder.stages.{s}.convs.0.{u}" for s in range(3) for u in unit]
    expected += [f"decoder.transpconvs.{s}.{n}" for s in range(3) for n in ("weight", "bias")]
    expected += [f"decoder.seg_layers.2.{n}" for n in ("weight", "bias")]
    assert sorted(state) == sorted(expected)
    mine = encoder.state_dict()
    for theirs, ours in (
        ("encoder.stem.convs.0.conv.weight", "stem.0.weight"),
        ("encoder.stages.2.blocks.1.conv2.norm.bias", "levels.2.1.second.1.bias"),
        ("decoder.encoder.stages.1.blocks.0.skip.1.all_modules.0.weight", "levels.1.0.around.1.weight"),
        ("encoder.stages.3.blocks.0.skip.1.norm.weight", "levels.3.0.around.2.weight"),
    ):
        assert torch.equal(state[theirs], mine[ours])
    if decoder:
        assert torch.equal(
            state["decoder.stages.1.convs.0.conv.weight"], decoder.state_dict()["stages.1.0.weight"]
        )
    arguments = plan(network)["arch_kwargs"]
    assert plan(network)["network_class_name"].endswith(".ResidualEncoderUNet")
    assert (arguments["n_blocks_per_stage"], arguments["n_conv_per_stage_decoder"]) == (
        [1, 1, 2, 2],
        [1, 1, 1],
    )
    assert arguments["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert arguments["features_per_stage"] == [8, 16, 32, 64]


@pytest.fixture(scope="module")
def folder(stand_ins, tmp_path_factory):
    """Imported weights that every traced format can take."""
    return p2w.import_weights(
        stand_ins("niftynet_highres3dnet").name, out=tmp_path_factory.mktemp("w") / "w"
    ).folder


def test_torchscript_is_the_encoder(folder, tmp_path):
    line = f"weights export {folder} --to torchscript --out {tmp_path / 'ts'} --size [8,8,8]"
    assert main(line.split()) == 0
    x = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        found, wanted = torch.jit.load(tmp_path / "ts" / "model.ts")(x), p2w.load_encoder(folder)(x)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_onnx_is_the_model(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = exportable(SMALL, own=True)
    assert to_onnx(model, tmp_path / "model.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    x = model.example(7)
    (found,) = session.run(None, {"image": x.numpy()})
    np.testing.assert_allclose(found, model.run(x)[0], atol=1e-4)


def test_a_format_without_its_packages_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install .*\[export\]'"):
        to_onnx(exportable(SMALL, own=False), tmp_path / "model.onnx")


def test_an_export_that_computes_something_else_is_refused():
    with pytest.raises(ExportError, match="differs by"):
        compare([torch.zeros(3)], [torch.full((3,), 2e-4)], "it")
    with pytest.raises(ExportError, match="differs by nan"):
        compare([torch.zeros(3)], [torch.full((3,), torch.nan)], "it")
    with pytest.raises(ExportError, match="other shapes"):
        compare([torch.zeros(3)], [torch.zeros(4)], "it")


def test_safetensors_come_with_a_model_card_and_are_an_initialisation_again(folder, tmp_path):
    done = p2w.export_weights(folder, to="safetensors", out=tmp_path / "st")
    text = (tmp_path / "st" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "parts2whole"
    assert front["license"] == "other"
    for heading in ("## Load", "## Input", "## Network", "## Licence", "## Citation"):
        assert heading in text
    assert "permuted to z, y, x" in text
    assert done.files == ("README.md", "card.json", "encoder.py", "encoder.safetensors", "own.safetensors")
    assert p2w.load_encoder(tmp_path / "st").own is not None
    one, other = p2w.load_encoder(folder).encoder, p2w.load_encoder(tmp_path / "st").encoder
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_pretrained_weights_go_to_nnunet_with_a_matching_plan(folder, tmp_path):
    card = dataclasses.replace(Card.read(folder), network=SMALL, in_channels=1, origin={})
    encoder = SMALL.build_encoder(1)
    save_encoder(tmp_path / "w", encoder, card)
    assert main(f"weights export {tmp_path / 'w'} --to nnunet --out {tmp_path / 'nn'}".split()) == 0
    state = torch.load(tmp_path / "nn" / "nnunet_pretrained.pth", weights_only=True)["network_weights"]
    for key in (
        "encoder.stages.1.0.convs.1.conv.weight",
        "decoder.encoder.stages.1.0.convs.1.all_modules.0.weight",
    ):
        assert torch.equal(state[key], encoder.state_dict()["levels.1.1.0.weight"])
    assert json.loads((tmp_path / "nn" / "nnunet_architecture.json").read_text()) == plan(SMALL)
    assert "The decoder's tensors are fresh" in (tmp_path / "nn" / "README.md").read_text()


def test_nothing_is_left_where_an_export_fails(folder, tmp_path):
    with pytest.raises(ExportError, match="nnU-Net has no HighRes3DNet"):
        p2w.export_weights(folder, to="nnunet", out=tmp_path / "nn")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ExportError, match="unknown format"):
        p2w.export_weights(folder, to="keras", out=tmp_path / "k")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ExportError, match="isn't an empty folder"):
        p2w.export_weights(folder, to="safetensors", out=tmp_path / "full")


@pytest.mark.parametrize(
    ("build", "whole"),
    [
        (lambda encoder: EncoderDecoder(encoder, out_channels=3, skips=True), True),
        (lambda encoder: EncoderDecoder(encoder, out_channels=3, skips=True, width=16), False),
        (lambda encoder: LinearDecoder(encoder, classes=3), False),
        (lambda encoder: PooledClassifier(encoder, classes=3), False),
        (lambda encoder: encoder, False),
    ],
    ids=["decoder", "light", "linear", "classifier", "encoder"],
)
def test_nnunet_is_told_whether_the_decoder_is_the_models(build, whole):
    network = p2w.UNet3D(size="tiny", norm="instance")
    classes = ("0", "1", "2")
    model = Exportable(build(network.build_encoder(1)).eval(), network, 1, (16, 16, 16), classes)
    state = to_nnunet(model)
    assert has_decoder(model) == whole
    kept = {key: value for key, value in model.module.state_dict().items() if key.startswith("decoder.ups.0")}
    if whole:
        assert torch.equal(state["decoder.ups.0.weight"], kept["decoder.ups.0.weight"])
