"""PCI configuration space: registers declared as bit records, headers, and the capability chains.

PCI Express Base Specification, chapter 7. A register is a :class:`BitRecord` at an offset; how
software may touch each field comes from its declaration. Bytes that no register covers read 0 and
ignore writes. Power management states and the expansion ROM are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from pagetables.bits import Access, BitRecord, Bits

R = TypeVar("R", bound=BitRecord)

CONVENTIONAL_SIZE, PCI_EXPRESS_SIZE = 256, 4096
"""Bytes of a configuration space."""

RO = Access.RO
RW1C = Access.RW1C


class ConfigSpaceError(ValueError):
    """A configuration space that can't be laid out as asked."""


class Identification(BitRecord, width=32):
    """Vendor and device id, offset 00h."""

    vendor_id = Bits(15, 0, access=RO)
    device_id = Bits(31, 16, access=RO)


class Command(BitRecord, width=16):
    """Command register, offset 04h."""

    ioe = Bits(0)  # I/O space enable
    mse = Bits(1)  # memory space enable
    bme = Bits(2)  # bus master enable: without it no memory request and no MSI leaves
    parity_error_response = Bits(6)
    serr_enable = Bits(8)
    intx_disable = Bits(10)


class Status(BitRecord, width=16):
    """Status register, offset 06h."""

    intx = Bits(3, access=RO)
    capabilities = Bits(4, access=RO)
    master_data_parity_error = Bits(8, access=RW1C)
    signaled_target_abort = Bits(11, access=RW1C)
    received_target_abort = Bits(12, access=RW1C)
    received_master_abort = Bits(13, access=RW1C)
    signaled_system_error = Bits(14, access=RW1C)
    detected_parity_error = Bits(15, access=RW1C)


class ClassCode(BitRecord, width=32):
    """Revision and class code, offset 08h."""

    revision = Bits(7, 0, access=RO)
    class_code = Bits(31, 8, access=RO)  # base class, sub-class, programming interface


class HeaderType(BitRecord, width=32):
    """Cache line size, latency timer, header type and BIST, offset 0Ch."""

    cache_line_size = Bits(7, 0)
    latency_timer = Bits(15, 8, access=RO)
    header_type = Bits(22, 16, access=RO)  # 0 endpoint, 1 bridge
    multifunction = Bits(23, access=RO)
    bist = Bits(31, 24, access=RO)


class Subsystem(BitRecord, width=32):
    """Subsystem ids, offset 2Ch of a type 0 header."""

    subsystem_vendor_id = Bits(15, 0, access=RO)
    subsystem_id = Bits(31, 16, access=RO)


class CapabilitiesPointer(BitRecord, width=8):
    """Offset of the first capability, offset 34h."""

    pointer = Bits(7, 0, access=RO)


class Interrupt(BitRecord, width=16):
    """Interrupt line and pin, offset 3Ch."""

    line = Bits(7, 0)
    pin = Bits(15, 8, access=RO)  # 0 none, 1 INTA to 4 INTD


class BusNumbers(BitRecord, width=32):
    """Bus numbers of a bridge, offset 18h of a type 1 header."""

    primary = Bits(7, 0)
    secondary = Bits(15, 8)
    subordinate = Bits(23, 16)
    latency_timer = Bits(31, 24, access=RO)


class BridgeControl(BitRecord, width=16):
    """Bridge control, offset 3Eh of a type 1 header."""

    parity_error_response = Bits(0)
    serr_enable = Bits(1)
    isa_enable = Bits(2)
    vga_enable = Bits(3)
    secondary_bus_reset = Bits(6)


class CapabilityHeader(BitRecord, width=16):
    """Header of a capability below 100h."""

    capability_id = Bits(7, 0, access=RO)
    next = Bits(15, 8, access=RO)


class ExtendedCapabilityHeader(BitRecord, width=32):
    """Header of a capability at or above 100h."""

    capability_id = Bits(15, 0, access=RO)
    version = Bits(19, 16, access=RO)
    next = Bits(31, 20, access=RO)


