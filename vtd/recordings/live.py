"""Recordings of units that a live guest programmed: format ``live-1``, read line by line.

``tests/recordings/FORMAT.md`` describes the format. The first line says what the machine was, each
other line what one unit saw or did. Left out: carrying them out, which
:mod:`vtd.recordings.replay_live` does.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

from devices.dma import ATOMIC
from devices.source_id import Bdf
from pagetables.memory import ADDRESS_WIDTH
from vtd.dmar.pci_tree import parse_address
from vtd.dmar.table import Table
from vtd.recordings import values
from vtd.recordings.scenario import departures_of, unit_capabilities, unit_constants
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
from vtd.unit.registers.capabilities import Capabilities

FORMAT = "live-1"
LONGEST_LINE = 1 << 26
"""Bytes; a recording has lines of a few KiB at most, a platform log perhaps whole memories."""
LARGEST_RECORD = 64
"""Bytes of what a unit reads or writes at a time: a PASID entry has most."""
_CUT = (EOFError, zlib.error, gzip.BadGzipFile)
_HEAD = re.compile(rb'\s*\{.*?"format"\s*:\s*"live-', re.DOTALL)
_DEPARTED = Departures(**{each.name: not each.permitted for each in FLAGS})
"""What ``as_recorded`` stands for here: no choice that the specification leaves open is in it."""


class Known(NamedTuple):
    """``m``: memory that a unit is about to read for the first time, or that software changed."""

    address: int
    size: int
    value: int


class Stored(NamedTuple):
    """``u``: what a unit itself writes during the next operation."""

    kind: str
    address: int
    size: int
    value: int


class RegisterRead(NamedTuple):
    """``r``: software read a register."""

    unit: int
    offset: int
    size: int
    value: int


class RegisterWritten(NamedTuple):
    """``w``: software wrote a register."""

    unit: int
    offset: int
    size: int
    value: int


class PageRequested(NamedTuple):
    """``d``: a request, or its part in one page; ``physical`` None if it was refused."""

    source_id: int
    address: int
    access: int
    physical: int | None


class InterruptRequested(NamedTuple):
    """``i``: an interrupt request, and whether it was delivered."""

    source_id: int
    address: int
    data: int
    delivered: bool


class MessageSent(NamedTuple):
    """``e``: the message of an event that a unit sends during the next operation."""

    unit: int
    address: int
    data: int


Line = (
    Known
    | Stored
    | RegisterRead
    | RegisterWritten
    | PageRequested
    | InterruptRequested
    | MessageSent
)
Numbered = tuple[int, Line]
"""A line and its number, the first line of the file being 1."""


@dataclass(frozen=True)
class LiveHead:
    """The first line: units and table of the machine, and how they were recorded."""

    table: Table
    units: tuple[Capabilities, ...]
    """One for each DRHD, in their order."""
    constants: tuple[Mapping[int, int] | None, ...]
    """Values of implementation-specific registers of each; None for those of a unit made here."""
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
        as_recorded = member(raw, "as_recorded", flag, False)
        single = departures_of({**raw, "as_recorded": False})
        return cls(
            table,
            made,
            tuple(unit_constants(unit) or None for unit in units),
            POLICIES[policy],
            single | _DEPARTED if as_recorded else single,
            member(raw, "bridges", _bridges, {}),
        )


def is_live(path: Path) -> bool:
    """Whether a file begins like a recording of any version of the format."""
    try:
        with path.open("rb") as file, _unzipped(file) as stream:
            return begins_live(stream.read(4096))
    except (OSError, *_CUT):
        return False


def begins_live(data: bytes) -> bool:
    """Whether bytes are the beginning of a recording."""
    return _HEAD.match(data) is not None


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[tuple[int, str]]]:
    """The lines of a text file, gzipped or not, with their numbers from 1 on.

    ScenarioError, when it comes to it, for a line that is no text or too long, and where a gzipped
    file ends before its end.
    """
    with path.open("rb") as file, _unzipped(file) as stream:
        yield _numbered(stream)


def _unzipped(file: BinaryIO) -> BinaryIO:
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file


def _numbered(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        number += 1
        try:
            raw = stream.readline(LONGEST_LINE + 1)
            line = raw.decode().strip()
        except _CUT as error:
            raise ScenarioError(f"line {number}: the compressed file is cut: {error}") from error
        except UnicodeDecodeError as error:
            raise ScenarioError(f"line {number}: no text: {error.reason}") from error
        if len(raw) > LONGEST_LINE:
            raise ScenarioError(f"line {number}: longer than {LONGEST_LINE >> 20} MiB")
        if not raw:
            return
        yield number, line


def _bridges(value: Json) -> dict[Bdf, int]:
    return {parse_address(name): values.number(bus) for name, bus in members(value).items()}


def read_head(lines: Iterator[tuple[int, str]]) -> LiveHead:
    """The head, which is the first line; ScenarioError if there is none."""
    for number, line in lines:
        if line:
            with _broken(number):
                return LiveHead.parse(_json(line))
    raise ScenarioError("empty: no recording")


def read_lines(lines: Iterable[tuple[int, str]], head: LiveHead) -> Iterator[Numbered]:
    """The other lines, checked; ScenarioError names the first that is not what the format says."""
    for number, line in lines:
        if line:
            with _broken(number):
                parsed = _parse(_json(line), head)
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


def _parse(raw: Json, head: LiveHead) -> Line:
    match raw:
        case [str(kind), *values] if kind in _KINDS:
            make, check = _KINDS[kind]
            if len(values) != len(make._fields):
                raise ScenarioError(f"{kind}: {len(values)} values instead of {len(make._fields)}")
            line = make(*values)
            check(line, head)
            return cast(Line, line)
        case [str(kind), *_]:
            raise ScenarioError(f"{kind!r} is none of {', '.join(_KINDS)}")
    raise ScenarioError("not an array that begins with a letter")


def _below(name: str, value: Json, limit: int, *, least: int = 0) -> None:
    if type(value) is not int or not least <= value < limit:
        raise ScenarioError(f"{name}: {value!r} is no number from {least} to {limit - 1:#x}")


def _record(line: Json, head: LiveHead) -> None:
    _below("size", line.size, LARGEST_RECORD + 1, least=1)
    _below("address", line.address, (1 << ADDRESS_WIDTH) - LARGEST_RECORD)
    _below("value", line.value, 1 << 8 * line.size)


def _stored(line: Json, head: LiveHead) -> None:
    text(line.kind)
    _record(line, head)


def _register(line: Json, head: LiveHead) -> None:
    _below("unit", line.unit, len(head.units))
    _below("offset", line.offset, 1 << 32)
    _below("size", line.size, 9, least=1)
    _below("value", line.value, 1 << 8 * line.size)


def _page(line: Json, head: LiveHead) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("access", line.access, ATOMIC + 1, least=1)
    if line.physical is not None:
        _below("physical", line.physical, 1 << 64)


def _interrupt(line: Json, head: LiveHead) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("data", line.data, 1 << 32)
    if not isinstance(line.delivered, bool):
        raise ScenarioError(f"delivered: {line.delivered!r} is neither true nor false")


def _message(line: Json, head: LiveHead) -> None:
    _below("unit", line.unit, len(head.units))
    _below("address", line.address, 1 << 64)
    _below("data", line.data, 1 << 32)


_KINDS: Mapping[str, tuple[type[Json], Callable[[Json, LiveHead], None]]] = {
    "m": (Known, _record),
    "u": (Stored, _stored),
    "r": (RegisterRead, _register),
    "w": (RegisterWritten, _register),
    "d": (PageRequested, _page),
    "i": (InterruptRequested, _interrupt),
    "e": (MessageSent, _message),
}
