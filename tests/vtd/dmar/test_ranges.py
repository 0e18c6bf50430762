"""Range sets against plain sets of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from vtd.dmar.ranges import RangeSet

RANGES = st.tuples(st.integers(0, 30), st.integers(0, 30))


@given(st.lists(RANGES, max_size=12), RANGES)
def test_a_range_set_answers_like_a_set_of_numbers(
    added: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    ranges, numbers = RangeSet(), set[int]()
    for start, end in added:
        ranges.add(start, end)
        numbers |= set(range(start, end))
    start, end = asked
    if start < end:
        wanted = set(range(start, end))
        assert ranges.meets(start, end) == bool(wanted & numbers)
        assert ranges.holds(start, end) == (wanted <= numbers)
