"""Jobs on a Dask cluster: the same results as in local processes, whatever is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from parts2whole.jobs.run import JobError, run_jobs
from parts2whole.scans.preprocess import Preprocess
from parts2whole.scans.read import write_nifti
from parts2whole.scans.volume import Volume
from parts2whole.store.ingest import SourceCase, UnseenStoreError, store_cases
from parts2whole.verbs.prepare import prepare


def double(job):
    return 2 * job


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers, one thread each, that work in another folder than the tests."""
    distributed = pytest.importorskip("distributed", reason="dask isn't installed (extra 'cluster')")
    import dask

    folder = tmp_path_factory.mktemp("dask")
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": 1,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(folder),
            host="127.0.0.1",
        ) as cluster,
    ):
        yield cluster.scheduler_address


def killer(folder):
    """Work whose worker is killed once on job 1, and always on job 3."""

    def work(job):
        marker = os.path.join(folder, "done")
        if job == 3 or (job == 1 and not os.path.exists(marker)):
            with open(marker, "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    return work


def test_only_the_job_that_kills_is_lost(cluster, tmp_path):
    results = list(run_jobs(killer(str(tmp_path)), range(6), cluster=cluster, lost=lambda job: f"lost {job}"))
    assert sorted(map(str, results)) == ["0", "1", "2", "4", "5", "lost 3"]


def test_a_raised_import_error_names_the_cluster(cluster):
    def work(job):
        raise ModuleNotFoundError("No module named 'parts2whole'")

    with pytest.raises(JobError, match=r"workers of tcp://.* can't do this: No module named"):
        list(run_jobs(work, range(2), cluster=cluster, lost=double))


@pytest.mark.parametrize(
    ("cluster", "workers", "said"),
    [
        ("example.org", None, "must be the address of a Dask scheduler such as tcp://host:8786"),
        ("tcp://127.0.0.1:8786", 3, "has its own workers; leave workers=3 out"),
        ("slurm", 0, "needs at least one worker"),
        (None, -1, "workers must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_said_before_work_begins(cluster, workers, said):
    with pytest.raises(JobError, match=said):
        run_jobs(double, range(2), lost=double, workers=workers, cluster=cluster)


def test_no_scheduler_answers(monkeypatch):
    pytest.importorskip("distributed", reason="dask isn't installed (extra 'cluster')")
    monkeypatch.setattr("parts2whole.jobs.run.CONNECT_S", 0.2)
    with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(run_jobs(double, range(2), lost=double, cluster="tcp://127.0.0.1:9"))


def test_a_scheduler_without_workers(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="dask isn't installed (extra 'cluster')")
    monkeypatch.setattr("parts2whole.jobs.run.CONNECT_S", 1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as empty,
        pytest.raises(JobError, match="has no workers"),
    ):
        list(run_jobs(double, range(2), lost=double, cluster=empty.scheduler_address))


def test_dask_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(JobError, match=r"pip install .*\[cluster\]'"):
        list(run_jobs(double, range(2), lost=double, cluster="tcp://127.0.0.1:9"))


def scans(folder, count=5):
    """CT-like scans as NIfTI."""
    for number in range(count):
        array = np.random.default_rng(number).integers(-1000, 800, (9, 10, 11)).astype(np.int16)
        write_nifti(Volume(array, (2.0, 1.0, 1.0)), folder / f"scan{number}.nii.gz")
    return sorted(folder.glob("*.nii.gz"))


def contents(store):
    """Everything in a store, but the page for catalogues, which has the name of its folder."""
    return {
        str(file.relative_to(store.path)): file.read_bytes()
        for file in sorted(store.path.rglob("*"))
        if file.is_file() and file.name != "croissant.json"
    }


def test_a_store_made_while_a_worker_is_killed_is_complete_and_identical(cluster, tmp_path, monkeypatch):
    scans(tmp_path / "scans")
    killed = tmp_path / "killed"

    def read_and_die(job):
        from parts2whole.store import ingest

        if job.case.case_id == "scan2" and not killed.exists():
            killed.touch()
            half = job.folder / "cases" / f".scan2.zarr.elsewhere.{os.getpid()}.part"
            half.mkdir()
            (half / "zarr.json").write_text("{")
            os.kill(os.getpid(), signal.SIGKILL)
        return ingest._attempt(job)

    monkeypatch.setattr("parts2whole.store.ingest._attempt", read_and_die)
    monkeypatch.chdir(tmp_path)
    there = prepare("scans", out="there", modality="CT", cluster=cluster, progress=False)
    monkeypatch.undo()
    assert killed.exists()
    here = prepare(tmp_path / "scans", out=tmp_path / "here", modality="CT", workers=0, progress=False)
    monkeypatch.chdir(tmp_path)
    assert contents(there) == contents(here)
    assert len(there.cases) == 5
    assert there.set_aside == {}


def test_a_store_that_workers_cannot_see(cluster, tmp_path, monkeypatch):
    paths = scans(tmp_path / "scans", 2)
    cases = [SourceCase(path.name.split(".")[0], (path,)) for path in paths]

    def elsewhere(job):
        import dataclasses

        from parts2whole.store import ingest

        return ingest._attempt(dataclasses.replace(job, folder=Path("/nowhere/store")))

    monkeypatch.setattr("parts2whole.store.ingest._attempt", elsewhere)
    with pytest.raises(UnseenStoreError, match=r"doesn't see the store at /nowhere/store"):
        store_cases(cases, tmp_path / "s", preprocess=Preprocess("CT"), cluster=cluster, progress=False)


def test_a_queueing_system(tmp_path, monkeypatch):
    """The commands of SLURM are replaced by scripts that run what is submitted."""
    interrupt = signal.getsignal(signal.SIGINT)
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue isn't installed (extra 'cluster')")
    signal.signal(signal.SIGINT, interrupt)  # importing it has set another
    import dask

    commands = tmp_path / "bin"
    commands.mkdir()
    for name, script in {
        "sbatch": f'cp "$1" {tmp_path}/script; setsid sh {tmp_path}/script >{tmp_path}/log 2>&1 & '
        f'echo $! >{tmp_path}/pid; echo "Submitted batch job 42"',
        "scancel": f"kill -- -$(cat {tmp_path}/pid)",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"jobqueue.slurm.cores": None}), pytest.raises(JobError, match=r"jobqueue\.yaml"):
        list(run_jobs(double, range(3), lost=double, cluster="slurm", workers=1))
    settings = {
        "jobqueue.slurm.cores": 1,
        "jobqueue.slurm.memory": "1GB",
        "jobqueue.slurm.interface": "lo",
        "jobqueue.slurm.scheduler-options": {"dashboard": False},
    }
    with dask.config.set(settings):
        assert sorted(run_jobs(lambda job: -job, range(3), lost=double, cluster="slurm", workers=1)) == [
            -2,
            -1,
            0,
        ]
    for _ in range(1200):  # a minute, as a busy machine may starve what the queue has started
        if not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the submitted worker wasn't cancelled")


def test_ctrl_c_keeps_its_meaning_with_a_queueing_system():
    pytest.importorskip("distributed", reason="dask isn't installed (extra 'cluster')")
    if importlib.util.find_spec("dask_jobqueue") is None:
        pytest.skip("dask-jobqueue isn't installed (extra 'cluster')")
    code = (
        "import signal; from parts2whole.jobs.run import JobError, run_jobs\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try: list(run_jobs(abs, [1], lost=abs, cluster='slurm', workers=1))\n"
        "except JobError: pass\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
