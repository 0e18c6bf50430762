from enum import IntEnum

import pytest
from construct import Int8ul, Struct
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import BitRecord, Bits, Implementation, address, ignored


class Colour(IntEnum):
    RED = 0
    GREEN = 1
    BLUE = 2
    RESERVED_3 = 3


class Sample(BitRecord, width=64):
    """A field of each sort; bits 1, 11 and 15:12 to 9 differ in why they may not be set."""

    p = Bits(0, as_=bool)
    colour = Bits(3, 2, as_=Colour)
    ign = ignored(5, 4)
    gated = Bits(8, 6, needs="dt")
    did = Bits(23, 16, limit="did_width")
    addr = address(63, 32, shift=12)


numbers = st.integers(0, 2**64 - 1)


@given(numbers)
def test_build_after_parse_gives_the_same_bytes(number: int) -> None:
    data = number.to_bytes(8, "little")
    record = Sample.codec.parse(data)
    assert isinstance(record, Sample)
    assert Sample.codec.build(record) == data
    assert Sample.unpack(data).pack() == data


@given(numbers)
def test_fields_and_reserved_bits_make_up_the_record(number: int) -> None:
    record = Sample(number)
    rebuilt = Sample.of(**{name: getattr(record, name) for name in Sample.FIELDS})
    assert rebuilt | record & Sample.RESERVED == record


def test_bits_of_no_field_are_reserved_from_the_lowest_to_the_highest() -> None:
    class Middle(BitRecord, width=16):
        only = Bits(9, 4)

    assert Middle.RESERVED == 0b1111_1100_0000_1111


@given(numbers, st.sampled_from(sorted(Sample.FIELDS)), st.data())
def test_replacing_a_field_changes_that_field_only(
    number: int, name: str, data: st.DataObject
) -> None:
    bits = Sample.FIELDS[name]
    value = data.draw(st.integers(0, bits.max)) << bits.shift
    changed = Sample(number).replace(**{name: value})
    assert int(getattr(changed, name)) == value
    assert changed & ~bits.mask == number & ~bits.mask


@given(numbers, st.integers(12, 52), st.integers(4, 16), st.booleans())
def test_reserved_bits_follow_the_implementation(
    number: int, haw: int, did_width: int, dt: bool
) -> None:
    implementation = Implementation(haw, did_width, frozenset({"dt"} if dt else ()))
    record = Sample(number)
    legal = (
        record & Sample.RESERVED == 0
        and (dt or record.gated == 0)
        and record.did < 1 << did_width
        and record.addr < 1 << haw
    )
    assert (record & Sample.reserved_mask(implementation) == 0) == legal


def test_address_fields_read_and_write_as_addresses() -> None:
    record = Sample.of(addr=0x1234_5000)
    assert record == 0x1_2345 << 32
    assert record.addr == 0x1234_5000


def test_a_codec_works_inside_a_struct() -> None:
    layout = Struct("type" / Int8ul, "entry" / Sample.codec)
    data = b"\x07" + Sample.of(p=True, colour=Colour.BLUE).pack()
    parsed = layout.parse(data)
    assert parsed.entry.colour is Colour.BLUE
    assert layout.build(parsed) == data


def test_ignored_fields_are_neither_shown_nor_reserved() -> None:
    record = Sample.of(ign=3)
    assert "ign" not in record.fields()
    assert record & Sample.reserved_mask(Implementation()) == 0


def test_a_record_shows_the_fields_that_are_not_zero() -> None:
    assert repr(Sample.of(p=True, colour=2, did=16)) == "Sample(p=True, colour=BLUE, did=0x10)"


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_beyond_the_width_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="Sample"):
        Sample(value)


@pytest.mark.parametrize(
    ("name", "value"), [("colour", 4), ("did", -1), ("addr", 0x1001), ("addr", 1 << 44)]
)
def test_a_value_that_a_field_cannot_hold_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Sample.of(**{name: value})


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="shade"):
        Sample.of(shade=1)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_record_needs_exactly_its_size(size: int) -> None:
    with pytest.raises(ValueError, match="8 needed"):
        Sample.unpack(bytes(size))


def test_overlapping_fields_are_refused_at_declaration() -> None:
    with pytest.raises(TypeError, match=r"Overlapping\.b"):

        class Overlapping(BitRecord, width=8):
            a = Bits(3, 0)
            b = Bits(5, 3)


def test_a_field_outside_the_record_is_refused_at_declaration() -> None:
    with pytest.raises(TypeError, match=r"Short\.a"):

        class Short(BitRecord, width=8):
            a = Bits(8)


def test_a_code_without_a_name_is_refused_at_declaration() -> None:
    with pytest.raises((ValueError, RuntimeError)):

        class Unnamed(BitRecord, width=8):
            colour = Bits(4, 2, as_=Colour)


def test_bits_are_given_highest_first() -> None:
    with pytest.raises(ValueError, match="highest first"):
        Bits(0, 3)
