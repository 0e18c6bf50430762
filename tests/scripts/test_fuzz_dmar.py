"""The DMAR fuzz campaign, as small as it can be: it runs, repeats itself, and notices damage."""

import pytest

from scripts import fuzz_dmar
from scripts.fuzz_dmar import campaign


def test_a_short_campaign_finds_no_failure_and_repeats_itself() -> None:
    first, again = campaign(300, 7), campaign(300, 7)
    assert first.failures == []
    assert first.findings == again.findings > 0


def test_an_exception_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> list[object]:
        raise IndexError("out of range")

    monkeypatch.setattr(fuzz_dmar, "validate", broken)
    outcome = campaign(3, 7)
    assert len(outcome.failures) == 3
    assert outcome.failures[0].startswith("IndexError: out of range: ")
