"""One remapping hardware unit: its registers, its caches, and what a request meets there.

VT-d 3, 5, 6, 7 and 11. The modules it is made of hold the rules; this one connects them: register
accesses of software in, requests of devices in, physical addresses and completions out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from devices.dma import (
    ATOMIC,
    DONE,
    EXECUTE_REQUESTED,
    MESSAGE,
    NO_SNOOP,
    REFUSED,
    SUCCESS,
    WRITE,
    AddressType,
    AtsClient,
    Completion,
    InvalidationCompletion,
    PageRequest,
    Request,
)
from pagetables.memory import TableMemory
from pagetables.stores import UnsnoopedMemory
from pagetables.walk import OFFSETS
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.registers import (
    GlobalCommand,
    GlobalStatus,
    InterruptRemappingTableAddress,
    ProtectedMemoryEnable,
    RootTableAddress,
)
from vtd.unit.caching.caches import TranslationCaches
from vtd.unit.caching.iotlb import Line, Space, named
from vtd.unit.implementation import implementation_registers
from vtd.unit.interrupts.interrupt_remapping import InterruptFault, InterruptRemapping
from vtd.unit.interrupts.outcome import Message
from vtd.unit.monitoring.activity import Activity, event_totals
from vtd.unit.monitoring.enhanced_commands import EnhancedCommands
from vtd.unit.monitoring.performance import PerformanceMonitoring
from vtd.unit.observer import CacheName, Observer, Observers
from vtd.unit.options import Options
from vtd.unit.queues.device_messages import DeviceMessages
from vtd.unit.queues.invalidation import InvalidationQueue, RegisterInvalidation
from vtd.unit.queues.page_requests import PageRequests
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.reporting import rules as reporting_rules
from vtd.unit.reporting.event_interrupt import (
    FAULT_EVENT,
    INVALIDATION_EVENT,
    PAGE_REQUEST_EVENT,
    PERFORMANCE_EVENT,
    EventInterrupt,
)
from vtd.unit.reporting.events import (
    Event,
    InterruptBlocked,
    InterruptDelivered,
    MessageSent,
    RequestBlocked,
    TranslatedRequestPassed,
    TranslationGiven,
)
from vtd.unit.reporting.fault_recording import FaultRecorder
from vtd.unit.reporting.protocol import RegisterProtocol
from vtd.unit.reporting.snooping import Snooping
from vtd.unit.reporting.virtual_commands import VirtualCommands
from vtd.unit.requests.faults import FaultReason, TranslationFault
from vtd.unit.requests.request import kind_of
from vtd.unit.state import Remade, State
from vtd.unit.translation import ats, translated
from vtd.unit.translation.departing import begin_again, departing
from vtd.unit.translation.execute import check_execute
from vtd.unit.translation.lookup import lookup
from vtd.unit.translation.protected_memory import ProtectedMemory
from vtd.unit.translation.remapping import Remapping
from vtd.unit.translation.speculation import prefetching
from vtd.unit.translation.translate import INTERRUPT_MEGABYTE

_ATTRIBUTES = EXECUTE_REQUESTED | NO_SNOOP


class RemappingUnit(Remade):
    """A remapping unit in front of ``memory``.

    ``constants`` are values of implementation-specific read-only registers, 64 bits by offset;
    without them :func:`implementation_registers` decides. A pickled unit takes its memory along,
    but neither subscribers nor the clients of device-TLBs.
    """

    STATE = (
        "registers",
        "protocol",
        "remapping",
        "interrupts",
        "faults",
        "devices",
        "queue",
        "page_requests",
        "performance",
        "virtual_commands",
        "_powered",
    )

    def __init__(
        self,
        capabilities: Capabilities,
        memory: TableMemory,
        options: Options | None = None,
        constants: Mapping[int, int] | None = None,
    ) -> None:
        options = options or Options()
        if constants is None:
            constants = implementation_registers(capabilities)
        self.made_of = capabilities, memory, options, constants
        self.capabilities = capabilities
        self.options = options
        self.registers = RegisterFile(capabilities, constants)
        reporting_rules.reset(options.departures, self.registers)
        self.protocol = RegisterProtocol(self.registers, capabilities, self._publish)
        self.remapping = Remapping(capabilities, memory, options, TranslationCaches(options.caches))
        self._iotlb = self.remapping.caches.iotlb
        self.interrupts = InterruptRemapping(capabilities, memory, options)
        self._subscribers: list[Callable[[Event], None]] = []
        self.faults = FaultRecorder(
            self.registers,
            capabilities,
            options,
            EventInterrupt(self.registers, FAULT_EVENT, self._send),
        )
        self.devices = DeviceMessages(
            self.registers,
            self.faults,
            self._publish,
            throttles="dit" in capabilities.features,
            itags=options.itags,
        )
        self.queue = InvalidationQueue(
            self.registers,
            self.remapping,
            self.faults,
            EventInterrupt(self.registers, INVALIDATION_EVENT, self._send),
            self.interrupts,
            self.devices,
        )
        self.devices.resume = self.queue.run
        self.page_requests = PageRequests(
            self.registers,
            self.remapping,
            self.devices,
            EventInterrupt(self.registers, PAGE_REQUEST_EVENT, self._send),
            self._publish,
            self.block,
        )
        self._powered = True
        self._attributes = 0
        """Of the request that is being dealt with: EXECUTE_REQUESTED, NO_SNOOP."""
        self._observers: list[Observer] = []
        self.observer: Observer | None = None
        """Who is to be told of every step: nobody, an observer, or several as one."""
        self._activity = Activity()
        self.performance = PerformanceMonitoring(
            self.registers,
            EventInterrupt(self.registers, PERFORMANCE_EVENT, self._send),
            self._activity,
            event_totals(self._activity, self.caches, self.interrupts, self.page_requests),
            self._counting_switched,
        )
        self.enhanced_commands = EnhancedCommands(self.registers, self.performance)
        self.virtual_commands = VirtualCommands(self.registers, capabilities.pasid_width)
        self.register_invalidation = RegisterInvalidation(self.registers, self.remapping)
        self.protected_memory = ProtectedMemory(self.registers)
        self._translate = departing(
            options.departures, prefetching(options.caches.prefetched_pages)
        )
        self.registers.on_reset(self._was_reset)
        self.registers.on_write(GlobalCommand, self._command_written)
        self.registers.on_write(ProtectedMemoryEnable, self._protection_written)
        if isinstance(memory, UnsnoopedMemory):
            self.observe(Snooping(memory, capabilities, self.registers, self._publish))
        self._choose_path()

    @property
    def caches(self) -> TranslationCaches:
        """The DMA-remapping caches."""
        return self.remapping.caches

    def restore(self, state: State) -> None:
        """Become the unit that the state was taken from; memory is not part of it."""
        super().restore(state)
        self._counting_switched()
        self._choose_path()

    def fork(self, memory: TableMemory) -> RemappingUnit:
        """A unit in the same state in front of ``memory``, without subscribers and clients."""
        capabilities, _, options, constants = self.made_of
        return self.remade(capabilities, memory, options, constants)

    def reset(self, *, power_good: bool = True) -> None:
        """Reset the unit, whose sticky fields are lost at a power-good reset only (11.3).

        Functions are off and caches empty; what was on its way to devices is forgotten. Who
        watches the unit, and the clients of device-TLBs, stay.
        """
        self.registers.reset(power_good=power_good)

    def suspend(self) -> None:
        """Take the power away: until :meth:`resume` nothing passes, and registers read all ones."""
        self._powered = False
        self._choose_path()

    def resume(self) -> None:
        """Power comes back: a power-good reset, after which software has to set up everything."""
        self.reset()

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Have every later event told to ``subscriber``."""
        self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Tell ``subscriber`` of no later event; ValueError if it is told of none now."""
        self._subscribers.remove(subscriber)

    def observe(self, observer: Observer) -> None:
        """Let ``observer`` see every later step, after those that are there already."""
        self._observers.append(observer)
        self._watch()

    def ignore(self, observer: Observer) -> None:
        """Let ``observer`` see no more; ValueError if it does not see anything now."""
        others = [each for each in self._observers if each is not observer]
        if len(others) == len(self._observers):
            raise ValueError("the unit is not observed by this observer")
        self._observers = others
        self._watch()

    def _watch(self) -> None:
        observers = tuple(self._observers)
        one: Observer | None = observers[0] if observers else None
        self.observer = Observers(observers) if len(observers) > 1 else one
        self.remapping.observer = self.interrupts.observer = self.observer
        self._choose_path()

    def read_register(self, offset: int, size: int) -> int:
        """A read of software, 4 or 8 bytes, at an offset in the register window."""
        value = self.registers.read(offset, size) if self._powered else (1 << 8 * size) - 1
        if self.observer is not None:
            self.observer.register_read(offset, size, value)
        return value

    def write_register(self, offset: int, size: int, value: int) -> None:
        """A write of software, with all that follows from it."""
        if not self._powered:
            return
        self.registers.write(offset, size, value)
        if self.observer is not None:
            self.observer.register_written(offset, size, value)
            self.observer.settled()

    read = read_register
    write = write_register
    """A unit is a region like those of devices."""

    def attach(self, source_id: int, client: AtsClient) -> None:
        """Send invalidation requests and page group responses for ``source_id`` to ``client``."""
        self.devices.attach(source_id, client)

    def detach(self, source_id: int) -> None:
        """Send the messages for ``source_id`` nowhere, until a client is attached again."""
        self.devices.detach(source_id)

    def admit(
        self, request: Request, line: Line | None = None, space: Space | None = None
    ) -> int | Completion:
        """The physical address of a request within one page, or what it is answered without one.

        ``line`` is what the IOTLB answers to an untranslated request, from the ``space`` of its
        kind, if somebody has asked it.
        """
        if self.observer is None:
            return self._admit(request, line, space)
        if not request.well_formed or not self._powered:
            return REFUSED
        self.observer.begin(request)
        answer = self._admit(request, line, space)
        self.observer.answered(request, answer)
        self.observer.settled()
        return answer

    def _admit(self, request: Request, line: Line | None, space: Space | None) -> int | Completion:
        """Messages, interrupts (3.15), requests of device-TLBs (4.2), and all others (3.4)."""
        _, address, access, length, pasid, _, address_type, _ = request
        usual = 0 < access < ATOMIC and pasid is None and length >= 0
        if not (self._powered and (usual or _can_be_sent(request))):
            return REFUSED
        if address_type or access >= MESSAGE:
            return self._other(request)
        if address >> 20 == INTERRUPT_MEGABYTE and (pasid is None or not self._translating):
            return self._interrupt(request)  # 3.1: without remapping a PASID is ignored
        physical, entry = address, None
        if self._translating:
            if space is None or line is None:
                space = self._iotlb.space(kind_of(request))
                line = space.line(address >> 12)
            _, _, _, _, entry = line
            lacking = access
            if entry is None:
                self._iotlb.counters.misses += 1
            else:
                self._iotlb.use(line)
                _, _, _, _, rights, _, _ = entry
                lacking &= ~rights
            if self.observer is not None:
                self.observer.asked(CacheName.IOTLB, (kind_of(request), address), named(entry))
            if entry is None or lacking:
                try:
                    entry = self._translate(self.remapping, request, space, address, access, entry)
                except TranslationFault as fault:
                    self.block(request, fault)
                    return REFUSED
            _, _, shift, physical, _, _, _ = entry
            physical |= address & OFFSETS[shift]
        if self._protecting:  # 11.4.8.1: early units exempt what they remap
            remapped = entry and entry[0].kind is not PasidTranslationType.PASS_THROUGH
            exempt = remapped and self.capabilities.major_version < 2
            if not exempt and self.protected_memory.blocks(physical, length):
                return REFUSED
        return physical

    def _other(self, request: Request) -> int | Completion:
        """Messages, the requests of device-TLBs, and requests with attributes."""
        if request.access == MESSAGE:
            return self._message(request)
        if request.address_type is AddressType.RESERVED:
            return REFUSED
        if request.access & _ATTRIBUTES:
            return self._with_attributes(request)
        if request.address_type is AddressType.TRANSLATED:
            return self._translated_request(request)
        return self._translation_request(request)

    def _with_attributes(self, request: Request) -> int | Completion:
        """A request that asks to execute, or that need not be snooped."""
        kind = request.address_type
        if kind is AddressType.TRANSLATION_REQUEST:
            return self._translation_request(request)
        if request.access & EXECUTE_REQUESTED and self._translating:
            try:
                check_execute(self.remapping, request, None if kind else lookup)
            except TranslationFault as fault:
                self.block(request, fault)
                return REFUSED
        self._attributes = request.access & _ATTRIBUTES
        try:
            return self._admit(request.plain, None, None)
        finally:
            self._attributes = 0

    def _interrupt(self, request: Request) -> Completion:
        """A request to FEEx_xxxxh without PASID: one doubleword written is an interrupt (5.1.4)."""
        source_id, address, access, length, _, _, _, data = request
        try:
            sent = access, length, address & 3
            if sent != (WRITE, 4, 0) or not isinstance(data, bytes) or len(data) != 4:
                if request.zero_length_read:
                    return DONE  # 3.15: what it returns has no meaning
                raise InterruptFault(FaultReason.IR_NOT_AN_INTERRUPT)
            value = int.from_bytes(data, "little")
            status = self.registers[GlobalStatus]
            outcome = self.interrupts.remap(status, source_id, address, value)
        except InterruptFault as fault:
            if fault.recorded:
                self.faults.interrupt_fault(source_id, address, fault.index, fault.reason)
            if self.observer is not None:
                self.observer.fault(request, fault.reason)
            blocked = InterruptBlocked(
                source_id, address, fault.reason, fault.recorded, fault.index
            )
            self._publish(blocked)
            return REFUSED
        self._publish(InterruptDelivered(source_id, outcome))
        return Completion(SUCCESS, interrupt=outcome)

    def _translation_request(self, request: Request) -> Completion:
        """What a device-TLB is told (4.2.3)."""
        if not self._translating:
            return REFUSED
        completion, fault = ats.answer(self.remapping, request)
        if fault is not None:
            self.block(request, fault)
        source_id, address, _, _, pasid, privileged, _, _ = request
        for entry in completion.entries:
            self._publish(TranslationGiven(source_id, pasid, privileged, address, entry))
            address = (address & -entry.size) + entry.size
        return completion

    def _translated_request(self, request: Request) -> int | Completion:
        """A request whose address is translated already (4.2.5)."""
        without_support = request.pasid is not None and not self.capabilities.ecap.ptrs
        if not self._translating or without_support:
            return REFUSED
        try:
            translated.check(self.remapping, request)
        except TranslationFault as fault:
            self.block(request, fault)
            return Completion(ats.REFUSALS[fault.reason.translated])
        if self._protecting and self.protected_memory.blocks(request.address, request.length):
            return REFUSED
        self._publish(TranslatedRequestPassed(request))
        return request.address

    def _message(self, request: Request) -> Completion:
        """Page requests (7.4) and invalidation completions, unsupported while remapping is off."""
        message, source_id = request.payload, request.source_id
        if not self._translating:
            return REFUSED
        if isinstance(message, InvalidationCompletion):
            self.devices.complete(source_id, message.itag_vector, message.count)
            return DONE
        if isinstance(message, PageRequest) and "prs" in self.capabilities.features:
            return DONE if self.page_requests.receive(source_id, message) else REFUSED
        return REFUSED

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody is told of events."""
        return bool(self._subscribers)

    @property
    def hears_faults(self) -> bool:
        """Whether a fault leaves any trace: a record, or somebody is told."""
        return self.has_subscribers or self.observer is not None or not self.faults.full

    def block(self, request: Request, fault: TranslationFault) -> None:
        """Record and report the fault of a request that is refused for it."""
        reason = fault.reason
        recorded = reporting_rules.is_recorded(self.options.departures, fault)
        if self._attributes:
            request = request._replace(access=request.access | self._attributes)
        if recorded:
            self.faults.dma_fault(request, reason)
        if self.observer is not None:
            self.observer.fault(request, reason)
        if self._subscribers:
            self._publish(RequestBlocked(request, reason, recorded))

    def _send(self, message: Message) -> None:
        self._publish(MessageSent(message))

    def _publish(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)

    def _was_reset(self) -> None:
        """The registers were reset, and all else has to follow."""
        reporting_rules.reset(self.options.departures, self.registers)
        unit = RemappingUnit(*self.made_of)
        unit.registers.restore(self.registers.snapshot())
        self.restore(unit.snapshot())
        if self.observer is not None:
            self.observer.reset()

    def _protection_written(self, _: RegisterWrite[Any]) -> None:
        self._choose_path()

    def _choose_path(self) -> None:
        """Look at what decides the way of requests; hits are final while only the IOTLB does."""
        self._translating = self.registers[GlobalStatus].tes and self._powered
        self._protecting = self.protected_memory.enabled
        self.hits_are_final = self._translating and not self._protecting and self.observer is None
        """Whether an IOTLB entry that grants the access decides an untranslated request."""

    def _counting_switched(self) -> None:
        """Counters observe the unit while one is enabled."""
        observing = self._activity in self._observers
        if self.performance.active and not observing:
            self.observe(self._activity)
        elif observing and not self.performance.active:
            self.ignore(self._activity)

    def _command_written(self, write: RegisterWrite[GlobalCommand]) -> None:
        """GCMD_REG: one-shot commands, then functions that change (11.4.4.1)."""
        command = self._supported(write.raw)
        status = self.registers[GlobalStatus]
        if command.srtp:
            self._set_root_table()
        if command.sirtp:
            self._set_interrupt_table()
        self.registers[GlobalStatus] = self.registers[GlobalStatus].replace(
            tes=command.te, qies=command.qie, ires=command.ire, cfis=command.cfi
        )
        if status.tes != command.te:
            self._translation_switched(enabled=command.te)
        if status.ires and not command.ire and "esirtps" in self.capabilities.features:
            self.interrupts.clear()
        if status.qies and not command.qie:
            self.queue.stop()
        self.faults.restart_when_disabled()
        self.queue.run()

    def _supported(self, command: GlobalCommand) -> GlobalCommand:
        """The command without the functions that the unit does not have (11.4.4.1)."""
        features = self.capabilities.features
        if "qi" not in features:
            command = command.replace(qie=False)
        if "ir" not in features:
            command = command.replace(ire=False, sirtp=False, cfi=False)
        return command

    def _set_root_table(self) -> None:
        self.remapping.set_root(self.registers[RootTableAddress], self.registers[GlobalStatus])
        self.registers[GlobalStatus] = self.registers[GlobalStatus].replace(rtps=True)
        if "esrtps" in self.capabilities.features:
            self.caches.clear()
        begin_again(self.remapping)

    def _set_interrupt_table(self) -> None:
        table, status = self.registers[InterruptRemappingTableAddress], self.registers[GlobalStatus]
        self.interrupts.set_table(table, status)
        self.registers[GlobalStatus] = self.registers[GlobalStatus].replace(irtps=True)
        if "esirtps" in self.capabilities.features:
            self.interrupts.clear()

    def _translation_switched(self, *, enabled: bool) -> None:
        """TE: what is cached is lost when translation stops in a scalable unit (6.6)."""
        self._choose_path()
        self.remapping.use_new_root()
        if not enabled and "smts" in self.capabilities.features:
            self.caches.clear()
        begin_again(self.remapping)


def _can_be_sent(request: Request) -> bool:
    """Whether a request is none that is malformed: an atomic has to be aligned."""
    misaligned = request.access == ATOMIC and request.address % (request.length or 1)
    return request.well_formed and not (misaligned and not request.address_type)
