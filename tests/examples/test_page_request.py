"""The page request example runs and tells the story that the README shows."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "page_request.py"


def test_a_transfer_finishes_after_its_pages_were_mapped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    story = [line.split(maxsplit=1)[0] for line in lines]
    assert story == [
        "device", "unit", "unit", "device", "unit", "software", "device", "unit", "software",
        "software", "unit", "unit", "device", "device", "device", "memory",
    ]  # fmt: skip
    assert lines[-2:] == ["device    done: SUCCESS", "memory    b'across t' and b'wo pages'"]
