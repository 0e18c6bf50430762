"""The campaign over the readers: it runs, repeats itself, and notices what a reader does wrong."""

from __future__ import annotations

import pytest

from scripts import fuzz_readers
from scripts.fuzz_readers import READERS, campaign

LONG = 1_000_000


def test_a_short_campaign_finds_no_failure_and_repeats_itself() -> None:
    first, again = campaign(700, 7), campaign(700, 7)
    assert first.failures == []
    assert first.refused == again.refused
    assert set(first.inputs) == set(READERS)


@pytest.mark.slow
def test_a_long_campaign_finds_no_failure() -> None:
    assert campaign(LONG, 1).failures == []


def test_an_exception_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> object:
        raise IndexError("out of range")

    monkeypatch.setattr(fuzz_readers, "READERS", {**READERS, "sysfs": broken})
    monkeypatch.setattr(fuzz_readers, "seeds", lambda folder: {name: ["x"] for name in READERS})
    failures = campaign(len(READERS), 7).failures
    assert [each.split(":")[:2] for each in failures] == [["sysfs", " IndexError"]]
