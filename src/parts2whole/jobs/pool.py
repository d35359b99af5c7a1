"""Independent jobs in local processes; a worker that is killed costs no job but the one that kills it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import TypeVar

from joblib import cpu_count
from joblib.externals.loky import ProcessPoolExecutor

Job = TypeVar("Job")
Result = TypeVar("Result")

CHANCES = 2
"""A job that takes its process down so often, working alone, is lost."""


def usable_cores() -> int:
    """Cores this process may use: fewer than the machine has under SLURM, in a container or with taskset."""
    return int(cpu_count())


def run_in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, lost: Callable[[Job], Result]
) -> Generator[Result]:
    """Do jobs in fresh processes and yield their results as they come.

    When a worker is killed, the jobs in hand are tried again one at a time.  Closing the generator, or an
    error, kills the workers.  Scripts need no ``if __name__ == "__main__"``.

    Args:
        work: what to do with a job; must not raise.
        jobs: what there is to do.
        workers: number of processes; 0 works in this one.
        lost: the result of a job whose process was killed every time.
    """
    if workers == 0:
        yield from (work(job) for job in jobs)
        return
    waiting, suspects = deque(range(len(jobs))), deque[int]()
    deaths: Counter[int] = Counter()
    running: dict[Future[Result], int] = {}
    executor = ProcessPoolExecutor(max_workers=workers)
    finished = False
    try:
        while waiting or suspects or running:
            broken = False
            queue, room = (suspects, 1) if suspects else (waiting, 2 * workers)
            while queue and len(running) < room and not broken:
                try:
                    running[executor.submit(work, jobs[queue[0]])] = queue[0]
                    queue.popleft()
                except BrokenExecutor:
                    broken = True
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    result = future.result()
                except BrokenExecutor:
                    broken = True
                    continue
                del running[future]
                yield result
            if broken:
                executor.shutdown(kill_workers=True)
                executor = ProcessPoolExecutor(max_workers=workers)
                deaths.update(running.values() if len(running) == 1 else ())
                for number in running.values():
                    if deaths[number] < CHANCES:
                        suspects.append(number)
                    else:
                        yield lost(jobs[number])
                running.clear()
        finished = True
    finally:
        executor.shutdown(kill_workers=not finished)
