"""Linux's debugfs dumps: what they print, put back into memory, walks as the memory itself did."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from textwrap import wrap

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


def wrapped(text: str) -> str:
    """A dump as a mail program wraps and quotes it."""
    lines = (part for line in text.splitlines() for part in wrap(line, 60) or [""])
    return "".join(f">> {line}\n" for line in lines)


def documented(text: str) -> str:
    """As the kernel's documentation prints a row, under a heading for each column."""
    *head, row = text.splitlines()
    place, root, context, pasid, entry = row.split()
    return (
        f" {head[0]}\n B.D.F   Root_entry\n {place} {root}\n\n Context_entry\n {context}\n\n"
        f" PASID   PASID_table_entry\n {pasid}      {entry}\n"
    )


@pytest.mark.parametrize("form", [wrapped, documented])
def test_a_dump_that_was_posted_says_the_same(form: Callable[[str], str], folder: Path) -> None:
    plain = run("mappings", str(folder), "--format", "json")
    (folder / "dmar_translation_struct").write_text(form(DEVICES))
    assert run("mappings", str(folder), "--format", "json") == plain


def test_dumps_without_registers_are_read_and_what_was_taken_for_granted_is_told(
    tmp_path: Path,
) -> None:
    post = tmp_path / "post"
    post.write_text(f"Hello,\n{wrapped(DEVICES)}\n{DOMAINS}\n{INTERRUPTS}")
    result = CliRunner().invoke(main, ["mappings", str(post), "--format", "json"])
    (source,) = json.loads(result.stdout)["sources"]
    assert source["leaves"][0] == ["0x10000", "0x1000", "0xaa000", "rw"]
    assert "capabilities are taken for those of a Xeon" in result.stderr
    assert "page tables" not in result.stderr
    result = CliRunner().invoke(main, ["irte", str(post), "--format", "json"])
    (entry,) = json.loads(result.stdout)["entries"]
    assert (entry["index"], entry["lo"]) == (1, "0x0000000000300009")


def test_page_tables_that_are_not_in_the_dumps_are_told(folder: Path) -> None:
    (folder / "0000:00:02.0/domain_translation_struct").unlink()
    result = CliRunner().invoke(main, ["mappings", str(folder)])
    assert "page tables of 00:02.0 are not in the dumps" in result.stderr
    assert len(result.stdout.splitlines()) == 2


PASIDS = """\
IOMMU dmar0: Root Table Address: 0x436f7c000
B.D.F\tRoot_entry\t\t\t\tContext_entry
00:0a.0\t0x0000000000000000:0x000000044dd3f001\t0x0000000000100000:0x0000000435460e1d
"""


@pytest.mark.parametrize(
    "entry",
    [
        "0x0000000000000001:0x0000000000000003:0x000000044d6e1089",
        "0x000000044d6e1089:0x0000000000000003:0x0000000000000001",
    ],
)
def test_words_of_a_pasid_entry_are_known_in_either_order(entry: str, tmp_path: Path) -> None:
    """The change that brought them in printed the lowest first."""
    (tmp_path / "dmar_translation_struct").write_text(f"{PASIDS}0\t{entry}\n")
    (line, _) = run("mappings", str(tmp_path)).splitlines()
    assert "00:0a.0 PASID 0x0: second-stage, domain 3, 4 levels at 0x44d6e1000" in line


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
