"""Verdicts of cells, their choice by name, and results that are kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vtd.live.test_judgement import EDU, outcome
from vtd.live.boot import Blocked
from vtd.live.boot import Verdict as Check
from vtd.live.cells import all_cells
from vtd.live.linux_faults import UNALIGNED
from vtd.live.matrix import Result, Verdict, chosen, judge, read_results

CELLS = all_cells()
CELL = CELLS["legacy48-strict"]
FIRST = CELLS["scalable-first-only"]
BROKEN = CELLS["broken:wrong-entry"]
UNALIGNED_CHECK = Check("vfio unaligned unmap", "FAILED", "the device reads 0x70004000")
OTHER_CHECK = Check("nvme nvme0n1 512", "FAILED", "differs")


def bad(*checks: Check) -> object:
    return outcome(verdicts=[Check("units", "ok"), *checks])


def test_a_cell_passes_if_nothing_is_found() -> None:
    assert judge(CELL, "6.1.0", outcome())[0] is Verdict.PASSED
    verdict, found, unexpected = judge(CELL, "6.1.0", outcome(verdicts=[OTHER_CHECK]))
    assert verdict is Verdict.FAILED
    assert found == unexpected == ["check nvme nvme0n1 512: differs"]
    assert judge(CELL, "6.1.0", outcome(verdicts=[]))[2] == ["no check was run"]


def test_a_known_fault_has_to_show_and_nothing_else() -> None:
    shows = outcome(verdicts=[Check("units", "ok"), UNALIGNED_CHECK])
    assert judge(FIRST, "6.1.0", shows)[0] is Verdict.LINUX
    assert judge(FIRST, "7.2.1", shows)[0] is Verdict.FAILED
    both = outcome(verdicts=[UNALIGNED_CHECK, OTHER_CHECK])
    assert judge(FIRST, "6.1.0", both)[2] == ["check nvme nvme0n1 512: differs"]
    verdict, _, unexpected = judge(FIRST, "6.1.0", outcome())
    assert verdict is Verdict.FAILED
    assert unexpected == [f"the Linux fault {UNALIGNED.name} does not show"]
    assert judge(replace(FIRST, certain=False), "6.1.0", outcome())[0] is Verdict.PASSED
    assert judge(FIRST, "6.1.0", outcome(verdicts=[]))[2] == ["no check was run"]


def test_what_may_come_of_a_fault_does_not_prove_that_it_is_the_cause() -> None:
    no_disk = outcome(verdicts=[Check("units", "ok"), Check("nvme", "FAILED", "no disk")])
    cell = CELLS["first-without-second"]
    verdict, found, unexpected = judge(cell, "7.2.1", no_disk)
    assert (verdict, found) == (Verdict.FAILED, ["check nvme: no disk"])
    assert unexpected == ["the Linux fault aw-without-second-stage does not show"]
    no_disk.console = "DMAR: [DMA Read NO_PASID] Request device [00:05.0] [fault reason 0x5a]"
    assert judge(cell, "7.2.1", no_disk)[2] == []


def test_what_a_unit_recorded_proves_a_fault_that_the_kernel_left_out() -> None:
    """A kernel prints some of many faults, and on a busy host none of one kind."""
    cell = CELLS["pci-bridge-scalable"]
    failed = Check("vfio mapped", "FAILED", "the device does not find what is mapped")
    boot = outcome(verdicts=[Check("units", "ok"), failed])
    assert judge(cell, "7.2.1", boot)[2] == ["the Linux fault scalable-bridge-alias does not show"]
    boot.blocked.append(Blocked(EDU, 0x1000, 0x41, interrupt=False))
    assert judge(cell, "7.2.1", boot)[0] is Verdict.LINUX


def test_a_fault_that_shows_more_often_than_is_listed_is_still_the_known_one() -> None:
    stale = [f"use {each}: missing page-selective p_iotlb_inv" for each in range(90)]
    verdict, found, unexpected = judge(FIRST, "6.1.0", outcome(audited=stale))
    assert (verdict, unexpected) == (Verdict.LINUX, [])
    assert found[-1] == "and 70 more like these"
    verdict, _, unexpected = judge(FIRST, "6.1.0", outcome(audited=[*stale, "something else"]))
    assert (verdict, unexpected) == (Verdict.FAILED, ["something else"])


def test_a_negative_control_has_to_find_something() -> None:
    assert judge(BROKEN, "6.1.0", outcome(verdicts=[OTHER_CHECK]))[0] is Verdict.NOTICED
    assert judge(BROKEN, "6.1.0", outcome()) == (Verdict.FAILED, [], ["nothing noticed"])


def test_cells_are_chosen_by_pattern() -> None:
    assert chosen(CELLS, []) == list(CELLS.values())
    assert {cell.name for cell in chosen(CELLS, ["ats*", "intx"])} == {
        *("ats", "ats-scalable", "intx"),
    }
    with pytest.raises(ValueError, match=r"'nothing\*': no cell of this name, see --list$"):
        chosen(CELLS, ["intx", "nothing*"])
    with pytest.raises(ValueError, match=r"'at-scalable': no cell .*, perhaps ats-scalable"):
        chosen(CELLS, ["at-scalable"])


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    result = Result("intx", "6.1.0", 2, Verdict.FAILED, 3, ("a", "b"), ("b",), 5, 7, 20.5, "about")
    path = tmp_path / "results.jsonl"
    assert list(read_results(path)) == []
    path.write_text(json.dumps(result.to_json()) + "\n")
    assert list(read_results(path)) == [result]
    assert result.key == ("intx", "6.1.0", 2)
    for line in ("[", "{}", '{"verdict": "passed"}', "3"):
        path.write_text(line)
        with pytest.raises(ValueError, match=r"results\.jsonl: line 1: no result: "):
            list(read_results(path))
