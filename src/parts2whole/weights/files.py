"""From a file that somebody else wrote to a mapping of tensors, without ever executing what it says."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from parts2whole.errors import first_line
from parts2whole.files import hash_file
from parts2whole.weights.base import WeightsError
from parts2whole.weights.tensorflow_bundle import find_bundle, read_bundle

WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "model", "net", "student")
"""Where checkpoints keep the tensors when they hold more than them."""

PREFIXES = ("module.", "_orig_mod.")
"""What wrappers for several devices and for compilation put before every name."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; see `read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a PyTorch, ``.npz`` or safetensors file, or of a TensorFlow checkpoint, by name.

    Returns:
        The tensors, and what a PyTorch file holds beside them.

    Raises:
        WeightsError: the file is missing, truncated, of another kind, or needs code to be loaded.
    """
    bundle = find_bundle(path)
    if bundle is not None:
        return {name.removesuffix(":0"): value for name, value in read_bundle(bundle).items()}, {}
    if not path.is_file():
        what = "is a folder without a TensorFlow checkpoint" if path.is_dir() else "doesn't exist"
        raise WeightsError(f"{path} {what}; give the file of published weights after the colon")
    about: dict[str, Any] = {}
    if path.suffix == ".npz":
        tensors = _read_npz(path)
    elif path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged: {error}") from error
    else:
        tensors, about = _read_torch(path)
    if not tensors:
        raise WeightsError(f"{path} holds no tensors")
    return tensors, about


def checksum(path: Path) -> dict[str, str]:
    """SHA-256 of the file, or of every file of a TensorFlow checkpoint, by file name."""
    bundle = find_bundle(path)
    files = [path]
    if bundle is not None:
        files = [Path(f"{bundle}.index"), *sorted(bundle.parent.glob(bundle.name + ".data-*"))]
    return {each.name: hash_file(each) for each in files}


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error)
        if "GLOBAL" in reason or "Unsupported global" in reason or "not an allowed global" in reason:
            raise WeightsError(
                f"{path} holds more than tensors: loading it would run code from the file, which is never "
                "done. Save its state_dict alone where you trust it"
            ) from error
        raise WeightsError(f"{path} is damaged, or no PyTorch file") from error
    except Exception as error:  # a damaged file makes torch raise whatever its parsers stumble over
        raise WeightsError(f"{path} is damaged, or no PyTorch file: {first_line(error)}") from error
    about = content if isinstance(content, Mapping) else {}
    beside = {str(k): v for k, v in about.items() if k not in WRAPPERS and not isinstance(v, Tensor)}
    return unwrap(content, path), beside


def unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of what ``torch.load`` gave, without wrappers and prefixes."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a mapping of names to tensors")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read_npz(path: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is damaged, or no .npz file")
    tensors = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                tensors[name.removesuffix(":0")] = torch.from_numpy(np.array(archive[name]))
    except ValueError as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise WeightsError(
                f"{path} holds object arrays: loading them would run code from the file, which is never "
                "done. Save plain numeric arrays"
            ) from error
        raise WeightsError(f"{path} is damaged: {error}") from error
    except TypeError as error:
        raise WeightsError(f"{path} holds arrays that are not numeric: {error}") from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
        raise WeightsError(f"{path} is damaged, or no .npz file: {error}") from error
    return tensors
