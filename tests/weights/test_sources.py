"""Sources of published weights: what each says of its files; what all promise is in tests/contracts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

import parts2whole as p2w
from parts2whole.networks.base import count_parameters
from parts2whole.networks.blocks import NetworkError
from parts2whole.networks.published import scale_input, spread_channels
from parts2whole.networks.resnet3d import BLOCKS, ResNet3D
from parts2whole.weights.base import WeightsError
from parts2whole.weights.convert import convert
from parts2whole.weights.load import load_initialisation, parse_source, sources
from parts2whole.weights.medicalnet import PublishedMedicalNet
from parts2whole.weights.models_genesis import PublishedModelsGenesis
from parts2whole.weights.niftynet import PublishedNiftyNet

SOURCES = sources()


def state_of(made) -> dict[str, torch.Tensor]:
    from parts2whole.weights.files import read_tensors

    return read_tensors(made.path)


@pytest.mark.parametrize("prefix", sorted(SOURCES))
def test_a_source_is_named_by_its_prefix(prefix):
    assert parse_source(f"{prefix}:file").source == SOURCES[prefix]()


@pytest.mark.parametrize(
    "model", ["medicalnet_resnet10_backbone", "niftynet_densevnet", "niftynet_highres3dnet"]
)
def test_the_report_says_what_was_turned_and_the_card_from_which_file(model, stand_ins):
    made = stand_ins(model)
    converted = convert(SOURCES[made.source](), made.path)
    tensors = state_of(made)
    names = {name for entry in converted.report.entries for name in (entry.source, entry.target) if name}
    assert all(name in converted.report.summary() for name in names)
    origin = converted.card.origin
    assert len(origin["files_sha256"][made.path.name]) == 64
    turned = {e.source for e in converted.report.entries if "(x, y, z) to (z, y, x)" in e.note}
    if made.source == "niftynet":
        assert turned == {name for name in tensors if name.endswith("/w")}
        assert "permuted" in origin["axes"]
    else:
        assert not turned


def test_a_missing_head_is_said_to_be_fresh(stand_ins):
    card = convert(PublishedMedicalNet(), stand_ins("medicalnet_resnet10_backbone").path).card
    assert "own.layers.6.weight" in card.origin["fresh"]
    assert card.origin["own_classes"] is None
    network = p2w.load_encoder(stand_ins("medicalnet_resnet10_backbone").name)
    assert "seg" not in network.forward_endpoints(torch.zeros(1, 1, 8, 8, 8))


def test_missing_doubled_misshapen_and_infinite_tensors_are_named(stand_ins, tmp_path):
    tensors = {key: value.numpy() for key, value in state_of(stand_ins("niftynet_highres3dnet")).items()}
    path = tmp_path / "model.npz"
    first = "HighRes3DNet/res_1_0/conv_0/w"

    def refused(changed: dict[str, np.ndarray | None], match: str) -> None:
        kept = {key: value for key, value in (tensors | changed).items() if value is not None}
        np.savez(path, **kept)
        with pytest.raises(WeightsError, match=match):
            convert(PublishedNiftyNet(), path)

    refused({first: None}, r"lacks 1 of .*res_1_0\.conv_0\.weight")
    refused({first: tensors[first][..., :8]}, "doesn't fit")
    refused({first: tensors[first] * np.float32(np.inf)}, "not finite")
    kept = tensors | {"HighRes3DNet/res_1_0/conv_0/w/Adam": tensors[first], "beta1_power": np.float32(0.9)}
    np.savez(path, **kept)
    skipped = [e.source for e in convert(PublishedNiftyNet(), path).report.entries if e.fate == "skipped"]
    assert skipped == ["HighRes3DNet/res_1_0/conv_0/w/Adam", "beta1_power"]


def test_a_wrong_depth_is_named(stand_ins, tmp_path):
    made = stand_ins("medicalnet_resnet10_backbone")
    other = tmp_path / "resnet_50_23dataset.pth"
    other.write_bytes(made.path.read_bytes())
    with pytest.raises(WeightsError, match="says depth 50, but its tensors are those of a ResNet-10"):
        load_initialisation(f"medicalnet:{other}")
    state = state_of(made)
    extra = {k.replace("layer1.0", "layer1.1"): v for k, v in state.items() if k.startswith("layer1.0")}
    torch.save(state | extra, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"layers of 2, 1, 1, 1 basic blocks are no MedicalNet"):
        load_initialisation(f"medicalnet:{tmp_path / 'odd.pth'}")


# Millions of parameters of the backbone and with the head of two classes, as counted on the official code.
COUNTS = {
    10: (14.356, 14.514),
    18: (32.986, 33.145),
    34: (63.296, 63.455),
    50: (46.155, 46.707),
    101: (85.201, 85.753),
    152: (117.360, 117.912),
    200: (126.560, 127.112),
}


@pytest.mark.parametrize("depth", sorted(BLOCKS))
def test_every_depth_has_the_published_names_shapes_and_size(depth):
    from monai.networks.nets.resnet import ResNet

    with torch.device("meta"):
        encoder = ResNet3D(depth=depth).build_encoder(1)
        head = ResNet3D(depth=depth).build_own(1, 2)
        deep = depth >= 50
        kind = {
            "shortcut_type": "A" if depth in (18, 34) else "B",
            "feed_forward": False,
            "n_input_channels": 1,
        }
        # MONAI's ResNets have the names and shapes of the official files, and other strides.
        peer = ResNet("bottleneck" if deep else "basic", BLOCKS[depth], [64, 128, 256, 512], **kind)
    backbone, whole = COUNTS[depth]
    assert count_parameters(encoder) / 1e6 == pytest.approx(backbone, abs=6e-4)
    assert (count_parameters(encoder) + count_parameters(head)) / 1e6 == pytest.approx(whole, abs=6e-4)
    shapes, theirs = ({k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (encoder, peer))
    # Since MONAI 1.5 its shortcuts have a bias that the files don't have.
    assert shapes == {k: v for k, v in theirs.items() if not k.endswith("downsample.0.bias")}


def test_i3d_and_densevnet_have_the_published_size():
    i3d, dense = p2w.I3D(), p2w.DenseVNet()
    assert count_parameters(i3d.build_encoder(3)) + count_parameters(i3d.build_own(3, 400)) == 12_697_264
    assert count_parameters(dense.build_encoder(1)) + count_parameters(dense.build_own(1, 9)) == 878_514


def test_the_230_variables_of_tensorflow_are_all_of_i3d(stand_ins):
    made = stand_ins("i3d_deepmind")
    report = convert(SOURCES["i3d"](), made.path).report
    assert len(state_of(made)) == 230
    assert report.counts()["implied"] == 57 * 2  # scales of 1, and counters
    assert "skipped" not in report.counts()


def test_the_rgb_stem_summed_is_three_equal_channels(stand_ins):
    name = stand_ins("i3d").name
    grey = torch.rand(1, 1, 8, 32, 32)
    rgb, one = p2w.load_encoder(name), p2w.load_encoder(name, in_channels=1)
    with torch.no_grad():
        wanted = rgb.forward_endpoints(grey.expand(-1, 3, -1, -1, -1))["logits"]
        torch.testing.assert_close(one.forward_endpoints(grey)["logits"], wanted, atol=1e-4, rtol=1e-4)
        mean = p2w.load_encoder(name, in_channels=1, using=SOURCES["i3d"](stem="mean"))
        wanted = rgb.forward_endpoints(grey.expand(-1, 3, -1, -1, -1) / 3)["Conv3d_1a_7x7"]
        torch.testing.assert_close(
            mean.forward_endpoints(grey)["Conv3d_1a_7x7"], wanted, atol=1e-4, rtol=1e-4
        )


def test_densevnet_takes_more_channels_and_answers_alike(stand_ins):
    name = stand_ins("niftynet_densevnet").name
    x = torch.rand(1, 1, 8, 16, 8)
    with torch.no_grad():
        one = p2w.load_encoder(name).forward_endpoints(x)["output"]
        two = p2w.load_encoder(name, in_channels=2).forward_endpoints(x.expand(-1, 2, -1, -1, -1))["output"]
    torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)


def test_channels_are_spread_as_the_policy_says():
    weight = torch.tensor([[1.0, 2.0, 6.0, 9.0]])  # three input channels, then one that isn't
    assert spread_channels(weight, 1, 3, 1, "sum").tolist() == [[9, 9]]
    assert spread_channels(weight, 1, 3, 1, "mean").tolist() == [[3, 9]]
    assert spread_channels(weight, 1, 3, 4, "repeat").tolist() == [[0.75, 1.5, 4.5, 0.75, 9]]
    assert spread_channels(torch.tensor([4.0]), 0, 1, 2, "sum").tolist() == [4, 4]
    with pytest.raises(NetworkError, match="unknown stem policy"):
        spread_channels(weight, 1, 3, 1, "first")


def test_input_is_scaled_as_each_source_expects():
    x = torch.rand(2, 1, 4, 4, 4)
    x[:, :, 0] = 0
    torch.testing.assert_close(scale_input(x, "signed"), x * 2 - 1)
    torch.testing.assert_close(scale_input(x, "hounsfield"), x * 2000 - 1000)
    scaled = scale_input(x, "zscore")
    inside = scaled[1][x[1] > 0]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-5)
    assert float(inside.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert (scaled[x == 0] == 0).all()
    assert (scale_input(torch.zeros(1, 1, 2, 2, 2), "zscore") == 0).all()


def test_forward_converts_and_endpoints_do_not(stand_ins):
    network = p2w.load_encoder(stand_ins("niftynet_densevnet").name)
    x = torch.rand(1, 1, 8, 16, 8)
    with torch.no_grad():
        pyramid = network(x)
        found = network.forward_endpoints(x * 2000 - 1000)
    for level, name in zip(pyramid, ("stack1", "stack2", "stack3"), strict=True):
        torch.testing.assert_close(level, found[name])


def test_models_genesis_normalises_by_the_batch_or_not(stand_ins):
    made = stand_ins("models_genesis")
    pair = torch.rand(2, 1, 8, 16, 16)
    with torch.no_grad():
        published = p2w.load_encoder(made.name)
        assert not torch.allclose(published(pair)[-1][:1], published(pair[:1])[-1], atol=1e-3)
        running = p2w.load_encoder(made.name, using=PublishedModelsGenesis(norm="batch"))
        torch.testing.assert_close(running(pair)[-1][:1], running(pair[:1])[-1], atol=1e-3, rtol=1e-3)


def test_shortcut_a_lets_the_gradient_through_unless_it_is_cut():
    for cut in (False, True):
        torch.manual_seed(0)
        encoder = ResNet3D(depth=18, cut_gradient=cut).build_encoder(1).eval()
        block = encoder.layer3[0]
        torch.nn.init.zeros_(block.bn2.weight)  # nothing but the shortcut is left
        x = torch.rand(1, 128, 2, 2, 2, requires_grad=True)
        found = torch.autograd.grad(block(x).sum(), x, allow_unused=True)[0]
        reaches = found is not None and bool(found.abs().sum() > 0)
        assert reaches is not cut


@pytest.mark.parametrize("model", ["medicalnet_resnet10", "niftynet_highres3dnet"])
def test_an_imported_folder_is_the_file(model, stand_ins, tmp_path, capsys):
    made = stand_ins(model)
    done = p2w.import_weights(made.name, out=tmp_path / "w")
    one, other = p2w.load_encoder(made.name), p2w.load_encoder(done.folder)
    x = torch.rand(1, 1, 8, 8, 16)
    with torch.no_grad():
        first, second = one.forward_endpoints(x), other.forward_endpoints(x)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    report = json.loads((tmp_path / "w" / "load_report.json").read_text())
    assert report == json.loads(json.dumps(done.report.to_plain()))
    assert "licence:" in done.summary()
    shown = p2w.show_weights(tmp_path / "w").summary()
    assert "own  " in shown
    assert made.path.name in shown
    with pytest.raises(WeightsError, match="isn't an empty folder"):
        p2w.import_weights(made.name, out=tmp_path / "w")
    with pytest.raises(WeightsError, match="expected SOURCE:PATH"):
        p2w.import_weights(str(made.path), out=tmp_path / "x")


def test_weights_trained_here_keep_their_channels(stand_ins):
    card = convert(PublishedMedicalNet(), stand_ins("medicalnet_resnet10_backbone").path).card
    start = load_initialisation(stand_ins("medicalnet_resnet10_backbone").name)
    assert start.adapt(2).encoder.in_channels == 2
    ours = dataclasses.replace(start, card=dataclasses.replace(card, stem=""))
    assert ours.adapt(2) is ours
