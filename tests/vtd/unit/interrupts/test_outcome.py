"""Compatibility-format messages, by the bits of 5.1.2.1."""

from hypothesis import given
from hypothesis import strategies as st

from vtd.layouts.interrupt_entries import DeliveryMode, DestinationMode, TriggerMode
from vtd.unit.interrupts.outcome import Interrupt, Posted, compatibility_interrupt

addresses = st.integers(0xFEE0_0000, 0xFEEF_FFFF)
values = st.integers(0, (1 << 32) - 1)


@given(addresses, values)
def test_a_message_is_taken_apart_by_its_bits(address: int, data: int) -> None:
    interrupt = compatibility_interrupt(address, data)
    assert interrupt.vector == data & 0xFF
    assert interrupt.delivery_mode == data >> 8 & 7
    assert interrupt.trigger_mode == data >> 15 & 1
    assert interrupt.destination_mode == address >> 2 & 1
    assert interrupt.redirection_hint == bool(address >> 3 & 1)
    assert interrupt.destination == address >> 12 & 0xFF


def test_a_worked_message() -> None:
    assert compatibility_interrupt(0xFEE0_3000, 0x4141) == Interrupt(
        0x41,
        DeliveryMode.LOWEST_PRIORITY,
        TriggerMode.EDGE,
        DestinationMode.PHYSICAL,
        redirection_hint=False,
        destination=3,
    )


def test_a_posted_interrupt_names_its_descriptor() -> None:
    assert Posted(0x8000, 0x51, None)._asdict() == {
        "descriptor": 0x8000, "vector": 0x51, "notification": None
    }  # fmt: skip


@given(st.builds(compatibility_interrupt, addresses, values), st.integers(0, (1 << 24) - 1))
def test_the_message_of_an_interrupt_stands_for_it(interrupt: Interrupt, upper: int) -> None:
    interrupt = interrupt._replace(destination=interrupt.destination | upper << 8)
    message = interrupt.message()
    assert message.address >> 20 & 0xFFF == 0xFEE
    again = compatibility_interrupt(message.address, message.data)
    assert again == interrupt._replace(destination=interrupt.destination & 0xFF)
    assert message.address >> 32 == upper << 8
    assert bool(message.data & 1 << 14) == (interrupt.trigger_mode is TriggerMode.LEVEL)
