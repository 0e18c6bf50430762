"""Tables of a TOML description as declared dataclasses; whatever is wrong is named with its key.

A dataclass says what a table may hold: a field is a key, its annotation the kind of value, its
default makes it optional. ``Annotated[kind, convert]`` has ``convert`` make the value, ValueError
saying what is wrong with it. Descriptions that extend another one are read by the same function.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*([\w-]+)[ \t]*\]\]", re.MULTILINE | re.ASCII)
UNIONS = (Union, types.UnionType)
_WORDS = {int: "a number", str: "a text", bool: "true or false"}


class Where(NamedTuple):
    """A table of a description: its line, if it has a header of its own, and what to call it."""

    line: int | None = None
    name: str = ""


NOWHERE = Where()


class Problem(NamedTuple):
    """One thing that is wrong."""

    where: Where
    key: str
    """Empty if it is about the whole table."""
    message: str

    def __str__(self) -> str:
        parts = (self.where.name, self.key, self.message)
        text = ": ".join(part for part in parts if part)
        return text if self.where.line is None else f"{self.where.line}: {text}"


class MachineError(ValueError):
    """A description of no machine; ``lines`` has all that is wrong, with file and line."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(lines))


class Problems:
    """What is wrong with the description in ``file``, collected."""

    def __init__(self, file: str = "") -> None:
        self.file = file
        self.found: list[Problem] = []

    def add(self, where: Where, key: str, message: str) -> None:
        """Note something; an empty ``key`` is the whole table."""
        self.found.append(Problem(where, key, message))

    def check(self) -> None:
        """MachineError if there is anything."""
        if self.found:
            raise MachineError(list(map(self._line, self.found)))

    def _line(self, problem: Problem) -> str:
        if not self.file:
            return str(problem)
        return f"{self.file}:{' ' if problem.where.line is None else ''}{problem}"


def keyed(key: str) -> Any:
    """A field for the tables ``[[key]]``; there may be none."""
    return field(default=(), metadata={"key": key})


@dataclass(frozen=True, kw_only=True)
class Located:
    """A table that knows where it stands."""

    where: Where = field(default=NOWHERE, metadata={"key": ""}, compare=False)


class Reader:
    """Reads the tables of one description."""

    def __init__(self, text: str, problems: Problems) -> None:
        self.problems = problems
        self._lines: dict[str, list[int]] = {}
        for match in _HEADER.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            self._lines.setdefault(match[1], []).append(line)
        self.values: dict[str, Any] = {}
        try:
            self.values = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            problems.add(Where(), "", f"no TOML: {error}")

    def read(self, kind: type[T], values: object, where: Where) -> T | None:
        """The table as a value; None, and problems noted, if it is not what ``kind`` says."""
        if not isinstance(values, Mapping):
            self.problems.add(where, "", "a table of keys is needed")
            return None
        hints = get_type_hints(kind, include_extras=True)
        known = {_key(each): each for each in fields(kind) if _key(each)}  # type: ignore[arg-type]
        before = len(self.problems.found)
        for name in values:
            if name not in known:
                self.problems.add(where, str(name), f"unknown key; there are {', '.join(known)}")
        found: dict[str, Any] = {}
        for key, each in known.items():
            if key in values:
                found[each.name] = self._value(hints[each.name], values[key], where, key)
            elif each.default is MISSING and each.default_factory is MISSING:
                self.problems.add(where, key, "missing")
        for each in fields(kind):  # type: ignore[arg-type]
            if not _key(each):
                found[each.name] = where
        return kind(**found) if len(self.problems.found) == before else None

    def _value(self, hint: Any, value: object, where: Where, key: str) -> Any:
        try:
            return self._converted(hint, value, where, key)
        except ValueError as error:
            self.problems.add(where, key, str(error))
            return None

    def _converted(self, hint: Any, value: object, where: Where, key: str) -> Any:
        kind = get_args(hint)[0] if get_origin(hint) in UNIONS else hint
        if get_origin(kind) is tuple:
            return self._several(get_args(kind)[0], value, where, key)
        if is_dataclass(kind) and isinstance(kind, type):
            if value is False and kind is not hint:
                return None
            return self.read(kind, {} if value is True else value, _inside(where, key))
        return plain_value(kind, value)

    def _several(self, hint: Any, value: object, where: Where, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("a list is needed")
        lines = self._lines.get(key, [])
        if not is_dataclass(hint) or where.name or len(lines) != len(value):
            lines = [0] * len(value)
        found = []
        for number, (each, line) in enumerate(zip(value, lines, strict=True), 1):
            if not is_dataclass(hint):
                found.append(self._converted(hint, each, where, key))
                continue
            name = each.get("name") if isinstance(each, dict) else None
            called = f"{key} {name if isinstance(name, str) else number}"
            within = Where(line or None, called) if not where.name else _inside(where, called)
            found.append(self._value(hint, each, within, ""))
        return tuple(found)


def plain_value(hint: Any, value: object) -> Any:
    """A value of a kind that needs no keys; ValueError if it is of another kind."""
    if get_origin(hint) in UNIONS:
        return plain_value(get_args(hint)[0], value)
    if get_origin(hint) is Annotated:
        return get_args(hint)[1](value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, value)
    if hint in _WORDS:
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise ValueError(f"{value!r} is not {_WORDS[hint]}")
    elif not isinstance(value, dict):
        raise ValueError("a table of keys is needed")
    return value


def is_plain(hint: Any) -> bool:
    """Whether :func:`plain_value` can make values of this kind."""
    kind = get_args(hint)[0] if get_origin(hint) in UNIONS else hint
    return kind in _WORDS or (isinstance(kind, type) and issubclass(kind, Enum))


def _key(each: Field[Any]) -> str:
    """The key of a field, empty if it has none."""
    key: str = each.metadata.get("key", each.name)
    return key


def _inside(where: Where, key: str) -> Where:
    return Where(where.line, f"{where.name}: {key}" if where.name and key else where.name or key)


def _member(kind: type[Enum], value: object) -> Enum:
    for each in kind:
        if value in (each.value, each.name.lower()):
            return each
    raise ValueError(f"{value!r} is none of {', '.join(str(each.value) for each in kind)}")


def natural(value: object) -> int:
    """A number of 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a number of 0 or more")
    return value


def at_most(limit: int) -> Callable[[object], int]:
    """Numbers from 0 to ``limit``."""

    def convert(value: object) -> int:
        number = natural(value)
        if number > limit:
            raise ValueError(f"{number:#x} is more than {limit:#x}")
        return number

    return convert


_SIZE = re.compile(r"([0-9]+) ?([KMGT])iB", re.ASCII)


def size(value: object) -> int:
    """Bytes: a number, or a text such as ``64 MiB``; not 0."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is no size such as '64 MiB'")
        value = int(match[1]) << 10 * ("KMGT".index(match[2]) + 1)
    number = natural(value)
    if not number:
        raise ValueError("0 bytes")
    return number


Natural = Annotated[int, natural]
U16 = Annotated[int, at_most(0xFFFF)]
U24 = Annotated[int, at_most(0xFF_FFFF)]
U32 = Annotated[int, at_most(0xFFFF_FFFF)]
U64 = Annotated[int, at_most((1 << 64) - 1)]
Size = Annotated[int, size]
