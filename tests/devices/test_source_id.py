"""SourceId and Bdf: numbers, fields and text are the same thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf, SourceId, SourceIdError

source_ids = st.integers(0, 0xFFFF).map(SourceId)


@given(source_ids)
@pytest.mark.section("3.4.1")
def test_fields_rebuild_the_source_id(source_id: SourceId) -> None:
    assert SourceId.of(source_id.bus, source_id.device, source_id.function) == source_id
    assert source_id.bus << 8 | source_id.devfn == source_id


@given(source_ids)
def test_printed_source_id_parses_back(source_id: SourceId) -> None:
    assert SourceId.parse(str(source_id)) == source_id
    assert SourceId.parse(f"0000:{source_id}") == source_id


@given(st.integers(0, 0xFFFF), source_ids)
def test_printed_bdf_parses_back(segment: int, source_id: SourceId) -> None:
    assert Bdf.parse(str(Bdf(segment, source_id))) == Bdf(segment, source_id)


def test_printed_form_is_that_of_the_tools() -> None:
    assert str(SourceId(0x10)) == "00:02.0"
    assert repr(SourceId(0xFFFF)) == "SourceId('ff:1f.7')"
    assert str(Bdf.parse("00:02.0")) == "0000:00:02.0"


@pytest.mark.parametrize(
    "text", ["", "2.0", "00:02", "00:20.0", "00:02.8", "000:02.0", "00:02.0 ", "10000:00:02.0"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SourceIdError):
        Bdf.parse(text)


def test_source_id_has_no_segment() -> None:
    with pytest.raises(SourceIdError, match="segment"):
        SourceId.parse("0001:00:02.0")


@pytest.mark.parametrize(
    ("field", "values"), [("bus", (256, 0, 0)), ("device", (0, 32, 0)), ("function", (0, 0, 8))]
)
def test_a_field_out_of_range_is_named(field: str, values: tuple[int, int, int]) -> None:
    with pytest.raises(SourceIdError, match=field):
        SourceId.of(*values)


@pytest.mark.parametrize("value", [-1, 0x10000])
def test_source_id_has_16_bits(value: int) -> None:
    with pytest.raises(SourceIdError):
        SourceId(value)
