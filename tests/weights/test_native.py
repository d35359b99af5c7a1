"""Tensors on disk: read back as they were, by everybody who may read other new files."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors import safe_open

from parts2whole.weights.native import write_tensors


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_tensors_may_be_read_by_whom_the_user_lets_read(tmp_path, umask):
    path = tmp_path / "new" / "a.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    before = os.umask(umask)
    try:
        write_tensors(path, tensors, {"format": "pt"})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {*file.keys()} == {*tensors}
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
