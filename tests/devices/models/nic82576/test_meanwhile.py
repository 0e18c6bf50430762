"""What becomes of registers while a queue sends counts from its next descriptor on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from devices.models.nic82576.controller import Nic82576
from tests.devices.models.nic82576.drivers import Rings
from tests.devices.models.nic82576.machines import OUTSIDE, Machine, VirtualMachines, frame_for

READY, POSTED = 6, 4
"""Frames in the ring, and those that the driver has told of."""
SECOND_FRAME = 2
CTRL, TCTL, VFTE, TXDCTL, TDH, TDT = 0x0000, 0x0400, 0x0C90, 0xE028, 0xE010, 0xE018


@dataclass
class Meddler:
    """A link partner that does something when the second frame arrives."""

    act: Callable[[], object]
    frames: list[bytes] = field(default_factory=list)

    def receive(self, frame: bytes) -> None:
        """Keep it, and act."""
        self.frames.append(frame)
        if len(self.frames) == SECOND_FRAME:
            self.act()


def sent(nic: Nic82576, rings: Rings, act: Callable[[], object], source: bytes = OUTSIDE) -> int:
    """How many frames leave a queue while its partner acts."""
    meddler = Meddler(act)
    nic.attach(meddler)
    nic.clock.advance(1_000_000_000)
    frame = frame_for(OUTSIDE, source=source)
    rings.ram.write(rings.tx_buffers, frame)
    for _ in range(READY):
        high = 0x2B30_0000 | len(frame) | len(frame) << 46
        rings.descriptor(rings.tx_buffers, high)
    rings.bar.write(rings.tx + 0x18, 4, POSTED)
    assert set(meddler.frames) == {frame}
    return len(meddler.frames)


@pytest.mark.parametrize(
    ("offset", "value", "leave"),
    [
        pytest.param(TXDCTL, 0, 2, id="the queue is off"),
        pytest.param(TCTL, 8, 2, id="the transmitter is off"),
        pytest.param(VFTE, 0, 2, id="the pool may not send"),
        pytest.param(CTRL, 1 << 2, 2, id="no more requests"),
        pytest.param(CTRL, 1 << 26, 2, id="software reset"),
        pytest.param(TDT, 2, 2, id="the tail is the head"),
        pytest.param(TDT, 3, 3, id="an earlier tail"),
        pytest.param(TDT, READY, READY, id="a later tail"),
        pytest.param(TDT, 1 << 12, 2, id="a tail that is nowhere"),
        pytest.param(TDH, 3, 3, id="a frame is passed over"),
        pytest.param(TDH, 1 << 12, 2, id="a head that is nowhere"),
        pytest.param(0x0018, 0, POSTED, id="something else"),
    ],
)
def test_a_register_written_while_a_queue_sends(offset: int, value: int, leave: int) -> None:
    machine = Machine()
    machine.up()
    rings = machine.driver.open()
    bar = machine.nic.bars[0]
    assert sent(machine.nic, rings, lambda: bar.write(offset, 4, value)) == leave


@pytest.mark.parametrize("function_level", [False, True])
def test_a_virtual_function_reset_while_its_queue_sends(function_level: bool) -> None:
    machine = VirtualMachines(1)
    machine.start_guests()
    guest, rings = machine.guests[0], machine.guest_rings[0]
    function = machine.nic.sriov.functions[0]

    def reset() -> None:
        if function_level:
            function.reset()
        else:
            function.bars[0].write(CTRL, 4, 1 << 26)

    assert sent(machine.nic, rings, reset, source=guest.mac) == SECOND_FRAME
