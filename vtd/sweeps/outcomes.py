"""What came of passes, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vtd.sweeps.designs import Pass
from vtd.traces.places import size_of


@dataclass
class Counts:
    """What was counted since the beginning, of all sizes of a pass."""

    time: int
    requests: int
    lookups: int
    bytes: int
    markers: int
    removed: int
    """IOTLB entries that invalidations removed, from the largest cache."""
    misses: list[int]
    """By size."""
    reads: list[int]
    """Entries of the first stage met, read by walks; by size."""
    cold: list[int]
    """Walks from the root; by size."""


@dataclass(frozen=True)
class Outcome:
    """What came of one pass."""

    wanted: Pass
    requesters: int
    start: int
    """Time of the first row."""
    history: list[Counts]


class State:
    """Outcomes that are done, a JSON line each, so that a sweep goes on where it was stopped.

    A line belongs to a trace by its place and size. One that is cut short does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[tuple[str, int, str], dict[str, Any]] = {}
        self._whole = 0
        """Bytes of the file that are whole lines."""
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                told = json.loads(line)
                self._lines[told["trace"], told["size"], told["pass"]] = told
                self._whole += len(line.encode())
            except (ValueError, TypeError, KeyError) as error:
                if number < len(lines):
                    raise ValueError(f"line {number}: not the state of a sweep") from error

    def done(self, trace: str, passes: Sequence[Pass]) -> list[Outcome]:
        """The outcomes of those passes through a trace that are done."""
        size = size_of(trace)
        found = []
        for wanted in passes:
            told = self._lines.get((trace, size, wanted.key))
            if told is not None:
                history = [Counts(**each) for each in told["history"]]
                found.append(Outcome(wanted, told["requesters"], told["start"], history))
        return found

    def keep(self, trace: str, outcomes: Sequence[Outcome]) -> None:
        """Note outcomes, at the end of the file."""
        size = size_of(trace)
        with self._path.open("ab") as stream:
            stream.truncate(self._whole)
            for outcome in outcomes:
                told = {
                    "trace": trace,
                    "size": size,
                    "pass": outcome.wanted.key,
                    "requesters": outcome.requesters,
                    "start": outcome.start,
                    "history": [asdict(each) for each in outcome.history],
                }
                stream.write(json.dumps(told).encode() + b"\n")
            self._whole = stream.tell()
