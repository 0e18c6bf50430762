"""Guest accesses: cached mappings, what drops them, and the audit that sees what was left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vtd.guest.machine import RAM, VMCS, WB, Machine
from vtd.auditing.guest_audit import GuestAudit, MappingKind, Origin
from vtd.guest.x86.exits import ExitReason, VmExit
from vtd.guest.x86.mappings import Mappings
from vtd.guest.x86.outcomes import NOTHING, CpuException
from vtd.guest.x86.vmcs import Vmcs

GPA = 0x5000
LINEAR = 0x7000
WRITE_REFUSED = VmExit(ExitReason.EPT_VIOLATION, 0x1AA)
GONE = VmExit(ExitReason.EPT_VIOLATION, 0x181)


def resume(machine: Machine) -> None:
    """Enter again after an exit."""
    machine.cpu.vmresume()
    assert machine.cpu.guest is not None


def paged(*names: str, **values: int) -> tuple[Machine, int]:
    """A guest with paging that maps LINEAR to GPA; the host address of the guest's leaf."""
    machine = Machine()
    tables = machine.guest_tables()
    tables.map(LINEAR, GPA, 0x1000)
    machine.run(
        "secondary.vpid", *names, paged=True, guest_cr3=tables.root << 12, **{"vpid": 5, **values}
    )
    table = tables.root << 12
    for shift in (39, 30, 21):
        table = machine.word(RAM + table + (LINEAR >> shift & 511) * 8) & ~0xFFF
    return machine, RAM + table + (LINEAR >> 12 & 511) * 8


class TestInvept:
    def test_a_right_taken_away_lasts_until_invept(self) -> None:
        machine = Machine()
        guest = machine.run("secondary.vpid", vpid=5)
        assert guest.store(GPA, b"1") == NOTHING
        machine.put(machine.leaf(GPA), RAM + GPA | WB | 5)
        assert guest.store(GPA, b"2") == NOTHING
        guest.cpuid()
        machine.cpu.invvpid(1, 5)  # the wrong one
        resume(machine)
        assert machine.guest.store(GPA, b"3") == NOTHING
        machine.guest.cpuid()
        machine.cpu.invept(1, machine.eptp)
        resume(machine)
        assert machine.guest.store(GPA, b"4") == WRITE_REFUSED
        assert machine.memory.read(RAM + GPA, 1) == b"3"

    def test_a_right_that_is_added_needs_none(self) -> None:
        machine = Machine()
        machine.put(machine.leaf(GPA), RAM + GPA | WB | 5)
        guest = machine.run("secondary.vpid", vpid=5)
        assert guest.load(GPA, 1) == b"\0"
        machine.put(machine.leaf(GPA), RAM + GPA | WB | 7)
        assert guest.store(GPA, b"1") == NOTHING

    def test_another_eptp_is_spared(self) -> None:
        machine = Machine()
        guest = machine.run("secondary.vpid", vpid=5)
        guest.load(GPA, 1)
        machine.put(machine.leaf(GPA), 0)
        guest.cpuid()
        machine.cpu.invept(1, 0x7_001E)
        resume(machine)
        assert machine.guest.load(GPA, 1) == b"\0"
        machine.guest.cpuid()
        machine.cpu.invept(2, 0)
        resume(machine)
        assert machine.guest.load(GPA, 1) == GONE

    def test_a_violation_drops_what_is_cached_for_its_addresses(self) -> None:
        machine = Machine()
        machine.put(machine.leaf(GPA), RAM + GPA | WB | 5)
        guest = machine.run("secondary.vpid", vpid=5)
        guest.load(GPA, 1)
        assert guest.store(GPA, b"1") == WRITE_REFUSED
        machine.put(machine.leaf(GPA), RAM + 0x9000 | WB | 7)
        machine.memory.write(RAM + 0x9000, b"9")
        resume(machine)
        assert machine.guest.load(GPA, 1) == b"9"


