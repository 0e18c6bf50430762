"""What has to hold of every case: the properties that campaigns and tests run.

Each takes cases from a strategy, carries them out, and raises :class:`Violation` with a case that
shows the problem. The engine is the one of this package, so a broken engine (a mutant) is caught by
the same functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from vtd.auditing.audit import Audit
from vtd.dmar import Table, validate
from vtd.fuzz import protocol, strategies
from vtd.fuzz.case import Case, Outcome, Step
from vtd.fuzz.coverage import Encounter, Encounters
from vtd.fuzz.guest_bytes import enter_bytes, walk_bytes
from vtd.fuzz.guest_program import run_guest_program
from vtd.fuzz.itanium_program import read_vpd_bytes, run_itanium_program
from vtd.fuzz.program import run_program
from vtd.fuzz.request_cases import request_cases
from vtd.fuzz.strategies import Flavour
from vtd.fuzz.targets import Difference, EngineTarget, FuzzTarget, OracleTarget, compare
from vtd.inspection.injection import FailRead
from vtd.recordings.scenario import ScenarioRun
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.reporting.events import Event, InterruptBlocked, RequestBlocked
from vtd.unit.unit import RemappingUnit

UNITS = tuple(PROFILES.values())


class Violation(Exception):  # noqa: N818 - what a property reports
    """A case that a property does not hold for; ``outcomes`` are the right ones, if known.

    ``difference``: the first step that has another outcome.
    """

    def __init__(
        self,
        why: str,
        case: Case | None = None,
        outcomes: Sequence[Outcome] = (),
        difference: Difference | None = None,
    ) -> None:
        super().__init__(why if case is None else f"{why} [{case.rule}]")
        self.why = why
        self.case = case
        self.outcomes = list(outcomes)
        self.difference = difference
        self.mark: object = why if difference is None else difference._replace(number=0)
        """What cases that fail in the same way have in common."""


@dataclass
class Tally:
    """What the cases of a run met."""

    cases: int = 0
    faults: Counter[int] = field(default_factory=Counter)
    """Fault reasons and how often."""
    encounters: Counter[Encounter] = field(default_factory=Counter)
    """Descriptors, requests and accesses of registers."""

    @contextmanager
    def watch(self, unit: RemappingUnit) -> Iterator[None]:
        """Count what a unit meets meanwhile."""
        unit.subscribe(self.add)
        encounters = Encounters(unit, self.encounters)
        yield
        encounters.end()

    def add(self, event: Event) -> None:
        """Count a fault."""
        if isinstance(event, (RequestBlocked, InterruptBlocked)):
            self.faults[int(event.reason)] += 1

    def __iadd__(self, other: Tally) -> Tally:
        self.cases += other.cases
        self.faults += other.faults
        self.encounters += other.encounters
        return self


class Property(NamedTuple):
    """A property by its name: the cases it is about, and the check of one of them."""

    name: str
    about: str
    cases: st.SearchStrategy[Case]
    """Of all units."""
    cases_of: Callable[[Capabilities], st.SearchStrategy[Case]]
    """Of one unit."""
    check: Callable[[Case, Tally], None]


def check_driver(case: Case, tally: Tally) -> None:
    """A driver that keeps the rules never notices caches, and the audit finds nothing."""
    expected = OracleTarget().run(case)
    run = EngineTarget(AGGRESSIVE).start(case)
    audit = Audit(run.unit)
    with tally.watch(run.unit):
        outcomes = carry_out(run, case, audit)
    _agree(case, expected, outcomes)
    if audit.findings:
        raise Violation(f"false alarm: {audit.findings[0]}", case, expected)
    _agree(case, expected, EngineTarget(KEEPS_STALE).run(case))


def check_tables(case: Case, tally: Tally) -> None:
    """Whatever the tables hold, the engine does what the oracle does, fault by fault."""
    _check_oracle(case, tally, UNCACHED)


def check_flags(case: Case, tally: Tally) -> None:
    """Accessed and dirty flags end up as the oracle sets them, whatever is cached."""
    _check_oracle(case, tally, UNCACHED, AGGRESSIVE)


def check_errors(case: Case, tally: Tally) -> None:
    """An error of any one read blocks that request with a fault, and leaves nothing else behind."""
    requests = [number for number, step in enumerate(case.steps) if step["op"].startswith("dma")]
    if not requests:
        return
    target = requests[-1]
    run = EngineTarget(UNCACHED).start(case)
    for step in case.steps[:target]:
        run.step(step)
    undisturbed = run.step(case.steps[target])[1]
    faults: list[int] = []

    def note(event: Event) -> None:
        tally.add(event)
        if isinstance(event, RequestBlocked):
            faults.append(event.reason)

    run.unit.subscribe(note)
    number = 0
    while True:
        number += 1
        error = FailRead(number)
        run.unit.observe(error)
        faults.clear()
        outcome = run.step(case.steps[target])[1]
        run.unit.ignore(error)
        if error.count < number:
            return
        if outcome != {"fault": True} or not set(faults) <= READ_ERRORS:
            raise Violation(f"read {number} failed: {outcome}, faults {faults}", case)
        if run.step(case.steps[target])[1] != undisturbed:
            raise Violation(f"read {number} failed, and the unit is not as before", case)


READ_ERRORS = {0x03, 0x07, 0x08, 0x09, 0x38, 0x40, 0x50, 0x58, 0x70, 0x73, 0x78, 0x7B}
"""Fault reasons of reads that fail: Table 30, conditions numbered .1 of each structure."""


def check_interrupts(case: Case, tally: Tally) -> None:
    """Interrupt remapping, with and without its cache, does what the oracle does."""
    _check_oracle(case, tally, UNCACHED, AGGRESSIVE)


def _check_oracle(case: Case, tally: Tally, *policies: CachePolicy) -> None:
    expected = OracleTarget().run(case)
    for policy in policies:
        run = EngineTarget(policy).start(case)
        with tally.watch(run.unit):
            outcomes = carry_out(run, case)
        _agree(case, expected, outcomes)


def check_protocol(case: Case, tally: Tally) -> None:
    """The protocol of queue, tables and faults shows nothing of what is cached."""
    _check_policies(case, tally, AGGRESSIVE)


def check_requests(case: Case, tally: Tally) -> None:
    """Answers show nothing of what is cached, but for the size of a piece (4.2.3, 6.2.4.1)."""
    _check_policies(case, tally, replace(AGGRESSIVE, fractured=False))


def _check_policies(case: Case, tally: Tally, aggressive: CachePolicy) -> None:
    run = EngineTarget(KEEPS_STALE).start(case)
    with tally.watch(run.unit):
        expected = carry_out(run, case)
    for policy in (UNCACHED, aggressive):
        _agree(case, expected, EngineTarget(policy).run(case))


def carry_out(run: ScenarioRun, case: Case, audit: Audit | None = None) -> list[Outcome]:
    """The outcomes of a case; the audit is told which step is taken."""
    return [take(run, step, audit, number) for number, step in enumerate(case.steps)]


def take(run: ScenarioRun, step: Step, audit: Audit | None, number: int) -> Outcome:
    """The outcome of one step, by whose number the audit names a write."""
    if audit is not None:
        audit.line = number
    return run.step(step)[1]


def _agree(case: Case, expected: list[Outcome], outcomes: list[Outcome]) -> None:
    differences: list[Difference] = compare(case, expected, outcomes)
    if differences:
        why = f"oracle and engine differ: {differences[0]}"
        raise Violation(why, case, expected, differences[0])


def differential(one: EngineTarget, other: FuzzTarget) -> Callable[[Case, Tally], None]:
    """A check that a target agrees with the engine on a case."""

    def check(case: Case, tally: Tally) -> None:
        run = one.start(case)
        with tally.watch(run.unit):
            expected = carry_out(run, case)
        differences = compare(case, expected, other.run(case))
        if differences:
            why = f"{one.name} and {other.name} differ: {differences[0]}"
            raise Violation(why, case, expected, differences[0])

    return check


CASE_PROPERTIES: dict[str, Property] = {
    each.name: each
    for each in (
        Property(
            "driver",
            "cached is uncached for a driver that keeps the rules, and the audit is silent",
            strategies.driver_cases(),
            lambda unit: strategies.driver_cases(st.just(unit)),
            check_driver,
        ),
        Property(
            "tables",
            "valid, flawed and hostile tables: the oracle's outcome and fault record",
            strategies.table_cases(),
            lambda unit: strategies.table_cases(units=st.just(unit)),
            check_tables,
        ),
        Property(
            "flags",
            "accessed and dirty flags, with caches and without: as the oracle sets them",
            strategies.table_cases(Flavour.VALID, with_flags=True),
            lambda unit: strategies.table_cases(Flavour.VALID, st.just(unit), with_flags=True),
            check_flags,
        ),
        Property(
            "errors",
            "an error of each engine read is a fault of its own and leaves no trace",
            strategies.table_cases(Flavour.VALID),
            lambda unit: strategies.table_cases(Flavour.VALID, st.just(unit)),
            check_errors,
        ),
        Property(
            "interrupts",
            "interrupt remapping: the oracle's outcome and fault record",
            strategies.interrupt_cases(),
            lambda unit: strategies.interrupt_cases(st.just(unit)),
            check_interrupts,
        ),
        Property(
            "protocol",
            "queue, events, pointers, interrupt tables, fault records: the same whatever is cached",
            protocol.protocol_cases(),
            lambda unit: protocol.protocol_cases([unit]),
            check_protocol,
        ),
        Property(
            "requests",
            "requests of every kind, functions off and on: the same whatever is cached",
            request_cases(strategies.capabilities()),
            lambda unit: request_cases(st.just(unit)),
            check_requests,
        ),
    )
}


@contextmanager
def _nothing_raised(data: bytes) -> Iterator[None]:
    """Violation if bytes lead to an exception."""
    try:
        yield
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error} for {data.hex()}") from error


def check_registers(data: bytes, tally: Tally) -> None:
    """Any access of software and devices has an architected result: nothing raises."""
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 20)
    kind = UNITS[sum(data[:1]) % len(UNITS)]
    unit = RemappingUnit(kind, memory, Options(caches=AGGRESSIVE))
    with _nothing_raised(data), tally.watch(unit):
        run_program(unit, memory, data)


def check_dmar(data: bytes, _: Tally) -> None:
    """A table is read without loss and judged, or refused as a whole."""
    with _nothing_raised(data):
        packed = Table.parse(data).pack() if len(data) >= 48 else data
        validate(data)
    if packed != data:
        raise Violation(f"not given back as it was: {data.hex()}")


def check_guest(data: bytes, _: Tally) -> None:
    """A guest and its hypervisor do anything: nothing raises, and cached is uncached."""
    with _nothing_raised(data):
        cached = run_guest_program(data, cached=True)
        uncached = run_guest_program(data, cached=False)
    if cached != uncached:
        raise Violation(f"cached mappings show for {data.hex()}")


def check_ept(data: bytes, _: Tally) -> None:
    """EPT are walked as the oracle does, and lead where a unit's second stage leads."""
    with _nothing_raised(data):
        walk_bytes(data)


