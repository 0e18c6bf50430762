"""Rows as what JSON has: objects, lists, numbers and strings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from pagetables.bits import BitRecord
from vtd.rows import Hex


def plain(value: object) -> Any:
    """A row, or a value in one; TypeError for what no row may hold."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return hex(value) if isinstance(value, Hex | BitRecord) else int(value)
    return _compound(value)


def _compound(value: object) -> Any:
    match value:
        case Mapping():
            return {name: plain(each) for name, each in value.items()}
        case list() | tuple() | Iterator():
            return [plain(each) for each in value]
        case PurePath():
            return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    raise TypeError(f"{type(value).__name__} can't be part of a row")
