"""EPT walks: verdicts, qualifications, and the same tables walked as a second stage."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pagetables import ept as bits
from pagetables.bits import Implementation
from pagetables.geometry import second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage, WalkFault, output, walk
from tests.support.strategies import INDEXES, POOL, Scene, addresses
from tests.vtd.guest.machine import RAM, VE_PAGE, WB, Machine
from vtd.fuzz.ept_oracle import EptVerdict, ept_verdict
from vtd.fuzz.guest_strategies import ept_entries
from vtd.guest.x86.capabilities import VMX_PROFILES, VmxCapabilities
from vtd.guest.x86.ept import (
    EptFaultError,
    EptRule,
    EptStage,
    ept_stage,
    examine,
    mark_used,
    walk_ept,
)
from vtd.guest.x86.exits import ExitReason, VmExit
from vtd.guest.x86.guest import Guest
from vtd.guest.x86.outcomes import NOTHING, CpuException

CAPS = VMX_PROFILES["everything"]
ROOT = POOL[0]
VIOLATION, MISCONFIGURATION = ExitReason.EPT_VIOLATION, ExitReason.EPT_MISCONFIGURATION


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Tables full of such entries."""
    return Scene({frame: {index: draw(ept_entries(POOL)) for index in INDEXES} for frame in POOL})


@st.composite
def stages(draw: st.DrawFn) -> tuple[EptStage, VmxCapabilities, int]:
    """Any EPT that a profile accepts."""
    caps = VMX_PROFILES[draw(st.sampled_from(sorted(VMX_PROFILES)))]
    levels = draw(st.sampled_from([4, 5] if caps.ept_vpid.levels_5 else [4]))
    mode_based = draw(st.booleans())
    eptp = ROOT << 12 | levels - 1 << 3 | 6
    return ept_stage(eptp, caps, mode_based=mode_based), caps, levels


@given(scenes(), stages(), addresses(5))
def test_every_walk_is_the_oracle_s(
    scene: Scene, setup: tuple[EptStage, VmxCapabilities, int], gpa: int
) -> None:
    stage, caps, levels = setup
    gpa &= (1 << 9 * levels + 13) - 1
    expected = ept_verdict(scene.frames, ROOT, gpa, levels, caps, mode_based=stage.mode_based)
    try:
        leaf = _, _, rights, _, _ = walk_ept(scene.memory(), stage, gpa)
    except EptFaultError as fault:
        assert expected.kind == ("violation" if fault.violation else "misconfiguration")
        return
    mask = stage.tables.geometry.rights
    assert expected == EptVerdict("page", output(leaf, gpa), rights & mask)


FEATURES = frozenset({"sslps_1g", "sslps_2m", "sc"})


@given(scenes(), addresses(4))
def test_what_both_allow_is_at_the_same_place(scene: Scene, gpa: int) -> None:
    """One table for processor and device: the unit's second stage finds the same page."""
    stage = ept_stage(ROOT << 12 | 0x1E, VMX_PROFILES["broadwell-posted"])
    unit = Stage(second_stage_geometry(4, Implementation(46, 16, FEATURES)), ROOT)
    memory = scene.memory()
    try:
        processor = walk_ept(memory, stage, gpa)
        device = walk(memory, unit, gpa)
    except (EptFaultError, WalkFault):
        return
    assert processor[:2] == device[:2]
    assert processor[2] & 3 == device[2] & 3


@given(st.binary(min_size=64, max_size=64), st.integers(0, (1 << 64) - 1))
@example(b"\xff" * 64, 0)
def test_any_bytes_and_any_address_have_a_verdict(data: bytes, gpa: int) -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 16)
    memory.write(0x1000, data * 64)
    stage = ept_stage(0x101E, CAPS)
    try:
        walk_ept(memory, stage, gpa)
    except EptFaultError as fault:
        assert fault.rule not in (EptRule.PAGE, EptRule.TABLE)


