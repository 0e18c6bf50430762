"""Campaigns: properties over ranges of seeds, in processes or on a Dask cluster.

A seed stands for a fixed number of cases of one property, so a campaign is a list of seeds, can be
divided among workers, and goes on where it stopped. A failure is shrunk where it was found and
comes back as a scenario. When a campaign ends is the caller's business.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shlex
import signal
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from pagetables.memory import BusError
from vtd.fuzz import protocol, strategies
from vtd.fuzz.case import Case, Step
from vtd.fuzz.departures import differences, known_differences, request_of
from vtd.fuzz.properties import (
    BYTE_PROPERTIES,
    CASE_PROPERTIES,
    Tally,
    Violation,
    carry_out,
    differential,
)
from vtd.fuzz.qemu import QemuTarget
from vtd.fuzz.request_cases import request_cases
from vtd.fuzz.shrinking import is_sound, shrunk
from vtd.fuzz.targets import (
    CaseFailedError,
    CommandTarget,
    EndlessError,
    EngineTarget,
    FuzzTarget,
    JudgingTarget,
    LibraryProcess,
    OracleTarget,
    TargetError,
    engine_as_qemu,
)
from vtd.fuzz.time_limits import OutOfTimeError
from vtd.unit.departures import QEMU, SPECIFICATION
from vtd.unit.registers.capabilities import PROFILES, Capabilities, unit_named
from vtd.workers import on_cluster

CASES_PER_SEED = 100
TARGET_CASES_PER_SEED = 25
"""Fewer, so that every property has its turn early where each case is slow."""
BYTE_CASES_PER_SEED = 1_000


class Failure(NamedTuple):
    """A property that does not hold, with the smallest case that shows it."""

    property_name: str
    target: str
    seed: int
    why: str
    scenario: Step | None
    """A scenario file's content; None where the case is no scenario."""
    unit: str = ""

    @property
    def command(self) -> str:
        """The command that finds it again."""
        target = f" --target {shlex.quote(self.target)}" if self.target else ""
        target += f" --unit {self.unit}" if self.unit else ""
        return f"vtd fuzz --property {self.property_name}{target} --seed {self.seed} --count 1"


@dataclass
class CampaignResult:
    """What one or several seeds gave."""

    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    """Whether somebody ended it before it was done."""

    def add(self, other: CampaignResult) -> None:
        """Take in what another worker found."""
        self.tally += other.tally
        self.failures += other.failures
        self.seeds += other.seeds


class Job(NamedTuple):
    """A seed's worth of work, to be sent to a worker."""

    property: str
    target: str
    seed: int
    unit: str = ""
    """The unit of all cases, as :func:`unit_named` reads it; any, without it."""


PROPERTIES = (*CASE_PROPERTIES, *BYTE_PROPERTIES)
TARGETS = "oracle, library:PATH, command:COMMAND, qemu[:PREFIX] or guest:MACHINE"


TARGET_PROPERTIES = {
    "oracle": PROPERTIES,
    "library": ("tables", "driver"),
    "command": ("protocol", "driver", "tables", "interrupts", "requests"),
    "qemu": ("tables", "interrupts"),
    "guest": ("protocol", "driver", "tables", "interrupts"),
}
"""Properties whose cases a kind of target can be given."""


OPENERS: dict[str, Callable[[str], JudgingTarget]] = {}
"""Targets of packages above this one, by kind: what makes one of the argument."""


def default_properties(target: str, unit: str = "") -> tuple[str, ...]:
    """All properties that a target can be asked, which are those that are checked by default.

    With a unit those that are about units with its functions.
    """
    asked = TARGET_PROPERTIES.get(target.partition(":")[0], PROPERTIES)
    if not unit:
        return asked
    left_out = set() if "ir" in unit_named(unit).features else {"interrupts"}
    return tuple(name for name in asked if name in CASE_PROPERTIES and name not in left_out)


def open_target(name: str) -> FuzzTarget:
    """The target of a ``--target`` argument; TargetError for one that is none."""
    kind, _, argument = name.partition(":")
    match kind:
        case "oracle":
            return OracleTarget()
        case "library" if argument:
            return LibraryProcess(argument)
        case "command" if argument:
            return CommandTarget(argument)
        case "qemu":
            return QemuTarget(argument)
        case _ if kind in OPENERS:
            return OPENERS[kind](argument)
    raise TargetError(f"target {name!r}: not {TARGETS}")


class _Expired(BaseException):
    """There is no time left; not an error, so that nobody looks for a smaller case of it."""


class _Ended(BaseException):
    """A program ended over a case: to find a smaller one it has to be started for each try."""


