"""Explanations: the outcome of the walk itself, with every entry it read in both dimensions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import Implementation
from pagetables.build import FramePool, TableBuilder
from pagetables.first_stage import FirstStagePage2M
from pagetables.geometry import StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.second_stage import SecondStageEntry, SecondStagePage4K
from pagetables.unchanged import UnchangedMemory
from pagetables.walk import Stage, WalkFault, WalkRule, walk
from pagetables.walk_explanation import (
    EntryRole,
    Step,
    WalkExplanation,
    explain_nested_walk,
    explain_walk,
)
from tests.support import oracle
from tests.support.strategies import (
    POOL,
    NestedScene,
    Path,
    Scene,
    Setup,
    addresses,
    hostile_scenes,
    nested_scenes,
    setups,
    valid_paths,
)

PAGE, BIG, HUGE = 1 << 12, 1 << 21, 1 << 30
HOLE, READ_ONLY = 0x800_0000, 0x900_0000
UNIT = Implementation(46, 16, frozenset({"sslps_2m", "sslps_1g", "fs1gp"}))
FIRST, SECOND = first_stage_geometry(4, UNIT), second_stage_geometry(4, UNIT)


def agrees(got: WalkExplanation, expected: oracle.Mapped | oracle.Failed) -> None:
    """The explanation has the oracle's outcome, and its last step says it."""
    last = got.steps[-1]
    assert not any(step.reserved for step in got.steps if step.outcome is not WalkRule.RESERVED)
    if isinstance(expected, oracle.Failed):
        assert got.fault is not None
        assert got.physical is None
        level = (got.fault.shift - 3) // 9
        assert (got.fault.rule.name, got.fault.kind.value, level) == (
            expected.rule,
            expected.kind,
            expected.level,
        )
        assert last.outcome is got.fault.rule
        assert (last.reserved != 0) == (
            got.fault.rule is WalkRule.RESERVED and last.kind is got.fault.kind
        )
    else:
        assert (got.fault, got.physical) == (None, expected.physical)
        rights = ("r" if expected.read else "-") + ("w" if expected.write else "-")
        assert (got.rights, got.user) == (rights, expected.user)
        assert last.outcome is EntryRole.PAGE


def really_read(memory: PhysicalMemory, steps: tuple[Step, ...]) -> None:
    """Every entry that a step shows is in memory, but for flags set since."""
    for step in steps:
        really_read(memory, step.second)
        if step.entry is not None:
            assert step.host is not None
            assert step.record == step.entry
            assert memory.read_record(step.host, 8) & ~0x760 == step.entry & ~0x760


@given(hostile_scenes(), st.sampled_from(StageKind), st.data())
def test_a_walk_explained_ends_like_the_walk(
    scene: Scene, kind: StageKind, data: st.DataObject
) -> None:
    setup = data.draw(setups(kind, POOL[0]))
    memory, words = scene.memory(), scene.words()
    for address in data.draw(st.lists(addresses(setup.tables.levels), min_size=1, max_size=6)):
        expected = oracle.translate(words, setup.tables, address)
        got = explain_walk(memory, setup.stage, address)
        agrees(got, expected)
        really_read(memory, got.steps)
        for where, word in words.words.items():
            assert memory.read_record(where, 8) == word


@given(nested_scenes(), st.data())
def test_a_nested_walk_explained_ends_like_the_walk(
    scene: NestedScene, data: st.DataObject
) -> None:
    memory, words = scene.scene.memory(), scene.scene.words()
    first, second, width = scene.first.stage, scene.second.stage, scene.nesting.width
    levels = scene.first.tables.levels
    for address in data.draw(st.lists(addresses(levels), min_size=1, max_size=6)):
        expected = oracle.translate(words, scene.first.tables, address, scene.nesting)
        got = explain_nested_walk(memory, first, second, width, address)
        agrees(got, expected)
        really_read(memory, got.steps)
        for where, word in words.words.items():
            assert memory.read_record(where, 8) == word


@given(valid_paths())
def test_the_flags_shown_are_the_flags_set(path: Path) -> None:
    memory, setup = path.scene.memory(), path.setup
    looked = explain_walk(UnchangedMemory(memory), setup.stage, path.address)
    for step in looked.steps:
        assert step.host == step.address
        assert memory.read_record(step.address, 8) == step.entry
    walk(memory, setup.stage, path.address)
    for step in looked.steps:
        assert memory.read_record(step.address, 8) == (step.entry or 0) | step.flags


def make_memory() -> tuple[PhysicalMemory, TableBuilder]:
    memory = PhysicalMemory()
    memory.add_region(0x100_0000, 64 * PAGE)
    memory.add_region(HUGE, BIG)
    return memory, TableBuilder(memory, SECOND, FramePool(0x100_0000, 0x100_0000 + 64 * PAGE))


