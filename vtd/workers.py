"""Work divided among processes, or sent to a Dask cluster; what a worker that dies had is redone.

A job and its result are values that can be pickled; ``work`` is a function of a module.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_any
from typing import Any, Generic, NamedTuple, TypeVar

J = TypeVar("J")
R = TypeVar("R")
S = TypeVar("S")
P = TypeVar("P")
D = TypeVar("D")
TRIES = 3
"""How often jobs are begun again after a worker died, before that is an error."""
DIED = "workers died again and again; is there enough memory?"
PATIENCE = 60.0
"""Seconds in which a cluster may do nothing before it is asked whether it has workers."""


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
    raise ValueError(DIED)


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


def on_cluster(work: Callable[[J], R], jobs: Iterable[J], address: str) -> Generator[R, None, None]:
    """Results from a Dask cluster as they come (needs the ``cluster`` extra).

    No more jobs wait than keep its workers busy. OSError if there is no cluster, ValueError if its
    workers are gone or keep dying.
    """
    remaining = iter(jobs)
    with connected(address) as client:
        width, waiting = 2 * len(workers_of(client)), set[Any]()
        while True:
            more = itertools.islice(remaining, width - len(waiting))
            waiting |= {client.submit(work, job, pure=False) for job in more}
            if not waiting:
                return
            done, waiting = _waited(waiting, client, FIRST_COMPLETED)
            for future in done:
                yield _result(future)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The client of a Dask cluster (needs the ``cluster`` extra); OSError if there is none.

    A connection that is lost is an error of what was waited for; Dask's own log is silent.
    """
    from distributed import Client  # noqa: PLC0415 - an extra

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    with Client(address) as client:
        yield client


def _waited(futures: Any, client: Any, until: str) -> Any:
    """Those futures of a cluster that are done, and the others.

    ValueError if the cluster is gone, or has no workers any more.
    """
    from distributed import CancelledError, wait  # noqa: PLC0415

    while True:
        try:
            return wait(futures, timeout=PATIENCE, return_when=until)
        except TimeoutError:
            workers_of(client)
        except CancelledError as error:
            raise ValueError("the connection to the cluster is lost") from error


def _result(future: Any) -> Any:
    """What came of it; what a job raised, or ValueError if it costs every worker its life."""
    from distributed import KilledWorker  # noqa: PLC0415

    try:
        return future.result()
    except KilledWorker as error:
        raise ValueError(DIED) from error


class Wave(NamedTuple, Generic[P, D, S, R]):
    """What workers do with parts, and with states that go through all of them."""

    read: Callable[[P], D]
    carry_on: Callable[[S, D], S]
    """Leaves the state that it is given as it is: from there it goes on if a worker dies."""
    end: Callable[[S], R]


def waves_on_cluster(
    wave: Wave[P, D, S, R],
    parts: Sequence[P],
    states: Sequence[Any],
    client: Any,
    done: Callable[[int], None],
) -> list[R]:
    """What becomes of states, or futures of states, by the workers of a Dask client.

    A part is read once, by the worker whose turn it is. The states come there one behind the other,
    and those in front are elsewhere by then, at the next part. ``done`` hears how many parts are.
    ValueError if the workers are gone or keep dying.
    """
    begun: deque[list[Any]] = deque()
    futures: list[Any] = list(states)
    for number, part in enumerate(parts, 1):
        workers = sorted(client.nthreads())
        here: dict[str, Any] = {"pure": False}
        if len(workers) > 1:  # Dask lets a task wait for the last worker that there was
            here |= {"workers": [workers[number % len(workers)]], "allow_other_workers": True}
        data = client.submit(wave.read, part, **here)
        futures = [client.submit(wave.carry_on, each, data, **here) for each in futures]
        begun.append(futures)
        if len(begun) > 2 * max(1, len(workers)):  # more of them would wait in memory
            first = begun.popleft()
            _waited(first, client, ALL_COMPLETED)
            for future in first:
                if future.status == "error":
                    _result(future)
            done(number - len(begun))
    ends = client.map(wave.end, futures, pure=False)
    _waited(ends, client, ALL_COMPLETED)
    return [_result(future) for future in ends]


def workers_of(client: Any) -> list[str]:
    """The addresses of the workers that a Dask client has; ValueError if there are none."""
    found = sorted(client.nthreads())
    if not found:
        raise ValueError("the cluster has no workers")
    return found
