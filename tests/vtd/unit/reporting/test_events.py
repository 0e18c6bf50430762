"""What subscribers of a unit are told."""

from devices.dma import READ, Request
from tests.support.world import HOLE, Mode, World
from vtd.unit.interrupts.outcome import Message, compatibility_interrupt
from vtd.unit.reporting.events import (
    InterruptBlocked,
    InterruptDelivered,
    MessageSent,
    RequestBlocked,
)
from vtd.unit.requests.faults import FaultReason


def test_a_blocked_request_is_told_after_its_message() -> None:
    world = World(Mode.LEGACY)
    world.root = world.root.replace(rta=HOLE)
    started = world.start()
    started.unit.write_register(0x3C, 4, 0x41)
    started.unit.write_register(0x40, 4, 0xFEE0_1000)
    started.unit.write_register(0x38, 4, 0)
    started.admit()
    assert started.events == [
        MessageSent(Message(0xFEE0_1000, 0x41)),
        RequestBlocked(world.request, FaultReason.ROOT_READ_ERROR, recorded=True),
    ]


def test_interrupts_are_told_whether_delivered_or_blocked() -> None:
    started = World(Mode.LEGACY).start()
    port = started.port()
    port.write(0xFEE0_3000, bytes([0x41, 0, 0, 0]))
    port.read(0xFEE0_3000, 4)
    assert started.events == [
        InterruptDelivered(port.source_id, compatibility_interrupt(0xFEE0_3000, 0x41)),
        InterruptBlocked(
            port.source_id, 0xFEE0_3000, FaultReason.IR_NOT_AN_INTERRUPT, True, interrupt_index=0
        ),
    ]


def test_every_subscriber_is_told_in_order() -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    told: list[str] = []
    started.unit.subscribe(lambda _: told.append("first"))
    started.unit.subscribe(lambda _: told.append("second"))
    started.admit(Request(world.source_id, 1 << 60, READ))
    assert told == ["first", "second"]
