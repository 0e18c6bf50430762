"""How a table looks on a terminal: a tree, or lines with offsets as iasl prints them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from vtd.commands.rendering.terminal import columns
from vtd.dmar.field_lines import field_lines, field_text
from vtd.dmar.records import Andd, DeviceScope, Drhd, Sidp, Structure
from vtd.dmar.table import Table

UNLIMITED = 1 << 17
"""Columns; more than a table has characters in any field."""


def tree_lines(table: Table, title: str) -> list[str]:
    """The table as a tree, as wide as the terminal; without one, no line is cut or folded."""
    console = Console(highlight=False, width=columns() or UNLIMITED)
    with console.capture() as shown:
        console.print(table_tree(table, title))
    return shown.get().splitlines()


def table_tree(table: Table, title: str) -> Tree:
    """The table as a tree: header, structures, scope entries."""
    tree = Tree(escape(title))
    header = tree.add("header")
    for name, value in table.header.fields().items():
        header.add(f"{name} [bold]{escape(field_text(name, value))}[/]")
    for each in table.structures:
        branch = tree.add(f"[cyan]{each.name}[/] at 0x{each.offset:03x}, {each.length} bytes")
        for name, value in each.fields().items():
            branch.add(f"{name} [bold]{escape(field_text(name, value))}[/]")
        for label, text in _extras(each):
            branch.add(f"{label} [bold]{escape(text)}[/]")
        for entry in each.scopes:
            branch.add(escape(_entry_text(each, entry)))
    for label, data in (("unreadable", table.rest), ("after the table", table.trailing)):
        if data:
            tree.add(f"[red]{label}[/]: {len(data)} bytes {escape(_hex(data))}")
    return tree


def _extras(structure: Structure) -> Iterator[tuple[str, str]]:
    """What is not a field: derived values, and bytes that no field covers."""
    if isinstance(structure, Drhd):
        end = structure.register_end - 1
        yield "registers", f"0x{structure.register_base:x}-0x{end:x}"
    if isinstance(structure, Andd):
        yield "object_name", structure.object_name
    elif structure.tail:
        yield "unread", _hex(structure.tail)


def _entry_text(structure: Structure, entry: DeviceScope) -> str:
    text = str(entry)
    if entry.enumeration_id:
        text += f", id {entry.enumeration_id}"
    if isinstance(structure, Sidp):
        names = [name for name, value in entry.sidp.fields().items() if value]
        text += f", {' '.join(names) or 'no property'}"
    return text


def offset_lines(table: Table) -> Iterator[str]:
    """Every field with its offset (hexadecimal and decimal), its length, and its bytes."""
    data = table.pack()
    for line in field_lines(table):
        start, length = line.place
        where = f"[{start:03X}h {start:04d} {length:3d}]"
        stored = _hex(data[start : start + length])
        yield f"{where} {line.name:>22} : {line.value:<28} {stored}".rstrip()


def _hex(data: bytes) -> str:
    """Bytes as digits, cut after 32."""
    return data[:32].hex(" ") + (" ..." if len(data) > 32 else "")