def _never(*_: object) -> bool:
    return False


def _always(_: object) -> bool:
    return True


ANY_STEPS = "tables", "flags", "errors"
"""Properties of which any steps are a case."""


def run_job(
    job: Job, *, shrink: bool = True, expired: Callable[[], bool] = _never
) -> CampaignResult:
    """Run one seed; the same job always gives the same result, unless its time is ``expired``.

    A seed that was not done is not among the result's. TargetError if the target does not work, or
    can't be asked the property.
    """
    known = default_properties(job.target, job.unit)
    if job.property not in known:
        raise TargetError(
            f"target {job.target!r}: can't be asked property {job.property!r}, "
            f"but {' and '.join(known)}"
        )
    if job.property in BYTE_PROPERTIES:
        return _run_bytes(job, expired)
    result = CampaignResult(seeds=[job.seed])
    cases, check = _cases_and_check(job, expired)
    violations: list[Violation] = []
    broken: list[TargetError] = []

    @seeded(job.seed)
    @settings(
        max_examples=TARGET_CASES_PER_SEED if job.target else CASES_PER_SEED,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: Case) -> None:
        if expired():
            raise _Expired
        result.tally.cases += not violations
        try:
            check(case, result.tally if not violations else Tally())
        except Violation as violation:
            violations.append(violation)
            raise
        except OutOfTimeError as error:
            raise _Expired from error
        except CaseFailedError as error:
            violations.append(Violation(f"{job.target}: {error}", case))
            raise _Ended from error
        except TargetError as error:
            broken.append(error)
            raise
        except Exception as error:
            violations.append(Violation(f"{type(error).__name__}: {error}", case))
            raise

    try:
        run()
    except _Expired:
        result.seeds.clear()
        if violations:
            result.failures.append(_failure(job, violations[-1]))
    except (Exception, _Ended):
        if broken:
            raise broken[0] from None
        if not violations:
            raise
        found = violations[-1]
        if shrink:
            attempt = partial(_attempt, check, job.target)
            found = shrunk(found, attempt, expired, _soundness(job, found))
        result.failures.append(_failure(job, found))
    return result


def _soundness(job: Job, found: Violation) -> Callable[[Case], bool]:
    """Which cases without some of their commands still tell of the same failure."""
    outside = job.target.startswith(("command:", "library:"))
    if job.property in ANY_STEPS or (outside and found.difference is None):
        return _always
    return is_sound if outside else _never


def _attempt(check: Callable[[Case, Tally], None], target: str, case: Case) -> Violation | None:
    """How a case fails, if it does."""
    try:
        check(case, Tally())
    except Violation as violation:
        return violation
    except CaseFailedError as error:
        return Violation(f"{target}: {error}", case)
    except Exception as error:
        return Violation(f"{type(error).__name__}: {error}", case)
    return None


def _check_qemu(engine: EngineTarget, qemu: QemuTarget) -> Callable[[Case, Tally], None]:
    """Agreement outside the table of known differences."""

    def check(case: Case, tally: Tally) -> None:
        expected, outcomes = engine.run(case), qemu.run(case)
        for each in differences(case, expected, outcomes):
            if known_differences(case, request_of(case, each), outcomes) is None:
                raise Violation(f"engine and {qemu.name} differ: {each}", case, expected)

    return check


def _cases_and_check(
    job: Job, expired: Callable[[], bool]
) -> tuple[st.SearchStrategy[Case], Callable[[Case, Tally], None]]:
    chosen = CASE_PROPERTIES[job.property]
    unit = unit_named(job.unit) if job.unit else None
    if not job.target or job.target == "oracle":
        return chosen.cases if unit is None else chosen.cases_of(unit), chosen.check
    target = _target(job.target)
    if isinstance(target, JudgingTarget):
        return _judged_by(target, job)
    if isinstance(target, CommandTarget):
        target.expired = expired
    cases = target_cases(job.property, target, unit=unit)
    if isinstance(target, QemuTarget):
        if unit is not None:
            raise TargetError(f"{target.name} has a unit of its own")
        return cases, _check_qemu(engine_as_qemu(), target)
    return cases, differential(EngineTarget(), target)


def _judged_by(
    target: JudgingTarget, job: Job
) -> tuple[st.SearchStrategy[Case], Callable[[Case, Tally], None]]:
    """The cases of a target that judges them."""
    if job.unit:
        raise TargetError(f"{target.name} has a unit of its own")
    if job.property not in target.properties:
        raise TargetError(f"{target.name}: its unit can't be asked property {job.property!r}")
    engine = EngineTarget()

    def check(case: Case, tally: Tally) -> None:
        run = engine.start(case)
        with tally.watch(run.unit), suppress(BusError, EndlessError):
            carry_out(run, case)
        target.check(case)

    return target.cases(job.property), check


