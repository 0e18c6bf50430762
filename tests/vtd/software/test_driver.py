"""Start and stop, domains and attachments: what the driver does beside the random machine."""

from __future__ import annotations

from typing import Any

import pytest

from devices.dma import READ, WRITE, PageRequest
from devices.interrupt_messages import RemappableAddress
from pagetables.build import BuildError, FramePool
from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.layouts.descriptors import (
    DeviceTlbInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.layouts.entries import ContextEntry, TranslationType
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.layouts.registers import (
    FaultStatus,
    GlobalCommand,
    GlobalStatus,
    IotlbGranularity,
    RootTableAddress,
)
from vtd.software.domain import FIRST_STAGE, NESTED, PASS_THROUGH, SECOND_STAGE, DomainError
from vtd.software.driver import Driver
from vtd.software.guidance import Owed
from vtd.software.invalidation_rules import Rule
from vtd.software.registers import NoAnswerError, read
from vtd.unit.interrupts.outcome import Message
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.reporting.events import Event, PageGroupResponseSent
from vtd.unit.unit import RemappingUnit

SID, PAGE, DATA, END = 0x0108, 0x1000, 0x40_0000, 0x80_0000


class Bench:
    """A unit, its driver, and what the driver wrote to registers and queue."""

    def __init__(self, has: Capabilities | None = None, **options: Any) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        self.unit = RemappingUnit(has or capabilities(), self.memory)
        self.writes: list[tuple[int, int]] = []
        self.silent = False
        self.frames = FramePool(0x10_0000, DATA)
        options.setdefault("host_address_width", self.unit.capabilities.host_address_width)
        self.driver = Driver(self, self.memory, self.frames, **options)
        self.port = UnitPort(self.unit, self.memory, SID)

    def read_register(self, offset: int, size: int) -> int:
        return self.unit.read_register(offset, size)

    def write_register(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, value))
        if not self.silent:
            self.unit.write_register(offset, size, value)

    def submitted(self) -> list[int]:
        """Types of the descriptors in the queue, the first one first, since it was enabled."""
        base = next(value for offset, value in self.writes if offset == 0x90)
        size = 32 if base >> 11 & 1 else 16
        end = read(self, GlobalStatus) and self.unit.read_register(0x88, 8)
        return [self.memory.read_record(base & -PAGE | at, 16) & 0xF for at in range(0, end, size)]


def test_each_command_changes_one_function_and_pointers_come_first() -> None:
    bench = Bench()
    bench.driver.start(interrupts=True, extended_interrupts=True)
    commands = [GlobalCommand(value) for offset, value in bench.writes if offset == 0x18]
    assert commands == [
        GlobalCommand.of(qie=True),
        GlobalCommand.of(qie=True, srtp=True),
        GlobalCommand.of(qie=True, sirtp=True),
        GlobalCommand.of(qie=True, ire=True),
        GlobalCommand.of(qie=True, ire=True, te=True),
    ]
    order = [offset for offset, _ in bench.writes]
    assert order.index(0x20) < order.index(0x18, order.index(0x20)) < order.index(0xB8)
    bench.driver.stop()
    assert read(bench, GlobalStatus) == GlobalStatus.of(rtps=True, irtps=True)


@pytest.mark.parametrize("enhanced", [True, False])
def test_pointers_are_followed_by_global_invalidations_unless_hardware_does_them(
    enhanced: bool,
) -> None:
    bench = Bench(capabilities(esrtps=enhanced, esirtps=enhanced))
    bench.driver.start(interrupts=True)
    assert bench.submitted() == ([] if enhanced else [1, 7, 2, 5, 4, 5])


def test_stores_that_no_invalidation_follows_are_flushed_from_write_buffers() -> None:
    bench = Bench(capabilities(rwbf=1), scalable=False)
    bench.driver.start()
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain)

    def flushes() -> int:
        return sum(offset == 0x18 and bool(value >> 27 & 1) for offset, value in bench.writes)

    before = flushes()
    domain.map(0, DATA, PAGE)
    assert flushes() == before + 1
    domain.unmap(0, PAGE)
    assert flushes() == before + 1
    assert bench.submitted()[-2:] == [2, 5]


