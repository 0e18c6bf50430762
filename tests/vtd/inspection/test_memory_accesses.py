"""Accesses of the unit itself: all of appendix A, with the unit and the PASID entry varied."""

from __future__ import annotations

import pytest

from devices.dma import READ, WRITE, AddressType, Completion, CompletionStatus, Request
from pagetables.observer import Structure
from tests.support.interrupt_world import POSTED, REMAPPED, InterruptWorld
from tests.support.world import HOST, STATUS, Mode, World, capabilities
from vtd.inspection.memory_accesses import MemoryAccess, MemoryAccesses, Operation
from vtd.inspection.memory_type import MemoryType
from vtd.layouts.descriptors import InvalidationWaitDescriptor
from vtd.layouts.entries import HostPermissionL4Entry
from vtd.layouts.registers import RdtConfiguration

S = Structure
ROOTED = {S.ROOT, S.CONTEXT, S.PASID_DIRECTORY, S.PASID}
WALKED = {S.FIRST_STAGE, S.SECOND_STAGE}


def accesses(world: World, access: int = WRITE) -> list[MemoryAccess]:
    started = world.start()
    log = MemoryAccesses(started.unit)
    started.admit(world.request._replace(access=access))
    return log.accesses


@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.parametrize(("smpwcs", "pwsnp"), [(0, 0), (1, 0), (1, 1)])
@pytest.mark.section("3.10", "A")
def test_structures_of_scalable_mode_are_snooped_as_appendix_a_says(
    c: int, smpwcs: int, pwsnp: int
) -> None:
    features = {} if smpwcs else {"ssads": 0, "eafs": 0}
    world = World(Mode.NESTED, capabilities(c=c, smpwcs=smpwcs, **features))
    world.change("pasid", pwsnp=pwsnp)
    found = accesses(world)
    reads = [each for each in found if each.operation is Operation.READ]
    assert {each.structure for each in reads} == ROOTED | WALKED
    for each in reads:
        wanted = pwsnp if each.structure in WALKED else c
        assert each.attributes == (MemoryType.WB, bool(wanted)), each
    updates = [each for each in found if each.operation is Operation.UPDATE]
    assert all(each.attributes.snoop for each in updates)
    assert bool(updates) == bool(pwsnp)


@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.section("3.10")
def test_structures_of_legacy_mode_are_snooped_where_c_says_so(c: int) -> None:
    found = accesses(World(Mode.LEGACY, capabilities(c=c)))
    assert [each.structure for each in found] == [S.ROOT, S.CONTEXT, *[S.SECOND_STAGE] * 4]
    assert all(each.attributes == (MemoryType.WB, bool(c)) for each in found)


def test_a_pasid_entry_from_the_cache_counts_like_one_that_is_read() -> None:
    world = World(Mode.SECOND)
    started = world.start()
    assert started.admit() is not None
    log = MemoryAccesses(started.unit)
    started.unit.caches.iotlb.clear()
    assert started.admit() is not None
    assert [each.structure for each in log.accesses] == [S.SECOND_STAGE] * 4
    assert all(each.attributes.snoop for each in log.accesses)
    started.unit.ignore(log)
    started.unit.caches.iotlb.clear()
    assert started.admit() is not None
    assert len(log.accesses) == 4


@pytest.mark.parametrize("pwsnp", [False, True])
@pytest.mark.section("4.2.4.2", "4.2.4.3")
def test_host_permission_tables_are_snooped_as_pwsnp_says(pwsnp: bool) -> None:
    world = World(Mode.SECOND, capabilities(hpts=1))
    table = 0x18000
    world.change("context", hpte=True)
    world.change("pasid", pwsnp=pwsnp, hptptr=table)
    world.add("hpt4", table, HostPermissionL4Entry.of(av=True, addr=table + 0x1000))
    started = world.start()
    log = MemoryAccesses(started.unit)
    kind = AddressType.TRANSLATED
    request = Request(world.source_id, HOST, READ, 4, address_type=kind)
    answer = started.unit.admit(request)
    assert isinstance(answer, Completion)
    assert answer.status is CompletionStatus.UNSUPPORTED_REQUEST  # an empty table of level 3
    tables = [each for each in log.accesses if each.structure is S.HOST_PERMISSION]
    assert len(tables) == 2
    assert all(each.attributes == (MemoryType.WB, pwsnp) for each in tables)


@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.parametrize("entry", [REMAPPED, POSTED])
@pytest.mark.section("5.3")
def test_interrupt_entries_follow_c_and_posting_is_always_snooped(c: int, entry: int) -> None:
    world = InterruptWorld(unit=capabilities(c=c), entry=REMAPPED)
    world.put_entry(entry)
    started = world.start()
    log = MemoryAccesses(started.unit)
    assert started.send() is not None
    for each in log.accesses:
        assert each.attributes.snoop == (each.structure is not S.INTERRUPT_ENTRY or bool(c))
    assert {each.structure for each in log.accesses} == (
        {S.INTERRUPT_ENTRY} if entry is REMAPPED else {S.INTERRUPT_ENTRY, S.POSTED_DESCRIPTOR}
    )


@pytest.mark.section("11.4.15")
def test_queues_are_always_snooped_and_accesses_carry_the_rdt_fields() -> None:
    world = World(Mode.SECOND, capabilities(c=0, rdts=1))
    started = world.start()
    started.enable_queue(wide=True)
    started.unit.write_register(0xDC0, 8, RdtConfiguration.of(clos=3, rmid=0x123))
    log = MemoryAccesses(started.unit)
    started.submit(InvalidationWaitDescriptor.of(sw=True, status_address=STATUS))
    queue, status = log.accesses
    assert queue[:2] == (S.QUEUE_DESCRIPTOR, Operation.READ)
    assert status[:3] == (S.WAIT_STATUS, Operation.WRITE, STATUS)
    assert queue.attributes.snoop and status.attributes.snoop
    assert (queue.rdt.clos, queue.rdt.rmid) == (3, 0x123)
