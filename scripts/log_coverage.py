"""Print how much of the messages of each Linux version is read: ``python -m scripts.log_coverage``.

Every format string in ``tests/vtd/logs/linux_formats.txt`` is filled with sample values, printed as
dmesg does, and read. A message is a fault, of a known kind, unknown, or dropped: not even counted.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from vtd.logs.log import read_log
from vtd.logs.message import Weight

FORMATS = Path(__file__).resolve().parents[1] / "tests" / "vtd" / "logs" / "linux_formats.txt"
VERSIONS = (
    *("2.6.24", "2.6.32", "3.6", "3.17", "4.4", "5.4", "5.10", "6.1", "6.3", "6.12", "7.2"),
)
_SPECIFIER = re.compile(r"%[-#0-9.]*(?:ll|l|z|L|h)*([a-zA-Z])[Ra]?")
_WORDS = {
    "[%s] Request": "DMA Read",
    "[%s NO_PASID]": "DMA Write",
    "[%s PASID": "DMA Read",
    "address %llx%s": "",
    "%s identity mapping": "hardware",
    "device %s": "0000:00:1d.0",
    "for %s failed": "0000:00:1d.0",
    "in %s mode": "xapic",
    "Setting identity": "0000:00:1d.0",
    "Using iommu %s mapping": "direct",
}
_NUMBERS = {"d": "2", "x": "1f", "X": "1F", "u": "2", "i": "2", "p": "0x1000"}


class Format(NamedTuple):
    """A message of Linux: its format string, and the versions that have it."""

    versions: frozenset[str]
    text: str


class Outcome(Enum):
    """What became of a message."""

    FAULT = "fault"
    PROBLEM = "problem"
    NOTICE = "notice"
    NORMAL = "normal"
    UNKNOWN = "unknown"
    DROPPED = "dropped"


def formats() -> Iterator[Format]:
    """The format strings."""
    for line in FORMATS.read_text().splitlines():
        if not line.startswith("#"):
            versions, _, text = line.partition("\t")
            yield Format(frozenset(_versions(versions)), text)


def _versions(spans: str) -> Iterator[str]:
    for span in spans.split(","):
        first, _, last = span.partition("..")
        yield from VERSIONS[VERSIONS.index(first) : VERSIONS.index(last or first) + 1]


def sample(text: str) -> list[str]:
    """The lines of a message with sample values, as dmesg prints them."""

    def value(match: re.Match[str]) -> str:
        rest, before = text[match.start() :], text[: match.end()]
        if match[1] == "s":
            fitting = (
                words
                for key, words in _WORDS.items()
                if before.endswith(key.split("%s")[0] + "%s") and key.split("%s")[-1] in rest
            )
            return next(fitting, "dmar0")
        number = _NUMBERS.get(match[1], "1")
        return number.zfill(2) if re.match(r"%0?2", match[0]) else number

    filled = _SPECIFIER.sub(value, text.replace("%02x:%02x.%d", "00:1d.0"))
    filled = filled.replace("%04x:00:1d.0", "0000:00:1d.0").replace("0x0000:", "0000:")
    first, *others = filled.split("\\n")
    return [f"[    1.234567] {first}", *(f"               {each}" for each in others)]


def outcome(lines: list[str]) -> Outcome:
    """What becomes of a message; the worst if its lines have several outcomes."""
    log = read_log(lines)
    weights = {group.weight for group in log.messages}
    if Weight.UNKNOWN in weights:
        return Outcome.UNKNOWN
    if log.faults:
        return Outcome.FAULT
    return next((Outcome(w.value) for w in Weight if w in weights), Outcome.DROPPED)


def main() -> None:
    """Print the counts of each version, and the messages that are not read."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    read = [(each, outcome(sample(each.text))) for each in formats()]
    print("version  messages " + " ".join(f"{each.value:>8}" for each in Outcome))
    for version in VERSIONS:
        counts = Counter(result for each, result in read if version in each.versions)
        cells = " ".join(f"{counts[each]:8}" for each in Outcome)
        print(f"{version:8} {counts.total():8} {cells}")
    for each, result in read:
        if result in (Outcome.UNKNOWN, Outcome.DROPPED):
            print(f"{result.value}: {each.text}")


if __name__ == "__main__":
    main()