@pytest.mark.parametrize("coherent", [True, False])
def test_stores_to_structures_are_flushed_where_the_unit_does_not_snoop(coherent: bool) -> None:
    lines: list[tuple[int, int]] = []
    bench = Bench(capabilities(c=coherent), flush=lambda *line: lines.append(line))
    bench.driver.start()
    domain = bench.driver.domain(SECOND_STAGE)
    bench.driver.attach(SID, domain)
    lines.clear()
    domain.map(0, DATA, PAGE)
    tables = {address & -PAGE for address, _ in lines}
    assert (domain.root in tables) is not coherent
    assert len(tables) == (0 if coherent else 4)
    domain.set_dirty_tracking(enabled=True)
    assert bench.port.write(0, b"data").ok
    lines.clear()
    assert domain.read_and_clear_dirty(0, PAGE) == [(0, PAGE)]
    assert len(lines) == (0 if coherent else 1)
    assert domain.read_and_clear_dirty(0, PAGE) == []


def test_present_entries_appear_with_their_last_store_and_go_with_their_first() -> None:
    bench = Bench(scalable=False)
    bench.driver.start()
    stores: list[bytes] = []
    place = 0

    class Watched(PhysicalMemory):
        def write(self, address: int, data: bytes) -> None:
            super().write(address, data)
            if place <= address < place + 16:
                stores.append(self.read(place, 16))

    bench.memory.__class__ = Watched
    domain = bench.driver.domain(levels=3)
    bench.driver.attach(SID, domain)
    bench.driver.detach(SID)
    place = bench.driver.structures.context_entry(SID)
    bench.driver.attach(SID, domain)
    bench.driver.detach(SID)
    present = [ContextEntry.unpack(entry) for entry in stores]
    assert [entry.p for entry in present] == [False, True, False]
    assert present[1] == ContextEntry.of(p=True, did=1, aw=1, ssptptr=domain.root)


def test_device_tlbs_are_invalidated_after_the_iotlb_and_before_the_wait() -> None:
    bench = Bench(capabilities(dit=1))
    bench.driver.start()
    domain = bench.driver.domain(FIRST_STAGE)
    bench.driver.attach(SID, domain, ats=True, physical_function=0x0100)
    bench.driver.attach(SID, domain, 9, ats=True, physical_function=0x0100)
    domain.map(0x20_0000, DATA, 0x20_0000)
    before = len(bench.submitted())
    domain.unmap(0x20_0000, PAGE)
    assert bench.submitted()[before:] == [6, 6, 3, 8, 5]
    base = next(value for offset, value in bench.writes if offset == 0x90) & -PAGE
    first, second, third, fourth = (
        bench.memory.read_record(base + (before + at) * 32, 32) for at in range(4)
    )
    rid, pasid = PasidIotlbInvalidateDescriptor(first), PasidIotlbInvalidateDescriptor(second)
    device = DeviceTlbInvalidateDescriptor(third)
    tagged = PasidDeviceTlbInvalidateDescriptor(fourth)
    # the large page was split: its whole extent goes, and IH says that a pointer changed
    assert (rid.pasid, rid.addr, rid.am, rid.ih) == (0, 0x20_0000, 9, False)
    assert (pasid.pasid, pasid.addr, pasid.am, pasid.ih) == (9, 0x20_0000, 9, False)
    for each in (device, tagged):
        assert isinstance(each, DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor)
        assert (each.sid, each.pfsid, each.s, each.addr) == (SID, 0x0100, True, 0x2F_F000)
    assert tagged.pasid == 9


def test_many_pages_are_invalidated_with_the_domain() -> None:
    bench = Bench(capabilities(mamv=0), scalable=False)
    bench.driver.start()
    domain = bench.driver.domain(largest=12)
    bench.driver.attach(SID, domain)
    domain.map(0, DATA, 40 * PAGE)
    before = len(bench.submitted())
    assert domain.unmap(0, 40 * PAGE) == 40 * PAGE
    assert bench.submitted()[before:] == [2, 5]
    base = next(value for offset, value in bench.writes if offset == 0x90) & -PAGE
    descriptor = IotlbInvalidateDescriptor(bench.memory.read_record(base + before * 16, 16))
    assert (descriptor.g, descriptor.did) == (2, 1)


