"""Tables as FreeBSD and edk2 print their fields: what is printed is what the table has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.dmar_corpus import clean_tables
from vtd.dmar.inputs import find_tables
from vtd.dmar.records import (
    Andd,
    Atsr,
    AtsrFlags,
    DeviceScope,
    Drhd,
    DrhdFlags,
    Header,
    HeaderFlags,
    Rhsa,
    Rmrr,
    Satc,
    Sidp,
    Structure,
)
from vtd.dmar.table import Table, TableError

GRAPHICS = DeviceScope.of(DeviceScope.PCI_ENDPOINT, ((2, 0),))
BEHIND = DeviceScope.of(DeviceScope.PCI_SUB_HIERARCHY, ((0x1C, 4), (0, 1)), start_bus=0x80)
IOAPIC = DeviceScope.of(DeviceScope.IOAPIC, ((0x1E, 7),), enumeration_id=2, start_bus=0xF0)
NAMED = DeviceScope.of(DeviceScope.ACPI_NAMESPACE_DEVICE, ((0x15, 0),), enumeration_id=1)
STRUCTURES: tuple[Structure, ...] = (
    Drhd(register_base=0xFED90000, scopes=(GRAPHICS,)),
    Drhd(flags=DrhdFlags(1), segment=1, register_base=0x1_FED9_1000, scopes=(IOAPIC, NAMED)),
    Rmrr(base=0x7B000000, limit=0x7F7FFFFF, scopes=(GRAPHICS, BEHIND)),
    Atsr(flags=AtsrFlags(1), segment=1),
    Rhsa(register_base=0xFED90000, proximity_domain=1),
)
LATER: tuple[Structure, ...] = (
    Andd(device_number=1, tail=b"\\_SB.PCI0.I2C0\0"),
    Satc(segment=1, scopes=(GRAPHICS,)),
    Sidp(scopes=(replace(GRAPHICS, flags=3),)),
)
"""Structures that FreeBSD does not print."""
HEADER = Header(
    oem_id=b"ACME  ", oem_table_id=b"BOARD   ", oem_revision=3, creator_id=b"INTL",
    creator_revision=0x20250404, host_address_width=38, flags=HeaderFlags(3),
)  # fmt: skip
TABLE = Table(HEADER, STRUCTURES).sealed()
SCOPES = {1: "PCI Endpoint Device", 2: "PCI Sub-Hierarchy", 3: "IOAPIC", 4: "HPET"}


def freebsd(table: Table) -> str:
    """The text of ``acpidump -t``, with another table before it."""
    header = table.header
    names = [
        each.rstrip(b" \0").decode()
        for each in (header.oem_id, header.oem_table_id, header.creator_id)
    ]
    lines = [
        "/*", "  FACP: Length=40, Revision=1, Checksum=3,", "\tFlags={WBINVD}", " */",
        "/*",
        f"  DMAR: Length={header.table_length}, Revision=1, Checksum={header.checksum},",
        f"\tOEMID={names[0]}, OEM Table ID={names[1]}, OEM Revision=0x{header.oem_revision:x},",
        f"\tCreator ID={names[2]}, Creator Revision=0x{header.creator_revision:x}",
        f"\tHost Address Width={header.address_bits}",
        f"\tFlags={braces(header.flags, 'INTR_REMAP', 'X2APIC_OPT_OUT')}",
    ]  # fmt: skip
    for each in table.structures:
        lines += ["", *(f"\t{line}" for line in freebsd_structure(each))]
        scopes = each.scopes if each.type < Andd.TYPE else ()
        if scopes:
            lines.append("\tDevice Scope:")
        for entry in scopes:
            path = ",".join(f"{device}:{function}" for device, function in entry.path)
            lines += [
                "", f"\t\tType={SCOPES.get(entry.type, entry.type)}", f"\t\tLength={entry.length}",
                f"\t\tEnumerationId={entry.enumeration_id}",
                f"\t\tStartBusNumber={entry.start_bus}", f"\t\tPath={{{path}}}",
            ]  # fmt: skip
    return "\n".join([*lines, " */", "/*", "  APIC: Length=44, Revision=5, Checksum=1,", " */", ""])


def braces(flags: int, *names: str) -> str:
    present = ",".join(name for bit, name in enumerate(names) if flags >> bit & 1)
    return f"{{{present}}}" if present else ""


def freebsd_structure(each: Structure) -> Iterator[str]:
    known = not isinstance(each, (Andd, Satc, Sidp))
    yield f"Type={each.name if known else each.type}"
    yield f"Length={each.length}"
    match each:
        case Drhd():
            yield f"Flags={braces(each.flags, 'INCLUDE_ALL')}"
            yield from (f"Segment={each.segment}", f"Address=0x{each.register_base:016x}")
        case Rmrr():
            yield f"Segment={each.segment}"
            yield from (f"BaseAddress=0x{each.base:016x}", f"LimitAddress=0x{each.limit:016x}")
        case Atsr():
            yield from (f"Flags={braces(each.flags, 'ALL_PORTS')}", f"Segment={each.segment}")
        case Rhsa():
            yield f"BaseAddress=0x{each.register_base:016x}"
            yield f"ProximityDomain=0x{each.proximity_domain:08x}"


def edk2(table: Table, prefix: str = "") -> str:
    """The text that the VT-d driver of edk2 prints."""
    header = table.header
    lines = [
        "VtdDxe: entered", dotted(0, "DMAR address", "0x000000007a5f6018"), "  Table Contents:",
        dotted(4, "Host Address Width", f"0x{header.host_address_width:02x}"),
        dotted(4, "Flags", f"0x{int(header.flags):02x}"),
        dotted(6, "INTR_REMAP", f"0x{header.flags & 1:02x}"),
    ]  # fmt: skip
    for each in table.structures:
        lines += [
            f"  *       {each.name} Structure  *", dotted(2, f"{each.name} address", "0x7a5f6048"),
            dotted(4, "Type", f"0x{each.type:04x}"), dotted(4, "Length", f"0x{each.length:04x}"),
        ]  # fmt: skip
        for name, value in each.fields().items():
            if name in EDK2:
                lines.append(dotted(4, EDK2[name], f"0x{int(value):x}"))
        if isinstance(each, Andd):
            lines.append(dotted(4, "ACPI Object Name", f"'{each.object_name}'"))
        for entry in each.scopes:
            lines += [
                dotted(4, "DMAR Device Scope Entry address", "0x7a5f6058"),
                dotted(6, "Device Scope Entry Type", f"0x{entry.type:02x}"),
                f"        {SCOPES.get(entry.type, '')}",
                dotted(6, "Length", f"0x{entry.length:02x}"),
                dotted(6, "Flags", f"0x{entry.flags:02x}"),
                dotted(6, "Enumeration ID", f"0x{entry.enumeration_id:02x}"),
                dotted(6, "Starting Bus Number", f"0x{entry.start_bus:02x}"),
            ]
            for device, function in entry.path:
                lines.append(dotted(6, "Device", f"0x{device:02x}"))
                lines.append(dotted(6, "Function", f"0x{function:02x}"))
    return "".join(f"{prefix}{line}\n" for line in lines)


def dotted(indent: int, label: str, value: str) -> str:
    return f"{' ' * indent}{label} ".ljust(59, ".") + f" {value}"


EDK2 = {
    "flags": "Flags",
    "segment": "Segment Number",
    "register_base": "Register Base Address",
    "base": "Reserved Memory Region Base Address",
    "limit": "Reserved Memory Region Limit Address",
    "proximity_domain": "Proximity Domain",
    "device_number": "ACPI Device Number",
}


def quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.splitlines())


@pytest.mark.parametrize("wrap", [str, quoted])
def test_what_freebsd_prints_is_the_table(wrap: Callable[[str], str]) -> None:
    (found,) = find_tables(wrap(freebsd(TABLE)).encode())
    assert found.data == TABLE.pack()
    assert found.notes == ("read from its fields as FreeBSD prints them, and its Checksum",)


@pytest.mark.parametrize("flags", [0, 1, 4, 5])
@pytest.mark.parametrize("pad", [b" ", b"\0"])
def test_the_checksum_tells_what_freebsd_leaves_out(pad: bytes, flags: int) -> None:
    """Whether DMA_CTRL_PLATFORM_OPT_IN is set, and what is behind short names."""
    header = replace(HEADER, oem_id=b"ACME".ljust(6, pad), flags=HeaderFlags(flags))
    table = Table(header, STRUCTURES).sealed()
    (found,) = find_tables(freebsd(table).encode())
    assert found.data == table.pack()


def test_structures_that_freebsd_does_not_print_are_named() -> None:
    table = Table(HEADER, (*STRUCTURES, *LATER)).sealed()
    (found,) = find_tables(freebsd(table).encode())
    assert found.data == TABLE.pack()
    assert found.notes[1:] == (
        *(f"a structure of type {number} is printed without fields" for number in (4, 5, 6)),
        "whether DMA_CTRL_PLATFORM_OPT_IN is set is not printed",
    )


def test_text_of_freebsd_that_was_cut_is_a_cut_table() -> None:
    text = freebsd(TABLE)
    (found,) = find_tables(text[: text.index("\tType=ATSR")].encode())
    table = Table.parse(found.data)
    assert table.structures == TABLE.structures[:3]
    assert table.truncated
    assert table.header.table_length == len(TABLE.pack())
    assert "its fields end before its Length does" in found.notes


@pytest.mark.parametrize("prefix", ["", "> ", "[ 12.345] "])
def test_what_edk2_prints_is_the_table_but_for_the_names(prefix: str) -> None:
    table = Table(HEADER, (*STRUCTURES, *LATER)).sealed()
    (found,) = find_tables(edk2(table, prefix).encode())
    read = Table.parse(found.data)
    assert read.structures == table.structures
    assert (read.header.host_address_width, read.header.flags) == (38, HEADER.flags)
    (note,) = found.notes
    assert note.endswith("as edk2 prints them, without the header up to Creator Revision")


def test_the_tables_of_the_repository_come_out_as_far_as_they_are_printed() -> None:
    for known in clean_tables():
        table = Table.parse(known.data)
        if any(not each.scopes and each.tail for each in table.structures):
            continue
        (found,) = find_tables(edk2(table).encode())
        read = Table.parse(found.data)
        shown = [(each.name, *map(str, each.scopes)) for each in table.structures]
        assert [(each.name, *map(str, each.scopes)) for each in read.structures] == shown


@pytest.mark.parametrize(
    ("form", "change", "wrong"),
    [
        (freebsd, ("Segment=0", "Segment=zero"), "segment: 'zero' is no number"),
        (freebsd, ("{INCLUDE_ALL}", "{EVERYTHING}"), "structure 1: flags"),
        (edk2, ("0xfed90000", "0xgarbage"), "register base address: '0xgarbage' is no number"),
    ],
)
def test_a_wrong_field_is_named(
    form: Callable[[Table], str], change: tuple[str, str], wrong: str
) -> None:
    with pytest.raises(TableError, match=wrong):
        find_tables(form(TABLE).replace(*change).encode())


def test_an_entry_belongs_to_a_structure() -> None:
    text = [dotted(0, "DMAR address", "0x1000"), dotted(6, "Device Scope Entry Type", "0x01")]
    with pytest.raises(TableError, match="a device scope entry before every structure"):
        find_tables("\n".join(text).encode())


@given(st.data())
def test_any_change_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([freebsd(TABLE), edk2(TABLE)]))
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.text("0123456789abcdefx=:{}.,\n\tTypeLngh", max_size=20))
    changed = text[:at] + put + text[at + data.draw(st.integers(0, 60)) :]
    try:
        assert find_tables(changed.encode())
    except TableError as error:
        assert str(error)
