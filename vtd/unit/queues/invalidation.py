"""Invalidation: the queue, its descriptors, and the register interface (VT-d 6.5).

Descriptors are carried out in order, each completely before the next, which is always permitted
(6.5.2.12); by policy what empties caches is left until a later descriptor needs it, and caches are
filled again in between. A wait descriptor waits only for device-TLBs, which answer in their own
time.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any, Protocol

from pagetables.bits import BitRecord
from pagetables.memory import BusError
from pagetables.observer import Structure
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    NEEDS,
    VALID_TYPES,
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    HostPermissionGranularity,
    HostPermissionInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidCacheGranularity,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbGranularity,
    PasidIotlbInvalidateDescriptor,
    type_of,
)
from vtd.layouts.registers import (
    ContextCommand,
    ContextGranularity,
    FaultStatus,
    GlobalStatus,
    InvalidateAddress,
    InvalidationCompletionStatus,
    InvalidationQueueAddress,
    InvalidationQueueErrorInfo,
    InvalidationQueueErrorRecord,
    InvalidationQueueHead,
    InvalidationQueueTail,
    IotlbGranularity,
    IotlbInvalidate,
)
from vtd.unit.caching.caches import FUNCTION_MASKS, TranslationCaches
from vtd.unit.caching.policy import UNCACHED
from vtd.unit.queues import rules
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting.event_interrupt import EventInterrupt
from vtd.unit.reporting.fault_recording import FaultRecorder
from vtd.unit.state import Stateful
from vtd.unit.translation.departing import look_again, look_again_by_domain
from vtd.unit.translation.lookup import write_structure
from vtd.unit.translation.remapping import Remapping
from vtd.unit.translation.speculation import look_ahead

Error = InvalidationQueueErrorInfo


class InterruptCache(Protocol):
    """What an interrupt entry cache invalidation acts on."""

    def clear(self) -> None: ...

    def invalidate(self, index: int, count: int) -> None: ...


class DeviceMessages(Protocol):
    """The way of descriptors whose work is done by devices (6.5.2.5, 6.5.2.6, 7.6.1)."""

    @property
    def pending(self) -> bool:
        """Whether invalidations are out that devices have not answered."""
        ...

    def invalidate(
        self, descriptor: DeviceTlbInvalidateDescriptor | PasidDeviceTlbInvalidateDescriptor
    ) -> bool:
        """Send an invalidation request; False while no ITag is free."""
        ...

    def respond(self, descriptor: PageGroupResponseDescriptor) -> None:
        """Send a page group response."""
        ...


REFILLED = 16
"""How many of the translations removed by one batch of descriptors are looked up again."""


class InvalidationQueue(Stateful):
    """The invalidation queue of one unit (6.5.2)."""

    STATE = ("pending",)

    def __init__(
        self,
        registers: RegisterFile,
        remapping: Remapping,
        faults: FaultRecorder,
        completion_event: EventInterrupt,
        interrupt_cache: InterruptCache,
        devices: DeviceMessages,
    ) -> None:
        self._registers = registers
        self._remapping = remapping
        self._faults = faults
        self._event = completion_event
        self._interrupt_cache = interrupt_cache
        self._devices = devices
        self._running = self._wanted = False
        policy = remapping.options.caches
        self._late, self._refills = policy.late, policy.refills
        self.pending: list[BitRecord] = []
        """Descriptors that were fetched, and are carried out when one behind them needs it."""
        self._wide_supported = bool(remapping.capabilities.features & {"smts", "adms"})
        registers.on_write(InvalidationQueueTail, self._run_on_write)
        if rules.resumes_once_cleared(remapping.options.departures):
            registers.on_write(FaultStatus, self._run_on_write)
        registers.on_write(InvalidationCompletionStatus, self._completion_written)

    def _run_on_write(self, _: RegisterWrite[Any]) -> None:
        self.run()

    def _completion_written(self, _: RegisterWrite[Any]) -> None:
        if not self._registers[InvalidationCompletionStatus].iwc:
            self._event.withdraw()

    def stop(self) -> None:
        """QIE 1 to 0: the head goes back to 0 (11.4.4.1)."""
        self._carry_out_pending()
        self._registers[InvalidationQueueHead] = InvalidationQueueHead()

    def run(self) -> None:
        """Carry out descriptors until the queue is empty, blocked or in error.

        A device that answers at once, or software that reacts to an event, may come back here
        while a descriptor is being carried out; the descriptors after it then follow.
        """
        self._wanted = True
        if self._running:
            return
        self._running, removed = True, self._remapping.caches.iotlb
        try:
            removed.removed = [] if self._refills else None
            while self._wanted:
                self._wanted = False
                while self._step():
                    pass
        finally:
            self._running, removed.removed = False, None

    def _step(self) -> bool:
        """Fetch and carry out one descriptor; False if there is none, or the queue can't go on."""
        registers = self._registers
        head, tail = int(registers[InvalidationQueueHead]), int(registers[InvalidationQueueTail])
        if head == tail or not registers[GlobalStatus] & _QIES or registers[FaultStatus] & _STOPPED:
            return False
        queue = registers[InvalidationQueueAddress]
        size = 32 if queue.dw else 16
        head &= -size  # 11.4.9.1: bit 4 is 0 with DW
        descriptor = self._setup_error(queue, size, tail) or self._fetch(queue.iqa + head, size)
        if isinstance(descriptor, Error):
            return self._error(descriptor)
        if not self._execute(descriptor):
            return False
        registers[InvalidationQueueHead] = InvalidationQueueHead(
            (head + size) % (0x1000 << queue.qs)  # a multiple of 16, in its place in the register
        )
        return True

    def _setup_error(self, queue: InvalidationQueueAddress, size: int, tail: int) -> Error | None:
        """What is wrong with the registers, whatever the descriptor is (11.4.9.9)."""
        if queue.dw and not self._wide_supported:
            return Error.INVALID_WIDTH
        if tail % size:
            return Error.TAIL_MISALIGNED
        if tail >= 0x1000 << queue.qs:
            return Error.INVALID_TAIL
        remapping = self._remapping
        if not remapping.mode_known:
            return Error.INVALID_TRANSLATION_TABLE_MODE
        if not queue.dw and rules.needs_wide_queue(remapping.options.departures, remapping.mode):
            return Error.INVALID_WIDTH
        return None

    def _fetch(self, address: int, size: int) -> BitRecord | Error:
        """The descriptor, or the error information of one that is not valid (6.5.2.11)."""
        try:
            data = self._remapping.snooped.read_record(address, size)
            if self._remapping.observer is not None:
                self._remapping.observer.read(Structure.QUEUE_DESCRIPTOR, address, size, data)
        except BusError:
            return Error.FETCH_ERROR
        number = type_of(data)
        mode = rules.mode_of_descriptors(
            self._remapping.options.departures, self._remapping.mode, size
        )
        if number not in VALID_TYPES[mode, size * 8]:
            return Error.INVALID_TYPE
        record = DESCRIPTORS[number]  # type: ignore[index]  # a valid number is a member
        if NEEDS.get(record.TYPE, "qi") not in self._remapping.capabilities.features:
            return Error.INVALID_TYPE
        if data >> record.WIDTH or data & record.reserved_mask(self._remapping.implementation):
            return Error.RESERVED_FIELD
        return record(data)

    def _error(self, information: Error) -> bool:
        record = self._registers[InvalidationQueueErrorRecord].replace(iqei=information)
        self._registers[InvalidationQueueErrorRecord] = record
        self._faults.raise_status(iqe=True)
        return False

    def _execute(self, descriptor: BitRecord) -> bool:
        """Carry out a descriptor; False if it has to stay at the head of the queue."""
        match descriptor:
            case InvalidationWaitDescriptor():
                self._carry_out_pending()
                if not rules.is_wait_supported(self._remapping.options.departures, descriptor):
                    return self._error(Error.RESERVED_FIELD)
                done = self._wait(descriptor)
            case DeviceTlbInvalidateDescriptor() | PasidDeviceTlbInvalidateDescriptor():
                self._carry_out_pending()
                done = self._devices.invalidate(descriptor)
            case PageGroupResponseDescriptor():
                self._devices.respond(descriptor)
                done = True
            case _ if self._late and is_valid(self._remapping, descriptor):
                self.pending.append(descriptor)
                return True
            case _:
                return self._carry_out(descriptor) or self._error(Error.RESERVED_FIELD)
        if done and self._remapping.observer is not None:
            self._remapping.observer.invalidated(descriptor)
        return done

    def _carry_out(self, descriptor: BitRecord) -> bool:
        """Remove what a descriptor covers from the caches; False if it is not valid."""
        removed = self._remapping.caches.iotlb.removed
        if removed:
            look_ahead(self._remapping, removed[-REFILLED:])
        if not invalidate(self._remapping, self._interrupt_cache, descriptor):
            return False
        if self._remapping.observer is not None:
            self._remapping.observer.invalidated(descriptor)
        return True

    def _carry_out_pending(self) -> None:
        pending, self.pending = self.pending, []
        for descriptor in pending:
            self._carry_out(descriptor)

    def _wait(self, descriptor: InvalidationWaitDescriptor) -> bool:
        """inv_wait_dsc (6.5.2.9): status write first, then the completion event."""
        if self._devices.pending:
            return False
        if descriptor.sw:
            width = self._remapping.capabilities.host_address_width
            address = descriptor.status_address & (1 << width) - 1
            with suppress(BusError):  # 6.5.2.9: undefined where the address is no memory
                data = descriptor.status_data.to_bytes(4, "little")
                write_structure(self._remapping, Structure.WAIT_STATUS, address, data)
        if descriptor.if_ and not self._registers[InvalidationCompletionStatus].iwc:
            status = InvalidationCompletionStatus.of(iwc=True)
            self._registers[InvalidationCompletionStatus] = status
            self._event.trigger()
        return True