class ConfigRegister(Generic[R]):
    """One register: ``value`` is what hardware sees and sets; software goes through the space.

    ``on_write`` is given the value before and after a write by software and returns the one to
    keep.
    """

    def __init__(self, offset: int, initial: R, writable: int | None = None) -> None:
        self.offset = offset
        self.size = initial.WIDTH // 8
        self.initial = initial
        self.value = initial
        self.on_write: Callable[[R, R], R] | None = None
        fields = initial.FIELDS.values()
        self._cleared = sum(bits.mask for bits in fields if bits.access is RW1C)
        self._writable = (
            sum(bits.mask for bits in fields if bits.access is Access.RW)
            if writable is None
            else writable
        )

    def write(self, value: int, enable: int) -> None:
        """A write by software of the bits set in ``enable``."""
        before = self.value
        writable = self._writable & enable
        after = before & ~writable | value & writable
        after &= ~(value & self._cleared & enable)
        self.value = self.layout(after)
        if self.on_write is not None:
            self.value = self.on_write(before, self.value)

    @property
    def layout(self) -> type[R]:
        """The declaration of this register."""
        return type(self.initial)


class RoutingRegister(ConfigRegister[R]):
    """A register that has a say in where requests go: ``changed`` hears of each new value."""

    def __init__(
        self, offset: int, initial: R, writable: int | None, changed: Callable[[], None]
    ) -> None:
        self._changed = changed
        self._value = initial
        super().__init__(offset, initial, writable)

    @property
    def value(self) -> R:
        """What hardware sees and sets."""
        return self._value

    @value.setter
    def value(self, value: R) -> None:
        changed = value != self._value
        self._value = value
        if changed:
            self._changed()


class RegisterSpace:
    """Registers by offset; software accesses them aligned, in one of the ``sizes``."""

    sizes = frozenset({1, 2, 4, 8})

    def __init__(self, size: int) -> None:
        self.size = size
        self._at: dict[int, ConfigRegister[BitRecord]] = {}

    def add(self, offset: int, initial: R, *, writable: int | None = None) -> ConfigRegister[R]:
        """Place a register; ``writable`` overrides the mask that its fields declare."""
        return self.place(ConfigRegister(offset, initial, writable))

    def place(self, register: ConfigRegister[R]) -> ConfigRegister[R]:
        """Put a register where it says it is; ConfigSpaceError if there is no room."""
        span = range(register.offset, register.offset + register.size)
        if span.stop > self.size or any(byte in self._at for byte in span):
            name, offset = register.layout.__name__, register.offset
            raise ConfigSpaceError(f"{name}: no room at {offset:#x} of {self.size:#x} bytes")
        self._at.update(dict.fromkeys(span, register))  # type: ignore[arg-type]  # R is a record
        return register

    def read(self, offset: int, size: int) -> int:
        """What software reads; all ones for an access of another size, or not aligned."""
        enable, value = (1 << 8 * size) - 1, 0
        if not self._allows(offset, size):
            return enable
        for register in self._touched(offset, size):
            value |= _shift(register.value, 8 * (register.offset - offset))
        return value & enable

    def write(self, offset: int, size: int, value: int) -> None:
        """What software writes; an access of another size, or not aligned, is dropped."""
        if not self._allows(offset, size):
            return
        enable = (1 << 8 * size) - 1
        for register in self._touched(offset, size):
            shift = 8 * (offset - register.offset)
            register.write(_shift(value & enable, shift), _shift(enable, shift))

    def reset(self) -> None:
        """Put every register back to its initial value."""
        for register in self._at.values():
            register.value = register.initial

    def dump(self) -> bytes:
        """All bytes as software reads them."""
        return bytes(self.read(offset, 1) for offset in range(self.size))

    def _touched(self, offset: int, size: int) -> Iterable[ConfigRegister[BitRecord]]:
        """The registers of which an access has bytes: mostly there is one."""
        first = self._at.get(offset)
        if first is not None and offset + size <= first.offset + first.size:
            return (first,)
        several = (self._at.get(offset + byte) for byte in range(size))
        return dict.fromkeys(each for each in several if each is not None)

    def _allows(self, offset: int, size: int) -> bool:
        return size in self.sizes and offset % size == 0 and 0 <= offset <= self.size - size


