"""The rules of a DMAR table: 95 that need the table alone, and those that need the platform."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from vtd.dmar.records import ACPI_HEADER, FIXED_PART
from vtd.dmar.rules import (
    affinity,
    device_scope,
    header,
    namespace,
    platform,
    reserved_memory,
    root_ports,
    segments,
    soc_integrated,
    structures,
    units,
)
from vtd.dmar.rules.rule import REGISTER, Finding, Rule
from vtd.dmar.table import Table
from vtd.ruling import Findings
from vtd.severity import Severity

if TYPE_CHECKING:
    from vtd.dmar.platform_data import PlatformData

__all__ = ["GROUPS", "RULES", "Finding", "Rule", "Severity", "check", "validate"]

GROUPS = {
    "H": ("Table", header),
    "S": ("Structures", structures),
    "D": ("Device scope entries", device_scope),
    "U": ("Remapping units", units),
    "R": ("Reserved memory regions", reserved_memory),
    "A": ("Root ports", root_ports),
    "P": ("Static affinity", affinity),
    "N": ("Namespace devices", namespace),
    "C": ("Translation caches", soc_integrated),
    "I": ("Device properties", soc_integrated),
    "X": ("Across structures", segments),
    "K": ("With other data of the platform", platform),
}
"""Title and module of each group of rules, by the letter of their ids."""

RULES: dict[str, Rule] = {
    id: rule for letter in GROUPS for id, rule in REGISTER.items() if rule.group == letter
}
"""Every rule by its id, group after group."""


def check(
    table: Table, platform_data: PlatformData | None = None, rules: Collection[str] | None = None
) -> Findings[Finding]:
    """What the rules find in a table, sorted by offset; ``rules`` limits them to these ids.

    What has another signature is no DMAR table: that is all there is to say about it.
    """
    known = table.header.signature in header.SIGNATURES
    return Findings(
        sorted(
            finding
            for id, rule in RULES.items()
            if (rules is None or id in rules) and (known or id == "DMAR-H01")
            for finding in rule.run(table, platform_data)
        )
    )


def validate(
    data: bytes, platform_data: PlatformData | None = None, rules: Collection[str] | None = None
) -> Findings[Finding]:
    """What the rules find in the bytes of a table, of whatever size; never raises.

    Bytes too few for the fixed part break H02 and can be checked for nothing else, unless they are
    the whole of another table (H01).
    """
    if len(data) >= FIXED_PART:
        return check(Table.parse(data), platform_data, rules)
    rule, message = "DMAR-H02", f"{len(data)} bytes, the fixed part alone has {FIXED_PART}"
    if len(data) >= ACPI_HEADER and data[:4] not in header.SIGNATURES:
        rule, message = "DMAR-H01", f"signature is {data[:4]!r}: this is no DMAR table"
    if rules is not None and rule not in rules:
        return Findings()
    return Findings([Finding(0, rule, Severity.ERROR, message, len(data))])