class _Nothing:
    """An interrupt entry cache without entries."""

    def clear(self) -> None: ...

    def invalidate(self, index: int, count: int) -> None: ...


def is_valid(remapping: Remapping, descriptor: BitRecord) -> bool:
    """Whether a descriptor would be carried out."""
    empty = copy.copy(remapping)
    empty.caches = TranslationCaches(UNCACHED)
    empty.passed, empty.pasid_entries = set(), {}
    return invalidate(empty, _Nothing(), descriptor)


def invalidate(
    remapping: Remapping, interrupt_cache: InterruptCache, descriptor: BitRecord
) -> bool:
    """Remove from the caches what a descriptor covers; False if it has a value that is not valid.

    Unlike reserved granularities, masks above MAMV and MHMV are said to be errors only of the
    register form (11.4.6.3, IAIG); here a descriptor with one is refused too.
    """
    caches, cap = remapping.caches, remapping.capabilities.cap
    match descriptor:
        case ContextCacheInvalidateDescriptor(g=g, did=did):
            return _invalidate_context(remapping, g, did, descriptor.sid, descriptor.fm)
        case IotlbInvalidateDescriptor(g=g, did=did):
            if g is IotlbGranularity.PAGE_IN_DOMAIN and not cap.psi:
                g = IotlbGranularity.RESERVED_0  # 6.5.2.3
            done = _invalidate_iotlb(
                remapping, g, did, descriptor.addr, descriptor.am, hint=descriptor.ih
            )
            return done is not IotlbGranularity.RESERVED_0
        case PasidCacheInvalidateDescriptor(g=PasidCacheGranularity.DOMAIN, did=did):
            caches.invalidate_pasid_domain(_domain_id(remapping, did))
            look_again_by_domain(remapping, did)
        case PasidCacheInvalidateDescriptor(g=PasidCacheGranularity.PASID_IN_DOMAIN, did=did):
            caches.invalidate_pasid(_domain_id(remapping, did), descriptor.pasid)
            look_again_by_domain(remapping, did, descriptor.pasid)
        case PasidCacheInvalidateDescriptor(g=PasidCacheGranularity.GLOBAL):
            caches.invalidate_pasid_global()
            look_again_by_domain(remapping)
        case PasidIotlbInvalidateDescriptor(g=PasidIotlbGranularity.PASID, did=did):
            caches.invalidate_pasid_iotlb(_domain_id(remapping, did), descriptor.pasid)
        case PasidIotlbInvalidateDescriptor(g=PasidIotlbGranularity.PAGE_IN_PASID, did=did) if (
            rules.is_pasid_mask_supported(remapping.options.departures, descriptor.am, cap)
        ):
            start, end = _span(descriptor.addr, descriptor.am)
            caches.invalidate_pasid_iotlb_pages(
                _domain_id(remapping, did), descriptor.pasid, start, end, hint=descriptor.ih
            )
        case InterruptEntryCacheInvalidateDescriptor():
            return _invalidate_interrupts(remapping, interrupt_cache, descriptor)
        case HostPermissionInvalidateDescriptor():
            return _invalidate_host_permissions(remapping, descriptor)
        case _:
            return False
    return True


