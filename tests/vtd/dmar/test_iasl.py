"""Cross-check against iasl: what build writes disassembles to the same values."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dmar_corpus import clean_tables
from vtd.dmar.description import build, describe
from vtd.dmar.records import STRUCTURES
from vtd.dmar.table import Table

IASL = shutil.which("iasl") or ""

pytestmark = pytest.mark.skipif(not IASL, reason="iasl is not installed (acpica-tools)")

_LINE = re.compile(
    r"\[([0-9A-F]+)h \d+ +([0-9A-F]+)h?\] +([\w ()]+) : ([0-9A-F]+(?:,[0-9A-F]+)*)\b"
)
NUMBERS = {
    "Table Length", "Revision", "Checksum", "Oem Revision", "Asl Compiler Revision",
    "Host Address Width", "Flags", "Subtable Type", "Length", "PCI Segment Number",
    "Register Base Address", "Base Address", "End Address (limit)", "Proximity Domain",
    "Device Number", "Device Scope Type", "Entry Length", "Enumeration ID", "PCI Bus Number",
}  # fmt: skip
SAMPLES = [
    "qemu-4", "qemu-12", "synthetic-bridge-scope", "synthetic-deep-path", "synthetic-multiseg2",
    "synthetic-haw52", "synthetic-andd-root", "synthetic-rmrr-multiseg", "synthetic-spec-table33",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_iasl_reads_the_same_values(name: str, tmp_path: Path) -> None:
    known = next(each for each in clean_tables() if each.id.endswith(f"-{name}"))
    built = build(describe(Table.parse(known.data))).pack()
    (tmp_path / "table.bin").write_bytes(built)
    subprocess.run([IASL, "-d", "table.bin"], cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "table.dsl").read_text()
    compared = set()
    for match in _LINE.finditer(text):
        offset, label, digits = int(match[1], 16), match[3].strip(), match[4]
        if label in NUMBERS:
            size = len(digits) // 2
            assert int(digits, 16) == int.from_bytes(built[offset : offset + size], "little")
            compared.add((offset, label))
        elif label == "PCI Path":
            path = bytes(int(number, 16) for number in digits.split(","))
            assert path == built[offset : offset + len(path)]
    starts = [each.offset for each in Table.parse(built).structures if each.type in STRUCTURES]
    known_to_iasl = {offset for offset, label in compared if label == "Subtable Type"}
    assert known_to_iasl >= {start for start in starts if built[start] < 5}
    assert len(compared) > 10
