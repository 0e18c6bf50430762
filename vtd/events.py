"""What happened in a unit, as values for whoever subscribes."""

from __future__ import annotations

from typing import NamedTuple

from vtd.event_interrupt import Message
from vtd.faults import FaultReason
from vtd.interrupts import Interrupt, Posted
from vtd.request import Request


class MessageSent(NamedTuple):
    """The unit sent an interrupt of its own: a fault, completion, page request or counter event."""

    message: Message


class RequestBlocked(NamedTuple):
    """A DMA request met a fault condition."""

    request: Request
    reason: FaultReason
    recorded: bool
    """False where FPD suppressed the record."""


class InterruptBlocked(NamedTuple):
    """An interrupt request, or another access to the interrupt range, was blocked."""

    source_id: int
    address: int
    reason: FaultReason
    recorded: bool


class InterruptDelivered(NamedTuple):
    """An interrupt request left the unit."""

    source_id: int
    outcome: Interrupt | Posted


Event = MessageSent | RequestBlocked | InterruptBlocked | InterruptDelivered