def target_cases(
    name: str,
    target: FuzzTarget,
    flavour: strategies.Flavour | None = None,
    unit: Capabilities | None = None,
) -> st.SearchStrategy[Case]:
    """The cases of a property that an outside target is asked, for the units that it has.

    ``flavour``: of the tables of property ``tables``; any, without it. ``unit``: of all cases.
    """
    profiles = getattr(target, "profiles", ("qemu", "client", "openvmm"))
    known = [PROFILES[profile] for profile in profiles] if unit is None else [unit]
    units = st.sampled_from(known)
    anything = isinstance(target, CommandTarget)
    scalable = all("smts" in each.features for each in known)
    if name == "driver":
        return strategies.driver_cases(units)
    if name == "protocol":
        return protocol.protocol_cases(known)
    if name == "requests":
        return request_cases(units)
    qemu = isinstance(target, QemuTarget)
    if name == "interrupts":
        return strategies.interrupt_cases(units, wide_data=not qemu)
    departures = QEMU if qemu else SPECIFICATION
    return strategies.table_cases(
        flavour,
        units=units,
        scalable=None if anything else scalable,
        with_pasids=anything,
        departures=departures,
    )


_TARGETS: dict[str, FuzzTarget] = {}


def _target(name: str) -> FuzzTarget:
    """A target that this worker keeps from seed to seed."""
    if name not in _TARGETS:
        _TARGETS[name] = open_target(name)
    return _TARGETS[name]


def close_targets() -> None:
    """Give back the targets that this process keeps."""
    while _TARGETS:
        _TARGETS.popitem()[1].close()


def _run_bytes(job: Job, expired: Callable[[], bool]) -> CampaignResult:
    """Many short byte strings, of random bytes; a failing one is made as short as it gets."""
    _, check, length = BYTE_PROPERTIES[job.property]
    source = random.Random(f"{job.property} {job.seed}")
    result = CampaignResult(seeds=[job.seed])
    for _ in range(BYTE_CASES_PER_SEED):
        if expired():
            result.seeds.clear()
            break
        data = source.randbytes(source.randrange(length))
        if job.property == "dmar":
            data = _dmar_like(source, data)
        result.tally.cases += 1
        try:
            check(data, result.tally)
        except Violation:
            result.failures.append(_failure(job, _shortest(check, data, expired)))
            break
    return result


def _dmar_like(source: random.Random, data: bytes) -> bytes:
    """Bytes with a table's signature and structures whose Type and Length make sense, mostly."""
    parts = [b"DMAR", len(data).to_bytes(4, "little"), data[8:48].ljust(40, b"\0")]
    at = 48
    while at < len(data):
        size = source.randrange(1, 40)
        payload = data[at : at + size]
        length = len(payload) + 4 + (source.random() < 0.1)
        parts.append(bytes([source.randrange(8), 0]) + length.to_bytes(2, "little") + payload)
        at += size
    table = b"".join(parts)
    return table[:4] + len(table).to_bytes(4, "little") + table[8:]


def _shortest(
    check: Callable[[bytes, Tally], None], data: bytes, expired: Callable[[], bool]
) -> Violation:
    """Take bytes away, and then set them to 0, as long as the check fails and time is left."""
    found = _violation(check, data)
    assert found is not None
    for size in (64, 16, 4, 1):
        at = 0
        while at < len(data) and not expired():
            for shorter in (
                data[:at] + data[at + size :],
                data[:at] + bytes(size) + data[at + size :],
            ):
                again = _violation(check, shorter) if shorter != data else None
                if again is not None and len(shorter) <= len(data):
                    found, data = again, shorter
                    break
            else:
                at += size
                continue
            at += size if len(shorter) == len(data) else 0
    return found


def _violation(check: Callable[[bytes, Tally], None], data: bytes) -> Violation | None:
    try:
        check(data, Tally())
    except Violation as violation:
        return violation
    return None


