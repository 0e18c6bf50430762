"""Interrupt-remapping entries of the driver: remapped and posted, and who may use an index when."""

from __future__ import annotations

import pytest

from devices.interrupt_programming import remappable_message
from tests.support.world import capabilities
from tests.vtd.software.test_driver import SID, Bench
from vtd.layouts.interrupt_entries import (
    PostedInterruptDescriptor,
    PostedIrte,
    RemappedIrte,
    SourceValidationType,
)
from vtd.unit.interrupts.outcome import Interrupt
from vtd.unit.reporting.events import Event, InterruptDelivered

DESCRIPTOR = 0x50_0040


def remapped(vector: int) -> RemappedIrte:
    return RemappedIrte.of(p=True, v=vector, sid=SID, svt=SourceValidationType.SOURCE_ID)


def started(caching_mode: bool = False) -> tuple[Bench, list[Event]]:
    bench = Bench(capabilities(cm=caching_mode))
    events: list[Event] = []
    bench.unit.subscribe(events.append)
    bench.driver.start(interrupts=True)
    return bench, events


def send(bench: Bench, index: int) -> None:
    message = remappable_message(index)
    bench.port.write(message.address, message.data.to_bytes(4, "little"))


def test_an_entry_may_change_from_remapped_to_posted_and_back() -> None:
    bench, events = started()
    table = bench.driver.interrupts
    index = table.allocate(remapped(0x31))
    send(bench, index)
    posted = PostedIrte.of(
        p=True,
        im=True,
        vv=0x42,
        sid=SID,
        svt=SourceValidationType.SOURCE_ID,
        pdal=DESCRIPTOR & 0xFFFF_FFFF,
    )
    table.change(index, posted)
    send(bench, index)
    descriptor = PostedInterruptDescriptor.unpack(bench.memory.read(DESCRIPTOR, 64))
    assert descriptor.pir == 1 << 0x42
    table.change(index, remapped(0x33))
    send(bench, index)
    table.free(index)
    send(bench, index)
    outcomes = [each.outcome for each in events if isinstance(each, InterruptDelivered)]
    assert [each.vector for each in outcomes if isinstance(each, Interrupt)] == [0x31, 0x33]
    assert table.allocate(remapped(0x34)) == index


@pytest.mark.parametrize("caching_mode", [False, True])
def test_a_new_entry_is_invalidated_where_its_absence_may_be_cached(caching_mode: bool) -> None:
    bench, _ = started(caching_mode)
    index = bench.driver.interrupts.allocate(remapped(0x31))
    assert bench.submitted() == ([4, 5] if caching_mode else [])
    bench.driver.interrupts.free(index)
    assert bench.submitted()[-2:] == [4, 5]


def test_several_entries_are_aligned_as_subhandles_need_them() -> None:
    table = started()[0].driver.interrupts
    assert table.allocate(remapped(0x31)) == 0
    assert table.allocate(*map(remapped, range(0x40, 0x43))) == 4
    assert table.allocate(remapped(0x32)) == 1
    with pytest.raises(ValueError, match="no room for 256"):
        table.allocate(*map(remapped, range(256)))


def test_what_is_not_in_use_or_not_present_is_refused() -> None:
    table = started()[0].driver.interrupts
    with pytest.raises(ValueError, match="index 3 is not in use"):
        table.free(3)
    with pytest.raises(ValueError, match="index 3 is not in use"):
        table.change(3, remapped(1))
    index = table.allocate(remapped(0x31))
    with pytest.raises(ValueError, match="not present"):
        table.change(index, RemappedIrte(0))
    for entries in ((), (remapped(1), RemappedIrte(0))):
        with pytest.raises(ValueError, match="one or more that are present"):
            table.allocate(*entries)