def test_steps_tell_the_rule_and_the_reserved_bits() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 20)
    memory.write(0x1000, (0x2007).to_bytes(8, "little"))
    memory.write(0x2000, (0x3087).to_bytes(8, "little"))
    stage = ept_stage(0x101E, CAPS)
    table, page = examine(memory, stage, 0)
    assert (table.shift, table.rule, table.address) == (39, EptRule.TABLE, 0x1000)
    assert (page.shift, page.rule, page.reserved) == (30, EptRule.RESERVED, 0x3000)


def test_bit_12_of_a_large_page_is_a_misconfiguration() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 20)
    memory.write(0x1000, (0x2007).to_bytes(8, "little"))
    memory.write(0x2000, (0x3007).to_bytes(8, "little"))
    for extra, good in ((0, True), (1 << 12, False), (1 << 20, False)):
        memory.write(0x3000, (0x4000_00B7 | extra).to_bytes(8, "little"))
        stage = ept_stage(0x101E, CAPS)
        try:
            walk_ept(memory, stage, 0)
        except EptFaultError as fault:
            assert (good, fault.violation) == (False, False)
        else:
            assert good


GPA = 0x5000


def touch(guest: Guest, access: str, address: int) -> object:
    """An access by name."""
    if access == "read":
        return guest.load(address, 4)
    if access == "write":
        return guest.store(address, b"1234")
    return guest.fetch(address)


@pytest.mark.parametrize(
    ("access", "rights", "qualification"),
    [
        ("read", 0, 0x181),
        ("write", 0, 0x182),
        ("fetch", 0, 0x184),
        ("write", 1, 0x18A),
        ("write", 5, 0x1AA),
        ("fetch", 1, 0x18C),
        ("fetch", 3, 0x19C),
        ("read", 4, 0x1A1),
        ("write", 4, 0x1A2),
    ],
)
def test_qualifications_of_accesses_to_the_page(
    access: str, rights: int, qualification: int
) -> None:
    machine = Machine()
    machine.put(machine.leaf(GPA), RAM + GPA | WB | rights)
    guest = machine.run()
    assert touch(guest, access, GPA + 0x10) == VmExit(VIOLATION, qualification)
    assert machine.field("guest_physical_address") == GPA + 0x10
    assert machine.field("guest_linear_address") == GPA + 0x10
    assert machine.field("exit_qualification") == qualification


@pytest.mark.parametrize(
    ("access", "rights", "qualification"),
    [
        ("read", 0x400, 0x1C1),
        ("write", 0x400, 0x1C2),
        ("read", 0x404, 0x1E1),
        ("write", 0x401, 0x1CA),
        ("write", 0x405, 0x1EA),
        ("fetch", 0x003, 0x19C),
    ],
)
def test_mode_based_execute_shows_on_data_accesses_too(
    access: str, rights: int, qualification: int
) -> None:
    machine = Machine("kut")
    for shift in (39, 30, 21):  # the upper levels let users execute
        table = machine.eptp & ~0xFFF
        for above in (39, 30, 21):
            where = table + (GPA >> above & 511) * 8
            if above == shift:
                machine.put(where, machine.word(where) | 0x400)
                break
            table = machine.word(where) & ~0xFFF & (1 << 52) - 1
    machine.put(machine.leaf(GPA), RAM + GPA | WB | rights)
    guest = machine.run("secondary.mode_based_execute")
    assert touch(guest, access, GPA) == VmExit(VIOLATION, qualification)


@pytest.mark.parametrize(
    ("rights", "flags", "guest_accessed", "qualification"),
    [
        (0, False, True, 0x081),
        (0, True, True, 0x083),
        (1, True, True, 0x08B),
        (1, False, False, 0x08B),
        (5, True, True, 0x0AB),
        (5, False, False, 0x0AB),
    ],
)
def test_qualifications_of_accesses_to_guest_paging_structures(
    rights: int, flags: bool, guest_accessed: bool, qualification: int
) -> None:
    machine = Machine()
    tables = machine.guest_tables()
    tables.map(0x7000, GPA, 0x1000)
    cr3 = tables.root << 12
    if not guest_accessed:
        root = RAM + cr3
        machine.put(root, machine.word(root) & ~0x20)
    machine.put(machine.leaf(cr3), RAM + cr3 | WB | rights)
    machine.eptp |= 0x40 if flags else 0
    guest = machine.run(paged=True, guest_cr3=cr3)
    assert guest.load(0x7123, 4) == VmExit(VIOLATION, qualification)
    assert machine.field("guest_physical_address") == cr3
    assert machine.field("guest_linear_address") == 0x7123


