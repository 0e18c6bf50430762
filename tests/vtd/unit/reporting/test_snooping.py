"""Units that do not snoop, or do not see write buffers: stores show when they were flushed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devices.dma import CompletionStatus
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from pagetables.observer import Structure
from pagetables.stores import ProcessorStores
from tests.support.host_permissions import UNIT, admitted, permitting_world, translated
from tests.support.world import HOST, PAGE, Mode, Started, World, capabilities
from vtd.auditing.audit_log import audit_scenario
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    Descriptor,
    DeviceTlbInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
)
from vtd.layouts.entries import AddressWidth, ContextEntry, RootEntry
from vtd.software.domain import FIRST_STAGE, SECOND_STAGE
from vtd.software.driver import Driver
from vtd.software.memory import Flush
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import Event, UnflushedRead
from vtd.unit.unit import RemappingUnit

LEGACY = dict.fromkeys(
    ("smts", "fsts", "ssts", "nest", "pasid", "prs", "smpwcs", "ssads", "eafs", "srs", "rps"), 0
)
SID, PAGE_SIZE, DATA, END = 0x0108, 0x1000, 0x40_0000, 0x80_0000


def reads(events: list[Event]) -> list[Structure]:
    return [event.structure for event in events if isinstance(event, UnflushedRead)]


class Bench:
    """A unit whose tables a processor writes, and its driver."""

    def __init__(self, has: Capabilities, *, flushes: bool, **options: Any) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        self.stores = ProcessorStores(self.memory, buffers=bool(has.cap.rwbf))
        self.unit = RemappingUnit(has, self.stores.unsnooped)
        self.events: list[Event] = []
        self.unit.subscribe(self.events.append)
        nothing: Flush = lambda address, length: None  # noqa: E731 - a driver that forgets it
        self.driver = Driver(
            self.unit,
            self.stores,
            FramePool(0x10_0000, DATA),
            host_address_width=has.host_address_width,
            flush=self.stores.flush if flushes else nothing,
            **options,
        )
        self.port = UnitPort(self.unit, self.memory, SID)


@pytest.mark.parametrize("flushes", [True, False])
@pytest.mark.parametrize("changes", [{"c": 0}, {"c": 0, "smpwcs": 0, "ssads": 0, "eafs": 0}, {}])
@pytest.mark.parametrize("kind", [SECOND_STAGE, FIRST_STAGE])
def test_a_driver_that_flushes_reaches_units_that_do_not_snoop(
    kind: Any, changes: dict[str, int], flushes: bool
) -> None:
    bench = Bench(capabilities(**changes), flushes=flushes)
    bench.driver.start()
    domain = bench.driver.domain(kind)
    bench.driver.attach(SID, domain)
    domain.map(PAGE_SIZE, DATA, PAGE_SIZE)
    reached = bench.port.write(PAGE_SIZE, b"abcd").ok
    assert reached == (flushes or not changes)
    assert bool(reads(bench.events)) == (not reached)


@pytest.mark.section("3.10")
def test_walks_are_not_snooped_without_pwsnp_though_c_is_set() -> None:
    world = World(Mode.SECOND, capabilities(smpwcs=0, ssads=0, eafs=0))
    stores = ProcessorStores(world.memory)
    started = Started(world, RemappingUnit(world.unit, stores.unsnooped))
    started.set_root(world.root)
    started.command(te=True)
    where, _ = world.places["second1"]
    leaf = world.get("second1")
    stores.write(where, bytes(8))
    assert started.admit() == HOST | PAGE  # not flushed
    assert reads(started.events) == [Structure.SECOND_STAGE]
    started.unit.caches.clear()
    stores.flush(where, 8)
    assert started.admit() is None
    entry, _ = world.places["pasid"]
    stores.write(entry, world.get("pasid").replace(p=False).pack())  # snooped: C = 1
    started.unit.caches.clear()
    assert started.admit() is None
    assert leaf


@pytest.mark.parametrize("kind", [Mode.SECOND, Mode.PASS_THROUGH])
@pytest.mark.parametrize("pwsnp", [False, True])
@pytest.mark.section("4.2.4.2")
def test_host_permission_tables_are_snooped_as_pwsnp_says(kind: Mode, pwsnp: bool) -> None:
    world = permitting_world(kind, unit=replace(UNIT, ecap=UNIT.ecap.replace(c=not pwsnp)))
    world.change("pasid", pwsnp=pwsnp)
    stores = ProcessorStores(world.memory)
    started = Started(world, RemappingUnit(world.unit, stores.unsnooped))
    started.set_root(world.root)
    started.command(te=True)
    where, _ = world.places["hpt1"]
    stores.write(where, bytes(16))
    assert (admitted(started, translated(world)) is CompletionStatus.SUCCESS) == (not pwsnp)
    assert reads(started.events) == ([] if pwsnp else [Structure.HOST_PERMISSION])


def test_the_queue_and_posting_are_always_snooped() -> None:
    bench = Bench(capabilities(c=0), flushes=False)
    bench.driver.start()
    assert bench.driver.queue is not None and bench.driver.queue.wait()
    assert Structure.QUEUE_DESCRIPTOR not in reads(bench.events)


DRAINING: dict[str, Descriptor] = {
    "context": ContextCacheInvalidateDescriptor.of(g=1),
    "IOTLB": IotlbInvalidateDescriptor.of(g=1),
    "interrupt": InterruptEntryCacheInvalidateDescriptor.of(),
}
NOT_DRAINING: dict[str, Descriptor] = {
    "wait": InvalidationWaitDescriptor.of(fn=True),
    "device-TLB": DeviceTlbInvalidateDescriptor.of(sid=SID),
}


@pytest.mark.parametrize("how", ["nothing", "WBF", *DRAINING, *NOT_DRAINING])
@pytest.mark.section("6.8")
def test_write_buffers_are_drained_by_command_and_by_invalidations(how: str) -> None:
    has = capabilities(rwbf=1, **LEGACY)
    world = World(Mode.LEGACY, has)
    world.change("second1", r=False, w=False)
    stores = ProcessorStores(world.memory, caches=False, buffers=True)
    started = Started(world, RemappingUnit(has, stores.unsnooped))
    started.set_root(world.root)
    started.command(te=True)
    started.enable_queue(wide=False)
    assert started.admit() is None
    where, record = world.places["second1"]
    stores.write(where, record.of(r=True, w=True, addr=HOST | PAGE).pack())
    if how == "WBF":
        started.command(wbf=True)
    elif how != "nothing":
        started.submit((DRAINING | NOT_DRAINING)[how])
    waits = how == "nothing" or how in NOT_DRAINING
    assert (started.admit() is None) == waits
    assert bool(reads(started.events)) == waits


@pytest.mark.parametrize("queued", [True, False])
def test_the_driver_drains_write_buffers(queued: bool) -> None:
    bench = Bench(capabilities(rwbf=1, c=0, **LEGACY), flushes=True, queued=queued)
    bench.driver.start()
    domain = bench.driver.domain()
    bench.driver.attach(SID, domain)
    domain.map(PAGE_SIZE, DATA, PAGE_SIZE)
    assert bench.port.read(PAGE_SIZE, 4).ok
    assert not reads(bench.events)


def log(*, flush: bool) -> dict[str, Any]:
    """A platform log of a driver that maps a page, on a unit that does not snoop."""
    has = capabilities(c=0, **LEGACY)
    tables = {
        0x1010: RootEntry.of(p=True, ctp=0x2000).pack(),
        0x2080: ContextEntry.of(p=True, aw=AddressWidth.AGAW_39, did=1, ssptptr=0x3000).pack(),
        0x3000: (0x4003).to_bytes(8, "little"),
        0x4000: (0x5003).to_bytes(8, "little"),
        0x5008: (0x6003).to_bytes(8, "little"),
    }
    steps: list[dict[str, Any]] = []
    for address, data in tables.items():
        steps.append({"op": "mem_write", "addr": address, "hex": data.hex()})
        if flush or address != 0x5008:
            steps.append({"op": "mem_flush", "addr": address, "length": len(data)})
    for offset, size, value in ((0x20, 8, 0x1000), (0x18, 4, 1 << 30), (0x18, 4, 1 << 31)):
        steps.append({"op": "reg_write", "offset": offset, "size": size, "value": value})
    steps.append({"op": "dma_read", "device": "nic", "iova": 0x1000, "length": 4})
    return {
        "format": 1,
        "unit": {
            "version": int(has.version), "cap": int(has.cap), "ecap": int(has.ecap),
            "host_address_width": has.host_address_width,
        },
        "memory": [[0, 0x10000]],
        "devices": {"nic": {"source_id": SID}},
        "stores_wait": True,
        "steps": steps,
    }  # fmt: skip


def test_a_forgotten_flush_is_a_finding_of_the_audit() -> None:
    assert not audit_scenario(log(flush=True)).findings
    (finding,) = audit_scenario(log(flush=False)).findings
    assert str(finding.use) == (
        "second-stage entry at 0x5008 read as 0x0, stored as 0x6003: "
        "missing flush of its cache lines (VT-d 3.10)"
    )
