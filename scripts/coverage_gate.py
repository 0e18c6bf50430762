"""Refuse a coverage report whose line or branch coverage of a package is too low.

Reads the JSON that `coverage json` writes (`scripts/test` leaves it in `.coverage.json`). Each of
`vtd`, `pagetables` and `vtd/unit`, the engine, has to reach both limits by itself.
"""

import argparse
import json
import sys
from pathlib import Path, PurePath
from typing import Any

LIMITS = {
    "vtd": {"line": 98.0, "branch": 95.0},
    "vtd/unit": {"line": 98.0, "branch": 97.0},
    "pagetables": {"line": 98.0, "branch": 95.0},
}
COUNTERS = {
    "line": ("covered_lines", "num_statements"),
    "branch": ("covered_branches", "num_branches"),
}


def percentages(report: dict[str, Any], package: str) -> dict[str, float]:
    """Line and branch coverage of a package in percent; 100 where nothing counts."""
    summaries = [
        file["summary"]
        for path, file in report["files"].items()
        if PurePath(path).is_relative_to(package)
    ]
    result = {}
    for kind, (covered, total) in COUNTERS.items():
        possible = sum(summary[total] for summary in summaries)
        reached = sum(summary[covered] for summary in summaries)
        result[kind] = 100 * reached / possible if possible else 100.0
    return result


def main() -> int:
    """Print the figures to stdout, those too low to stderr as well; 1 if any is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="JSON coverage report")
    report = json.loads(parser.parse_args().report.read_text())
    too_low = False
    for package, limits in LIMITS.items():
        for kind, percent in percentages(report, package).items():
            figure = f"{package}: {kind} coverage {percent:.2f} % (at least {limits[kind]:g} %)"
            print(figure)
            if percent < limits[kind]:
                print(f"too low: {figure}", file=sys.stderr)
                too_low = True
    return int(too_low)


if __name__ == "__main__":
    sys.exit(main())
