"""One remapping hardware unit: its registers, its caches, and what a DMA request meets there.

VT-d 3, 5, 6, 7 and 11. The modules it is made of hold the rules; this one connects them: commands
of software in, requests of devices in, physical addresses and interrupts out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from devices.dma import (
    AddressType,
    AtsClient,
    CompletionStatus,
    PageRequest,
    TranslationCompletion,
)
from pagetables.memory import TableMemory
from pagetables.observed import ObservedMemory
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.registers import (
    GlobalCommand,
    GlobalStatus,
    InterruptRemappingTableAddress,
    MtrrCapability,
    PageRequestEventControl,
    ProtectedMemoryEnable,
    RootTableAddress,
)
from vtd.unit.caching.caches import TranslationCaches
from vtd.unit.interrupts.interrupt_remapping import InterruptFault, InterruptRemapping
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.monitoring import performance
from vtd.unit.monitoring.enhanced_commands import EnhancedCommands
from vtd.unit.monitoring.performance import Activity, PerformanceMonitoring, event_totals
from vtd.unit.options import Options
from vtd.unit.queues.device_messages import DeviceMessages
from vtd.unit.queues.invalidation import InvalidationQueue, RegisterInvalidation
from vtd.unit.queues.page_requests import PageRequests
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.registers.register_map import overlaps, register_map
from vtd.unit.reporting import virtual_commands
from vtd.unit.reporting.event_interrupt import (
    FAULT_EVENT,
    INVALIDATION_EVENT,
    PAGE_REQUEST_EVENT,
    PERFORMANCE_EVENT,
    EventInterrupt,
    Message,
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
from vtd.unit.reporting.virtual_commands import VirtualCommands
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import Request
from vtd.unit.state import Remade, State
from vtd.unit.translation import ats, translated
from vtd.unit.translation.protected_memory import ProtectedMemory
from vtd.unit.translation.remapping import Remapping
from vtd.unit.translation.translate import translate


class RemappingUnit(Remade):
    """A remapping unit in front of ``memory``.

    ``constants`` are values of implementation-specific read-only registers, 64 bits by offset;
    without them :func:`implementation_registers` decides. A pickled unit takes its memory along,
    but neither subscribers nor the clients of device-TLBs.
    """

    STATE = (
        "registers",
        "remapping",
        "interrupts",
        "faults",
        "devices",
        "page_requests",
        "performance",
        "virtual_commands",
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
        if options.as_recorded:
            self.registers[PageRequestEventControl] = PageRequestEventControl(0)
        self.remapping = Remapping(capabilities, memory, options, TranslationCaches(options.caches))
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
            self._block,
        )
        self._unobserved: tuple[TableMemory, TableMemory] = memory, memory
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
        self.registers.on_write(GlobalCommand, self._command_written)
        self.registers.on_write(ProtectedMemoryEnable, self._protection_written)
        self._choose_path()

    @property
    def caches(self) -> TranslationCaches:
        """The DMA-remapping caches."""
        return self.remapping.caches

    def restore(self, state: State) -> None:
        """Become the unit that the state was taken from; memory is not part of it."""
        super().restore(state)
        self._counting_switched()

    def fork(self, memory: TableMemory) -> RemappingUnit:
        """A unit in the same state in front of ``memory``, without subscribers and clients."""
        capabilities, _, options, constants = self.made_of
        return self.remade(capabilities, memory, options, constants)

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Have every later event told to ``subscriber``."""
        self._subscribers.append(subscriber)

    def read_register(self, offset: int, size: int) -> int:
        """A read of software, 4 or 8 bytes, at an offset in the register window."""
        return self.registers.read(offset, size)

    def write_register(self, offset: int, size: int, value: int) -> None:
        """A write of software, with all that follows from it."""
        self.registers.write(offset, size, value)
        if self._counting:
            self.performance.update()

    def admit(self, request: Request) -> int | CompletionStatus:
        """The physical address of an untranslated request, or how it is refused.

        A request to the interrupt address range without PASID belongs to
        :meth:`request_interrupt` instead.
        """
        physical = self._admit(request)
        if self._counting:
            self._count(AddressType.UNTRANSLATED)
        return physical

    def _admit(self, request: Request) -> int | CompletionStatus:
        physical, remapped = request.address, False
        if self._translating:
            try:
                entry = translate(self.remapping, request)
            except TranslationFault as fault:
                self._block(request, fault)
                return CompletionStatus.UNSUPPORTED_REQUEST
            physical = entry.physical | request.address & (1 << entry.shift) - 1
            remapped = entry.tags.kind is not PasidTranslationType.PASS_THROUGH
        if self._protecting:  # 11.4.8.1: early units exempt what they remap
            exempt = remapped and self.capabilities.major_version < 2
            if not exempt and self.protected_memory.blocks(physical, request.length):
                return CompletionStatus.UNSUPPORTED_REQUEST
        return physical

    def attach(self, source_id: int, client: AtsClient) -> None:
        """Send invalidation requests and page group responses for ``source_id`` to ``client``."""
        self.devices.attach(source_id, client)

    def translate_for_device(
        self, request: Request, count: int = 1, *, no_write: bool = False
    ) -> TranslationCompletion:
        """The answer to a translation request for up to ``count`` translations (4.2.3)."""
        if not self._translating:
            return TranslationCompletion(CompletionStatus.UNSUPPORTED_REQUEST)
        completion, fault = ats.answer(self.remapping, request, count, no_write=no_write)
        if fault is not None:
            self._block(request, fault)
        address = request.address
        for entry in completion.entries:
            self._publish(
                TranslationGiven(
                    request.source_id, request.pasid, request.privileged, address, entry
                )
            )
            address = (address & -entry.size) + entry.size
        if self._counting:
            self._count(AddressType.TRANSLATION_REQUEST)
        return completion

    def admit_translated(self, request: Request) -> CompletionStatus:
        """Whether a translated request may go to memory at the address it has (4.2.5)."""
        status = self._admit_translated(request)
        if self._subscribers and status is CompletionStatus.SUCCESS:
            self._publish(TranslatedRequestPassed(request))
        if self._counting:
            self._count(AddressType.TRANSLATED)
        return status

    def _admit_translated(self, request: Request) -> CompletionStatus:
        without_support = request.pasid is not None and not self.capabilities.ecap.ptrs
        if not self._translating or without_support:
            return CompletionStatus.UNSUPPORTED_REQUEST
        try:
            translated.check(self.remapping, request)
        except TranslationFault as fault:
            self._block(request, fault)
            return ats.REFUSALS[fault.reason.translated]
        if self._protecting and self.protected_memory.blocks(request.address, request.length):
            return CompletionStatus.UNSUPPORTED_REQUEST
        return CompletionStatus.SUCCESS

    def request_page(self, source_id: int, message: PageRequest) -> bool:
        """A page request message; whether software will find it in the page request queue."""
        if not self._translating or "prs" not in self.capabilities.features:
            return False
        queued = self.page_requests.receive(source_id, message)
        if self._counting:
            self.performance.update()
        return queued

    def complete_invalidation(self, source_id: int, itag_vector: int, count: int) -> None:
        """An invalidation completion message; unsupported while remapping is off (4.2.1)."""
        if self._translating:
            self.devices.complete(source_id, itag_vector, count)
            if self._counting:
                self.performance.update()

    def request_interrupt(
        self, source_id: int, address: int, data: int
    ) -> Interrupt | Posted | None:
        """A 4-byte write to FEEx_xxxxh without PASID; None if it is blocked (5.1.4)."""
        try:
            outcome = self.interrupts.remap(self.registers[GlobalStatus], source_id, address, data)
        except InterruptFault as fault:
            self.block_interrupt(source_id, address, fault)
            return None
        finally:
            if self._counting:
                self.performance.update()
        self._publish(InterruptDelivered(source_id, outcome))
        return outcome

    def block_interrupt(self, source_id: int, address: int, fault: InterruptFault) -> None:
        """Record the fault of an access to the interrupt range."""
        if fault.recorded:
            self.faults.interrupt_fault(source_id, fault.index, fault.reason)
        self._publish(InterruptBlocked(source_id, address, fault.reason, fault.recorded))

    def _block(self, request: Request, fault: TranslationFault) -> None:
        if fault.recorded:
            self.faults.dma_fault(request, fault.reason)
        self._publish(RequestBlocked(request, fault.reason, fault.recorded))

    def _send(self, message: Message) -> None:
        self._publish(MessageSent(message))

    def _publish(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)

    def _protection_written(self, _: RegisterWrite[Any]) -> None:
        self._choose_path()

    def _choose_path(self) -> None:
        """Look at what decides the way of requests; ports answer hits while only the IOTLB does."""
        self._translating = self.registers[GlobalStatus].tes
        self._protecting = self.protected_memory.enabled
        self._counting = self.performance.active
        alone = not (self._protecting or self._counting)
        self.caches.iotlb.direct = self._translating and alone

    def _count(self, kind: AddressType) -> None:
        self._activity.requests[kind] += 1
        self.performance.update()

    def _counting_switched(self) -> None:
        """Accesses to memory are observed, and ports answer no hits, while a counter is enabled."""
        if self.performance.active and not self._counting:
            self._unobserved = self.remapping.memory, self.interrupts.memory
            tables, entries = self._unobserved
            self.remapping.memory = ObservedMemory(tables, self._activity.access)
            self.interrupts.memory = ObservedMemory(entries, self._activity.access)
        elif self._counting and not self.performance.active:
            self.remapping.memory, self.interrupts.memory = self._unobserved
        self._choose_path()

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
        self.remapping.root = self.registers[RootTableAddress]
        self.caches.iotlb.forget_shortcuts()
        self.registers[GlobalStatus] = self.registers[GlobalStatus].replace(rtps=True)
        if "esrtps" in self.capabilities.features:
            self.caches.clear()

    def _set_interrupt_table(self) -> None:
        self.interrupts.table = self.registers[InterruptRemappingTableAddress]
        self.registers[GlobalStatus] = self.registers[GlobalStatus].replace(irtps=True)
        if "esirtps" in self.capabilities.features:
            self.interrupts.clear()

    def _translation_switched(self, *, enabled: bool) -> None:
        """TE: what is cached is lost when translation stops in a scalable unit (6.6)."""
        self._choose_path()
        if not enabled and "smts" in self.capabilities.features:
            self.caches.clear()


def implementation_registers(capabilities: Capabilities) -> dict[int, int]:
    """Values for the capability registers of the functions that the unit reports.

    Without those of a function for whose registers FRO or IRO leaves no room.
    """
    features, cap, ecap = capabilities.features, capabilities.cap, capabilities.ecap
    constants: dict[int, int] = {}
    for feature, registers in (
        ("vcs", virtual_commands.capability_registers(pasid="pasid" in features)),
        ("mts", {0x100: int(MtrrCapability.of(wc=True, fix=True, vcnt=10))}),
        ("pms", performance.capability_registers()),
    ):
        more = {**constants, **registers}
        if feature in features and not overlaps(register_map(features, cap, ecap, more)):
            constants = more
    return constants
