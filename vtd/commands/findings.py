"""Findings of a set of rules on the command line: which rules, and in which form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import typer

from vtd import ruling
from vtd.commands.rendering.terminal import folded
from vtd.ruling import Found, RuleText
from vtd.severity import Severity

F = TypeVar("F", bound=Found)


class FindingsFormat(StrEnum):
    """Formats of findings."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    SARIF = "sarif"
    JUNIT = "junit"


def rule_ids(rules: Mapping[str, RuleText], texts: Iterable[str]) -> list[str]:
    """The rules whose ids begin with one of the words, with or without what all begin with."""
    prefix = next(iter(rules)).partition("-")[0] + "-"
    found: list[str] = []
    for word in (word.strip().upper() for text in texts for word in text.split(",")):
        beginning = prefix + word.removeprefix(prefix)
        matching = [id for id in rules if id.startswith(beginning)]
        if not word or not matching:
            raise typer.BadParameter(f"{word!r} is the beginning of no rule id")
        found += matching
    return found


def chosen_rules(
    rules: Mapping[str, RuleText], select: Iterable[str] | None, ignore: Iterable[str] | None
) -> set[str]:
    """The ids that ``--select`` names, all without it, but for those that ``--ignore`` names."""
    selected = rule_ids(rules, select) if select else rules
    return set(selected) - set(rule_ids(rules, ignore or ()))


def print_findings(
    results: Sequence[F],
    format: FindingsFormat,
    rules: tuple[str, Mapping[str, RuleText]],
    threshold: Severity,
    lines: Callable[[F], Iterable[str]],
) -> None:
    """Print what was found: by ``lines`` as text.

    ``rules``: the tool, and its rules. Findings below ``threshold`` pass as test cases.
    """
    tool, texts = rules
    match format:
        case FindingsFormat.JSON:
            text = ruling.to_json(results)
        case FindingsFormat.JSONL:
            text = ruling.to_jsonl(results)
        case FindingsFormat.SARIF:
            text = ruling.to_sarif(tool, texts, results)
        case FindingsFormat.JUNIT:
            text = ruling.to_junit(tool, results, threshold)
        case FindingsFormat.TEXT:
            text = "\n".join(folded(line for result in results for line in lines(result)))
    if text:
        typer.echo(text)
