"""The I/OAT (QuickData) copy engine of Xeon processors, version 3.2: 8086:2021.

One function with one to four channels; each fetches descriptors from memory, copies, writes
completions and interrupts. Source, destination, descriptors and completions are requests of their
own, and each may be refused. Only refused data is told by completion record and interrupt; software
finds every other error by CHANSTS (Linux stops for good otherwise). Public sources leave open what
silicon does after other errors, and when CHAINADDR is written while a channel is active: here the
channel halts. A descriptor takes a fixed time by the function's clock.
"""

from __future__ import annotations

from devices.clock import Alarm
from devices.config_space import RegisterSpace
from devices.function import Identity, PciFunction
from devices.models.ioat_structures import (
    CHANNEL_SIZE,
    COPY,
    DESCRIPTOR_SIZE,
    RECOVERABLE,
    AttentionStatus,
    CacheControl,
    ChainAddress,
    ChannelCommand,
    ChannelControl,
    ChannelCount,
    ChannelError,
    ChannelErrors,
    ChannelState,
    ChannelStatus,
    Compatibility,
    CompletionAddress,
    CurrentDescriptor,
    Descriptor,
    DescriptorCount,
    EngineVersion,
    ErrorMask,
    GeneralControl,
    InterruptControl,
    InterruptDelay,
    TransferCapacity,
)

IDENTITY = Identity(
    vendor_id=0x8086,
    device_id=0x2021,
    class_code=0x088000,
    revision=4,
    subsystem_vendor_id=0x8086,
    interrupt_pin=1,
)
BAR_SIZE = 0x4000
MSIX_TABLE, MSIX_PENDING = 0x2000, 0x3000
MAX_CHANNELS = 4
VERSION = EngineVersion.of(major=3, minor=2)
UNCORRECTABLE, ERRORS, ERROR_MASK = 0x148, 0x180, 0x184
"""Registers in configuration space: DMAUNCERRSTS, CHANERR_INT, CHANERRMSK_INT."""
ATTENTION = 0x04
TOP = 1 << 64
SIZE, NULL, OPCODE = Descriptor.size.mask, Descriptor.null.mask, Descriptor.opcode.mask
COMPLETION, INTERRUPT = Descriptor.completion.mask, Descriptor.interrupt.mask
FROM, TO, NEXT = Descriptor.source.mask, Descriptor.destination.mask, Descriptor.next.mask


