"""Rules P: static affinity of units to proximity domains (VT-d 8.6)."""

from __future__ import annotations

from vtd.dmar.records import Rhsa
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, WARNING


@rule(
    "DMAR-P01",
    ERROR,
    "the base address of an RHSA is that of a unit",
    "8.6",
    judges_absence=True,
    linux='"RHSA refers to non-existent DMAR unit"',
)
def dangling(table: Table) -> Hits:
    """The structure gives the affinity of a unit that is not there."""
    bases = {unit.register_base for unit in table.units}
    for each in table.all(Rhsa):
        if each.register_base not in bases:
            yield each.place("register_base"), f"no unit has base 0x{each.register_base:x}"


@rule("DMAR-P02", ERROR, "a unit has one RHSA", "8.6")
def repeated(table: Table) -> Hits:
    """A unit can't be close to two domains."""
    seen: set[int] = set()
    for each in table.all(Rhsa):
        if each.register_base in seen:
            message = f"second RHSA for the unit at 0x{each.register_base:x}"
            yield each.place("register_base"), message
        seen.add(each.register_base)


@rule("DMAR-P03", WARNING, "either no unit or every unit has an RHSA", "8.6", judges_absence=True)
def incomplete(table: Table) -> Hits:
    """A "must" of the specification; X99-class boards list one RHSA for two units."""
    affinities = table.all(Rhsa)
    if not affinities:
        return
    placed = {each.register_base for each in affinities}
    missing = [unit for unit in table.units if unit.register_base not in placed]
    if missing:
        bases = ", ".join(f"0x{unit.register_base:x}" for unit in missing[:8])
        yield affinities[0].place(), f"units without RHSA: {len(missing)} ({bases})"
