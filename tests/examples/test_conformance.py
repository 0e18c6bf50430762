"""Cases of the conformance page: right on the engine, wrong with the departure that they show."""

import json
from pathlib import Path

import pytest

from vtd.recordings.replay import replay
from vtd.unit.departures import Departures

FOLDER = Path(__file__).parents[2] / "examples" / "conformance"
PAGE = (FOLDER.parents[1] / "docs" / "conformance.md").read_text()
FLAGS = {
    "silent-wait": "refuse_silent_wait",
    "pasid-mask": "limit_pasid_masks",
    "interrupt-index": "wrap_interrupt_index",
    "first-stage-width": "check_canonical_by_aw",
    "fault-address": "record_whole_address",
    "pass-beyond-width": "pass_beyond_host_width",
    "pass-through-kept": "keep_pass_through",
    "scalable-codes": "report_legacy_codes",
    "denied-hit": "drop_denied_hits",
    "absent-entry": "check_pgtt_before_present",
    "fault-disabled": "record_despite_fpd",
}
"""Departures that the engine can follow."""


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.stem)
def test_the_specification_is_what_a_case_expects(path: Path) -> None:
    report = replay(path)
    assert report.passed == report.steps
    assert any("expect" in step for step in json.loads(path.read_text())["steps"])
    assert f"| `{path.stem}` |" in PAGE


@pytest.mark.parametrize(("name", "flag"), FLAGS.items())
def test_a_departure_is_what_a_case_shows(name: str, flag: str) -> None:
    report = replay(FOLDER / f"{name}.json", departures=Departures(**{flag: True}))
    assert report.mismatches