@pytest.mark.parametrize("entry", [2, 6, 7 | 2 << 3, 7 | 7 << 3, 7 | 1 << 50])
def test_misconfigurations_exit_with_the_address_only(entry: int) -> None:
    machine = Machine()
    machine.put(machine.leaf(GPA), RAM + GPA | entry)
    guest = machine.run()
    assert guest.load(GPA + 8) == VmExit(MISCONFIGURATION)
    assert machine.field("guest_physical_address") == GPA + 8


def test_execute_only_pages_follow_the_capability() -> None:
    machine = Machine()
    machine.put(machine.leaf(GPA), RAM + GPA | WB | 4)
    assert machine.run().fetch(GPA) == b"\0"
    caps = machine.capabilities
    stage = ept_stage(machine.eptp, caps)._replace(execute_only=False)
    with pytest.raises(EptFaultError) as fault:
        walk_ept(machine.memory, stage, GPA)
    assert fault.value.rule is EptRule.EXECUTE_ONLY


def test_advanced_information_where_it_is_supported() -> None:
    machine = Machine("everything")
    tables = machine.guest_tables()
    tables.map(0x7000, GPA, 0x1000, rights="r-")
    machine.put(machine.leaf(GPA), 0)
    guest = machine.run(paged=True, guest_cr3=tables.root << 12)
    assert guest.load(0x7000) == VmExit(VIOLATION, 0x381)  # a user page, not writable


def test_accessed_and_dirty_flags_are_set_as_used() -> None:
    machine = Machine()
    machine.eptp |= 0x40
    leaf = machine.leaf(GPA)
    guest = machine.run()
    guest.load(GPA)
    assert machine.word(leaf) & 0x300 == 0x100
    assert machine.word(machine.eptp & ~0xFFF) & 0x300 == 0x100
    guest.store(GPA, b"x")
    assert machine.word(leaf) & 0x300 == 0x300
    assert machine.word(machine.eptp & ~0xFFF) & 0x300 == 0x100


def test_no_flags_without_the_bit_of_eptp() -> None:
    machine = Machine()
    guest = machine.run()
    guest.store(GPA, b"x")
    assert not machine.word(machine.leaf(GPA)) & 0x300


def test_guest_tables_are_dirtied_by_walks() -> None:
    machine = Machine()
    machine.eptp |= 0x40
    tables = machine.guest_tables()
    tables.map(0x7000, GPA, 0x1000)
    cr3 = tables.root << 12
    guest = machine.run(paged=True, guest_cr3=cr3)
    guest.load(0x7000)
    assert machine.word(machine.leaf(cr3)) & 0x300 == 0x300
    assert machine.word(machine.leaf(GPA)) & 0x300 == 0x100


def test_flags_of_tables_in_rom_stay_as_they_are() -> None:
    memory = PhysicalMemory()
    memory.add_region(0x1000, 0x3000, read_only=True)
    memory.add_region(0, 0x1000)
    for where, entry in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x80 | 7 | WB)):
        memory.load(where, entry.to_bytes(8, "little"))
    mark_used(memory, ept_stage(0x105E, CAPS), 0, write=True)
    assert memory.read(0x3000, 8) == (0x80 | 7 | WB).to_bytes(8, "little")


