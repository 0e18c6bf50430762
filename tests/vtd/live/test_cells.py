"""Cells are machines that can be, with checks that there are; each defect has one that notices."""

import pytest

from devices.source_id import Bdf
from vtd.auditing.page_request_audit import PageRequestFinding, Wrong
from vtd.live.cells import CONTROLS, KIT_CONTROLS, Cell, all_cells
from vtd.live.defects import DEFECTS
from vtd.live.initramfs import known_checks
from vtd.live.linux_faults import ADDRESS_ZERO, ALIAS, HINT, RESERVED_AW, UNALIGNED, UNDRAINED
from vtd.live.random_capabilities import LIES, random_cell, random_cells
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.unit.caching.policy import POLICIES
from vtd.unit.departures import departures_named

CELLS = all_cells()
KNOWN_CHECKS = set(known_checks())


@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_a_cell_can_be_booted(cell: Cell) -> None:
    assembly = assemble(read_machine(cell.boot.machine))
    for check in (*cell.boot.checks, *cell.boot.next_checks):
        assert check.split()[0] in KNOWN_CHECKS
    assert cell.boot.caches in POLICIES
    departures_named(cell.boot.departures)
    models = [type(each).__name__ for each in assembly.platform.topology.functions()]
    units = len(assembly.table.units)
    if cell.kit:
        models = [each for each in models if each in ("Edu", "Nic82576", "IoatEngine")]
        assert (units, len(models), len(set(models)), cell.boot.checks) == (1, 4, 1, ())
    else:
        assert {"Nvme", "Edu"} <= set(models)
        assert (f"units {units}" if units > 1 else "units") in cell.boot.checks


def test_every_defect_is_noticed_by_some_cell() -> None:
    assert set(CONTROLS) == set(DEFECTS)
    assert {name for cell in CELLS.values() for name in cell.boot.defects} == set(DEFECTS)
    assert all(cell.noticed == bool(cell.boot.defects) for cell in CELLS.values())


def test_the_kit_has_cells_of_each_mode_and_device_and_eleven_broken_ones() -> None:
    kits = [cell for cell in CELLS.values() if cell.kit]
    assert sum(not cell.noticed for cell in kits) == 5
    assert {cell.boot.defects for cell in kits if cell.noticed} == {
        (each,) for each in KIT_CONTROLS
    }
    assert len(set(KIT_CONTROLS)) == 11


def test_linux_faults_are_expected_where_they_are_known() -> None:
    def expected(name: str, release: str) -> object:
        return CELLS[name].expected(release)

    assert expected("scalable-first-only", "6.1.0-50-amd64") is UNALIGNED
    assert expected("scalable-first-only", "6.12.1") is None
    assert expected("scalable-first-only", "7.2.12+deb14-amd64") is None
    assert expected("pci-bridge-scalable", "7.2.12+deb14-amd64") is ALIAS
    assert expected("pci-bridge-scalable", "6.1.0-50-amd64") is None
    assert expected("first-without-second", "7.2.12") is RESERVED_AW
    assert expected("no-queue-small-mask", "7.2.12") is HINT
    assert expected("no-queue-small-mask", "6.1.0") is None
    assert expected("no-queue-caching-mode", "6.1.0") is ADDRESS_ZERO
    assert expected("sva", "7.2.12") is UNDRAINED
    assert expected("sva", "6.1.0") is None
    undrained = PageRequestFinding(Wrong.IN_FLIGHT, 0x40, 2, 0)
    assert UNDRAINED.shows.search(str(undrained))
    assert UNDRAINED.proof.search(str(undrained))
    assert UNALIGNED.shows.search("check vfio unaligned unmap: the device reads 0x70004000")


def test_random_units_are_consistent_and_the_same_for_the_same_seed() -> None:
    drawn = random_cells(40, 7)
    assert random_cells(40, 7) == drawn
    assert random_cells(40, 8) != drawn
    for cell in drawn.values():
        units = assemble(read_machine(cell.boot.machine)).units
        assert all(each.capabilities.check() == [] for each in units)
    assert len({cell.about for cell in drawn.values()}) == len(drawn)


def test_random_units_have_the_fields_that_are_set() -> None:
    for name in ("1", "2", "3"):
        cell = random_cell(name, {"sagaw": 8, "cm": 1, "sslps": 0})
        (unit,) = assemble(read_machine(cell.boot.machine)).units
        assert (unit.capabilities.cap.sagaw, unit.capabilities.cap.cm) == (8, 1)
    with pytest.raises(ValueError, match="no consistent unit has nd=7"):
        random_cell("1", {"nd": 7})


def test_known_linux_faults_follow_from_the_capabilities() -> None:
    both = {"smts": 1, "qi": 1, "fsts": 1, "ssts": 1, "sagaw": 2, "rwbf": 0}
    assert _names(both, "6.1.0") == _names(both, "7.2.1") == "no-valid-agaw"
    only_first = {"smts": 1, "qi": 1, "fsts": 1, "ssts": 0, "nest": 0, "sagaw": 4, "rwbf": 0}
    assert _names(only_first, "7.2.1") == "aw-without-second-stage"
    none = {"smts": 1, "qi": 1, "fsts": 0, "ssts": 0, "rwbf": 0}
    assert _names(none, "7.2.1") == "no-stage"
    assert _names(none, "6.1.0") == "no-stage-unused"
    deep = {"smts": 0, "sagaw": 12, "mgaw": 40}
    assert _names(deep, "7.2.1") == "top-table-size"
    no_queue = {"smts": 0, "qi": 0, "psi": 1, "mamv": 4, "sagaw": 4}
    assert _names(no_queue, "7.2.1") == "hint-in-address-mask"
    no_queue |= {"cm": 0}
    for kept in ({"mamv": 5}, {"psi": 0, "mamv": 0}, {"qi": 1}):
        assert _names(no_queue | kept, "7.2.1") is None
    assert _names(no_queue, "6.1.0") is None
    assert _names(no_queue | {"cm": 1}, "7.2.1") == "hint-in-address-mask"
    for case in ({"cm": 1}, {"cm": 1, "mamv": 5}):
        assert _names(no_queue | case, "6.1.0") == "address-zero-not-written"
    assert _names(no_queue | {"cm": 1, "mamv": 5}, "7.2.1") == "address-zero-not-written"


def _names(fields: dict[str, int], release: str) -> str | None:
    fault = random_cell("x", fields).expected(release)
    return None if fault is None else fault.name


def test_units_that_lie_say_what_they_do_not_keep_to() -> None:
    lying = {name: cell for name, cell in random_cells(0, 0).items() if name.startswith("lie:")}
    assert set(lying) == {f"lie:{name}" for name in LIES}
    for cell in lying.values():
        (unit,) = assemble(read_machine(cell.boot.machine)).units
        fields = {**_fields(unit.capabilities.cap), **_fields(unit.capabilities.ecap)}
        assert any(fields[name] != value for name, value in cell.boot.lies.items())
        assert cell.noticed
    many = assemble(read_machine(lying["lie:nd"].boot.machine)).platform.topology
    assert len(list(many.functions())) > 16
    assert Bdf.parse("00:15.0") in {many.bdf(each) for each in many.functions()}


def _fields(register: object) -> dict[str, int]:
    names = type(register).FIELDS  # type: ignore[attr-defined]
    return {name: int(getattr(register, name)) for name in names}