def test_frames_come_back_when_the_invalidation_is_complete_and_not_before() -> None:
    bench = Bench(scalable=False)
    bench.driver.start()
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain)
    used = bench.frames.used
    domain.map(0, DATA, PAGE)
    assert bench.frames.used == used + 3
    bench.silent = True
    with pytest.raises(NoAnswerError, match="invalidations are not complete"):
        domain.unmap(0, PAGE)
    assert bench.frames.used == used + 3
    bench.silent = False
    domain.map(0, DATA, PAGE)
    domain.unmap(0, PAGE)
    assert bench.frames.used == used
    with pytest.raises(DomainError, match="in use"):
        bench.driver.close(domain)
    bench.driver.detach(SID)
    bench.driver.close(domain)
    assert bench.frames.used == used - 1


def test_what_was_mapped_before_frames_ran_out_is_invalidated() -> None:
    bench = Bench(scalable=False)
    bench.driver.start()
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain)
    while bench.frames.used < (DATA - 0x10_0000) // PAGE - 3:
        bench.frames.allocate()
    before = len(bench.submitted())
    with pytest.raises(BuildError, match="out of table frames"):
        domain.map(0x20_0000 - PAGE, DATA, 2 * PAGE)
    assert bench.submitted()[before:] == [2, 5]
    assert domain.physical(0x20_0000 - PAGE) is None


def test_a_pass_through_domain_has_no_tables() -> None:
    bench = Bench(scalable=False)
    bench.driver.start()
    domain = bench.driver.domain(PASS_THROUGH)
    bench.driver.attach(SID, domain)
    entry = ContextEntry.unpack(bench.memory.read(bench.driver.structures.context_entry(SID), 16))
    assert (entry.tt, entry.aw) == (TranslationType.PASS_THROUGH, 3)
    assert bench.port.write(DATA, b"there").ok
    for wrong in (lambda: domain.root, lambda: domain.map(0, DATA, PAGE)):
        with pytest.raises(DomainError, match="pass-through has no tables"):
            wrong()


def test_a_guest_table_has_to_be_in_guest_memory() -> None:
    bench = Bench()
    host = bench.driver.domain(SECOND_STAGE)
    with pytest.raises(DomainError, match="no guest memory at 0x5000"):
        bench.driver.domain(NESTED, second=host, guest_frames=FramePool(0x5000, 0x6000))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"smts": 0}, {"scalable": True}, "scalable mode"),
        ({}, {"queued": False}, "scalable mode"),
        ({"qi": 0, "smts": 0}, {"queued": True}, "queued invalidation"),
    ],
)
def test_a_mode_that_the_unit_lacks_is_refused(
    changes: dict[str, int], options: dict[str, bool], message: str
) -> None:
    with pytest.raises(DomainError, match=message):
        Bench(capabilities(**changes), **options)


def test_registers_invalidate_nothing_in_later_versions() -> None:
    with pytest.raises(DomainError, match="major version 6"):
        Bench(PROFILES["xeon"], scalable=False, queued=False)


@pytest.mark.parametrize(
    ("changes", "request_", "message"),
    [
        ({"fsts": 0}, {"kind": FIRST_STAGE}, "no FIRST_STAGE"),
        ({"pt": 0}, {"kind": PASS_THROUGH}, "no PASS_THROUGH"),
        ({}, {"kind": 7}, "RESERVED_7"),
        ({}, {"kind": NESTED}, "second, guest_frames"),
        ({}, {"domain_id": 0}, "domain-id 0"),
        ({"nd": 0}, {"domain_id": 256}, "domain-id 256"),
        ({"fs5lp": 0}, {"kind": FIRST_STAGE, "levels": 5}, "5-level"),
        ({"sagaw": 4}, {"levels": 5}, "no second stage of 5"),
        ({"sagaw": 0}, {}, "no second-stage tables"),
    ],
)
def test_a_domain_that_the_unit_can_not_have_is_refused(
    changes: dict[str, int], request_: dict[str, int], message: str
) -> None:
    bench = Bench(capabilities(**changes))
    kind = request_.pop("kind", SECOND_STAGE)
    with pytest.raises(DomainError, match=message):
        bench.driver.domain(type(SECOND_STAGE)(kind), **request_)  # type: ignore[arg-type]
    assert bench.driver.domains == {}


