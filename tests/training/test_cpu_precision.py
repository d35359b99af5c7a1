import pytest
import torch

import parts2whole as p2w
from parts2whole.files import read_json, write_json, write_text
from parts2whole.training import cpu_precision
from parts2whole.training.cpu_precision import KEPT, choose_cpu_precision, try_bfloat16
from parts2whole.training.folder import RunFolder
from parts2whole.training.runtime import Hardware, Runtime


@pytest.fixture
def machine(monkeypatch):
    """Set what the CPU has, and how a trial ends; every trial is counted."""
    trials = []

    def is_one(*, amx: bool = False, bfloat16: bool = True, faster: float = 1.0) -> list[float]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
        monkeypatch.setattr(cpu_precision, "try_bfloat16", lambda: trials.append(faster) or faster)
        return trials

    return is_one


def test_instructions_decide_without_a_trial(machine, tmp_path):
    trials = machine(amx=True)
    assert choose_cpu_precision(tmp_path).precision == "bf16-mixed"
    machine(bfloat16=False)
    assert choose_cpu_precision(tmp_path).precision == "32-true"
    assert not trials


@pytest.mark.parametrize(("faster", "precision"), [(0.8, "32-true"), (1.05, "32-true"), (1.5, "bf16-mixed")])
def test_a_trial_decides_and_its_outcome_is_kept(machine, tmp_path, faster, precision):
    trials = machine(faster=faster)
    chosen = choose_cpu_precision(tmp_path / "cache")
    assert chosen.precision == precision
    assert f"{faster:.2g}" in chosen.why
    machine(faster=10 - faster)
    assert choose_cpu_precision(tmp_path / "cache") == chosen
    assert len(trials) == 1


def test_another_version_of_torch_is_tried_anew(machine, tmp_path, monkeypatch):
    trials = machine(faster=2.0)
    choose_cpu_precision(tmp_path)
    monkeypatch.setattr(torch, "__version__", "99.0")
    choose_cpu_precision(tmp_path)
    assert len(trials) == len(read_json(tmp_path / KEPT)) == 2


def test_a_damaged_file_or_a_cache_that_cannot_be_written_is_no_obstacle(machine, tmp_path):
    machine(faster=2.0)
    (tmp_path / KEPT).write_text("{")
    assert choose_cpu_precision(tmp_path).precision == "bf16-mixed"
    (tmp_path / "file").touch()
    assert choose_cpu_precision(tmp_path / "file").precision == "bf16-mixed"


def test_a_trial_measures_and_leaves_random_numbers_and_threads_as_they_were():
    torch.manual_seed(0)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(0)
    assert 0.01 < try_bfloat16() < 100
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads


def test_a_run_says_what_was_chosen_and_goes_on_in_it(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine(faster=2.0)
    first = Runtime(Hardware(accelerator="cpu"))
    assert (first.precision, "2 times" in first.why) == ("bf16-mixed", True)
    assert dict(p2w.doctor().found)["precision"].startswith("auto is bf16-mixed here: bfloat16 has 2 times")
    run = tmp_path / "run"
    write_text(run / "config.yaml", "{}")
    write_json(run / "environment.json", {"device": "cpu", "precision": "32-true"})
    went_on = RunFolder(run, {}, resume="auto").as_begun(Hardware(accelerator="cpu"))
    assert went_on.precision == "32-true", "as it began, whatever a trial says today"
    asked = Hardware(accelerator="cpu", precision="bf16-mixed")
    assert RunFolder(run, {}, resume="auto").as_begun(asked) == asked
