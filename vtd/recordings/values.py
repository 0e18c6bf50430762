"""Values in the JSON of a scenario: how each kind is read, and refused where it is another one.

Numbers may be strings in hexadecimal with ``0x``; byte strings are hexadecimal without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from devices.dma import AtomicOp

Json = Any
"""A value as ``json`` reads it."""
T = TypeVar("T")

MAX_LENGTH = 1 << 24
"""Bytes of one step; a longer one is a mistake."""
ACCESS_SIZES = (4, 8)
ATOMICS = {"fetchadd": AtomicOp.FETCH_ADD, "swap": AtomicOp.SWAP, "cas": AtomicOp.CAS}


class ScenarioError(ValueError):
    """A file that is no scenario: says which step and which field is wrong."""


def number(value: Json) -> int:
    """A number from 0 on: plain, or a string in hex with 0x."""
    try:
        read = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        read = None
    if isinstance(read, bool) or not isinstance(read, int) or read < 0:
        raise ScenarioError(f"{value!r} is no number")
    return read


def length(value: Json) -> int:
    """Bytes of a transfer."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LENGTH:
        raise ScenarioError(f"{value!r} is not a number from 0 to {MAX_LENGTH}")
    return value


def access_size(value: Json) -> int:
    """Bytes of a register access."""
    if isinstance(value, bool) or value not in ACCESS_SIZES:
        raise ScenarioError(f"{value!r} is neither 4 nor 8")
    return int(value)


def byte_string(value: Json) -> bytes:
    """Bytes, lowest address first."""
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise ScenarioError(f"{value!r} holds no bytes in hexadecimal") from None


def flag(value: Json) -> bool:
    """True or false."""
    if value not in (False, True):
        raise ScenarioError(f"{value!r} is neither true nor false")
    return bool(value)


def text(value: Json) -> str:
    """A string, such as a name."""
    if not isinstance(value, str):
        raise ScenarioError(f"{value!r} is no string")
    return value


def texts(value: Json) -> tuple[str, ...]:
    """A list of strings."""
    return tuple(text(each) for each in items(value))


def items(value: Json) -> list[Json]:
    """A list of anything."""
    if not isinstance(value, list):
        raise ScenarioError(f"{value!r} is no list")
    return value


def members(value: Json) -> Mapping[str, Json]:
    """An object."""
    if not isinstance(value, dict):
        raise ScenarioError(f"{value!r} is no object")
    return value


def atomic(value: Json) -> AtomicOp:
    """The name of an atomic operation."""
    if not isinstance(value, str) or value not in ATOMICS:
        raise ScenarioError(f"{value!r} is none of {', '.join(ATOMICS)}")
    return ATOMICS[value]


def optional(read: Callable[[Json], T]) -> Callable[[Json], T | None]:
    """A value that may be null."""
    return lambda value: None if value is None else read(value)


def anything(value: Json) -> Json:
    """A value that is compared only."""
    return value


def member(parent: Json, name: str, read: Callable[[Json], T], default: Json = ...) -> T:
    """A field of an object; ScenarioError names it if it is missing or wrong."""
    found = members(parent).get(name, default)
    if found is ...:
        raise ScenarioError(f"{name!r} is missing")
    try:
        return read(found)
    except ValueError as error:
        raise ScenarioError(f"{name}: {error}") from error
