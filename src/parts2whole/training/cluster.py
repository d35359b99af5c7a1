"""Which process this is among how many, read from the launcher's environment: torchrun, srun, or none."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from parts2whole.errors import Parts2WholeError


class ClusterError(Parts2WholeError, ValueError):
    """Settings that contradict how the processes were launched."""


@dataclasses.dataclass(frozen=True)
class Launched:
    """How a launcher has started the processes of this run.

    Attributes:
        by: ``torchrun`` or ``srun``.
        devices: processes on every node.
        nodes: number of nodes.
        rank: this process among all.
    """

    by: str
    devices: int
    nodes: int
    rank: int


def read_launch(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """What torchrun or SLURM's srun says; None where this process was started by hand.

    Raises:
        ClusterError: nodes with different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        everywhere, here = int(environment["WORLD_SIZE"]), int(environment["LOCAL_WORLD_SIZE"])
        return _launched("torchrun", everywhere, everywhere // here, int(environment["RANK"]))
    if "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        everywhere = int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)
        nodes = int(environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or 1)
        return _launched("srun", everywhere, nodes, int(environment["SLURM_PROCID"]))
    return None


def is_first_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that writes, known before the processes have met."""
    launched = read_launch(environment)
    if launched is not None:
        return launched.rank == 0
    ranks = (environment.get(name, "0") for name in ("RANK", "NODE_RANK", "LOCAL_RANK"))
    return all(rank == "0" for rank in ranks)


def _launched(by: str, everywhere: int, nodes: int, rank: int) -> Launched:
    if everywhere % nodes:
        raise ClusterError(
            f"{by} started {everywhere} processes on {nodes} nodes; start the same number on every node"
        )
    return Launched(by, everywhere // nodes, nodes, rank)
