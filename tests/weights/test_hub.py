"""Weights by name: pushed to a hub on loopback, pulled from it and from the cache, and refused in one sentence."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch

import parts2whole as p2w
from parts2whole.cli import main
from parts2whole.training.transfer import card_of
from parts2whole.verbs.export import export_weights
from parts2whole.weights.base import WeightsError
from parts2whole.weights.card import Card
from parts2whole.weights.formats.model import Exportable, ExportError
from parts2whole.weights.formats.plain import to_plain_torch
from parts2whole.weights.hub import HubName, fetch, parse_hub
from parts2whole.weights.load import load_initialisation
from parts2whole.weights.native import Native, save_encoder, save_native, write_tensors
from weights.hub_server import Hub, serving

hub_library = pytest.importorskip("huggingface_hub")
NETWORK = p2w.UNet3D(size="tiny")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that the library talks to, with a cache of its own; its settings are read when it is imported."""
    found = Hub()
    with serving(found) as url:
        settings = {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(hub_library.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_made_up")
        yield found


@pytest.fixture
def weights(tmp_path):
    """A weights folder with a decoder that it was pre-trained with."""
    torch.manual_seed(0)
    encoder = NETWORK.build_encoder(1)
    card = Card(
        network=NETWORK, in_channels=1, preprocess=p2w.Preprocess(modality="CT"), whole_size=(16, 16, 16), whole_mm=None,
        spacing_mm=None, method={"class_path": "Parts2Whole"}, steps=7, seen=("abc",), fingerprint="f", series=("1.2.3",),
    )  # fmt: skip
    save_native(tmp_path / "weights", Native(card, encoder.state_dict(), {}))
    return tmp_path / "weights"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_weights_go_to_a_hub_and_come_back_by_name(hub, weights, tmp_path, capsys):
    assert (
        main(["weights", "export", str(weights), "--push", "clinic/hips", "--out", str(tmp_path / "out")])
        == 0
    )
    said = capsys.readouterr().out
    commit = hub.repositories["clinic/hips"]["main"]
    assert f"--init hf:clinic/hips@{commit}" in said
    assert "1 DICOM series by their UIDs" in said
    assert hub.private["clinic/hips"]
    assert set(hub.commits[commit]) == {"README.md", "card.json", "encoder.py", "encoder.safetensors"}
    found = load_initialisation("hf:clinic/hips")
    assert found.card.fetched == f"hf:clinic/hips@{commit}"
    assert found.card.seen == ("abc",)
    assert same(found.encoder.state_dict(), load_initialisation(weights).encoder.state_dict())
    assert card_of("hf:clinic/hips@main").network == NETWORK
    asked = {path.rpartition("/")[2] for method, path in hub.requests if "/resolve/" in path}
    assert asked == {"card.json", "encoder.safetensors"}  # and no code


def test_a_second_push_is_a_second_commit_and_a_revision_stays_what_it_was(hub, weights, tmp_path):
    first = export_weights(weights, out=tmp_path / "a", push="clinic/hips", public=True).pushed
    hub.tag("clinic/hips", "v1")
    encoder = NETWORK.build_encoder(1)
    save_native(weights, Native(load_initialisation(weights).card, encoder.state_dict(), {}))
    second = export_weights(weights, out=tmp_path / "b", push="clinic/hips").pushed
    assert first.revision != second.revision
    assert not hub.private["clinic/hips"]  # stays as it is
    assert fetch(HubName("clinic/hips", "v1")).name == first
    assert fetch(HubName("clinic/hips")).name == second
    assert fetch(HubName("clinic/hips", first.revision)).name == first


def test_the_cache_serves_without_a_network(hub, weights, monkeypatch):
    commit = hub.commit("clinic/hips", files_of(weights))
    fetch(HubName("clinic/hips"))
    before = len(hub.requests)
    monkeypatch.setattr(hub_library.constants, "HF_HUB_OFFLINE", True)
    for revision in (None, "main", commit):
        assert fetch(HubName("clinic/hips", revision)).name.revision == commit
    assert len(hub.requests) == before
    with pytest.raises(WeightsError, match=r"hf:clinic/hips@v2 is not in the cache .* HF_HUB_OFFLINE is set"):
        fetch(HubName("clinic/hips", "v2"))
    monkeypatch.setattr(hub_library.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_library.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    assert fetch(HubName("clinic/hips")).name.revision == commit
    with pytest.raises(
        WeightsError, match=r"hf:clinic/knees is not in the cache .* can't be reached; fetch it once"
    ):
        fetch(HubName("clinic/knees"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"pytorch_model.bin": b"x", "config.json": b"{}"},
            "pytorch_model.bin: pickles, which are never loaded",
        ),
        ({"encoder.safetensors": b"x"}, r"has no card.json, which .* it holds encoder.safetensors"),
        ({"README.md": b"x"}, r"no card.json and no encoder.safetensors, .* neither safetensors nor JSON"),
        ({"card.json": b"{", "encoder.safetensors": b"x"}, "not a card: .*card.json is not JSON"),
    ],
)
def test_what_a_repository_lacks_is_said(hub, files, said):
    hub.commit("clinic/hips", files)
    with pytest.raises(WeightsError, match=said) as caught:
        load_initialisation("hf:clinic/hips")
    assert "\n" not in str(caught.value)


def test_other_architectures_are_refused(hub, weights):
    card = json.loads((weights / "card.json").read_text())
    card["network"]["class_path"] = "Nowhere"
    hub.commit("clinic/hips", files_of(weights) | {"card.json": json.dumps(card).encode()})
    with pytest.raises(WeightsError, match="Nowhere"):
        load_initialisation("hf:clinic/hips")
    card["network"] = p2w.UNet3D(size="small").to_dict()
    hub.commit("clinic/hips", files_of(weights) | {"card.json": json.dumps(card).encode()})
    with pytest.raises(
        WeightsError, match=r"don't match their card, which says UNet3D\(size='small'.*size mismatch"
    ) as caught:
        load_initialisation("hf:clinic/hips")
    assert "\n" not in str(caught.value)


def test_names_revisions_and_repositories_that_are_not_there(hub, weights, monkeypatch, tmp_path):
    hub.commit("clinic/hips", files_of(weights))
    with pytest.raises(
        WeightsError, match="hf:clinic/hips has no revision v9; give a branch, a tag or a commit"
    ):
        fetch(HubName("clinic/hips", "v9"))
    with pytest.raises(WeightsError, match="has no repository clinic/knees that you may see"):
        fetch(HubName("clinic/knees"))
    for text in ("hf:hips", "hf:clinic/hips@", "hf:a/b/c"):
        with pytest.raises(
            WeightsError, match=re.escape(f"expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {text}")
        ):
            parse_hub(text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:x").mkdir()
    assert parse_hub("hf:x") is None  # a folder of that name
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install .*\[hub\]'"):
        fetch(HubName("clinic/hips"))


def test_a_push_that_fails_leaves_nothing(hub, weights, tmp_path):
    hub.refuse = 403
    with pytest.raises(
        WeightsError, match=r"clinic/hips could not be pushed to .* Log in with a token"
    ) as caught:
        export_weights(weights, out=tmp_path / "a", push="clinic/hips")
    assert "\n" not in str(caught.value)
    assert "clinic/hips" not in hub.repositories
    hub.refuse = 0
    kept = hub.commit("clinic/hips", {"README.md": b"mine"})
    hub.refuse = 500
    with pytest.raises(WeightsError, match="could not be pushed"):
        export_weights(weights, out=tmp_path / "b", push="clinic/hips")
    assert hub.repositories["clinic/hips"] == {"main": kept}
    with pytest.raises(WeightsError, match="a repository is OWNER/NAME, got 'hips'"):
        export_weights(weights, out=tmp_path / "c", push="hips")
    with pytest.raises(
        ExportError, match="must be an encoder with --to safetensors, got an encoder with --to onnx"
    ):
        export_weights(weights, to="onnx", out=tmp_path / "c", push="clinic/hips")
    assert not (tmp_path / "c").exists()


def test_the_lines_of_the_card_need_no_parts2whole(weights, tmp_path, monkeypatch):
    export_weights(weights, out=tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    x = torch.rand(1, 1, 16, 24, 16)
    encoder = load_initialisation(weights).encoder
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(str(tmp_path / "out"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts2whole"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    names: dict = {}
    try:
        exec(lines, names)
    finally:
        sys.modules.pop("encoder", None)
    plain = names["encoder"]
    for mode in (True, False):  # batch norm in both of its ways
        expected, got = encoder.train(mode)(x), plain.train(mode)(x)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, got, strict=True))
    got[-1].sum().backward()
    assert all(value.grad is not None for value in plain.parameters())


@pytest.mark.parametrize(
    "network",
    [
        p2w.UNet3D(size="tiny", norm="batch_statistics"),
        p2w.PlainUNet3D(widths=(4, 8), strides=((1, 1, 1), (1, 2, 2))),
        p2w.ResEncUNet3D(size="tiny"),
        p2w.ResNet3D(scaling="zscore"),
        p2w.I3D(scaling="signed"),
        p2w.HighRes3DNet(),
    ],
    ids=lambda network: type(network).__name__,
)
def test_every_network_that_can_be_traced_is_written_in_plain_pytorch(network):
    torch.manual_seed(0)
    encoder = network.build_encoder(2).eval()
    found = to_plain_torch(Exportable(encoder, network, 2, (2 * encoder.divisor,) * 3))
    assert found is not None
    text, worst = found
    assert worst < 1e-5
    assert "parts2whole" not in text.partition('"""\n')[2]


def test_a_network_that_cannot_be_traced_says_so(tmp_path):
    network = p2w.DenseVNet()
    encoder = network.build_encoder(1).eval()
    assert to_plain_torch(Exportable(encoder, network, 1, (16, 16, 16))) is None


def test_a_push_takes_away_what_an_earlier_one_had_more(hub, weights, tmp_path):
    card = load_initialisation(weights).card
    module = p2w.Parts2Whole().build(NETWORK, in_channels=1, whole_size=(16, 16, 16))
    save_encoder(tmp_path / "p2w", module.encoder, card)
    write_tensors(tmp_path / "p2w/model.safetensors", module.state_dict())
    first = export_weights(tmp_path / "p2w", out=tmp_path / "a", push="clinic/hips").pushed
    assert load_initialisation("hf:clinic/hips").decoder
    export_weights(weights, out=tmp_path / "b", push="clinic/hips")
    assert not load_initialisation("hf:clinic/hips").decoder
    assert load_initialisation(f"hf:clinic/hips@{first.revision}").decoder
