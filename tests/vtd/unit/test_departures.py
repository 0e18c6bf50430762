"""Departures: named, combined, and each of them alone makes the unit do what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reference_data import CAPTURES, VECTORS
from vtd.recordings.capture import Capture
from vtd.recordings.replay import Report, run_scenario
from vtd.recordings.replay_capture import run_capture
from vtd.recordings.scenario import COMPRESSED, Scenario, load_scenario
from vtd.unit.departures import FLAGS, QEMU, SETS, SPECIFICATION, Departures, departures_named

NAMES = [each.name for each in FLAGS]
sets_of_names = st.sets(st.sampled_from(NAMES))


@given(one=sets_of_names, other=sets_of_names)
def test_names_stand_for_flags_and_add_up(one: set[str], other: set[str]) -> None:
    first, second = departures_named(one), departures_named(other)
    assert set(first.names) == one
    assert first | second == departures_named(one | other)
    assert all(getattr(first, name) == (name in one) for name in NAMES)
    assert first | SPECIFICATION == first
    assert first | QEMU == QEMU


def test_a_set_has_a_name_too() -> None:
    assert {name: departures_named([name]) for name in SETS} == SETS
    assert QEMU.names == tuple(NAMES)
    assert Departures() == SPECIFICATION
    assert departures_named([]) == SPECIFICATION


def test_what_is_no_departure_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'aw' is no departure: specification, qemu, ignore_aw"):
        departures_named(["compress_faults", "aw"])


Replay = Callable[[Departures], Report]


def recorded(folder: Path, pattern: str) -> list[Replay]:
    """Replays of the recorded files whose name matches."""

    def capture(path: Path) -> Replay:
        return lambda departures: run_capture(Capture.load(path), departures=departures)

    def vector(path: Path) -> Replay:
        scenario = Scenario.parse(load_scenario(path))
        return lambda departures: run_scenario(path.name, scenario, departures=departures)

    return [
        capture(path) if path.is_dir() else vector(path)
        for path in sorted(folder.iterdir())
        if fnmatch(path.name.split(".")[0], pattern)
    ]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [(each.name, pattern) for each in FLAGS for pattern in each.needed_by],
)
def test_recorded_files_need_what_is_said_of_them_and_nothing_else_replaces_it(
    name: str, pattern: str
) -> None:
    replays = recorded(VECTORS, pattern) + recorded(CAPTURES, pattern)
    without = replace(QEMU, **{name: False})
    assert replays
    assert any(replay(without).mismatches for replay in replays)
    assert not any(replay(QEMU).mismatches for replay in replays)


@pytest.mark.slow
def test_no_recorded_file_needs_what_is_not_said_of_it() -> None:
    for path in sorted((*VECTORS.iterdir(), *CAPTURES.iterdir())):
        name = path.name.split(".")[0]
        if name == "FORMAT":
            continue
        (replay,) = recorded(path.parent, name)
        if not replay(COMPRESSED).mismatches or replay(QEMU).mismatches:
            continue  # needs no flag, or is none of QEMU's
        for each in FLAGS:
            if not any(fnmatch(name, pattern) for pattern in each.needed_by):
                assert not replay(replace(QEMU, **{each.name: False})).mismatches, (name, each.name)


def test_what_the_specification_leaves_open_departs_from_nothing() -> None:
    assert [each.name for each in FLAGS if each.permitted] == [
        "resume_with_tail", "compress_faults",
    ]  # fmt: skip
