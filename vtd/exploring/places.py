"""What there is to look at, as a tree that grows where it is opened.

A place has a title, the row that a command prints for it, and places below. This module has the
general parts; :mod:`vtd.exploring.unit_places` has those of tables that a unit walks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vtd.dmar.decoded import decoded
from vtd.dmar.pci_tree import PciTree
from vtd.dmar.scope_rows import scope_row
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table
from vtd.machine.assembly import Assembly
from vtd.machine.rows import machine_row
from vtd.plain import plain

MOST_CHARACTERS = 200
"""Characters of one value that are shown."""


@dataclass(frozen=True)
class Place:
    """One thing to look at."""

    title: str
    row: Callable[[], object] = dict
    """What a command prints for it, made when it is looked at."""
    below: Callable[[], list[Place]] = list
    """The places inside, made when it is opened."""
    leads_to: tuple[str, ...] = ()
    """Titles from the top to where a fault happened, or to the table that is pointed to."""
    text: str = ""
    """What it comes to, in words."""

    @property
    def opens(self) -> bool:
        """Whether there may be something inside."""
        return self.below is not list


def lines(place: Place) -> Iterator[str]:
    """The row of a place, a line for each value; nothing in it can move a cursor."""
    if place.text:
        yield printable(place.text)
        yield ""
    yield from _value_lines(plain(place.row()), 0)


def _value_lines(value: Any, depth: int) -> Iterator[str]:
    pairs = (
        value.items() if isinstance(value, Mapping) else ((f"{n}:", v) for n, v in enumerate(value))
    )
    for name, each in pairs:
        start = "  " * depth + str(name)
        if isinstance(each, Mapping) or (isinstance(each, list) and _nested(each)):
            yield start
            yield from _value_lines(each, depth + 1)
        else:
            text = ", ".join(map(str, each)) if isinstance(each, list) else str(each)
            shown = "none" if each in (None, []) else text
            yield f"{start:20} {printable(shown)}"


def _nested(values: list[Any]) -> bool:
    return any(isinstance(each, Mapping | list) for each in values)


def printable(text: str) -> str:
    """Text of somebody else on one line: what is not printable as its number."""
    cut = text[:MOST_CHARACTERS]
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in cut)


def of_table(table: Table) -> Place:
    """A DMAR table: what ``vtd dmar show`` says of header, structures and entries."""
    content = decoded(table)
    structures = content.pop("structures")
    return Place(
        f"DMAR table, {table.size} bytes",
        lambda: content,
        lambda: list(map(_of_structure, structures)),
    )


def _of_structure(values: dict[str, Any]) -> Place:
    entries = values.get("device_scope", [])
    fields = {name: value for name, value in values.items() if name != "device_scope"}
    for name in ("register_base", "base", "limit"):
        if name in fields:
            fields[name] = hex(fields[name])
    where = fields.get("register_base") or fields.get("base") or fields.get("object_name", "")
    return Place(
        f"{values['name']} at {values['offset']:#05x} {where}".rstrip(),
        lambda: fields,
        lambda: [_of_entry(number, each) for number, each in enumerate(entries)],
    )


def _of_entry(number: int, entry: dict[str, Any]) -> Place:
    hops = "/".join(f"{device:02x}.{function:x}" for device, function in entry["path"])
    return Place(
        f"{number}: {entry['type_name']} {entry['start_bus']:02x}:{hops}",
        lambda: {**entry, "path": hops},
    )


def of_functions(table: Table, pci: PciTree) -> Place:
    """PCI functions, each with what ``vtd dmar scope`` says."""
    scopes = Scopes(table, pci)

    def of_function(bdf: Any) -> Place:
        return Place(str(bdf), lambda: scope_row(scopes, bdf, pci))

    return Place(
        f"functions: {len(pci.functions)}",
        lambda: {"functions": len(pci.functions)},
        lambda: list(map(of_function, pci.functions)),
    )


def of_machine(assembly: Assembly) -> list[Place]:
    """A described machine: its table, units, and functions as ``vtd machine show`` lists them."""
    content = machine_row(assembly)

    def of_unit(row: Mapping[str, Any]) -> Place:
        return Place(f"unit at {row['base']}", lambda: row)

    def of_function(row: Mapping[str, Any]) -> Place:
        name = f" {row['name']}" if row["name"] else ""
        return Place(f"{'  ' * row['depth']}{row['function']}{name}", lambda: row)

    return [
        of_table(assembly.table),
        *map(of_unit, content["units"]),
        Place(
            f"functions: {len(content['functions'])}",
            lambda: {"functions": len(content["functions"])},
            lambda: list(map(of_function, content["functions"])),
        ),
    ]
