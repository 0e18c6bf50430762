"""The guest's own paging: every mode, rights, page faults."""

from __future__ import annotations

import pytest

from pagetables.memory import PhysicalMemory
from vtd.guest.x86.paging import LinearPage, PageFaultError, PagingState, find_page

LMA, NXE, PG, WP, PAE, PSE = 0x500, 0x800, 1 << 31, 1 << 16, 0x20, 0x10
LA57, SMEP, SMAP, PGE = 1 << 12, 1 << 20, 1 << 21, 0x80
ROOT = 0x1000


def put(memory: PhysicalMemory, address: int, value: int, size: int = 8) -> None:
    memory.write(address, value.to_bytes(size, "little"))


def memory_of(*levels: int, address: int = 0) -> PhysicalMemory:
    """A chain of tables from ROOT on; ``levels`` are the entries for ``address``."""
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 20)
    for number, entry in enumerate(levels):
        shift = 12 + 9 * (len(levels) - 1 - number)
        put(memory, ROOT + 0x1000 * number + (address >> shift & 511) * 8, entry)
    return memory


def state(
    cr0: int = PG | 1,
    cr4: int = PAE,
    efer: int = LMA,
    rflags: int = 2,
    pdptes: tuple[int, int, int, int] = (0, 0, 0, 0),
    cr3: int = ROOT,
) -> PagingState:
    return PagingState(cr0, cr3, cr4, efer, rflags, pdptes, 46)


def four(leaf: int, above: int = 7) -> tuple[int, ...]:
    return 0x2000 | above, 0x3000 | above, 0x4000 | above, leaf


def test_without_paging_an_address_is_itself() -> None:
    found = find_page(memory_of(), state(cr0=1), 0x1_2345_6789, write=True)
    assert found == LinearPage(0x2345_6789, 0x3F, True, False, True, False)


@pytest.mark.parametrize(
    ("leaf", "above", "cr0", "cr4", "rights"),
    [
        (0x67, 7, PG | 1, PAE, 0o77),
        (0x63, 7, PG | 1, PAE, 0o07),
        (0x65, 7, PG | 1, PAE, 0o57),
        (0x65, 7, PG | WP | 1, PAE, 0o55),
        (0x67, 5, PG | WP | 1, PAE, 0o55),
        (0x67, 3, PG | 1, PAE, 0o07),
        (0x67, 7, PG | 1, PAE | SMEP, 0o73),
        (0x67, 7, PG | 1, PAE | SMAP, 0o74),
        (0x67, 7, PG | 1, PAE | SMEP | SMAP, 0o70),
        (0x63, 7, PG | 1, PAE | SMEP | SMAP, 0o07),
    ],
)
def test_rights(leaf: int, above: int, cr0: int, cr4: int, rights: int) -> None:
    memory = memory_of(*four(0x5000 | leaf, above))
    found = find_page(memory, state(cr0=cr0, cr4=cr4), 0x123, write=False)
    assert (found.gpa, found.rights) == (0x5123, rights)


def test_execute_disable_needs_nxe_and_any_level_counts() -> None:
    memory = memory_of(*four(0x5067))
    put(memory, 0x2000, 0x3007 | 1 << 63)
    with pytest.raises(PageFaultError) as fault:
        find_page(memory, state(), 0, write=False)
    assert fault.value.code == 9
    assert find_page(memory, state(efer=LMA | NXE), 0, write=False).rights == 0o33


def test_dirty_is_set_by_writes_and_write_rights_wait_for_it() -> None:
    memory = memory_of(*four(0x5027))
    assert find_page(memory, state(), 0, write=False).rights == 0o55
    assert find_page(memory, state(), 0, write=True).rights == 0o77
    assert memory.read(0x4000, 1)[0] == 0x67


def test_access_bits_are_set_on_the_way() -> None:
    memory = memory_of(*four(0x5007))
    find_page(memory, state(), 0, write=False)
    assert all(memory.read(at, 1)[0] & 0x20 for at in (0x1000, 0x2000, 0x3000, 0x4000))


