"""Nested walks against the oracle, and guest memory by itself."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import Implementation
from pagetables.geometry import StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import BusError, PhysicalMemory
from pagetables.nested import GuestMemory
from pagetables.observer import EntryObserver, Structure
from pagetables.walk import (
    ADDRESS,
    Stage,
    TableRefusedError,
    WalkFault,
    WalkRule,
    place,
    set_flags,
    walk,
)
from tests.support import oracle
from tests.support.strategies import NestedScene, addresses, nested_scenes

PLAIN = Implementation(46, 16, frozenset({"sslps_2m"}))


def translate(
    memory: PhysicalMemory, scene: NestedScene, address: int, *, dirty: bool = False
) -> oracle.Mapped | oracle.Failed:
    """Translate through both stages as the unit does, in the oracle's words.

    ``dirty``: go on to set D in both leaf entries.
    """
    first, second, width = scene.first.stage, scene.second.stage, scene.nesting.width
    guest = GuestMemory(memory, second, width, lambda gpa: walk(memory, second, gpa))
    try:
        leaf = entry, shift, rights, _, _ = walk(guest, first, address)
        if dirty and first.dirty & ~entry:
            set_flags(guest, first, leaf, first.dirty)
        gpa = entry & ADDRESS & -(1 << shift) | address & (1 << shift) - 1
        if gpa >> width:
            return oracle.Failed("TABLE_BEYOND_WIDTH", "first", (shift - 3) // 9)
        last = inner, inner_shift, inner_rights, _, _ = walk(memory, second, gpa)
        if dirty and second.dirty & ~inner:
            set_flags(memory, second, last, second.dirty)
    except WalkFault as fault:
        return oracle.Failed(fault.rule.name, fault.kind.value, (fault.shift - 3) // 9)
    where = place(leaf)
    host = walk(memory, replace(second, accessed=0), where)
    return oracle.Mapped(
        inner & ADDRESS & -(1 << inner_shift) | gpa & (1 << inner_shift) - 1,
        1 << min(shift, inner_shift),
        inner_rights & second.geometry.read != 0,
        bool(rights & first.geometry.write and inner_rights & second.geometry.write),
        rights & first.geometry.user != 0,
        host[0] & ADDRESS & -(1 << host[1]) | where & (1 << host[1]) - 1,
        where,
    )


@given(nested_scenes(), st.data())
@pytest.mark.section("3.8")
def test_nested_walks_give_what_the_oracle_says(scene: NestedScene, data: st.DataObject) -> None:
    memory, words = scene.scene.memory(), scene.scene.words()
    levels = scene.first.tables.levels
    for address in data.draw(st.lists(addresses(levels), min_size=4, max_size=8)):
        expected = oracle.translate(words, scene.first.tables, address, scene.nesting)
        assert translate(memory, scene, address) == expected
        for where, word in words.words.items():
            assert memory.read_record(where, 8) == word


@given(nested_scenes(), st.data())
def test_dirty_flags_are_set_in_both_stages(scene: NestedScene, data: st.DataObject) -> None:
    memory, words = scene.scene.memory(), scene.scene.words()
    address = data.draw(addresses(scene.first.tables.levels))
    mapped = oracle.translate(words, scene.first.tables, address, scene.nesting)
    failed = oracle.set_dirty(words, scene.first.tables, address, scene.nesting)
    got = translate(memory, scene, address, dirty=True)
    assert got == (mapped if failed is None else failed)
    for where, word in words.words.items():
        assert memory.read_record(where, 8) == word


def make_guest(rights: int, *, flags: bool = False) -> tuple[PhysicalMemory, GuestMemory]:
    """Guest frame 0 is host frame 8, with these rights; second-stage tables are in 1 to 3."""
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x8000)
    for table in (1, 2):
        memory.write(table << 12, (table + 1 << 12 | 3).to_bytes(8, "little"))
    memory.write(0x3000, (0x8000 | rights).to_bytes(8, "little"))
    geometry = second_stage_geometry(3, PLAIN)
    second = Stage(geometry, 1, geometry.accessed * flags, geometry.dirty * flags)
    return memory, GuestMemory(memory, second, 39, lambda gpa: walk(memory, second, gpa))


def test_guest_memory_reads_and_writes_where_the_second_stage_maps_it() -> None:
    memory, guest = make_guest(3)
    guest.write(0x18, b"\x2a" + bytes(7))
    assert memory.read(0x8018, 1) == b"\x2a"
    assert guest.read_record(0x18, 8) == guest.frames[0][3] == 0x2A
    assert guest.compare_exchange(0x18, 8, 0x2A, 0x2B)
    assert not guest.compare_exchange(0x18, 8, 0x2A, 0x2C)
    assert memory.read_record(0x8018, 8) == 0x2B


def test_a_known_table_is_read_and_updated_where_it_was_and_others_are_located() -> None:
    memory, guest = make_guest(3)
    located: list[tuple[int, int]] = []
    guest.located = lambda frame, host: located.append((frame, host))
    memory.add_region(0x9000, 0x1000)
    memory.write(0x9018, b"\x2a" + bytes(7))
    assert guest.frames[0][3] == 0
    assert located == [(0, 8)]
    guest.known[0] = 9
    assert guest.frames[0][3] == 0x2A
    assert guest.compare_exchange(0x18, 8, 0x2A, 0x2B)
    assert memory.read_record(0x9018, 8) == 0x2B
    assert located == [(0, 8)]


def test_a_flag_update_dirties_the_page_of_the_table_but_a_read_does_not() -> None:
    memory, guest = make_guest(3, flags=True)
    guest.read_record(0, 8)
    assert memory.read_record(0x3000, 8) == 0x8000 | 3 | 1 << 8
    guest.compare_exchange(0, 8, 0, 1)
    assert memory.read_record(0x3000, 8) == 0x8000 | 3 | 1 << 8 | 1 << 9


@pytest.mark.parametrize(
    ("rights", "flags", "readable", "writable"),
    [
        (3, False, True, True),
        (1, False, True, False),
        (2, False, False, True),
        (1, True, False, False),
    ],
)
@pytest.mark.section("3.8.1")
def test_what_the_guest_may_do_with_a_table_is_what_the_second_stage_grants(
    rights: int, flags: bool, readable: bool, writable: bool
) -> None:
    _, guest = make_guest(rights, flags=flags)

    def refused(rule: WalkRule, address: int) -> None:
        with pytest.raises(TableRefusedError) as caught:
            if rule is WalkRule.TABLE_NOT_WRITABLE:
                guest.write(address, bytes(8))
            else:
                guest.read_record(address, 8)
        assert caught.value.rule is rule

    if readable:
        assert guest.read_record(0, 8) == 0
    else:
        refused(WalkRule.TABLE_NOT_READABLE, 0)
    if writable:
        guest.write(0, bytes(8))
    else:
        refused(WalkRule.TABLE_NOT_WRITABLE, 0)
    refused(WalkRule.TABLE_BEYOND_WIDTH, 1 << 39)


def test_a_dirty_flag_that_meets_a_changed_entry_is_tried_again() -> None:
    memory, _ = make_guest(3)
    geometry = second_stage_geometry(3, PLAIN)
    second = Stage(geometry, 1, geometry.accessed, geometry.dirty)
    seen: list[int] = []

    class Meddler(EntryObserver):
        def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
            if new & geometry.dirty:
                seen.append(new)
                if len(seen) == 1:
                    memory.write(0x3000, (new & ~geometry.dirty | 1 << 52).to_bytes(8, "little"))

    guest = GuestMemory(memory, second, 39, lambda gpa: walk(memory, second, gpa), Meddler())
    assert guest.compare_exchange(0, 8, 0, 5)
    assert len(seen) == 2
    assert memory.read_record(0x3000, 8) & geometry.dirty
    assert memory.read_record(0x8000, 8) == 5


def test_a_hole_behind_the_second_stage_is_a_bus_error() -> None:
    memory, guest = make_guest(3)
    memory.write(0x3000, (0x100000 | 3).to_bytes(8, "little"))
    with pytest.raises(BusError, match="no memory here"):
        guest.read_record(0, 8)


class Refusing(EntryObserver):
    """Keeps the updates it is told of, and refuses that of one structure that sets some flags."""

    def __init__(self, structure: Structure | None = None, flags: int = 0) -> None:
        self.refused = structure, flags
        self.updates: list[tuple[str, Structure, int]] = []

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self.updates.append(("update", structure, address))
        if self.refused == (structure, new & ~old):
            raise BusError(address, "refused")

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        assert done
        self.updates.append(("updated", structure, address))


FIRST = first_stage_geometry(4, PLAIN)
ENTRY = 0x5  # of guest address 18h, where make_guest has it at 8018h


def set_accessed(memory: PhysicalMemory, observer: Refusing | None) -> None:
    """Set the accessed flag of a first-stage entry through a second stage that has flags."""
    geometry = second_stage_geometry(3, PLAIN)
    second = Stage(geometry, 1, geometry.accessed, geometry.dirty)
    guest = GuestMemory(memory, second, 39, lambda gpa: walk(memory, second, gpa), observer)
    set_flags(guest, Stage(FIRST, 0), (ENTRY, 12, 0, 0, 3), FIRST.accessed, observer)


def make_table() -> PhysicalMemory:
    memory, _ = make_guest(3, flags=True)
    memory.write(0x8018, ENTRY.to_bytes(8, "little"))
    return memory


def test_the_page_of_a_table_is_dirty_before_an_update_of_the_table_is_told() -> None:
    memory, observer = make_table(), Refusing()
    set_accessed(memory, observer)
    assert observer.updates == [
        ("update", Structure.SECOND_STAGE, 0x3000),
        ("updated", Structure.SECOND_STAGE, 0x3000),
        ("update", Structure.FIRST_STAGE, 0x8018),
        ("updated", Structure.FIRST_STAGE, 0x8018),
    ]
    assert memory.read_record(0x8018, 8) == ENTRY | FIRST.accessed


def test_an_injected_error_of_an_update_leaves_what_one_of_memory_leaves() -> None:
    """3.8.1: the second stage has set its flags by the time that the entry can't be written."""
    injected = make_table()
    with pytest.raises(WalkFault) as met:
        set_accessed(injected, Refusing(Structure.FIRST_STAGE, FIRST.accessed))
    unwritable = make_table()
    data = unwritable.read(0x1000, 0x8000)
    unwritable.remove_region(0x1000)
    unwritable.add_region(0x1000, 0x7000)
    unwritable.add_region(0x8000, 0x1000, read_only=True)
    unwritable.load(0x1000, data)
    with pytest.raises(WalkFault) as expected:
        set_accessed(unwritable, None)
    assert (met.value.rule, met.value.kind) == (WalkRule.UPDATE_ERROR, StageKind.FIRST)
    assert met.value.args == expected.value.args
    assert injected.read(0x1000, 0x8000) == unwritable.read(0x1000, 0x8000)
    assert injected.read_record(0x3000, 8) >> 9 & 1


def test_a_dirty_flag_that_is_refused_is_a_fault_of_the_second_stage() -> None:
    memory = make_table()
    observer = Refusing(Structure.SECOND_STAGE, 1 << 9)
    with pytest.raises(WalkFault) as met:
        set_accessed(memory, observer)
    assert (met.value.rule, met.value.kind) == (WalkRule.UPDATE_ERROR, StageKind.SECOND)
    assert observer.updates == [("update", Structure.SECOND_STAGE, 0x3000)]
    assert memory.read_record(0x8018, 8) == ENTRY
