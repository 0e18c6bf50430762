"""Rows as JSON: numbers stay numbers, what is hexadecimal becomes a string, nothing else passes."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.layouts.entries import ContextEntry
from vtd.plain import plain
from vtd.rows import Hex, field_values


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Row:
    address: Hex
    count: int
    inner: object = None


@given(st.integers(0), st.integers())
def test_only_hexadecimal_numbers_are_strings(address: int, count: int) -> None:
    assert plain(Row(Hex(address), count)) == {
        "address": hex(address),
        "count": count,
        "inner": None,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((Hex(1), [2, "x"]), ["0x1", [2, "x"]]),
        (iter([Hex(1)]), ["0x1"]),
        (MappingProxyType({"a": Hex(1)}), {"a": "0x1"}),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        (ContextEntry.of(p=True), "0x1"),
        (True, True),
        (1.5, 1.5),
        (Row(Hex(0), 0, Row(Hex(1), 1)), {
            "address": "0x0", "count": 0, "inner": {"address": "0x1", "count": 1, "inner": None},
        }),
    ],
)  # fmt: skip
def test_every_kind_of_value_has_one_form(value: object, expected: object) -> None:
    assert plain(value) == expected


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), Row])
def test_what_is_no_row_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="can't be part of a row"):
        plain(value)


def test_fields_that_are_addresses_are_hexadecimal() -> None:
    fields = field_values(ContextEntry.of(p=True, ssptptr=0x1234000, did=7))
    assert plain(fields["ssptptr"]) == "0x1234000"
    assert (fields["did"], fields["p"]) == (7, 1)


def test_the_unknown_stays_unknown() -> None:
    assert Hex.known(None) is None
    assert str(Hex.known(16)) == "0x10"
