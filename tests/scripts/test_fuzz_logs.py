"""Mutated logs are read without an error, and quickly."""

import pytest

from scripts.fuzz_logs import campaign, check


@pytest.mark.parametrize("seed", range(3))
def test_mutated_logs_are_read(seed: int) -> None:
    assert campaign(seed, 1_500).failures == []


@pytest.mark.slow
def test_a_million_mutated_logs_are_read() -> None:
    assert campaign(1, 1_000_000).failures == []


def test_what_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.fuzz_logs.as_text", lambda log, context: [])
    assert check(b"DMAR: x\n", shown=True) == "nothing shown"
    monkeypatch.setattr("scripts.fuzz_logs.read_log", lambda lines: 1 / 0)
    outcome = campaign(1, 2)
    assert "ZeroDivisionError" in outcome.failures[0]
