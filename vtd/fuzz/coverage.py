"""What a campaign reached, and what it never did: descriptors, requests and fields of registers.

Descriptors by granularity, mode and outcome; requests by sort, mode and outcome; each field of each
register by how it was accessed. What can't be, such as a PASID in legacy mode, is not listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from devices.dma import (
    ATOMIC,
    EXECUTE_REQUESTED,
    WRITE,
    AddressType,
    Completion,
    PageRequest,
    Request,
)
from pagetables.bits import Access, BitRecord
from pagetables.observer import Structure
from vtd.auditing.reached import GRANULARITIES
from vtd.layouts.descriptors import (
    DESCRIPTORS,
    VALID_TYPES,
    ContextCacheInvalidateDescriptor,
    Descriptor,
    DescriptorType,
    DeviceTlbInvalidateDescriptor,
    HostPermissionInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    InterruptGranularity,
    InvalidationWaitDescriptor,
    IotlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
    type_of,
)
from vtd.layouts.registers import (
    ContextGranularity,
    FaultStatus,
    GlobalStatus,
    Register,
    TranslationTableMode,
)
from vtd.unit.implementation import implementation_registers
from vtd.unit.observer import Observer
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.register_map import REGISTERS, register_map
from vtd.unit.unit import RemappingUnit

DONE, REFUSED = "carried out", "refused"
OFF = "off"


class Encounter(NamedTuple):
    """One situation: what, in which form, in which mode, and what became of it."""

    sort: str
    """descriptor, request or register."""
    what: str
    how: str
    mode: str = ""
    outcome: str = ""


class Encounters(Observer):
    """Counts into ``reached`` what ``unit`` meets from now on; :meth:`end` adds the registers."""

    def __init__(self, unit: RemappingUnit, reached: Counter[Encounter]) -> None:
        self._unit = unit
        self._reached = reached
        self._descriptor: tuple[int, int] | None = None
        self._request: tuple[str, str] | None = None
        self._read: dict[int, int] = {}
        self._ones: dict[int, int] = {}
        self._zeros: dict[int, int] = {}
        unit.observe(self)

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """A descriptor is fetched."""
        if structure is Structure.QUEUE_DESCRIPTOR:
            self._descriptor = value, size * 8

    def invalidated(self, command: BitRecord) -> None:
        """The descriptor was carried out."""
        if self._descriptor is not None:
            self._note_descriptor(DONE)

    def begin(self, request: Request) -> None:
        """A request has arrived."""
        self._request = _sort_of(request), self._mode

    def fault(self, request: Request, reason: object) -> None:
        """It met a fault."""
        self._note_request(REFUSED)

    def answered(self, request: Request, answer: int | Completion) -> None:
        """It has its answer."""
        fine = not isinstance(answer, Completion) or answer.ok
        self._note_request(DONE if fine else REFUSED)

    def register_read(self, offset: int, size: int, value: int) -> None:
        """Bits that software has read."""
        self._add(self._read, offset, size, (1 << 64) - 1)

    def register_written(self, offset: int, size: int, value: int) -> None:
        """Bits that software has written; a descriptor that stopped the queue was refused."""
        self._add(self._ones, offset, size, value)
        self._add(self._zeros, offset, size, ~value)
        if self._descriptor is not None and self._unit.registers[FaultStatus].iqe:
            self._note_descriptor(REFUSED)

    def end(self) -> None:
        """The unit is used no more: which fields were accessed."""
        for register, start, number in _places(self._unit.capabilities):
            width = register.WIDTH // 8
            bits = [_gathered(seen, start, width) for seen in (self._read, self._ones, self._zeros)]
            if number or not any(bits):
                continue
            for name, field in register.FIELDS.items():
                for access, seen in zip(ACCESSES, bits, strict=True):
                    if field.mask & seen:
                        self._reached[Encounter("register", register.__name__, name, access)] += 1

    @property
    def _mode(self) -> str:
        on = self._unit.registers[GlobalStatus].tes
        return self._unit.remapping.mode.name.lower() if on else OFF

    def _note_descriptor(self, outcome: str) -> None:
        assert self._descriptor is not None
        (value, width), self._descriptor = self._descriptor, None
        kind = type_of(value & (1 << 128) - 1)
        if kind not in DESCRIPTORS:
            return
        record = DESCRIPTORS[DescriptorType(kind)]
        mode = f"{self._unit.remapping.mode.name.lower()} {width}"
        for how in forms_of(record(value & (1 << record.WIDTH) - 1)):
            self._reached[Encounter("descriptor", _name(record), how, mode, outcome)] += 1

    def _note_request(self, outcome: str) -> None:
        if self._request is not None:
            (sort, mode), self._request = self._request, None
            self._reached[Encounter("request", sort, "", mode, outcome)] += 1

    @staticmethod
    def _add(seen: dict[int, int], offset: int, size: int, value: int) -> None:
        for byte in range(0, size, 4):
            word = value >> 8 * byte & 0xFFFF_FFFF
            seen[offset + byte] = seen.get(offset + byte, 0) | word


ACCESSES = "read", "written 1", "written 0"


def never(reached: Counter[Encounter]) -> list[Encounter]:
    """What could be reached and was not."""
    return [each for each in _possible() if each not in reached]


def possible() -> int:
    """How many situations there are."""
    return len(list(_possible()))


@lru_cache(maxsize=64)
def _places(unit: Capabilities) -> tuple[tuple[type[Register], int, int], ...]:
    places = register_map(unit.features, unit.cap, unit.ecap, implementation_registers(unit))
    return tuple((register, start, number) for (register, number), start in places.items())


def _gathered(seen: dict[int, int], start: int, width: int) -> int:
    return sum(seen.get(start + byte, 0) << 8 * byte for byte in range(0, width, 4))


def _possible() -> Iterator[Encounter]:
    for (mode, width), kinds in VALID_TYPES.items():
        if (mode, width) == (TranslationTableMode.LEGACY, 256):
            continue  # Table 26 allows it, and no software has a reason
        for kind in sorted(kinds):
            record = DESCRIPTORS[kind]
            for how in FORMS[record]:
                for outcome in (DONE, REFUSED):
                    yield Encounter(
                        "descriptor", _name(record), how, f"{mode.name.lower()} {width}", outcome
                    )
    for sort in SORTS:
        for how in ["scalable"] if sort in _SCALABLE_ONLY else ["legacy", "scalable", OFF]:
            for outcome in (DONE, REFUSED):
                if (sort, how, outcome) not in _IMPOSSIBLE:
                    yield Encounter("request", sort, "", how, outcome)
    for register in REGISTERS:
        for name, field in register.FIELDS.items():
            for access in ACCESSES if field.access is not Access.RO else ACCESSES[:1]:
                yield Encounter("register", register.__name__, name, access)


def _name(record: type[Descriptor]) -> str:
    return record.TYPE.name.lower()


def forms_of(descriptor: Descriptor) -> Iterator[str]:
    """Granularity, masks and flags of a descriptor, as :data:`FORMS` lists them."""
    fields = descriptor.fields()
    granularity = GRANULARITIES.get(type(descriptor))
    if granularity is not None:
        yield granularity(fields["g"]).name.lower()
    if "am" in fields and fields["g"] == 3:
        yield f"AM {_range_of(fields['am'])}"
        if fields["ih"]:
            yield "IH"
    if "fm" in fields and fields["g"] == ContextGranularity.DEVICE:
        yield f"FM {fields['fm']}"
    if "im" in fields and fields["g"] == InterruptGranularity.INDEX:
        yield f"IM {'0' if not fields['im'] else 'above 0'}"
    for flag in ("if_", "sw", "fn", "pd", "s", "pp", "dr", "dw"):
        if fields.get(flag):
            yield flag.strip("_").upper()
    if type(descriptor) in _PLAIN:
        yield "any"


def _range_of(mask: int) -> str:
    return next(name for name, last in _RANGES if mask <= last)


_RANGES = ("0", 0), ("1 to 8", 8), ("9 to 17", 17), ("18 and more", 63)
_PLAIN = (
    DeviceTlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PageGroupResponseDescriptor,
    InvalidationWaitDescriptor,
)
_PAGES = *(f"AM {name}" for name, _ in _RANGES), "IH"
_FLAGS: dict[type[Descriptor], tuple[str, ...]] = {
    ContextCacheInvalidateDescriptor: ("FM 0", "FM 1", "FM 2", "FM 3"),
    IotlbInvalidateDescriptor: (*_PAGES, "DR", "DW"),
    PasidIotlbInvalidateDescriptor: _PAGES,
    HostPermissionInvalidateDescriptor: _PAGES,
    InterruptEntryCacheInvalidateDescriptor: ("IM 0", "IM above 0"),
    InvalidationWaitDescriptor: ("any", "IF", "SW", "FN", "PD"),
    DeviceTlbInvalidateDescriptor: ("any", "S"),
    PasidDeviceTlbInvalidateDescriptor: ("any", "S"),
    PageGroupResponseDescriptor: ("any", "PP"),
}
FORMS: dict[type[Descriptor], tuple[str, ...]] = {
    record: (
        *(
            each.name.lower()
            for each in GRANULARITIES.get(record, ())
            if not each.name.startswith("RESERVED")
        ),
        *_FLAGS.get(record, ()),
    )
    for record in DESCRIPTORS.values()
}
"""What is told apart of each descriptor."""


def _sort_of(request: Request) -> str:
    """What kind of request it is, in words."""
    if isinstance(request.payload, PageRequest):
        return "page request"
    kind = {
        AddressType.UNTRANSLATED: "",
        AddressType.TRANSLATION_REQUEST: "translation request",
        AddressType.TRANSLATED: "translated ",
    }[request.address_type]
    pasid = "" if request.pasid is None else " with PASID"
    if request.address_type is AddressType.TRANSLATION_REQUEST:
        return kind + pasid
    if request.privileged:
        return f"{kind}privileged request"
    if request.access & EXECUTE_REQUESTED:
        return f"{kind}request to execute"
    if request.plain.access == ATOMIC:
        access = "atomic operation"
    elif not request.length:
        access = "zero-length read"
    else:
        access = "write" if request.access & WRITE else "read"
        if not kind and not pasid and request.address >> 20 == 0xFEE and access == "write":
            return "interrupt request"
    return kind + access + pasid


_SCALABLE_ONLY = {
    "page request", "privileged request", "request to execute", "translation request with PASID",
    "translated privileged request", "translated read with PASID", "translated write with PASID",
    "read with PASID", "write with PASID", "atomic operation with PASID",
    "zero-length read with PASID",
}  # fmt: skip
SORTS = (
    "read", "write", "atomic operation", "zero-length read", "translation request",
    "translated read", "translated write", "interrupt request", *sorted(_SCALABLE_ONLY),
)  # fmt: skip
_IMPOSSIBLE = {
    *((sort, OFF, REFUSED) for sort in ("atomic operation", "zero-length read")),
    *((sort, OFF, DONE) for sort in ("translation request", "translated read", "translated write")),
}
"""With remapping off: memory is reached at once, and device-TLBs are not served (4.2)."""
