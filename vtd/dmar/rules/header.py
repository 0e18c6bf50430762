"""Rules H: the fixed part of the table (VT-d 8.1)."""

from __future__ import annotations

from vtd.dmar.records import FIXED_PART, Drhd, Place
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING

IDENTIFICATION = Place(10, 22)
"""From OEM ID to Creator ID."""


HIDDEN_SIGNATURES = (b"RMAD", b"RAMD")
"""DMAR turned round: what is left of a table that the system under a hypervisor is not to find."""
SIGNATURES = (b"DMAR", *HIDDEN_SIGNATURES)
"""Signatures of what is a DMAR table; the rules have nothing to say about others."""


@rule(
    "DMAR-H01",
    ERROR,
    "Signature is DMAR",
    "8.1",
    linux="never looks at the table: tables are found by signature",
    xen="never looks at the table: tables are found by signature",
    iasl="does not recognise the file, exit 255",
)
def signature(table: Table) -> Hits:
    """A table of another signature is another table, however much the rest looks like this one."""
    if table.header.signature not in SIGNATURES:
        message = f"signature is {table.header.signature!r}: this is no DMAR table"
        yield table.header.place("signature"), message


@rule(
    "DMAR-H02",
    ERROR,
    "the fixed part is whole: at least 48 bytes given, and Length at least 48",
    "8.1",
    fwts='"InvalidDMAR" when Length is 48 or less',
    iasl="exit 255 below 36 bytes",
    chipsec="raises an exception for very short input",
)
def fixed_part(table: Table) -> Hits:
    """Without the fixed part there are neither flags nor an address width, and no structures."""
    if table.header.table_length < FIXED_PART:
        length = table.header.table_length
        yield table.header.place("table_length"), f"length is {length}, less than {FIXED_PART}"


@rule(
    "DMAR-H03",
    ERROR,
    "Length is not larger than the data",
    "8.1",
    iasl='"is too long for file", exit 255',
)
def length_past_end(table: Table) -> Hits:
    """The file was cut, or Length is wrong. Structures are read as far as there are bytes."""
    if table.truncated:
        message = f"length is {table.header.table_length}, but there are {table.size} bytes"
        yield table.header.place("table_length"), message


@rule("DMAR-H04", INFO, "nothing follows the table")
def trailing(table: Table) -> Hits:
    """Bytes after Length belong to no table; a dump of a whole page has them."""
    if table.trailing and table.header.table_length >= FIXED_PART:
        length = len(table.trailing)
        message = f"bytes after the end of the table: {length}"
        yield Place(table.size - length, length), message


@rule(
    "DMAR-H05",
    ERROR,
    "the bytes of the table sum to zero",
    "8.1",
    linux="ACPICA prints a warning and goes on",
    fwts='"ACPITableChecksum"',
    iasl="prints a warning and writes a comment",
)
def checksum(table: Table) -> Hits:
    """A wrong sum means that bytes were changed after the checksum was computed."""
    header = table.header
    if header.table_length < FIXED_PART or table.truncated:
        return
    if table.byte_sum:
        right = header.checksum - table.byte_sum & 0xFF
        message = f"checksum is 0x{header.checksum:02x}, 0x{right:02x} would be right"
        yield header.place("checksum"), message


@rule("DMAR-H06", INFO, "Revision is 1", "8.1")
def revision(table: Table) -> Hits:
    """The specification knows revision 1 only; about a fifth of the hardware tables carry 2."""
    if table.header.revision != 1:
        yield table.header.place("revision"), f"revision is {table.header.revision}"


@rule(
    "DMAR-H07",
    ERROR,
    "the host address width is at least 12 bits",
    linux='"Invalid DMAR haw", no remapping at all',
    xen="refuses a stored width of 0",
)
def address_width_too_small(table: Table) -> Hits:
    """The field holds N for N+1 bits; below 12 bits not even one page could be addressed."""
    bits = table.header.address_bits
    if bits < 12:
        yield table.header.place("host_address_width"), f"host address width is {bits} bits"


@rule("DMAR-H08", WARNING, "the host address width is at most 52 bits")
def address_width_too_large(table: Table) -> Hits:
    """No processor has more than 52 physical address bits, and no paging entry more room."""
    bits = table.header.address_bits
    if bits > 52:
        yield table.header.place("host_address_width"), f"host address width is {bits} bits"


@rule("DMAR-H09", WARNING, "reserved bits of Flags are 0", "8.1")
def reserved_flags(table: Table) -> Hits:
    """A later revision may give bits 7:3 a meaning that this firmware did not intend."""
    flags = table.header.flags
    if flags & flags.RESERVED:
        yield table.header.place("flags"), f"reserved bits set in flags 0x{int(flags):02x}"


@rule("DMAR-H10", WARNING, "X2APIC_OPT_OUT is set with INTR_REMAP only", "8.1")
def opt_out_without_remapping(table: Table) -> Hits:
    """The opt-out is valid only with interrupt remapping. Seen on HP ProLiant DL360 G7."""
    flags = table.header.flags
    if flags.x2apic_opt_out and not flags.intr_remap:
        yield table.header.place("flags"), "X2APIC_OPT_OUT set without INTR_REMAP"


@rule("DMAR-H11", WARNING, "reserved bytes 38 to 47 are 0", "8.1")
def reserved_bytes(table: Table) -> Hits:
    """A later revision may give these bytes a meaning that this firmware did not intend."""
    if any(table.header.reserved):
        yield table.header.place("reserved"), f"reserved bytes are {table.header.reserved.hex()}"


@rule(
    "DMAR-H12",
    ERROR,
    "there is at least one DRHD",
    "8.1, 8.3",
    judges_absence=True,
    linux='"No DRHD structure found in DMAR table", "No DMAR devices found"',
)
def no_unit(table: Table) -> Hits:
    """A table without a remapping unit reports nothing that software could program."""
    if table.header.table_length < FIXED_PART:
        return
    if not any(each.type == Drhd.TYPE for each in table.structures):
        yield Place(FIXED_PART, 0), "no DRHD structure"


@rule(
    "DMAR-H13",
    INFO,
    "OEM and creator fields are printable ASCII or NUL",
    "8.1 (ACPI)",
    iasl='"invalid ASCII character(s)"',
)
def identification(table: Table) -> Hits:
    """These fields name the maker for people; HP ProLiant tables have a binary Creator ID."""
    header = table.header
    names = {"OEM ID": header.oem_id, "OEM Table ID": header.oem_table_id}
    names["Creator ID"] = header.creator_id
    bad = [name for name, value in names.items() if not all(map(_printable, value))]
    if bad:
        yield IDENTIFICATION, f"not printable ASCII: {', '.join(bad)}"


def _printable(byte: int) -> bool:
    return byte == 0 or 0x20 <= byte < 0x7F


@rule(
    "DMAR-H14",
    INFO,
    "Signature is not turned round",
    "8.1",
    xen="writes RMAD over the signature of the table it has read, which keeps the checksum",
    linux="finds no DMAR table and leaves VT-d alone",
)
def hidden_signature(table: Table) -> Hits:
    """A hypervisor (Xen) or boot loader hid the table so that the system leaves VT-d alone."""
    if table.header.signature in HIDDEN_SIGNATURES:
        text = table.header.signature.decode()
        message = f"signature is {text}: DMAR turned round by a hypervisor (Xen) or boot loader"
        yield table.header.place("signature"), message
