"""What a passthrough plan holds: guests, the devices they get, and the policies of the host.

A plan is a TOML description that stands beside a machine description, in the same file or in one of
its own. :func:`read_plan` makes it of the text; whether it works is for :mod:`vtd.host.planner`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, NamedTuple

from vtd.machine.description import Machine
from vtd.machine.reading import U64, Located, Natural, Problems, Reader, Size, Where, keyed

PAGE = 0x1000
TABLES = ("guest", "assign", "policy", "work")
"""Keys of a plan that a machine description does not have."""


class Rmrr(StrEnum):
    """What to do about a device with a reserved memory region (8.4)."""

    REFUSE = "refuse"
    RELAX = "relax"
    """Leave the region out where it is only for early boot: USB and graphics."""
    MAP = "map"
    """Map it one to one into the guest, which has no memory there."""


class Interrupts(StrEnum):
    """How interrupts of devices reach a guest."""

    REMAPPED = "remapped"
    POSTED = "posted"
    UNSAFE = "unsafe"
    """As devices send them, unchecked."""


class Stage(StrEnum):
    """Which tables translate the requests of a device."""

    SECOND = "second"
    FIRST = "first"
    NESTED = "nested"
    """A first stage that the guest owns, on the host's second stage."""


class Invalidation(StrEnum):
    """When caches lose what was unmapped."""

    STRICT = "strict"
    DEFERRED = "deferred"


class Backing(StrEnum):
    """Whether all of a guest's memory is there while devices use it."""

    PINNED = "pinned"
    PAGE_REQUESTS = "page-requests"


class Viommu(StrEnum):
    """The remapping unit that a guest sees."""

    NONE = "none"
    SHADOW = "shadow"
    """Emulated with CM = 1; the host maps what the guest maps."""
    NESTED = "nested"
    """The guest's own first stage is used by the hardware."""


def page_size(value: object) -> int:
    """Log2 of a page size, from 4K, 2M or 1G."""
    sizes = {"4K": 12, "2M": 21, "1G": 30}
    if value not in sizes:
        raise ValueError(f"{value!r} is none of {', '.join(sizes)}")
    return sizes[str(value)]


def overrides(value: object) -> tuple[str, ...]:
    """Parts of ``pcie_acs_override``."""
    known = ("downstream", "multifunction")
    if not isinstance(value, list) or any(each not in known for each in value):
        raise ValueError(f"{value!r} is no list of {', '.join(known)}")
    return tuple(value)


PageSize = Annotated[int, page_size]
Overrides = Annotated[tuple[str, ...], overrides]


@dataclass(frozen=True, kw_only=True)
class Policy(Located):
    """``[policy]``: what the host does, for every assignment that says nothing else."""

    rmrr: Rmrr = Rmrr.REFUSE
    acs_override: Overrides = ()
    """Linux with the ACS override patch: ports, or functions of one device, count as isolated."""
    interrupts: Interrupts = Interrupts.REMAPPED
    stage: Stage = Stage.SECOND
    ats: bool = False
    page_requests: bool = False
    pasid: bool = False
    shared_tables: bool = False
    """EPT and second stage are the same tables."""
    page_size: PageSize = 21
    """Log2 of the largest page."""
    invalidation: Invalidation = Invalidation.STRICT
    memory: Backing = Backing.PINNED
    dirty_tracking: bool = False
    """D of the second stage, as live migration needs it."""


@dataclass(frozen=True, kw_only=True)
class GuestMemory(Located):
    """A range of guest physical memory; whole pages."""

    start: U64
    size: Size

    @property
    def end(self) -> int:
        """First address after it."""
        return self.start + self.size


@dataclass(frozen=True, kw_only=True)
class GuestMap(Located):
    """What a guest maps for its devices in the remapping unit that it sees; whole pages."""

    device: U64
    """The address that devices use."""
    guest: U64
    """Guest physical address."""
    size: Size


@dataclass(frozen=True, kw_only=True)
class Guest(Located):
    """``[[guest]]``: a virtual machine."""

    name: str
    memory: tuple[GuestMemory, ...]
    cpus: Natural = 1
    viommu: Viommu = Viommu.NONE
    maps: tuple[GuestMap, ...] = ()
    """Of its own remapping unit, which maps nothing else."""

    @property
    def size(self) -> int:
        """Bytes of all its memory."""
        return sum(each.size for each in self.memory)

    @property
    def largest(self) -> GuestMemory:
        """The largest range of it."""
        return max(self.memory, key=lambda each: each.size)

    def own_maps(self) -> Iterator[tuple[int, int, int]]:
        """What it maps for its devices: device address, guest physical address, size.

        All of its memory where it is, if it sees no remapping unit or names no maps.
        """
        if not self.maps:
            yield from ((each.start, each.start, each.size) for each in self.memory)
        yield from ((each.device, each.guest, each.size) for each in self.maps)


