"""Linux's debugfs dumps: what they print, put back into memory, walks as the memory itself did."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.reference_data import capture_folders
from vtd.cli import main
from vtd.inspection.debugfs import DebugfsError, dumped_units

REGSET = """\
IOMMU: dmar0 Register Base Address: fed90000
Name\t\t\tOffset\t\tContents
VER             \t0x00\t\t0x0000000000000010
GSTS            \t0x1c\t\t0x00000000c7000000
CAP             \t0x08\t\t0x80d2008c222f0606
ECAP            \t0x10\t\t0x0000000000f00f4a
RTADDR          \t0x20\t\t0x0000000000001000
IRTA            \t0xb8\t\t0x0000000000100000
"""
DEVICES = """\
IOMMU dmar0: Root Table Address: 0x1000
B.D.F\tRoot_entry\t\t\t\tContext_entry\t\t\t\tPASID\tPASID_table_entry
00:02.0\t0x0000000000000000:0x0000000000002001\t0x0000000000000102:0x0000000000003001\t-1    \t\
0x0000000000000000:0x0000000000000000:0x0000000000000000
"""
DOMAINS = """\
Device 0000:00:02.0 @0x3000
IOVA_PFN \tPML5E \tPML4E \tPDPE \tPDE \tPTE
0x0000000000010 |\t0x0000000000000000\t0x0000000000004003\t0x0000000000005003\t\
0x0000000000006003\t0x00000000000aa003
0x0000000000200 |\t0x0000000000000000\t0x0000000000004003\t0x0000000000005003\t0x0000000000c00083
"""
INTERRUPTS = """\
Remapped Interrupt supported on IOMMU: dmar0
 IR table address:100000
 Entry SrcID   DstID    Vct IRTE_high\t\tIRTE_low
 1     00:02.0 00000000 30  0000000000040010\t0000000000300009

****
"""
FILES = {
    "iommu_regset": REGSET.encode(),
    "dmar_translation_struct": DEVICES.encode(),
    "0000:00:02.0/domain_translation_struct": gzip.compress(DOMAINS.encode()),
    "ir_translation_struct": INTERRUPTS.encode(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_mappings_of_a_device_are_those_of_the_dump(folder: Path) -> None:
    (source,) = json.loads(run("mappings", str(folder), "--format", "json"))["sources"]
    assert source["sid"] == 0x10
    assert source["leaves"] == [
        ["0x10000", "0x1000", "0xaa000", "rw"],
        ["0x200000", "0x200000", "0xc00000", "rw"],
    ]


def test_one_address_is_walked_and_one_interrupt_listed(folder: Path) -> None:
    assert "0xaa123" in run("walk", str(folder), "0x10123", "--device", "00:02.0")
    assert "00:02.0" in run("irte", str(folder))
    assert "dmar0: CAP 0x80d2008c222f0606" in run("caps", str(folder))


DUMPED = [folder for folder in capture_folders() if (folder / "debugfs").is_dir()]


@pytest.mark.parametrize("capture", DUMPED, ids=lambda folder: folder.name)
@pytest.mark.parametrize("command", ["mappings", "irte"])
def test_dumps_of_a_capture_say_what_its_memory_says(command: str, capture: Path) -> None:
    memory = json.loads(run(command, str(capture), "--format", "json"))
    assert json.loads(run(command, str(capture / "debugfs"), "--format", "json")) == memory


def test_several_units_have_to_be_named(folder: Path) -> None:
    second = REGSET.replace("dmar0", "dmar1").replace("fed90000", "fed91000")
    (folder / "iommu_regset").write_text(REGSET + second)
    result = CliRunner().invoke(main, ["mappings", str(folder)])
    assert result.exit_code == 2
    assert "name one of the units behind @: dmar0, dmar1" in result.stderr
    assert "0xaa000" in run("mappings", f"{folder}@dmar1")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"iommu_regset": b"x"}, "no iommu_regset with registers in it"),
        ({"iommu_regset": REGSET.replace("IRTA", "NONE").encode()}, "dmar0: IRTA missing"),
        ({**FILES, "ir_translation_struct": b"\x1f\x8bxx"}, "ir_translation_struct: "),
    ],
)
def test_dumps_that_can_not_be_used_are_refused(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DebugfsError, match=message):
        dumped_units(files)


@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_change_to_a_dump_is_read_or_refused(name: str, data: st.DataObject) -> None:
    text = FILES[name] if FILES[name][:2] != b"\x1f\x8b" else gzip.decompress(FILES[name])
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 40))
    put = data.draw(st.text("0123456789abcdefx:|@ \n\t", max_size=20)).encode()
    try:
        units = dumped_units({**FILES, name: text[:at] + put + text[at + cut :]})
    except DebugfsError as error:
        assert str(error)
    else:
        assert units
