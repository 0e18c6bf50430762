"""Live recordings replay without a difference, under every policy; what is altered is found."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices.dma import PageRequest
from tests.support.reference_data import name_of, recordings
from tests.support.world import capabilities
from tests.vtd.recordings.recorded_machine import (
    DATA,
    FIRST,
    SECOND,
    TABLE,
    RecordedMachine,
    parsed,
    work,
)
from vtd.dmar.description import build
from vtd.recordings.live import LiveHead, begins_live, is_live, open_live_file
from vtd.recordings.replay_live import LiveRun, live_run, replay_live
from vtd.recordings.values import ScenarioError
from vtd.software.domain import FIRST_STAGE
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, POLICIES, CachePolicy
from vtd.unit.departures import SPECIFICATION
from vtd.unit.implementation import implementation_registers
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES, Capabilities

PASID = 5
STALE = next(path for path in recordings() if "stale-first" in path.name)
LEGACY = next(path for path in recordings() if "legacy39" in path.name)


@pytest.mark.parametrize("policy", ["default", "aggressive", "late"])
@pytest.mark.parametrize("path", recordings(), ids=name_of)
def test_every_recording_matches_whatever_is_cached(path: Path, policy: str) -> None:
    report = replay_live(path, caches=POLICIES[policy])
    assert report.mismatches == []
    assert report.not_compared == []
    assert report.passed == report.steps > 1900


@pytest.mark.parametrize("caches", [KEEPS_STALE, AGGRESSIVE])
@pytest.mark.parametrize("has", [capabilities(), PROFILES["qemu"], PROFILES["xeon"]], ids=str)
def test_what_is_recorded_here_matches(
    tmp_path: Path, has: Capabilities, caches: CachePolicy
) -> None:
    machine = RecordedMachine(has, caches)
    work(machine)
    kinds = {line[0] for line in parsed(machine)[1:]}
    assert kinds == {"m", "u", "r", "w", "d", "i"}
    report = replay_live(machine.write(tmp_path / "made.jsonl.gz"))
    assert report.mismatches == []
    assert report.passed == report.steps > 50


def test_requests_go_to_the_unit_that_the_table_gives_them(tmp_path: Path) -> None:
    machine = RecordedMachine()
    work(machine)
    run = live_run(machine.write(tmp_path / "made.jsonl.gz"))
    assert [run.unit_of(each) for each in (FIRST, SECOND, 0x0100)] == [
        run.units[number] for number in (0, 1, 1)
    ]


def test_the_recorded_departures_are_needed() -> None:
    report = replay_live(STALE, departures=SPECIFICATION)
    assert report.mismatches[0].op == "d 00:05.0 0xffffe000"  # AW with SSTS = 0: fault 5Ah
    assert report.counted_by == "line"


def test_lines_up_to_one_leave_the_state_before_it() -> None:
    whole, part = live_run(STALE), live_run(STALE, until=4)
    assert part.units[0].remapping.root == 0 != whole.units[0].remapping.root


def test_registers_that_the_head_does_not_tell_are_those_that_software_read() -> None:
    counters = next(path for path in recordings() if "k7-pmu" in path.name)
    with open_live_file(counters) as (head, _):
        (constants,) = head.constants
    assert constants is not None
    assert constants[0x390] == 0xFF  # events of the first group, then
    assert implementation_registers(head.units[0])[0x390] == 0x3FF


def change(source: Path, target: Path, number: int, make: Callable[[Any], Any]) -> Path:
    """A copy of a recording with one line made anew."""
    lines = gzip.decompress(source.read_bytes()).decode().splitlines()
    lines[number - 1] = json.dumps(make(json.loads(lines[number - 1])))
    target.write_bytes(gzip.compress("\n".join(lines).encode()))
    return target


@pytest.mark.parametrize(
    ("line", "value", "op"),
    [
        (7, 0, "r 0x10"),
        (9, 0x1000, "d 00:05.0 0x3ffdd000"),
        (9, None, "d 00:05.0 0x3ffdd000"),
    ],
)
def test_an_altered_line_is_found(tmp_path: Path, line: int, value: Any, op: str) -> None:
    path = change(LEGACY, tmp_path / "altered.jsonl.gz", line, lambda old: [*old[:-1], value])
    (mismatch,) = replay_live(path).mismatches
    assert mismatch[:3] == (line, op, value)
    report = replay_live(path).to_json()
    assert report["mismatches"] == [
        {"line": line, "op": op, "expect": value, "got": mismatch.got},
    ]


@pytest.mark.parametrize("kind", ["u", "e"])
def test_stores_and_messages_that_are_missing_or_too_many_are_found(
    tmp_path: Path, kind: str
) -> None:
    lines = gzip.decompress(LEGACY.read_bytes()).decode().splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith(f'["{kind}"'))
    (tmp_path / "less.jsonl").write_text("\n".join(lines[:number] + lines[number + 1 :]))
    (tmp_path / "more.jsonl").write_text(
        "\n".join([*lines[:number], lines[number], *lines[number:]])
    )
    (less,) = replay_live(tmp_path / "less.jsonl").mismatches
    (more,) = replay_live(tmp_path / "more.jsonl").mismatches
    assert (less.op, less.expect) == (kind, None)
    assert (more.op, more.got) == (kind, None)


def test_memory_that_the_recording_lacks_can_not_be_read(tmp_path: Path) -> None:
    lines = gzip.decompress(LEGACY.read_bytes()).decode().splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith('["m"'))
    del lines[number]
    (tmp_path / "less.jsonl").write_text("\n".join(lines))
    report = replay_live(tmp_path / "less.jsonl")
    assert report.mismatches
    assert "reads of memory that the recording does not have" in report.not_compared[0]


HEAD = json.loads(gzip.decompress(LEGACY.read_bytes()).decode().splitlines()[0])
UNIT = HEAD["units"][0]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"format": "live-2"}, "line 1: format: 'live-2' is not live-1"),
        ({"units": []}, "line 1: units: 0, but the table has 1 DRHD structures"),
        ({"units": [UNIT, UNIT]}, "line 1: units: 2, but the table has 1 DRHD structures"),
        ({"units": [{**UNIT, "cap": "x"}]}, "line 1: cap: 'x' is no number"),
        ({"units": [{**UNIT, "cap": "0x0"}]}, "line 1: unit 0: "),
        ({"caches": "some"}, "line 1: caches: 'some' is none of default, aggressive, late, off"),
        ({"dmar_hex": "00"}, "line 1: dmar_hex: "),
        ({"dmar_hex": "zz"}, "line 1: dmar_hex: 'zz' holds no bytes in hexadecimal"),
        ({"departures": ["none"]}, "line 1: departures: 'none' is no departure"),
    ],
)
def test_a_head_that_lies_is_refused(tmp_path: Path, head: dict[str, Any], message: str) -> None:
    path = tmp_path / "lying.jsonl"
    path.write_text(json.dumps({**HEAD, **head}) + "\n")
    with pytest.raises(ScenarioError) as raised:
        replay_live(path)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[", "not JSON"),
        ("{}", "not an array that begins with a letter"),
        ("[]", "not an array that begins with a letter"),
        ('["x", 1]', "'x' is none of m, u, r, w, d, t, p, i, e"),
        ('["m", 0, 8]', "m: 2 values instead of 3"),
        ('["m", -1, 8, 0]', "address: -1 is no number"),
        ('["m", 0, 65, 0]', "size: 65 is no number from 1 to 0x40"),
        ('["m", 0, 1, 256]', "value: 256 is no number from 0 to 0xff"),
        ('["m", 4503599627370495, 8, 0]', "address: "),
        ('["m", true, 8, 0]', "address: True is no number"),
        ('["u", 1, 0, 4, 0]', "1 is no string"),
        ('["r", 1, 0, 4, 0]', "unit: 1 is no number from 0 to 0x0"),
        ('["w", 0, 0, 16, 0]', "size: 16 is no number"),
        ('["w", 0, 0, 4, 4294967296]', "value: 4294967296 is no number"),
        ('["d", 65536, 0, 1, 0]', "source-id: 65536 is no number"),
        ('["d", 0, 0, 4, 0]', "access: 4 is no number from 1 to 0x3"),
        ('["d", 0, 0, 1, "0"]', "physical: '0' is no number"),
        ('["t", 0, 0, 1, 8, 1048576, 0, 1, 0, 0]', "PASID: 1048576 is no number"),
        ('["t", 0, 0, 1, 8, null, 2, 1, 0, 0]', "2 is neither true nor false"),
        ('["t", 0, 0, 1, 8, null, 0, 4, 0, 0]', "address type: 4 is no number"),
        ('["t", 0, 0, 0, 8, null, 0, 1, 0, 0]', "access: 0 is no number"),
        ('["t", 0, 0, 1, 99999999, null, 0, 1, 0, 0]', "length: 99999999 is no number"),
        ('["p", 0, 0, 1, 1, 512, 1, null, 0, 0, 1]', "group: 512 is no number"),
        ('["p", 0, 0, 1, 1, 1, 1, -1, 0, 0, 1]', "PASID: -1 is no number"),
        ('["p", 0, 0, 1, 1, 1, 1, null, 0, 0, "x"]', "'x' is neither true nor false"),
        ('["i", 0, 0, 0, 1]', "delivered: 1 is neither true nor false"),
        ('["e", 0, 0, 4294967296]', "data: 4294967296 is no number"),
    ],
)
def test_a_line_that_lies_is_refused_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "lying.jsonl"
    path.write_text(json.dumps(HEAD) + "\n\n" + line + "\n")
    with pytest.raises(ScenarioError) as raised:
        replay_live(path)
    assert str(raised.value).startswith(f"line 3: {message}")


def test_a_cut_file_is_refused_where_it_ends(tmp_path: Path) -> None:
    raw = LEGACY.read_bytes()
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(raw[: len(raw) // 2])
    assert is_live(path)
    with pytest.raises(ScenarioError, match=r"^line \d+: the compressed file is cut"):
        replay_live(path)
    path.write_bytes(b"")
    with pytest.raises(ScenarioError, match=r"^empty: no recording"):
        replay_live(path)


def test_what_is_no_recording_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for content in (b"", b"{}", b'["m", 1]', b"\x1f\x8b", b'{"format": 1}', b"live-1"):
        path.write_bytes(content)
        assert not is_live(path)
    assert not is_live(tmp_path)
    assert begins_live(b' {"cell": "x", "format" : "live-7"')


def test_damaged_recordings_end_with_an_error_or_a_report(tmp_path: Path) -> None:
    chance = random.Random(7)
    lines = gzip.decompress(LEGACY.read_bytes()).decode().splitlines()[:400]
    path = tmp_path / "damaged.jsonl"
    refused = 0
    for _ in range(150):
        damaged = lines[:]
        for _ in range(3):
            at = chance.randrange(len(damaged))
            text = list(damaged[at])
            text[chance.randrange(len(text))] = chance.choice('0123456789[]{}",-.eEtn \0')
            damaged[at] = "".join(text)
        path.write_text("\n".join(damaged))
        try:
            replay_live(path)
        except ScenarioError as error:
            assert str(error).startswith("line ")
            refused += 1
    assert 0 < refused < 150


def test_a_run_is_told_of_requests_before_they_are_made() -> None:
    told: list[str] = []
    replay_live(LEGACY, lambda unit, step, request: told.append(step))
    assert told[:2] == ["line 9", "line 10"]
    assert len(told) == 1859


def test_a_requester_that_no_unit_covers_is_named(tmp_path: Path) -> None:
    raw, *lines = parsed(RecordedMachine())
    alone = build(TABLE.replace('flags = ["include_pci_all"]', ""))
    path = tmp_path / "uncovered.jsonl"
    request = ["d", 0x0123, 0, 1, 0]
    path.write_text(
        "\n".join(map(json.dumps, [{**raw, "dmar_hex": alone.pack().hex()}, *lines, request]))
    )
    with pytest.raises(ScenarioError, match=r"source-id: no unit covers 01:04.3"):
        replay_live(path)


BEHIND = """
[header]
address_bits = 48
[[structure]]
type = "DRHD"
register_base = 0xfd000000
[[structure.scope]]
type = "pci_sub_hierarchy"
path = ["4.0"]
[[structure]]
type = "DRHD"
register_base = 0xfd010000
flags = ["include_pci_all"]
"""


def test_bridges_that_a_recording_tells_of_say_whose_a_function_is() -> None:
    unit = {"version": 16, "cap": "0x80d2008c222f0606", "ecap": "0xf00f4a"}
    unit = {**unit, "host_address_width": 48}
    table = build(BEHIND).pack().hex()
    head = {"format": "live-1", "dmar_hex": table, "units": [unit, unit], "caches": "default"}
    told = LiveRun(LiveHead.parse({**head, "bridges": {"0000:00:04.0": 1}}))
    untold = LiveRun(LiveHead.parse(head))
    for source_id, number in ((0x0100, 0), (0x0020, 0), (0x0028, 1)):
        assert told.unit_of(source_id) is told.units[number]
    assert untold.unit_of(0x0100) is untold.units[1]
    with pytest.raises(ScenarioError, match="bridges"):
        LiveHead.parse({**head, "bridges": {"nowhere": 1}})


def test_requests_of_device_tlbs_and_with_pasids_replay_too(tmp_path: Path) -> None:
    machine = RecordedMachine()
    driver, unit = machine.drivers[0], machine.units[0]
    driver.start()
    plain, tagged = driver.domain(), driver.domain(FIRST_STAGE)
    driver.attach(FIRST, plain, page_requests=True)
    driver.attach(FIRST, tagged, PASID, page_requests=True)
    port = UnitPort(unit, machine.memory, FIRST)
    for domain in (plain, tagged):
        domain.map(0x7000_0000, DATA, 0x3000)
    assert len(port.translate(0x7000_0000, 3).entries) == 3
    assert len(port.translate(0x7000_1000, 1, pasid=PASID, no_write=True).entries) == 1
    assert port.read_translated(DATA + 0x1000, 4).ok
    assert port.write(0x7000_2000, b"word", pasid=PASID).ok
    assert not port.write(0x7000_3000, b"word", pasid=PASID).ok
    message = PageRequest(0x7000_3000, True, True, 1, True, PASID)
    port.page_request(message)
    plain.unmap(0x7000_0000, 0x1000)
    assert port.translate(0x7000_0000).entries[0].r is False
    kinds = [line[0] for line in parsed(machine)[1:]]
    assert [kind for kind in kinds if kind in "tp"] == ["t"] * 5 + ["p", "t"]
    report = replay_live(machine.write(tmp_path / "made.jsonl.gz"))
    assert report.mismatches == []
    lines = [json.loads(line) for line in machine.lines]
    number = kinds.index("t") + 1
    lines[number][-1] = "UR"
    (tmp_path / "altered.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (mismatch,) = replay_live(tmp_path / "altered.jsonl").mismatches
    assert (mismatch.step, mismatch.op) == (number + 1, "t 00:02.0 0x70000000")
