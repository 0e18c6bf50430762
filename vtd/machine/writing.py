"""A machine as TOML text, which :func:`vtd.machine.description.read_machine` reads back alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any

from vtd.machine.description import Machine

_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def write_machine(machine: Machine) -> str:
    """The text; what equals its default is left out."""
    return toml_text(as_mapping(machine))


def as_mapping(value: Any) -> dict[str, Any]:
    """The keys of a declared table and their values, without defaults."""
    return {
        key: _plain(getattr(value, each.name))
        for each in fields(value)
        if (key := each.metadata.get("key", each.name))
        and getattr(value, each.name) != _default(each)
    }


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return as_mapping(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value if isinstance(value, bool | int) else str(value)


def toml_text(values: Mapping[str, Any]) -> str:
    """Keys and values as TOML; a list of mappings at the top becomes ``[[key]]`` tables."""
    return "\n".join(_lines(values)) + "\n"


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    tables = {key: value for key, value in values.items() if _has_headers(value)}
    for key, value in values.items():
        if key not in tables:
            yield f"{_key(key)} = {_value(value)}"
    for key, several in tables.items():
        for each in several:
            yield f"\n[[{_key(key)}]]"
            for inner, value in each.items():
                yield f"{_key(inner)} = {_value(value)}"


def _has_headers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").isalnum() else _value(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return hex(value) if value > 255 else str(value)
        case dict():
            inner = (f"{_key(key)} = {_value(each)}" for key, each in value.items())
            return "{ " + ", ".join(inner) + " }"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
    return '"' + "".join(map(_character, str(value))) + '"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
