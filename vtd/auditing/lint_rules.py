"""What structures of a unit and writes to them have to fulfil, as rules with ids.

VT-d 5, 6.2.2.1, 6.2.3.1, 6.5.2, 9 and 11.4. Left out: what entries do to requests, which the unit
itself decides, and invalidations, which :mod:`vtd.auditing.audit` is for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vtd.ruling import RuleText
from vtd.severity import ERROR, INFO, WARNING, Severity


class LintFinding(NamedTuple):
    """One place that breaks one rule: a record in memory, a line of a log, or both."""

    line: int
    """0 where it is no line of a log."""
    address: int
    """Of the record; -1 where it is none."""
    rule: str
    severity: Severity
    message: str

    @property
    def where(self) -> str:
        """The line, or the address."""
        return f"line {self.line}" if self.line else f"{self.address:#x}"

    @property
    def place(self) -> dict[str, Any]:
        """For reports in JSON."""
        known = {"line": self.line or None}
        return {**known, "address": None if self.address < 0 else f"{self.address:#x}"}

    @property
    def region(self) -> dict[str, int]:
        """For reports in SARIF: a line, or an offset in memory."""
        return {"startLine": self.line} if self.line else {"byteOffset": max(self.address, 0)}


def _rule(id: str, severity: Severity, title: str, section: str, meaning: str) -> RuleText:
    return RuleText(f"VTD-{id}", severity, title, section, meaning)


RULES: dict[str, RuleText] = {
    rule.id: rule
    for rule in (
        _rule(
            "D01", ERROR, "entries with one domain-id have one second-stage table and AW",
            "6.2.2.1, 6.2.3.1",
            "Caches are tagged with the domain-id: one device is translated by the other's tables.",
        ),
        _rule(
            "D02", ERROR, "first stage and pass-through have other domain-ids than second stages",
            "6.2.3.1", "Invalidations of one kind of mapping do not find those of the other.",
        ),
        _rule(
            "D03", ERROR, "domain-id 0 is not used where CM = 1", "6.2.2.1, 6.2.3.1",
            "The unit tags with it what it keeps of entries that fault.",
        ),
        _rule(
            "D04", ERROR, "entries with one second-stage table have one SSADE", "6.2.3.1",
            "Dirty flags are set for some of the users of the table and not for others.",
        ),
        _rule(
            "D05", ERROR, "entries with one first-stage table have one FSPM and EAFE", "6.2.3.1",
            "They are properties of the table, whoever uses it.",
        ),
        _rule(
            "D06", ERROR, "one PASID and domain-id stand for one set of tables", "6.2.3.1",
            "What is cached of the first stage is tagged with both, and not with the source.",
        ),
        _rule(
            "D07", INFO, "entries with one second-stage table have one domain-id",
            "6.2.2.1, 6.2.3.1",
            "Allowed, but each domain-id needs invalidations of its own after a change.",
        ),
        _rule(
            "D08", ERROR, "entries with one HPT domain-id have one host permission table",
            "6.2.6.2",
            "Caches are tagged with it: one device is permitted what the other one may reach.",
        ),
        _rule(
            "S01", ERROR, "reserved fields of present entries are 0", "9",
            "Every request that uses the entry is blocked.",
        ),
        _rule(
            "S02", ERROR, "present entries ask for what the unit has", "9, Table 30",
            "Address widths, translation types and flags that contradict each other or the unit.",
        ),
        _rule(
            "S03", ERROR, "tables lie in memory", "9", "Reading them fails, and requests with it.",
        ),
        _rule(
            "R01", ERROR, "reserved memory is mapped to itself for its devices", "8.4",
            "Firmware's devices use it from the moment that translation is on.",
        ),
        _rule(
            "I01", WARNING, "interrupt-remapping entries verify the requester (SVT)", "9.9, 5.1.4",
            "With SVT = 00b any device may send the interrupt.",
        ),
        _rule(
            "I02", ERROR, "posted-interrupt descriptors are 64-byte aligned and in memory",
            "9.10, 9.11", "Bits 37:32 of the entry are reserved: the interrupt is blocked.",
        ),
        _rule(
            "W01", ERROR, "tables and domain-id of a present entry change in one 16-byte write",
            "6.2.2.1, 6.2.3.1, 6.2.6.2",
            "A request in between is translated by one table and cached under another's tag.",
        ),
        _rule(
            "W02", ERROR, "a present interrupt-remapping entry changes in one 16-byte write", "9.9",
            "An interrupt in between is sent by half of the old entry and half of the new one.",
        ),
        _rule(
            "Q01", WARNING, "PFSID of device-TLB invalidations names the physical function",
            "6.5.2.5, 6.5.2.6",
            "With ECAP_REG.DIT the pending invalidations of another function are limited.",
        ),
        _rule(
            "P01", ERROR, "GCMD_REG changes one function at a time, pointers before functions",
            "11.4.4.1, 6.6, 6.7", "What two commands in one write lead to is not defined.",
        ),
        _rule(
            "P02", ERROR, "the translation table mode changes while translation is off", "11.4.5",
            "Requests are translated by tables of the other mode.",
        ),
        _rule(
            "P03", ERROR, "the invalidation queue is moved while it is off", "6.5.2",
            "Descriptors are fetched from memory that holds none.",
        ),
        _rule(
            "P04", ERROR, "registers invalidate only while the queue is off", "6.5.1",
            "The command is ignored, and what should have gone stays cached.",
        ),
        _rule(
            "P05", ERROR, "the interrupt mode (EIME) changes while remapping is off", "11.4.10",
            "Destinations of entries in use are read by the other mode.",
        ),
        _rule(
            "P06", ERROR, "protected regions move while they are not protected",
            "11.4.8.2 to 11.4.8.5",
            "What is blocked while the registers change is not defined.",
        ),
    )
}  # fmt: skip
"""Every rule by its id."""

OF_REGISTERS = {
    "GlobalCommand": "VTD-P01",
    "RootTableAddress": "VTD-P02",
    "InvalidationQueueAddress": "VTD-P03",
    "ContextCommand": "VTD-P04",
    "IotlbInvalidate": "VTD-P04",
    "InterruptRemappingTableAddress": "VTD-P05",
    "ProtectedLowMemoryBase": "VTD-P06",
    "ProtectedLowMemoryLimit": "VTD-P06",
    "ProtectedHighMemoryBase": "VTD-P06",
    "ProtectedHighMemoryLimit": "VTD-P06",
}
"""The rule about each register of a :class:`vtd.unit.reporting.events.RegisterMisused`."""


def finding(rule: str, message: str, *, line: int = 0, address: int = -1) -> LintFinding:
    """A place that breaks ``VTD-`` and ``rule``."""
    text = RULES[f"VTD-{rule}"]
    return LintFinding(line, address, text.id, text.severity, message)
