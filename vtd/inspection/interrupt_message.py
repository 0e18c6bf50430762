"""An interrupt message decoded, and followed through the table of a unit (VT-d 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from devices.interrupt_messages import RemappableAddress
from devices.source_id import SourceId
from pagetables.memory import BusError
from vtd.layouts.interrupt_entries import (
    PostedIrte,
    RemappableData,
    RemappedIrte,
    SourceValidationType,
)
from vtd.layouts.registers import GlobalStatus
from vtd.unit.interrupts.interrupt_remapping import IRTE_SIZE, InterruptFault
from vtd.unit.interrupts.outcome import Interrupt, Posted, compatibility_interrupt
from vtd.unit.unit import RemappingUnit


@dataclass(frozen=True)
class DecodedMessage:
    """What a message says by itself."""

    compatibility: Interrupt | None
    """The interrupt of a message in compatibility format; a remappable one has the rest."""
    handle: int = 0
    subhandle: int | None = None
    """None where the message says that it has none."""

    @property
    def index(self) -> int:
        """The interrupt index (5.1.3)."""
        return self.handle + (self.subhandle or 0)


def decode_message(address: int, data: int) -> DecodedMessage:
    """Decode a message; ``address`` is in the interrupt range."""
    request = RemappableAddress(address)
    if not request.format:
        return DecodedMessage(compatibility_interrupt(address, data))
    subhandle = RemappableData(data).subhandle if request.shv else None
    return DecodedMessage(None, request.handle, subhandle)


@dataclass(frozen=True)
class FollowedMessage:
    """A message on its way through the table of a unit."""

    remapping: bool
    """Whether interrupt remapping is on."""
    sender: SourceId
    entry_address: int | None
    """None where no entry is asked."""
    entry: RemappedIrte | PostedIrte | None
    """None where none is asked, or where reading failed."""
    outcome: Interrupt | Posted | None
    fault: InterruptFault | None


def follow_message(
    unit: RemappingUnit, sender: SourceId | None, address: int, data: int
) -> FollowedMessage:
    """Follow a message of ``sender``; None is a requester that the entry accepts."""
    status, interrupts = unit.registers[GlobalStatus], unit.interrupts
    message = decode_message(address, data)
    where = entry = None
    if status.ires and message.compatibility is None:
        where = interrupts.table.irta + message.index * IRTE_SIZE
        entry = _read(unit, where)
    sender = accepted_by(entry) if sender is None else sender
    outcome = fault = None
    try:
        outcome = interrupts.remap(status, sender, address, data)
    except InterruptFault as refused:
        fault = refused
    return FollowedMessage(status.ires, sender, where, entry, outcome, fault)


def accepted_by(entry: RemappedIrte | PostedIrte | None) -> SourceId:
    """A requester that may use the entry; 00:00.0 if it does not say."""
    if entry is None or entry.svt is SourceValidationType.NONE:
        return SourceId(0)
    bus_range = entry.svt is SourceValidationType.BUS_RANGE
    return SourceId(entry.sid & 0xFF00 if bus_range else entry.sid)


def _read(unit: RemappingUnit, address: int) -> RemappedIrte | PostedIrte | None:
    try:
        entry = RemappedIrte(unit.remapping.memory.read_record(address, IRTE_SIZE))
    except BusError:
        return None
    return PostedIrte(entry) if entry.im else entry
