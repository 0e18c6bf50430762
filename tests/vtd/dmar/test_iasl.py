"""Cross-check against iasl: what build writes disassembles to the same values."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.dmar_corpus import clean_tables
from vtd.dmar.description import build, describe
from vtd.dmar.inputs import find_tables
from vtd.dmar.records import STRUCTURES
from vtd.dmar.source import write_source
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


def version() -> int:
    """The version of iasl, a date."""
    run = subprocess.run([IASL, "-v"], capture_output=True, text=True, check=True)
    match = re.search(r"version (\d{8})", run.stdout)
    assert match, run.stdout
    return int(match[1])


NEWER = 20230101
"""From here on iasl knows flags of scope entries, SATC and SIDP."""


@pytest.mark.parametrize("name", SAMPLES)
def test_iasl_compiles_the_source_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    known = next(each for each in clean_tables() if each.id.endswith(f"-{name}"))
    table, older = Table.parse(known.data), version() < NEWER
    if older and any(each.type > 4 for each in table.structures):
        pytest.skip("this iasl does not know SATC and SIDP")
    text, left_out = write_source(table, older)
    (tmp_path / "table.dsl").write_text(text)
    command = [IASL, "-z", "table.dsl"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert ((tmp_path / "table.aml").read_bytes() == known.data) is not bool(left_out)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_iasl_prints_is_read_with_and_without_its_raw_data(name: str, tmp_path: Path) -> None:
    known = next(each for each in clean_tables() if each.id.endswith(f"-{name}"))
    (tmp_path / "table.bin").write_bytes(known.data)
    subprocess.run([IASL, "-d", "table.bin"], cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "table.dsl").read_bytes()
    (found,) = find_tables(text)
    assert found == (known.data, ())
    (fields,) = find_tables(text.partition(b"Raw Table Data")[0])
    assert Table.parse(fields.data).units == Table.parse(known.data).units
