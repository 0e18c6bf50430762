"""The section about a machine: its functions as a tree, with group, unit, regions and alias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vtd.dmar.pci_tree import PciTree
from vtd.dmar.scope_rows import scope_row
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table
from vtd.inspection.group_rows import closed_bridges, groups_row
from vtd.inspection.isolation_groups import Groups, isolation_groups
from vtd.inspection.machine_picture import machine_svg
from vtd.machine.assembly import Assembly
from vtd.machine.rows import machine_row
from vtd.pictures.canvas import Tone
from vtd.plain import plain
from vtd.report.section import Section, command, counted

MOST_DRAWN = 200
"""Functions of a machine that is drawn; the table has all."""


def listing_section(
    name: str, tree: PciTree, table: Table | None = None, table_name: str = ""
) -> Section:
    """The section about the functions of a listing; ``table`` tells units and regions."""
    scopes = Scopes(table, tree) if table is not None else None
    # without the buses of every bridge who is behind whom is not known, nor are the groups
    closed = closed_bridges(tree)
    found = isolation_groups(tree) if not closed else None
    commands = [command("groups", name)] if found else []
    if scopes is not None and table_name:
        commands.append(command("dmar", "scope", table_name, "BDF", "--lspci", name))
    picture = None
    if len(tree.functions) <= MOST_DRAWN:
        picture = machine_svg(tree, found, scopes, inline=True)
    groups = counted(len(found.groups), "isolation group") if found else "groups not known"
    certain = found is not None and not found.unknown and not found.unplaced
    return Section(
        "machine",
        "Machine",
        name,
        f"{counted(len(tree.functions), 'function')}, {groups}",
        Tone.GOOD if certain else Tone.WARN,
        {
            "functions": list(_functions(tree, found, scopes)),
            "groups": plain(groups_row(found, tree)) if found else None,
            "closed_bridges": [str(each.bdf) for each in closed],
            "with_table": scopes is not None,
            "units": [],
            "picture": picture,
        },
        tuple(commands),
    )


def _functions(
    tree: PciTree, found: Groups | None, scopes: Scopes | None
) -> Iterator[dict[str, Any]]:
    numbers = {bdf: n for n, group in enumerate(found.groups, 1) for bdf in group} if found else {}
    joins: dict[str, list[str]] = {}
    for join in found.joins if found else ():
        mark = "" if join.known else "not known: "
        joins.setdefault(str(join.second), []).append(f"with {join.first}: {mark}{join.reason}")
    for bdf in sorted(tree.functions, key=lambda each: (each.segment, tree.path(each))):
        scope = scope_row(scopes, bdf, tree) if scopes else {}
        regions = scope.get("regions") or []
        yield {
            "function": str(bdf),
            "name": tree.functions[bdf].name,
            "depth": len(tree.bridges_above(bdf)),
            "group": numbers.get(bdf),
            "why": joins.get(str(bdf), []),
            "unit": scope.get("unit"),
            "reason": scope.get("reason"),
            "regions": [regions] if isinstance(regions, str) else regions,
            "alias": scope.get("alias"),
        }


def machine_section(name: str, assembly: Assembly) -> Section:
    """The section about a machine that was put together from its description."""
    row = plain(machine_row(assembly))
    functions = [
        {
            **each,
            "name": " ".join(filter(None, (each["name"], f"({each['model']})"))),
            "why": [],
            "regions": [],
            "alias": each["requester_ids"][-1] if len(each["requester_ids"]) > 1 else None,
        }
        for each in row["functions"]
    ]
    groups = {each["group"] for each in functions}
    return Section(
        "machine",
        "Machine description",
        name,
        f"{counted(len(row['units']), 'unit')}, {counted(len(functions), 'function')}, "
        f"{counted(len(groups), 'isolation group')}",
        Tone.GOOD,
        {
            "functions": functions,
            "groups": None,
            "closed_bridges": [],
            "with_table": True,
            "units": row["units"],
            "picture": None,
        },
        (command("machine", "show", name),),
    )
