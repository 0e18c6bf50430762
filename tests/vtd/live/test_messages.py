"""Layouts of messages: the quick packers are the declarations, and sizes are those of the page."""

from __future__ import annotations

import pytest
from construct import Struct
from hypothesis import given
from hypothesis import strategies as st

from vtd.live import messages as m


@given(st.tuples(*(st.integers(0, (1 << bits) - 1) for bits in (16, 16, 32, 32, 32))))
def test_the_quick_packer_of_headers_is_their_declaration(
    values: tuple[int, int, int, int, int],
) -> None:
    names = ("id", "command", "size", "flags", "error")
    data = m.HEADER.pack(*values)
    assert m.Header.build(dict(zip(names, values, strict=True))) == data
    assert tuple(m.Header.parse(data)[name] for name in names) == values


@given(st.tuples(*(st.integers(0, (1 << bits) - 1) for bits in (64, 32, 32))))
def test_the_quick_packer_of_accesses_is_their_declaration(values: tuple[int, int, int]) -> None:
    names = ("offset", "region", "count")
    data = m.REGION_ACCESS.pack(*values)
    assert m.RegionAccess.build(dict(zip(names, values, strict=True))) == data


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (m.Header, 16),
        (m.DmaMap, 32),
        (m.DmaUnmap, 24),
        (m.DeviceInfo, 16),
        (m.RegionInfo, 32),
        (m.IrqInfo, 16),
        (m.RegionAccess, 16),
        (m.DmaAccess, 16),
    ],
)
def test_layouts_have_the_size_that_the_protocol_gives_them(layout: Struct, size: int) -> None:
    assert layout.sizeof() == size


def test_a_message_says_how_long_it_is() -> None:
    assert m.message(1, m.Command.RESET, m.REPLY, b"ab").hex() == (
        "0100" "0d00" "12000000" "01000000" "00000000" "6162"
    )  # fmt: skip


def test_a_packer_of_several_layouts_packs_one_after_the_other() -> None:
    header, access = (1, 9, 32, 0, 0), (1 << 40, 7, 4)
    whole = m.REGION_READ.pack(*header, *access)
    assert whole == m.HEADER.pack(*header) + m.REGION_ACCESS.pack(*access)
