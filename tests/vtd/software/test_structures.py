"""Pages for the structures of a unit."""

from hypothesis import given
from hypothesis import strategies as st

from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.software.structures import PAGE_SIZE, Structures


@given(st.sets(st.integers(0, 9)), st.integers(1, 4))
def test_a_table_of_several_pages_is_in_consecutive_frames(freed: set[int], pages: int) -> None:
    memory, pool = PhysicalMemory(), FramePool(0x1_0000, 0x4_0000)
    memory.add_region(0, 0x4_0000)
    memory.write(0x1_0000, b"\xff" * 0x3_0000)
    given_out = [pool.allocate() for _ in range(10)]
    for index in freed:
        pool.free(given_out[index])
    structures = Structures(memory, pool, scalable=False)
    used = pool.used
    table = structures.new_table(pages)
    assert memory.read(table, pages * PAGE_SIZE) == bytes(pages * PAGE_SIZE)
    assert pool.used == used + pages
    for page in range(pages):
        pool.free((table >> 12) + page)  # an error unless it was given out
