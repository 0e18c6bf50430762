"""Declarations of registers, entries and descriptors against the bits that VT-d prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import interrupt_messages
from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord, Bits
from vtd.layouts import descriptors, entries, interrupt_entries, registers

FIELD = re.compile(r"(\w+)=(\d+)(?::(\d+))?(?:/(\w+))?(?:@(\d+))?(?:\?(\w+))?(?:<(\w+))?")
MODULES = (
    registers,
    entries,
    interrupt_entries,
    interrupt_messages,
    descriptors,
    first_stage,
    second_stage,
)


def specified() -> dict[str, list[str]]:
    """The words about each record: its width, and its fields."""
    text = Path(__file__).with_name("specified_fields.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    records = "\n".join(lines).replace("\n  ", " ").splitlines()
    return {name: words for name, *words in map(str.split, records)}


SPECIFIED = specified()
RECORDS = {
    record.__name__: record
    for module in MODULES
    for record in vars(module).values()
    if isinstance(record, type)
    and issubclass(record, BitRecord)
    and record.__module__ == module.__name__
    and hasattr(record, "FIELDS")
}


def written(record: type[BitRecord], name: str, bits: Bits[int]) -> str:
    """A declared field in the words of the file."""
    text = f"{name}={bits.high}" + f":{bits.low}" * (bits.high != bits.low)
    is_register = issubclass(record, registers.Register)
    text += f"/{bits.access.value}" * (is_register and bits.access.value != "RW")
    text += f"@{bits.shift}" * bool(bits.shift)
    return text + f"?{bits.needs}" * bool(bits.needs) + f"<{bits.limit}" * bool(bits.limit)


def declared(record: type[BitRecord]) -> Iterator[str]:
    fields = sorted(record.FIELDS.items(), key=lambda item: -item[1].high)
    yield str(record.WIDTH)
    for name, bits in fields:
        assert bits.ignored == name.startswith(("ign", "avail"))
        yield written(record, name, bits)


def test_every_record_is_in_the_list() -> None:
    assert RECORDS.keys() == SPECIFIED.keys()
    assert all(FIELD.fullmatch(word) for _, *words in SPECIFIED.values() for word in words)


@pytest.mark.parametrize("name", SPECIFIED)
@pytest.mark.section("9.1", "9.3", "9.4", "9.5", "9.6", "9.7", "9.8", "11.4")
def test_fields_are_at_the_bits_that_the_specification_prints(name: str) -> None:
    assert list(declared(RECORDS[name])) == SPECIFIED[name]


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
@given(data=st.data())
def test_build_after_parse_gives_the_same_bytes(
    record: type[BitRecord], data: st.DataObject
) -> None:
    stored = data.draw(st.binary(min_size=record.WIDTH // 8, max_size=record.WIDTH // 8))
    assert record.codec.build(record.codec.parse(stored)) == stored