def _failure(job: Job, violation: Violation) -> Failure:
    case, scenario = violation.case, None
    if case is not None:
        outcomes = violation.outcomes or [None] * len(case.steps)
        name = f"fuzz-{job.property}-{job.seed}"
        scenario = case.scenario(name, violation.why, "vtd fuzz", outcomes)
    return Failure(job.property, job.target, job.seed, violation.why, scenario, job.unit)


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
    expired: Callable[[], bool] = _never,
    enough: Callable[[CampaignResult], bool],
    progress: Callable[[CampaignResult], None],
) -> CampaignResult:
    """Run jobs on a cluster if its address is given, else in processes.

    ``expired``: whether time is up, also in the middle of a job. It goes to the workers.
    """
    if cluster is not None:
        return run_on_cluster(jobs, cluster, expired=expired, enough=enough, progress=progress)
    return run_jobs(jobs, processes=processes, expired=expired, enough=enough, progress=progress)


def run_jobs(
    jobs: Iterable[Job],
    *,
    processes: int = 1,
    expired: Callable[[], bool] = _never,
    enough: Callable[[CampaignResult], bool] = lambda _: False,
    progress: Callable[[CampaignResult], None] = lambda _: None,
) -> CampaignResult:
    """Run jobs in this process or in several; ``enough`` ends the campaign early."""
    work = partial(run_job, expired=expired)
    jobs = itertools.takewhile(lambda _: not expired(), jobs)
    if processes == 1:
        return _collect(map(work, jobs), enough, progress)
    context = multiprocessing.get_context()
    stop = context.Event()
    with ProcessPoolExecutor(processes, context, _begin_worker, (stop,)) as pool:
        work = partial(_run_in_pool, expired=expired)
        result = _collect(_in_pool(pool, work, jobs, processes), enough, progress)
        stop.set()
    return result


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
    for target in _TARGETS.values():
        target.close()
    os._exit(1)


def _run_in_pool(job: Job, expired: Callable[[], bool]) -> CampaignResult:
    (stop,) = _STOPS
    return run_job(job, expired=lambda: stop.is_set() or expired())


def _in_pool(
    pool: ProcessPoolExecutor,
    work: Callable[[Job], CampaignResult],
    jobs: Iterator[Job],
    processes: int,
) -> Iterator[CampaignResult]:
    waiting: set[Future[CampaignResult]] = {
        pool.submit(work, job) for job in itertools.islice(jobs, 2 * processes)
    }
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        waiting |= {pool.submit(work, job) for job in itertools.islice(jobs, len(done))}
        for each in done:
            try:
                yield each.result()
            except GeneratorExit:
                for rest in waiting:
                    rest.cancel()
                raise


def run_on_cluster(
    jobs: Iterable[Job],
    address: str,
    *,
    expired: Callable[[], bool] = _never,
    enough: Callable[[CampaignResult], bool] = lambda _: False,
    progress: Callable[[CampaignResult], None] = lambda _: None,
) -> CampaignResult:
    """Run jobs on a Dask cluster (needs the ``cluster`` extra)."""
    remaining = itertools.takewhile(lambda _: not expired(), jobs)
    work = partial(_run_on_worker, expired=expired)
    return _collect(on_cluster(work, remaining, address), enough, progress)


def _run_on_worker(job: Job, expired: Callable[[], bool]) -> CampaignResult:
    """Run one seed where other threads of the worker use ``random``, which hypothesis suspects."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Do not use the `random` module inside strategies")
        return run_job(job, expired=expired)


def _collect(
    results: Iterator[CampaignResult],
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
    close = getattr(results, "close", None)
    if close is not None:
        close()
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


LARGEST_STATE = 1 << 20
"""Bytes of a file of seeds that are done, far more than any campaign writes."""


class State:
    """The seeds that are done, in a JSON file, so that another campaign goes on from there.

    ValueError for a file that is not one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.next_seed: dict[str, int] = {}
        if path.exists():
            try:
                self.next_seed = _read_state(path)
            except (OSError, ValueError, RecursionError) as error:
                why = "nested too deeply" if isinstance(error, RecursionError) else error
                raise ValueError(f"{path}: not the state of a campaign: {why}") from error

    def first(self, key: str, otherwise: int) -> int:
        """The first seed that a campaign of this name has not done."""
        return self.next_seed.get(key, otherwise)

    def save(self, key: str, seed: int) -> None:
        """Note that all seeds below ``seed`` are done."""
        self.next_seed[key] = seed
        written = self._path.with_name(f"{self._path.name}.new")
        written.write_text(json.dumps(self.next_seed, indent=1) + "\n", encoding="utf-8")
        written.replace(self._path)


def _read_state(path: Path) -> dict[str, int]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no plain file")
    if status.st_size > LARGEST_STATE:
        raise ValueError(f"{status.st_size} bytes")
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise ValueError("no JSON object")
    for key, value in stored.items():
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise ValueError(f"{key[:40]!r} has no seed")
    return stored
