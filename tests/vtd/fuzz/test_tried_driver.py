"""Drivers under test: the right one passes, wrong ones are shrunk, broken ones are told."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from pagetables.build import FramePool
from vtd.cli import main
from vtd.fuzz import library_driver, time_limits, tried_driver
from vtd.fuzz.driver_protocol import (
    BrokenDriverError,
    DriverError,
    DriverMaker,
    ProcessDriver,
    driver_maker,
)
from vtd.fuzz.own_driver import OwnDriver
from vtd.fuzz.tried_driver import DriverFailure, try_driver
from vtd.software.driver import Driver
from vtd.unit.registers.capabilities import PROFILES

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "drivers"
SMALL_MASK = f"python:{EXAMPLES / 'small_mask.py'}:SmallMask"
FORGETS = f"command:{sys.executable} {EXAMPLES / 'forgets_the_iotlb.py'}"


@contextmanager
def driver(text: str) -> Iterator[DriverMaker]:
    """What makes a driver; its process is ended."""
    maker, end = driver_maker(text)
    try:
        yield maker
    finally:
        end()


@pytest.mark.parametrize("profile", ["client", "xeon", "viommu", "qemu"])
def test_the_own_driver_does_nothing_wrong(profile: str) -> None:
    failures = [try_driver(OwnDriver, PROFILES[profile], seed) for seed in range(5)]
    assert failures == [None] * 5


WAITING = {
    "cache lines": PROFILES["client"],
    "cache lines and write buffers": replace(
        PROFILES["client"], cap=PROFILES["client"].cap.replace(rwbf=True)
    ),
    "nothing": PROFILES["xeon"],
}


@pytest.mark.parametrize("waits", WAITING)
@pytest.mark.section("3.10")
def test_a_driver_that_flushes_does_nothing_wrong_where_stores_wait(waits: str) -> None:
    tried = [try_driver(OwnDriver, WAITING[waits], seed, stores_wait=True) for seed in range(3)]
    assert tried == [None] * 3


class FlushesNothing(OwnDriver):
    def make(self) -> Driver:
        pool = FramePool(self._frames.start, self._frames.stop)
        return Driver(self._registers, self._memory, pool)


@pytest.mark.parametrize("waits", WAITING)
def test_a_driver_that_flushes_nothing_is_found_where_stores_wait(waits: str) -> None:
    failure = try_driver(FlushesNothing, WAITING[waits], 0, stores_wait=True)
    assert (failure is None) == (waits == "nothing")
    if failure is not None:
        assert len(failure.operations) <= 2
        assert "read as 0x0, stored as" in failure.findings[0]
        assert "missing flush of its cache lines" in failure.findings[0] or "write" in waits


def test_a_mask_that_is_too_small_takes_three_operations() -> None:
    maker, _ = driver_maker(SMALL_MASK)
    failures = (try_driver(maker, PROFILES["xeon"], seed) for seed in range(30))
    failure = next(each for each in failures if each is not None)
    assert [each.name for each in failure.operations] == ["attach", "map", "unmap"]
    assert "missing page-selective iotlb_inv" in failure.findings[0]
    assert "stores.py" not in failure.findings[0]  # a call of the driver's own is named


def test_a_process_that_forgets_the_iotlb_takes_three_operations() -> None:
    with driver(FORGETS) as maker:
        failures = [try_driver(maker, PROFILES["client"], seed, 12) for seed in range(8)]
    failure = min(filter(None, failures), key=lambda each: len(each.operations))
    assert [each.name for each in failure.operations] == ["attach", "map", "detach"]
    assert "missing domain-selective iotlb_inv" in failure.findings[0]


def test_the_process_mended_does_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGET", "0")
    with driver(FORGETS) as maker:
        assert try_driver(maker, PROFILES["client"], 0, 12) is None


@pytest.mark.parametrize(
    "program, told",
    [
        ("import sys; sys.exit(3)", "the driver ended with 3"),
        ("print('hello', flush=True); input()", "'hello' is no JSON object"),
        ("print('{\"read\": [1]}', flush=True); input(); input()", "not a message of a driver"),
        ("print('{\"read\": [1099511627776, 8]}', flush=True); input(); input()", "no memory"),
    ],
)
def test_a_broken_process_is_a_finding(tmp_path: Path, program: str, told: str) -> None:
    script = tmp_path / "driver.py"
    script.write_text(program)
    with driver(f"command:{sys.executable} {script}") as maker:
        failure = try_driver(maker, PROFILES["client"], 0)
    assert failure is not None
    assert failure.operations == []
    assert told in failure.findings[0]


def test_the_command_tells_the_operations() -> None:
    result = CliRunner().invoke(main, ["drive", SMALL_MASK, "--format", "json"])
    assert result.exit_code == 1
    assert len(json.loads(result.output)["failure"]["operations"]) == 3
    result = CliRunner().invoke(main, ["drive", "own", "--seconds", "0"])
    assert (result.exit_code, result.output[-17:]) == (0, "nothing is known\n")
    result = CliRunner().invoke(main, ["drive", "own", "--count", "1"])
    assert (result.exit_code, result.output) == (0, "1 list of operations: nothing wrong\n")
    for wrong in (["nothing"], ["own", "--profile", "none"], ["python:absent.py:X"]):
        assert CliRunner().invoke(main, ["drive", *wrong]).exit_code == 2


ANSWERS = """
import json, sys
for line in sys.stdin:
    op = json.loads(line)["op"]
    done = {"interrupt_allocate": "three", "read_dirty": {"0": 1}}.get(op)
    print(json.dumps({"done": done}), flush=True)