class TestInvvpid:
    def test_the_guest_s_own_change_lasts_until_invlpg(self) -> None:
        machine, leaf = paged()
        assert machine.guest.load(LINEAR, 1) == b"\0"
        machine.put(leaf, 0)
        assert machine.guest.load(LINEAR, 1) == b"\0"
        machine.guest.invlpg(LINEAR)
        assert machine.guest.load(LINEAR, 1) == CpuException(14, 0, LINEAR)

    @pytest.mark.parametrize(
        ("kind", "descriptor", "address", "drops"),
        [
            (0, 5, LINEAR, True),
            (0, 5, LINEAR + 0x1000, False),
            (0, 6, LINEAR, False),
            (1, 5, 0, True),
            (1, 6, 0, False),
            (2, 0, 0, True),
            (3, 5, 0, True),
        ],
    )
    def test_what_each_type_drops(
        self, kind: int, descriptor: int, address: int, drops: bool
    ) -> None:
        machine, leaf = paged()
        machine.guest.load(LINEAR, 1)
        machine.put(leaf, 0)
        machine.guest.cpuid()
        machine.cpu.invvpid(kind, descriptor, address)
        resume(machine)
        outcome = machine.guest.load(LINEAR, 1)
        assert (outcome == CpuException(14, 0, LINEAR)) is drops

    def test_globals_are_retained_by_type_3(self) -> None:
        machine, leaf = paged(guest_cr4=0x20A0)
        machine.put(leaf, machine.word(leaf) | 0x100)
        machine.guest.load(LINEAR, 1)
        machine.put(leaf, 0)
        machine.guest.cpuid()
        machine.cpu.invvpid(3, 5)
        resume(machine)
        assert machine.guest.load(LINEAR, 1) == b"\0"
        machine.guest.write_cr3(machine.guest.state["guest_cr3"])
        assert machine.guest.load(LINEAR, 1) == b"\0"
        machine.guest.cpuid()
        machine.cpu.invvpid(1, 5)
        resume(machine)
        assert machine.guest.load(LINEAR, 1) == CpuException(14, 0, LINEAR)

    def test_entries_and_exits_without_vpid_drop_linear_and_combined(self) -> None:
        machine = Machine()
        tables = machine.guest_tables()
        tables.map(LINEAR, GPA, 0x1000)
        machine.run(paged=True, guest_cr3=tables.root << 12)
        machine.guest.load(LINEAR, 1)
        machine.put(machine.leaf(GPA), RAM + 0x9000 | WB | 7)
        machine.guest.cpuid()
        assert not any(machine.cpu.mappings.linear.values())
        assert machine.cpu.mappings.physical[machine.eptp >> 12]

    def test_mov_to_cr3_drops_all_but_globals_unless_bit_63_says_not_to(self) -> None:
        machine, leaf = paged(guest_cr4=0x2_2020)
        machine.guest.load(LINEAR, 1)
        machine.put(leaf, 0)
        cr3 = machine.guest.state["guest_cr3"]
        machine.guest.write_cr3(cr3 | 1 << 63)
        assert machine.guest.load(LINEAR, 1) == b"\0"
        machine.guest.write_cr3(cr3 | 3)  # another PCID has nothing cached
        assert machine.guest.load(LINEAR, 1) == CpuException(14, 0, LINEAR)
        machine.guest.write_cr3(cr3)
        assert machine.guest.load(LINEAR, 1) == CpuException(14, 0, LINEAR)


