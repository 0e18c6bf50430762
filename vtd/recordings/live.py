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
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

from devices.dma import (
    ATOMIC,
    EXECUTE_REQUESTED,
    MESSAGE,
    NO_SNOOP,
    WRITE,
    AddressType,
    Completion,
    NoWrite,
    PageRequest,
    Payload,
    Request,
)
from devices.source_id import Bdf
from pagetables.memory import ADDRESS_WIDTH
from vtd.dmar.pci_tree import parse_address
from vtd.dmar.table import Table
from vtd.recordings import values
from vtd.recordings.scenario import departures_of, unit_capabilities, unit_constants
from vtd.recordings.values import (
    MAX_LENGTH,
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
from vtd.unit.unit import implementation_registers

FORMAT = "live-1"
LONGEST_LINE = 1 << 26
"""Bytes; a recording has lines of a few KiB at most, a platform log perhaps whole memories."""
LARGEST_RECORD = 64
"""Bytes of what a unit reads or writes at a time: a PASID entry has most."""
LARGEST_ACCESS = ATOMIC | EXECUTE_REQUESTED | NO_SNOOP
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

    @property
    def request(self) -> Request:
        """The request; what it wrote was not recorded."""
        payload = bytes(1) if self.access & WRITE else None
        return Request(self.source_id, self.address, self.access, 1, payload=payload)


class Tagged(NamedTuple):
    """``t``: a request with a PASID, or of a device-TLB; see :func:`answer_of`."""

    source_id: int
    address: int
    access: int
    length: int
    pasid: int | None
    privileged: bool
    address_type: int
    no_write: bool
    answer: Json

    @classmethod
    def of(cls, request: Request, answer: int | Completion) -> Self:
        """The line of a request and what came of it."""
        source_id, address, access, length, pasid, privileged, address_type, payload = request
        no_write = isinstance(payload, NoWrite)
        fields = int(source_id), address, access, length, pasid, privileged, int(address_type)
        return cls(*fields, no_write, answer_of(answer))

    @property
    def request(self) -> Request:
        """The request; what it wrote was not recorded."""
        payload: Payload = NoWrite() if self.no_write else None
        if self.access & WRITE:
            payload = bytes(self.length)
        fields = self.source_id, self.address, self.access, self.length, self.pasid
        return Request(*fields, self.privileged, AddressType(self.address_type), payload)


class PageAskedFor(NamedTuple):
    """``p``: a page request message, and whether software will find it."""

    source_id: int
    address: int
    read: bool
    write: bool
    group_index: int
    last: bool
    pasid: int | None
    privileged: bool
    execute: bool
    queued: bool

    @property
    def request(self) -> Request:
        """The message."""
        page = PageRequest(*self[1:-1])
        fields = self.source_id, self.address, MESSAGE, 0, self.pasid, self.privileged
        return Request(*fields, payload=page)


class InterruptRequested(NamedTuple):
    """``i``: an interrupt request, and whether it was delivered."""

    source_id: int
    address: int
    data: int
    delivered: bool

    @property
    def request(self) -> Request:
        """The write that asks for it."""
        payload = self.data.to_bytes(4, "little")
        return Request(self.source_id, self.address, WRITE, 4, payload=payload)


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
    | Tagged
    | PageAskedFor
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


def answer_of(answer: int | Completion) -> Json:
    """A physical address, the translations as lists of numbers, or the status of a refusal."""
    if isinstance(answer, int):
        return answer
    if not answer.ok:
        return answer.status.value
    return [[int(value) for value in entry] for entry in answer.entries]


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


def _tagged(line: Json, head: LiveHead) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("access", line.access, LARGEST_ACCESS + 1, least=1)
    _below("length", line.length, MAX_LENGTH + 1)
    _below("address type", line.address_type, len(AddressType))
    if line.pasid is not None:
        _below("PASID", line.pasid, 1 << 20)
    flag(line.privileged)
    flag(line.no_write)


def _page_asked_for(line: Json, head: LiveHead) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("group", line.group_index, 1 << 9)
    if line.pasid is not None:
        _below("PASID", line.pasid, 1 << 20)
    flags = line.read, line.write, line.last, line.privileged, line.execute, line.queued
    for each in flags:
        flag(each)


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
    "t": (Tagged, _tagged),
    "p": (PageAskedFor, _page_asked_for),
    "i": (InterruptRequested, _interrupt),
    "e": (MessageSent, _message),
}
