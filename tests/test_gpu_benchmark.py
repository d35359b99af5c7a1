"""`benchmarks/gpu.py` runs: without a GPU, in tiny sizes, and past a section that fails."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The script and its neighbours, which import each other from their folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


@pytest.fixture
def bench(gpu, tmp_path):
    found = gpu.Bench(dry=True, deadline=time.monotonic() + 600, folder=tmp_path)
    found.found["peaks"] = dict.fromkeys(("bf16_tflops", "tf32_tflops", "float32_tflops", "copy_tb_s"), 1.0)
    return found


@pytest.mark.parametrize("name", ["shortage", "inference", "loader"])
def test_a_section_runs_dry(gpu, bench, name):
    section = gpu.Section(name, "A title")
    gpu.run(section, bench)
    assert section.wrong == []
    assert section.raw
    assert sum(line.startswith("| ") for line in section.lines) > 1


def test_a_section_that_fails_is_written_as_failed(gpu, bench, monkeypatch, tmp_path):
    monkeypatch.setitem(gpu.SECTIONS, "steps", lambda bench, section: 1 / 0)
    section = gpu.Section("steps", "A title")
    gpu.run(section, bench)
    machine = {"device": "d", "cores": 1, "torch": "t", "cuda": "c", "cudnn": 1, "date": "2026-01-01"}
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    gpu.write(page, figures, machine | {"peaks": bench.found["peaks"]}, [section])
    assert "- **Failed**: `ZeroDivisionError: division by zero`" in page.read_text()
    assert "ZeroDivisionError" in json.loads(figures.read_text())["sections"][0]["raw"][0]["error"]


def test_sections_of_an_earlier_run_on_such_a_machine_stay(gpu, tmp_path):
    machine = {"device": "d", "cores": 1, "torch": "t", "cuda": "c", "cudnn": 1, "date": "2026-01-01"}
    figures = tmp_path / "figures.json"
    section = gpu.Section("resume", "A title", lines=["line"], wrong=["what"])
    peaks = {"peaks": dict.fromkeys(("bf16_tflops", "tf32_tflops", "float32_tflops", "copy_tb_s"), 1.0)}
    gpu.write(None, figures, machine | peaks, [section])
    assert gpu.earlier(figures, machine | {"date": "2026-01-02"}) == [section]
    assert gpu.earlier(figures, machine | {"device": "another"}) == []
    assert gpu.earlier(tmp_path / "none.json", machine) == []


def test_nothing_begins_when_the_time_is_over(gpu, bench):
    bench.deadline = time.monotonic()
    section = gpu.Section("shortage", "A title")
    gpu.run(section, bench)
    assert section.raw == []
    assert any("the time was over" in line for line in section.lines)


def test_work_is_counted(gpu):
    """A convolution's: 2 x 27 x 2 x 3 x voxels forward, as much for the weights, none for an input without."""
    import torch
    from gpu_measure import count_work

    layer, x = torch.nn.Conv3d(2, 3, 3, padding=1, bias=False), torch.rand(1, 2, 4, 4, 4)
    flops, moved = count_work(lambda: layer(x).sum().backward())
    assert flops == 2 * (2 * 27 * 2 * 3 * 64)
    assert moved > 4 * (x.numel() + 3 * 64 + 2 * layer.weight.numel())
