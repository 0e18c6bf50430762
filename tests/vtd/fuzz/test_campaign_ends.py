"""How campaigns end: time is up, somebody interrupts, their parent dies; and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vtd.fuzz.campaign import jobs_of, run
from vtd.fuzz.campaign_state import State
from vtd.fuzz.case import Case, reg_read
from vtd.fuzz.job import CampaignResult, Job, run_job
from vtd.fuzz.target_names import close_targets
from vtd.fuzz.targets import CommandTarget
from vtd.fuzz.time_limits import OutOfTimeError
from vtd.unit.registers.capabilities import PROFILES

VTD = Path(sys.executable).parent / "vtd"
HANGS = shlex.join([sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_target_that_hangs_does_not_outlast_the_campaign() -> None:
    target = CommandTarget(HANGS, limit=600)
    target.expired = lambda: True
    try:
        with pytest.raises(OutOfTimeError):
            target.run(Case(PROFILES["qemu"], (reg_read(0, 4, 0xFF),)))
    finally:
        target.close()


def test_a_seed_whose_target_hangs_until_time_is_up_is_not_done() -> None:
    asked = itertools.count()
    try:
        result = run_job(Job("protocol", f"command:{HANGS}", 0), expired=lambda: next(asked) > 2)
    finally:
        close_targets()
    assert (result.seeds, result.failures) == ([], [])


def test_an_interrupt_keeps_what_was_done() -> None:
    def interrupt(total: CampaignResult) -> None:
        if len(total.seeds) == 2:
            raise KeyboardInterrupt

    result = run(jobs_of(["vmcs"], "", itertools.count()), progress=interrupt)
    assert (result.seeds, result.interrupted) == ([0, 1], True)


@contextmanager
def campaign(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A campaign of two workers that has begun, and the processes of its workers."""
    command = [
        str(VTD),
        "fuzz",
        "--property",
        "vmcs",
        "--jobs",
        "2",
        "--seconds",
        "600",
        *arguments,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        try:
            workers = _eventually(lambda: _children(running.pid), lambda found: len(found) >= 2)
            yield running, workers
        finally:
            running.kill()


def _children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [each for each in map(int, found) if _is_worker(each)]


def _is_worker(process: int) -> bool:
    """Whether it has begun: it leaves SIGINT to its parent."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    (ignored,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored, 16) >> signal.SIGINT - 1 & 1)


def _eventually(look: Callable[[], list[int]], wanted: Callable[[list[int]], bool]) -> list[int]:
    """What is seen once it is as wanted."""
    for _ in range(600):
        seen = look()
        if wanted(seen):
            return seen
        select.select([], [], [], 0.1)
    raise AssertionError(f"never as wanted: {seen}")


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="looks for worker processes in /proc"
)


@needs_proc
def test_ctrl_c_prints_what_was_done() -> None:
    with campaign("--format", "json") as (running, _):
        os.killpg(running.pid, signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    assert json.loads(output)["interrupted"]
    assert "Traceback" not in errors
    assert running.returncode == 130


@needs_proc
def test_workers_end_with_their_parent() -> None:
    with campaign() as (running, workers):
        running.kill()
        running.wait()
        gone = _eventually(
            lambda: [each for each in workers if not _is_worker(each)],
            lambda found: len(found) == len(workers),
        )
    assert gone == workers


HOSTILE = {
    "a list": "[]",
    "no number": '{"vmcs": "x"}',
    "a fraction": '{"vmcs": 1.5}',
    "infinite": '{"vmcs": Infinity}',
    "negative": '{"vmcs": -1}',
    "a flag": '{"vmcs": true}',
    "huge": '{"vmcs": 99999999999999999999999}',
    "too many digits": '{"vmcs": ' + "9" * 5000 + "}",
    "deep": "[" * 100_000,
    "a pickle": "\x80\x04\x95.",
    "big": " " * (1 << 20) + "{}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_state_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="not the state of a campaign"):
        State(path)


def test_a_state_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="no plain file"):
            State(path)


def test_the_command_refuses_a_hostile_state_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("[[")
    ran = subprocess.run(
        [VTD, "fuzz", "--state", path, "--count", "1"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