@dataclass(frozen=True, kw_only=True)
class Assignment(Located):
    """``[[assign]]``: devices that a guest gets.

    A device is the name of a function of the machine, ``NAME.vfN`` for its virtual functions,
    ``NAME:qN`` for a queue of it, or an address such as ``0000:03:00.0``.
    """

    guest: str
    devices: tuple[str, ...]
    policy: Policy = field(default_factory=Policy)
    """That of all; ``policy = {...}`` names what differs."""


@dataclass(frozen=True, kw_only=True)
class Work(Located):
    """``[[work]]``: what a device does when the plan is run."""

    device: str
    requests: Natural = 1000
    bytes: Natural = 64
    writes: bool = True
    span: Size = 1 << 20
    """Bytes of guest memory that its requests go to."""
    random: bool = False
    interrupts: Natural = 10
    engine: bool = False
    """Not single requests, but what the model of the device does by itself for its driver."""
    unmaps: Natural = 0
    """How often the guest unmaps a page meanwhile, by the unit that it sees, and maps it again."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole plan."""

    guests: tuple[Guest, ...] = keyed("guest")
    assignments: tuple[Assignment, ...] = keyed("assign")
    policy: Policy = field(default_factory=Policy)
    work: tuple[Work, ...] = keyed("work")

    def guest(self, name: str) -> Guest:
        """The guest of a name; KeyError if there is none."""
        return {each.name: each for each in self.guests}[name]


class PlanFile(NamedTuple):
    """A plan, and the machine that its file describes; None if it describes none."""

    plan: Plan
    machine: Machine | None


def read_plan(text: str, file: str = "") -> PlanFile:
    """The plan that TOML text describes; MachineError names everything that is wrong with it.

    What is no key of a plan belongs to the machine description in the same file.
    """
    problems = Problems(file)
    reader = Reader(text, problems)
    problems.check()
    values = {key: value for key, value in reader.values.items() if key in TABLES}
    rest = {key: value for key, value in reader.values.items() if key not in TABLES}
    everybody = values.get("policy", {})
    reader.read(Policy, everybody, Where(name="policy"))
    problems.check()
    for each in values["assign"] if isinstance(values.get("assign"), list) else ():
        if isinstance(each, dict) and isinstance(each.get("policy", {}), dict):
            each["policy"] = {**everybody, **each.get("policy", {})}
    plan = reader.read(Plan, values, Where())
    machine = reader.read(Machine, rest, Where()) if rest else None
    if plan is not None:
        _check(plan, problems)
    problems.check()
    assert plan is not None  # or there would have been a problem
    return PlanFile(plan, machine)


def _check(plan: Plan, problems: Problems) -> None:
    """What can be wrong whatever the machine is."""
    if not plan.guests:
        problems.add(Where(), "guest", "there is none")
    names: set[str] = set()
    for guest in plan.guests:
        if guest.name in names:
            problems.add(guest.where, "name", f"there are two guests {guest.name}")
        names.add(guest.name)
        _check_memory(guest, problems)
        if guest.maps and guest.viommu is Viommu.NONE:
            problems.add(guest.where, "maps", "it sees no remapping unit (viommu)")
        if not guest.cpus:
            problems.add(guest.where, "cpus", "none")
    for assignment in plan.assignments:
        if assignment.guest not in names:
            problems.add(assignment.where, "guest", f"there is no guest {assignment.guest}")
        if not assignment.devices:
            problems.add(assignment.where, "devices", "none")
    given = {name: each.guest for each in plan.assignments for name in each.devices}
    remapping = {each.name for each in plan.guests if each.viommu is not Viommu.NONE}
    for work in plan.work:
        if work.device not in given:
            problems.add(work.where, "device", f"{work.device} is assigned to no guest")
        if not 0 < work.bytes <= PAGE:
            problems.add(work.where, "bytes", f"{work.bytes} is not from 1 to {PAGE}")
        if work.unmaps and given.get(work.device, "") not in remapping:
            problems.add(work.where, "unmaps", "its guest sees no remapping unit (viommu)")


def _check_memory(guest: Guest, problems: Problems) -> None:
    if not guest.memory:
        problems.add(guest.where, "memory", "none")
    _check_ranges(guest, "memory", [(each.start, each.size) for each in guest.memory], problems)
    _check_ranges(guest, "maps", [(each.device, each.size) for each in guest.maps], problems)
    for each in guest.maps:
        if each.guest % PAGE:
            problems.add(guest.where, "maps", f"{each.guest:#x}: not a range of whole pages")


def _check_ranges(
    guest: Guest, key: str, ranges: list[tuple[int, int]], problems: Problems
) -> None:
    end = 0
    for start, size in sorted(ranges):
        if start % PAGE or size % PAGE:
            problems.add(guest.where, key, f"{start:#x}: not a range of whole pages")
        if start < end:
            problems.add(guest.where, key, f"{start:#x}: overlaps the range before")
        end = max(end, start + size)
        if end > 1 << 52:
            problems.add(guest.where, key, f"{start:#x}: reaches beyond 52 bits")
