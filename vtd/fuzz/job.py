"""A seed's worth of work: the cases of one property, and the smallest that fails.

The same job always gives the same result. A failure is shrunk where it was found, and comes back as
a scenario.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from vtd.fuzz.asking import CaseCheck, Expired, cases_and_check
from vtd.fuzz.byte_cases import byte_cases, shortest
from vtd.fuzz.case import Case, Step
from vtd.fuzz.properties import BYTE_PROPERTIES, Tally, Violation
from vtd.fuzz.shrinking import is_sound, shrunk
from vtd.fuzz.target_names import default_properties
from vtd.fuzz.targets import CaseFailedError, TargetError
from vtd.fuzz.time_limits import OutOfTimeError

CASES_PER_SEED = 100
TARGET_CASES_PER_SEED = 25
"""Fewer, so that every property has its turn early where each case is slow."""


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


class _OutOfTime(BaseException):
    """There is no time left; not an error, so that nobody looks for a smaller case of it."""


class _Ended(BaseException):
    """A program ended over a case: to find a smaller one it has to be started for each try."""


def never(*_: object) -> bool:
    return False


def _always(_: object) -> bool:
    return True


ANY_STEPS = "tables", "flags", "errors"
"""Properties of which any steps are a case."""


def run_job(job: Job, *, shrink: bool = True, expired: Expired = never) -> CampaignResult:
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
    cases, check = cases_and_check(job.property, job.target, job.unit, expired)
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
            raise _OutOfTime
        result.tally.cases += not violations
        try:
            check(case, result.tally if not violations else Tally())
        except Violation as violation:
            violations.append(violation)
            raise
        except OutOfTimeError as error:
            raise _OutOfTime from error
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
    except _OutOfTime:
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
    return is_sound if outside else never


def _attempt(check: CaseCheck, target: str, case: Case) -> Violation | None:
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


def _run_bytes(job: Job, expired: Expired) -> CampaignResult:
    """Many short byte strings; a failing one is made as short as it gets."""
    check = BYTE_PROPERTIES[job.property][1]
    result = CampaignResult(seeds=[job.seed])
    for data in byte_cases(job.property, job.seed):
        if expired():
            result.seeds.clear()
            break
        result.tally.cases += 1
        try:
            check(data, result.tally)
        except Violation:
            result.failures.append(_failure(job, shortest(check, data, expired)))
            break
    return result


def _failure(job: Job, violation: Violation) -> Failure:
    case, scenario = violation.case, None
    if case is not None:
        outcomes = violation.outcomes or [None] * len(case.steps)
        name = f"fuzz-{job.property}-{job.seed}"
        scenario = case.scenario(name, violation.why, "vtd fuzz", outcomes)
    return Failure(job.property, job.target, job.seed, violation.why, scenario, job.unit)