def check_vmcs(data: bytes, _: Tally) -> None:
    """A VMCS enters exactly if no rule is broken, whatever its fields hold."""
    with _nothing_raised(data):
        enter_bytes(data)


def check_vpd(data: bytes, _: Tally) -> None:
    """Two Itanium guests do anything: accelerations change what intercepts, and nothing else."""
    with _nothing_raised(data):
        read_vpd_bytes(data)
        accelerated = run_itanium_program(data, accelerated=True)
        plain = run_itanium_program(data, accelerated=False)
    if accelerated != plain:
        raise Violation(f"accelerations show for {data.hex()}")


BYTE_PROPERTIES: dict[str, tuple[str, Callable[[bytes, Tally], None], int]] = {
    "registers": (
        "programs of register accesses, descriptors, DMAs and interrupts raise nothing",
        check_registers,
        120,
    ),
    "guest": (
        "programs of VMX instructions and guest events raise nothing, and cached is uncached",
        check_guest,
        120,
    ),
    "ept": ("any EPT: the oracle's verdict, and the unit's page where both allow", check_ept, 40),
    "vmcs": ("any VMCS: it enters exactly if no rule is broken", check_vmcs, 60),
    "vpd": (
        "programs of two Itanium guests on any VPD raise nothing, accelerated or not is the same",
        check_vpd,
        160,
    ),
    "dmar": ("DMAR tables are read without loss and judged, whatever they hold", check_dmar, 160),
}
"""Properties of any bytes: what they say, the check, and how many bytes are worth while."""
