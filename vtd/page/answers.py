"""Answers about what was given, each the document of a command with ``--format json``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vtd.dmar import report
from vtd.dmar.decoded import decoded
from vtd.dmar.explanation import rule_row
from vtd.dmar.pci_tree import PciTreeError
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.protection import audit, statement_row
from vtd.dmar.report import FileFindings
from vtd.dmar.rules import RULES, check, validate
from vtd.dmar.scope_rows import scope_row
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table, TableError
from vtd.dmar.written_edits import written_edits
from vtd.inspection.capability_rows import Decoded, capabilities_row
from vtd.inspection.group_rows import groups_row, require_buses
from vtd.inspection.isolation_groups import isolation_groups
from vtd.logs.context import put_in_context
from vtd.logs.log import Log
from vtd.logs.rows import log_row
from vtd.page.given import Given, Kind, UnknownInputError, recognised
from vtd.plain import plain

Inputs = Sequence[tuple[str, bytes]]
"""Names and contents, in the order in which they were given."""


@dataclass(frozen=True)
class Answer:
    """One answer: what it is about, the command that gives it too, and the document."""

    about: str
    kind: str
    command: tuple[str, ...]
    document: Any

    def row(self) -> dict[str, Any]:
        """The answer as JSON values; the command as a shell takes it."""
        command = shlex.join(("vtd", *self.command))
        return {
            "about": self.about,
            "kind": self.kind,
            "command": command,
            "document": plain(self.document),
        }


class Page:
    """All that was given together: a table, a listing and a log explain each other."""

    def __init__(self, inputs: Inputs) -> None:
        self.given: list[Given] = []
        self.refused: list[str] = []
        for name, data in inputs:
            try:
                self.given.append(recognised(name, data))
            except UnknownInputError as error:
                self.refused.append(str(error))

    def row(self) -> dict[str, Any]:
        """What the inputs are, what could not be read of them, and every answer."""
        answers = [each.row() for each in self.answers()]
        return {
            "inputs": [{"name": each.name, "kind": each.kind.value} for each in self.given],
            "notes": [*self.refused, *self._notes()],
            "answers": answers,
        }

    def answers(self) -> Iterator[Answer]:
        """Every answer, in the order of the inputs."""
        for each in self.given:
            if each.tables:
                yield from self._about_tables(each)
            if each.log is not None:
                yield self._about_log(each, each.log)
            if each.units:
                yield self._about_units(each)
            if each.tree is not None:
                yield from self._about_listing(each)

    def findings(self) -> list[FileFindings]:
        """What the rules find in every table, for SARIF."""
        tables = (each for each in self.given if each.tables)
        return [result for each in tables for result in self._findings(each)]

    def edited(self, edits: Mapping[str, Sequence[str]]) -> bytes:
        """The first table after these edits; ValueError if there is none or one does not apply."""
        if self._first_table is None:
            raise ValueError("no DMAR table was given")
        return written_edits(self._first_table, edits).pack()

    def _first(self, kind: Kind) -> Given | None:
        return next((each for each in self.given if each.kind is kind), None)

    @cached_property
    def _first_table(self) -> Table | None:
        given = self._first(Kind.TABLE)
        try:
            return None if given is None else Table.parse(given.tables[0].data)
        except TableError:
            return None

    @cached_property
    def _platform(self) -> PlatformData:
        listing, memory_map = self._first(Kind.LISTING), self._first(Kind.MEMORY_MAP)
        return PlatformData(
            reserved_memory=memory_map.reserved_memory if memory_map else None,
            pci=listing.tree if listing else None,
        )

    def _options(self, *kinds: Kind) -> Iterator[str]:
        """The options by which a command is given what else there is."""
        names = {Kind.TABLE: "--dmar", Kind.LISTING: "--lspci", Kind.MEMORY_MAP: "--memory-map"}
        for kind in kinds:
            if kind is Kind.TABLE and self._first_table is None:
                continue
            if given := self._first(kind):
                yield from (names[kind], given.name)

    def _notes(self) -> Iterator[str]:
        for each in self.given:
            yield from (f"{each.name}: {note}" for found in each.tables for note in found.notes)
            for found in each.tables:
                try:
                    Table.parse(found.data)
                except TableError as error:
                    yield f"{each.name}: {error}"
            if each.tree is not None:
                try:
                    require_buses(each.tree)
                except PciTreeError as error:
                    yield f"{each.name}: no groups: {error}"

    def _findings(self, given: Given) -> Iterator[FileFindings]:
        several = len(given.tables) > 1
        for number, found in enumerate(given.tables, 1):
            name = f"{given.name}#{number}" if several else given.name
            yield FileFindings(name, validate(found.data, self._platform))

    def _about_tables(self, given: Given) -> Iterator[Answer]:
        found = list(self._findings(given))
        options = (*self._options(Kind.LISTING, Kind.MEMORY_MAP), "--format", "json")
        command = ("dmar", "validate", given.name, *options)
        yield Answer(given.name, "findings", command, json.loads(report.to_json(found)))
        broken = sorted({each.rule for result in found for each in result.findings})
        if broken:
            explain = ("--explain", ",".join(broken), "--format", "json")
            rows = [rule_row(RULES[id]) for id in broken]
            yield Answer(given.name, "rules", ("dmar", "validate", *explain), rows)
        try:
            tables = [Table.parse(each.data) for each in given.tables]
        except TableError:
            return
        shown = [
            {"file": result.file, "decoded": decoded(table)}
            for result, table in zip(found, tables, strict=True)
        ]
        yield Answer(given.name, "table", ("dmar", "show", given.name, "--format", "json"), shown)
        if not check(tables[0], rules={"DMAR-H01"}):
            listing = (*self._options(Kind.LISTING), "--format", "json")
            statements = [statement_row(each) for each in audit(tables[0], self._platform.pci)]
            yield Answer(
                given.name, "statements", ("dmar", "audit", given.name, *listing), statements
            )

    def _about_log(self, given: Given, log: Log) -> Answer:
        log, context = put_in_context(log, self._first_table, self._platform)
        options = self._options(Kind.TABLE, Kind.LISTING, Kind.MEMORY_MAP)
        command = ("explain", given.name, *options, "--format", "json")
        return Answer(given.name, "log", command, log_row(log, context))

    def _about_units(self, given: Given) -> Answer:
        units = [Decoded.of(each) for each in given.units]
        numbers = [f"{each:#x}" for unit in given.units for each in (unit.cap, unit.ecap)]
        source = [given.name] if given.kind is Kind.LOG else numbers
        command = ("caps", *source, "--format", "json")
        return Answer(given.name, "capabilities", command, capabilities_row(units))

    def _about_listing(self, given: Given) -> Iterator[Answer]:
        tree = given.tree
        assert tree is not None
        if not tree.closed_bridges:
            document = groups_row(isolation_groups(tree), tree)
            yield Answer(given.name, "groups", ("groups", given.name, "--format", "json"), document)
        table = self._first(Kind.TABLE)
        if table is None or self._first_table is None or given is not self._first(Kind.LISTING):
            return
        scopes = Scopes(self._first_table, tree)
        for bdf in tree.functions:
            command = ("dmar", "scope", table.name, str(bdf), "--lspci", given.name)
            row = scope_row(scopes, bdf, tree)
            yield Answer(given.name, "scope", (*command, "--format", "json"), row)


def sarif(inputs: Inputs) -> str:
    """The findings in every table as SARIF 2.1.0."""
    return report.to_sarif(Page(inputs).findings())
