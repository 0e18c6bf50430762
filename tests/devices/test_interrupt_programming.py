"""Programming interrupt sources: the registers written make the source send what was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.function import Identity, PciFunction
from devices.hpet import Hpet
from devices.interrupt_programming import (
    InterruptSourceError,
    Message,
    enable_msi,
    enable_msix,
    program_pin,
    program_timer,
    remappable_message,
)
from devices.io_apic import IoApic, remappable_entry
from tests.support.ports import RecordingPort

IDENTITY = Identity(0x1234, 0x5678, 0x00FF00)


def connected() -> tuple[PciFunction, RecordingPort]:
    function, port = PciFunction(IDENTITY), RecordingPort()
    function.connect(port)
    function.config.write(4, 2, 4)
    return function, port


def test_worked_messages_are_as_printed() -> None:
    assert remappable_message(0x8123, None) == (0xFEE0_2474, 0)
    assert remappable_message(0x8000, 0x0123) == (0xFEE0_001C, 0x0123)


@given(
    handle=st.integers(0, 0xFFE0),
    order=st.integers(0, 5),
    maskable=st.booleans(),
    address64=st.booleans(),
)
def test_each_msi_message_names_the_next_index(
    handle: int, order: int, maskable: bool, address64: bool
) -> None:
    function, port = connected()
    msi = function.add_msi(32, maskable=maskable, address64=address64)
    enable_msi(function, remappable_message(handle), 1 << order)
    for vector in range(1 << order):
        msi.notify(vector)
    address = remappable_message(handle).address
    assert port.messages == [(address, vector) for vector in range(1 << order)]


@given(st.lists(st.integers(0, 0xFFFF), max_size=8))
def test_each_msix_vector_has_its_own_message(handles: list[int]) -> None:
    function, port = connected()
    function.add_bar(0, 0x1000)
    msix = function.add_msix(8, table=(0, 0x100), pending=(0, 0x800))
    enable_msix(function, [remappable_message(handle) for handle in handles])
    for vector in range(8):
        msix.notify(vector)
    assert port.messages == [remappable_message(handle) for handle in handles]
    assert msix.pending == 0xFF & ~((1 << len(handles)) - 1)


def test_a_pin_and_a_timer_send_what_they_are_programmed_to() -> None:
    port = RecordingPort()
    apic, hpet = IoApic(port), Hpet(port)
    program_pin(apic, 5, remappable_entry(0x8123, 0x41))
    apic.set_pin(5, True)
    program_timer(hpet, 1, remappable_message(7), 10, periodic=True)
    program_timer(hpet, 2, Message(0xFEE0_1000, 0x50), 15, periodic=False)
    hpet.write(0x10, 4, 1)
    hpet.clock.advance(300)
    seven = remappable_message(7)
    assert port.messages == [
        (0xFEE0_2474, 0x41), seven, (0xFEE0_1000, 0x50), seven, seven,
    ]  # fmt: skip


def test_a_source_without_that_interrupt_is_refused() -> None:
    function, _ = connected()
    message = remappable_message(1)
    with pytest.raises(InterruptSourceError, match="no MSI capability"):
        enable_msi(function, message)
    with pytest.raises(InterruptSourceError, match="no MSI-X capability"):
        enable_msix(function, [message])
    function.add_msi(4)
    for vectors in (0, 3, 8):
        with pytest.raises(InterruptSourceError, match="vectors"):
            enable_msi(function, message, vectors)
    function.add_bar(0, 0x1000)
    function.add_msix(1, table=(0, 0), pending=(0, 0x800))
    with pytest.raises(InterruptSourceError, match="2 messages"):
        enable_msix(function, [message, message])
