"""Files as their sources publish them, of the public networks with random weights, and what these compute.

The networks are MONAI's own modules; those of nnU-Net and of Models Genesis aren't a requirement of the tests, so
names are written out from their public code, and computing is checked against this project's, which was compared
with dynamic_network_architectures 0.4.4 and with the recordings of Models Genesis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from monai.networks import nets
from monai.networks.nets.segresnet_ds import SegResEncoder
from monai.networks.nets.swin_unetr import SwinTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

import parts2whole as p2w


@dataclasses.dataclass(frozen=True)
class Public:
    """A file, and what its network makes of an image as it was trained on: maps, finest first, and logits."""

    source: str
    path: Path
    maps: Callable[[Tensor], list[Tensor]]
    logits: Callable[[Tensor], Tensor] | None
    skipped: tuple[str, ...]


def settle(module: nn.Module, size: tuple[int, int, int]) -> nn.Module:
    """Nothing at its initial value, batch norms with statistics; in eval mode."""
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.05 * torch.randn_like(value))
        module.train()
        for _ in range(2):
            module(torch.rand(2, 1, *size))
    return module.eval()


def suprem_segresnet(folder: Path) -> Public:
    net = nets.SegResNet(
        blocks_down=[1, 2, 2, 4],
        blocks_up=[1, 1, 1],
        init_filters=8,
        in_channels=1,
        out_channels=4,
        dropout_prob=0.0,
    )
    settle(net, (16, 16, 16))
    path = folder / "supervised_suprem_segresnet_2100.pth"
    torch.save({"net": {f"module.{k}": v for k, v in net.state_dict().items()}, "epoch": 1}, path)
    return Public("suprem", path, lambda x: net.encode(x)[1], net, ())


def ct_fm(folder: Path, *, whole: bool) -> Public:
    path = folder / "model.safetensors"
    if not whole:
        encoder = settle(
            SegResEncoder(init_filters=4, blocks_down=(1, 2, 2, 4, 4), head_module=lambda x: x[-1]),
            (32, 32, 32),
        )
        save_file(encoder.state_dict(), path)
        encoder.head_module = None
        return Public("ct_fm", path, encoder, None, ())
    net = settle(
        nets.SegResNetDS(init_filters=4, blocks_down=(1, 2, 2, 4, 4), out_channels=3, dsdepth=4), (32, 32, 32)
    )
    save_file(net.state_dict(), path)
    heads = tuple(f"up_layers.{n}.head.{kind}" for n in range(3) for kind in ("weight", "bias"))
    return Public("ct_fm", path, net.encoder, net, heads)


def swin(folder: Path, *, v2: bool) -> SwinTransformer:
    return settle(
        SwinTransformer(1, 12, (7, 7, 7), (2, 2, 2), (2, 2, 2, 2), (3, 6, 12, 24), spatial_dims=3, use_v2=v2),
        (32, 32, 32),
    )


def voco(folder: Path) -> Public:
    net = swin(folder, v2=True)
    path = folder / "VoCo_B_SSL_head.pt"
    rest = {
        "encoder1.layer.conv1.conv.weight": torch.rand(2, 1, 3, 3, 3),
        "student.layer1.0.weight": torch.rand(2, 2),
    }
    named = {f"backbone.swinViT.{k}": v for k, v in net.state_dict().items()}
    torch.save(named | rest, path)
    return Public("voco", path, net, None, tuple(rest))


def swin_unetr(folder: Path) -> Public:
    net = swin(folder, v2=False)
    path = folder / "model_swinvit.pt"
    old = {k.replace("linear1", "fc1").replace("linear2", "fc2"): v for k, v in net.state_dict().items()}
    rest = {"norm.weight": torch.rand(2), "rotation_head.weight": torch.rand(4, 2)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in (old | rest).items()}, "epoch": 1}, path)
    return Public("swin_unetr", path, net, None, tuple(rest))


def suprem_unet(folder: Path) -> Public:
    """The names of SuPreM's ``backbone/unet.py``, which is Models Genesis' network."""
    torch.manual_seed(0)
    network = p2w.UNet3D(size="base", norm="batch_statistics")
    encoder = settle(network.build_encoder(1), (16, 16, 16))
    names = {}
    for level, width in enumerate((64, 128, 256, 512)):
        for unit in (0, 1):
            for ours, theirs in (("0", "conv1"), ("1", "bn1")):
                for key, value in encoder.get_submodule(f"levels.{level}.{unit}.{ours}").state_dict().items():
                    names[f"module.backbone.down_tr{width}.ops.{unit}.{theirs}.{key}"] = value
    path = folder / "supervised_suprem_unet_2100.pth"
    rest = {"module.organ_embedding": torch.rand(2, 2)}
    torch.save({"net": names | rest}, path)
    return Public("suprem", path, lambda x: list(encoder(x)), None, ("organ_embedding",))


def openmind(folder: Path, *, plan: dict | None = None) -> Public:
    """The names of nnU-Net's ``ResidualEncoderUNet``, as `parts2whole.weights.formats.nnunet` writes them."""
    from parts2whole.networks.heads import OwnDecoder
    from parts2whole.weights.formats.model import Exportable
    from parts2whole.weights.formats.nnunet import to_nnunet

    network = p2w.ResEncUNet3D(size="tiny")
    module = OwnDecoder(network.build_encoder(1), network.build_own(1, 1))
    settle(module, (16, 16, 16))
    state = to_nnunet(Exportable(module, network, 1, (16, 16, 16), ("0",)))
    path = folder / "checkpoint_final.pth"
    supervised = {
        "decoder.seg_layers.0.weight": torch.rand(1, 32, 1, 1, 1),
        "decoder.seg_layers.0.bias": torch.rand(1),
    }
    about = {} if plan is None else {"nnssl_adaptation_plan": plan}
    torch.save({"network_weights": state | supervised, "citations": ["somebody"], **about}, path)
    twice = [k for k in state if ".all_modules." in k or k.startswith("decoder.encoder.")]
    return Public("openmind", path, lambda x: list(module.encoder(x)), module, (*twice, *supervised))


FILES: dict[str, Callable[[Path], Public]] = {
    "suprem segresnet": suprem_segresnet,
    "suprem unet": suprem_unet,
    "ct_fm encoder": lambda folder: ct_fm(folder, whole=False),
    "ct_fm whole": lambda folder: ct_fm(folder, whole=True),
    "voco": voco,
    "swin_unetr": swin_unetr,
    "openmind": openmind,
}
