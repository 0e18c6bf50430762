"""ACPI DMAR tables: decode, check, build, edit, compare, and answer who owns a device.

Usable alone: ``Table.parse(data).pack() == data``, ``validate(data)`` gives findings, and
``Scopes(table, topology).owner(bdf)`` the unit of a device.
"""

from vtd.dmar.rules import RULES, Finding, Rule, Severity, check, validate
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table, TableError

__all__ = [
    "RULES",
    "Finding",
    "Rule",
    "Scopes",
    "Severity",
    "Table",
    "TableError",
    "check",
    "validate",
]
