"""Addresses of interrupt requests: the range, and what a remappable one says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.interrupt_messages import INTERRUPT_RANGE, RemappableAddress


def test_worked_encodings() -> None:
    assert RemappableAddress.for_handle(0x8123, shv=False) == 0xFEE0_2474
    assert RemappableAddress.for_handle(0x8000, shv=True) == 0xFEE0_001C


@given(st.integers(0, 0xFFFF), st.booleans())
def test_an_address_keeps_its_handle_and_is_in_the_range(handle: int, shv: bool) -> None:
    address = RemappableAddress.for_handle(handle, shv=shv)
    assert address in INTERRUPT_RANGE
    assert address.handle == handle
    assert address.shv == shv
    assert address.format


def test_a_handle_has_16_bits() -> None:
    with pytest.raises(ValueError, match="handle_15"):
        RemappableAddress.for_handle(0x10000, shv=False)


@given(st.binary(min_size=4, max_size=4))
def test_build_after_parse_gives_the_same_bytes(stored: bytes) -> None:
    assert RemappableAddress.codec.build(RemappableAddress.codec.parse(stored)) == stored