class TestAudit:
    def audited(self, *, with_paging: bool = False) -> tuple[Machine, GuestAudit, int]:
        machine = Machine()
        audit = GuestAudit(machine.cpu)
        tables = machine.guest_tables()
        tables.map(LINEAR, GPA, 0x1000)
        machine.run("secondary.vpid", vpid=5, paged=with_paging, guest_cr3=tables.root << 12)
        table = tables.root << 12
        for shift in (39, 30, 21):
            table = machine.word(RAM + table + (LINEAR >> shift & 511) * 8) & ~0xFFF
        return machine, audit, RAM + table + (LINEAR >> 12 & 511) * 8

    def test_a_forgotten_invept_is_owed_and_found_when_used(self) -> None:
        machine, audit, _ = self.audited()
        machine.guest.load(GPA, 1)
        machine.guest.load(GPA, 1)
        assert audit.uses == 1
        assert not audit.findings and not audit.owed()
        machine.put(machine.leaf(GPA), 0)
        audit.wrote(machine.leaf(GPA), 8, "unmap")
        owed = audit.owed()
        assert {each.kind for each in owed} == {MappingKind.PHYSICAL, MappingKind.COMBINED}
        machine.guest.load(GPA, 1)
        (found,) = audit.findings
        assert found.changed.origin is Origin.EPT
        assert (found.page, found.now, found.writer) == (GPA, 0, "unmap")
        assert found.missing == f"INVEPT single-context of EPTP {machine.eptp & ~0xFFF:#x}"
        assert "missing INVEPT" in str(found)

    def test_the_right_invalidation_settles_it(self) -> None:
        machine, audit, _ = self.audited()
        machine.guest.load(GPA, 1)
        machine.put(machine.leaf(GPA), 0)
        machine.guest.cpuid()
        machine.cpu.invvpid(2, 0)
        assert {each.kind for each in audit.owed()} == {MappingKind.PHYSICAL}
        machine.cpu.invept(1, machine.eptp)
        assert not audit.owed()
        resume(machine)
        assert machine.guest.load(GPA, 1) == GONE
        assert not audit.findings

    def test_a_forgotten_invlpg(self) -> None:
        machine, audit, leaf = self.audited(with_paging=True)
        machine.guest.load(LINEAR, 1)
        machine.put(leaf, 0)
        machine.guest.load(LINEAR, 1)
        (found,) = audit.findings
        assert found.changed.origin is Origin.PAGING
        assert "INVVPID individual-address of VPID 5" in found.missing

    def test_a_vmm_that_changes_cr3_owes_an_invvpid(self) -> None:
        machine, audit, _ = self.audited(with_paging=True)
        machine.guest.load(LINEAR, 1)
        machine.guest.cpuid()
        Vmcs(machine.memory, VMCS).store({"guest_cr3": 0x18_0000})
        resume(machine)
        machine.guest.load(LINEAR, 1)
        assert [found.missing for found in audit.findings] == ["INVVPID single-context of VPID 5"]

    def test_the_processor_s_own_flags_and_new_rights_are_no_debt(self) -> None:
        machine, audit, leaf = self.audited(with_paging=True)
        machine.put(machine.leaf(GPA), RAM + GPA | WB | 5)
        machine.guest.load(LINEAR, 1)
        machine.put(machine.leaf(GPA), RAM + GPA | WB | 7)
        machine.guest.store(LINEAR, b"1")  # sets D in the guest's entry
        assert machine.word(leaf) & 0x40
        machine.guest.store(LINEAR, b"2")
        assert not audit.findings and not audit.owed()

    def test_a_dirty_flag_that_is_cleared_needs_an_invalidation(self) -> None:
        machine = Machine()
        machine.eptp |= 0x40
        audit = GuestAudit(machine.cpu)
        machine.run("secondary.vpid", vpid=5)
        machine.guest.store(GPA, b"1")
        leaf = machine.leaf(GPA)
        machine.put(leaf, machine.word(leaf) & ~0x200)
        machine.guest.store(GPA, b"2")
        assert not machine.word(leaf) & 0x200  # the log-dirty bug
        assert audit.findings

    def test_memory_that_is_gone_counts_as_changed(self) -> None:
        machine = Machine()
        audit = GuestAudit(machine.cpu)
        machine.run("secondary.vpid", vpid=5)
        machine.guest.load(GPA, 1)
        machine.memory.remove_region(0)
        assert all(each.now is None for each in audit.owed())
        assert audit.owed()

    def test_linear_mappings_without_ept(self) -> None:
        machine = Machine()
        audit = GuestAudit(machine.cpu)
        tables = machine.guest_tables()
        tables.map(LINEAR, GPA, 0x1000)
        root = (tables.root << 12) + RAM
        for frame in range(4):  # rebase the tables: without EPT they are host addresses
            table = root + frame * 0x1000
            for index in range(512):
                entry = machine.word(table + index * 8)
                if entry:
                    machine.put(table + index * 8, entry + RAM)
        machine.run(
            "secondary.vpid",
            vpid=5,
            paged=True,
            guest_cr3=root,
            off=("secondary.ept", "secondary.unrestricted_guest"),
        )
        assert machine.guest.load(LINEAR, 1) == b"\0"
        found = machine.cpu.mappings.linear
        assert any(space.ept is None and pages for space, pages in found.items())
        leaf = root + 3 * 0x1000 + (LINEAR >> 12) * 8
        machine.put(leaf, 0)
        assert machine.guest.load(LINEAR, 1) == b"\0"
        assert [each.kind for each in audit.findings] == [MappingKind.LINEAR]