class ConfigSpace(RegisterSpace):
    """The configuration space of one function."""

    sizes = frozenset({1, 2, 4})

    def __init__(self, size: int = PCI_EXPRESS_SIZE) -> None:
        super().__init__(size)
        self.on_routing: Callable[[], None] = _nobody_listens
        self._capabilities: list[tuple[int, ConfigRegister[CapabilityHeader]]] = []
        self._extended: list[tuple[int, ConfigRegister[ExtendedCapabilityHeader]]] = []
        self._spans: list[range] = []
        self._pointer = self.add(0x34, CapabilitiesPointer())

    def add(
        self, offset: int, initial: R, *, writable: int | None = None, routing: bool = False
    ) -> ConfigRegister[R]:
        """Place a register; ``writable`` overrides the mask that its fields declare.

        ``routing``: where requests go depends on it, so ``on_routing`` hears when it changes.
        """
        if not routing:
            return super().add(offset, initial, writable=writable)
        return self.place(RoutingRegister(offset, initial, writable, self._routing_changed))

    def _routing_changed(self) -> None:
        self.on_routing()

    def add_capability(self, capability_id: int, size: int, offset: int | None = None) -> int:
        """Append a capability of ``size`` bytes to the chain below 100h; returns its offset.

        Without an ``offset`` it takes the first aligned room from 40h on.
        """
        start = self._room(size, 0x40, 0x100) if offset is None else offset
        self._spans.append(range(start, start + size))
        header = self.add(start, CapabilityHeader.of(capability_id=capability_id))
        if self._capabilities:
            last = self._capabilities[-1][1]
            last.value = last.initial = last.value.replace(next=start)
        else:
            self._pointer.value = self._pointer.initial = CapabilitiesPointer(start)
        self._capabilities.append((capability_id, header))
        return start

    def add_extended_capability(
        self, capability_id: int, size: int, offset: int | None = None, version: int = 1
    ) -> int:
        """Append a capability of ``size`` bytes to the chain from 100h on; returns its offset."""
        first = not self._extended
        start = offset
        if start is None:
            start = 0x100 if first else self._room(size, 0x100, self.size)
        if first != (start == 0x100):
            raise ConfigSpaceError(f"capability {capability_id:#x}: the chain begins at 0x100")
        self._spans.append(range(start, start + size))
        header = self.add(
            start, ExtendedCapabilityHeader.of(capability_id=capability_id, version=version)
        )
        if self._extended:
            last = self._extended[-1][1]
            last.value = last.initial = last.value.replace(next=start)
        self._extended.append((capability_id, header))
        return start

    def find_capability(self, capability_id: int) -> int | None:
        """Offset of the first such capability of the chain below 100h, or None."""
        return _offset_of(capability_id, self._capabilities)

    def find_extended_capability(self, capability_id: int) -> int | None:
        """Offset of the first such capability of the chain from 100h on, or None."""
        return _offset_of(capability_id, self._extended)

    def read_bytes(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on, whatever their number; those beyond the space are all ones."""
        accesses = _fewest_aligned(offset, length)
        return b"".join(self.read(at, size).to_bytes(size, "little") for at, size in accesses)

    def write_bytes(self, offset: int, data: bytes) -> None:
        """Bytes of any number, written as the fewest aligned accesses; those beyond are dropped."""
        for at, size in _fewest_aligned(offset, len(data)):
            start = at - offset
            self.write(at, size, int.from_bytes(data[start : start + size], "little"))

    def _room(self, size: int, start: int, end: int) -> int:
        for span in sorted(self._spans, key=lambda span: span.start):
            if start < span.stop and span.start < start + size:
                start = span.stop + 3 & ~3
        if start + size > end:
            raise ConfigSpaceError(f"no room for a capability of {size} bytes below {end:#x}")
        return start


def _offset_of(capability_id: int, chain: list[tuple[int, ConfigRegister[R]]]) -> int | None:
    return next((header.offset for known, header in chain if known == capability_id), None)


def _fewest_aligned(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Offset and size of the fewest accesses that make up a range, each aligned."""
    end = offset + length
    while offset < end:
        size = 4
        while offset % size or offset + size > end:
            size //= 2
        yield offset, size
        offset += size


def _shift(value: int, by: int) -> int:
    return value << by if by >= 0 else value >> -by


def _nobody_listens() -> None:
    """A space of its own, where nothing is routed."""