def test_tables_in_rom_are_walked_without_flags() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x4000, read_only=True)
    for number, entry in enumerate(four(0x5007)):
        memory.load(ROOT + 0x1000 * number, entry.to_bytes(8, "little"))
    assert find_page(memory, state(), 0, write=True).gpa == 0x5000


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ((0,), 0),
        (four(0), 0),
        ((0x2087, 0, 0, 0), 9),
        (four(0x5067 | 1 << 46), 9),
        ((0x80_0007, 0, 0, 0), 9),  # a table where there is no memory
    ],
)
def test_page_faults(levels: tuple[int, ...], code: int) -> None:
    with pytest.raises(PageFaultError) as fault:
        find_page(
            memory_of(*levels) if len(levels) == 4 else memory_of(*levels, 0, 0, 0),
            state(),
            0,
            write=False,
        )
    assert fault.value.code == code


def test_large_and_global_pages() -> None:
    memory = memory_of(0x2007, 0x3007, 0x4000_01E7, 0)
    found = find_page(memory, state(cr4=PAE | PGE), 0x12_3456, write=False)
    assert (found.gpa, found.global_) == (0x4012_3456, True)
    assert not find_page(memory, state(), 0, write=False).global_


def test_five_levels() -> None:
    address = 1 << 48
    memory = memory_of(0x2007, 0x3007, 0x4007, 0x5007, 0x6067, address=address)
    assert find_page(memory, state(cr4=PAE | LA57), address, write=False).gpa == 0x6000


def test_pae() -> None:
    memory = memory_of(0x2007, 0x5067)
    setup = state(efer=0, pdptes=(0, ROOT | 1, 0, 0))
    assert find_page(memory, setup, 0x4000_0123, write=False).gpa == 0x5123
    with pytest.raises(PageFaultError):
        find_page(memory, setup, 0x123, write=False)


class TestThirtyTwoBit:
    setup = state(efer=0, cr4=PSE)

    def memory(self, pde: int, pte: int = 0) -> PhysicalMemory:
        memory = PhysicalMemory()
        memory.add_region(0, 1 << 20)
        put(memory, ROOT + 4, pde, 4)
        put(memory, 0x2000 + 8, pte, 4)
        return memory

    def test_small_pages(self) -> None:
        memory = self.memory(0x2007, 0x7007)
        found = find_page(memory, self.setup, 0x40_2123, write=True)
        assert (found.gpa, found.rights) == (0x7123, 0o77)
        assert memory.read(0x2008, 1)[0] == 0x67
        assert memory.read(ROOT + 4, 1)[0] == 0x27

    def test_large_pages(self) -> None:
        memory = self.memory(0x80_2087 | 0x67)
        found = find_page(memory, self.setup, 0x40_2123, write=False)
        assert found.gpa == 1 << 32 | 0x80_2123

    def test_large_pages_beyond_the_width_are_reserved(self) -> None:
        memory = self.memory(1 << 20 | 0x87)
        with pytest.raises(PageFaultError) as fault:
            find_page(memory, self.setup._replace(width=39), 0x40_0000, write=False)
        assert fault.value.code == 9
        assert memory.read(ROOT + 4, 1)[0] == 0x87
        found = find_page(memory, self.setup._replace(width=40), 0x40_0000, write=False)
        assert found.gpa == 0x80 << 32

    def test_without_pse_bit_7_means_nothing(self) -> None:
        memory = self.memory(0x2087, 0x7067)
        assert find_page(memory, state(efer=0, cr4=0), 0x40_2000, write=False).gpa == 0x7000

    def test_faults(self) -> None:
        for pde, pte, code in ((0, 0, 0), (0x2007, 0, 0), (0x80_0087 | 1 << 21, 0, 9)):
            with pytest.raises(PageFaultError) as fault:
                find_page(self.memory(pde, pte), self.setup, 0x40_2000, write=False)
            assert fault.value.code == code

    def test_reads_of_nothing_give_ones(self) -> None:
        missing = self.setup._replace(cr3=0x80_0000)
        with pytest.raises(PageFaultError) as fault:
            find_page(self.memory(0), missing, 0, write=False)
        assert fault.value.code == 9