PAGES = range(4)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("load"), st.sampled_from(PAGES), st.just(0)),
        st.tuples(st.just("store"), st.sampled_from(PAGES), st.integers(1, 255)),
        st.tuples(st.just("entry"), st.sampled_from(PAGES), st.sampled_from([0, 1, 5, 7, 2])),
        st.tuples(st.just("move"), st.sampled_from(PAGES), st.sampled_from([8, 9, 10])),
        st.tuples(st.just("clean"), st.sampled_from(PAGES), st.just(0)),
        st.tuples(st.just("exit"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


def play(
    script: list[tuple[str, int, int]],
    mappings: Mappings | None,
    *,
    flags: bool,
    drop: int = -1,
    audited: bool = False,
) -> tuple[list[object], bytes, GuestAudit | None]:
    """Carry a script out: outcomes, guest memory and EPT leaves, and the audit if asked for.

    Each change of an entry that takes something away is followed by the INVEPT that it owes, but
    for change number ``drop``.
    """
    machine = Machine(mappings=mappings)
    machine.eptp |= 0x40 if flags else 0
    audit = GuestAudit(machine.cpu) if audited else None
    machine.run("secondary.vpid", vpid=5)
    outcomes: list[object] = []
    changes = 0
    for what, page, value in script:
        if machine.cpu.guest is None:
            resume(machine)
        gpa = (page + 1) << 12
        leaf = machine.leaf(gpa)
        match what:
            case "load":
                outcomes.append(machine.guest.load(gpa, 1))
            case "store":
                outcomes.append(machine.guest.store(gpa, bytes([value])))
            case "exit":
                outcomes.append(machine.guest.cpuid())
            case _:
                entry = machine.word(leaf)
                if what == "entry":
                    entry = entry & ~7 | value
                elif what == "move":
                    entry = RAM + (value << 12) | entry & 0xFFF
                else:
                    entry &= ~0x200
                machine.put(leaf, entry)
                if changes != drop:
                    machine.guest.cpuid()
                    machine.cpu.invept(1, machine.eptp)
                changes += 1
    leaves = b"".join(machine.memory.read(machine.leaf(page + 1 << 12), 8) for page in PAGES)
    return outcomes, leaves + machine.memory.read(RAM, 0xC000), audit


@settings(max_examples=40)
@given(steps, st.booleans())
def test_cached_is_uncached_after_the_invalidations_that_are_owed(
    script: list[tuple[str, int, int]], flags: bool
) -> None:
    cached = play(script, Mappings(), flags=flags)
    assert cached == play(script, Mappings(keep=False), flags=flags)
    outcomes, memory, audit = play(script, None, flags=flags, audited=True)
    assert (outcomes, memory) == cached[:2]
    assert audit is not None and audit.findings == []


@settings(max_examples=40)
@given(steps, st.booleans(), st.integers(0, 5))
def test_a_dropped_invalidation_that_shows_is_reported(
    script: list[tuple[str, int, int]], flags: bool, drop: int
) -> None:
    outcomes, memory, audit = play(script, None, flags=flags, drop=drop, audited=True)
    assert audit is not None
    uncached = play(script, Mappings(keep=False), flags=flags)
    if (outcomes, memory) != uncached[:2]:
        # An exit that INVEPT needs is left out with it; what the guest sees may still be the same.
        assert audit.findings


def test_a_dropped_invalidation_does_show() -> None:
    script = [("store", 0, 1), ("entry", 0, 5), ("store", 0, 2)]
    outcomes, _, audit = play(script, None, flags=False, drop=0, audited=True)
    assert outcomes == [NOTHING, NOTHING]
    assert audit is not None and len(audit.findings) == 1
    assert play(script, None, flags=False)[0] == [NOTHING, WRITE_REFUSED]
