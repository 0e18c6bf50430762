"""How a VPD looks: lines of text, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pagetables.bits import BitRecord
from vtd.commands.show_guest import record_text
from vtd.guest.itanium.interrupts import VHPI_EXTINT, VHPI_NMI
from vtd.guest.itanium.registers import Cpuid3, Cr, Psr, RegionRegister, Tpr
from vtd.guest.itanium.vpd import PARTS, Vac, Vdc

RECORDS: dict[tuple[str, int], type[BitRecord]] = {
    ("vac", 0): Vac,
    ("vdc", 0): Vdc,
    ("vpsr", 0): Psr,
    ("vcpuid", 3): Cpuid3,
    ("vcr", Cr.IPSR): Psr,
    ("vcr", Cr.TPR): Tpr,
    **{("vrr", number): RegionRegister for number in range(8)},
}
"""Quadwords that are records."""
Fields = Mapping[str, "int | list[int]"]


def vpd_lines(fields: Fields, remarks: Sequence[str]) -> Iterator[str]:
    """Fields that are not 0, with offset and meaning, then the remarks."""
    shown = False
    for name, index, value in _quadwords(fields):
        if value:
            shown = True
            offset = PARTS[name].offset + 8 * index
            label = name if not isinstance(fields[name], list) else _label(name, index)
            yield f"{offset:5}  {label:16} {value:#018x}{_meaning(name, index, value)}"
    if not shown:
        yield "every field is 0: a VPD that nobody has set up"
    for remark in remarks:
        yield f"remark: {remark}"


def vpd_json(fields: Fields, remarks: Sequence[str]) -> dict[str, Any]:
    """The same as JSON: registers as hexadecimal strings, control words bit by bit."""
    document: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, int):
            document[name] = hex(value)
        elif name == "vcr":
            document[name] = {_name(number): hex(each) for number, each in enumerate(value) if each}
        else:
            document[name] = [hex(each) for each in value]
    for name, record in (("vac", Vac), ("vdc", Vdc), ("vpsr", Psr)):
        word = fields[name]
        assert isinstance(word, int)  # a single quadword
        document[f"{name}_bits"] = {
            bit.rstrip("_"): int(each) for bit, each in record(word).fields().items()
        }
    document["remarks"] = list(remarks)
    return document


def _quadwords(fields: Fields) -> Iterator[tuple[str, int, int]]:
    for name, value in fields.items():
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            yield name, index, each


def _label(name: str, index: int) -> str:
    if name == "vcr":
        return f"vcr.{_name(index)}"
    return f"{name}[{index}]" if name not in ("vgr", "vbgr") else f"{name}.r{16 + index}"


def _name(number: int) -> str:
    return Cr(number).name.lower() if number in set(Cr) else f"cr{number}"


def _meaning(name: str, index: int, value: int) -> str:
    if name == "vhpi":
        return f"  {_pending(value)}"
    record = RECORDS.get((name, index))
    return "" if record is None else f"  {record_text(record(value))}"


def _pending(value: int) -> str:
    known = {VHPI_EXTINT: "ExtINT", VHPI_NMI: "NMI"}
    if value in known:
        return known[value]
    return f"vectors {value << 4:#x} to {value << 4 | 15:#x}" if value < 16 else "no interrupt"