def test_legacy_mode_has_no_first_stage_and_ids_run_out() -> None:
    bench = Bench(capabilities(nd=0), scalable=False)
    with pytest.raises(DomainError, match="scalable mode"):
        bench.driver.domain(FIRST_STAGE)
    for _ in range(15):
        bench.driver.domain(PASS_THROUGH)
    with pytest.raises(DomainError, match="no domain-id is left"):
        bench.driver.domain(PASS_THROUGH)
    first = bench.driver.domains[1]
    with pytest.raises(DomainError, match="not a second-stage"):
        Bench().driver.domain(NESTED, second=first, guest_frames=bench.frames)


def test_attachments_that_make_no_sense_are_refused() -> None:
    bench = Bench(capabilities(pss=7))
    driver = bench.driver
    driver.start()
    domain, closed = driver.domain(SECOND_STAGE), driver.domain(SECOND_STAGE)
    driver.close(closed)
    driver.attach(SID, domain)
    for message, source_id, given, pasid, ats in (
        ("is closed", 0x10, closed, None, False),
        ("attached already", SID, domain, None, False),
        ("release it before", SID, domain, 3, True),
        ("not in reach", SID, domain, 0, False),
        ("not in reach", SID, domain, 256, False),
    ):
        with pytest.raises(DomainError, match=message):
            driver.attach(source_id, given, pasid, ats=ats)
    with pytest.raises(DomainError, match="still attached"):
        driver.release(SID)
    driver.detach(SID)
    with pytest.raises(DomainError, match="not attached"):
        driver.detach(SID)
    used = bench.frames.used
    driver.release(SID)
    assert bench.frames.used == used - 2  # the directory and a table
    driver.attach(SID, domain, ats=True)


def test_legacy_mode_has_no_pasids_no_dirty_tracking_and_no_page_requests_without_them() -> None:
    bench = Bench(capabilities(prs=0, ir=0), scalable=False)
    driver = bench.driver
    domain, passed = driver.domain(), driver.domain(PASS_THROUGH)
    for message, wrong in (
        ("pasid", lambda: driver.attach(SID, domain, 1)),
        ("ats", lambda: driver.attach(SID, passed, ats=True)),
        ("dirty tracking", lambda: domain.set_dirty_tracking(enabled=True)),
        ("page requests", lambda: driver.serve_page_requests(lambda _: True, Message(0, 0))),
        ("interrupt remapping", lambda: driver.start(interrupts=True)),
        ("not in use", lambda: driver.interrupts),
        ("access 0", lambda: domain.map(0, DATA, PAGE, 0)),
    ):
        with pytest.raises(DomainError, match=message):
            wrong()


def test_dirty_tracking_needs_its_capability_and_the_same_twice_is_nothing() -> None:
    with pytest.raises(DomainError, match="SSADS"):
        Bench(capabilities(ssads=0)).driver.domain().set_dirty_tracking(enabled=True)
    bench = Bench()
    bench.driver.start()
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain)
    domain.set_dirty_tracking(enabled=True)
    count = len(bench.submitted())
    domain.set_dirty_tracking(enabled=True)
    assert len(bench.submitted()) == count


def test_rights_are_reads_and_writes() -> None:
    bench = Bench()
    bench.driver.start()
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain)
    for page, access in enumerate((READ, WRITE, READ | WRITE)):
        domain.map(page * PAGE, DATA + page * PAGE, PAGE, access)
        assert bench.port.read(page * PAGE, 4).ok == bool(access & READ)
        assert bench.port.write(page * PAGE, b"data").ok == bool(access & WRITE)


def test_a_root_table_is_where_the_register_says() -> None:
    bench = Bench()
    bench.driver.start()
    assert read(bench, RootTableAddress).rta == bench.driver.structures.root


