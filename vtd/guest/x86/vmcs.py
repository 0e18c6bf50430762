"""A VMCS region in memory: KVM's public layout, revision 11E57ED0h, 4096 bytes (SDM 24.2).

Bytes 0 to 3 are the revision, 4 to 7 the abort indicator, 8 to 11 the launch state; every field has
the offset of :mod:`vtd.guest.x86.fields`. Fields that the public layout does not have follow from
offset 1024 on, in the order of their declaration, 8 bytes each: that part is this model's own.
"""

from __future__ import annotations

import struct

from vtd.guest.bus import Memory, get, get_number, put_number
from vtd.guest.x86.capabilities import REVISION
from vtd.guest.x86.controls import VmcsRevision
from vtd.guest.x86.fields import BY_NAME, FIELDS, Field

REGION_SIZE = 4096
OWN_FIELDS = 1024
"""Where the fields begin that the public layout does not have."""
NO_POINTER = (1 << 64) - 1
"""The value of a VMCS pointer, or link pointer, that points nowhere."""

LAUNCH_STATE = 8
CLEAR, LAUNCHED = 0, 1

PLACES: dict[str, int] = {
    **{field.name: field.offset for field in FIELDS if field.offset is not None},
    **{
        field.name: OWN_FIELDS + 8 * number
        for number, field in enumerate(each for each in FIELDS if each.offset is None)
    },
}
"""Byte offset of each field by name."""

_ORDER = sorted(FIELDS, key=lambda field: PLACES[field.name])
_CODES = {2: "H", 4: "I", 8: "Q"}


def _format() -> struct.Struct:
    """All fields at their offsets, what lies between skipped."""
    parts, at = ["<"], 0
    for field in _ORDER:
        place = PLACES[field.name]
        parts.append(f"{place - at}x{_CODES[field.size]}")
        at = place + field.size
    return struct.Struct("".join(parts))


_ALL = _format()
_NAMES = tuple(field.name for field in _ORDER)


class RegionError(ValueError):
    """Bytes that are no VMCS region of the public layout."""


class VmcsState:
    """The values of all fields, as attributes by field name."""

    def __init__(self, values: dict[str, int]) -> None:
        self.__dict__ = values

    def __getattr__(self, name: str) -> int:
        raise AttributeError(f"no VMCS field {name}")

    def __getitem__(self, name: str) -> int:
        value: int = self.__dict__[name]
        return value

    def replace(self, values: dict[str, int]) -> VmcsState:
        """A copy with other values; ValueError for unknown names and values too wide."""
        for name, value in values.items():
            if name not in BY_NAME:
                raise ValueError(f"no VMCS field {name}")
            if value < 0 or value >> 8 * BY_NAME[name].size:
                raise ValueError(f"{name}: {value:#x} has more than {8 * BY_NAME[name].size} bits")
        return VmcsState({**self.__dict__, **values})

    def values(self) -> dict[str, int]:
        """Field values by name."""
        return dict(self.__dict__)


ZERO_STATE = VmcsState(dict.fromkeys(_NAMES, 0))


class Vmcs:
    """The VMCS region at ``address`` in ``memory``."""

    def __init__(self, memory: Memory, address: int) -> None:
        self._memory = memory
        self.address = address

    @property
    def revision(self) -> VmcsRevision:
        """The first four bytes."""
        return VmcsRevision(get_number(self._memory, self.address, 4))

    @property
    def launched(self) -> bool:
        """Whether the launch state is "launched"; anything but clear counts as that."""
        return get_number(self._memory, self.address + LAUNCH_STATE, 4) != CLEAR

    @launched.setter
    def launched(self, launched: bool) -> None:
        state = LAUNCHED if launched else CLEAR
        put_number(self._memory, self.address + LAUNCH_STATE, state, 4)

    def abort(self, code: int) -> None:
        """Store the abort indicator (27.7)."""
        put_number(self._memory, self.address + 4, code, 4)

    def read(self, field: Field) -> int:
        """The value of a field."""
        return get_number(self._memory, self.address + PLACES[field.name], field.size)

    def write(self, field: Field, value: int) -> None:
        """Store the low bits of ``value`` in a field, as many as it has."""
        put_number(self._memory, self.address + PLACES[field.name], value, field.size)

    def state(self) -> VmcsState:
        """All fields at once."""
        return unpack(get(self._memory, self.address, _ALL.size))

    def store(self, values: dict[str, int]) -> None:
        """Store fields by name."""
        for name, value in values.items():
            self.write(BY_NAME[name], value)


def unpack(data: bytes) -> VmcsState:
    """All fields of a region, of which at least the bytes with fields are given."""
    return VmcsState(dict(zip(_NAMES, _ALL.unpack_from(data), strict=True)))


def pack(state: VmcsState, *, revision: int = REVISION, launched: bool = False) -> bytes:
    """A whole region with these fields."""
    region = bytearray(REGION_SIZE)
    region[: _ALL.size] = _ALL.pack(*(state[name] for name in _NAMES))
    region[:4] = revision.to_bytes(4, "little")
    region[LAUNCH_STATE : LAUNCH_STATE + 4] = int(launched).to_bytes(4, "little")
    return bytes(region)


def parse_region(data: bytes) -> VmcsState:
    """The fields of a region from a file; RegionError says what else it is."""
    if len(data) < 4:
        raise RegionError(f"{len(data)} bytes: a VMCS region has {REGION_SIZE}")
    revision = VmcsRevision.unpack(data[:4]).revision
    if revision != REVISION:
        raise RegionError(
            f"VMCS revision {revision:#x}: only the layout of revision {REVISION:#x} (KVM's "
            "vmcs12) is known; those of processors are not public"
        )
    if len(data) != REGION_SIZE:
        raise RegionError(f"{len(data)} bytes: a VMCS region of this revision has {REGION_SIZE}")
    return unpack(data)
