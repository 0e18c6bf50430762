"""Cases about how software talks to a unit: the queue, events, pointers, interrupt tables, faults.

Nothing in them depends on what a unit keeps in caches, so every unit has to show the same. Three
kinds of programs, each from reset: descriptors of every type given to the queue in batches; entries
of an interrupt table changed and used; faults of many requesters recorded and taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from hypothesis import strategies as st

from devices.interrupt_messages import RemappableAddress
from pagetables.bits import Bits
from vtd.fuzz.case import (
    DEVICES,
    Case,
    Step,
    dma_read,
    dma_write,
    mem_read,
    mem_write,
    msi,
    reg_read,
    reg_write,
    store,
)
from vtd.fuzz.places import CONTEXT_TABLES, INTERRUPTS, ROOT_TABLE, STATUS
from vtd.fuzz.strategies import drawn_units
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    NEEDS,
    VALID_TYPES,
    Descriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    InvalidationWaitDescriptor,
)
from vtd.layouts.entries import ContextEntry, RootEntry
from vtd.layouts.interrupt_entries import (
    CompatibilityAddress,
    PostedInterruptDescriptor,
    PostedIrte,
    RemappedIrte,
)
from vtd.layouts.registers import (
    FaultEventAddress,
    FaultEventControl,
    FaultEventData,
    FaultStatus,
    GlobalCommand,
    InterruptRemappingTableAddress,
    InvalidationCompletionStatus,
    InvalidationEventAddress,
    InvalidationEventControl,
    InvalidationEventData,
    InvalidationQueueAddress,
    InvalidationQueueErrorRecord,
    InvalidationQueueHead,
    InvalidationQueueTail,
    Register,
    RootTableAddress,
    TranslationTableMode,
)
from vtd.unit.registers.capabilities import PROFILES, Capabilities

Draw = st.DrawFn

BIG_QUEUE = 0x30_0000
"""Room for a queue of 8 pages."""
SECOND_TABLE = 0x31_0000
"""Another interrupt-remapping table."""
DESCRIPTORS_AT = 0x32_0000
"""Posted-interrupt descriptors, one for each entry."""
QUEUE_ERRORS = FaultStatus.of(iqe=True, ice=True, ite=True)
ALL_FAULTS = 0xFFFF_FFFF


Units = Sequence[Capabilities]
EVERY_UNIT: Units = tuple(PROFILES.values())


def units_with(
    units: Units, *needed: str, rather: Callable[[Capabilities], bool]
) -> st.SearchStrategy[Capabilities]:
    """Units that have the needed functions; ``rather``: of which sort more often.

    Of every unit one in four is drawn field by field.
    """
    able = [unit for unit in units if set(needed) <= unit.features]
    known = st.sampled_from([*filter(rather, able)] or able) | st.sampled_from(able)
    if units is not EVERY_UNIT:
        return known
    return st.integers(0, 3).flatmap(lambda n: drawn_units(*needed) if n == 3 else known)


def _has_queue(unit: Capabilities) -> bool:
    return "qi" in unit.features


def _remaps_interrupts(unit: Capabilities) -> bool:
    return {"ir", "qi"} <= unit.features


class Program:
    """Steps of software on one unit, from reset."""

    def __init__(self, unit: Capabilities) -> None:
        self.unit = unit
        self.steps: list[Step] = []
        self.command = 0

    def write(self, register: type[Register], value: int) -> None:
        """Write a register, all of it at once."""
        assert register.OFFSET is not None  # those of this module have one place
        self.steps.append(reg_write(register.OFFSET, register.WIDTH // 8, value))

    def write_halves(self, register: type[Register], value: int, *, upper_first: bool) -> None:
        """Write a register of 64 bits by two accesses, and read it back."""
        assert register.OFFSET is not None  # those of this module have one place
        halves = [(0, value & 0xFFFF_FFFF), (4, value >> 32)]
        for offset, half in reversed(halves) if upper_first else halves:
            self.steps.append(reg_write(register.OFFSET + offset, 4, half))
        self.read(register)

    def read(self, register: type[Register], mask: int = (1 << 64) - 1) -> None:
        """Read a register."""
        assert register.OFFSET is not None  # those of this module have one place
        size = register.WIDTH // 8
        self.steps.append(reg_read(register.OFFSET, size, mask & (1 << 8 * size) - 1))

    def switch(self, *, off: int = 0, **flags: bool) -> None:
        """Write GCMD_REG: what was on stays, ``off`` goes, ``flags`` are added."""
        self.command = self.command & ~off | GlobalCommand.of(**flags)
        self.write(GlobalCommand, self.command)
        self.command &= ~GlobalCommand.of(srtp=True, sirtp=True, wbf=True)

    def events(self) -> None:
        """Look at the messages that the unit sent."""
        self.steps.append({"op": "events"})

    def case(self, rule: str) -> Case:
        """All steps."""
        return Case(self.unit, tuple(self.steps), rule)


class Queue:
    """The invalidation queue of a program; ``wide``: 256-bit descriptors, for scalable mode."""

    def __init__(self, program: Program, size: int, *, wide: bool) -> None:
        self.program = program
        self.wide = wide
        self.bytes = 0x1000 << size
        self.tail = 0
        self._address = InvalidationQueueAddress.of(iqa=BIG_QUEUE, qs=size, dw=wide)

    def enable(self) -> None:
        """From the first place of the queue on; scalable mode first where it is needed (6.5.2)."""
        program, mode = self.program, TranslationTableMode.SCALABLE
        if self.wide:
            program.write(RootTableAddress, RootTableAddress.of(rta=ROOT_TABLE, ttm=mode))
            program.switch(srtp=True)
        program.write(InvalidationQueueTail, 0)
        program.write(InvalidationQueueAddress, self._address)
        program.switch(qie=True)
        self.tail = 0

    def restart(self) -> None:
        """Off, errors cleared, and on again."""
        self.program.switch(off=GlobalCommand.of(qie=True))
        self.program.write(FaultStatus, QUEUE_ERRORS)
        self.enable()

    def put(self, descriptors: Sequence[int]) -> None:
        """Write descriptors behind each other and move the tail once."""
        size = 32 if self.wide else 16
        for each in descriptors:
            self.program.steps.append(
                mem_write(BIG_QUEUE + self.tail, each.to_bytes(size, "little"))
            )
            self.tail = (self.tail + size) % self.bytes
        self.program.write(InvalidationQueueTail, self.tail)

    def fill(self, to: int) -> None:
        """Descriptors that do nothing from the first place up to ``to``, in one write."""
        nothing = InvalidationWaitDescriptor.of().to_bytes(32 if self.wide else 16, "little")
        self.program.steps.append(mem_write(BIG_QUEUE, nothing * (to // len(nothing))))
        self.tail = to % self.bytes
        self.program.write(InvalidationQueueTail, self.tail)


def _events_on(program: Program) -> None:
    """Fault and invalidation events have vectors of their own and are not masked."""
    program.write(FaultEventData, 0x51)
    program.write(FaultEventAddress, 0xFEE0_1000)
    program.write(FaultEventControl, 0)
    program.write(InvalidationEventData, 0x52)
    program.write(InvalidationEventAddress, 0xFEE0_2000)
    program.write(InvalidationEventControl, 0)


@st.composite
def waits(draw: Draw) -> int:
    """A wait descriptor that tells software in some way."""
    return int(
        InvalidationWaitDescriptor.of(
            if_=draw(st.booleans()),
            sw=draw(st.booleans()),
            fn=draw(st.booleans()),
            status_data=draw(st.integers(1, 0xFFFF_FFFF)),
            status_address=STATUS + 4 * draw(st.integers(0, 7)),
        )
    )


@st.composite
def any_descriptors(draw: Draw, unit: Capabilities, *, wide: bool) -> int:
    """A descriptor of any type that is valid here, with any fields; one bit may be turned over."""
    mode = TranslationTableMode.SCALABLE if wide else TranslationTableMode.LEGACY
    kinds = [
        kind
        for kind in sorted(VALID_TYPES[mode, 256 if wide else 128])
        if NEEDS.get(kind, "qi") in unit.features
    ]
    record: type[Descriptor] = DESCRIPTORS[draw(st.sampled_from(kinds))]
    if record is InvalidationWaitDescriptor:
        value = draw(waits())
    else:
        value = int(record.of())
        for name, bits in record.FIELDS.items():
            if not name.startswith("type"):
                value |= bits.place(draw(_field_values(unit, name, bits)) << bits.shift)
    if draw(st.integers(0, 5)) == 0:
        value ^= 1 << draw(st.integers(12, record.WIDTH - 1))
    if record is InvalidationWaitDescriptor:  # 6.5.2.9: undefined where the address is no memory
        wait, memory = InvalidationWaitDescriptor(value), (1 << unit.host_address_width) - 1
        value = wait.replace(status_address=wait.status_address & memory)
    return value


def _field_values(unit: Capabilities, name: str, bits: Bits[Any]) -> st.SearchStrategy[int]:
    """Values of a field of a descriptor: legal ones mostly, and any."""
    match name:
        case "did" | "hptdid":
            most = (1 << unit.did_width) - 1
        case "am":
            return st.sampled_from([0, 1, 8, 9, 17, 18, int(unit.cap.mamv), 31])
        case "im":
            most = int(unit.ecap.mhmv)
        case _:
            most = bits.max
    return st.one_of(st.just(0), st.integers(0, most), st.integers(0, most), st.just(most))


@st.composite
def queue_cases(draw: Draw, units: Units = EVERY_UNIT) -> Case:
    """Batches of descriptors, some broken, with a look at all that comes of each."""
    unit = draw(units_with(units, "qi", rather=lambda unit: "smts" in unit.features))
    program = Program(unit)
    wide = "smts" in unit.features and draw(st.booleans())
    for register in (InvalidationQueueAddress, RootTableAddress):
        high = draw(st.integers(0, 0x7F)) << 32
        program.write_halves(register, high | BIG_QUEUE, upper_first=draw(st.booleans()))
    _events_on(program)
    size = draw(st.sampled_from([0, 0, 1, 3]))
    queue = Queue(program, size, wide=wide)
    queue.enable()
    if size and draw(st.booleans()):
        queue.fill(0x1000)
    for _ in range(draw(st.integers(1, 4))):
        batch = draw(st.lists(any_descriptors(unit, wide=wide), min_size=0, max_size=4))
        queue.put([*batch, draw(waits())])
        _look(program)
        queue.restart()
        if draw(st.integers(0, 3)) == 0:
            beyond = queue.bytes + draw(st.sampled_from([0, 16, 0x1000]))
            program.write(InvalidationQueueTail, beyond & 0x7FFF0)
            _look(program)
            queue.restart()
    return program.case("queue")


def _look(program: Program) -> None:
    """Everything that software can see of a batch, and errors cleared."""
    program.steps.append(mem_read(STATUS, 32))
    program.read(InvalidationQueueHead)
    program.read(FaultStatus, QUEUE_ERRORS)
    program.read(InvalidationQueueErrorRecord)
    program.read(InvalidationCompletionStatus)
    program.read(InvalidationEventControl)
    program.read(FaultEventControl)
    program.events()
    program.write(InvalidationCompletionStatus, 1)
    program.write(FaultStatus, QUEUE_ERRORS)
    program.read(InvalidationEventControl)
    program.read(FaultEventControl)


@st.composite
def entries(draw: Draw, index: int, *, posted: bool, extended: bool) -> int:
    """A present interrupt-remapping entry; ``extended``: destinations of 32 bits (EIME)."""
    sid = {"sid": draw(st.sampled_from(list(DEVICES.values()))), "svt": draw(st.integers(0, 1))}
    vector = draw(st.integers(16, 255))
    if posted:
        at = DESCRIPTORS_AT + 64 * index
        urgent = draw(st.booleans())
        return int(PostedIrte.of(p=True, im=True, vv=vector, urg=urgent, pdal=at, **sid))
    destination = draw(st.integers(0, 0xFFFF_FFFF)) if extended else draw(st.integers(0, 255)) << 8
    return int(
        RemappedIrte.of(
            p=True,
            v=vector,
            dst=destination,
            dm=draw(st.booleans()),
            rh=draw(st.booleans()),
            dlm=draw(st.sampled_from([0, 1])),
            tm=draw(st.booleans()),
            **sid,
        )
    )


@st.composite
def table_change_cases(draw: Draw, units: Units = EVERY_UNIT) -> Case:
    """Runs of interrupt entries used, rewritten, invalidated by a mask, and used again."""
    unit = draw(units_with(units, "ir", "qi", rather=lambda unit: "pi" in unit.features))
    program = Program(unit)
    extended = "eim" in unit.features and draw(st.booleans())
    queue = Queue(program, 0, wide=False)
    queue.enable()
    size = draw(st.integers(3, 7))
    tables = [INTERRUPTS, SECOND_TABLE]
    _set_table(program, queue, INTERRUPTS, size, extended=extended)
    program.switch(ire=True)
    posting = "pi" in unit.features
    for number in range(draw(st.integers(1, 3))):
        mask = draw(st.integers(0, min(unit.ecap.mhmv, 3)))
        first = draw(st.integers(0, 15)) >> mask << mask
        kinds = [posting and draw(st.booleans()) for _ in range(1 << mask)]
        table = tables[number % 2] if draw(st.booleans()) else tables[0]
        if table != tables[0]:
            _set_table(program, queue, table, size, extended=extended)
        for _ in range(2):
            for index, posted in zip(count(first), kinds, strict=False):
                entry = draw(entries(index, posted=posted, extended=extended))
                program.steps.append(store(table + 16 * index, entry, 16))
                if posted:
                    program.steps.append(_posted_descriptor(draw, index))
            queue.put([_entry_invalidation(draw, unit, first, mask)])
            for index in range(first, first + (1 << mask)):
                _use(draw, program, index, posted=kinds[index - first])
        if table != tables[0]:
            _set_table(program, queue, tables[0], size, extended=extended)
    if draw(st.booleans()):
        program.switch(cfi=draw(st.booleans()))
        address = CompatibilityAddress.of(fee=0xFEE, dst=draw(st.integers(0, 255)))
        program.steps.append(msi("d0", address, draw(st.integers(16, 255))))
    return program.case("interrupt table changes")


def _set_table(program: Program, queue: Queue, base: int, size: int, *, extended: bool) -> None:
    """SIRTP to a table of 2 ** (size + 1) entries, and the global invalidation (6.7)."""
    address = InterruptRemappingTableAddress.of(irta=base, eime=extended, s=size)
    program.write(InterruptRemappingTableAddress, address)
    program.switch(sirtp=True)
    queue.put([InterruptEntryCacheInvalidateDescriptor.of()])


def _posted_descriptor(draw: Draw, index: int) -> Step:
    descriptor = PostedInterruptDescriptor.of(
        on=draw(st.integers(0, 3)) == 0,
        sn=draw(st.booleans()),
        nv=draw(st.integers(16, 255)),
        ndst=draw(st.integers(0, 255)) << 8,
    )
    return store(DESCRIPTORS_AT + 64 * index, descriptor, 64)


def _entry_invalidation(draw: Draw, unit: Capabilities, first: int, mask: int) -> int:
    """One descriptor that covers 2 ** mask entries: by any index of them, or of all."""
    if draw(st.integers(0, 4)) == 0:
        return InterruptEntryCacheInvalidateDescriptor.of()
    index = first if not mask else first + draw(st.integers(0, (1 << mask) - 1))
    granularity = InterruptGranularity.INDEX
    return InterruptEntryCacheInvalidateDescriptor.of(g=granularity, iidx=index, im=mask)


def _use(draw: Draw, program: Program, index: int, *, posted: bool) -> None:
    """A device sends the interrupt; a descriptor that it may be posted in is looked at."""
    shv = draw(st.booleans())
    handle = index - 1 if shv and index else index
    address = RemappableAddress.for_handle(handle, shv=shv)
    data = index - handle if shv else 0
    program.steps.append(msi(draw(st.sampled_from(list(DEVICES))), address, data))
    if posted:
        program.steps.append(mem_read(DESCRIPTORS_AT + 64 * index, 64))


@st.composite
def fault_cases(draw: Draw, units: Units = EVERY_UNIT) -> Case:
    """Faults of requesters without entries, some of which want none recorded, and their events."""
    unit = draw(units_with(units, rather=lambda unit: unit.fault_records > 1))
    program = Program(unit)
    program.steps.append(store(ROOT_TABLE, RootEntry.of(p=True, ctp=CONTEXT_TABLES), 16))
    for source_id in DEVICES.values():
        quiet = ContextEntry.of(fpd=draw(st.integers(0, 2)) == 0)
        program.steps.append(store(CONTEXT_TABLES + 16 * (source_id & 0xFF), quiet, 16))
    _events_on(program)
    if draw(st.integers(0, 3)) == 0:
        program.write(FaultEventControl, FaultEventControl.of(im=True))
    program.write(RootTableAddress, ROOT_TABLE)
    program.switch(srtp=True)
    program.switch(te=True)
    waiting: set[str] = set()
    base, records = unit.fault_recording_offset, unit.fault_records
    for number in range(draw(st.integers(4, 10))):
        free = sorted(set(DEVICES) - waiting)
        if not free or (waiting and draw(st.integers(0, 3)) == 0):
            _take_back(draw, program, base, records)
            waiting.clear()
            continue
        device = draw(st.sampled_from(free))
        waiting.add(device)
        address = draw(st.integers(0, 255)) << 12
        if draw(st.booleans()):
            program.steps.append(dma_read(device, address, 8))
        else:
            program.steps.append(dma_write(device, address, number.to_bytes(8, "little")))
        program.read(FaultStatus, ALL_FAULTS)
        program.events()
    _take_back(draw, program, base, records)
    program.read(FaultStatus, ALL_FAULTS)
    return program.case("faults")


def _take_back(draw: Draw, program: Program, base: int, records: int) -> None:
    """Read all records and clear them, in any order; then the overflow, and unmask."""
    order: Callable[[int], int] = (lambda n: -n) if draw(st.booleans()) else (lambda n: n)
    for index in sorted(range(records), key=order):
        record = base + 16 * index
        program.steps.append(reg_read(record, 8, (1 << 64) - 1 - 0xFFF))
        program.steps.append(reg_read(record + 8, 8, (1 << 64) - 1))
        program.steps.append(reg_write(record + 12, 4, 1 << 31))
        program.read(FaultStatus, ALL_FAULTS)
    program.write(FaultStatus, FaultStatus.of(pfo=True))
    program.read(FaultEventControl)
    program.write(FaultEventControl, 0)
    program.events()


def protocol_cases(units: Units = EVERY_UNIT) -> st.SearchStrategy[Case]:
    """One of the three kinds, as far as the units can do it."""
    kinds = [fault_cases(units)]
    if any(map(_has_queue, units)):
        kinds.append(queue_cases(units))
    if any(map(_remaps_interrupts, units)):
        kinds.append(table_change_cases(units))
    return st.one_of(kinds)
