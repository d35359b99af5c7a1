"""Jobs in local processes: all are done, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from parts2whole.jobs.pool import run_in_processes


def double(job):
    return os.getpid(), 2 * job


def killer(folder):
    """Work whose process is killed once on job 1, and always on job 3."""

    def work(job):
        marker = os.path.join(folder, "done")
        if job == 3 or (job == 1 and not os.path.exists(marker)):
            with open(marker, "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    return work


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_is_done(workers):
    results = list(run_in_processes(double, range(9), workers=workers, lost=lambda job: (0, job)))
    assert sorted(result for _, result in results) == [2 * job for job in range(9)]
    assert ({process for process, _ in results} == {os.getpid()}) == (workers == 0)


def test_only_the_job_that_kills_is_lost(tmp_path):
    results = list(
        run_in_processes(killer(str(tmp_path)), range(5), workers=2, lost=lambda job: f"lost {job}")
    )
    assert sorted(map(str, results)) == ["0", "1", "2", "4", "lost 3"]


def test_no_jobs():
    assert list(run_in_processes(double, [], workers=1, lost=double)) == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_a_process_on_one_core_starts_one_worker():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from parts2whole.jobs.pool import usable_cores; print(usable_cores())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1"]
