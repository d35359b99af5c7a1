"""Threads that read ahead: none on a CPU, some beside a GPU, as many as one says."""

from __future__ import annotations

import pytest
import torch

from parts2whole.training.runtime import READERS, Hardware, Runtime


@pytest.mark.parametrize(("workers", "on_cpu", "on_gpu"), [("auto", 0, READERS), (0, 0, 0), (2, 2, 2)])
def test_readers(monkeypatch, workers, on_cpu, on_gpu):
    monkeypatch.setattr("parts2whole.training.runtime.usable_cores", lambda: 16)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true", workers=workers))
    assert runtime.readers == on_cpu
    monkeypatch.setattr(Runtime, "device", torch.device("cuda"))
    assert runtime.readers == on_gpu


def test_no_more_readers_than_cores(monkeypatch):
    monkeypatch.setattr("parts2whole.training.runtime.usable_cores", lambda: 2)
    runtime = Runtime(Hardware(accelerator="cpu", precision="32-true"))
    monkeypatch.setattr(Runtime, "device", torch.device("cuda"))
    assert runtime.readers == 2
