"""DMAR tables to test on: the whole collection beside the repository, or the own part of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

_OWN = Path(__file__).parents[1] / "dmar"
_WHOLE = Path(__file__).resolve().parents[3] / "shared" / "dmar"

COLLECTION = "whole" if _WHOLE.is_dir() else "own"
"""Which of the two it is; part of the test ids."""

Findings = list[tuple[str, str, int]]
"""Rule, severity and offset of each finding, sorted."""


class CleanTable(NamedTuple):
    """A table that is read completely, with what is in it."""

    id: str
    data: bytes
    decoded: dict[str, Any]
    findings: Findings
    hardware: bool
    """Dumped from a machine, so that errors would be real firmware errors."""


class MalformedTable(NamedTuple):
    """A table that breaks rules on purpose."""

    id: str
    data: bytes
    expect: set[str]
    findings: Findings


def clean_tables() -> list[CleanTable]:
    """The tables with decoded content."""
    folder = _WHOLE / "real" if COLLECTION == "whole" else _OWN / "clean"
    tables = []
    for file in sorted(folder.glob("*.json")):
        known = json.loads(file.read_text())
        tables.append(
            CleanTable(
                f"{COLLECTION}-{file.stem}",
                file.with_suffix(".bin").read_bytes(),
                known["decoded"],
                _findings(known["reference_findings"]),
                "generated" not in known["marks"],
            )
        )
    return tables


def malformed_tables() -> list[MalformedTable]:
    """The tables that break rules."""
    folder = (_WHOLE if COLLECTION == "whole" else _OWN) / "malformed"
    index = json.loads((folder / "index.json").read_text())
    return [
        MalformedTable(
            f"{COLLECTION}-{table['file']}",
            (folder / table["file"]).read_bytes(),
            set(table["expect"]),
            _findings(table["all_findings"]),
        )
        for table in index["tables"]
    ]


def _findings(objects: list[dict[str, Any]]) -> Findings:
    return sorted((each["rule"], each["severity"], each["offset"]) for each in objects)
