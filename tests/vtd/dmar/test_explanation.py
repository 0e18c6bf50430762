"""Rules in words, and the page of all rules in the documentation."""

import pytest

from vtd.dmar.explanation import ASKED, SOFTWARE, enforcement, explain_rule
from vtd.dmar.rules import RULES


@pytest.mark.parametrize("id", RULES)
def test_an_explanation_has_the_rule_its_source_and_the_software(id: str) -> None:
    rule = RULES[id]
    text = explain_rule(rule)
    assert text.startswith(f"{id} ({rule.severity}): {rule.title}\nSpecification: ")
    assert rule.meaning in text
    assert set(enforcement(rule)) >= {SOFTWARE[name] for name in ASKED}
