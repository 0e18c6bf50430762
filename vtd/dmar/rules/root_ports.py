"""Rules A: root port ATS capability (VT-d 8.5)."""

from __future__ import annotations

from vtd.dmar.records import Atsr, DeviceScope
from vtd.dmar.rules.rule import Hits, rule
from vtd.dmar.table import Table
from vtd.severity import ERROR, INFO, WARNING


@rule(
    "DMAR-A01",
    WARNING,
    "with ALL_PORTS the scope is empty",
    "8.5",
    linux="ignores the entries",
    xen="ignores the entries",
)
def all_ports_with_scope(table: Table) -> Hits:
    """All root ports of the segment are meant already."""
    for each in table.all(Atsr):
        if each.flags.all_ports and each.scopes:
            yield each.place(), "ALL_PORTS set, but there are scope entries"


@rule("DMAR-A02", WARNING, "without ALL_PORTS the scope is not empty", "8.5")
def empty_scope(table: Table) -> Hits:
    """The structure names no root port."""
    for each in table.all(Atsr):
        if not (each.flags.all_ports or each.scopes or each.tail):
            yield each.place(), "ATSR without ALL_PORTS and without scope entries"


@rule(
    "DMAR-A03",
    WARNING,
    "a segment has one ATSR with ALL_PORTS",
    "",
    xen="refuses a second one in segment 0",
)
def all_ports_twice(table: Table) -> Hits:
    """The first one says all that the second can say."""
    seen: set[int] = set()
    for each in table.all(Atsr):
        if not each.flags.all_ports:
            continue
        if each.segment in seen:
            yield each.place(), f"second ATSR with ALL_PORTS for segment {each.segment}"
        seen.add(each.segment)


@rule("DMAR-A04", ERROR, "scope entries are sub-hierarchies (type 2)", "8.5")
def not_a_root_port(table: Table) -> Hits:
    """ATSR names root ports, and those are bridges."""
    for each in table.all(Atsr):
        for entry in each.scopes:
            if entry.type != DeviceScope.PCI_SUB_HIERARCHY:
                yield entry.place(), f"{entry} in an ATSR"


@rule("DMAR-A05", INFO, "a segment has one ATSR", "8.5")
def several(table: Table) -> Hits:
    """The specification speaks of one structure; servers with two sockets list one per socket."""
    seen: set[int] = set()
    for each in table.all(Atsr):
        if each.segment in seen:
            yield each.place(), f"another ATSR for segment {each.segment}"
        seen.add(each.segment)
