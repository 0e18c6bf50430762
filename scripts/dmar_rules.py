"""Write the documentation page of the DMAR rules: ``python -m scripts.dmar_rules``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vtd.dmar.explanation import rules_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "dmar-rules.md"


def main() -> None:
    """Write the page anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(rules_page())
    print(f"{PAGE.name} written")


if __name__ == "__main__":
    main()
