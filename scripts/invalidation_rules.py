"""Write the page of the invalidation rules: ``python -m scripts.invalidation_rules``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vtd.software.invalidation_rules_page import invalidation_rules_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "invalidation-rules.md"


def main() -> None:
    """Write the page anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(invalidation_rules_page())
    print(f"{PAGE.name} written")


if __name__ == "__main__":
    main()
