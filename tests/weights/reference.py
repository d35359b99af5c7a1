"""The published networks once more, in plain NumPy, slow and straight from their descriptions.

Each function asks for its tensors by the names and shapes of the published file and in that file's axis order, so that
running one both makes a stand-in file and says what the network should answer.  Nothing of the package is used.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import numpy as np

Array = np.ndarray
RELU = 2**0.5


class Drawn:
    """Stand-in tensors: every one from a generator of its own, seeded by its name."""

    def __init__(self, model: str, gain: float) -> None:
        self.model = model
        self.gain = gain
        self.tensors: dict[str, Array] = {}

    def __call__(self, name: str, shape: tuple[int, ...], kind: str) -> Array:
        rng = generator(f"{self.model}|{name}")
        if kind == "scale":
            value = rng.random(shape) + 0.5
        elif kind == "shift":
            value = rng.standard_normal(shape) * 0.1
        else:
            fan_in = np.prod(shape[:-1]) if kind == "tf_weight" else np.prod(shape[1:])
            value = rng.standard_normal(shape) * self.gain / np.sqrt(fan_in)
        self.tensors[name] = value.astype(np.float32)
        return self.tensors[name].astype(np.float64)


def generator(label: str) -> np.random.Generator:
    digest = hashlib.sha256(label.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def draw_input(model: str, shape: tuple[int, ...]) -> Array:
    return generator(f"input|{model}").standard_normal(shape).astype(np.float32)


# --- operations on (N, C, three axes) ------------------------------------------------------------------------------


def same(edge: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max(kernel - stride, 0) if edge % stride == 0 else max(kernel - edge % stride, 0)
    return total // 2, total - total // 2


def windows(x: Array, kernel, stride, pads, dilation, fill):
    """Every kernel offset, and the input seen through it."""
    x = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=fill)
    sizes = [
        (e - d * (k - 1) - 1) // s + 1
        for e, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    for offset in itertools.product(*map(range, kernel)):
        cut = tuple(
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, dilation, sizes, stride, strict=True)
        )
        yield offset, x[(slice(None), slice(None), *cut)]


def conv(
    x: Array, w: Array, *, stride: int = 1, pad: int | str = "same", dilation: int = 1, bias=None
) -> Array:
    kernel = w.shape[2:]
    if pad == "same":
        pads = [
            same(e, d, stride)
            for e, d in zip(x.shape[2:], [dilation * (k - 1) + 1 for k in kernel], strict=True)
        ]
    else:
        pads = [(pad, pad)] * 3
    total = 0
    for offset, seen in windows(x, kernel, [stride] * 3, pads, [dilation] * 3, 0.0):
        total = total + np.einsum(
            "ncdhw,oc->nodhw", seen, w[(slice(None), slice(None), *offset)], optimize=True
        )
    return total if bias is None else total + bias[None, :, None, None, None]


def max_pool(x: Array, kernel, stride, pads=None) -> Array:
    pads = pads or [same(e, k, s) for e, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    return np.max([seen for _, seen in windows(x, kernel, stride, pads, (1, 1, 1), -np.inf)], axis=0)


def up_conv(x: Array, w: Array, bias: Array) -> Array:
    """Transposed convolution with kernel 2 and stride 2; w is (in, out, 2, 2, 2)."""
    n, _, *edges = x.shape
    out = np.zeros((n, w.shape[1], *(2 * e for e in edges)))
    for a, b, c in itertools.product((0, 1), repeat=3):
        out[:, :, a::2, b::2, c::2] = np.einsum("ncdhw,co->nodhw", x, w[:, :, a, b, c], optimize=True)
    return out + bias[None, :, None, None, None]


def normalise(x: Array, mean: Array, variance: Array, scale: Array, shift: Array, eps: float) -> Array:
    mean, variance, scale, shift = (v.reshape(1, -1, 1, 1, 1) for v in (mean, variance, scale, shift))
    return (x - mean) / np.sqrt(variance + eps) * scale + shift


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def bn(w: Drawn, name: str, x: Array, eps: float = 1e-5, *, scale: bool = True) -> Array:
    c = (x.shape[1],)
    gamma = w(f"{name}.weight", c, "scale") if scale else np.ones(c)
    mean, variance = w(f"{name}.running_mean", c, "shift"), w(f"{name}.running_var", c, "scale")
    return normalise(x, mean, variance, gamma, w(f"{name}.bias", c, "shift"), eps)


# --- MedicalNet ----------------------------------------------------------------------------------------------------


def medicalnet(
    w: Drawn, x: Array, *, blocks, bottleneck: bool, shortcut: str, head: bool
) -> dict[str, Array]:
    wide = 4 if bottleneck else 1
    x = relu(bn(w, "bn1", conv(x, w("conv1.weight", (64, x.shape[1], 7, 7, 7), "weight"), stride=2, pad=3)))
    x = max_pool(x, (3, 3, 3), (2, 2, 2), [(1, 1)] * 3)
    found = {}
    for layer, (count, width, first, dilation) in enumerate(
        zip(blocks, (64, 128, 256, 512), (1, 2, 1, 1), (1, 1, 2, 4), strict=True), start=1
    ):
        for number in range(count):
            name, stride = f"layer{layer}.{number}", first if number == 0 else 1

            def kernel(n: int, out: int, inside: int, edge: int, name=name) -> Array:
                return w(f"{name}.conv{n}.weight", (out, inside, edge, edge, edge), "weight")

            wide_conv = {"stride": stride, "pad": dilation, "dilation": dilation}
            if bottleneck:
                y = relu(bn(w, f"{name}.bn1", conv(x, kernel(1, width, x.shape[1], 1), pad=0)))
                y = relu(bn(w, f"{name}.bn2", conv(y, kernel(2, width, width, 3), **wide_conv)))
                y = bn(w, f"{name}.bn3", conv(y, kernel(3, 4 * width, width, 1), pad=0))
            else:
                y = relu(bn(w, f"{name}.bn1", conv(x, kernel(1, width, x.shape[1], 3), **wide_conv)))
                y = bn(w, f"{name}.bn2", conv(y, kernel(2, width, width, 3), pad=dilation, dilation=dilation))
            identity = x
            if stride != 1 or x.shape[1] != width * wide:
                if shortcut == "A":
                    identity = x[:, :, ::stride, ::stride, ::stride]
                    zeros = np.zeros((len(x), width * wide - x.shape[1], *identity.shape[2:]))
                    identity = np.concatenate([identity, zeros], axis=1)
                else:
                    one = w(f"{name}.downsample.0.weight", (width * wide, x.shape[1], 1, 1, 1), "weight")
                    identity = bn(w, f"{name}.downsample.1", conv(x, one, stride=stride, pad=0))
            x = relu(y + identity)
        found[f"layer{layer}"] = x
    if head:
        up = w("conv_seg.0.weight", (x.shape[1], 32, 2, 2, 2), "weight")
        y = relu(bn(w, "conv_seg.1", up_conv(x, up, w("conv_seg.0.bias", (32,), "shift"))))
        y = relu(bn(w, "conv_seg.4", conv(y, w("conv_seg.3.weight", (32, 32, 3, 3, 3), "weight"), pad=1)))
        found["seg"] = conv(y, w("conv_seg.6.weight", (2, 32, 1, 1, 1), "weight"), pad=0)
    return found


# --- Models Genesis, axes (x, y, z) --------------------------------------------------------------------------------


def models_genesis(w: Drawn, x: Array) -> dict[str, Array]:
    def unit(name: str, x: Array, out: int) -> Array:
        kernel = w(f"{name}.conv1.weight", (out, x.shape[1], 3, 3, 3), "weight")
        x = conv(x, kernel, pad=1, bias=w(f"{name}.conv1.bias", (out,), "shift"))
        mean, variance = x.mean(axis=(0, 2, 3, 4)), x.var(axis=(0, 2, 3, 4))
        scale, shift = w(f"{name}.bn1.weight", (out,), "scale"), w(f"{name}.bn1.bias", (out,), "shift")
        w(f"{name}.bn1.running_mean", (out,), "shift"), w(f"{name}.bn1.running_var", (out,), "scale")
        return relu(normalise(x, mean, variance, scale, shift, 1e-5))

    skips = []
    for level, width in enumerate((64, 128, 256, 512)):
        name = f"down_tr{width}.ops"
        x = unit(f"{name}.1", unit(f"{name}.0", x, width // 2), width)
        if level < 3:
            skips.append(x)
            x = max_pool(x, (2, 2, 2), (2, 2, 2))
    found = {"out512": x}
    for width in (256, 128, 64):
        name, below = f"up_tr{width}", x.shape[1]
        kernel = w(f"{name}.up_conv.weight", (below, below, 2, 2, 2), "weight")
        x = np.concatenate(
            [up_conv(x, kernel, w(f"{name}.up_conv.bias", (below,), "shift")), skips.pop()], axis=1
        )
        x = unit(f"{name}.ops.1", unit(f"{name}.ops.0", x, width), width)
    last = w("out_tr.final_conv.weight", (1, 64, 1, 1, 1), "weight")
    found["final_conv"] = conv(x, last, pad=0, bias=w("out_tr.final_conv.bias", (1,), "shift"))
    found["output"] = 1 / (1 + np.exp(-found["final_conv"]))
    return found


# --- I3D -----------------------------------------------------------------------------------------------------------

BRANCHES = {
    "piergiaj": ("b0", "b1a", "b1b", "b2a", "b2b", "b3b"),
    "hassony2": ("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1"),
    "deepmind": (
        "Branch_0/Conv3d_0a_1x1",
        "Branch_1/Conv3d_0a_1x1",
        "Branch_1/Conv3d_0b_3x3",
        "Branch_2/Conv3d_0a_1x1",
        "Branch_2/Conv3d_0b_3x3",
        "Branch_3/Conv3d_0b_1x1",
    ),
}
INCEPTION = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def i3d(w: Drawn, x: Array, *, layout: str, classes: int) -> dict[str, Array]:
    def unit(name: str, x: Array, out: int, edge: int, stride: int = 1) -> Array:
        if layout == "deepmind":
            name = f"RGB/inception_i3d/{name}"
            kernel = w(f"{name}/conv_3d/w", (edge, edge, edge, x.shape[1], out), "tf_weight").transpose(
                4, 3, 0, 1, 2
            )
            x, scope = conv(x, kernel, stride=stride), f"{name}/batch_norm"
            shift, mean = w(f"{scope}/beta", (out,), "shift"), w(f"{scope}/moving_mean", (out,), "shift")
            variance = w(f"{scope}/moving_variance", (out,), "scale")
            return relu(normalise(x, mean, variance, np.ones(out), shift, 1e-3))
        kernel = w(f"{name}.conv3d.weight", (out, x.shape[1], edge, edge, edge), "weight")
        norm = f"{name}.bn" if layout == "piergiaj" else f"{name}.batch3d"
        return relu(bn(w, norm, conv(x, kernel, stride=stride), 1e-3))

    def called(name: str) -> str:
        return name.lower() if layout == "hassony2" else name

    found = {"Conv3d_1a_7x7": unit(called("Conv3d_1a_7x7"), x, 64, 7, 2)}
    x = max_pool(found["Conv3d_1a_7x7"], (1, 3, 3), (1, 2, 2))
    x = unit(called("Conv3d_2c_3x3"), unit(called("Conv3d_2b_1x1"), x, 64, 1), 192, 3)
    x = max_pool(x, (1, 3, 3), (1, 2, 2))
    for name, (a, b, c, d, e, f) in INCEPTION.items():
        if name == "Mixed_4b":
            x = max_pool(x, (3, 3, 3), (2, 2, 2))
        if name == "Mixed_5b":
            x = max_pool(x, (2, 2, 2), (2, 2, 2))
        join = "/" if layout == "deepmind" else "."
        names = [f"{called(name)}{join}{branch}" for branch in BRANCHES[layout]]
        if layout == "deepmind" and name == "Mixed_5b":
            names[4] = names[4].replace("0b_3x3", "0a_3x3")
        x = np.concatenate(
            [
                unit(names[0], x, a, 1),
                unit(names[2], unit(names[1], x, b, 1), c, 3),
                unit(names[4], unit(names[3], x, d, 1), e, 3),
                unit(names[5], max_pool(x, (3, 3, 3), (1, 1, 1)), f, 1),
            ],
            axis=1,
        )
        found[name] = x
    pooled = x.mean(axis=(2, 3, 4), keepdims=True)
    if layout == "deepmind":
        scope = "RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d"
        kernel = w(f"{scope}/w", (1, 1, 1, 1024, classes), "tf_weight").transpose(4, 3, 0, 1, 2)
        bias = w(f"{scope}/b", (classes,), "shift")
    else:
        name = "logits" if layout == "piergiaj" else "conv3d_0c_1x1"
        kernel = w(f"{name}.conv3d.weight", (classes, 1024, 1, 1, 1), "weight")
        bias = w(f"{name}.conv3d.bias", (classes,), "shift")
    logits = conv(pooled, kernel, bias=bias)[:, :, :, 0, 0]
    return found | {"pooled": pooled, "logits": logits.mean(axis=2) if layout == "hassony2" else logits}


# --- NiftyNet, axes (x, y, z), kernels (x, y, z, in, out) ----------------------------------------------------------


def tf_bn(w: Drawn, scope: str, x: Array) -> Array:
    c = (x.shape[1],)
    shift, scale = w(f"{scope}/beta", c, "shift"), w(f"{scope}/gamma", c, "scale")
    mean, variance = w(f"{scope}/moving_mean", c, "shift"), w(f"{scope}/moving_variance", c, "scale")
    return normalise(x, mean, variance, scale, shift, 1e-5)


def tf_conv(w: Drawn, name: str, x: Array, out: int, edge: int, **how) -> Array:
    kernel = w(f"{name}/w", (edge, edge, edge, x.shape[1], out), "tf_weight").transpose(4, 3, 0, 1, 2)
    return conv(x, kernel, **how)


def resize(x: Array, edges: tuple[int, ...]) -> Array:
    for axis, new in enumerate(edges, start=2):
        old = x.shape[axis]
        places = np.arange(new) * old / new
        low = np.floor(places).astype(int)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(5)])
        upper = np.take(x, np.minimum(low + 1, old - 1), axis)
        x = np.take(x, low, axis) * (1 - share) + upper * share
    return x


def densevnet(w: Drawn, x: Array, *, classes: int, prior: int) -> dict[str, Array]:
    def unit(scope: str, x: Array, out: int, stride: int = 1) -> Array:
        return relu(tf_bn(w, f"{scope}/bn_", tf_conv(w, f"{scope}/conv_", x, out, 3, stride=stride)))

    edges = x.shape[2:]
    pads = [same(edge, 3, 2) for edge in edges]
    seen = [s for _, s in windows(x, (3, 3, 3), (2, 2, 2), pads, (1, 1, 1), np.nan)]
    halved = tf_bn(w, "DenseVNet/batch_norm", np.nanmean(seen, axis=0))
    stem = tf_bn(w, "DenseVNet/conv_bn/bn_", tf_conv(w, "DenseVNet/conv_bn/conv_", x, 24, 5, stride=2))
    here, found = np.concatenate([halved, stem], axis=1), {}
    for block, (units, growth, skip) in enumerate(zip((5, 10, 10), (4, 8, 16), (12, 24, 24), strict=True)):
        scope = "DenseVNet/dense_feature_stack_block" + (f"_{block}" if block else "")
        for number in range(units):
            name = f"{scope}/dense_feature_stack_block/conv_bn_relu" + (f"_{number}" if number else "")
            here = np.concatenate([here, unit(name, here, growth)], axis=1)
        found[f"skip{block + 1}"] = unit(f"{scope}/conv_bn_relu", here, skip)
        if block < 2:
            here = unit(f"{scope}/conv_bn_relu_1", here, 24, 2)
    half = tuple(edge // 2 for edge in edges)
    joined = np.concatenate([halved, *(resize(skip, half) for skip in found.values())], axis=1)
    logits = tf_conv(w, "DenseVNet/conv/conv_", joined, classes, 3)
    logits = logits + w("DenseVNet/conv/conv_/b", (classes,), "shift")[None, :, None, None, None]
    if prior:
        values = w("DenseVNet/spatial_prior_block/prior", (1, prior, prior, prior, 1), "scale")
        logits = logits + np.log(resize(np.moveaxis(values, -1, 1), half))
    return found | {"half_res_logits": logits, "output": resize(logits, edges)}


def highres3dnet(w: Drawn, x: Array, *, classes: int) -> dict[str, Array]:
    def called(name: str) -> str:
        return f"HighRes3DNet/{name}"

    x = tf_conv(w, called("conv_0_bn_relu/conv_"), x, 16, 3)
    x = relu(tf_bn(w, called("conv_0_bn_relu/bn_"), x))
    found = {}
    for group, (width, dilation) in enumerate(zip((16, 32, 64), (1, 2, 4), strict=True), start=1):
        for number in range(3):
            name, y = f"res_{group}_{number}", x
            for step in (0, 1):
                y = relu(tf_bn(w, called(f"{name}/bn_{step}"), y))
                y = tf_conv(w, called(f"{name}/conv_{step}"), y, width, 3, pad=dilation, dilation=dilation)
            side = (width - x.shape[1]) // 2
            x = y + np.pad(x, ((0, 0), (side, side), (0, 0), (0, 0), (0, 0)))
            found[name] = x
    x = relu(tf_bn(w, called("conv_1_bn_relu/bn_"), tf_conv(w, called("conv_1_bn_relu/conv_"), x, 80, 1)))
    x = tf_bn(w, called("conv_2_bn/bn_"), tf_conv(w, called("conv_2_bn/conv_"), x, classes, 1))
    return found | {"output": x}


# --- stand-in files ------------------------------------------------------------------------------------------------

BASIC, DEEP = (1, 1, 1, 1), (2, 2, 2, 2)
MODELS: dict[str, tuple[Callable[..., dict[str, Array]], dict, tuple[int, ...], float]] = {
    "medicalnet_resnet10": (
        medicalnet,
        {"blocks": BASIC, "bottleneck": False, "shortcut": "B", "head": True},
        (1, 1, 8, 24, 16),
        1.0,
    ),
    "medicalnet_resnet10_backbone": (
        medicalnet,
        {"blocks": BASIC, "bottleneck": False, "shortcut": "B", "head": False},
        (1, 1, 8, 8, 8),
        1.0,
    ),
    "medicalnet_resnet18": (
        medicalnet,
        {"blocks": DEEP, "bottleneck": False, "shortcut": "A", "head": False},
        (1, 1, 8, 16, 8),
        1.0,
    ),
    "medicalnet_resnet50": (
        medicalnet,
        {"blocks": (3, 4, 6, 3), "bottleneck": True, "shortcut": "B", "head": True},
        (1, 1, 8, 8, 8),
        1.0,
    ),
    "models_genesis": (models_genesis, {}, (2, 1, 24, 16, 8), RELU),
    "i3d": (i3d, {"layout": "piergiaj", "classes": 5}, (1, 3, 9, 35, 46), RELU),
    "i3d_hassony2": (i3d, {"layout": "hassony2", "classes": 5}, (1, 3, 8, 32, 32), RELU),
    "i3d_deepmind": (i3d, {"layout": "deepmind", "classes": 5}, (1, 3, 8, 32, 32), RELU),
    "niftynet_densevnet": (densevnet, {"classes": 4, "prior": 0}, (2, 1, 24, 16, 8), RELU),
    "niftynet_densevnet_prior": (densevnet, {"classes": 4, "prior": 6}, (1, 1, 16, 8, 24), RELU),
    "niftynet_highres3dnet": (highres3dnet, {"classes": 4}, (1, 1, 9, 8, 10), RELU),
}


def stand_in(model: str) -> tuple[dict[str, Array], Array, dict[str, Array]]:
    """Tensors by published names, an input in the source's own axes, and what the network answers."""
    function, settings, shape, gain = MODELS[model]
    drawn = Drawn(model, gain)
    x = draw_input(model, shape)
    found = function(drawn, x.astype(np.float64), **settings)
    return drawn.tensors, x, found
