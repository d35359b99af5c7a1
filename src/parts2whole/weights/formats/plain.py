"""Plain PyTorch: a file that builds an encoder without this package, as `torch.fx` has traced it.

The file's class has layers and tensors by the names they have here, so that ``encoder.safetensors`` loads
into it, and it can be trained on.  Input sizes stay free.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from parts2whole.networks.base import Encoder
from parts2whole.networks.blocks import BatchStatisticsNorm3d, SameConv3d, check_input, pad_same
from parts2whole.weights.formats.model import Exportable, compare

FILE = "encoder.py"
LAYERS = (BatchStatisticsNorm3d, SameConv3d)
"""Layers of this package, which the file brings along."""

HEAD = '''"""{title}: maps (batch, {channels}, depth, height, width) to a tuple of feature maps, finest first.

Values are in [0, 1], axes (z, y, x), edges multiples of {divisor}. Plain PyTorch, written by parts2whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

'''
INIT = """
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layers = {{
{layers}
        }}
        for name, layer in layers.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            module.add_module(last, layer)

"""


class _Tracer(fx.Tracer):
    """Takes the package's own layers as they are, and its checks as functions."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(pad_same, check_input))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or super().is_leaf_module(m, module_qualified_name)


def to_plain_torch(model: Exportable) -> tuple[str, float] | None:
    """The text of the file and the largest relative difference of its maps, over two sizes of input.

    Returns:
        None for a network whose computation depends on the input in ways that can't be traced.

    Raises:
        parts2whole.weights.formats.model.ExportError: the file computes something else.
    """
    try:
        text = _write(model.encoder, model)
    except (RuntimeError, TypeError, ValueError):  # what tracing raises, too
        return None
    names: dict[str, Any] = {}
    exec(compile(text, FILE, "exec", dont_inherit=True), names)
    again = names["Encoder"]().eval()
    again.load_state_dict(model.encoder.state_dict())
    worst = 0.0
    divisor = model.encoder.divisor
    for grown in (0, divisor):
        depth, *rest = (min(edge, 2 * divisor) for edge in model.size)
        size = (depth + grown, *rest)
        x = torch.rand(1, model.in_channels, *size, generator=torch.Generator().manual_seed(grown))
        with torch.no_grad():
            worst = max(worst, compare(list(model.encoder(x)), list(again(x)), FILE))
    return text, worst


def _write(encoder: Encoder, model: Exportable) -> str:
    graph = _Tracer().trace(encoder)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is check_input:
            graph.erase_node(node)
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    layers = {name: layer for name, layer in encoder.named_modules() if name in called or _has_state(layer)}
    if {*encoder.state_dict()} != {
        f"{name}.{key}" for name, one in layers.items() for key in one.state_dict()
    }:
        raise TypeError("there are tensors outside of layers")
    code = graph.python_code("self")
    source = code.src[code.src.index("def forward") :]
    source = re.sub(r"(?m);  [\w = ]+ = None$", "", source)
    source = re.sub(
        r"(?m)^def forward\(self, x.*$", "def forward(self, x: Tensor) -> tuple[Tensor, ...]:", source
    )
    made = {name: _call(layer) for name, layer in layers.items()}
    pieces: list[Any] = [kind for kind in LAYERS if any(isinstance(one, kind) for one in layers.values())]
    padding = next((name for name, value in code.globals.items() if value is pad_same), None)
    if padding or SameConv3d in pieces:
        pieces.insert(0, pad_same)
        source = source.replace(str(padding), "same_padding")
    return "".join(
        [
            HEAD.format(
                title=f"{type(model.network).__name__} encoder",
                channels=model.in_channels,
                divisor=encoder.divisor,
            ),
            *("\n" + _source(piece) + "\n" for piece in pieces),
            "\nsame_padding = pad_same\n" if padding else "",
            INIT.format(layers="\n".join(f'            "{name}": {text},' for name, text in made.items())),
            "".join(f"    {line}\n" if line else "\n" for line in source.strip().splitlines()),
        ]
    )


def _has_state(layer: nn.Module) -> bool:
    """Whether a module has tensors of its own, not those of modules in it."""
    own: Mapping[str, Tensor] = dict(layer.named_parameters(recurse=False)) | dict(
        layer.named_buffers(recurse=False)
    )
    return bool(own)


def _call(layer: nn.Module) -> str:
    """The call that makes a layer, without a default that older versions of PyTorch don't know."""
    return ("" if isinstance(layer, LAYERS) else "nn.") + repr(layer).replace(", bias=True", "")


def _source(piece: Any) -> str:
    """A class or function as it is written here, without what only a type checker reads."""
    text = inspect.getsource(piece)
    text = re.sub(r"  # type: ignore.*", "", text)
    return re.sub(r": (Stride|list\[int\])\b", "", text)
