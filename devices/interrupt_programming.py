"""What software writes to make an interrupt source send the requests it wants.

VT-d 5.1.5, Programming Interrupt Sources To Generate Remappable Interrupts. Everything goes through
the registers of the source, as a driver does it; conventional messages work the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from devices.capabilities import CapabilityId
from devices.function import PciFunction
from devices.hpet import TIMER_SIZE, TIMERS, Hpet, TimerConfiguration
from devices.interrupt_messages import RemappableAddress
from devices.io_apic import TABLE, IoApic, IoApicOffset
from devices.msi import MSIX_ENTRY_SIZE, MsiControl, MsixControl, MsixLocation


class InterruptSourceError(ValueError):
    """A source that has no such interrupt."""


class Message(NamedTuple):
    """An interrupt message."""

    address: int
    data: int


def remappable_message(handle: int, subhandle: int | None = 0) -> Message:
    """The message for interrupt index ``handle + subhandle``; None sends no subhandle.

    A source with several messages adds its message number to the data, hence to the subhandle.
    """
    address = RemappableAddress.for_handle(handle, shv=subhandle is not None)
    return Message(int(address), subhandle or 0)


def enable_msi(function: PciFunction, message: Message, vectors: int = 1) -> None:
    """Program and enable MSI with ``vectors`` messages (a power of two)."""
    config = function.config
    at = config.find_capability(CapabilityId.MSI)
    if at is None:
        raise InterruptSourceError("the function has no MSI capability")
    control = MsiControl(config.read(at + 2, 2))
    if vectors not in {1 << order for order in range(control.capable + 1)}:
        raise InterruptSourceError(f"vectors: {vectors} is not one the function can have")
    config.write(at + 4, 4, message.address & 0xFFFF_FFFF)
    if control.address64:
        config.write(at + 8, 4, message.address >> 32)
    config.write(at + (0xC if control.address64 else 8), 2, message.data)
    config.write(at + 2, 2, control.replace(enabled=vectors.bit_length() - 1, enable=1))


def enable_msix(function: PciFunction, messages: Sequence[Message]) -> None:
    """Program and unmask the first vectors, one message each, and enable MSI-X."""
    config = function.config
    at = config.find_capability(CapabilityId.MSIX)
    if at is None:
        raise InterruptSourceError("the function has no MSI-X capability")
    control = MsixControl(config.read(at + 2, 2))
    if len(messages) > control.table_size + 1:
        raise InterruptSourceError(f"{len(messages)} messages for {control.table_size + 1} vectors")
    location = MsixLocation(config.read(at + 4, 4))
    bar = function.bars[location.bir]
    for vector, message in enumerate(messages):
        entry = location.offset + vector * MSIX_ENTRY_SIZE
        bar.write(entry, 4, message.address & 0xFFFF_FFFF)
        bar.write(entry + 4, 4, message.address >> 32)
        bar.write(entry + 8, 4, message.data)
        bar.write(entry + 12, 4, 0)
    config.write(at + 2, 2, control.replace(enable=1, function_mask=0))


def program_pin(apic: IoApic, pin: int, entry: int) -> None:
    """Write a redirection entry, the half with the mask bit last."""
    for index, half in ((1, entry >> 32), (0, entry & 0xFFFF_FFFF)):
        apic.write(IoApicOffset.IOREGSEL, 4, TABLE + 2 * pin + index)
        apic.write(IoApicOffset.IOWIN, 4, half)


def program_timer(hpet: Hpet, timer: int, message: Message, ticks: int, *, periodic: bool) -> None:
    """Make a timer send ``message`` in, or every, ``ticks`` from counter value 0."""
    base = TIMERS + timer * TIMER_SIZE
    configuration = TimerConfiguration.of(
        enable=1, fsb_enable=1, periodic=periodic, set_value=periodic
    )
    hpet.write(base + 0x10, 8, message.address << 32 | message.data)
    hpet.write(base, 8, configuration)
    hpet.write(base + 8, 8, ticks)
