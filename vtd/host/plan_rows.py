"""A judged passthrough plan as rows, in the form of ``vtd passthrough plan --format json``."""

from __future__ import annotations

from vtd.host.planner import Judgement, Nearest
from vtd.host.surroundings import Surroundings
from vtd.host.verdicts import Verdict
from vtd.rows import Hex


def plan_row(
    judgement: Judgement, better: Nearest | None, around: Surroundings
) -> dict[str, object]:
    """Devices with unit and group, verdicts, costs, and the changes to the nearest plan."""
    return {
        "works": judgement.works,
        "undecided": judgement.undecided,
        "devices": [
            {
                "device": each.name,
                "function": str(each.bdf),
                "guest": each.guest,
                "unit": Hex.known(each.base),
                "group": [
                    around.name(bdf) for bdf in around.group(each.bdf, each.policy.acs_override)
                ],
            }
            for each in judgement.devices
        ],
        "verdicts": [verdict_row(each) for each in judgement.verdicts],
        "costs": [
            {
                "guest": each.guest,
                "unit": Hex(each.unit),
                "leaves": each.leaves,
                "tables": each.tables,
                "unmap_descriptors": each.unmap,
                "interrupt_entries": each.interrupts,
            }
            for each in judgement.costs
        ],
        "nearest": None if better is None else list(better.changes),
    }


def verdict_row(each: Verdict) -> dict[str, object]:
    """A verdict with its rule, the changes that help, and what hypervisors say."""
    return {
        "rule": each.rule.id,
        "title": each.rule.title,
        "section": each.rule.section or None,
        "kind": each.kind.value,
        "reason": each.reason.name,
        "line": each.where.line,
        "subject": each.subject,
        "text": each.text,
        "changes": [change.text for change in each.changes],
        "hypervisors": {
            name: None if saying is None else {"says": saying.text, "source": saying.source}
            for name, saying in each.rule.sayings.items()
        },
    }