def _invalidate_interrupts(
    remapping: Remapping,
    interrupt_cache: InterruptCache,
    descriptor: InterruptEntryCacheInvalidateDescriptor,
) -> bool:
    if descriptor.g is InterruptGranularity.GLOBAL:
        interrupt_cache.clear()
        return True
    departures, ecap = remapping.options.departures, remapping.capabilities.ecap
    if not rules.is_interrupt_mask_supported(departures, descriptor.im, ecap):
        return False
    count = 1 << descriptor.im
    interrupt_cache.invalidate(descriptor.iidx & -count, count)
    return True


def _invalidate_context(
    remapping: Remapping, granularity: int, domain_id: int, source_id: int, mask: int
) -> bool:
    caches = remapping.caches
    rules.invalidate_with_context(remapping.options.departures, caches)
    domain_id = _domain_id(remapping, domain_id)
    match ContextGranularity(granularity):
        case ContextGranularity.GLOBAL:
            remapping.use_new_root()
            caches.invalidate_context_global()
        case ContextGranularity.DOMAIN:
            caches.invalidate_context_domain(domain_id)
        case ContextGranularity.DEVICE:
            caches.invalidate_context_device(source_id, mask, domain_id)
            look_again(remapping, source_id, 0xFFFF & ~FUNCTION_MASKS[mask])
            return True
        case ContextGranularity.RESERVED_0:
            return False
    look_again(remapping)
    return True


