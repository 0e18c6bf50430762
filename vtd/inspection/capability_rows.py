"""Capability registers as JSON values and as lines of text: fields, contradictions, differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

from vtd.inspection.register_listings import OLDEST, ListedUnit
from vtd.numbers import parse_hexadecimal
from vtd.rows import Hex
from vtd.unit.registers.capabilities import Capabilities

MAX_HOST_WIDTH = 52


def listed_pairs(values: Sequence[str]) -> list[ListedUnit]:
    """The units whose CAP_REG and ECAP_REG these are in turn; ValueError if they are not."""
    numbers = [parse_hexadecimal(value) for value in values]
    if len(numbers) % 2:
        raise ValueError("every CAP needs an ECAP")
    return [
        ListedUnit("", None, OLDEST, cap, ecap)
        for cap, ecap in zip(numbers[::2], numbers[1::2], strict=True)
    ]


def capabilities_of(
    cap: int, ecap: int, host_width: int | None, version: int = 0x10
) -> Capabilities:
    """From register values; ``host_width`` None is the widest that MGAW does not contradict."""
    if host_width is None:
        widest = Capabilities.of(version, cap, ecap, MAX_HOST_WIDTH)
        host_width = max(12, min(widest.max_guest_address_width, MAX_HOST_WIDTH))
    return Capabilities.of(version, cap, ecap, host_width)


class Decoded(NamedTuple):
    """A unit, what to call it, and what there is to say about it."""

    name: str
    unit: Capabilities

    @classmethod
    def of(
        cls, listed: ListedUnit, version: int | None = None, host_width: int | None = None
    ) -> Decoded:
        """A listed unit; ``version`` is VER_REG where the listing's does not count."""
        number = listed.version if version is None else version
        return cls(listed.name, capabilities_of(listed.cap, listed.ecap, host_width, number))

    @property
    def fields(self) -> dict[str, Any]:
        """Values by name of the register and the field."""
        return _fields(self.unit)

    @property
    def contradictions(self) -> list[str]:
        return self.unit.contradictions()

    @property
    def notes(self) -> list[str]:
        return [*self.unit.remnants(), *self.unit.consequences()]


def capabilities_row(units: list[Decoded]) -> dict[str, Any]:
    """Every unit, and the names of the fields in which they differ, as JSON values."""
    return {"units": list(map(_row, units)), "differ": _differing(units)}


def _differing(units: list[Decoded]) -> list[str]:
    return [name for name in units[0].fields if len({str(each.fields[name]) for each in units}) > 1]


def _row(each: Decoded) -> dict[str, Any]:
    return {
        "name": each.name,
        "cap": Hex(each.unit.cap),
        "ecap": Hex(each.unit.ecap),
        "fields": {name: int(value) for name, value in each.fields.items()},
        "contradictions": each.contradictions,
        "notes": each.notes,
    }


def _fields(unit: Capabilities) -> dict[str, Any]:
    return {
        **{f"CAP.{name.upper()}": value for name, value in unit.cap.fields().items()},
        **{f"ECAP.{name.upper()}": value for name, value in unit.ecap.fields().items()},
    }


def capability_lines(units: list[Decoded]) -> Iterator[str]:
    """The same in lines of text."""
    differing = _differing(units)
    for each in units:
        name = f"{each.name}: " if each.name else ""
        yield f"{name}CAP {each.unit.cap:#018x} ECAP {each.unit.ecap:#018x}"
        yield from (f"  {line}" for line in _summary(each.unit))
        if len(units) == 1:
            yield from (f"  {name:14} {_text(value)}" for name, value in each.fields.items())
    if len(units) > 1:
        yield "differ in: " + (", ".join(differing) or "nothing")
        for field in differing:
            yield f"  {field:14} " + " | ".join(_text(each.fields[field]) for each in units)
    for number, each in enumerate(units, 1):
        where = f"unit {number}: " if len(units) > 1 else ""
        yield from (f"contradiction: {where}{text}" for text in each.contradictions)
        yield from (f"note: {where}{text}" for text in each.notes)


def _summary(unit: Capabilities) -> Iterator[str]:
    """What the fields come to, for people."""
    features = unit.features
    widths = ", ".join(str(30 + 9 * code) for code in sorted(unit.address_widths))
    pages = ["4 KiB"] + [
        size for name, size in (("sslps_2m", "2 MiB"), ("sslps_1g", "1 GiB")) if name in features
    ]
    modes = ["legacy"] + (["scalable"] if "smts" in features else [])
    yield f"modes: {', '.join(modes)}; pass-through: {'yes' if 'pt' in features else 'no'}"
    second = f"{widths} bits, pages of {', '.join(pages)}" if widths else "none"
    yield f"second stage: {second}"
    if "fsts" in features:
        yield f"first stage: {'48 and 57' if 'fs5lp' in features else '48'} bits"
    yield f"guest address width {unit.max_guest_address_width}, domain-ids of {unit.did_width} bits"
    yield (
        f"{unit.fault_records} fault records at {unit.fault_recording_offset:#x}, "
        f"IOTLB registers at {unit.iotlb_offset:#x}"
    )


def _text(value: Any) -> str:
    if isinstance(value, IntEnum | IntFlag) and value.name:
        return f"{int(value)} ({value.name})"
    return f"{value:#x}" if value > 9 else str(int(value))
