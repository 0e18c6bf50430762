"""The documentation page of the invalidation rules."""

from __future__ import annotations

from collections.abc import Iterator

from vtd.software.invalidation_rules import STAGES, TABLES_28_AND_29, Rule

TABLES = {"6.5.3.3": "Table 28", "6.5.3.4": "Table 29"}


def invalidation_rules_page() -> str:
    """The page in Markdown: which change owes what, in which order, and the cases of each rule."""
    return "\n".join(_lines()) + "\n"


HEAD = """\
# Invalidations that software owes

Written by `python -m scripts.pages` from `vtd/software/invalidation_rules.py`, which
the driver of `vtd.software` follows and `vtd audit` judges by. Descriptors of a lower stage come
first (6.2.2.1, 6.2.3.1, 6.5.2.5, 6.5.2.6, 6.5.3.4), and a wait descriptor closes them all
(6.5.2.9). Nothing is owed for what can't be cached: entries that were not present, unless
CAP_REG.CM = 1, which does not apply to first-stage tables (6.1, 6.5.3.3).

`tests/vtd/auditing/test_invalidation_rules.py` has two cases of each rule, by its name: a driver
that forgets this one invalidation, which is reported, and one that gives it, which is not.
`test_field_bugs.py` plays bugs that drivers had.

| rule | change | owed | stage | section |
| --- | --- | --- | --- | --- |"""
ROWS = """
## Tables 28 and 29

Each row of the specification's tables, in each mode. `tests/vtd/auditing/test_guidance_tables.py`
changes every field that a row names, for requests of RID_PASID and of another PASID, in each kind
of translation: with each rule forgotten alone, which is reported by its name, and with all of them
kept, of which nothing is said. Rows of Table 29 come after what Table 28 says of the same entry.

| table | mode | change | owed, in this order |
| --- | --- | --- | --- |"""


def _lines() -> Iterator[str]:
    yield HEAD
    for rule in Rule:
        table = TABLES.get(rule.section)
        section = rule.section + (f", {table}" if table else "")
        stage = max(STAGES[name] for name in rule.descriptor.split(" or "))
        owed = f"{rule.granularity} {rule.descriptor}"
        yield f"| {rule.name} | {rule.change} | {owed} | {stage} | {section} |"
    yield ROWS
    for row in TABLES_28_AND_29:
        rules = ", ".join(rule.name for rule in row.owed)
        yield f"| {row.table} | {row.mode} | {row.change} | {rules} |"
