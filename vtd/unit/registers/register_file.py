"""The register window of a unit: storage, accesses of software, and the hardware's own view.

VT-d 11.2 and 11.3. Every rule comes from the declarations in :mod:`vtd.layouts.registers`:
read-only fields ignore writes, write-only fields read as 0, status fields are cleared by writing 1,
reserved bits read as 0 whatever was written. Left out: what a write causes. A unit hears of writes
through :meth:`RegisterFile.on_write`.

The specification leaves accesses that 11.2 does not provide for undefined; here software's writes
of other sizes, misaligned or outside any register are ignored and its reads return 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, overload

from pagetables.bits import Access
from vtd.layouts.registers import Capability, ExtendedCapability, Register, Version
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_map import Place, overlaps, register_map
from vtd.unit.state import Stateful

R = TypeVar("R", bound=Register)

PAGE = 0x1000
STICKY = (Access.RW1CS, Access.ROS)


class RegisterWrite(NamedTuple, Generic[R]):
    """One access of software that reached a register."""

    number: int
    """The register's index where there are several, or 0."""
    old: R
    new: R
    """What the register holds now, by the access rules of its fields."""
    raw: R
    """The bits that were written, reserved and read-only ones included; 0 where not covered."""
    mask: int
    """The bits of the register that the access covered."""


class _Window(NamedTuple):
    """What an access of one size at one offset does, worked out beforehand."""

    base: int
    """Offset of the register, its key in the values."""
    shift: int
    """Bit of the register at which the access starts."""
    covered: int
    """Bits of the register that the access covers."""
    readable: int
    writable: int
    clearable: int
    """Bits that a 1 clears."""


class _Slot(NamedTuple):
    register: type[Register]
    base: int
    implemented: int
    """Bits that are not reserved."""
    sticky: int
    reset: int


