"""Captures of Linux replay without a mismatch; what is altered is found, what is broken refused."""

import gzip
import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from devices.dma import Request
from pagetables.images import ImageError
from tests.support.reference_data import CAPTURES, capture_folders
from tests.vtd.recordings.small_capture import SmallCapture
from vtd.recordings.capture import Capture, CaptureError
from vtd.recordings.replay_capture import replay_capture, run_capture
from vtd.recordings.values import Json
from vtd.unit.departures import QEMU
from vtd.unit.unit import RemappingUnit

FAULTS = CAPTURES / "edu-faults-legacy48"
FIRST_STAGE = CAPTURES / "sm-first-stage"
STRICT = CAPTURES / "legacy48-strict"


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda folder: folder.name)
def test_every_capture_matches(folder: Path) -> None:
    report = replay_capture(folder)
    assert report.mismatches == []
    assert report.passed == report.steps > 1000


def test_what_needs_the_recorded_departures() -> None:
    needed = {each.name for each in capture_folders() if replay_capture(each).as_recorded}
    assert needed == {"edu-faults-legacy48", "sm-first-stage"}


@pytest.mark.parametrize(
    "made",
    [
        SmallCapture(),
        SmallCapture(scalable=True),
        SmallCapture(scalable=True, first_stage=True),
        SmallCapture(remapping="off"),
        SmallCapture(scalable=True, remapping="off"),
        SmallCapture(remapping="disabled"),
        SmallCapture(translation=False),
        SmallCapture(translation=False, remapping="off"),
    ],
    ids=repr,
)
def test_captures_with_pass_through_or_without_a_part_match(
    tmp_path: Path, made: SmallCapture
) -> None:
    report = replay_capture(made.write(tmp_path / "capture"))
    assert report.mismatches == []
    assert report.passed == report.steps > 0
    table = "interrupts.json: no table"
    assert (table in report.not_compared) == (made.remapping != "on")
    assert "probes.json.gz: not there" in report.not_compared


def test_captures_with_every_part_leave_nothing_out() -> None:
    assert replay_capture(STRICT).not_compared == []


