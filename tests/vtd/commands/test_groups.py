"""``vtd groups``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.vtd.inspection.test_isolation_groups import GOOD, f
from vtd.cli import main

SHARED = "\n".join(
    (
        f("00:1c.0", "root", "01-01"),
        f("01:00.0", "end"),
        f("00:1d.0", "root", "02-02", GOOD),
        f("02:00.0", "end", ids="8086:1521"),
    )
)


def run(folder: Path, listing: str, *options: str, code: int = 0) -> str:
    (folder / "lspci").write_text(listing)
    result = CliRunner().invoke(main, ["groups", str(folder / "lspci"), *options])
    assert result.exit_code == code, result.output
    return result.stdout or result.stderr


def test_json_has_the_groups_and_the_reasons(tmp_path: Path) -> None:
    answer = json.loads(run(tmp_path, SHARED, "--format", "json"))
    assert answer["groups"] == [
        ["0000:00:1c.0", "0000:01:00.0"], ["0000:00:1d.0"], ["0000:02:00.0"],
    ]  # fmt: skip
    (join,) = answer["joins"]
    assert join["functions"] == ["0000:00:1c.0", "0000:01:00.0"]
    assert "has no ACS capability" in join["reason"]
    assert answer["certain"]
    assert answer["trusted"][0]["function"] == "0000:02:00.0"
    assert "quirks.c" in answer["trusted"][0]["source"]
    assert len(answer["override"]["groups"]) == 4
    assert answer["override"]["shared"][0]["functions"] == join["functions"]


def test_text_names_reasons_exceptions_and_what_the_override_hides(tmp_path: Path) -> None:
    shown = run(tmp_path, SHARED)
    assert "group 1: 0000:00:1c.0, 0000:01:00.0" in shown
    assert "0000:01:00.0 with 0000:00:1c.0: 0000:00:1c.0 has no ACS capability" in shown
    assert "0000:02:00.0 counts as isolated" in shown
    assert "would show 4 groups; these would still share" in shown


def test_groups_of_a_patched_kernel_are_told(tmp_path: Path) -> None:
    listing = SHARED.replace("Acme [1af4:1000]", "Acme [1af4:1000]\n\tIOMMU group: 1", 1)
    first, second = listing.split("01:00.0 ", 1)
    listing = f"{first}01:00.0 {second.replace('Status', 'IOMMU group: 2' + chr(10) + 'Status', 1)}"
    assert "the listing has 0000:00:1c.0, 0000:01:00.0 in groups [1, 2]" in run(tmp_path, listing)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("00:1c.0 PCI bridge [0604]: Port\n01:00.0 Ethernet controller: Card", "no buses of"),
        ("nothing", "no function found"),
    ],
)
def test_a_listing_without_buses_is_refused(tmp_path: Path, listing: str, message: str) -> None:
    assert message in run(tmp_path, listing, code=2)
