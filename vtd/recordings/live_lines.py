"""Lines of a live recording: what each kind has, and what may be in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Self, cast

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
from pagetables.memory import ADDRESS_WIDTH
from vtd.recordings.values import MAX_LENGTH, Json, ScenarioError, flag, text

LARGEST_RECORD = 64
"""Bytes of what a unit reads or writes at a time: a PASID entry has most."""
LARGEST_ACCESS = ATOMIC | EXECUTE_REQUESTED | NO_SNOOP


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


def answer_of(answer: int | Completion) -> Json:
    """A physical address, the translations as lists of numbers, or the status of a refusal."""
    if isinstance(answer, int):
        return answer
    if not answer.ok:
        return answer.status.value
    return [[int(value) for value in entry] for entry in answer.entries]


def parse_line(raw: Json, units: int) -> Line:
    """What the JSON of a line says, of so many units; ScenarioError if it says nothing."""
    match raw:
        case [str(kind), *values] if kind in _KINDS:
            make, check = _KINDS[kind]
            if len(values) != len(make._fields):
                raise ScenarioError(f"{kind}: {len(values)} values instead of {len(make._fields)}")
            line = make(*values)
            check(line, units)
            return cast(Line, line)
        case [str(kind), *_]:
            raise ScenarioError(f"{kind!r} is none of {', '.join(_KINDS)}")
    raise ScenarioError("not an array that begins with a letter")


def _below(name: str, value: Json, limit: int, *, least: int = 0) -> None:
    if type(value) is not int or not least <= value < limit:
        raise ScenarioError(f"{name}: {value!r} is no number from {least} to {limit - 1:#x}")


def _record(line: Json, units: int) -> None:
    _below("size", line.size, LARGEST_RECORD + 1, least=1)
    _below("address", line.address, (1 << ADDRESS_WIDTH) - LARGEST_RECORD)
    _below("value", line.value, 1 << 8 * line.size)


def _stored(line: Json, units: int) -> None:
    text(line.kind)
    _record(line, units)


def _register(line: Json, units: int) -> None:
    _below("unit", line.unit, units)
    _below("offset", line.offset, 1 << 32)
    _below("size", line.size, 9, least=1)
    _below("value", line.value, 1 << 8 * line.size)


def _page(line: Json, units: int) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("access", line.access, ATOMIC + 1, least=1)
    if line.physical is not None:
        _below("physical", line.physical, 1 << 64)


def _tagged(line: Json, units: int) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("access", line.access, LARGEST_ACCESS + 1, least=1)
    _below("length", line.length, MAX_LENGTH + 1)
    _below("address type", line.address_type, len(AddressType))
    if line.pasid is not None:
        _below("PASID", line.pasid, 1 << 20)
    flag(line.privileged)
    flag(line.no_write)


def _page_asked_for(line: Json, units: int) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("group", line.group_index, 1 << 9)
    if line.pasid is not None:
        _below("PASID", line.pasid, 1 << 20)
    flags = line.read, line.write, line.last, line.privileged, line.execute, line.queued
    for each in flags:
        flag(each)


def _interrupt(line: Json, units: int) -> None:
    _below("source-id", line.source_id, 1 << 16)
    _below("address", line.address, 1 << 64)
    _below("data", line.data, 1 << 32)
    if not isinstance(line.delivered, bool):
        raise ScenarioError(f"delivered: {line.delivered!r} is neither true nor false")


def _message(line: Json, units: int) -> None:
    _below("unit", line.unit, units)
    _below("address", line.address, 1 << 64)
    _below("data", line.data, 1 << 32)


_KINDS: Mapping[str, tuple[type[Json], Callable[[Json, int], None]]] = {
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
