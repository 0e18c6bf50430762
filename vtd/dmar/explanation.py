"""A rule in words, and the page of all rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vtd.dmar.rules import GROUPS, RULES, Rule

SOFTWARE = {
    "linux": "Linux",
    "xen": "Xen",
    "fwts": "fwts",
    "acrn": "ACRN",
    "freebsd": "FreeBSD",
    "windows": "Windows",
    "iasl": "iasl",
    "chipsec": "chipsec",
}
"""How software that acts on rules is written."""
ASKED = ("linux", "xen", "fwts")
"""Software to say something about even if it does nothing."""


def enforcement(rule: Rule) -> dict[str, str]:
    """What software does with a table that breaks the rule, by its name."""
    silent = dict.fromkeys(ASKED, "no check known")
    return {SOFTWARE[name]: text for name, text in (silent | rule.consumers).items()}


def rule_row(rule: Rule) -> dict[str, Any]:
    """The rule as JSON values."""
    return {
        "rule": rule.id,
        "severity": str(rule.severity),
        "title": rule.title,
        "meaning": rule.meaning,
        "section": rule.section,
        "needs": rule.needs,
        "software": enforcement(rule),
    }


def explain_rule(rule: Rule) -> str:
    """What a rule means, where it comes from, and what software does."""
    return "\n".join(_explanation(rule))


def _explanation(rule: Rule) -> Iterator[str]:
    yield f"{rule.id} ({rule.severity}): {rule.title}"
    yield f"Specification: {_source(rule)}"
    if rule.needs:
        yield f"Needs: {rule.needs}"
    yield ""
    yield rule.meaning
    yield ""
    yield "What software does:"
    for name, text in enforcement(rule).items():
        yield f"  {name}: {text}"


def _source(rule: Rule) -> str:
    return f"VT-d {rule.section}" if rule.section else "none, own judgement"


def rules_page() -> str:
    """The documentation page that lists every rule, in Markdown."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    static = sum(not rule.needs for rule in RULES.values())
    yield "# Rules for DMAR tables"
    yield ""
    yield (
        f"{static} rules need the table alone, {len(RULES) - static} need other data of the "
        "platform. Sections are those of the VT-d specification, revision 5.10. Severities: an "
        'error breaks a "must" of the specification or makes a mainstream system refuse the '
        "table, a warning is dubious or makes some software complain, an info is unusual but legal."
    )
    yield ""
    yield "This page is made by `python -m scripts.pages` from the rules themselves."
    for letter, (title, _) in GROUPS.items():
        yield ""
        yield f"## {letter}: {title}"
        for rule in RULES.values():
            if rule.group == letter:
                yield from _section(rule)


def _section(rule: Rule) -> Iterator[str]:
    yield ""
    yield f"### {rule.id}: {rule.title}"
    yield ""
    needs = f" Needs: {rule.needs}." if rule.needs else ""
    yield f"*{rule.severity}.* Specification: {_source(rule)}.{needs}"
    yield ""
    yield rule.meaning.replace("\\", "\\\\")
    if rule.consumers:
        yield ""
        for name, text in rule.consumers.items():
            yield f"- {SOFTWARE[name]}: {text}"
