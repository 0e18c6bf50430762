"""What happened in a unit, as values for whoever subscribes."""

from __future__ import annotations

from typing import NamedTuple

from devices.dma import (
    InvalidationRequest,
    PageGroupResponse,
    PageRequest,
    Request,
    TranslationEntry,
)
from pagetables.observer import Structure
from vtd.unit.interrupts.outcome import Interrupt, Message, Posted
from vtd.unit.requests.faults import FaultReason


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
    interrupt_index: int
    """0 where the reason has none."""


class InterruptDelivered(NamedTuple):
    """An interrupt request left the unit."""

    source_id: int
    outcome: Interrupt | Posted


class TranslationGiven(NamedTuple):
    """A translation completion told a device-TLB about ``address``; one event for each entry."""

    source_id: int
    pasid: int | None
    privileged: bool
    address: int
    """Untranslated; the entry holds for the range of its size around it."""
    entry: TranslationEntry


class TranslatedRequestPassed(NamedTuple):
    """A request with a translated address was let through to memory."""

    request: Request


class DeviceTlbInvalidationSent(NamedTuple):
    """An invalidation request left for a device-TLB."""

    source_id: int
    request: InvalidationRequest


class DeviceTlbInvalidationCompleted(NamedTuple):
    """A device-TLB said that it dropped what an invalidation request covers."""

    source_id: int
    request: InvalidationRequest


class DeviceTlbInvalidationTimedOut(NamedTuple):
    """The unit gave up waiting for the completion of an invalidation request."""

    source_id: int
    request: InvalidationRequest


class PageRequestReceived(NamedTuple):
    """A device asked for a page."""

    source_id: int
    request: PageRequest
    queued: bool
    """Whether software will see it."""


class PageGroupResponseSent(NamedTuple):
    """A page group response left for a device."""

    source_id: int
    response: PageGroupResponse
    automatic: bool
    """Made by the unit, not by software."""


class UnflushedRead(NamedTuple):
    """The unit read a structure without a store of software that was not flushed (3.10, 6.8)."""

    structure: Structure
    address: int
    value: int
    """What it read."""
    stored: int


class RegisterMisused(NamedTuple):
    """Software wrote a register in a way that the specification tells it not to."""

    register: str
    section: str
    mistake: str


Event = (
    MessageSent
    | RequestBlocked
    | InterruptBlocked
    | InterruptDelivered
    | TranslationGiven
    | TranslatedRequestPassed
    | DeviceTlbInvalidationSent
    | DeviceTlbInvalidationCompleted
    | DeviceTlbInvalidationTimedOut
    | PageRequestReceived
    | PageGroupResponseSent
    | RegisterMisused
    | UnflushedRead
)
