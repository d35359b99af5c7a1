"""TorchScript and ONNX: the computation itself, for one size of input, compared with its origin."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch

from parts2whole.extras import install_hint
from parts2whole.weights.formats.model import Exportable, ExportError, compare


def to_torchscript(model: Exportable, path: Path) -> float:
    """Trace, write, read back and compare; returns the largest relative difference.

    Raises:
        ExportError: the traced module gives something else.
    """
    example = model.example()
    jit: Any = importlib.import_module("torch.jit")  # it ships no types
    with warnings.catch_warnings():
        # Sizes become constants, and that is what is written on the model card.
        warnings.filterwarnings("ignore", category=jit.TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.*")
        jit.save(jit.trace(model.module, example, check_trace=False), str(path))
        again = jit.load(str(path))
    other = model.example(1)
    with torch.no_grad():
        found: Any = again(other)
    return compare(model.run(other), list(found) if isinstance(found, tuple) else [found], "TorchScript")


def to_onnx(model: Exportable, path: Path) -> float:
    """Export, run by onnxruntime and compare; returns the largest relative difference.

    Raises:
        ExportError: packages are missing, or onnxruntime gives something else.
    """
    try:
        runtime: Any = importlib.import_module("onnxruntime")
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise ExportError(
            f"ONNX needs packages that are not installed ({error}): {install_hint('export')}"
        ) from error
    outputs = [f"level{number}" for number in range(len(model.encoder.channels))]
    names = ["logits"] if model.classes else outputs
    torch.onnx.export(
        model.module,
        (model.example(),),
        str(path),
        input_names=["image"],
        output_names=names,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    other = model.example(1)
    found = [torch.from_numpy(value) for value in session.run(None, {"image": other.numpy()})]
    return compare(model.run(other), found, "ONNX")
