"""Runs a shared library as a program that reads and answers cases, a line of JSON each."""

from __future__ import annotations

import json
import sys

from vtd.fuzz.case import case_of
from vtd.fuzz.targets import LibraryTarget


def main(path: str) -> None:
    """Answer every line of stdin; the library may end this process as it likes."""
    library = LibraryTarget(path)
    for line in sys.stdin:
        answer = {"outcomes": library.run(case_of(json.loads(line)))}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
