"""What a rule is, what it finds, and the register of all rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from vtd.dmar.records import Place
from vtd.dmar.table import Table
from vtd.ruling import RuleText
from vtd.severity import Severity

if TYPE_CHECKING:
    from vtd.dmar.platform_data import PlatformData


Hits: TypeAlias = Iterable[tuple[Place, str]]
"""What a check yields: the bytes concerned, and what is wrong with them."""


class Finding(NamedTuple):
    """One place that breaks one rule. Findings sort by offset, then by rule."""

    offset: int
    rule: str
    severity: Severity
    message: str
    length: int
    """Bytes concerned, from ``offset``; 0 if the finding is about something absent."""

    @property
    def where(self) -> str:
        """The offset, as reports print it."""
        return f"0x{self.offset:03x}"

    @property
    def place(self) -> dict[str, Any]:
        """For reports in JSON."""
        return {"offset": self.offset}

    @property
    def region(self) -> dict[str, int]:
        """For reports in SARIF."""
        return {"byteOffset": self.offset, "byteLength": self.length}


@dataclass(frozen=True)
class Rule(RuleText):
    """One rule about tables; its section is one of the specification or empty."""

    consumers: dict[str, str]
    """What software is known to do with a table that breaks the rule, by name of the software."""
    check: Callable[[Table], Hits] | None
    """The check of a rule that needs the table alone."""
    platform_check: Callable[[Table, PlatformData], Hits] | None = None
    """The check of a rule that needs other data of the platform."""
    needs: str = ""
    """The other data it needs, in words."""
    judges_absence: bool = False
    """Whether it misses something, which says nothing about a table that was cut."""

    @property
    def group(self) -> str:
        """The letter of its group, as in the id: H of DMAR-H01."""
        return self.id[5]

    def run(self, table: Table, platform: PlatformData | None) -> list[Finding]:
        """The findings of this rule for a table; none if the data it needs was not given."""
        if self.judges_absence and table.truncated:
            return []
        if self.check is not None:
            hits = self.check(table)
        elif self.platform_check is not None and platform is not None:
            hits = self.platform_check(table, platform)
        else:
            return []
        return [
            Finding(place.offset, self.id, self.severity, message, place.length)
            for place, message in hits
        ]


REGISTER: dict[str, Rule] = {}
"""Every declared rule by its id."""

Check: TypeAlias = Callable[[Table], Hits]
PlatformCheck: TypeAlias = "Callable[[Table, PlatformData], Hits]"


def _register(rule: Rule) -> None:
    if rule.id in REGISTER:
        raise TypeError(f"{rule.id} is declared twice")
    REGISTER[rule.id] = rule


def rule(
    id: str,
    severity: Severity,
    title: str,
    section: str = "",
    /,
    judges_absence: bool = False,
    **consumers: str,
) -> Callable[[Check], Check]:
    """Declare a rule that needs the table alone; the docstring of the check is its meaning."""

    def declare(check: Check) -> Check:
        meaning = inspect.getdoc(check) or ""
        _register(
            Rule(
                id, severity, title, section, meaning, consumers, check,
                judges_absence=judges_absence,
            )
        )  # fmt: skip
        return check

    return declare


def platform_rule(
    id: str,
    severity: Severity,
    title: str,
    section: str,
    needs: str,
    /,
    judges_absence: bool = False,
    **consumers: str,
) -> Callable[[PlatformCheck], PlatformCheck]:
    """Declare a rule that needs more than the table."""

    def declare(check: PlatformCheck) -> PlatformCheck:
        meaning = inspect.getdoc(check) or ""
        _register(
            Rule(
                id, severity, title, section, meaning, consumers, None, check, needs,
                judges_absence,
            )
        )  # fmt: skip
        return check

    return declare
