"""Write the pages that are made from code and tests: ``python -m scripts.pages``."""

from __future__ import annotations

import argparse

from scripts import architecture, fault_rows, fields, sections
from vtd.dmar.explanation import rules_page
from vtd.fuzz.departures_page import departures_page
from vtd.logs.page import messages_page
from vtd.software.invalidation_rules_page import invalidation_rules_page

DOCS = sections.ROOT / "docs"
PAGES = {
    "architecture.svg": architecture.picture,
    "dmar-rules.md": rules_page,
    "fault-conditions.md": fault_rows.page,
    "fields.md": fields.page,
    "invalidation-rules.md": invalidation_rules_page,
    "known-differences.md": departures_page,
    "log-messages.md": messages_page,
    "sections.md": sections.page,
}
"""What gives the text of each."""


def main() -> None:
    """Write them all anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, text in PAGES.items():
        (DOCS / name).write_text(text())


if __name__ == "__main__":
    main()