def _invalidate_iotlb(
    remapping: Remapping,
    wanted: IotlbGranularity,
    domain_id: int,
    address: int,
    mask: int,
    *,
    hint: bool,
) -> IotlbGranularity:
    """What was done: coarser without CAP.PSI (6.5.1.2), RESERVED_0 for a request that is wrong."""
    caches, cap = remapping.caches, remapping.capabilities.cap
    domain_id &= remapping.domain_ids
    if wanted is IotlbGranularity.PAGE_IN_DOMAIN and not cap.psi:
        wanted = IotlbGranularity.DOMAIN
    match wanted:
        case IotlbGranularity.GLOBAL:
            caches.invalidate_iotlb_global()
        case IotlbGranularity.DOMAIN:
            caches.invalidate_iotlb_domain(domain_id)
        case IotlbGranularity.PAGE_IN_DOMAIN:
            if mask > cap.mamv:
                return IotlbGranularity.RESERVED_0
            start, end = _span(address & remapping.guest_addresses, mask)
            caches.invalidate_iotlb_pages(domain_id, start, end, hint=hint)
    return wanted


def _invalidate_host_permissions(
    remapping: Remapping, descriptor: HostPermissionInvalidateDescriptor
) -> bool:
    caches, highest = remapping.caches, descriptor.ih + 1
    domain_id = _domain_id(remapping, descriptor.hptdid)
    match descriptor.g:
        case HostPermissionGranularity.GLOBAL:
            caches.invalidate_host_permissions_global()
        case HostPermissionGranularity.DOMAIN:
            caches.invalidate_host_permissions(domain_id, highest)
        case HostPermissionGranularity.PAGE_IN_DOMAIN:
            width = remapping.capabilities.host_address_width
            start, end = _span(descriptor.addr & (1 << width) - 1, descriptor.am)
            caches.invalidate_host_permissions(domain_id, highest, start, end)
        case HostPermissionGranularity.RESERVED_0:
            return False
    return True


def _domain_id(remapping: Remapping, field: int) -> int:
    """A DID field without the bits that the unit has not and ignores (6.5.2, 11.4.6)."""
    return field & remapping.domain_ids


def _span(address: int, mask: int) -> tuple[int, int]:
    """The naturally aligned ``2**mask`` pages that hold ``address`` (Table 22)."""
    size = 0x1000 << mask
    start = address & -size
    return start, start + size


_QIES = GlobalStatus.qies.mask
_STOPPED = FaultStatus.iqe.mask | FaultStatus.ite.mask


class RegisterInvalidation:
    """CCMD_REG, IVA_REG and IOTLB_REG (6.5.1, 11.4.6)."""

    def __init__(self, registers: RegisterFile, remapping: Remapping) -> None:
        self._registers = registers
        self._remapping = remapping
        registers.on_write(ContextCommand, self._context_written)
        registers.on_write(IotlbInvalidate, self._iotlb_written)

    def _accepted(self) -> bool:
        """Whether the interface works at all: not beside the queue, nor in later versions."""
        remapping = self._remapping
        return not rules.is_register_interface_closed(
            remapping.options.departures,
            remapping.mode,
            beside_queue=self._registers[GlobalStatus].qies,
            major_version=remapping.capabilities.major_version,
        )

    def _context_written(self, _: RegisterWrite[ContextCommand]) -> None:
        command = self._registers[ContextCommand]
        if not command.icc:  # clear again once the command is done
            return
        done = self._accepted() and _invalidate_context(
            self._remapping, command.cirg, command.did, command.sid, command.fm
        )
        self._registers[ContextCommand] = command.replace(
            icc=False, caig=command.cirg if done else 0
        )
        if self._remapping.observer is not None:
            self._remapping.observer.invalidated(command)

    def _iotlb_written(self, _: RegisterWrite[IotlbInvalidate]) -> None:
        command = self._registers[IotlbInvalidate]
        if not command.ivt:  # as ICC
            return
        where = self._registers[InvalidateAddress]
        done = IotlbGranularity.RESERVED_0
        if self._accepted():
            done = _invalidate_iotlb(
                self._remapping, command.iirg, command.did, where.addr, where.am, hint=where.ih
            )
        self._registers[IotlbInvalidate] = command.replace(ivt=False, iaig=done)
        if self._remapping.observer is not None:
            self._remapping.observer.invalidated(command)
