"""Write the documentation page of known differences: ``python -m scripts.known_differences``."""

from __future__ import annotations

import argparse
from pathlib import Path

from vtd.fuzz.departures_page import departures_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "known-differences.md"


def main() -> None:
    """Write the page anew."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(departures_page())
    print(f"{PAGE.name} written")


if __name__ == "__main__":
    main()
