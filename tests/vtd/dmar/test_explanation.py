"""Rules in words, and the page of all rules in the documentation."""

from pathlib import Path

import pytest

from vtd.dmar.explanation import ASKED, SOFTWARE, enforcement, explain_rule, rules_page
from vtd.dmar.rules import RULES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "dmar-rules.md"


def test_the_page_in_the_documentation_is_up_to_date() -> None:
    assert PAGE.read_text() == rules_page(), "run python -m scripts.dmar_rules"


@pytest.mark.parametrize("id", RULES)
def test_an_explanation_has_the_rule_its_source_and_the_software(id: str) -> None:
    rule = RULES[id]
    text = explain_rule(rule)
    assert text.startswith(f"{id} ({rule.severity}): {rule.title}\nSpecification: ")
    assert rule.meaning in text
    assert set(enforcement(rule)) >= {SOFTWARE[name] for name in ASKED}