def test_an_altered_pass_through_source_is_found(tmp_path: Path) -> None:
    folder = SmallCapture(scalable=True).write(tmp_path / "capture")
    truth = read(folder / "mappings.json.gz")
    truth["sources"][1]["kind"] = "second-stage"
    write(folder / "mappings.json.gz", truth)
    assert mismatches(folder) == ["sources"]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A capture that a test may alter."""
    shutil.copytree(FAULTS, tmp_path / "capture")
    return tmp_path / "capture"


def read(path: Path) -> Json:
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def write(path: Path, value: Json) -> None:
    raw = json.dumps(value).encode()
    path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)


def events(folder: Path) -> list[Json]:
    lines = gzip.decompress((folder / "events.jsonl.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


def write_events(folder: Path, lines: Iterable[Json]) -> None:
    text = "\n".join(map(json.dumps, lines))
    (folder / "events.jsonl.gz").write_bytes(gzip.compress(text.encode(), 1))


def mismatches(folder: Path) -> list[str]:
    report = run_capture(Capture.load(folder), departures=QEMU)
    assert report.passed + len(report.mismatches) == report.steps
    return [mismatch.op.split()[0] for mismatch in report.mismatches]


@pytest.mark.parametrize(
    ("kind", "position"), [("r", -1), ("wait", -1), ("irq", -1), ("frcd", -1), ("msi", 4)]
)
def test_an_altered_line_of_the_log_is_found(copied: Path, kind: str, position: int) -> None:
    lines = events(copied)
    altered = next(line for line in reversed(lines) if line[0] == kind and line[position])
    altered[position] ^= 1
    write_events(copied, lines)
    assert mismatches(copied) == [kind]


@pytest.mark.parametrize("kind", ["wait", "irq", "frcd"])
def test_what_the_unit_did_and_the_log_does_not_tell_is_found(copied: Path, kind: str) -> None:
    lines = events(copied)
    lines.remove(next(line for line in reversed(lines) if line[0] == kind))
    write_events(copied, lines)
    assert mismatches(copied) == [kind]


def test_what_the_log_tells_and_the_unit_did_not_is_found(copied: Path) -> None:
    write_events(copied, [*events(copied), ["irq", 0, 0]])
    assert mismatches(copied) == ["irq"]


def test_an_altered_register_is_found(copied: Path) -> None:
    manifest = read(copied / "capture.json")
    manifest["registers"]["FEDATA"] = "0x77"
    write(copied / "capture.json", manifest)
    assert mismatches(copied) == ["register"]


def test_altered_mappings_are_found(copied: Path) -> None:
    path = copied / "mappings.json.gz"
    truth = read(path)
    table = next(table for table in truth["tables"].values() if table["leaves"])
    owners = sum(truth["tables"].get(source.get("table")) is table for source in truth["sources"])
    table["leaves"][0][2] = "0xdead000"
    table["leaves"].pop()
    write(path, truth)
    assert mismatches(copied) == ["leaf", "leaf"] * owners
    truth["sources"][0]["kind"] = "nested"
    write(path, truth)
    assert mismatches(copied)[0] == "sources"


def test_an_altered_probe_is_found(copied: Path) -> None:
    path = copied / "probes.json.gz"
    probes = read(path)
    table = next(iter(probes["tables"].values()))
    table[0][2] = "0x1000"
    write(path, probes)
    assert mismatches(copied) == ["probe"]


def test_an_altered_interrupt_is_found(copied: Path) -> None:
    path = copied / "interrupts.json"
    truth = read(path)
    truth["table"]["irtes"][0]["lo"] = "0x0000000000000001"
    remapped = next(each for each in truth["observed"] if each["irte"])
    remapped["out"][1] = "0x4001"
    write(path, truth)
    assert mismatches(copied) == ["irte", "msi"]


def test_the_trace_hears_of_every_probe() -> None:
    heard: list[int] = []

    def trace(unit: RemappingUnit, step: str, request: Request) -> None:
        heard.append(request.address)

    run_capture(Capture.load(STRICT), trace=trace)
    probes = read(STRICT / "probes.json.gz")["tables"]
    assert heard == [int(probe[0], 16) for table in probes.values() for probe in table]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mappings.json.gz", {}),
        ("mappings.json.gz", {"mode": "legacy", "sources": 3, "tables": {}}),
        ("mappings.json.gz", []),
        ("probes.json.gz", {"tables": {"second:4:0x1": []}}),
        ("probes.json.gz", {"tables": []}),
        ("interrupts.json", {"table": {"irtes": [{"index": 1 << 60}]}}),
        ("interrupts.json", {"table": {"irtes": []}, "observed": [{}]}),
        ("interrupts.json", None),
    ],
)
def test_a_part_of_another_form_is_refused(copied: Path, name: str, value: Json) -> None:
    write(copied / name, value)
    with pytest.raises(CaptureError, match=name.split(".", maxsplit=1)[0]):
        replay_capture(copied)


@pytest.mark.parametrize(
    "line",
    [
        ["fault", 8, 0xEE, 0, 0],
        ["fault", 1 << 20, 5, 0, 0],
        ["w", 0x20, 8, 1 << 64],
        ["w", 0x20, 8, "x"],
        ["r", "x", 8, 0],
        ["msi", "x", 0, 0, 0, None, 1],
        ["msi", 0xFEE00000, 0, 0, 0, [1, 2], 1],
        ["iq", 1],
    ],
)
def test_a_line_that_can_not_be_is_refused(copied: Path, line: Json) -> None:
    write_events(copied, [["w", 0x88, 4, 0], line])
    with pytest.raises(CaptureError, match="events"):
        replay_capture(copied)


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_ends_in_a_report_or_a_refusal(copied: Path, seed: int) -> None:
    generator = random.Random(seed)
    names = ["capture.json", "DMAR.bin", "index.json", "interrupts.json", "pages.bin.gz"]
    names += ["events.jsonl.gz", "mappings.json.gz", "probes.json.gz", "topology.json.gz"]
    path = copied / generator.choice(names)
    raw = path.read_bytes()
    data = bytearray(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    for _ in range(generator.choice([1, 8])):
        data[generator.randrange(len(data))] = generator.choice(b'09afx"[]{},\x00')
    path.write_bytes(gzip.compress(bytes(data), 1) if path.suffix == ".gz" else bytes(data))
    try:
        report = replay_capture(copied)
    except (CaptureError, ImageError) as error:
        assert str(copied) in str(error)
    else:
        assert report.passed + len(report.mismatches) == report.steps
