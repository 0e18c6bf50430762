"""Places of captures: what is below what, the rows of the commands, ways to an address."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.reference_data import capture_folders
from tests.support.world import FIRST_TABLES, HOLE, Mode, World
from vtd.cli import main
from vtd.commands.explore import places_of
from vtd.commands.images import ImageOptions
from vtd.exploring.places import Place, lines, printable
from vtd.exploring.unit_places import SearchError, UnitPlaces
from vtd.layouts.registers import FaultRecording
from vtd.plain import plain
from vtd.recordings.capture import Capture

CAPTURES = {folder.name: folder for folder in capture_folders()}
MACHINE = Path("examples/machines/server.toml")


def printed(*arguments: str) -> object:
    result = CliRunner().invoke(main, [*arguments, "--format", "json"])
    assert result.exit_code in (0, 1), result.output
    document: object = json.loads(result.stdout)
    return document


def opened(folder: Path) -> tuple[dict[str, Place], UnitPlaces]:
    places, unit = places_of(folder, ImageOptions())
    assert unit is not None
    return {each.title: each for each in places}, unit


def pages_of(place: Place) -> Iterator[tuple[str, Place]]:
    """The entries below a place that map a page, with the address that their titles name."""
    for each in place.below():
        match = re.fullmatch(
            r"[SF]S-\w+ \d+: (0x[0-9a-f]+) to (page|table) 0x[0-9a-f]+", each.title
        )
        if match and match[2] == "page":
            yield match[1], each
        elif match:
            yield from pages_of(each)


@pytest.mark.parametrize("name", CAPTURES)
def test_every_page_of_a_capture_is_at_the_end_of_its_tables(name: str) -> None:
    folder = CAPTURES[name]
    listed = printed("mappings", str(folder))
    assert isinstance(listed, dict)
    devices = opened(folder)[0]["devices"].below()
    assert len(devices) == len(listed["sources"]) > 4
    for place, source in zip(devices, listed["sources"], strict=True):
        pages = list(pages_of(place))
        assert [address for address, _ in pages] == [address for address, *_ in source["leaves"]]
        device = place.title.partition(": ")[0].partition(" PASID ")[0]
        # The PASID of all sources in these captures is RID_PASID, which no request carries.
        assert source["pasid"] in (None, 0)
        for address, each in (*pages[:1], *pages[-1:]):
            walked = printed("walk", str(folder), address, "--device", device)
            assert isinstance(walked, dict)
            assert plain(each.row()) == walked["steps"][-1]


@pytest.mark.parametrize("name", CAPTURES)
def test_interrupt_entries_are_the_rows_of_irte(name: str) -> None:
    listed = printed("irte", str(CAPTURES[name]))
    assert isinstance(listed, dict)
    place = opened(CAPTURES[name])[0]["interrupt entries"]
    assert [plain(each.row()) for each in place.below()] == listed["entries"]
    assert plain(place.row()) == listed["table"]


def test_a_search_leads_to_the_last_entry_that_the_request_meets() -> None:
    _, unit = opened(CAPTURES["legacy48-strict"])
    way, said = unit.search("00:1f.2 0x1000")
    assert [each.split(" ")[0] for each in way[2:]] == ["SS-PML4E", "SS-PDPE", "SS-PDE"]
    assert "allowed: physical address 0x1000" in said
    nearer, said = unit.search("0x4000000000", beside=way)
    assert way[:2] == nearer[:2]
    assert "no read permission" in said
    assert re.fullmatch(r"SS-PDPE 256: 0x4000000000 to nothing", nearer[-1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "is not [BDF"),
        ("0x1000", "no device is selected"),
        ("ff:1f.9 0x1000", "is not [BDF"),
        ("00:1f.2 0x10000000000000000", "more than 64 bits"),
    ],
)
def test_a_search_that_cannot_be_made_says_why(text: str, said: str) -> None:
    _, unit = opened(CAPTURES["legacy48-strict"])
    with pytest.raises(SearchError, match=re.escape(said)):
        unit.search(text)


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.FIRST, Mode.SECOND, Mode.NESTED])
def test_a_search_follows_each_kind_of_tables_to_the_page(mode: Mode) -> None:
    pasid = 0x45 if mode is Mode.NESTED else None
    world = World(mode, pasid=pasid)
    unit = UnitPlaces(world.start().unit)
    device = "01:01.0" if pasid is None else f"01:01.0/{pasid:#x}"
    way, said = unit.search(f"{device} {world.address:#x}")
    assert "allowed: physical address" in said
    assert way[0] == "devices"
    assert len(way) == 2 + (world.second_levels if mode is Mode.LEGACY else 4)
    assert " to page 0x" in way[-1]
    assert unit.search(f"{world.address + 8:#x}", beside=way)[0] == way


def below(unit: UnitPlaces) -> list[Place]:
    """What is below the first source."""
    devices = next(each for each in unit.all() if each.title == "devices")
    return [*devices.below()[0].below()]


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.NESTED])
def test_a_table_that_is_nowhere_is_said_to_be_unreadable(mode: Mode) -> None:
    world = World(mode)
    if mode is Mode.LEGACY:
        world.change("context", ssptptr=HOLE)
    else:
        world.put(f"second1 {FIRST_TABLES:#x}", 0)
    assert below(UnitPlaces(world.start().unit))[-1].title == "the table can't be read"


def test_what_leads_to_no_entry_leads_as_far_as_there_is_something() -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    unit = UnitPlaces(started.unit)
    assert unit.search("01:01.0 0xfee00000") == (
        ("interrupt entries",), "0xfee00000 is in the interrupt range",
    )  # fmt: skip
    way, said = unit.search("05:00.0 0x1000")
    assert way == ("devices",)
    assert "blocked: fault 01h" in said
    started.command(te=False)
    way, said = UnitPlaces(started.unit).search("01:01.0 0x1000")
    assert (way, said) == (("devices",), "DMA remapping is off")


def test_a_mode_that_there_is_none_of_stands_where_devices_would() -> None:
    world = World(Mode.LEGACY)
    world.root = world.root.replace(ttm=2)
    devices = UnitPlaces(world.start().unit).all()[1]
    (only,) = devices.below()
    assert only.title.startswith("RTADDR_REG: blocked: fault 30h")


def test_the_fault_of_an_interrupt_leads_to_its_entry() -> None:
    record = FaultRecording(FaultRecording.of(f=True, fr=0x22, sid=0x10) | 5 << 48)
    unit = UnitPlaces(World(Mode.LEGACY).start().unit, [record])
    (fault,) = unit.all()[-1].below()
    assert fault.title.endswith(", index 5")
    assert fault.leads_to == ("interrupt entries",)


def test_faults_lead_to_the_entry_that_refused() -> None:
    folder = CAPTURES["edu-faults-legacy48"]
    faults = opened(folder)[0]["faults"].below()
    assert len(faults) == len(Capture.load(folder).fault_records()) > 4
    way = faults[2].leads_to
    assert way[0] == "devices"
    assert way[1].startswith("00:01.0: ")
    assert way[-1].endswith(" to nothing")
    assert "00:01.0 reads 0x12345000: blocked: fault 06h" in faults[2].text


def test_a_described_machine_shows_the_rows_of_its_command() -> None:
    places, unit = places_of(MACHINE, ImageOptions())
    assert unit is None
    shown = printed("machine", "show", str(MACHINE))
    assert isinstance(shown, dict)
    assert [plain(each.row()) for each in places[1:3]] == shown["units"]
    assert [plain(each.row()) for each in places[3].below()] == shown["functions"]


def test_nothing_that_is_shown_moves_a_cursor() -> None:
    place = Place("x", lambda: {"oem": "\x1b[2Jhello\r\n", "list": [1, 2], "inside": {"a": None}})
    assert list(lines(place)) == [
        "oem                  \\x1b[2Jhello\\x0d\\x0a",
        "list                 1, 2",
        "inside",
        "  a                  none",
    ]
    assert len(printable("x" * 10_000)) == 200