def test_steps_carry_the_names_and_records_of_the_specification() -> None:
    memory, builder = make_memory()
    builder.map(0x4000, 0x5000, PAGE, "r-")
    got = explain_walk(memory, Stage(SECOND, builder.root), 0x4321)
    assert (got.physical, got.rights, got.user) == (0x5321, "r-", True)
    assert [step.level for step in got.steps] == ["SS-PML4E", "SS-PDPE", "SS-PDE", "SS-PTE"]
    assert [step.outcome for step in got.steps] == [EntryRole.TABLE] * 3 + [EntryRole.PAGE]
    assert [type(step.record) for step in got.steps] == [SecondStageEntry] * 3 + [SecondStagePage4K]
    assert got.steps[-1].address == 0x100_3020
    assert repr(got.steps[-1].record) == "SecondStagePage4K(r=True, addr=0x5000)"


def test_the_reserved_bits_that_fired_are_named() -> None:
    memory, builder = make_memory()
    builder.map(0, 0, PAGE)
    memory.write(0x100_2000, (0x100_3003 | 1 << 11 | 1 << 50 | 1 << 9).to_bytes(8, "little"))
    got = explain_walk(memory, Stage(SECOND, builder.root), 0)
    assert [step.level for step in got.steps] == ["SS-PML4E", "SS-PDPE", "SS-PDE"]
    assert got.steps[-1].outcome is WalkRule.RESERVED
    assert got.steps[-1].reserved == 1 << 11 | 1 << 50


def test_an_entry_that_can_not_be_read_is_a_step_without_one() -> None:
    memory, builder = make_memory()
    builder.map(0, 0, PAGE)
    stage = Stage(SECOND, builder.root)
    memory.write(0x100_1000, (HOLE | 3).to_bytes(8, "little"))
    got = explain_walk(memory, stage, 0)
    last = got.steps[-1]
    assert (last.level, last.outcome) == ("SS-PDE", WalkRule.READ_ERROR)
    assert (last.address, last.host, last.entry, last.record) == (HOLE, None, None, None)
    assert last.flags == 0


def test_a_flag_that_can_not_be_set_shows_at_its_entry() -> None:
    memory, builder = make_memory()
    builder.map(0, 0, PAGE)
    memory.add_region(READ_ONLY, PAGE, read_only=True)
    memory.load(READ_ONLY, memory.read(0x100_1000, PAGE))
    memory.write(0x100_0000, (READ_ONLY | 3).to_bytes(8, "little"))
    stage = Stage(SECOND, builder.root, SECOND.accessed)
    got = explain_walk(memory, stage, 0)
    assert [step.outcome for step in got.steps] == [EntryRole.TABLE, WalkRule.UPDATE_ERROR]
    assert [step.flags for step in got.steps] == [SECOND.accessed] * 2


def make_nested(*, flags: bool = True) -> tuple[PhysicalMemory, TableBuilder, Setup, Stage]:
    """A first-stage 2 MiB page at 0x40000000 to guest 2 MiB, which is at host 10 MiB."""
    memory, outer = make_memory()
    outer.map(0, HUGE, 64 * PAGE)
    outer.map(BIG, 5 * BIG, BIG)
    inner = TableBuilder(memory, FIRST, FramePool(0, BIG), translate=lambda gpa: HUGE + gpa)
    inner.map(0x4000_0000, BIG, BIG)
    first = Stage(FIRST, inner.root, FIRST.accessed * flags, FIRST.dirty * flags)
    second = Stage(SECOND, outer.root, SECOND.accessed * flags, SECOND.dirty * flags)
    return memory, outer, Setup(first, oracle.Tables("first", 4, 0, 46, frozenset())), second


def test_a_nested_walk_shows_both_dimensions() -> None:
    memory, _, (first, _), second = make_nested()
    got = explain_nested_walk(memory, first, second, 48, 0x4000_1234)
    assert got.physical == 5 * BIG + 0x1234
    outer, page = got.steps[:3], got.steps[3:]
    assert [step.level for step in outer] == ["FS-PML4E", "FS-PDPE", "FS-PDE"]
    assert isinstance(outer[-1].record, FirstStagePage2M)
    for step in outer:
        assert step.host == HUGE + step.address
        assert [inner.level for inner in step.second] == [
            "SS-PML4E",
            "SS-PDPE",
            "SS-PDE",
            "SS-PTE",
        ]
        assert step.second[-1].outcome is EntryRole.PAGE
    # Setting A in a first-stage entry dirties the page of its table.
    assert [step.second[-1].flags for step in outer] == [SECOND.accessed | SECOND.dirty] * 3
    assert [step.flags for step in outer] == [FIRST.accessed] * 3
    assert [step.level for step in page] == ["SS-PML4E", "SS-PDPE", "SS-PDE"]
    assert page[-1].flags == SECOND.accessed


@pytest.mark.parametrize(
    ("inner", "outer", "both"),
    [("rw", "rw", "rw"), ("r-", "rw", "r-"), ("rw", "r-", "r-"), ("r-", "r-", "r-")],
)
def test_a_nested_page_is_written_only_where_both_stages_let_it_be(
    inner: str, outer: str, both: str
) -> None:
    memory, second_tables, (first, _), second = make_nested()
    first_tables = TableBuilder(
        memory, FIRST, FramePool(32 * PAGE, BIG), translate=lambda gpa: HUGE + gpa
    )
    first_tables.map(0x4000_0000, BIG, BIG, inner)
    second_tables.protect(BIG, BIG, outer)
    first = replace(first, root=first_tables.root)
    assert explain_nested_walk(memory, first, second, 48, 0x4000_1234).rights == both


