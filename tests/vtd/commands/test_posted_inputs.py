"""What people post and ask, each as one small case through the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from tests.vtd.commands.test_dmar_edit import TABLE
from tests.vtd.dmar.listing.test_lspci import VERBOSE, WITHOUT_ROOT, prefixed
from tests.vtd.dmar.test_hex_dump import dmem
from tests.vtd.dmar.test_inputs import acpidump
from vtd.cli import main
from vtd.dmar.source import write_source
from vtd.dmar.table import Table

HIDDEN = b"RMAD" + TABLE[4:]
FACP = b"FACP" + (40).to_bytes(4, "little") + bytes(32)
TWICE = replace(
    Table.parse(TABLE),
    structures=tuple(each for each in Table.parse(TABLE).structures for _ in range(2)),
)
BEHIND = TABLE.replace(bytes.fromhex("0108000000000200"), bytes.fromhex("0108000000010000"), 2)
E820 = """\
[    0.000000] BIOS-e820: [mem 0x0000000000001000-0x000000000009efff] usable
[    0.000000] BIOS-e820: [mem 0x000000007b000000-0x000000007f7fffff] reserved
"""
SHORT = """\
00:02.0 VGA compatible controller [0300]: Acme [8086:1234]
00:1c.0 PCI bridge [0604]: Acme Port [8086:a33c]
"""
NAMES = """\
00:02.0 VGA compatible controller: Acme [Xe Graphics] (rev 04)
\tCapabilities: [70] Express (v2) Root Complex Integrated Endpoint, MSI 00
"""
OTHER_DOMAIN = "0000:00:02.0 VGA compatible controller: A\n0001:00:00.0 SATA controller: B\n"


class Case(NamedTuple):
    """A command line, the files it names, what has to be said, and the exit code."""

    name: str
    command: str
    files: dict[str, bytes]
    said: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    code: int = 0


CASES = [
    Case("a listing without root claims no alias",
         "dmar scope DMAR 01:00.0 --lspci lspci", {"lspci": WITHOUT_ROOT.encode()},
         ("bridges  0000:00:1c.0", "alias    not known", "run lspci -vv as root")),
    Case("an indented listing",
         "dmar scope DMAR 01:00.0 --lspci lspci", {"lspci": prefixed("    ")(VERBOSE).encode()},
         ("unit     0xfed91000", "bridges  0000:00:1c.0", "alias    none")),
    Case("a virtual function of graphics",
         "dmar scope DMAR 00:02.1 --lspci lspci", {"lspci": VERBOSE.encode()},
         ("unit     0xfed90000", "0x7b000000-0x7f7fffff")),
    Case("what may be a virtual function of graphics, without root",
         "dmar scope DMAR 00:02.1 --lspci lspci",
         {"lspci": (WITHOUT_ROOT + "00:02.1 VGA compatible controller [0300]: Acme\n").encode()},
         ("unit     none", "may be a virtual function of 0000:00:02.0"), code=1),
    Case("a device behind VMD, by its numbers",
         "dmar scope DMAR 10000:e1:00.0 --lspci lspci",
         {"lspci": b"0000:00:02.0 0104: 8086:467f\n10000:e1:00.0 0108: 1234:5678\n"},
         ("unit     0xfed90000", "counts_as 0000:00:02.0")),
    Case("registers as logs print them", "caps 1c0000c40660462 29a00f0505e", {},
         ("CAP 0x01c0000c40660462", "note: ", "FS1GP"), ("contradiction",)),
    Case("registers of extended mode", "caps 0x1c0000c40660462 0x7e3ff0505e", {},
         ("revision 2",), ("contradiction",)),
    Case("registers of Westmere", "caps c90780106f0462 f020fe", {},
         ("caching hints",), ("contradiction",)),
    Case("registers that break software", "caps d2008c40660462 f05018", {},
         ("contradiction: 11.4.3: IR is set without QI",), code=1),
    Case("registers in a log", "caps log",
         {"log": b"DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c40660462 ecap f050da\n"},
         ("dmar0: CAP 0x00d2008c40660462",)),
    Case("fields without raw data", "dmar validate a.dsl",
         {"a.dsl": write_source(Table.parse(TABLE))[0].encode()}, ("nothing found",)),
    Case("a dump quoted in a mail", "dmar validate mail",
         {"mail": prefixed(">>> ")(acpidump(TABLE)).encode()}, ("nothing found",)),
    Case("a dump of memory", "dmar show dump", {"dump": dmem(TABLE).encode()},
         ("DRHD at 0x030", "ANDD")),
    Case("a table that Xen hides", "dmar validate dump",
         {"dump": (acpidump(FACP, "FACP") + acpidump(HIDDEN, "RMAD")).encode()},
         ("DMAR-H14", "Xen"), ("DMAR-H01", "error")),
    Case("the memory map of a boot log", "dmar validate DMAR --memory-map map",
         {"map": E820.encode()}, ("nothing found",)),
    Case("a short listing proves no mismatch", "dmar validate DMAR --lspci lspci",
         {"lspci": SHORT.encode()}, ("nothing found",)),
    Case("class names without numbers", "dmar rmrr DMAR --lspci lspci",
         {"lspci": NAMES.encode()}, ("Linux: allowed",)),
    Case("a region of a device that is no graphics", "dmar rmrr DMAR --lspci lspci",
         {"lspci": NAMES.replace("VGA compatible", "Ethernet").encode()},
         ("Linux: refused",), code=1),
    Case("a domain without a unit", "dmar validate DMAR --lspci lspci",
         {"lspci": OTHER_DOMAIN.encode()}, ("DMAR-K12", "segment 1"), code=1),
    Case("a domain without a unit is no good coverage", "dmar audit DMAR --lspci lspci",
         {"lspci": OTHER_DOMAIN.encode()}, ("bad   coverage: segment 1",), code=1),
    Case("the unit of a device in such a domain", "dmar scope DMAR 0001:00:00.0",
         {"lspci": OTHER_DOMAIN.encode()}, ("segment 1 has no DRHD",), code=1),
    Case("a start bus behind a bridge", "dmar validate behind --lspci lspci",
         {"behind": BEHIND, "lspci": VERBOSE.encode()},
         ("DMAR-K13", "the path is 1c.0/00.0 from bus 00"), code=1),
    Case("every structure twice", "dmar validate twice --select S10,U06",
         {"twice": TWICE.sealed().pack()},
         ("0x048 warning DMAR-S10 DRHD repeats the structure at offset 0x030",
          "as at offset 0x030"), ("offset 48",), code=1),
    Case("a device below a sub-hierarchy without the bus tree", "dmar scope sub 03:00.0",
         {"sub": TABLE.replace(bytes.fromhex("0108000000000200"),
                               bytes.fromhex("0208000000001c00"), 1)},
         ("unit     none", "can't tell without the bus tree"), code=1),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_the_right_one(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in {"DMAR": TABLE, **case.files}.items():
        (tmp_path / name).write_bytes(data)
    result = CliRunner().invoke(main, case.command.split())
    assert result.exit_code == case.code, result.output
    for words in case.said:
        assert words in result.stdout
    for words in case.unsaid:
        assert words not in result.stdout


def test_names_stand_beside_numbers_in_the_listing_by_offset() -> None:
    shown = CliRunner().invoke(main, ["dmar", "show", "-", "--offsets"], input=TABLE).stdout
    assert "type : 1 [pci_endpoint]" in shown
    assert "type : 0 [DRHD]" in shown
    assert "0x01 intr_remap" in shown