class RegisterFile(Stateful):
    """All registers of a unit with these capabilities.

    ``constants`` holds values of an implementation's own registers, such as PERFCAP_REG: 64 bits
    at each multiple of 8. ValueError if registers overlap or a constant belongs to none.
    """

    STATE = ("values",)

    values: dict[int, Register]
    """The whole state, by register offset."""

    def __init__(
        self, capabilities: Capabilities, constants: Mapping[int, int] | None = None
    ) -> None:
        constants = constants or {}
        cap, ecap = capabilities.cap, capabilities.ecap
        offsets = register_map(capabilities.features, cap, ecap, constants)
        for one, other in overlaps(offsets):
            raise ValueError(
                "registers overlap: CAP.FRO, ECAP.IRO or a constant puts "
                f"{one.__name__} over {other.__name__}"
            )
        self._slots: dict[type[Register] | Place, _Slot] = {}
        """By register and index; by the register alone where the index is 0."""
        self._windows: dict[tuple[int, int], _Window] = {}
        self._listeners: dict[int, list[tuple[int, Callable[[RegisterWrite[Any]], None]]]] = {}
        self._reset_listeners: list[Callable[[], None]] = []
        fixed: dict[type[Register], int] = {
            Version: capabilities.version,
            Capability: cap,
            ExtendedCapability: ecap,
        }
        for (register, number), base in offsets.items():
            implemented = ~register.reserved_mask(capabilities.implementation)
            reset = fixed.get(register, register.RESET) & implemented
            sticky = _mask(register, *STICKY) & implemented
            slot = _Slot(register, base, implemented, sticky, reset)
            self._slots[register, number] = slot
            if number == 0:
                self._slots[register] = slot
            self._add_windows(register, base, implemented)
        self.end = max(slot.base + slot.register.WIDTH // 8 for slot in self._slots.values())
        """First offset after the last register: what the window has to have room for."""
        self._bases = {place: slot.base for place, slot in self._slots.items()}
        """The offsets of the same."""
        self._constants = self._place_constants(constants)
        self.size = -(-self.end // PAGE) * PAGE
        """Bytes of the register window, whole pages of 4 KiB."""
        self.values = {}
        self.reset()

    def _add_windows(self, register: type[Register], base: int, implemented: int) -> None:
        readable = implemented & ~_mask(register, Access.WO)
        writable = implemented & _mask(register, Access.RW, Access.WO)
        clearable = implemented & _mask(register, Access.RW1C, Access.RW1CS)
        for size in (4, 8):
            if size * 8 > register.WIDTH:
                continue
            for byte in range(0, register.WIDTH // 8, size):
                covered = (1 << size * 8) - 1 << byte * 8
                self._windows[base + byte, size] = _Window(
                    base,
                    byte * 8,
                    covered,
                    readable & covered,
                    writable & covered,
                    clearable & covered,
                )

    def _place_constants(self, constants: Mapping[int, int]) -> list[tuple[int, int]]:
        """Register offset and bits of each half of the constants that is not 0."""
        placed = []
        for offset, value in constants.items():
            if offset % 8 or value >> 64:
                raise ValueError(
                    f"register constant at {offset:#x}: not 64 bits at an 8-byte offset"
                )
            for start, half in ((offset, value & 0xFFFF_FFFF), (offset + 4, value >> 32)):
                window = self._windows.get((start, 4))
                if window is not None:
                    placed.append((window.base, half << window.shift & window.readable))
                elif half:
                    raise ValueError(f"register constant at {start:#x}: no register is there")
        return placed

    def reset(self, *, power_good: bool = True) -> None:
        """Give every register its reset value; sticky fields only at a power-good reset (11.3)."""
        kept = {} if power_good else self.values
        constants: dict[int, int] = {}
        for base, bits in self._constants:
            constants[base] = constants.get(base, 0) | bits
        self.values = {
            slot.base: slot.register(
                slot.reset & ~slot.sticky
                | kept.get(slot.base, slot.reset) & slot.sticky
                | constants.get(slot.base, 0)
            )
            for slot in self._slots.values()
        }
        for callback in self._reset_listeners:
            callback()

    def read(self, offset: int, size: int) -> int:
        """What software reads; 0 for an access that 11.2 does not provide for."""
        window = self._windows.get((offset, size))
        if window is not None:
            return (self.values[window.base] & window.readable) >> window.shift
        if size == 8 and not offset & 7:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Carry out a write of software and tell whoever listens to the register.

        Without effect for an access that 11.2 does not provide for. ValueError if ``value`` does
        not fit ``size`` bytes.
        """
        window = self._windows.get((offset, size))
        if window is None:
            if size == 8 and not offset & 7:
                _check_fits(value, size)
                self.write(offset, 4, value & 0xFFFF_FFFF)
                self.write(offset + 4, 4, value >> 32)
            return
        _check_fits(value, size)
        base, shift, covered, _, writable, clearable = window
        raw = value << shift
        old = self.values[base]
        register = type(old)
        new = register((old & ~writable | raw & writable) & ~(raw & clearable))
        self.values[base] = new
        for number, callback in self._listeners.get(base, ()):
            callback(RegisterWrite(number, old, new, register(raw), covered))

    def on_write(self, register: type[R], callback: Callable[[RegisterWrite[R]], None]) -> None:
        """Call ``callback`` after every write of software to ``register``, of any index."""
        for place, slot in self._slots.items():
            if isinstance(place, tuple) and place[0] is register:
                self._listeners.setdefault(slot.base, []).append((place[1], callback))

    def on_reset(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every reset of the registers."""
        self._reset_listeners.append(callback)

    @overload
    def __getitem__(self, key: type[R]) -> R: ...

    @overload
    def __getitem__(self, key: tuple[type[R], int]) -> R: ...

    def __getitem__(self, key: type[R] | tuple[type[R], int]) -> R:
        """The hardware's view of a register, write-only fields included; 0 for an absent one."""
        base = self._bases.get(key)
        if base is None:
            return (key[0] if isinstance(key, tuple) else key)(0)
        return self.values[base]  # type: ignore[return-value]  # of the register's own type

    def __setitem__(self, key: type[R] | tuple[type[R], int], record: R) -> None:
        """Store what the hardware sets; bits that the unit reserves, or all if absent, stay 0."""
        slot = self._slots.get(key)
        if slot is not None:
            if record & ~slot.implemented:
                record = slot.register(record & slot.implemented)  # type: ignore[assignment]
            self.values[slot.base] = record

    def offset(self, register: type[Register], number: int = 0) -> int:
        """Where a register is, its key in ``values``; KeyError if the unit does not have it."""
        return self._slots[register, number].base

    def __contains__(self, key: object) -> bool:
        """Whether the unit has this register."""
        return key in self._slots


def _mask(register: type[Register], *kinds: Access) -> int:
    """Bits of the fields with one of these access kinds."""
    return sum(register.MASKS.get(kind, 0) for kind in kinds)


def _check_fits(value: int, size: int) -> None:
    if value >> size * 8:
        raise ValueError(f"register write: {value:#x} does not fit {size} bytes")
