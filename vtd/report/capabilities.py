"""The section about capability registers: fields of each unit, and where several differ."""

from __future__ import annotations

from collections.abc import Sequence

from vtd.inspection.capability_rows import Decoded, capabilities_row
from vtd.pictures.canvas import Tone
from vtd.plain import plain
from vtd.report.section import Section, command, counted


def capabilities_section(name: str, units: Sequence[Decoded]) -> Section:
    """The section about units whose registers are known."""
    row = plain(capabilities_row(list(units)))
    contradictions = sum(len(each["contradictions"]) for each in row["units"])
    numbers = [number for each in row["units"] for number in (each["cap"], each["ecap"])]
    return Section(
        "capabilities",
        "Capabilities",
        name,
        f"{counted(len(units), 'unit')}, {counted(contradictions, 'contradiction')}, "
        f"{counted(len(row['differ']), 'field')} that differ",
        Tone.WARN if contradictions else Tone.GOOD,
        row,
        (command("caps", *numbers),),
    )
