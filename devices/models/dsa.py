"""The Data Streaming Accelerator of Xeon processors, version 1.0: 8086:0b25.

Dedicated work queues, one engine, no storage of interrupts; descriptors arrive at a portal in one
piece of 64 bytes or in several, are carried out in their order, each in a fixed time by the
function's clock, and end in a completion record. The function has ATS, page requests and PASIDs:
data are reached through its device-TLB, and a page that is not there is asked for if work queue and
descriptor allow to block on faults. Public sources leave open what becomes of a descriptor for a
queue that is full or off: here it vanishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from devices.ats import AtsAgent
from devices.capabilities import DeviceCapabilities2, PortType, Pri, add_ats, add_pasid, add_pri
from devices.clock import Alarm
from devices.config_space import ConfigRegister, RegisterSpace
from devices.dma import PageGroupResponse
from devices.function import BME, Identity, PciFunction
from devices.models import dsa_structures as s
from devices.models.dsa_structures import (
    DESCRIPTOR_SIZE,
    Command,
    CommandError,
    DeviceState,
    Operation,
    QueueConfiguration,
    Status,
)
from devices.models.dsa_work import PageFaultError, Pause, Work
from devices.pri import PageRequestInterface

IDENTITY = Identity(vendor_id=0x8086, device_id=0x0B25, class_code=0x088000)
REGISTERS_SIZE = 0x1_0000
GROUPS, QUEUES, PERMISSIONS = 0x200, 0x400, 0x800
"""Where the tables of the configuration are."""
MSIX_TABLE, MSIX_PENDING = 0x2000, 0x3000
PORTAL_SIZE = 0x1000
PORTALS = 4
"""Of each work queue: with and without limit, for interrupts by MSI-X and by a table in memory."""
MAX_QUEUES, GROUP_COUNT, ENGINES, TOTAL_SIZE = 8, 4, 4, 128
MAX_TRANSFER, MAX_BATCH = 21, 10
"""log2 of bytes and descriptors."""
AT_ONCE = (Command.ENABLE_DEVICE, Command.RESET_DEVICE, Command.ENABLE_QUEUE)
WITH_ALL_QUEUES = (
    Command.DISABLE_DEVICE,
    Command.DRAIN_ALL,
    Command.ABORT_ALL,
    Command.DRAIN_PASID,
    Command.ABORT_PASID,
)
CAPABILITIES = s.GeneralCapability.of(
    block_on_fault=1,
    overlapping_copy=1,
    command_capability=1,
    max_transfer=MAX_TRANSFER,
    max_batch=MAX_BATCH,
    configurable=1,
)
PREFIXES = DeviceCapabilities2.of(end_end_prefix=1)


class Dsa(PciFunction):
    """The accelerator, with so many work queues; each descriptor takes so many nanoseconds."""

    def __init__(self, queues: int = MAX_QUEUES, descriptor_nanoseconds: int = 1000) -> None:
        if not 1 <= queues <= MAX_QUEUES:
            raise ValueError(f"queues: {queues} is not in 1..{MAX_QUEUES}")
        if descriptor_nanoseconds < 0:
            raise ValueError(f"descriptor_nanoseconds: {descriptor_nanoseconds} is negative")
        super().__init__(IDENTITY)
        self.descriptor_nanoseconds = descriptor_nanoseconds
        self.add_pci_express(PortType.ROOT_COMPLEX_ENDPOINT, capabilities2=PREFIXES)
        self.add_bar(0, REGISTERS_SIZE, wide=True)
        size = 1 << (queues * PORTALS * PORTAL_SIZE - 1).bit_length()
        self.add_bar(2, size, wide=True)
        vectors = queues + 1
        self._vectors = self.add_msix(vectors, table=(0, MSIX_TABLE), pending=(0, MSIX_PENDING))
        self._pages = Pages(add_pri(self.config, 64), self._go_on)
        pasid = add_pasid(self.config)
        self.agent = AtsAgent(self, add_ats(self.config), pages=self._pages, pasid=pasid)
        self._pasid = pasid
        self._waiting: deque[Work] = deque()
        self._alarm: Alarm | None = None
        self._interrupting = False
        self._finished: Callable[[], bool] | None = None
        """Whether the command that is active has nothing to wait for any more."""
        self._add_registers(queues, vectors)
        self.bars[0].place(0, MSIX_TABLE, self.registers)
        self.queues = tuple(WorkQueue(self, number) for number in range(queues))
        for queue in self.queues:
            start = queue.number * PORTALS * PORTAL_SIZE
            self.bars[2].place(start, PORTALS * PORTAL_SIZE, queue)
        self.at_reset.append(self._power_on)

    def _add_registers(self, queues: int, vectors: int) -> None:
        self.registers = registers = RegisterSpace(MSIX_TABLE)
        add = registers.add
        add(0x00, s.Version.of(major=1))
        add(0x10, CAPABILITIES)
        add(0x20, s.WorkQueueCapability.of(
            total_size=TOTAL_SIZE, queues=queues, dedicated=1, ats=1, priority=1
        ))  # fmt: skip
        add(0x30, s.GroupCapability.of(groups=GROUP_COUNT))
        add(0x38, s.EngineCapability.of(engines=ENGINES))
        add(0x40, s.OperationCapability.of(operations=sum(1 << each for each in Operation)))
        add(0x60, s.TableOffsets.of(
            groups=GROUPS >> 8, queues=QUEUES >> 8, permissions=PERMISSIONS >> 8
        ))  # fmt: skip
        add(0x80, s.GeneralConfiguration())
        self.control = add(0x88, s.GeneralControl())
        self.general_status = add(0x90, s.GeneralStatus())
        self.cause = add(0x98, s.InterruptCause())
        self._command = add(0xA0, s.CommandRegister())
        self._command.on_write = self._ask
        self.command_status = add(0xA8, s.CommandStatus())
        add(0xB0, s.CommandCapability.of(commands=sum(1 << each for each in Command)))
        self.error = add(0xC0, s.SoftwareError())
        self._groups = [
            add(GROUPS + 64 * number, s.GroupConfiguration()) for number in range(GROUP_COUNT)
        ]
        self._configurations: list[ConfigRegister[QueueConfiguration]] = [
            add(QUEUES + 32 * number, QueueConfiguration()) for number in range(queues)
        ]
        for number, register in enumerate(self._configurations):
            register.on_write = partial(self._configured, number)
        for vector in range(vectors):
            add(PERMISSIONS + 8 * vector, s.VectorPermission())

    def configuration(self, number: int) -> QueueConfiguration:
        """What software asked of a work queue."""
        return self._configurations[number].value

    def submit(self, queue: int, raw: bytes) -> None:
        """A descriptor has arrived at a portal of a work queue."""
        configuration = self.configuration(queue)
        if (
            not configuration.enabled
            or sum(each.queue == queue for each in self._waiting) >= configuration.size
        ):
            return
        descriptor = s.Descriptor(int.from_bytes(raw, "little"))
        self._waiting.append(Work(self, queue, configuration, descriptor))
        self._begin()

    def interrupt(self, vector: int) -> bool:
        """Raise an interrupt; False if there is no such vector."""
        self._vectors.notify(vector)
        return vector < len(self._vectors.entries)

    def software_error(self, work: Work, status: Status, fault: PageFaultError | None) -> None:
        """An error that no completion record can tell."""
        if self.error.value.valid:
            self.error.value = self.error.value.replace(overflow=1)
            return
        self.error.value = s.SoftwareError.of(
            valid=1,
            descriptor_valid=1,
            queue_valid=1,
            written=int(fault is not None and fault.written),
            error=int(status),
            queue=work.queue,
            operation=work.descriptor.operation,
            pasid=work.pasid or 0,
            address=0 if fault is None else fault.address,
        )
        self._because(software_error=1, wanted=bool(self.control.value.software_error_interrupt))

    def _because(self, *, wanted: bool, **cause: int) -> None:
        """Note the cause of an interrupt, and raise it if software wants it."""
        self.cause.value = self.cause.value.replace(**cause)
        if wanted:
            self.interrupt(0)

    def _run(self) -> None:
        """Carry out descriptors while time passes, up to one that waits for a page."""
        self._alarm = None
        while self._waiting and self._alarm is None:
            pause = self._waiting[0].step()
            if pause is Pause.PAGE:
                return
            if pause is Pause.DONE:
                self._waiting.popleft()
                self._settle()
            if not self.clock.skip(self.descriptor_nanoseconds):
                self._begin()

    def _begin(self) -> None:
        """Have the next descriptor carried out, if there is one."""
        if self._waiting and self._alarm is None:
            self._alarm = self.clock.after(self.descriptor_nanoseconds, self._run)

    def _go_on(self) -> None:
        """A page request was answered: whoever waits for it looks again, soon."""
        if self._alarm is None and self._waiting:
            self._alarm = self.clock.after(0, self._run)

    def _drop(self, *, queues: int) -> None:
        """Abort what queues, by bit, have to do."""
        kept = [each for each in self._waiting if not queues >> each.queue & 1]
        self._waiting = deque(kept)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._go_on()

    def _configured(
        self, number: int, before: QueueConfiguration, after: QueueConfiguration
    ) -> QueueConfiguration:
        """A work queue that is enabled stays as it is."""
        return before if before.enabled else after

    def _switch(self, queues: int, *, on: bool) -> None:
        for number, register in enumerate(self._configurations):
            if queues >> number & 1:
                register.value = register.value.replace(enabled=on)

    def _ask(self, _: s.CommandRegister, asked: s.CommandRegister) -> s.CommandRegister:
        """A command: what it has to wait for keeps it active, and others out."""
        if not self.command_status.value.active:
            error, done = self._carry_out(asked)
            self.command_status.value = s.CommandStatus.of(error=error, active=1)
            self._finished = done
            self._interrupting = bool(asked.interrupt)
            self._settle()
        return s.CommandRegister()

    def _settle(self) -> None:
        """The active command ends once nothing is left that it waits for."""
        if self._finished is not None and self._finished():
            self._finished = None
            self.command_status.value = self.command_status.value.replace(active=0)
            self._because(command=1, wanted=self._interrupting)

    def _carry_out(self, asked: s.CommandRegister) -> tuple[CommandError, Callable[[], bool]]:
        """Begin a command: its error, and when it is done."""
        operand = int(asked.operand)
        enabled = self.general_status.value.state is DeviceState.ENABLED
        error, queues = CommandError.NONE, (1 << len(self.queues)) - 1
        match asked.command:
            case Command.ENABLE_DEVICE:
                error = self._enable(enabled)
            case Command.RESET_DEVICE:
                self._reset_device()
            case Command.ENABLE_QUEUE:
                error = self._enable_queue(operand, enabled)
            case (
                Command.DISABLE_QUEUE | Command.DRAIN_QUEUE | Command.ABORT_QUEUE
                | Command.RESET_QUEUE
            ):  # fmt: skip
                queues = (operand & 0xFFFF) << 16 * (operand >> 16)
                error = self._chosen_error(queues, enabled)
            case each if each in WITH_ALL_QUEUES:
                error = CommandError.NONE if enabled else CommandError.NOT_ENABLED
            case _:
                error = CommandError.INVALID_COMMAND
        if error is not CommandError.NONE or asked.command in AT_ONCE:
            return error, lambda: True
        return error, self._stop(Command(asked.command), queues)

    def _chosen_error(self, queues: int, enabled: bool) -> CommandError:
        """What keeps queues, by bit, from being stopped."""
        on = sum(1 << at for at, each in enumerate(self._configurations) if each.value.enabled)
        if not enabled:
            return CommandError.NOT_ENABLED
        if not queues or queues >> len(self.queues):
            return CommandError.INVALID_QUEUE
        return CommandError.QUEUE_DISABLED if queues & ~on else CommandError.NONE

    def _stop(self, command: Command, queues: int) -> Callable[[], bool]:
        """Queues are drained, aborted or disabled; when that is done."""
        if command in (Command.ABORT_ALL, Command.ABORT_QUEUE, Command.ABORT_PASID):
            self._drop(queues=queues)
        if command in (Command.DISABLE_DEVICE, Command.DISABLE_QUEUE, Command.RESET_QUEUE):
            self._switch(queues, on=False)
        if command is Command.DISABLE_DEVICE:
            self.general_status.value = self.general_status.value.replace(
                state=DeviceState.DISABLED
            )
        return lambda: not any(queues >> each.queue & 1 for each in self._waiting)

    def _enable(self, enabled: bool) -> CommandError:
        if enabled:
            return CommandError.DEVICE_ENABLED
        if not self.command.value & BME:
            return CommandError.NO_BUS_MASTER
        error = self._configuration_error()
        if error is CommandError.NONE:
            self.general_status.value = self.general_status.value.replace(state=DeviceState.ENABLED)
        return error

    def _configuration_error(self) -> CommandError:
        """What is wrong with queues and groups."""
        groups = [each.value for each in self._groups]
        sizes = [each.value.size for each in self._configurations]
        used = sum(1 << number for number, size in enumerate(sizes) if size)
        seen = engines = 0
        if sum(sizes) > TOTAL_SIZE:
            return CommandError.QUEUE_SIZES
        for group in groups:
            if bool(group.queues) != bool(group.engines):
                return CommandError.GROUP_INCOMPLETE
            if seen & group.queues:
                return CommandError.QUEUE_IN_TWO_GROUPS
            if engines & group.engines:
                return CommandError.ENGINE_IN_TWO_GROUPS
            seen |= group.queues
            engines |= group.engines
        return CommandError.QUEUE_WITHOUT_GROUP if used & ~seen else CommandError.NONE

    def _enable_queue(self, number: int, enabled: bool) -> CommandError:
        if not enabled:
            return CommandError.DEVICE_DISABLED
        if number >= len(self.queues):
            return CommandError.INVALID_QUEUE
        wanted = self.configuration(number)
        problems = {
            CommandError.QUEUE_ENABLED: wanted.enabled,
            CommandError.QUEUE_SIZE: not wanted.size,
            CommandError.QUEUE_PRIORITY: not wanted.priority,
            CommandError.QUEUE_MODE: not wanted.dedicated,
            CommandError.QUEUE_PASID: wanted.pasid_enabled and not self._pasid.control.value.enable,
            CommandError.MAX_BATCH: wanted.max_batch > MAX_BATCH,
            CommandError.MAX_TRANSFER: wanted.max_transfer > MAX_TRANSFER,
        }
        error = next((each for each, found in problems.items() if found), CommandError.NONE)
        if error is CommandError.NONE:
            self._switch(1 << number, on=True)
        return error

    def _reset_device(self) -> None:
        self._drop(queues=-1)
        control = self.control.value
        self.registers.reset()
        self.control.value = control
        for queue in self.queues:
            queue.reset()

    def _power_on(self) -> None:
        self._finished = None
        self._reset_device()
        self.control.value = self.control.initial


class WorkQueue:
    """The portals of one work queue: 64 bytes that were written, in any order, are a descriptor."""

    def __init__(self, device: Dsa, number: int) -> None:
        self.number = number
        self._device = device
        self._parts: dict[int, tuple[bytearray, set[int]]] = {}
        """By the place in the portals: what has been written of a descriptor, and which bytes."""

    def read(self, offset: int, size: int) -> int:
        """Nothing is there to be read."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """All of a descriptor, or a part of it."""
        place, at = offset & -DESCRIPTOR_SIZE, offset % DESCRIPTOR_SIZE
        if at + size > DESCRIPTOR_SIZE:
            return
        content, written = self._parts.setdefault(place, (bytearray(DESCRIPTOR_SIZE), set()))
        content[at : at + size] = value.to_bytes(size, "little")
        written.update(range(at, at + size))
        if len(written) == DESCRIPTOR_SIZE:
            del self._parts[place]
            self._device.submit(self.number, bytes(content))

    def reset(self) -> None:
        """Forget parts of descriptors."""
        self._parts.clear()


class Pages(PageRequestInterface):
    """A page request interface that tells when a group was answered."""

    def __init__(self, capability: Pri, answered: Callable[[], None]) -> None:
        super().__init__(capability)
        self._answered = answered

    def respond(self, response: PageGroupResponse) -> None:
        """Note the fate of a group, and tell."""
        super().respond(response)
        self._answered()
