"""A machine that was put together as rows, in the form of ``vtd machine show --format json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from devices.isolation import isolation_groups
from devices.topology import Bridge
from vtd.machine.assembly import Assembly
from vtd.machine.description import DescribedFunction
from vtd.rows import Hex


def machine_row(assembly: Assembly) -> dict[str, Any]:
    """Units, and functions with their requester ids, unit and group."""
    return {
        "units": list(_unit_rows(assembly)),
        "functions": list(_function_rows(assembly)),
    }


def _unit_rows(assembly: Assembly) -> Iterator[Mapping[str, object]]:
    for unit, known, window in assembly.units:
        yield {
            "base": Hex(unit.base),
            "size": Hex(window),
            "segment": unit.segment,
            "profile": unit.profile or None,
            "version": Hex(known.version),
            "cap": Hex(known.cap),
            "ecap": Hex(known.ecap),
        }


def _function_rows(assembly: Assembly) -> Iterator[Mapping[str, object]]:
    """Every function, bridges before what is behind them, virtual ones after their physical."""
    topology, scopes = assembly.platform.topology, assembly.platform.scopes
    names = {function: name for name, function in assembly.functions.items()}
    models = {
        each.name or str(each.at): each.model
        for each in assembly.machine.functions
        if isinstance(each, DescribedFunction)
    }
    for segment in sorted({bus.segment for bus in topology.roots}):
        groups = isolation_groups(topology, segment)
        functions = topology.functions(segment)
        for function in sorted(
            functions, key=lambda each: (topology.path(each), topology.bdf(each))
        ):
            bdf = topology.bdf(function)
            owner = scopes.owner(bdf)
            name = names.get(function)
            physical = topology.physical_function(bdf)
            kind = "bridge" if isinstance(function, Bridge) else models.get(name or "")
            yield {
                "function": str(bdf),
                "name": name,
                "model": kind,
                "virtual_function_of": None if physical is None else str(physical),
                "depth": len(topology.path(function)[1]) - 1,
                "requester_ids": [str(each) for each in topology.aliases(function)],
                "unit": Hex(owner.unit.register_base) if owner else None,
                "reason": owner.reason.value if owner else "no unit covers it",
                "group": next(n for n, group in enumerate(groups, 1) if function in group),
            }