class IoatEngine(PciFunction):
    """The engine; a descriptor moves at most 2 ** ``transfer_log2`` bytes (XFERCAP)."""

    def __init__(
        self, channels: int = 1, transfer_log2: int = 12, descriptor_nanoseconds: int = 1000
    ) -> None:
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"channels: {channels} is not in 1..{MAX_CHANNELS}")
        if not 12 <= transfer_log2 <= 20:
            raise ValueError(f"transfer_log2: {transfer_log2} is not in 12..20")
        if descriptor_nanoseconds < 0:
            raise ValueError(f"descriptor_nanoseconds: {descriptor_nanoseconds} is negative")
        super().__init__(IDENTITY)
        self.descriptor_nanoseconds = descriptor_nanoseconds
        self.longest = 1 << transfer_log2
        self.add_pci_express()
        self.add_bar(0, BAR_SIZE, wide=True)
        self.vectors = self.add_msix(channels, table=(0, MSIX_TABLE), pending=(0, MSIX_PENDING))
        self.single = self.add_msi()
        self.registers = registers = RegisterSpace(CHANNEL_SIZE * (channels + 1))
        registers.add(0x00, ChannelCount(channels))
        registers.add(0x01, TransferCapacity(transfer_log2))
        registers.add(0x02, GeneralControl())
        self.interrupts = registers.add(0x03, InterruptControl())
        self.attention = registers.add(ATTENTION, AttentionStatus())
        registers.add(0x08, VERSION)
        registers.add(0x0C, InterruptDelay())
        self.config.add(UNCORRECTABLE, ChannelErrors())
        self.errors = self.config.add(ERRORS, ChannelErrors())
        self.config.add(ERROR_MASK, ErrorMask())
        self.interrupts.on_write = self._interrupt_control
        self.channels = tuple(Channel(self, number) for number in range(channels))
        self.bars[0].place(0, registers.size, self)
        self.at_reset.append(self._power_on)

    def read(self, offset: int, size: int) -> int:
        """Registers in aligned pieces of 1 to 8 bytes; a read of ATTNSTATUS clears it."""
        value = self.registers.read(offset, size)
        if offset < ATTENTION + 4 and offset + size > ATTENTION:
            self._want(AttentionStatus())
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Registers in aligned pieces of 1 to 8 bytes; other writes are dropped."""
        self.registers.write(offset, size, value)

    def signal(self, channel: int) -> None:
        """Interrupt for a channel: by its own vector, or by the one that all share."""
        if self.interrupts.value.vectors:
            self.vectors.notify(channel)
        else:
            self._want(AttentionStatus(self.attention.value | 1 << channel))
            self._signal_shared()

    def _signal_shared(self) -> None:
        if self.interrupts.value.asserted:
            self.vectors.notify(0)
            self.single.notify(0)

    def _want(self, attention: AttentionStatus) -> None:
        """Channels want the shared interrupt, or none does any more."""
        self.attention.value = attention
        self.interrupts.value = self._settled(self.interrupts.value)

    def _interrupt_control(
        self, before: InterruptControl, after: InterruptControl
    ) -> InterruptControl:
        """Software enables interrupts, or has handled one: if another waits it comes now."""
        self.interrupts.value = self._settled(after)
        self._signal_shared()
        return self.interrupts.value

    def _settled(self, control: InterruptControl) -> InterruptControl:
        wanted = self.attention.value != 0
        asserted = wanted and bool(control.enable)
        messages = self.vectors.enabled or self.single.enabled
        self.set_intx(asserted and not messages)
        return control.replace(status=wanted, asserted=asserted)

    def _power_on(self) -> None:
        for channel in self.channels:
            channel.reset()
        self.registers.reset()


class DescriptorError(Exception):
    """What keeps a descriptor from being executed; a channel raises and catches it."""

    def __init__(self, error: ChannelError) -> None:
        super().__init__(str(error))
        self.error = error


class Channel:
    """One channel: its registers, and the chain of descriptors that it works on."""

    def __init__(self, engine: IoatEngine, number: int) -> None:
        self._engine = engine
        self._number = number
        self._executed = 0
        """Descriptors since CHAINADDR was written, modulo 65536."""
        self._alarm: Alarm | None = None
        """Rings for the next descriptor; there is one as long as the channel is active."""
        self._armed = True
        self._owed = False
        """Whether an interrupt waits for being armed."""
        at, add = CHANNEL_SIZE * (number + 1), engine.registers.add
        self.control = add(at, ChannelControl())
        add(at + 0x02, Compatibility.of(version2=1))
        self.command = add(at + 0x04, ChannelCommand())
        self.count = add(at + 0x06, DescriptorCount())
        self.status = add(at + 0x08, ChannelStatus.of(state=ChannelState.HALTED))
        self.chain = add(at + 0x10, ChainAddress())
        self.completion = add(at + 0x18, CompletionAddress())
        self.current = add(at + 0x20, CurrentDescriptor())
        self.errors = add(at + 0x28, ChannelErrors())
        add(at + 0x2C, ErrorMask())
        add(at + 0x30, CacheControl())
        self.control.on_write = self._controlled
        self.command.on_write = self._commanded
        self.count.on_write = self._counted
        self.chain.on_write = self._chained

    @property
    def state(self) -> ChannelState:
        """What the channel is doing."""
        return self.status.value.state

    def reset(self) -> None:
        """Forget the chain. CHANERR stays: clearing it is up to software."""
        self._stop(ChannelState.HALTED)
        self.status.value = self.status.initial
        self.count.value = self.count.initial
        self._executed = 0
        self._armed, self._owed = True, False

    def _stop(self, state: ChannelState) -> None:
        """Work on no further descriptor."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self.status.value = self.status.value.replace(state=state)

    def _controlled(self, before: ChannelControl, after: ChannelControl) -> ChannelControl:
        """Writing the lowest bit arms the interrupt again: one that became due comes now."""
        if after.rearm:
            self._armed = True
            if self._owed:
                self._interrupt()
        return after.replace(rearm=0)

    def _commanded(self, before: ChannelCommand, after: ChannelCommand) -> ChannelCommand:
        """Every command is done at once: a descriptor is never left half done."""
        state = self.state
        if after.reset:
            self.reset()
        elif after.suspend and state in (ChannelState.ACTIVE, ChannelState.DONE):
            self._stop(ChannelState.SUSPENDED)
        elif after.resume and state is ChannelState.SUSPENDED:
            self._go_on()
        return ChannelCommand()

    def _chained(self, before: ChainAddress, after: ChainAddress) -> ChainAddress:
        """A new chain, of which nothing is executed."""
        if self.state is ChannelState.ACTIVE:
            self._halt(ChannelError.CHAIN_ADDRESS)
            return before
        self._executed = 0
        self.current.value = CurrentDescriptor(after.address)
        self.status.value = self.status.value.replace(address=0)
        return after

    def _counted(self, before: DescriptorCount, after: DescriptorCount) -> DescriptorCount:
        """The doorbell."""
        self.count.value = after
        if self.state is not ChannelState.ACTIVE:
            self._go_on()
        return after

    @property
    def _waiting(self) -> bool:
        """Whether there are descriptors that are ready and not executed."""
        return self.count.value != self._executed

    def _go_on(self) -> None:
        """Wait for the time that the next descriptor takes, or be done."""
        engine, alarm = self._engine, None
        if self._waiting:
            alarm = engine.clock.after(engine.descriptor_nanoseconds, self._work)
        self._alarm = alarm
        state = ChannelState.ACTIVE if alarm else ChannelState.DONE
        self.status.value = self.status.value.replace(state=state)

    def _work(self) -> None:
        """Execute descriptors as long as nothing else happens in between."""
        clock, nanoseconds = self._engine.clock, self._engine.descriptor_nanoseconds
        going_on = True
        try:
            while going_on and self._waiting:
                self._execute(int(self.current.value))
                going_on = self._alarm is not None and self._waiting and clock.skip(nanoseconds)
        except DescriptorError as fault:
            self._halt(fault.error)
            return
        if self._alarm is not None:  # unless who was interrupted has stopped the channel
            self._go_on()

    def _execute(self, address: int) -> None:
        """Data, then completion, then interrupt; DescriptorError if one of them can't be."""
        if address % DESCRIPTOR_SIZE:
            raise DescriptorError(ChannelError.DESCRIPTOR)
        fetched = self._engine.dma.read(address, DESCRIPTOR_SIZE)
        if not fetched.ok:
            raise DescriptorError(ChannelError.NEXT_ADDRESS)
        descriptor = int.from_bytes(fetched.data, "little")
        self._move(descriptor)
        self._executed = self._executed + 1 & 0xFFFF
        self.current.value = CurrentDescriptor((descriptor & NEXT) >> Descriptor.next.low)
        state = ChannelState.ACTIVE if self._waiting else ChannelState.DONE
        self.status.value = ChannelStatus(address | state)
        if descriptor & COMPLETION and not self._write_completion():
            raise DescriptorError(ChannelError.COMPLETION_ADDRESS)
        if descriptor & INTERRUPT:
            self._interrupt()

    def _move(self, descriptor: int) -> None:
        size = descriptor & SIZE
        if descriptor & OPCODE != COPY:
            raise DescriptorError(ChannelError.CONTROL)
        if not 0 < size <= self._engine.longest:
            raise DescriptorError(ChannelError.LENGTH)
        if descriptor & NULL:
            return
        source = (descriptor & FROM) >> Descriptor.source.low
        destination = (descriptor & TO) >> Descriptor.destination.low
        for address, error in (
            (source, ChannelError.SOURCE_ADDRESS),
            (destination, ChannelError.DESTINATION_ADDRESS),
        ):
            if address + size > TOP:
                raise DescriptorError(error)
        dma = self._engine.dma
        read = dma.read(source, size)
        if not read.ok:
            raise DescriptorError(ChannelError.READ_DATA)
        if not dma.write(destination, read.data).ok:
            raise DescriptorError(ChannelError.WRITE_DATA)

    def _halt(self, error: ChannelError) -> None:
        """Stop with an error; only one that software can go on after is announced."""
        self._stop(ChannelState.HALTED)
        self._report(error)
        control = self.control.value
        if error & ~RECOVERABLE:
            return
        if control.error_completion and not self._write_completion():
            self._report(ChannelError.COMPLETION_ADDRESS)
        elif control.error_interrupt:
            self._interrupt()

    def _report(self, error: ChannelError) -> None:
        self.errors.value = ChannelErrors(self.errors.value | error)
        self._engine.errors.value = ChannelErrors(self._engine.errors.value | error)

    def _write_completion(self) -> bool:
        """Write CHANSTS to memory; whether that was let through."""
        return self._engine.dma.write(int(self.completion.value), self.status.value.pack()).ok

    def _interrupt(self) -> None:
        """Signal once; what becomes due until software arms it again is signalled then."""
        self._owed = not self._armed
        if self._armed:
            self._armed = False
            self._engine.signal(self._number)
