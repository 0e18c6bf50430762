"""Operations by chance on a driver under test, judged by the audit, shrunk to a short list.

Before and after each operation devices use what is mapped, what was mapped a moment ago, and their
interrupts, always in the same way: a list of operations leads to the same every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import NamedTuple

from pagetables.memory import PhysicalMemory
from pagetables.stores import ProcessorStores
from vtd.auditing.unit_audit import UnitAudit
from vtd.fuzz.driver_model import PAGE, DriverModel, DriverOperation, Requester
from vtd.fuzz.driver_protocol import (
    OPTIONAL,
    READ,
    WRITE,
    BrokenDriverError,
    DriverError,
    DriverMaker,
    TriedDriver,
)
from vtd.fuzz.time_limits import OutOfTimeError, Result, TooLongError, within
from vtd.severity import ERROR
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.snooping import waiting_stores
from vtd.unit.unit import RemappingUnit

LIMIT = 5.0
"""Seconds for one operation."""
OWN_START, OWN_END, DATA, END = 0x10_0000, 0x80_0000, 0x100_0000, 0x180_0000
DEVICES = 0x0010, 0x0018, 0x0108
PASIDS = 1, 70
"""In different PASID tables."""
DOMAINS = 1, 2, 3
BASES = 0x0, 0x3_F000, 0x20_0000, 0x40_0000, 0x7FFF_F000, 0x20_0000_0000
LARGE = 0x20_0000


Expired = Callable[[], bool]
"""Whether time is up."""


def never() -> bool:
    """There is no end of time."""
    return False


class DriverFailure(NamedTuple):
    """What a list of operations led to."""

    operations: list[DriverOperation]
    findings: list[str]
    seed: int


class DriverRun:
    """A unit, its memory and a driver, from reset; :meth:`take` carries out one operation.

    ``stores_wait``: what the driver stores shows once it is flushed, to a unit that does not snoop.
    """

    def __init__(
        self,
        maker: DriverMaker,
        capabilities: Capabilities,
        expired: Expired = never,
        *,
        stores_wait: bool = False,
    ) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        stores = ProcessorStores(self.memory, caches=False)
        if stores_wait:
            stores = waiting_stores(self.memory, [capabilities])
        seen = stores.unsnooped if stores_wait else self.memory
        self.unit = RemappingUnit(capabilities, seen, Options(caches=AGGRESSIVE))
        self.audit = UnitAudit(self.unit)
        self.ports = {each: UnitPort(self.unit, self.memory, each) for each in DEVICES}
        self._expired = expired
        self.wrong: list[str] = []
        """What devices reached against what was asked for."""
        self._model = DriverModel()

        def reset() -> TriedDriver:
            driver = maker(self.unit, stores, OWN_START, OWN_END)
            driver.reset()
            return driver

        self.driver = self._limited("reset", reset)

    def findings(self) -> list[str]:
        """What is wrong so far."""
        audited = [str(each) for each in self.audit.findings if each.severity >= ERROR]
        return audited + self.wrong

    def take(self, operation: DriverOperation) -> None:
        """Carry out an operation if it makes sense by now; devices look before and afterwards."""
        if not self._model.makes_sense(operation):
            return
        self._look()
        if operation.name in OPTIONAL and not hasattr(self.driver, operation.name):
            return
        call = partial(getattr(self.driver, operation.name), *operation.arguments)
        try:
            result = self._limited(operation.name, call)
        except DriverError:
            return
        self.wrong += self._model.note(operation, result)
        self._look()

    def _limited(self, operation: str, call: Callable[[], Result]) -> Result:
        """What the driver answers; it is over when its time is."""
        try:
            return within(LIMIT, self._expired, call)
        except TooLongError as error:
            raise BrokenDriverError(f"{operation}: {error}") from error

    def _look(self) -> None:
        """Devices use some pages of their domain, some that have gone, and interrupts."""
        model = self._model
        for device, port in self.ports.items():
            for requester in [(device, None), *(known for known in self._with_pasids(device))]:
                self._use(port, requester)
            for index in [*model.interrupts[-3:]]:
                message = 0xFEE0_0010 | (index & 0x7FFF) << 5 | index >> 15 << 2
                port.write(message, bytes(4))

    def _with_pasids(self, device: int) -> list[Requester]:
        """The PASIDs of a function that have, or had, a domain."""
        known = {**self._model.had, **self._model.attached}
        return [each for each in known if each[0] == device and each[1] is not None]

    def _use(self, port: UnitPort, requester: Requester) -> None:
        model, (_, pasid) = self._model, requester
        domain = model.attached.get(requester)
        last = model.had.get(requester, 0)
        pages = model.pages.get(last if domain is None else domain, {})
        for page in _some(list(pages)):
            physical, access = pages[page]
            access = 0 if domain is None else access
            read = port.read(page, 4, pasid=pasid).ok
            self._expect(requester, page, READ, read, bool(access & READ), physical)
            wrote = port.write(page + 8, b"used", pasid=pasid).ok
            self._expect(requester, page, WRITE, wrote, bool(access & WRITE), physical)
            if wrote and domain in model.dirty:
                model.dirty[domain].add(page)
        for page in model.gone.get(domain or 0, ()):
            if page not in pages:
                read = port.read(page, 4, pasid=pasid).ok
                self._expect(requester, page, READ, read, False, 0)

    def _expect(
        self, requester: Requester, page: int, right: int, done: bool, wanted: bool, physical: int
    ) -> None:
        if done != wanted:
            device, pasid = requester
            what = "read" if right == READ else "write"
            who = f"{device:#06x}" + ("" if pasid is None else f", PASID {pasid:#x},")
            how = "went through" if done else f"was refused, asked for at {physical:#x}"
            self.wrong.append(f"{what} of {who} at {page:#x} {how}")


def _some(pages: list[int]) -> list[int]:
    """The first, the last, and some between."""
    return pages if len(pages) <= 8 else [*pages[:3], pages[len(pages) // 2], *pages[-4:]]


def operations(random: Random, count: int, features: frozenset[str]) -> Iterator[DriverOperation]:
    """Operations by chance; those that make no sense when their turn comes are passed over."""
    names = ["attach", "attach", "map", "map", "map", "unmap", "unmap", "protect", "detach"]
    names += ["interrupt_allocate", "interrupt_free"] if "ir" in features else []
    names += ["attach_pasid", "detach_pasid"] if "pasid" in features else []
    names += ["set_dirty_tracking", "read_dirty", "read_dirty"] if "ssads" in features else []
    yield DriverOperation("attach", (DEVICES[0], DOMAINS[0]))
    asked = {"attach": [{"device": DEVICES[0], "domain": DOMAINS[0]}]}
    for _ in range(count):
        name = random.choice(names)
        values = _values(random)
        before = asked.get(FOLLOWS.get(name, ""))
        if before and random.random() < 0.8:
            values |= random.choice(before)
        given = {each: values[each] for each in ARGUMENTS[name]}
        asked.setdefault(name, []).append(given)
        yield DriverOperation(name, tuple(given.values()))


def _values(random: Random) -> dict[str, int]:
    """A value by chance for everything that an operation may be given."""
    large = random.random() < 0.2
    step, pages = (LARGE, 1) if large else (PAGE, random.choice((1, 1, 2, 5)))
    address = random.choice(BASES) & -step
    physical = DATA + random.randrange((END - DATA) // LARGE - 1) * LARGE
    if not large:
        address += random.randrange(4) * PAGE
        physical += random.randrange(256) * PAGE
    return {
        "device": random.choice(DEVICES),
        "pasid": random.choice(PASIDS),
        "domain": random.choice(DOMAINS),
        "address": address,
        "physical": physical,
        "length": step * pages,
        "access": random.choice((READ, READ | WRITE, READ | WRITE)),
        "vector": random.randrange(0x20, 0xF0),
        "index": random.randrange(4),
        "enabled": int(random.random() < 0.8),
    }


ARGUMENTS = {
    "attach": ("device", "domain"),
    "detach": ("device",),
    "map": ("domain", "address", "physical", "length", "access"),
    "unmap": ("domain", "address", "length"),
    "protect": ("domain", "address", "length", "access"),
    "interrupt_allocate": ("device", "vector"),
    "interrupt_free": ("index",),
    "attach_pasid": ("device", "pasid", "domain"),
    "detach_pasid": ("device", "pasid"),
    "set_dirty_tracking": ("domain", "enabled"),
    "read_dirty": ("domain", "address", "length"),
}
"""What each operation is given."""
FOLLOWS = {
    "map": "attach",
    "unmap": "map",
    "protect": "map",
    "read_dirty": "map",
    "set_dirty_tracking": "attach",
    "detach": "attach",
    "detach_pasid": "attach_pasid",
}
"""Operations that are mostly given what an earlier one was."""


Start = Callable[[Expired], DriverRun]
"""A driver and its unit, from reset."""


def try_driver(
    maker: DriverMaker,
    capabilities: Capabilities,
    seed: int,
    count: int = 40,
    expired: Expired = never,
    *,
    stores_wait: bool = False,
) -> DriverFailure | None:
    """Give a driver operations until something is wrong, and leave out what is not needed.

    ``expired``: whether time is up, for operations and for making the list short, which somebody
    may interrupt as well. ``stores_wait``: as :class:`DriverRun` has it.
    """
    start = partial(DriverRun, maker, capabilities, stores_wait=stores_wait)
    listed = list(operations(Random(seed), count, capabilities.features))
    findings, taken = outcome(start, listed, expired)
    if not findings:
        return None
    failure = DriverFailure(listed[:taken], findings, seed)
    with suppress(KeyboardInterrupt):
        for fewer, found in shrink(start, listed[:taken], expired):
            failure = DriverFailure(fewer, found, seed)
    return failure


def outcome(
    start: Start, listed: list[DriverOperation], expired: Expired = never
) -> tuple[list[str], int]:
    """What is wrong after the first of these operations that goes wrong, and how many it took."""
    taken = 0
    try:
        run = start(expired)
        for taken, operation in enumerate(listed, 1):
            if expired():
                break
            run.take(operation)
            found = run.findings()
            if found:
                return found, taken
    except OutOfTimeError:
        return [], taken
    except BrokenDriverError as error:
        return [str(error)], taken
    except Exception as error:
        return [f"the driver raised {type(error).__name__}: {error}"], taken
    return [], taken


def shrink(
    start: Start, listed: list[DriverOperation], expired: Expired = never
) -> Iterator[tuple[list[DriverOperation], list[str]]]:
    """Ever fewer operations and what they lead to, until none can be left out or time is up."""
    size = len(listed)
    while size:
        first = 0
        while first < len(listed) and not expired():
            fewer = listed[:first] + listed[first + size :]
            found, _ = outcome(start, fewer, expired)
            if found:
                listed = fewer
                yield fewer, found
            else:
                first += size
        size //= 2
