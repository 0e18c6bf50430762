"""The page about machine files has every key, and its example runs."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vtd.machine import description

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "machines.md").read_text()


def keys() -> Iterator[str]:
    for each in vars(description).values():
        if dataclasses.is_dataclass(each) and each.__module__ == description.__name__:
            for field in dataclasses.fields(each):
                key = field.metadata.get("key", field.name)
                if key:
                    yield key


def test_every_key_is_explained() -> None:
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert set(keys()) - words == set()
    assert {each.value for each in description.BridgeKind} <= words


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    found: dict[str, object] = {}
    exec(compile(code, "machines.md", "exec"), found)
    assert found["unit"] is not None