"""


def test_an_answer_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(ANSWERS)
    unit: Any = None  # it is not asked for registers or memory
    with driver(f"command:{sys.executable} {script}") as maker:
        made = maker(unit, unit, 0x1000, 0x2000)
        made.reset()
        made.attach_pasid(8, 1, 1)
        made.set_dirty_tracking(1, 1)
        made.detach_pasid(8, 1)
        with pytest.raises(BrokenDriverError, match="interrupt_allocate: 'three' is no index"):
            made.interrupt_allocate(8, 0x30)
        with pytest.raises(BrokenDriverError, match=r"read_dirty: .* is no list of addresses"):
            made.read_dirty(1, 0, 0x1000)


def test_a_command_that_there_is_none_is_named(tmp_path: Path) -> None:
    with driver(f"command:{tmp_path}/absent") as maker:
        failure = try_driver(maker, PROFILES["client"], 0)
    assert failure is not None
    assert failure.findings == [f"{tmp_path}/absent: No such file or directory"]


class ForgetsDirtyPages(OwnDriver):
    """Reads and clears dirty flags, and leaves the IOTLB as it is."""

    def read_dirty(self, domain: int, address: int, length: int) -> list[int]:
        found = self._of(domain).tables.clear_dirty(address, length)
        return [page for start, size in found for page in range(start, start + size, 0x1000)]


def test_dirty_flags_that_are_cleared_need_an_invalidation() -> None:
    failures = (try_driver(ForgetsDirtyPages, PROFILES["xeon"], seed) for seed in range(30))
    failure = next(each for each in failures if each is not None)
    names = [each.name for each in failure.operations]
    assert sorted(names[:-1]) == ["attach", "map", "set_dirty_tracking"]
    assert names[-1] == "read_dirty"


class TellsNoDirtyPages(OwnDriver):
    """Tracks nothing."""

    def set_dirty_tracking(self, domain: int, enabled: int) -> None:
        """Nothing."""

    def read_dirty(self, domain: int, address: int, length: int) -> list[int]:
        return []


def test_pages_that_were_written_have_to_be_told() -> None:
    failures = (try_driver(TellsNoDirtyPages, PROFILES["xeon"], seed) for seed in range(30))
    failure = next(each for each in failures if each is not None)
    assert "was written, and is not told as dirty" in failure.findings[0]


class SharesOnePasid(OwnDriver):
    """Leaves the entry of a PASID that is detached in its table."""

    def detach_pasid(self, source_id: int, pasid: int) -> None:
        """Nothing."""


def test_a_pasid_that_is_detached_is_blocked() -> None:
    failures = (try_driver(SharesOnePasid, PROFILES["xeon"], seed) for seed in range(40))
    failure = next(each for each in failures if each is not None)
    names = [each.name for each in failure.operations]
    assert {"attach_pasid", "map", "detach_pasid"} <= set(names) and len(names) <= 4
    assert "PASID 0x" in failure.findings[0] and "went through" in failure.findings[0]


class Polls(OwnDriver):
    """Waits for what will not come, and will not be disturbed."""

    hours = 0.0

    def unmap(self, domain: int, address: int, length: int) -> None:
        Polls.hours += 1
        with suppress(Exception):
            while True:
                self._memory.read(0, 4)
        while True:
            pass


HANGS = f"command:{sys.executable} -c 'input(); input()'"


def test_a_driver_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limits, "monotonic", lambda: Polls.hours * 3600)
    for seed in range(30):
        failure = try_driver(Polls, PROFILES["client"], seed, 12)
        if failure is not None:
            break
    assert failure is not None
    assert failure.findings == ["unmap: no answer within 5 s"]
    assert len(failure.operations) <= 3


def test_a_process_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried_driver, "LIMIT", 0.5)
    with driver(HANGS) as maker:
        failure = try_driver(maker, PROFILES["client"], 0)
    assert failure == DriverFailure([], ["reset: no answer within 0.5 s"], 0)


def test_a_driver_that_hangs_does_not_outlast_the_time_of_all() -> None:
    asked = itertools.count()
    with driver(HANGS) as maker:
        assert try_driver(maker, PROFILES["client"], 0, expired=lambda: next(asked) > 2) is None


def test_an_interrupt_leaves_the_failure_as_short_as_it_is() -> None:
    unit, left = PROFILES["xeon"], [10**6]

    def maker(*where: Any) -> OwnDriver:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return SharesOnePasid(*where)

    seeds = ((seed, try_driver(maker, unit, seed)) for seed in range(40))
    seed, whole = next(each for each in seeds if each[1] is not None)
    left[0] = 3
    failure = try_driver(maker, unit, seed)
    assert failure is not None and whole is not None
    assert len(failure.operations) > len(whole.operations)


def test_time_that_is_up_ends_a_list() -> None:
    assert try_driver(TellsNoDirtyPages, PROFILES["xeon"], 0, expired=lambda: True) is None


def library(folder: Path, *flags: str) -> str:
    file = folder / "legacy.so"
    source = EXAMPLES / "legacy.c"
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", file, source], check=True)
    return f"library:{file}"


class Loaded(ProcessDriver):
    """The functions of a library in this process: what the process that loads them does."""

    def __init__(self, path: str, *served: Any) -> None:
        self._registers, self._memory, start, end = served
        self._where = {"memory_start": start, "memory_end": end}
        self._loaded = library_driver.LibraryDriver(path)

    def _call(self, op: str, **arguments: int) -> object:
        with mock.patch.object(library_driver, "ask", lambda **message: self._serve(message)):
            answer: Any = self._loaded.carry_out(op, arguments)
        if "error" in answer:
            raise DriverError(str(answer["error"]))
        return answer["done"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(("flags", "wrong"), [((), False), (("-DFORGET",), True)])
def test_functions_of_a_library_do_the_same_in_any_process(
    tmp_path: Path, flags: tuple[str, ...], wrong: bool
) -> None:
    path = library(tmp_path, *flags).removeprefix("library:")
    tried = (
        try_driver(partial(Loaded, path), PROFILES["client"], seed, 12, stores_wait=True)
        for seed in range(30 if wrong else 2)
    )
    failure = next((each for each in tried if each is not None), None)
    assert (failure is not None) is wrong
    if failure is not None:
        assert [each.name for each in failure.operations] == SHORTEST


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_process_tells_that_a_library_lacks_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = library(tmp_path).removeprefix("library:")
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"op": "detach_pasid", "source_id": 8}\n'))
    library_driver.main(path)
    said = json.loads(capsys.readouterr().out)
    assert said == {"error": "the library has no driver_detach_pasid"}


SHORTEST = ["attach", "map", "unmap"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    "flags, told, operations",
    [
        ((), None, []),
        (("-DFORGET",), "missing", SHORTEST),
        (("-DFORGET_FLUSH",), "missing flush of its cache lines", ["attach", "map"]),
        (("-DCRASH",), "the driver ended with -6", SHORTEST),
    ],
)
def test_a_driver_of_c_functions(
    tmp_path: Path, flags: tuple[str, ...], told: str | None, operations: list[str]
) -> None:
    with driver(library(tmp_path, *flags)) as maker:
        seeds = range(30 if told else 2)
        tried = (
            try_driver(maker, PROFILES["client"], seed, 12, stores_wait=True) for seed in seeds
        )
        failure = next((each for each in tried if each is not None), None)
    assert (failure is None) is (told is None)
    if failure is not None:
        assert str(told) in failure.findings[0]
        assert [each.name for each in failure.operations] == operations
