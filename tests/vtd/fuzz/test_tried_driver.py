"""Drivers under test: the right one passes, wrong ones are shrunk, broken ones are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtd.cli import main
from vtd.fuzz.driver_protocol import driver_maker
from vtd.fuzz.own_driver import OwnDriver
from vtd.fuzz.tried_driver import try_driver
from vtd.unit.registers.capabilities import PROFILES

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "drivers"
SMALL_MASK = f"python:{EXAMPLES / 'small_mask.py'}:SmallMask"
FORGETS = f"command:{sys.executable} {EXAMPLES / 'forgets_the_iotlb.py'}"


@pytest.mark.parametrize("profile", ["client", "xeon", "viommu", "qemu"])
def test_the_own_driver_does_nothing_wrong(profile: str) -> None:
    failures = [try_driver(OwnDriver, PROFILES[profile], seed) for seed in range(5)]
    assert failures == [None] * 5


def test_a_mask_that_is_too_small_takes_three_operations() -> None:
    maker, _ = driver_maker(SMALL_MASK)
    failures = (try_driver(maker, PROFILES["xeon"], seed) for seed in range(30))
    failure = next(each for each in failures if each is not None)
    assert [each.name for each in failure.operations] == ["attach", "map", "unmap"]
    assert "missing page-selective iotlb_inv" in failure.findings[0]


def test_a_process_that_forgets_the_iotlb_takes_three_operations() -> None:
    maker, end = driver_maker(FORGETS)
    failures = (try_driver(maker, PROFILES["client"], seed, 12) for seed in range(30))
    failure = next(each for each in failures if each is not None)
    end()
    assert [each.name for each in failure.operations] == ["attach", "map", "detach"]
    assert "missing domain-selective iotlb_inv" in failure.findings[0]


def test_the_process_mended_does_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGET", "0")
    maker, end = driver_maker(FORGETS)
    assert try_driver(maker, PROFILES["client"], 0, 12) is None
    end()


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
    maker, end = driver_maker(f"command:{sys.executable} {script}")
    failure = try_driver(maker, PROFILES["client"], 0)
    end()
    assert failure is not None
    assert failure.operations == []
    assert told in failure.findings[0]


def test_the_command_tells_the_operations() -> None:
    result = CliRunner().invoke(main, ["drive", SMALL_MASK, "--format", "json"])
    assert result.exit_code == 1
    assert len(json.loads(result.output)["failure"]["operations"]) == 3
    result = CliRunner().invoke(main, ["drive", "own", "--count", "1"])
    assert (result.exit_code, result.output) == (0, "1 list of operations: nothing wrong\n")
    for wrong in (["nothing"], ["own", "--profile", "none"], ["python:absent.py:X"]):
        assert CliRunner().invoke(main, ["drive", *wrong]).exit_code == 2
