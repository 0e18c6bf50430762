"""The records of a DMAR table: layouts declared once, decoded and rebuilt without loss.

Models VT-d chapter 8, "BIOS Considerations", revision 5.10: the table header, the seven structure
types and the device scope entry. A field annotation carries the construct codec of the field, so
the order of the annotations is the layout. Whatever a record can't name is kept as bytes. Judging
the values is left to :mod:`vtd.dmar.rules`, walking the table to :mod:`vtd.dmar.table`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, NamedTuple, Self, get_type_hints

from construct import Bytes, BytesInteger, GreedyBytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from pagetables.bits import BitRecord, Bits

U8 = Annotated[int, Int8ul]
U16 = Annotated[int, Int16ul]
U24 = Annotated[int, BytesInteger(3, swapped=True)]
U32 = Annotated[int, Int32ul]
U64 = Annotated[int, Int64ul]

ACPI_HEADER = 36
"""Bytes of the header common to all ACPI tables."""
FIXED_PART = 48
"""Bytes of the table before the first structure (8.1)."""
STRUCTURE_HEADER = 4
"""Bytes of Type and Length in front of every structure (8.2)."""
SCOPE_HEADER = 6
"""Bytes of a device scope entry before its path (8.3.1)."""


class Place(NamedTuple):
    """A run of bytes of the table: offset of the first one, and how many."""

    offset: int
    length: int


class HeaderFlags(BitRecord, width=8):
    """Flags of the table (8.1)."""

    intr_remap = Bits(0, as_=bool)
    x2apic_opt_out = Bits(1, as_=bool)
    dma_ctrl_platform_opt_in = Bits(2, as_=bool)


class DrhdFlags(BitRecord, width=8):
    """Flags of a remapping unit (8.3)."""

    include_pci_all = Bits(0, as_=bool)


class DrhdSize(BitRecord, width=8):
    """Size byte of a remapping unit (8.3); a reserved byte before revision 4.0."""

    n = Bits(3, 0)  # the register set is 2^N pages of 4 KiB


class AtsrFlags(BitRecord, width=8):
    """Flags of a root port ATS capability structure (8.5)."""

    all_ports = Bits(0, as_=bool)


class SatcFlags(BitRecord, width=8):
    """Flags of an SoC integrated address translation cache structure (8.8)."""

    atc_required = Bits(0, as_=bool)


class SidpFlags(BitRecord, width=8):
    """Flags of a device scope entry inside an SIDP structure (8.3.1)."""

    req_wo_pasid_nested_notallowed = Bits(0, as_=bool)
    req_wo_pasid_pwsnp_notallowed = Bits(1, as_=bool)
    req_wo_pasid_pgsnp_notallowed = Bits(2, as_=bool)
    atc_hardened = Bits(3, as_=bool)
    atc_required = Bits(4, as_=bool)


class Record:
    """Fields with a codec in their annotation, in the order of the table."""

    HEADER: ClassVar[int] = 0
    """Bytes of the record in front of the first field."""
    offset: int

    @classmethod
    @functools.cache
    def layout(cls) -> Struct:
        """The construct layout of the fields."""
        codecs = ((name, _codec(hint)) for name, hint in _hints(cls).items())
        return Struct(*(name / codec for name, codec in codecs if codec is not None)).compile()

    @classmethod
    @functools.cache
    def field_places(cls) -> dict[str, Place]:
        """Where each field of fixed size lies, counted from the start of the record."""
        places = {}
        position = cls.HEADER
        for name, hint in _hints(cls).items():
            codec = _codec(hint)
            if codec is None or codec is GreedyBytes:
                continue
            places[name] = Place(position, codec.sizeof())
            position += codec.sizeof()
        return places

    @classmethod
    @functools.cache
    def fixed_length(cls) -> int:
        """Bytes up to the end of the last field of fixed size."""
        return cls.HEADER + sum(place.length for place in cls.field_places().values())

    @classmethod
    @functools.cache
    def defaults(cls) -> dict[str, Any]:
        """Values of the attributes that need not be given."""
        return {each.name: each.default for each in fields(cls)}  # type: ignore[arg-type]

    @property
    def length(self) -> int:
        """Bytes of the whole record."""
        return self.fixed_length()

    def place(self, name: str | None = None) -> Place:
        """Where the record, or one field of it, lies in the table."""
        if name is None:
            return Place(self.offset, self.length)
        position, length = self.field_places()[name]
        return Place(self.offset + position, length)

    def fields(self) -> dict[str, Any]:
        """Values of the fields by name, in table order."""
        return {name: getattr(self, name) for name in self.field_places()}

    def pack_fields(self) -> bytes:
        """The bytes of the fields."""
        built: bytes = self.layout().build(vars(self))
        return built


def _hints(cls: type[Record]) -> dict[str, Any]:
    """The annotations of the class itself, in order."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in cls.__annotations__}


