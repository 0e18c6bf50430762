"""The walk of one stage against the oracle, on tables that are valid, flawed and hostile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import Implementation
from pagetables.geometry import StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.observer import EntryObserver, Structure
from pagetables.walk import (
    ADDRESS,
    Leaf,
    Stage,
    WalkFault,
    WalkRule,
    output,
    place,
    set_flags,
    walk,
)
from tests.support import oracle
from tests.support.strategies import (
    POOL,
    Flaw,
    Path,
    Scene,
    Setup,
    addresses,
    flawed_paths,
    hostile_scenes,
    setups,
    valid_paths,
)

PLAIN = Implementation(52, 16, frozenset({"sslps_2m", "sslps_1g", "fs1gp"}))


def outcome(memory: PhysicalMemory, setup: Setup, address: int) -> oracle.Mapped | oracle.Failed:
    """A walk of the library, in the oracle's words."""
    geometry = setup.stage.geometry
    try:
        leaf = entry, shift, rights, _, _ = walk(memory, setup.stage, address)
        where = place(leaf)
    except WalkFault as fault:
        assert fault.top == (fault.shift == geometry.levels[0].shift)
        return oracle.Failed(fault.rule.name, fault.kind.value, (fault.shift - 3) // 9)
    return oracle.Mapped(
        entry & ADDRESS & -(1 << shift) | address & (1 << shift) - 1,
        1 << shift,
        rights & geometry.read != 0,
        rights & geometry.write != 0,
        rights & geometry.user == geometry.user,
        where,
        where,
    )


def same(scene: Scene, setup: Setup, address: int) -> oracle.Mapped | oracle.Failed:
    """Walk and oracle agree on the outcome and leave the same memory."""
    memory, words = scene.memory(), scene.words()
    expected = oracle.translate(words, setup.tables, address)
    assert outcome(memory, setup, address) == expected
    for where, word in words.words.items():
        assert memory.read_record(where, 8) == word
    return expected


@given(valid_paths())
@pytest.mark.section("3.5")
def test_a_valid_path_leads_to_its_page(path: Path) -> None:
    got = same(path.scene, path.setup, path.address)
    assert isinstance(got, oracle.Mapped)
    assert got.physical == path.physical
    assert got.read and got.write and got.user


@given(flawed_paths())
@pytest.mark.section("3.6.1")
def test_one_changed_entry_has_the_effect_that_the_oracle_says(flawed: tuple[Path, Flaw]) -> None:
    path, _ = flawed
    same(path.scene, path.setup, path.address)


@given(hostile_scenes(), st.sampled_from(StageKind), st.data())
@pytest.mark.section("3.6", "3.7")
def test_hostile_tables_give_what_the_oracle_says(
    scene: Scene, kind: StageKind, data: st.DataObject
) -> None:
    setup = data.draw(setups(kind, POOL[0]))
    for address in data.draw(st.lists(addresses(setup.tables.levels), min_size=4, max_size=8)):
        same(scene, setup, address)


@given(hostile_scenes(), st.sampled_from(StageKind), st.data())
def test_a_walk_resumed_at_any_table_ends_like_the_whole_walk(
    scene: Scene, kind: StageKind, data: st.DataObject
) -> None:
    setup = data.draw(setups(kind, POOL[0]))
    address = data.draw(addresses(setup.tables.levels))
    memory = scene.memory()
    tables: list[tuple[int, int]] = []

    def visit(shift: int, frame: int, rights: int) -> None:
        assert shift == setup.stage.geometry.levels[len(tables)].shift
        tables.append((frame, rights))

    def attempt(start: tuple[int, int, int] | None) -> Leaf | WalkRule:
        try:
            return walk(memory, setup.stage, address, None if start else visit, start)
        except WalkFault as fault:
            return fault.rule

    whole = attempt(None)
    for done, (frame, rights) in enumerate(tables, 1):
        assert attempt((done, frame, rights)) == whole


@pytest.mark.parametrize("number", [0, 1, 61, 62])
@pytest.mark.section("3.7.1")
def test_rights_are_io_rights_only_when_those_are_in_effect(number: int) -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x3000)
    for table in (0x1000, 0x2000, 0x3000):
        entry = (table + 0x1000) | 1 << number
        memory.write(table, entry.to_bytes(8, "little"))
    plain = second_stage_geometry(3, PLAIN)
    io = second_stage_geometry(3, PLAIN._replace(features=PLAIN.features | {"ssirwe"}))
    for geometry, readable in ((plain, number == 0), (io, number == 61)):
        writable = number == (1 if geometry is plain else 62)
        if not readable and not writable:
            with pytest.raises(WalkFault, match="not present"):
                walk(memory, Stage(geometry, 1), 0)
            continue
        rights = walk(memory, Stage(geometry, 1), 0)[2]
        assert rights == (geometry.read if readable else geometry.write)


class _ChangesOnce(EntryObserver):
    """Another agent changes the entry between reading and updating it."""

    def __init__(self, memory: PhysicalMemory, where: int, entry: int) -> None:
        self.memory, self.where, self.entry, self.seen = memory, where, entry, 0

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        if address == self.where:
            self.seen += 1
            if self.seen == 1:
                self.memory.write(self.where, self.entry.to_bytes(8, "little"))


def test_an_output_address_is_the_page_and_the_offset_in_it() -> None:
    for shift in (12, 21, 30):
        leaf = 0x5_5555_5000 & -(1 << shift) | 0x87, shift, 7, 1, 0
        offset = 0x2AAA_A123 & (1 << shift) - 1
        assert output(leaf, 0x7_C000_0000 | offset) == 0x5_5555_5000 & -(1 << shift) | offset


@pytest.mark.parametrize("level", range(4))
@pytest.mark.section("3.6.2")
def test_a_walk_starts_again_if_an_entry_changes_before_its_flag_is_set(level: int) -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x10000)
    geometry = first_stage_geometry(4, PLAIN)
    for number in range(1, 5):
        memory.write(number << 12, ((number + 1) << 12 | 7).to_bytes(8, "little"))
    where = level + 1 << 12
    other = 0x9000 | 7 if level == 3 else level + 2 << 12 | 0x207
    agent = _ChangesOnce(memory, where, other)
    stage = Stage(geometry, 1, geometry.accessed)
    leaf = entry, shift, _, _, _ = walk(memory, stage, 0, None, None, agent)
    at = place(leaf)
    assert agent.seen == 2
    assert (shift, at) == (12, 0x4000)
    assert entry & ADDRESS == (0x9000 if level == 3 else 0x5000)
    assert memory.read_record(where, 8) == other | geometry.accessed


def test_flags_are_not_set_by_a_walk_that_is_not_snooped() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x1000)
    geometry = first_stage_geometry(4, PLAIN)
    stage = Stage(geometry, 1, geometry.accessed, geometry.dirty, snooped=False)
    with pytest.raises(WalkFault, match="not snooped"):
        set_flags(memory, stage, (0, 12, 0, 1, 0), geometry.dirty)
    assert memory.read_record(0x1000, 8) == 0


def test_a_fault_says_where_and_why() -> None:
    with pytest.raises(WalkFault) as caught:
        walk(PhysicalMemory(), Stage(second_stage_geometry(4, PLAIN), 1), 0)
    assert str(caught.value) == "second stage, bit 39: reading the entry failed"
    assert caught.value.rule is WalkRule.READ_ERROR
    assert caught.value.top
