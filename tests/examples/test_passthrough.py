"""The passthrough example runs, and no virtual machine's device reaches another's memory."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "passthrough.py"


def test_functions_of_two_machines_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("group")] == [
        "0000:00:1c.0",
        "0000:01:00.0",
        "0000:01:01.0",
        "0000:01:01.1",
    ]
    assert lines[5:] == [
        "writes    SUCCESS",
        "writes    SUCCESS",
        "memory    b'one' b'two'",
        "blocked   01:01.0 at 0x1200000: no write permission",
        "beyond    UNSUPPORTED_REQUEST",
        "reserved  SUCCESS",
        "delivered interrupt of 01:01.0: vector 0x31",
        "blocked   interrupt of 01:01.1: source-id verification failed",
        "unmapped  SUCCESS",
        "blocked   01:01.0 at 0x4000: no read permission",
        "unmapped  UNSUPPORTED_REQUEST",
    ]
