from __future__ import annotations

import pytest

from parts2whole.training import runtime
from parts2whole.training.cluster import ClusterError, Launched, is_first_process, read_launch
from parts2whole.training.runtime import Hardware, resolve_layout

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "RANK": "5",
    "LOCAL_RANK": "1",
}
SRUN = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "pretrain"}


def test_torchrun_and_srun_are_recognised():
    assert read_launch(TORCHRUN) == Launched("torchrun", devices=4, nodes=2, rank=5)
    assert read_launch(SRUN) == Launched("srun", devices=2, nodes=2, rank=3)
    assert read_launch({}) is None
    assert read_launch(SRUN | {"SLURM_JOB_NAME": "bash"}) is None


def test_a_step_of_a_job_counts_its_own_tasks():
    step = SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"}
    assert read_launch(step) == Launched("srun", devices=1, nodes=1, rank=0)


def test_uneven_nodes_are_refused():
    with pytest.raises(ClusterError, match="5 processes on 2 nodes"):
        read_launch(SRUN | {"SLURM_NTASKS": "5"})


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        (TORCHRUN, False),
        (TORCHRUN | {"RANK": "0"}, True),
        (SRUN, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
    ],
)
def test_only_one_process_is_the_first(environment, first):
    assert is_first_process(environment) is first


def test_auto_takes_what_was_launched_and_a_contradiction_is_refused(monkeypatch):
    monkeypatch.setattr(runtime, "read_launch", lambda: read_launch(TORCHRUN))
    assert resolve_layout(Hardware()) == (4, 2)
    assert resolve_layout(Hardware(devices=4, nodes=2)) == (4, 2)
    with pytest.raises(ClusterError, match=r"torchrun started 4 processes a node.*devices 8"):
        resolve_layout(Hardware(devices=8))
    monkeypatch.setattr(runtime, "read_launch", lambda: None)
    assert resolve_layout(Hardware(devices=2)) == (2, 1)


def test_hardware_that_makes_no_sense_is_refused():
    with pytest.raises(ClusterError, match="micro_batch must be at least 1"):
        Hardware(micro_batch=0)
