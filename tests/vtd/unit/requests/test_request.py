"""Requests: how fault records and caches name them."""

import pytest

from devices.dma import ATOMIC, READ, WRITE, AddressType, Request
from vtd.layouts.registers import RequestType
from vtd.unit.requests.request import INTERRUPT_RANGE


@pytest.mark.parametrize(
    ("access", "type_"),
    [
        (READ, RequestType.READ),
        (WRITE, RequestType.WRITE),
        (ATOMIC, RequestType.ATOMIC_OP),
    ],
)
def test_the_kind_of_access_has_a_name_in_fault_records(access: int, type_: RequestType) -> None:
    assert Request(1, 0, access).type is type_


def test_a_request_is_untranslated_and_without_pasid_unless_it_says_so() -> None:
    request = Request(1, 0x1000, READ)
    assert request.address_type is AddressType.UNTRANSLATED
    assert request.kind == (1, None, False)
    assert not request.zero_length_read
    assert request._replace(length=0).zero_length_read


def test_the_interrupt_range_is_one_mebibyte() -> None:
    assert range(0xFEE0_0000, 0xFEF0_0000) == INTERRUPT_RANGE
