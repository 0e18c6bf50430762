"""A MADT without I/O APICs, for guests whose interrupts are remapped.

The I/O APIC of the machine monitor knows nothing of our interrupt-remapping tables, and Linux
remaps no interrupts as long as there is one that no unit covers. ACPI 6.5, 5.2.12. A kernel takes
this table from its first file system in place of the firmware's, whose names it has to bear.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("<4sIBB6s8sI4sI")
OEM = b"BOCHS ", b"BXPC    "
"""What the tables of QEMU are called."""
REVISION = 2
"""Of the table's contents; QEMU's is 1, and a kernel takes the higher one."""
LOCAL_APICS = 0xFEE0_0000
WITH_8259 = 1


def without_io_apic(cpus: int) -> bytes:
    """The table for a machine with these processors."""
    entries = b"".join(struct.pack("<BBBBI", 0, 8, number, number, 1) for number in range(cpus))
    entries += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # LINT1 of every local APIC is NMI
    body = struct.pack("<II", LOCAL_APICS, WITH_8259) + entries
    length = HEADER.size + len(body)
    oem_id, oem_table_id = OEM
    fields = (b"APIC", length, 3, 0, oem_id, oem_table_id, REVISION, b"VTD ", 1)
    table = bytearray(HEADER.pack(*fields) + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)
