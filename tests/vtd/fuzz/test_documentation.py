"""The examples of docs/fuzzing.md and docs/audit-log.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "fuzzing.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(text: str) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(text, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()
