"""Operations by chance on a driver under test, judged by the audit, shrunk to a short list.

Before and after each operation devices use what is mapped, what was mapped a moment ago, and their
interrupts, always in the same way: a list of operations leads to the same every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from pagetables.memory import PhysicalMemory
from vtd.auditing.unit_audit import UnitAudit
from vtd.fuzz.driver_protocol import (
    READ,
    WRITE,
    BrokenDriverError,
    DriverError,
    DriverMaker,
    TriedDriver,
)
from vtd.severity import ERROR
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.unit import RemappingUnit

OWN_START, OWN_END, DATA, END = 0x10_0000, 0x80_0000, 0x100_0000, 0x180_0000
DEVICES = 0x0010, 0x0018, 0x0108
DOMAINS = 1, 2, 3
BASES = 0x0, 0x3_F000, 0x20_0000, 0x40_0000, 0x7FFF_F000, 0x20_0000_0000
PAGE, LARGE = 0x1000, 0x20_0000
REMEMBERED = 6
"""How many pages that have gone are tried again."""


class DriverOperation(NamedTuple):
    """One thing that a user of the driver wants."""

    name: str
    arguments: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(hex(each) for each in self.arguments)})"


class DriverFailure(NamedTuple):
    """What a list of operations led to."""

    operations: list[DriverOperation]
    findings: list[str]
    seed: int


@dataclass
class _Model:
    """What the driver has been asked for so far."""

    attached: dict[int, int] = field(default_factory=dict)
    pages: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """By domain: pages with where they lead and their rights."""
    gone: dict[int, list[int]] = field(default_factory=dict)
    interrupts: list[int] = field(default_factory=list)
    had: dict[int, int] = field(default_factory=dict)
    """The last domain of functions that are detached."""


class DriverRun:
    """A unit, its memory and a driver, from reset; :meth:`take` carries out one operation."""

    def __init__(self, maker: DriverMaker, capabilities: Capabilities) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        self.unit = RemappingUnit(capabilities, self.memory, Options(caches=AGGRESSIVE))
        self.audit = UnitAudit(self.unit)
        self.ports = {each: UnitPort(self.unit, self.memory, each) for each in DEVICES}
        self.driver: TriedDriver = maker(self.unit, self.memory, OWN_START, OWN_END)
        self.wrong: list[str] = []
        """What devices reached against what was asked for."""
        self._model = _Model()
        self.driver.reset()

    def findings(self) -> list[str]:
        """What is wrong so far."""
        audited = [str(each) for each in self.audit.findings if each.severity >= ERROR]
        return audited + self.wrong

    def take(self, operation: DriverOperation) -> None:
        """Carry out an operation if it makes sense by now; devices look before and afterwards."""
        if not self._makes_sense(operation):
            return
        self._look()
        try:
            result = getattr(self.driver, operation.name)(*operation.arguments)
        except DriverError:
            return
        self._note(operation, result)
        self._look()

    def _makes_sense(self, operation: DriverOperation) -> bool:
        model = self._model
        match operation:
            case ("attach", (device, _)):
                return device not in model.attached
            case ("detach", (device,)):
                return device in model.attached
            case ("map", (domain, address, _, length, _)):
                pages = model.pages.get(domain, {})
                return domain in model.attached.values() and not any(
                    page in pages for page in range(address, address + length, PAGE)
                )
            case ("unmap" | "protect", (domain, address, length, *_)):
                pages = model.pages.get(domain, {})
                return all(page in pages for page in range(address, address + length, PAGE))
            case ("interrupt_free", (number,)):
                return number in model.interrupts
        return True

    def _note(self, operation: DriverOperation, result: Any) -> None:
        model = self._model
        match operation:
            case ("attach", (device, domain)):
                model.attached[device] = domain
                model.pages.setdefault(domain, {})
            case ("detach", (device,)):
                model.had[device] = model.attached.pop(device)
            case ("map", (domain, address, physical, length, access)):
                for offset in range(0, length, PAGE):
                    model.pages[domain][address + offset] = physical + offset, access
            case ("unmap", (domain, address, length)):
                gone = model.gone.setdefault(domain, [])
                for page in range(address, address + length, PAGE):
                    del model.pages[domain][page]
                    gone.append(page)
                del gone[:-REMEMBERED]
            case ("protect", (domain, address, length, access)):
                for page in range(address, address + length, PAGE):
                    model.pages[domain][page] = model.pages[domain][page][0], access
            case ("interrupt_allocate", _):
                model.interrupts.append(result)
            case ("interrupt_free", (index,)):
                model.interrupts.remove(index)

    def _look(self) -> None:
        """Devices use some pages of their domain, some that have gone, and interrupts."""
        for device, port in self.ports.items():
            domain = self._model.attached.get(device)
            last = self._model.had.get(device, 0)
            pages = self._model.pages.get(last if domain is None else domain, {})
            for page in _some(list(pages)):
                physical, access = pages[page]
                access = 0 if domain is None else access
                read = port.read(page, 4).ok
                self._expect(device, page, READ, read, bool(access & READ), physical)
                wrote = port.write(page + 8, b"used").ok
                self._expect(device, page, WRITE, wrote, bool(access & WRITE), physical)
            for page in self._model.gone.get(domain or 0, ()):
                if page not in pages:
                    self._expect(device, page, READ, port.read(page, 4).ok, False, 0)
            for index in [*self._model.interrupts[-3:]]:
                message = 0xFEE0_0010 | (index & 0x7FFF) << 5 | index >> 15 << 2
                port.write(message, bytes(4))

    def _expect(
        self, device: int, page: int, right: int, done: bool, wanted: bool, physical: int
    ) -> None:
        if done != wanted:
            what = "read" if right == READ else "write"
            how = "went through" if done else f"was refused, asked for at {physical:#x}"
            self.wrong.append(f"{what} of {device:#06x} at {page:#x} {how}")


def _some(pages: list[int]) -> list[int]:
    """The first, the last, and some between."""
    return pages if len(pages) <= 8 else [*pages[:3], pages[len(pages) // 2], *pages[-4:]]


def operations(random: Random, count: int, *, interrupts: bool) -> Iterator[DriverOperation]:
    """Operations by chance; those that make no sense when their turn comes are passed over."""
    names = ["attach", "attach", "map", "map", "map", "unmap", "unmap", "protect", "detach"]
    names += ["interrupt_allocate", "interrupt_free"] if interrupts else []
    yield DriverOperation("attach", (DEVICES[0], DOMAINS[0]))
    for _ in range(count):
        name, domain = random.choice(names), random.choice(DOMAINS)
        large = random.random() < 0.2
        step, count_ = (LARGE, 1) if large else (PAGE, random.choice((1, 1, 2, 5)))
        address = random.choice(BASES) & -step
        if not large:
            address += random.randrange(4) * PAGE
        length = step * count_
        physical = DATA + random.randrange((END - DATA) // LARGE - 1) * LARGE
        if not large:
            physical += random.randrange(256) * PAGE
        access = random.choice((1, 3, 3))
        match name:
            case "attach":
                yield DriverOperation(name, (random.choice(DEVICES), domain))
            case "detach":
                yield DriverOperation(name, (random.choice(DEVICES),))
            case "map":
                yield DriverOperation(name, (domain, address, physical, length, access))
            case "unmap":
                yield DriverOperation(name, (domain, address, length))
            case "protect":
                yield DriverOperation(name, (domain, address, length, access))
            case "interrupt_allocate":
                vector = random.randrange(0x20, 0xF0)
                yield DriverOperation(name, (random.choice(DEVICES), vector))
            case _:
                yield DriverOperation(name, (random.randrange(4),))


def try_driver(
    maker: DriverMaker, capabilities: Capabilities, seed: int, count: int = 40
) -> DriverFailure | None:
    """Give a driver operations until something is wrong, and leave out what is not needed."""
    interrupts = "ir" in capabilities.features
    listed = list(operations(Random(seed), count, interrupts=interrupts))
    findings, taken = outcome(maker, capabilities, listed)
    if not findings:
        return None
    shrunk = shrink(maker, capabilities, listed[:taken])
    return DriverFailure(shrunk, outcome(maker, capabilities, shrunk)[0], seed)


def outcome(
    maker: DriverMaker, capabilities: Capabilities, listed: list[DriverOperation]
) -> tuple[list[str], int]:
    """What is wrong after the first of these operations that goes wrong, and how many it took."""
    taken = 0
    try:
        run = DriverRun(maker, capabilities)
        for taken, operation in enumerate(listed, 1):
            run.take(operation)
            found = run.findings()
            if found:
                return found, taken
    except BrokenDriverError as error:
        return [str(error)], taken
    except Exception as error:
        return [f"the driver raised {type(error).__name__}: {error}"], taken
    return [], taken


def shrink(
    maker: DriverMaker, capabilities: Capabilities, listed: list[DriverOperation]
) -> list[DriverOperation]:
    """The operations without those that can be left out, until none can."""
    size = len(listed)
    while size:
        start = 0
        while start < len(listed):
            fewer = listed[:start] + listed[start + size :]
            if outcome(maker, capabilities, fewer)[0]:
                listed = fewer
            else:
                start += size
        size //= 2
    return listed
