"""The commands of docs/traces.md work as printed, and the page knows every profile and form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vtd.cli import main

pytest.importorskip("numba", reason="sweeps need the batch extra")
pytest.importorskip("pyarrow", reason="traces need the batch extra")
pytest.importorskip("altair", reason="plots need the plots extra")

from tests.vtd.traces.test_reading import BLKPARSE, QEMU
from vtd.batch.columns import REQUESTS
from vtd.sweeps.designs import INVALIDATING
from vtd.sweeps.profiles import PUBLISHED
from vtd.traces.reading import FORMS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "traces.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split()[4])
def test_from_a_log_to_a_plot_in_three_commands(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.txt").write_text(BLKPARSE)
    (tmp_path / "qemu.log").write_text(QEMU)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    lines = block.splitlines()
    assert len(lines) == 3
    for line in lines:
        name, *arguments = shlex.split(line.removeprefix("$ "))
        assert name == "vtd"
        arguments += ["--jobs", "1"] if arguments[0] == "sweep" else []
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output


def test_the_page_has_every_name() -> None:
    names = [*PUBLISHED, *FORMS, *INVALIDATING, *(REQUESTS.names or ())]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
