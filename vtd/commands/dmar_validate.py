"""``vtd dmar validate`` and ``vtd dmar rules``: tables against the rules, and the rules."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

import typer

from vtd.commands.configuration import (
    Configuration,
    read_baseline,
    read_configuration,
    without_known,
)
from vtd.commands.dmar_output import COLOURS, Level
from vtd.commands.findings import FindingsFormat, chosen_rules, print_findings, rule_ids
from vtd.commands.inputs import Inputs
from vtd.commands.option_groups import with_option_groups
from vtd.commands.platform_files import PlatformFiles, read_platform
from vtd.commands.reading import Unreadable, every_table, unusable_input
from vtd.commands.rendering.answer import CommandAnswer, Format, Output, show
from vtd.commands.rendering.terminal import styled
from vtd.dmar import report
from vtd.dmar.explanation import explain_rule, rule_row
from vtd.dmar.report import FileFindings
from vtd.dmar.rules import RULES, Rule, Severity, validate


@with_option_groups
def validate_command(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="Tables: raw, hex dump of any tool, iasl source; folders and collections of "
            "them; - is stdin.",
        ),
    ] = None,
    format: Annotated[FindingsFormat, typer.Option(help="Form of the output.")] = (
        FindingsFormat.TEXT
    ),
    select: Annotated[
        list[str] | None,
        typer.Option(help="Check these rules only: ids or their beginnings, comma-separated."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Leave these rules out, after --select.")
    ] = None,
    fail_on: Annotated[
        Level | None,
        typer.Option(help="Lowest severity that makes the exit code 1.", show_default="warning"),
    ] = None,
    explain: Annotated[
        list[str] | None, typer.Option(help="Explain a rule instead of checking files.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration [vtd.toml, or pyproject.toml, here].")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Known findings, a report in JSON: they are left out.")
    ] = None,
    *,
    given: PlatformFiles,
) -> None:
    """Check tables against the rules.

    A file that can't be read is a finding of that file, and the others are judged all the same.
    Exit code 0: nothing found at or above --fail-on. 1: something found. 2: wrong use, or a file
    that can't be read.
    """
    if explain:
        _print_rules([RULES[id] for id in rule_ids(RULES, explain)], format)
        return
    if not files:
        raise typer.BadParameter("a FILE is needed, - for stdin", param_hint="FILE")
    with unusable_input("configuration"):
        settled = read_configuration(config)
        settings = _Settings(settled, select, ignore, fail_on)
        file_of_known = str(baseline) if baseline else settled.baseline
        known = read_baseline(file_of_known) if file_of_known else frozenset()
    results, inputs = [], Inputs()
    for file in files:
        for result in _judged(file, given, settings):
            results.append(without_known(result, known))
            if result.unreadable:
                inputs.unusable = True
                typer.echo(f"vtd: {result.file}: {result.findings[0].message}", err=True)
    print_findings(results, format, ("vtd dmar", RULES), settings.threshold(""), _finding_lines)
    inputs.end(found=any(map(settings.fails, results)))


class _Settings:
    """Which rules hold for a file and which findings fail: options first, then configuration."""

    def __init__(
        self,
        configuration: Configuration,
        select: list[str] | None,
        ignore: list[str] | None,
        fail_on: Level | None,
    ) -> None:
        self._configuration = configuration
        self._select, self._ignore, self._fail_on = select, ignore, fail_on
        for each in ({}, *configuration.values.get("path", ())):
            self.rules(each.get("match", ""))
            self.threshold(each.get("match", ""))

    def rules(self, file: str) -> Collection[str]:
        """The ids of the rules to check."""
        settled = self._configuration.settings(file)
        select, ignore = self._select or settled.select, self._ignore or settled.ignore
        return chosen_rules(RULES, select, ignore)

    def threshold(self, file: str) -> Severity:
        """The lowest severity that fails."""
        settled = self._configuration.settings(file).fail_on
        if self._fail_on is None and settled is not None:
            return Level(settled).severity
        return (self._fail_on or Level.WARNING).severity

    def fails(self, result: FileFindings) -> bool:
        """Whether a finding is as bad as that."""
        threshold = self.threshold(result.file)
        return any(each.severity >= threshold for each in result.findings)


def _judged(file: str, given: PlatformFiles, settings: _Settings) -> Iterator[FileFindings]:
    """The findings of every table in a file."""
    platform = None
    for each in every_table(file):
        if isinstance(each, Unreadable):
            yield report.unreadable(each.name, each.reason)
            continue
        platform = platform or read_platform(given, None if file == "-" else file)
        yield FileFindings(each.name, validate(each.data, platform, settings.rules(each.name)))


def _finding_lines(result: FileFindings) -> Iterator[str]:
    new = f", {result.known} known" if result.known else ""
    if not result.findings:
        yield f"{result.file}: nothing found{new}"
    for each in result.findings:
        severity = styled(f"{each.severity!s:7}", COLOURS[each.severity])
        yield f"{result.file}: 0x{each.offset:03x} {severity} {each.rule} {each.message}"


def _print_rules(rules: list[Rule], format: FindingsFormat) -> None:
    if format is FindingsFormat.TEXT:
        typer.echo("\n\n".join(map(explain_rule, rules)))
    else:
        typer.echo(json.dumps([rule_row(rule) for rule in rules], indent=1))


def rules_command(format: Output = Format.TEXT) -> None:
    """List every rule with its severity."""
    rows = [rule_row(rule) for rule in RULES.values()]
    show(CommandAnswer(rows, rows, map(_rule_line, RULES.values())), format)


def _rule_line(rule: Rule) -> str:
    severity = styled(f"{rule.severity!s:7}", COLOURS[rule.severity])
    needs = f" (needs {rule.needs})" if rule.needs else ""
    return f"{rule.id} {severity} {rule.title}{needs}"
