"""Campaigns: jobs for ranges of seeds, in processes or on a Dask cluster.

A campaign is a list of seeds, can be divided among workers, and goes on where it stopped. When it
ends is the caller's business.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.synchronize import Event

from vtd.fuzz.asking import Expired
from vtd.fuzz.job import CampaignResult, Job, never, run_job
from vtd.fuzz.target_names import close_targets
from vtd.workers import on_cluster


def jobs_of(
    properties: Iterable[str], target: str, seeds: Iterable[int], unit: str = ""
) -> Iterator[Job]:
    """Every property with each seed, seed by seed."""
    names = list(properties)
    for seed in seeds:
        for name in names:
            yield Job(name, target, seed, unit)


def run(
    jobs: Iterable[Job],
    *,
    processes: int = 1,
    cluster: str | None = None,
    expired: Expired = never,
    enough: Callable[[CampaignResult], bool] = never,
    progress: Callable[[CampaignResult], None] = lambda _: None,
) -> CampaignResult:
    """Run jobs on a Dask cluster (needs the ``cluster`` extra) if its address is given, else here.

    ``expired``: whether time is up, also in the middle of a job. It goes to the workers.
    ``enough`` ends the campaign early.
    """
    jobs = itertools.takewhile(lambda _: not expired(), jobs)
    if cluster is not None:
        results = on_cluster(partial(_run_on_worker, expired=expired), jobs, cluster)
    elif processes == 1:
        results = (run_job(job, expired=expired) for job in jobs)
    else:
        results = _in_processes(jobs, processes, expired)
    return _collect(results, enough, progress)


_STOPS: list[Event] = []
"""Set for a worker of a pool once nobody wants to know any more."""


def _begin_worker(stop: Event) -> None:
    """A process that works on jobs leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STOPS[:] = [stop]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel])
    close_targets()
    os._exit(1)


def _run_in_pool(job: Job, expired: Expired) -> CampaignResult:
    (stop,) = _STOPS
    return run_job(job, expired=lambda: stop.is_set() or expired())


def _in_processes(
    jobs: Iterator[Job], processes: int, expired: Expired
) -> Generator[CampaignResult, None, None]:
    """Results as they come; nobody waits for the others once this is closed."""
    context = multiprocessing.get_context()
    stop = context.Event()
    work = partial(_run_in_pool, expired=expired)
    with ProcessPoolExecutor(processes, context, _begin_worker, (stop,)) as pool:
        waiting = {pool.submit(work, job) for job in itertools.islice(jobs, 2 * processes)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                waiting |= {pool.submit(work, job) for job in itertools.islice(jobs, len(done))}
                for each in done:
                    yield each.result()
        finally:
            stop.set()
            for rest in waiting:
                rest.cancel()


def _run_on_worker(job: Job, expired: Expired) -> CampaignResult:
    """Run one seed where other threads of the worker use ``random``, which hypothesis suspects."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Do not use the `random` module inside strategies")
        return run_job(job, expired=expired)


def _collect(
    results: Generator[CampaignResult, None, None],
    enough: Callable[[CampaignResult], bool],
    progress: Callable[[CampaignResult], None],
) -> CampaignResult:
    total = CampaignResult()
    try:
        for result in results:
            total.add(result)
            progress(total)
            if enough(total):
                break
    except KeyboardInterrupt:
        total.interrupted = True
    results.close()
    return total


def run_until_found(
    name: str,
    seconds: float,
    clock: Callable[[], float],
    first_seed: int = 0,
    target: str = "",
) -> CampaignResult:
    """Run seeds of one property until it fails, or for so many seconds of ``clock``.

    The case that fails is not shrunk.
    """
    start = clock()
    jobs = jobs_of([name], target, itertools.count(first_seed))
    result = _collect(
        (run_job(job, shrink=False, expired=lambda: clock() - start > seconds) for job in jobs),
        enough=lambda total: bool(total.failures) or clock() - start > seconds,
        progress=lambda _: None,
    )
    result.seconds = clock() - start
    return result
