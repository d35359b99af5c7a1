"""Independent jobs, in processes of this machine or on a Dask cluster: for `prepare` and `benchmark`.

    for result in run_jobs(work, jobs, lost=lost, workers=4): ...
    for result in run_jobs(work, jobs, lost=lost, cluster="tcp://10.0.0.7:8786"): ...
    for result in run_jobs(work, jobs, lost=lost, cluster="slurm", workers=16): ...

Results come as they are done, in any order.  A worker that is killed costs the work it had in hand, which is
done again elsewhere; only a job that takes down every worker that tries it, working alone, is lost.
"""

from __future__ import annotations

import pickle
import signal
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from parts2whole.errors import Parts2WholeError, note_place
from parts2whole.extras import install_hint
from parts2whole.jobs.pool import run_in_processes, usable_cores

Job = TypeVar("Job")
Result = TypeVar("Result")

QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
"""Queueing systems, and the class of dask-jobqueue that submits to each."""

PROTOCOLS = ("tcp://", "tls://", "ucx://", "ws://", "wss://", "inproc://")
FEWEST_IN_HAND = 4
CONNECT_S = 30


class JobError(Parts2WholeError, ValueError):
    """Jobs that can't be run where they were to be run."""


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    lost: Callable[[Job], Result],
    workers: int | None = None,
    cluster: str | None = None,
) -> Generator[Result]:
    """Do jobs and yield their results as they come.

    On a cluster, every worker needs this package in the same version and sees the same files at the same
    absolute paths.  One thread a worker (``dask worker --nthreads 1``) is best.  Closing the generator
    cancels what hasn't begun.

    Args:
        work: what to do with a job; must not raise.
        jobs: what there is to do; picklable.
        lost: the result of a job whose worker was killed every time.
        workers: local processes, default one a core, 0 works in this one; on a queueing system, the number of
            workers to submit, default one a job up to 8; not for a cluster that is running already.
        cluster: address of a Dask scheduler (``tcp://host:port``), or a queueing system (slurm, pbs, sge,
            lsf), whose queue, cores and memory are those of ``~/.config/dask/jobqueue.yaml``; None stays on
            this machine.

    Raises:
        JobError: the number of workers or the cluster makes no sense, or the cluster can't be reached.
    """
    check_workers(workers, cluster)
    work = partial(_noted, work)
    if cluster is None:
        local = min(usable_cores() if workers is None else workers, len(jobs))
        return run_in_processes(work, jobs, workers=local, lost=lost)
    return _run_on_dask(work, jobs, lost=lost, workers=workers, cluster=cluster)


def _noted(work: Callable[[Job], Result], job: Job) -> Result:
    """Do a job; an error says where it was raised, as its traceback stays in the worker."""
    try:
        return work(job)
    except Exception as error:
        note_place(error)
        raise


def check_workers(workers: int | None, cluster: str | None) -> None:
    """Raise `JobError` unless ``workers`` and ``cluster`` fit what `run_jobs` takes."""
    if workers is not None and workers < 0:
        raise JobError(f"workers must be 0 or more, got {workers}")
    if cluster is None:
        return
    if cluster in QUEUES:
        if workers == 0:
            raise JobError(f"cluster={cluster!r} needs at least one worker, got workers=0")
    elif not cluster.startswith(PROTOCOLS):
        raise JobError(
            f"cluster must be the address of a Dask scheduler such as tcp://host:8786, or one of "
            f"{', '.join(QUEUES)}; got {cluster!r}"
        )
    elif workers is not None:
        raise JobError(f"{cluster} has its own workers; leave workers={workers} out")


def _run_on_dask(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    lost: Callable[[Job], Result],
    workers: int | None,
    cluster: str,
) -> Generator[Result]:
    if not jobs:
        return
    with _client(cluster, min(8, len(jobs)) if workers is None else workers) as client:
        from distributed import CancelledError, KilledWorker, wait

        run = uuid.uuid4().hex
        waiting, suspects = deque(range(len(jobs))), deque[int]()
        running: dict[Any, int] = {}
        while waiting or suspects or running:
            # A few more than there are threads: none waits for work, and a death makes few suspects.
            alone = not waiting
            room = 1 if alone else max(FEWEST_IN_HAND, 2 * sum(client.nthreads().values()))
            queue = suspects if alone else waiting
            while queue and len(running) < room:
                number = queue.popleft()
                key = f"job-{number}-{run}{'-alone' * alone}"
                running[client.submit(pickle.loads, _packed(work, jobs[number]), key=key)] = number
            for future in wait(list(running), return_when="FIRST_COMPLETED").done:
                number = running.pop(future)
                try:
                    result = future.result()
                except KilledWorker:
                    # Dask blames every job in the hands of workers that died; alone, the guilty one shows.
                    if future.key.endswith("-alone"):
                        result = lost(jobs[number])
                    else:
                        suspects.append(number)
                        continue
                except CancelledError as error:
                    raise JobError(f"the connection to {cluster} was lost; run again to go on") from error
                except ImportError as error:
                    raise JobError(
                        f"workers of {cluster} can't do this: {error}; install this version there"
                    ) from error
                future.release()
                yield result


class _Call:
    """A call that is made by unpickling it."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def _packed(work: Callable[[Job], Result], job: Job) -> bytes:
    """A call as bytes.

    What Dask itself can't unpickle, such as a call into a package that is missing there, takes its worker
    down, and the run would wait for ever; unpickled by the task, it is the task's error.
    """
    import cloudpickle

    packed: bytes = cloudpickle.dumps(_Call(work, job))
    return packed


@contextmanager
def _client(cluster: str, workers: int) -> Iterator[Any]:
    """A connection to the scheduler, with a cluster of its own where a queueing system is named."""
    try:
        from distributed import Client
    except ImportError as error:
        raise JobError(f"cluster needs Dask: {install_hint('cluster')}") from error
    if cluster not in QUEUES:
        try:
            client = Client(cluster, timeout=CONNECT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise JobError(f"no Dask scheduler answers at {cluster}: {error}") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=CONNECT_S)
            except TimeoutError as error:
                raise JobError(f"the Dask scheduler at {cluster} has no workers; start some") from error
            yield client
        return
    with _queue(cluster) as queue, Client(queue) as client:
        queue.scale(jobs=workers)
        yield client


def _queue(cluster: str) -> Any:
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError as error:
        raise JobError(f"cluster={cluster!r} needs dask-jobqueue: {install_hint('cluster')}") from error
    finally:
        # Importing it makes Ctrl-C end the program as if all were well; keep what was there.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
    try:
        return getattr(dask_jobqueue, QUEUES[cluster])()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise JobError(
            f"cluster={cluster!r}: {error}; say cores, processes, memory, walltime and queue in "
            f"~/.config/dask/jobqueue.yaml under jobqueue.{cluster}"
        ) from error