def test_detaching_answers_the_page_requests_that_are_still_waiting() -> None:
    bench = Bench()
    driver, events = bench.driver, list[Event]()
    bench.unit.subscribe(events.append)
    driver.start()
    domain = driver.domain(FIRST_STAGE)
    driver.attach(SID, domain, 5, ats=True, page_requests=True)
    handler = driver.serve_page_requests(lambda _: False, Message(0xFEE0_0000, 0x41))
    bench.port.page_request(PageRequest(0x7000, True, False, 3, True, 5))
    assert handler.serviced == 0
    driver.detach(SID, 5)
    assert handler.serviced == 1
    assert bench.submitted() == [5, 7, 6, 8, 5, 5, 9]
    (response,) = [each.response for each in events if isinstance(each, PageGroupResponseSent)]
    assert (response.code, response.group_index, response.pasid) == (1, 3, 5)


def test_more_than_the_queue_holds_is_carried_out_in_parts() -> None:
    bench = Bench()
    bench.driver.start()
    page = IotlbInvalidateDescriptor.of(g=IotlbGranularity.PAGE_IN_DOMAIN, did=1)
    owed = [Owed(Rule.SECOND_STAGE_IOTLB, page)] * 150
    bench.driver.invalidate(owed)
    assert read(bench, FaultStatus) == 0
    assert (
        bench.unit.read_register(0x80, 8) == bench.unit.read_register(0x88, 8) == (153 % 128) * 32
    )


def test_places_without_a_table_are_not_known() -> None:
    bench = Bench()
    structures = bench.driver.structures
    with pytest.raises(KeyError):
        structures.context_entry(SID)
    bench.driver.start()
    bench.driver.attach(SID, bench.driver.domain())
    with pytest.raises(KeyError):
        structures.pasid_entry(SID, 70)
    assert structures.add_context_table(SID) is False


def test_after_a_sleep_the_driver_programs_the_unit_again_with_the_tables_it_has() -> None:
    bench = Bench(capabilities(cm=1))
    bench.driver.start(interrupts=True)
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain, page_requests=True)
    bench.driver.serve_page_requests(lambda request: False, Message(0xFEE0_0000, 0x31))
    domain.map(PAGE, DATA, PAGE)
    index = bench.driver.interrupts.allocate(RemappedIrte.of(p=True, v=0x31))
    asked = RemappableAddress.for_handle(index, shv=False)
    before = read(bench.unit, GlobalStatus), bench.unit.read_register(0xD0, 8)
    bench.driver.stop()
    bench.unit.suspend()
    assert not bench.port.read(PAGE, 4).ok
    bench.unit.resume()
    assert bench.port.read(DATA, 4).ok
    bench.driver.resume()
    assert (read(bench.unit, GlobalStatus), bench.unit.read_register(0xD0, 8)) == before
    assert bench.port.write(PAGE, b"abcd").ok
    assert bench.memory.read(DATA, 4) == b"abcd"
    assert bench.port.write(asked, bytes(4)).ok
    domain.unmap(PAGE, PAGE)
    assert not bench.port.read(PAGE, 4).ok
    assert not read(bench.unit, FaultStatus).iqe


@pytest.mark.parametrize("scalable", [False, True])
def test_a_unit_without_second_stage_widths_is_used_for_what_it_can_do(scalable: bool) -> None:
    bench = Bench(capabilities(sagaw=0), scalable=scalable)
    bench.driver.start()
    with pytest.raises(DomainError, match=r"the unit has no second-stage tables"):
        bench.driver.domain()
    if not scalable:
        with pytest.raises(DomainError, match=r"the unit has no second-stage tables"):
            bench.driver.domain(PASS_THROUGH)
        return
    for kind, address in ((PASS_THROUGH, DATA), (FIRST_STAGE, PAGE)):
        domain = bench.driver.domain(kind)
        if kind is FIRST_STAGE:
            domain.map(PAGE, DATA, PAGE)
        bench.driver.attach(SID, domain)
        assert bench.port.read(address, 4).ok
        bench.driver.detach(SID)
