"""Requests: how caches name them, and where interrupts are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, WRITE, AddressType, Request
from devices.interrupt_messages import INTERRUPT_RANGE
from vtd.unit.requests.request import kind_of, meets_interrupts


@pytest.mark.section("3.1")
def test_a_request_is_untranslated_and_without_pasid_unless_it_says_so() -> None:
    request = Request(1, 0x1000, READ)
    assert request.address_type is AddressType.UNTRANSLATED
    assert kind_of(request) == (1, None, False)
    assert not request.zero_length_read
    assert request._replace(length=0).zero_length_read
    assert not request._replace(length=0, access=WRITE).zero_length_read
    assert kind_of(request._replace(pasid=5, privileged=True)) == (1, 5, True)


def test_the_interrupt_range_is_one_mebibyte() -> None:
    assert range(0xFEE0_0000, 0xFEF0_0000) == INTERRUPT_RANGE


@given(st.integers(0xFE00_0000, 0x1_0000_0000), st.sampled_from([12, 21, 30]))
def test_a_page_meets_interrupts_if_any_of_its_bytes_is_one_of_theirs(
    address: int, shift: int
) -> None:
    start = address >> shift << shift
    page = range(start, start + (1 << shift))
    common = max(page.start, INTERRUPT_RANGE.start) < min(page.stop, INTERRUPT_RANGE.stop)
    assert meets_interrupts(address, shift) == common
