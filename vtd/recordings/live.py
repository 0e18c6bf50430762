"""Recordings of units that a live guest programmed: format ``live-1``, read line by line.

``tests/recordings/FORMAT.md`` describes the format. The first line says what the machine was, each
other line what one unit saw or did. Left out: carrying them out, which
:mod:`vtd.recordings.replay_live` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from devices.source_id import Bdf
from vtd.dmar.pci_tree import parse_address
from vtd.dmar.table import Table
from vtd.recordings import values
from vtd.recordings.live_lines import Line, RegisterRead, parse_line
from vtd.recordings.scenario import departures_of, unit_capabilities, unit_constants
from vtd.recordings.text_lines import CUT, open_lines, unzipped
from vtd.recordings.values import (
    Json,
    ScenarioError,
    byte_string,
    flag,
    items,
    member,
    members,
    text,
)
from vtd.unit.caching.policy import POLICIES, CachePolicy
from vtd.unit.departures import FLAGS, Departures
from vtd.unit.implementation import implementation_registers
from vtd.unit.registers.capabilities import Capabilities

FORMAT = "live-1"
_HEAD = re.compile(rb'\s*\{.*?"format"\s*:\s*"live-', re.DOTALL)
_DEPARTED = Departures(**{each.name: not each.permitted for each in FLAGS})
"""What ``as_recorded`` stands for here: no choice that the specification leaves open is in it."""
Numbered = tuple[int, Line]
"""A line and its number, the first line of the file being 1."""


@dataclass(frozen=True)
class LiveHead:
    """The first line: units and table of the machine, and how they were recorded."""

    table: Table
    units: tuple[Capabilities, ...]
    """One for each DRHD, in their order."""
    constants: tuple[Mapping[int, int] | None, ...]
    """Values of implementation-specific registers of each; None where it is not told."""
    caches: CachePolicy
    departures: Departures
    bridges: Mapping[Bdf, int]
    """The bus behind each bridge, as far as it is said."""

    @classmethod
    def parse(cls, raw: Json) -> Self:
        """The head as JSON; ScenarioError names the field."""
        named = member(raw, "format", text)
        if named != FORMAT:
            raise ScenarioError(f"format: {named!r} is not {FORMAT}")
        units = member(raw, "units", items)
        table = member(raw, "dmar_hex", lambda value: Table.parse(byte_string(value)))
        bases = len(list(table.units))
        if bases != len(units):
            raise ScenarioError(f"units: {len(units)}, but the table has {bases} DRHD structures")
        policy = member(raw, "caches", text, "default")
        if policy not in POLICIES:
            raise ScenarioError(f"caches: {policy!r} is none of {', '.join(POLICIES)}")
        made = tuple(unit_capabilities(unit) for unit in units)
        for number, unit in enumerate(made):
            contradictions = unit.check()
            if contradictions:
                raise ScenarioError(f"unit {number}: {'; '.join(contradictions)}")
        ahead = member(raw, "reads_ahead", flag, False)
        as_recorded = member(raw, "as_recorded", flag, False)
        single = departures_of({**raw, "as_recorded": False})
        return cls(
            table,
            made,
            tuple(unit_constants(unit) if "registers" in unit else None for unit in units),
            POLICIES[policy] if ahead else replayable(POLICIES[policy]),
            single | _DEPARTED if as_recorded else single,
            member(raw, "bridges", _bridges, {}),
        )


def is_live(path: Path) -> bool:
    """Whether a file begins like a recording of any version of the format."""
    try:
        with path.open("rb") as file, unzipped(file) as stream:
            return begins_live(stream.read(4096))
    except (OSError, *CUT):
        return False


def begins_live(data: bytes) -> bool:
    """Whether bytes are the beginning of a recording."""
    return _HEAD.match(data) is not None


def _bridges(value: Json) -> dict[Bdf, int]:
    return {parse_address(name): values.number(bus) for name, bus in members(value).items()}


def read_head(lines: Iterator[tuple[int, str]]) -> LiveHead:
    """The head, which is the first line; ScenarioError if there is none."""
    for number, line in lines:
        if line:
            with _broken(number):
                return LiveHead.parse(_json(line))
    raise ScenarioError("empty: no recording")


def replayable(policy: CachePolicy) -> CachePolicy:
    """A policy without reads that no request asks for.

    When they happen, a recording that was made without them has not told yet what they read.
    """
    return replace(policy, prefetched_pages=0, refills=False)


Opener = Callable[[], AbstractContextManager[Iterator[tuple[int, str]]]]
"""Begins to read the numbered lines of a recording, from the first one each time."""


@contextmanager
def open_live(opener: Opener) -> Iterator[tuple[LiveHead, Iterator[Numbered]]]:
    """The head of a recording, and its lines; ScenarioError for what is not as the format says.

    Implementation-specific registers that the head does not tell are those that software read: what
    units here have there has changed with time.
    """
    with opener() as lines:
        head = read_head(lines)
        head = replace(head, constants=tuple(_constants(head, lines)))
    with opener() as lines:
        read_head(lines)
        yield head, read_lines(lines, head)


def open_live_file(path: Path) -> AbstractContextManager[tuple[LiveHead, Iterator[Numbered]]]:
    """The recording in a file."""
    return open_live(partial(open_lines, path))


def _constants(head: LiveHead, lines: Iterable[tuple[int, str]]) -> Iterator[dict[int, int]]:
    """The implementation-specific registers of each unit."""
    known = [
        dict(implementation_registers(unit)) if told is None else dict(told)
        for unit, told in zip(head.units, head.constants, strict=True)
    ]
    open_ones = [
        number for number, told in enumerate(head.constants) if told is None and known[number]
    ]
    if open_ones:
        read: set[tuple[int, int]] = set()
        for _, line in read_lines(lines, head):
            if not isinstance(line, RegisterRead) or line.unit not in open_ones:
                continue
            key = line.unit, line.offset
            if line.size == 8 and line.offset in known[line.unit] and key not in read:
                read.add(key)
                known[line.unit][line.offset] = line.value
    yield from known


def read_lines(lines: Iterable[tuple[int, str]], head: LiveHead) -> Iterator[Numbered]:
    """The other lines, checked; ScenarioError names the first that is not what the format says."""
    for number, line in lines:
        if line:
            with _broken(number):
                parsed = parse_line(_json(line), len(head.units))
            yield number, parsed


@contextmanager
def _broken(number: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ScenarioError(f"line {number}: {error}") from error


def _json(line: str) -> Json:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"not JSON: {error}") from error
