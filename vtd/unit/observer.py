"""The road of a request as somebody who watches a unit sees it, step by step.

An :class:`Observer` is given to :meth:`vtd.unit.unit.RemappingUnit.observe` and hears of everything
in order, with addresses and values: what was read, which cached entry was used, which flag was set,
where the page is, or which fault was met. A unit that nobody observes does nothing for it.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from devices.dma import Completion, Request
from pagetables.bits import BitRecord
from pagetables.observer import EntryObserver, Structure
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.requests.faults import FaultReason


class CacheName(Enum):
    """The caches of 6.2, 6.3 and 6.4."""

    CONTEXT = "context cache"
    PASID = "PASID cache"
    IOTLB = "IOTLB"
    FIRST_STAGE = "first-stage paging-structure cache"
    SECOND_STAGE = "second-stage paging-structure cache"
    INTERRUPT = "interrupt entry cache"
    HOST_PERMISSION = "HPT leaf cache"
    HOST_PERMISSION_TABLE = "HPT paging-structure cache"
    DEVICE_TLB = "device-TLB"


class Observer(EntryObserver):
    """Told of every step; each method does nothing unless it is overridden.

    Keys are those of the caches: a source-id; source-id and PASID; kind of request and address for
    the IOTLB; domain-id, PASID, shift and address prefix of a table; an interrupt index.
    Source-id, PASID and page for host permissions; HPT domain-id, level and address prefix of their
    tables.
    """

    def begin(self, request: Request) -> None:
        """A request, message or interrupt request has arrived."""

    def looks_ahead(self, request: Request) -> None:
        """What follows is for a request that nobody has made, to fill caches beforehand."""

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        """A cache was asked; ``entry`` is what it had, the key then that of the entry, or None."""

    def kept(self, cache: CacheName, key: Any, entry: object) -> None:
        """A cache was given an entry, which it keeps if its shape has room."""

    def found(self, request: Request, entry: IotlbEntry) -> None:
        """The walk led to a page that the request may use."""

    def fault(self, request: Request, reason: FaultReason) -> None:
        """The request met a fault condition."""

    def invalidated(self, command: BitRecord) -> None:
        """An invalidation, by its descriptor or command register, has been carried out."""

    def answered(self, request: Request, answer: int | Completion) -> None:
        """The answer to a request: the physical address, or its completion without one."""

    def register_read(self, offset: int, size: int, value: int) -> None:
        """Software has read ``value``."""

    def register_written(self, offset: int, size: int, value: int) -> None:
        """Software has written ``value``, and all that follows has been done."""

    def settled(self) -> None:
        """A request, or a write of software to a register, has been dealt with."""

    def reset(self) -> None:
        """The unit was reset: functions are off and caches empty (11.3)."""


class Observers(Observer):
    """Several observers as one, told in the order in which they came."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        for each in self._observers:
            each.read(structure, address, size, value)

    def unreadable(self, structure: Structure, address: int) -> None:
        for each in self._observers:
            each.unreadable(structure, address)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        for each in self._observers:
            each.update(structure, address, size, old, new)

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        for each in self._observers:
            each.updated(structure, address, new, done=done)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        for each in self._observers:
            each.write(structure, address, data)

    def begin(self, request: Request) -> None:
        for each in self._observers:
            each.begin(request)

    def looks_ahead(self, request: Request) -> None:
        for each in self._observers:
            each.looks_ahead(request)

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        for each in self._observers:
            each.asked(cache, key, entry)

    def kept(self, cache: CacheName, key: Any, entry: object) -> None:
        for each in self._observers:
            each.kept(cache, key, entry)

    def found(self, request: Request, entry: IotlbEntry) -> None:
        for each in self._observers:
            each.found(request, entry)

    def fault(self, request: Request, reason: FaultReason) -> None:
        for each in self._observers:
            each.fault(request, reason)

    def invalidated(self, command: BitRecord) -> None:
        for each in self._observers:
            each.invalidated(command)

    def answered(self, request: Request, answer: int | Completion) -> None:
        for each in self._observers:
            each.answered(request, answer)

    def register_read(self, offset: int, size: int, value: int) -> None:
        for each in self._observers:
            each.register_read(offset, size, value)

    def register_written(self, offset: int, size: int, value: int) -> None:
        for each in self._observers:
            each.register_written(offset, size, value)

    def settled(self) -> None:
        for each in self._observers:
            each.settled()

    def reset(self) -> None:
        for each in self._observers:
            each.reset()
