"""Captures load whole, or are refused with the field named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pagetables.images import ImageError
from pagetables.unchanged import UnchangedMemory
from tests.support.reference_data import CAPTURES, capture_folders
from vtd.layouts.registers import GlobalStatus, TranslationTableMode
from vtd.recordings.capture import Capture, CaptureError, read_json_lines
from vtd.unit.departures import QEMU, SPECIFICATION

LEGACY = CAPTURES / "legacy48-strict"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A capture that a test may damage."""
    folder = tmp_path / "capture"
    shutil.copytree(LEGACY, folder)
    return folder


def change(folder: Path, **fields: Any) -> None:
    path = folder / "capture.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda folder: folder.name)
def test_every_capture_starts_as_its_registers_say(folder: Path) -> None:
    capture = Capture.load(folder)
    unit = capture.unit(capture.options(as_recorded=True))
    recorded = GlobalStatus(capture.registers["GSTS"])
    assert unit.registers[GlobalStatus] == recorded.replace(qies=False)
    assert unit.remapping.root == capture.registers["RTADDR"]
    assert unit.interrupts.table == capture.registers["IRTA"]
    scalable = unit.remapping.mode is TranslationTableMode.SCALABLE
    assert scalable == folder.name.startswith("sm-")
    assert capture.capabilities.host_address_width == capture.capabilities.cap.mgaw + 1
    assert capture.pci.functions
    assert capture.dmar.units[0].register_base == 0xFED90000


def test_a_view_takes_the_place_of_the_memory() -> None:
    capture = Capture.load(LEGACY)
    view = UnchangedMemory(capture.memory)
    assert capture.unit(capture.options(as_recorded=False), view).remapping.memory is view


def test_only_a_recorded_unit_departs_from_the_specification(copied: Path) -> None:
    manifest = json.loads((copied / "capture.json").read_text())
    assert Capture.load(copied).options(as_recorded=True).departures == QEMU
    del manifest["qemu"]
    (copied / "capture.json").write_text(json.dumps(manifest))
    options = Capture.load(copied).options(as_recorded=True)
    assert options.departures == SPECIFICATION


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"registers": None}, "registers"),
        ({"registers": {"CAP": "zz"}}, "registers"),
        ({"registers": {"CAP": "0x1"}}, "VER, ECAP, GSTS, RTADDR, IRTA missing"),
        ({"register_offsets": [1]}, "register_offsets"),
    ],
)
def test_a_broken_manifest_names_its_field(copied: Path, fields: dict[str, Any], says: str) -> None:
    change(copied, **fields)
    with pytest.raises(CaptureError, match=says) as caught:
        Capture.load(copied)
    assert "capture.json" in str(caught.value)


@pytest.mark.parametrize("name", ["CAP", "ECAP", "VER", "GSTS", "RTADDR", "IRTA"])
def test_a_register_wider_than_it_is_names_itself(copied: Path, name: str) -> None:
    registers = json.loads((copied / "capture.json").read_text())["registers"]
    change(copied, registers={**registers, name: "0x1" + "0" * 16})
    with pytest.raises(CaptureError, match="bits"):
        Capture.load(copied)


@pytest.mark.parametrize("name", ["capture.json", "DMAR.bin", "topology.json.gz"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"\x1f\x8b"])
def test_a_broken_part_is_refused(copied: Path, name: str, content: bytes | None) -> None:
    path = copied / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaptureError, match=str(copied)):
        Capture.load(copied)


def test_broken_memory_is_refused(copied: Path) -> None:
    (copied / "pages.bin.gz").write_bytes(b"")
    with pytest.raises(ImageError, match=r"pages\.bin\.gz"):
        Capture.load(copied)


def test_lines_are_json_each(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("[1]\n[2]\n")
    assert read_json_lines(path) == [[1], [2]]
    path.write_text("[1]\n[2\n")
    with pytest.raises(CaptureError, match="can't be read"):
        read_json_lines(path)
