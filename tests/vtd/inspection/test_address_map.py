"""Memory in common: as counting page by page has it."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from vtd.inspection.address_map import AddressSpace, shared_memory
from vtd.inspection.reach import PageFlags, ReachedRange

PAGE, PAGES = 0x1000, 24


@st.composite
def spaces(draw: st.DrawFn) -> AddressSpace:
    """Ranges of some pages each, which may lead to the same memory."""
    found = draw(st.lists(st.tuples(st.integers(0, PAGES - 5), st.integers(1, 5)), max_size=5))
    return AddressSpace(
        (),
        tuple(
            ReachedRange(
                number << 20, count * PAGE, start * PAGE, None, "rw", PageFlags(False, False, False)
            )
            for number, (start, count) in enumerate(found)
        ),
    )


@given(st.lists(spaces(), max_size=4))
def test_memory_in_common_is_that_of_each_page(every: list[AddressSpace]) -> None:
    def reached(page: int) -> tuple[int, ...]:
        return tuple(
            number
            for number, space in enumerate(every)
            if any(
                each.physical <= page * PAGE < each.physical + each.length for each in space.ranges
            )
        )

    expected = []
    for who, pages in groupby(range(PAGES), reached):
        run = [*pages]
        if len(who) > 1:
            expected.append((run[0] * PAGE, (run[-1] + 1) * PAGE, who))
    assert [(each.start, each.end, each.spaces) for each in shared_memory(every)] == expected
