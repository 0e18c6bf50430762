"""A transfer of a case becomes one that the device can do, in the same pages."""

from hypothesis import given
from hypothesis import strategies as st

from vtd.conformance.devices import REACHES
from vtd.conformance.format import PAGE, Driver

PAGES = st.integers(0, (1 << 52) - 1)


@given(PAGES, st.integers(0, PAGE - 1), st.data(), st.sampled_from(list(REACHES)))
def test_a_widened_transfer_is_one_the_device_can_do(
    page: int, offset: int, data: st.DataObject, driver: Driver
) -> None:
    reach = REACHES[driver]
    address = page * PAGE + offset
    most = min(reach.pages or 2, 2) * PAGE - offset
    length = data.draw(st.integers(1, min(most, reach.longest or most)))
    start, size = reach.widened(address, length)
    assert reach.refusal(start, size) == ""
    assert size - length in range(reach.granule)
    assert address // PAGE == start // PAGE
    assert (address + length - 1) // PAGE == (start + size - 1) // PAGE
    assert start <= address
    if start + size < address + length:  # aligned down, and no granule more in these pages
        assert address - start < reach.alignment


@given(PAGES, st.integers(0, PAGE - 1), st.integers(1, 2 * PAGE))
def test_edu_does_every_transfer_as_it_is(page: int, offset: int, length: int) -> None:
    address = page * PAGE + offset
    assert REACHES[Driver.EDU].widened(address, length) == (address, length)
