"""Every scenario replays without a mismatch; altered ones are found, broken ones refused."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reference_data import VECTORS, name_of, vector_files
from vtd.recordings.replay import replay, run_scenario
from vtd.recordings.scenario import Scenario, load_scenario
from vtd.recordings.values import Json, ScenarioError
from vtd.unit.departures import QEMU

SMALL = [
    VECTORS / f"{name}.json.gz"
    for name in (
        "ir_basic",
        "legacy_disable_enable",
        "qi_wait_status",
        "sm_fs_4k",
        "spec_zero_length_ss",
    )
]


@pytest.mark.parametrize("path", vector_files(), ids=name_of)
def test_every_vector_matches(path: Path) -> None:
    report = replay(path)
    assert report.mismatches == []
    assert report.passed == report.steps > 0


def test_a_unit_with_all_that_qemu_departs_in_does_what_was_recorded() -> None:
    """Not only where the specification's outcome is another one."""
    for path in vector_files():
        if str(load_scenario(path)["oracle"]).startswith("QEMU"):
            assert replay(path, departures=QEMU).mismatches == [], path


def test_only_recorded_files_fall_back_on_what_was_recorded() -> None:
    for path in vector_files():
        if not path.name.startswith("spec_"):
            continue
        assert not str(load_scenario(path)["oracle"]).startswith("QEMU"), path


@pytest.mark.parametrize("path", SMALL, ids=name_of)
def test_an_altered_expectation_is_a_mismatch_of_that_step(path: Path) -> None:
    scenario = load_scenario(path)
    report = replay(path)
    for number, step in enumerate(scenario["steps"]):
        if "expect" not in step:
            continue
        altered = copy.deepcopy(scenario)
        altered["steps"][number]["expect"] = {"something": "else"}
        departures = QEMU if report.as_recorded else None
        found = run_scenario("altered", Scenario.parse(altered), departures=departures)
        assert [each.step for each in found.mismatches] == [number]
        assert found.mismatches[0].op == step["op"]
        assert found.mismatches[0].expect == {"something": "else"}
        assert found.passed == found.steps - 1


def test_an_unknown_operation_is_refused() -> None:
    scenario = load_scenario(SMALL[0])
    scenario["steps"] = [{"op": "dance", "expect": None}]
    with pytest.raises(ScenarioError, match="step 0: op: 'dance' is no operation"):
        Scenario.parse(scenario)


def test_the_trace_hears_of_each_page_of_each_dma() -> None:
    heard: list[tuple[str, int]] = []
    scenario = load_scenario(VECTORS / "legacy_cross_page.json.gz")
    run_scenario(
        "traced",
        Scenario.parse(scenario),
        trace=lambda unit, step, request: heard.append((step, request.address)),
    )
    steps = {int(step.split()[1]) for step, _ in heard}
    assert steps == {
        number
        for number, step in enumerate(scenario["steps"])
        if step["op"] in ("dma_read", "dma_write")
    }
    assert len(heard) > len(steps)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b"{", "can't be read"),
        ("a.json", b"[1]", "format"),
        ("a.json", b'{"format": 2}', "format"),
        ("a.json", b"\xff\xfe", "can't be read"),
        ("a.json.gz", b"not gzip", "can't be read"),
        ("a.json.gz", gzip.compress(b'{"format": 1}', mtime=0)[:-6], "can't be read"),
        ("a.json", b'{"format": 1}', "'steps' is missing"),
        ("a.json", b"[" * 100_000, "can't be read"),
    ],
)
def test_what_is_no_scenario_is_refused(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match=says):
        replay(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nothing\.json: can't be read: No such file"):
        replay(tmp_path / "nothing.json")


def places(value: Json, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value inside."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [way] + [found for key, item in inner for found in places(item, (*way, key))]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 65), 1 << 65),
    st.text(max_size=5),
    st.sampled_from(["0x1000", "0xfee00000", "-0x1", "00", "zz"]),
    st.lists(st.integers(0, 9), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)


@given(data=st.data(), value=values, remove=st.booleans())
def test_whatever_a_file_holds_ends_in_a_report_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, value: Json, remove: bool
) -> None:
    scenario = load_scenario(SMALL[data.draw(st.integers(0, len(SMALL) - 1))])
    scenario["steps"] = scenario["steps"][:40]
    way = data.draw(st.sampled_from(places(scenario)[1:]))
    target = scenario
    for key in way[:-1]:
        target = target[key]
    if remove:
        del target[way[-1]]
    else:
        target[way[-1]] = value
    path = tmp_path_factory.mktemp("fuzz") / "scenario.json"
    path.write_text(json.dumps(scenario))
    try:
        report = replay(path)
    except ScenarioError as error:
        assert str(path) in str(error)
    else:
        assert report.passed + len(report.mismatches) == report.steps