def test_a_table_refused_by_the_second_stage_shows_how_it_was_found() -> None:
    memory, outer, (first, _), second = make_nested(flags=False)
    outer.protect(PAGE, PAGE, "-w")
    got = explain_nested_walk(memory, first, second, 48, 0x4000_0000)
    last = got.steps[-1]
    assert (last.level, last.outcome) == ("FS-PDPE", WalkRule.TABLE_NOT_READABLE)
    assert (last.host, last.entry) == (None, None)
    assert last.second[-1].outcome is EntryRole.PAGE
    assert got.fault is not None and not got.fault.top
    outer.unmap(PAGE, PAGE)
    got = explain_nested_walk(memory, first, second, 48, 0x4000_0000)
    assert got.steps[-1].second[-1].outcome is WalkRule.NOT_PRESENT
    assert got.fault is not None and got.fault.kind is StageKind.SECOND


def test_a_table_whose_flag_can_not_be_set_for_the_second_stage_shows_its_entry() -> None:
    memory, outer, (first, _), second = make_nested()
    outer.protect(0, PAGE, "r-")
    got = explain_nested_walk(memory, first, replace(second, accessed=0, dirty=0), 48, 0x4000_0000)
    assert [step.outcome for step in got.steps] == [WalkRule.TABLE_NOT_WRITABLE]
    assert got.steps[0].entry is not None


def test_a_table_whose_page_can_not_be_marked_dirty_shows_the_entry_with_the_flag() -> None:
    """3.8.1: setting A in the top first-stage entry dirties the table's page in the second."""
    memory, _, (first, _), second = make_nested()
    *_, above, leaf = explain_walk(memory, second, 0).steps  # sets A on the way to the table
    assert above.host is not None and leaf.host is not None
    memory.add_region(READ_ONLY, PAGE, read_only=True)
    memory.load(READ_ONLY, memory.read(leaf.host & -PAGE, PAGE))
    moved = SecondStageEntry(memory.read_record(above.host, 8)).replace(addr=READ_ONLY)
    memory.write(above.host, moved.pack())
    got = explain_nested_walk(memory, first, second, 48, 0x4000_0000)
    assert got.fault is not None and got.fault.kind is StageKind.SECOND
    [step] = got.steps
    assert (step.level, step.outcome) == ("FS-PML4E", WalkRule.UPDATE_ERROR)
    assert step.entry is not None
    assert step.second[-1].flags == SECOND.dirty


def test_a_page_beyond_the_guest_width_ends_at_its_entry() -> None:
    memory, _, (first, _), second = make_nested()
    got = explain_nested_walk(memory, first, second, 21, 0x4000_0000)
    assert got.steps[-1].level == "FS-PDE"
    assert got.steps[-1].outcome is WalkRule.TABLE_BEYOND_WIDTH
    assert got.fault is not None and not got.fault.top
    assert not got.user


@pytest.mark.parametrize("nested", [False, True])
def test_a_walk_that_starts_again_is_explained_from_its_new_beginning(nested: bool) -> None:
    memory, _, (first, _), second = make_nested()
    seen: list[int] = []
    host = HUGE + 0x1008 if nested else 0x100_1000

    class Meddled(UnchangedMemory):
        """Somebody else writes the entry before its flag is set."""

        def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
            if address == host and not seen:
                seen.append(address)
                memory.write(address, (new | 1 << 52).to_bytes(8, "little"))
            return memory.compare_exchange(address, size, expected, new)

    watched = Meddled(memory)
    if nested:
        got = explain_nested_walk(watched, first, second, 48, 0x4000_0000)
        levels = ["FS-PML4E", "FS-PDPE", "FS-PDE", "SS-PML4E", "SS-PDPE", "SS-PDE"]
    else:
        got = explain_walk(watched, second, BIG)
        levels = ["SS-PML4E", "SS-PDPE", "SS-PDE"]
    assert seen
    assert got.physical == 5 * BIG
    assert [step.level for step in got.steps] == levels


def test_a_fault_of_the_explained_walk_is_that_of_the_walk() -> None:
    memory, builder = make_memory()
    stage = Stage(SECOND, builder.root)
    got = explain_walk(memory, stage, 0)
    with pytest.raises(WalkFault) as caught:
        walk(memory, stage, 0)
    assert str(got.fault) == str(caught.value)


def test_a_page_is_for_users_if_the_walk_ends_and_every_entry_is() -> None:
    memory, outer, (first, _), second = make_nested()
    assert explain_walk(memory, second, PAGE).user
    assert explain_nested_walk(memory, first, second, 48, 0x4000_1234).user
    assert not explain_nested_walk(memory, first, second, 48, 1 << 40).user
    outer.unmap(BIG, BIG)
    assert not explain_walk(memory, second, 1 << 40).user
    assert not explain_nested_walk(memory, first, second, 48, 0x4000_1234).user