def _codec(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, BitRecord):
        return hint.codec
    return hint.__metadata__[0] if hasattr(hint, "__metadata__") else None


def _read(layout: Struct, data: bytes) -> dict[str, Any]:
    values = layout.parse(data)
    return {name: values[name] for name in values if name != "_io"}


@dataclass(frozen=True, kw_only=True)
class Header(Record):
    """The fixed part of the table (8.1), 48 bytes."""

    signature: Annotated[bytes, Bytes(4)] = b"DMAR"
    table_length: U32 = FIXED_PART
    revision: U8 = 1
    checksum: U8 = 0
    oem_id: Annotated[bytes, Bytes(6)] = bytes(6)
    oem_table_id: Annotated[bytes, Bytes(8)] = bytes(8)
    oem_revision: U32 = 0
    creator_id: Annotated[bytes, Bytes(4)] = bytes(4)
    creator_revision: U32 = 0
    host_address_width: U8 = 38  # N: addresses have N+1 bits
    flags: HeaderFlags = field(default=HeaderFlags(0))
    reserved: Annotated[bytes, Bytes(10)] = bytes(10)
    offset: int = field(default=0, compare=False)

    @property
    def address_bits(self) -> int:
        """Host address width in bits, one more than the stored value."""
        return self.host_address_width + 1

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The header in the first 48 bytes of ``data``."""
        return cls(**_read(cls.layout(), data))


class Hop(NamedTuple):
    """One pair of a device scope path."""

    device: int
    function: int


@dataclass(frozen=True, kw_only=True)
class DeviceScope(Record):
    """One device scope entry (8.3.1)."""

    PCI_ENDPOINT: ClassVar[int] = 1
    PCI_SUB_HIERARCHY: ClassVar[int] = 2
    IOAPIC: ClassVar[int] = 3
    MSI_CAPABLE_HPET: ClassVar[int] = 4
    ACPI_NAMESPACE_DEVICE: ClassVar[int] = 5
    NAMES: ClassVar[dict[int, str]] = {
        PCI_ENDPOINT: "pci_endpoint",
        PCI_SUB_HIERARCHY: "pci_sub_hierarchy",
        IOAPIC: "ioapic",
        MSI_CAPABLE_HPET: "msi_hpet",
        ACPI_NAMESPACE_DEVICE: "acpi_namespace",
    }

    type: U8
    entry_length: U8  # 6 and the bytes of the path
    flags: U8 = 0
    reserved: U8 = 0
    enumeration_id: U8 = 0
    start_bus: U8 = 0
    path_bytes: Annotated[bytes, GreedyBytes] = b""
    offset: int = field(default=0, compare=False)

    @classmethod
    def of(cls, type: int, path: tuple[tuple[int, int], ...], **fields: int) -> Self:
        """An entry for a path of (device, function) pairs, its length filled in.

        ValueError for a number above 255, or more pairs than the 124 that fit.
        """
        path_bytes = bytes(number for hop in path for number in hop)
        length = SCOPE_HEADER + len(path_bytes)
        if length > 0xFF:
            raise ValueError(f"path: {len(path)} pairs do not fit a scope entry")
        return cls(type=type, entry_length=length, path_bytes=path_bytes, **fields)

    @property
    def length(self) -> int:
        return SCOPE_HEADER + len(self.path_bytes)

    @functools.cached_property
    def path(self) -> tuple[Hop, ...]:
        """The whole (device, function) pairs; an odd last byte is left out."""
        return tuple(map(Hop, self.path_bytes[::2], self.path_bytes[1::2]))

    @property
    def location(self) -> tuple[int, tuple[Hop, ...]]:
        """Start bus and path: within a segment, entries of one device have the same."""
        return self.start_bus, self.path

    @property
    def is_pci(self) -> bool:
        """Whether the entry names PCI functions: an endpoint or a sub-hierarchy."""
        return self.type in (self.PCI_ENDPOINT, self.PCI_SUB_HIERARCHY)

    @property
    def type_name(self) -> str:
        """The kind of device, ``reserved_N`` for a type the specification does not define."""
        return self.NAMES.get(self.type, f"reserved_{self.type}")

    @property
    def sidp(self) -> SidpFlags:
        """The flags as an SIDP structure means them."""
        return SidpFlags(self.flags)

    def pack(self) -> bytes:
        """The entry as stored."""
        return self.pack_fields()

    def __str__(self) -> str:
        path = "/".join(f"{device:02x}.{function:x}" for device, function in self.path)
        return f"{self.type_name} {self.start_bus:02x}:{path}"


@dataclass(frozen=True, kw_only=True)
class Structure(Record):
    """A remapping structure: Type and Length (8.2), fixed fields, then what :attr:`tail` keeps."""

    HEADER: ClassVar[int] = STRUCTURE_HEADER
    TYPE: ClassVar[int]
    NAME: ClassVar[str]

    tail: bytes = b""
    """Bytes after the fixed fields that no record describes."""
    offset: int = field(default=0, compare=False)

    @property
    def type(self) -> int:
        """The number in the Type field."""
        return self.TYPE

    @property
    def name(self) -> str:
        """The abbreviation of the specification, such as DRHD."""
        return self.NAME

    @property
    def length(self) -> int:
        return self.fixed_length() + len(self.tail)

    @property
    def scopes(self) -> tuple[DeviceScope, ...]:
        """Device scope entries, empty for structures that have none."""
        return ()

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> Self:
        """The structure in ``data``, which is all of it; it lies at ``offset`` of the table."""
        fixed = cls.fixed_length()
        fields = _read(cls.layout(), data[STRUCTURE_HEADER:fixed])
        return cls(**fields, **cls.unpack_body(data, offset), offset=offset)

    @classmethod
    def unpack_body(cls, data: bytes, offset: int) -> dict[str, Any]:
        """The parts after the fixed fields, by attribute name."""
        return {"tail": data[cls.fixed_length() :]}

    def pack_body(self) -> bytes:
        """The bytes after the fixed fields."""
        return self.tail

    def pack(self) -> bytes:
        """The structure as stored, its Length computed from its parts."""
        header = self.type.to_bytes(2, "little") + self.length.to_bytes(2, "little")
        return header + self.pack_fields() + self.pack_body()


@dataclass(frozen=True, kw_only=True)
class ScopedStructure(Structure):
    """A structure that ends in device scope entries; :attr:`tail` is what follows the last one."""

    segment: int = 0
    """PCI segment of the devices; each kind of structure stores it in its own place."""
    scopes: tuple[DeviceScope, ...] = ()

    @property
    def length(self) -> int:
        return self.fixed_length() + sum(entry.length for entry in self.scopes) + len(self.tail)

    @property
    def tail_place(self) -> Place:
        """Where the bytes lie that are no scope entry."""
        return Place(self.offset + self.length - len(self.tail), len(self.tail))

    @classmethod
    def unpack_body(cls, data: bytes, offset: int) -> dict[str, Any]:
        position = cls.fixed_length()
        entries = []
        for entry in _scope_entries(data, position, offset):
            entries.append(entry)
            position += entry.length
        return {"scopes": tuple(entries), "tail": data[position:]}

    def pack_body(self) -> bytes:
        return b"".join(entry.pack() for entry in self.scopes) + self.tail


def _scope_entries(data: bytes, position: int, offset: int) -> Iterator[DeviceScope]:
    """Entries from ``position`` to the end, or to the first one without a usable length."""
    parse = DeviceScope.layout().parse
    while position + SCOPE_HEADER <= len(data):
        end = position + data[position + 1]
        if not position + SCOPE_HEADER <= end <= len(data):
            return
        values = parse(data[position:end])
        yield DeviceScope(
            type=values.type,
            entry_length=values.entry_length,
            flags=values.flags,
            reserved=values.reserved,
            enumeration_id=values.enumeration_id,
            start_bus=values.start_bus,
            path_bytes=values.path_bytes,
            offset=offset + position,
        )
        position = end


@dataclass(frozen=True, kw_only=True)
class Drhd(ScopedStructure):
    """DMA remapping hardware unit definition (8.3)."""

    TYPE: ClassVar[int] = 0
    NAME: ClassVar[str] = "DRHD"

    flags: DrhdFlags = field(default=DrhdFlags(0))
    size: DrhdSize = field(default=DrhdSize(0))
    segment: U16 = 0
    register_base: U64 = 0

    @property
    def register_bytes(self) -> int:
        """Bytes of the register set."""
        return 0x1000 << self.size.n

    @property
    def register_end(self) -> int:
        """First address after the register set."""
        return self.register_base + self.register_bytes


@dataclass(frozen=True, kw_only=True)
class Rmrr(ScopedStructure):
    """Reserved memory region reporting (8.4)."""

    TYPE: ClassVar[int] = 1
    NAME: ClassVar[str] = "RMRR"

    reserved: U16 = 0
    segment: U16 = 0
    base: U64 = 0
    limit: U64 = 0

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.limit + 1


@dataclass(frozen=True, kw_only=True)
class Atsr(ScopedStructure):
    """Root port ATS capability reporting (8.5)."""

    TYPE: ClassVar[int] = 2
    NAME: ClassVar[str] = "ATSR"

    flags: AtsrFlags = field(default=AtsrFlags(0))
    reserved: U8 = 0
    segment: U16 = 0


@dataclass(frozen=True, kw_only=True)
class Rhsa(Structure):
    """Remapping hardware static affinity (8.6)."""

    TYPE: ClassVar[int] = 3
    NAME: ClassVar[str] = "RHSA"

    reserved: U32 = 0
    register_base: U64 = 0
    proximity_domain: U32 = 0


def padded_name(name: str) -> str:
    """An object name with every segment padded to four characters, as ACPI compares them."""
    segments = name.removeprefix("\\").split(".")
    return "\\" + ".".join(segment.ljust(4, "_") for segment in segments)


@dataclass(frozen=True, kw_only=True)
class Andd(Structure):
    """ACPI name-space device declaration (8.7); :attr:`tail` is the name with its padding."""

    TYPE: ClassVar[int] = 4
    NAME: ClassVar[str] = "ANDD"

    reserved: U24 = 0
    device_number: U8 = 0

    @property
    def terminator(self) -> int | None:
        """Position of the NUL in the name, None if there is none."""
        position = self.tail.find(0)
        return None if position < 0 else position

    @property
    def object_name(self) -> str:
        """The name up to its NUL; bytes that are no printable ASCII as escapes."""
        name = self.tail[: self.terminator]
        return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in name)

    @property
    def name_place(self) -> Place:
        """Where the name with its padding lies."""
        return Place(self.offset + self.fixed_length(), len(self.tail))


@dataclass(frozen=True, kw_only=True)
class Satc(ScopedStructure):
    """SoC integrated address translation cache reporting (8.8)."""

    TYPE: ClassVar[int] = 5
    NAME: ClassVar[str] = "SATC"

    flags: SatcFlags = field(default=SatcFlags(0))
    reserved: U8 = 0
    segment: U16 = 0


@dataclass(frozen=True, kw_only=True)
class Sidp(ScopedStructure):
    """SoC integrated device property reporting (8.9)."""

    TYPE: ClassVar[int] = 6
    NAME: ClassVar[str] = "SIDP"

    reserved: U16 = 0
    segment: U16 = 0


@dataclass(frozen=True, kw_only=True)
class Undecoded(Structure):
    """A structure of a reserved type, or too short for its type; :attr:`tail` is its payload."""

    number: int

    @property
    def type(self) -> int:
        return self.number

    @property
    def name(self) -> str:
        kind = STRUCTURES.get(self.number)
        return kind.NAME if kind else "unknown"


STRUCTURES: dict[int, type[Structure]] = {
    kind.TYPE: kind for kind in (Drhd, Rmrr, Atsr, Rhsa, Andd, Satc, Sidp)
}
"""The record of each structure type."""


def unpack_structure(data: bytes, offset: int = 0) -> Structure:
    """The record for a whole structure in ``data`` (at least its header), at ``offset``."""
    number = int.from_bytes(data[:2], "little")
    kind = STRUCTURES.get(number)
    if kind is None or len(data) < kind.fixed_length():
        return Undecoded(number=number, tail=data[STRUCTURE_HEADER:], offset=offset)
    return kind.unpack(data, offset)
