"""The I/O APIC: messages of both formats, edges and levels, and the register interface."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.io_apic import IoApic, RedirectionEntry, message, remappable_entry
from tests.support.ports import RecordingPort

EDGE = 0x0300_0000_0000_0041
LEVEL = EDGE | 1 << 15
EDGE_MESSAGE = (0xFEE0_3000, 0x41)
LEVEL_MESSAGE = (0xFEE0_3000, 0xC041)


@pytest.fixture
def port() -> RecordingPort:
    return RecordingPort()


@pytest.fixture
def apic(port: RecordingPort) -> IoApic:
    return IoApic(port)


def program(apic: IoApic, pin: int, entry: int) -> None:
    """Write an entry the way a driver does: upper half first, unmasking last."""
    for index, half in ((0x11 + 2 * pin, entry >> 32), (0x10 + 2 * pin, entry & 0xFFFF_FFFF)):
        apic.write(0x00, 4, index)
        apic.write(0x10, 4, half)


def test_the_worked_remappable_entry_is_built_and_sent_as_printed() -> None:
    entry = remappable_entry(0x8123, 0x41)
    assert entry == 0x0247_0000_0000_0841
    assert message(entry)[0] == 0xFEE0_2474


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.booleans())
def test_a_remappable_message_carries_the_index_and_no_subhandle(
    index: int, vector: int, level: bool
) -> None:
    address, data = message(remappable_entry(index, vector, level=level))
    assert address >> 20 == 0xFEE
    assert address >> 4 & 1
    assert not address >> 3 & 1
    assert (address >> 5 & 0x7FFF) | (address >> 2 & 1) << 15 == index
    assert (data & 0x7FF, data >> 15) == (vector, level)


@given(st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 7), st.integers(0, 1))
def test_a_compatibility_message_carries_the_entry(
    destination: int, vector: int, delivery_mode: int, logical: int
) -> None:
    entry = RedirectionEntry.of(
        destination=destination,
        vector=vector,
        delivery_mode=delivery_mode,
        destination_mode=logical,
    )
    assert message(entry) == (
        0xFEE0_0000 | destination << 12 | logical << 2,
        delivery_mode << 8 | vector,
    )


@pytest.mark.parametrize("pins", [1, 24, 120])
def test_every_pin_has_a_masked_entry_after_reset(port: RecordingPort, pins: int) -> None:
    apic = IoApic(port, pins)
    apic.write(0, 4, 1)
    assert apic.read(0x10, 4) == pins - 1 << 16 | 0x20
    for pin in range(pins):
        apic.write(0, 4, 0x10 + 2 * pin)
        assert apic.read(0x10, 4) == 1 << 16
        apic.set_pin(pin, True)
    assert port.messages == []
    program(apic, pins - 1, EDGE)
    apic.set_pin(pins - 1, False)
    apic.set_pin(pins - 1, True)
    assert port.messages == [EDGE_MESSAGE]


@pytest.mark.parametrize("pins", [0, 121])
def test_the_register_index_limits_the_pins(port: RecordingPort, pins: int) -> None:
    with pytest.raises(ValueError, match="pins"):
        IoApic(port, pins)


def test_a_pin_that_does_not_exist_is_refused(apic: IoApic) -> None:
    with pytest.raises(ValueError, match="pin"):
        apic.set_pin(24, True)


def test_an_edge_sends_on_the_rise_only(apic: IoApic, port: RecordingPort) -> None:
    program(apic, 3, EDGE)
    for level in (True, True, False, True):
        apic.set_pin(3, level)
    assert port.messages == [EDGE_MESSAGE, EDGE_MESSAGE]


def test_an_edge_while_masked_is_lost(apic: IoApic, port: RecordingPort) -> None:
    program(apic, 3, EDGE | 1 << 16)
    apic.set_pin(3, True)
    program(apic, 3, EDGE)
    assert port.messages == []


def test_a_level_waits_for_its_eoi(apic: IoApic, port: RecordingPort) -> None:
    program(apic, 3, LEVEL)
    apic.set_pin(3, True)
    apic.set_pin(3, False)
    apic.set_pin(3, True)
    assert port.messages == [LEVEL_MESSAGE]
    assert apic.entries[3].remote_irr
    apic.end_of_interrupt(0x42)
    assert port.messages == [LEVEL_MESSAGE]
    apic.write(0x40, 4, 0x41)
    assert port.messages == [LEVEL_MESSAGE, LEVEL_MESSAGE]
    apic.set_pin(3, False)
    apic.write(0x40, 4, 0x41)
    assert not apic.entries[3].remote_irr
    assert len(port.messages) == 2


def test_a_level_raised_while_masked_is_sent_when_unmasked(
    apic: IoApic, port: RecordingPort
) -> None:
    apic.set_pin(3, True)
    program(apic, 3, LEVEL)
    assert port.messages == [LEVEL_MESSAGE]


def test_switching_to_edge_clears_the_remote_irr(apic: IoApic) -> None:
    program(apic, 3, LEVEL)
    apic.set_pin(3, True)
    program(apic, 3, EDGE | 1 << 16)
    assert not apic.entries[3].remote_irr


@given(st.integers(0, (1 << 64) - 1))
def test_status_bits_of_an_entry_are_read_only(value: int) -> None:
    apic = IoApic(RecordingPort())
    program(apic, 0, value)
    assert not apic.entries[0] & (1 << 12 | 1 << 14)
    kept = value & ~RedirectionEntry.RESERVED & ~(1 << 12 | 1 << 14)
    assert apic.entries[0] == kept


def test_registers_that_do_not_exist_read_zero(apic: IoApic) -> None:
    apic.write(0, 4, 0)
    apic.write(0x10, 4, 0x0500_0000)
    assert apic.read(0x10, 4) == 0x0500_0000
    assert (apic.read(0, 4), apic.read(0, 1), apic.read(0x20, 4)) == (0, 0, 0)
    apic.write(0, 4, 0xFF)
    apic.write(0x10, 4, 1)
    apic.write(0, 1, 0)
    assert (apic.read(0, 4), apic.read(0x10, 4)) == (0xFF, 0)
