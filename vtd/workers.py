"""Work divided among processes, or sent to a Dask cluster; what a worker that dies had is redone.

A job and its result are values that can be pickled; ``work`` is a function of a module.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")
TRIES = 3
"""How often jobs are begun again after a worker died, before that is an error."""


def in_processes(work: Callable[[J], R], jobs: Iterable[J], processes: int) -> Iterator[R]:
    """Results as they come; in this process for one. ValueError if workers keep dying."""
    if processes == 1:
        yield from map(work, jobs)
        return
    left = list(jobs)
    for _ in range(TRIES):
        done: set[int] = set()
        try:
            for number, result in _in_pool(work, left, processes):
                done.add(number)
                yield result
        except BrokenProcessPool:
            left = [job for number, job in enumerate(left) if number not in done]
        else:
            return
    raise ValueError(f"workers died {TRIES} times; is there enough memory?")


def _in_pool(work: Callable[[J], R], jobs: list[J], processes: int) -> Iterator[tuple[int, R]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)) or 1, context, _begin_worker) as pool:
        waiting: dict[Future[R], int] = {
            pool.submit(work, job): number for number, job in enumerate(jobs)
        }
        try:
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    number = waiting[future]
                    result = future.result()
                    del waiting[future]
                    yield number, result
        finally:
            for future in waiting:
                future.cancel()


def _begin_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_any([parent.sentinel])
        os._exit(1)


def on_cluster(work: Callable[[J], R], jobs: Iterable[J], address: str) -> Iterator[R]:
    """Results from a Dask cluster as they come (needs the ``cluster`` extra).

    No more jobs wait than keep its workers busy. OSError if there is no cluster.
    """
    from distributed import Client, as_completed  # noqa: PLC0415 - an extra

    remaining = iter(jobs)
    with Client(address) as client:
        width = 2 * max(1, len(client.scheduler_info()["workers"]))
        futures = client.map(work, list(itertools.islice(remaining, width)), pure=False)
        running = as_completed(futures)
        for future in running:
            yield future.result()
            for job in itertools.islice(remaining, 1):
                running.add(client.submit(work, job, pure=False))
