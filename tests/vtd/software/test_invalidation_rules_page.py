"""The documentation page of the invalidation rules."""

from __future__ import annotations

from pathlib import Path

from vtd.software.invalidation_rules_page import invalidation_rules_page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "invalidation-rules.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == invalidation_rules_page(), "run python -m scripts.invalidation_rules"