class TestPageModificationLog:
    def machine(self, index: int) -> Machine:
        machine = Machine()
        machine.eptp |= 0x40
        machine.run("secondary.pml", pml_address=0xB000, pml_index=index)
        return machine

    def test_pages_that_become_dirty_are_logged_downwards(self) -> None:
        machine = self.machine(511)
        machine.guest.store(0x5123, b"x")
        machine.guest.store(0x5456, b"x")
        machine.guest.store(0x6000, b"x")
        assert machine.word(0xB000 + 8 * 511) == 0x5000
        assert machine.word(0xB000 + 8 * 510) == 0x6000
        machine.guest.cpuid()
        assert machine.field("pml_index") == 509

    def test_the_index_wraps_and_then_the_log_is_full(self) -> None:
        machine = self.machine(0)
        machine.guest.store(0x5000, b"x")
        assert machine.word(0xB000) == 0x5000
        assert machine.guest.state["pml_index"] == 0xFFFF
        before = machine.word(machine.leaf(0x6000))
        assert machine.guest.store(0x6000, b"x") == VmExit(ExitReason.PML_FULL)
        assert machine.word(machine.leaf(0x6000)) == before
        assert machine.memory.read(RAM + 0x6000, 1) == b"\0"
        assert machine.field("pml_index") == 0xFFFF

    def test_a_full_log_stops_accessed_flags_too(self) -> None:
        machine = self.machine(512)
        assert machine.guest.load(0x6000) == VmExit(ExitReason.PML_FULL)


class TestVirtualizationException:
    def machine(self, entry: int) -> Machine:
        machine = Machine("kut")
        machine.put(machine.leaf(GPA), entry)
        machine.run("secondary.ept_violation_ve", ve_information_address=VE_PAGE, eptp_index=3)
        return machine

    def test_the_information_page_tells(self) -> None:
        machine = self.machine(0)
        assert machine.guest.load(GPA + 1, 1) == CpuException(20)
        page = machine.memory.read(VE_PAGE, 34)
        words = [
            int.from_bytes(page[start:end], "little")
            for start, end in ((0, 4), (4, 8), (8, 16), (16, 24), (24, 32), (32, 34))
        ]
        assert words == [48, 0xFFFF_FFFF, 0x181, GPA + 1, GPA + 1, 3]
        assert machine.guest.load(GPA, 1) == VmExit(VIOLATION, 0x181)  # still busy

    def test_an_entry_can_suppress_it(self) -> None:
        machine = self.machine(1 << 63)
        assert machine.guest.load(GPA) == VmExit(VIOLATION, 0x181)

    def test_the_leaf_decides_where_rights_are_missing(self) -> None:
        machine = self.machine(RAM + GPA | WB | 1)
        assert machine.guest.store(GPA, b"x") == CpuException(20)
        machine = self.machine(RAM + GPA | WB | 1 | 1 << 63)
        assert machine.guest.store(GPA, b"x") == VmExit(VIOLATION, 0x18A)


def test_where_there_is_no_memory_reads_give_ones_and_stores_are_lost() -> None:
    machine = Machine()
    machine.put(machine.leaf(GPA), 0x4000_0000 | WB | 7)
    guest = machine.run()
    assert guest.load(GPA, 4) == b"\xff" * 4
    assert guest.store(GPA, b"x") == NOTHING
    assert guest.load(GPA, 4) == b"\xff" * 4
    assert guest.fetch(GPA, 2) == b"\xff" * 2


def test_accesses_across_pages_are_translated_page_by_page() -> None:
    machine = Machine()
    machine.put(machine.leaf(0x6000), RAM + 0x9000 | WB | 7)
    guest = machine.run()
    guest.store(0x5FFE, b"abcd")
    assert machine.memory.read(RAM + 0x5FFE, 2) == b"ab"
    assert machine.memory.read(RAM + 0x9000, 2) == b"cd"
    assert guest.load(0x5FFE, 4) == b"abcd"
    machine.put(machine.leaf(0x8000), 0)
    assert guest.store(0x7FFF, b"xy") == VmExit(VIOLATION, 0x182)
    assert machine.memory.read(RAM + 0x7FFF, 1) == b"\0"  # nothing of it is stored


def test_ept_geometry_has_4_or_5_levels() -> None:
    assert bits.ept_geometry(5, Implementation()).width == 57
    with pytest.raises(ValueError, match="not 3"):
        bits.ept_geometry(3, Implementation())
