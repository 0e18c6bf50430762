"""Hypothesis strategies for DMAR tables: arbitrary records, and arbitrary damage."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pagetables.bits import BitRecord
from tests.support.dmar_corpus import clean_tables
from vtd.dmar.records import (
    STRUCTURES,
    DeviceScope,
    Header,
    Record,
    ScopedStructure,
    Structure,
    Undecoded,
)
from vtd.dmar.table import Table


def field_values(kind: type[Record]) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy for every stored field of a record, over all values that fit."""
    defaults = kind.defaults()
    values: dict[str, st.SearchStrategy[Any]] = {}
    for name, place in kind.field_places().items():
        default = defaults[name]
        numbers = st.integers(0, (1 << 8 * place.length) - 1)
        if isinstance(default, bytes):
            values[name] = st.binary(min_size=place.length, max_size=place.length)
        elif isinstance(default, BitRecord):
            values[name] = numbers.map(type(default))
        else:
            values[name] = numbers
    return values


@st.composite
def scope_entries(draw: st.DrawFn) -> DeviceScope:
    """Scope entries with paths of 0 to 3 pairs, some with an odd byte."""
    path = draw(st.binary(max_size=7))
    values = field_values(DeviceScope) | {"entry_length": st.just(6 + len(path))}
    return DeviceScope(**draw(st.fixed_dictionaries(values)), path_bytes=path)


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    """Structures of every type, reserved ones included, with arbitrary values."""
    kinds: list[type[Structure]] = [*STRUCTURES.values(), Undecoded]
    kind = draw(st.sampled_from(kinds))
    if kind is Undecoded:
        number = draw(st.integers(7, 0xFFFF))
        return Undecoded(number=number, tail=draw(st.binary(max_size=40)))
    values = draw(st.fixed_dictionaries(field_values(kind)))
    if issubclass(kind, ScopedStructure):
        return kind(**values, scopes=tuple(draw(st.lists(scope_entries(), max_size=4))))
    return kind(**values, tail=draw(st.binary(max_size=20)))


def tables() -> st.SearchStrategy[Table]:
    """Whole tables with right Length and Checksum and arbitrary content."""
    headers = st.fixed_dictionaries(field_values(Header)).map(lambda values: Header(**values))
    bodies = st.lists(structures(), max_size=6).map(tuple)
    return st.builds(Table, headers, bodies).map(Table.sealed)


@st.composite
def damaged_tables(draw: st.DrawFn) -> bytes:
    """Tables of the collection with bytes changed, dropped or added."""
    data = bytearray(draw(st.sampled_from(clean_tables())).data)
    for _ in range(draw(st.integers(1, 6))):
        position = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                data[position : position + 1] = draw(st.binary(min_size=1, max_size=2))
            case "cut":
                del data[position : position + draw(st.integers(1, 30))]
            case "insert":
                data[position:position] = draw(st.binary(max_size=30))
    return bytes(data)


def any_bytes() -> st.SearchStrategy[bytes]:
    """Bytes that are anything: random, a fixed part with random structures, damaged tables."""
    random_body = st.builds(
        lambda head, body: b"DMAR" + head + body,
        st.binary(min_size=44, max_size=44),
        st.binary(max_size=200),
    )
    return st.one_of(st.binary(max_size=100), random_body, damaged_tables())
