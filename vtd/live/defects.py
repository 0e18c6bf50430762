"""Units that are broken on purpose: whoever checks a guest has to notice each of them.

A defect is planted in a unit from outside, by name. What a check that passes on a broken unit is
worth is nothing; so each says who should notice it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from devices.dma import READ, WRITE, AddressType, Completion, Request
from pagetables.observer import InjectedError, Structure
from vtd.layouts.registers import (
    FaultEventControl,
    FaultRecording,
    GlobalCommand,
    GlobalStatus,
)
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.interrupts.interrupt_remapping import InterruptFault
from vtd.unit.interrupts.outcome import Interrupt, Posted, compatibility_interrupt
from vtd.unit.observer import CacheName, Observer
from vtd.unit.registers.register_file import RegisterWrite
from vtd.unit.requests.faults import FaultReason
from vtd.unit.translation.translate import INTERRUPT_MEGABYTE
from vtd.unit.unit import RemappingUnit

PAGE = 0x1000


class Defect(NamedTuple):
    """One way of being broken."""

    what: str
    noticed_by: str
    plant: Callable[[RemappingUnit], None]


def _without(
    of: Callable[[RemappingUnit], object], *methods: str
) -> Callable[[RemappingUnit], None]:
    """A unit in which these methods do nothing."""

    def plant(unit: RemappingUnit) -> None:
        for name in methods:
            setattr(of(unit), name, _nothing)

    return plant


def _nothing(*_: object, **__: object) -> None:
    pass


def _admitting(
    change: Callable[
        [RemappingUnit, Request, Callable[[Request], int | Completion]], int | Completion
    ],
) -> Callable[[RemappingUnit], None]:
    """A unit that lets ``change`` answer the untranslated requests that it would remap."""

    def plant(unit: RemappingUnit) -> None:
        admit = unit.admit
        unit.observe(Observer())  # so that no request is answered by its IOTLB line alone

        def broken(request: Request, *known: Any) -> int | Completion:
            plain = request.address_type is AddressType.UNTRANSLATED
            if not plain or request.address >> 20 == INTERRUPT_MEGABYTE:
                return admit(request, *known)
            return change(unit, request, admit)

        setattr(unit, "admit", broken)  # noqa: B010 - it is a method

    return plant


def _unchecked(_: RemappingUnit, request: Request, admit: Callable[..., Any]) -> Any:
    if request.access == WRITE:
        request = request._replace(access=READ, payload=None)
    return admit(request)


def _neighbour(_: RemappingUnit, request: Request, admit: Callable[..., Any]) -> Any:
    return admit(request._replace(address=request.address ^ PAGE))


class _LastEntry(Observer):
    """The translation that the last request used."""

    def __init__(self) -> None:
        self.entry: IotlbEntry | None = None

    def begin(self, request: Request) -> None:
        self.entry = None

    def asked(self, cache: CacheName, key: Any, entry: object | None) -> None:
        if cache is CacheName.IOTLB and isinstance(entry, IotlbEntry):
            self.entry = entry

    def found(self, request: Request, entry: IotlbEntry) -> None:
        self.entry = entry


def _lead_to_first_page(unit: RemappingUnit) -> None:
    last = _LastEntry()
    unit.observe(last)

    def first_page(_: RemappingUnit, request: Request, admit: Callable[..., Any]) -> Any:
        answer = admit(request)
        if not isinstance(answer, int) or last.entry is None:
            return answer
        return answer & ~((1 << last.entry.shift) - PAGE)

    _admitting(first_page)(unit)


def _faults(change: Callable[[Request, FaultReason], tuple[Request, FaultReason]]) -> Any:
    """A unit that records other faults than it meets."""

    def plant(unit: RemappingUnit) -> None:
        record = unit.faults.dma_fault

        def broken(request: Request, reason: FaultReason) -> None:
            record(*change(request, reason))

        setattr(unit.faults, "dma_fault", broken)  # noqa: B010 - it is a method

    return plant


def _other_reason(request: Request, reason: FaultReason) -> tuple[Request, FaultReason]:
    wrong = FaultReason.ROOT_NOT_PRESENT
    return request, FaultReason.CONTEXT_NOT_PRESENT if reason is wrong else wrong


def _other_source(request: Request, reason: FaultReason) -> tuple[Request, FaultReason]:
    """Eight devices on: the next one may be provoked to the same faults."""
    return request._replace(source_id=request.source_id ^ 8 << 3), reason


def _other_address(request: Request, reason: FaultReason) -> tuple[Request, FaultReason]:
    return request._replace(address=request.address ^ PAGE), reason


def _mask_fault_event(unit: RemappingUnit) -> None:
    def mask(_: RegisterWrite[FaultEventControl]) -> None:
        control = unit.registers[FaultEventControl]
        unit.registers[FaultEventControl] = control.replace(im=True)

    unit.registers.on_write(FaultEventControl, mask)


def _keep_faults(unit: RemappingUnit) -> None:
    def keep(write: RegisterWrite[FaultRecording]) -> None:
        unit.registers[FaultRecording, write.number] = write.old

    unit.registers.on_write(FaultRecording, keep)


class _NoStatus(Observer):
    def write(self, structure: Structure, address: int, data: bytes) -> None:
        if structure is Structure.WAIT_STATUS:
            raise InjectedError(address, "a defect")


def _hide_translation(unit: RemappingUnit) -> None:
    def hide(_: RegisterWrite[GlobalCommand]) -> None:
        status = unit.registers[GlobalStatus]
        unit.registers[GlobalStatus] = status.replace(tes=False)

    unit.registers.on_write(GlobalCommand, hide)


def _pass_interrupts(unit: RemappingUnit) -> None:
    remap = unit.interrupts.remap

    def broken(status: GlobalStatus, source_id: int, address: int, data: int) -> Interrupt | Posted:
        try:
            return remap(status, source_id, address, data)
        except InterruptFault:
            return compatibility_interrupt(address, data)

    setattr(unit.interrupts, "remap", broken)  # noqa: B010 - it is a method


def _caches(unit: RemappingUnit) -> object:
    return unit.caches


DEFECTS: dict[str, Defect] = {
    "no-page-invalidation": Defect(
        "page-selective invalidations remove nothing",
        "use of a page after it was unmapped, under strict invalidation; the audit",
        _without(_caches, "invalidate_iotlb_pages", "invalidate_pasid_iotlb_pages"),
    ),
    "no-domain-invalidation": Defect(
        "domain-selective and global invalidations of the IOTLB remove nothing",
        "use of a page after it was unmapped, under lazy invalidation; the audit",
        _without(
            _caches, "invalidate_iotlb_global", "invalidate_iotlb_domain", "invalidate_pasid_iotlb"
        ),
    ),
    "no-context-invalidation": Defect(
        "invalidations of the context cache remove nothing",
        "a device that is given to another domain; the audit",
        _without(
            _caches,
            "invalidate_context_global",
            "invalidate_context_domain",
            "invalidate_context_device",
        ),
    ),
    "no-pasid-invalidation": Defect(
        "invalidations of the PASID cache remove nothing",
        "a device that is given to another domain, in scalable mode; the audit",
        _without(_caches, "invalidate_pasid_global", "invalidate_pasid_domain", "invalidate_pasid"),
    ),
    "no-interrupt-invalidation": Defect(
        "invalidations of the interrupt entry cache remove nothing",
        "interrupts after their processor was changed; the audit",
        _without(lambda unit: unit.interrupts, "invalidate", "clear"),
    ),
    "no-write-check": Defect(
        "writes need no more than the right to read",
        "a write to a page that is mapped read-only",
        _admitting(_unchecked),
    ),
    "wrong-entry": Defect(
        "the entry of the neighbouring page is used",
        "data of the first transfer",
        _admitting(_neighbour),
    ),
    "large-page-start": Defect(
        "addresses in a large page lead to its first 4 KiB",
        "data in a large page",
        _lead_to_first_page,
    ),
    "wrong-fault-reason": Defect(
        "faults are recorded as a root entry that is not present",
        "the reason of a provoked fault",
        _faults(_other_reason),
    ),
    "wrong-fault-source": Defect(
        "faults are recorded with the source-id of another device",
        "the source of a provoked fault",
        _faults(_other_source),
    ),
    "wrong-fault-address": Defect(
        "faults are recorded with the address of another page",
        "the address of a provoked fault",
        _faults(_other_address),
    ),
    "no-fault-record": Defect(
        "faults are not recorded",
        "the kernel's line about a provoked fault",
        _without(lambda unit: unit.faults, "dma_fault"),
    ),
    "no-fault-event": Defect(
        "the fault event is masked again as soon as software unmasks it",
        "the kernel's line about a provoked fault",
        _mask_fault_event,
    ),
    "faults-stay": Defect(
        "fault records can't be cleared",
        "the kernel, which reports the fault over and over, or none after it",
        _keep_faults,
    ),
    "no-wait-status": Defect(
        "wait descriptors store no status",
        "the kernel, which waits for its first invalidation",
        lambda unit: unit.observe(_NoStatus()),
    ),
    "no-translation-status": Defect(
        "GSTS.TES stays 0",
        "the kernel, which waits for it",
        _hide_translation,
    ),
    "interrupts-pass": Defect(
        "an interrupt that would be blocked is delivered as if it were not remapped",
        "an interrupt that is provoked without an entry for it",
        _pass_interrupts,
    ),
}
"""What can be broken, by name."""


def plant(names: Iterable[str], units: Collection[RemappingUnit]) -> None:
    """Break each unit in all these ways."""
    for name in names:
        for unit in units:
            DEFECTS[name].plant(unit)
