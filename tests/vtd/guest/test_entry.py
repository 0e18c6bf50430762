"""VM entry checks: a good state enters, and each rule broken alone is named, with its group."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import PhysicalMemory
from tests.vtd.guest.machine import SHADOW, UNPAGED, VIRTUAL_APIC, VMCS, Option, state_of
from vtd.fuzz.guest_strategies import vmcs_states
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import REVISION, VMX_PROFILES
from vtd.guest.x86.entry import ENTERS, RULES, EntryChecks, check_entry
from vtd.guest.x86.entry_rules import Entry, Group
from vtd.guest.x86.vmcs import VmcsState, unpack

GUEST_REASON, MSR_REASON = 0x8000_0021, 0x8000_0022
WIDE = 1 << 52
BAD = 0xAAAA_AAAA_AAAA_AAAA


def memory() -> PhysicalMemory:
    made = PhysicalMemory()
    made.add_region(0, 1 << 20)
    made.write(VIRTUAL_APIC + 0x80, b"\x50")
    made.write(SHADOW, (REVISION | 1 << 31).to_bytes(4, "little"))
    return made


class Break(NamedTuple):
    """One rule broken: which, the controls that matter, the fields that break it."""

    rule: str
    controls: tuple[str, ...] = ()
    fields: dict[str, int] = {}  # noqa: RUF012 - never changed
    off: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    """Rules that can't hold either."""


def b(rule: str, *controls: str, off: Option = (), also: Option = (), **fields: int) -> Break:
    return Break(rule, controls, fields, off, also)


APICV = ("primary.tpr_shadow", "secondary.virtual_interrupt_delivery")
POSTED = (*APICV, "pin.posted_interrupts", "exit.acknowledge_interrupt")
EPT = ("secondary.ept",)
IPI = ("primary.tpr_shadow", "tertiary.ipi_virtualization")
NARROW = ("exit.host_address_space_size", "entry.ia32e_mode_guest", "exit.load_efer",
          "entry.load_efer")  # fmt: skip
EXCEPTION = 0x8000_0300

CONTROLS = [
    b("pin.reserved", pin_controls=0),
    b("primary.reserved", primary_controls=0x0400_6172 | 1),
    b("secondary.reserved", "primary.secondary_controls", secondary_controls=1 << 29),
    b("tertiary.reserved", "primary.tertiary_controls", tertiary_controls=1 << 40),
    b("exit.reserved", exit_controls=0x0003_6FFB & ~1),
    b("entry.reserved", entry_controls=0x11FB & ~1 | 0x8200),
    b("cr3_target_count", cr3_target_count=5),
    b("io_bitmap_a", "primary.io_bitmaps", io_bitmap_a=1),
    b("io_bitmap_b", "primary.io_bitmaps", io_bitmap_b=WIDE),
    b("msr_bitmap", "primary.msr_bitmaps", msr_bitmap=0x800),
    b("virtual_apic_address", "primary.tpr_shadow", virtual_apic_address=8),
    b("tpr_threshold.reserved", "primary.tpr_shadow", "secondary.virtualize_apic_accesses",
      tpr_threshold=0x10),
    b("tpr_threshold.vtpr", "primary.tpr_shadow", virtual_apic_address=VIRTUAL_APIC,
      tpr_threshold=6),
    b("virtualize_x2apic_mode.needs_tpr_shadow", "secondary.virtualize_x2apic_mode"),
    b("apic_register_virtualization.needs_tpr_shadow", "secondary.apic_register_virtualization"),
    b("virtual_interrupt_delivery.needs_tpr_shadow", "secondary.virtual_interrupt_delivery"),
    b("nmi_exiting", off=("pin.nmi_exiting",)),
    b("virtual_nmis", "primary.nmi_window_exiting", off=("pin.virtual_nmis",)),
    b("apic_access_address", "secondary.virtualize_apic_accesses", apic_access_address=0x123),
    b("x2apic_or_accesses", "primary.tpr_shadow", "secondary.virtualize_x2apic_mode",
      "secondary.virtualize_apic_accesses"),
    b("virtual_interrupt_delivery.external", *APICV, off=("pin.external_interrupt_exiting",)),
    b("posted_interrupts.delivery", "pin.posted_interrupts", "exit.acknowledge_interrupt"),
    b("posted_interrupts.acknowledge", *APICV, "pin.posted_interrupts"),
    b("posted_interrupt_vector", *POSTED, posted_interrupt_vector=0x1F2),
    b("posted_interrupt_descriptor_address", *POSTED, posted_interrupt_descriptor_address=0x20),
    b("vpid", "secondary.vpid", vpid=0),
    b("eptp", *EPT, eptp=0x1019),
    b("pml.needs_ept", "secondary.pml"),
    b("unrestricted_guest.needs_ept", "secondary.unrestricted_guest"),
    b("mode_based_execute.needs_ept", "secondary.mode_based_execute"),
    b("sub_page_permissions.needs_ept", "secondary.sub_page_permissions"),
    b("pml_address", *EPT, "secondary.pml", pml_address=0x10),
    b("vmread_bitmap", "secondary.vmcs_shadowing", vmread_bitmap=4),
    b("vmwrite_bitmap", "secondary.vmcs_shadowing", vmwrite_bitmap=WIDE),
    b("ve_information_address", "secondary.ept_violation_ve", ve_information_address=2),
    b("vm_functions", "secondary.vm_functions", vm_function_controls=2),
    b("eptp_switching", "secondary.vm_functions", vm_function_controls=1),
    b("tsc_multiplier", "secondary.tsc_scaling", tsc_multiplier=0),
    b("ipi_virtualization.needs_tpr_shadow", "tertiary.ipi_virtualization"),
    b("pid_pointer_table", *IPI, pid_pointer_table=4),
    b("pid_pointer_table", *IPI, pid_pointer_table=WIDE - 16, last_pid_pointer_index=2),
    b("save_preemption_timer", "exit.save_preemption_timer"),
    b("exit_msr_store_address", exit_msr_store_count=1, exit_msr_store_address=8),
    b("exit_msr_load_address", exit_msr_load_count=2, exit_msr_load_address=WIDE - 16),
    b("entry_msr_load_address", entry_msr_load_count=1, entry_msr_load_address=WIDE),
    b("event.type", entry_interruption_info=0x8000_0100),
    b("event.vector", entry_interruption_info=0x8000_0203),
    b("event.vector", entry_interruption_info=0x8000_0320),
    b("event.vector", entry_interruption_info=0x8000_0701),
    b("event.error_code", entry_interruption_info=EXCEPTION | 13),
    b("event.error_code", entry_interruption_info=EXCEPTION | 0x803),
    b("event.error_code", entry_interruption_info=EXCEPTION | 21),
    b("event.reserved", entry_interruption_info=EXCEPTION | 1 << 20),
    b("event.error_code_value", entry_interruption_info=EXCEPTION | 0x80D,
      entry_exception_error_code=0x1_0000),
    b("event.length", entry_interruption_info=0x8000_0480, entry_instruction_length=16),
    b("smm", "entry.entry_to_smm"),
]  # fmt: skip
HOST = [
    b("cr0", host_cr0=0x8001_0011),
    b("cr0", host_cr0=0x1_8001_0031),
    b("cr3", host_cr3=1 << 63),
    b("cr4", host_cr4=0x20),
    b("cr4", host_cr4=0x8000_2020),
    b("cr4.cet", host_cr4=0x80_2020, host_cr0=0x8000_0031),
    b("host_sysenter_esp", host_sysenter_esp=BAD),
    b("host_sysenter_eip", host_sysenter_eip=BAD),
    b("perf_global_ctrl", "exit.load_perf_global_ctrl", host_perf_global_ctrl=1 << 40),
    b("pat", host_pat=2),
    b("efer.reserved", host_efer=0xD02),
    b("efer.lma", host_efer=0x100),
    b("selectors", host_ds_selector=4),
    b("selectors.null", host_tr_selector=0),
    *(b(f"host_{name}_base", **{f"host_{name}_base": BAD})
      for name in ("fs", "gs", "gdtr", "idtr", "tr")),
    b("address_space_size", *EPT, off=NARROW),
    b("narrow", *EPT, off=NARROW, also=("host.address_space_size",), host_rip=1 << 32),
    b("selectors.null", *EPT, off=NARROW, also=("host.address_space_size",), host_ss_selector=0),
    b("wide", host_cr4=0x2000),
    b("wide", host_rip=BAD),
    b("cet", "exit.load_cet_state", host_ssp=2),
]  # fmt: skip
REAL = (*EPT, "secondary.unrestricted_guest")
OUT_OF_IA32E = ("entry.ia32e_mode_guest",)
FLAT32 = {"guest_cs_access_rights": 0xC09B, "guest_efer": 0}
V86 = {
    "guest_rflags": 0x2_0202,
    **{f"guest_{name}_selector": 0x100 for name in ("cs", "ss", "ds", "es", "fs", "gs")},
    **{f"guest_{name}_base": 0x1000 for name in ("cs", "ss", "ds", "es", "fs", "gs")},
    **{f"guest_{name}_limit": 0xFFFF for name in ("cs", "ss", "ds", "es", "fs", "gs")},
    **{f"guest_{name}_access_rights": 0xF3 for name in ("cs", "ss", "ds", "es", "fs", "gs")},
    "guest_efer": 0,
}
GUEST = [
    b("rflags.reserved", guest_rflags=0),
    b("rflags.reserved", guest_rflags=0xA),
    b("rflags.vm", **{**V86, "guest_efer": 0xD00}),
    b("cr0", guest_cr0=0x8001_0011),
    b("cr0.pg", *REAL, off=OUT_OF_IA32E, guest_cr0=0x8001_0030, **FLAT32),
    b("cr3", guest_cr3=1 << 63),
    b("cr4", guest_cr4=0x20),
    b("ia32e", guest_cr4=0x2000),
    b("ia32e", *EPT, off=OUT_OF_IA32E, guest_cr4=0x2_2020, **FLAT32),
    b("debugctl", "entry.load_debug_controls", guest_debugctl=4),
    b("dr7", "entry.load_debug_controls", guest_dr7=1 << 32),
    b("cr4.cet", guest_cr4=0x80_2020, guest_cr0=0x8000_0031),
    b("cet", "entry.load_cet_state", guest_ssp=1),
    b("guest_sysenter_esp", guest_sysenter_esp=BAD),
    b("guest_sysenter_eip", guest_sysenter_eip=BAD),
    b("perf_global_ctrl", "entry.load_perf_global_ctrl", guest_perf_global_ctrl=1 << 50),
    b("pat", "entry.load_pat", guest_pat=0x0300),
    b("efer.reserved", guest_efer=0xD02),
    b("efer.lma", guest_efer=0x900),
    b("efer.lma", guest_efer=0xC00),
    b("bndcfgs", "entry.load_bndcfgs", guest_bndcfgs=0x10),
    *(b(f"{name}.virtual_8086", *EPT, off=OUT_OF_IA32E,
        **{**V86, f"guest_{name}_limit": 0xFFFE})
      for name in ("cs", "ss", "ds", "es", "fs", "gs")),
    b("tr.selector", guest_tr_selector=0x84),
    b("ldtr.selector", guest_ldtr_selector=4),
    b("ss.selector", also=("guest.ss.dpl",), guest_ss_selector=0x13),
    *(b(f"guest_{name}_base", **{f"guest_{name}_base": BAD}) for name in ("tr", "fs", "gs")),
    b("ldtr.base", guest_ldtr_base=BAD),
    *(b(f"{name}.base", **{f"guest_{name}_base": 1 << 32}) for name in ("cs", "ss", "ds", "es")),
    b("cs.usable", guest_cs_access_rights=0x1_A09B),
    b("cs.type", guest_cs_access_rights=0xA099 & ~1),
    b("cs.type", guest_cs_access_rights=0xA093),
    b("ss.type", guest_ss_access_rights=0xC09B),
    *(b(f"{name}.type", **{f"guest_{name}_access_rights": 0xC092})
      for name in ("ds", "es", "fs", "gs")),
    b("ds.type", guest_ds_access_rights=0xC099),
    *(b(f"{name}.rights", **{f"guest_{name}_access_rights": 0xC013})
      for name in ("ss", "ds", "es", "fs", "gs")),
    b("cs.rights", guest_cs_access_rights=0xA09B & ~0x80),
    b("cs.rights", guest_cs_access_rights=0xA19B),
    b("cs.dpl", guest_cs_access_rights=0xA0BB),
    b("cs.dpl", guest_cs_access_rights=0xA0FF),
    b("cs.dpl", *REAL, guest_cs_access_rights=0xC0B3),
    b("ss.dpl", also=("guest.cs.dpl",), guest_ss_access_rights=0xC0B3),
    b("ss.dpl", *REAL, off=OUT_OF_IA32E,
      also=("guest.cs.dpl",), guest_ss_access_rights=0xC0B3, **UNPAGED | {"guest_cr0": 0x30}),
    *(b(f"{name}.dpl", **{f"guest_{name}_selector": 0x13}) for name in ("ds", "es", "fs", "gs")),
    b("cs.l", guest_cs_access_rights=0xE09B),
    *(b(f"{name}.limit", **{f"guest_{name}_limit": 0xFFFF_F0FF})
      for name in ("cs", "ss", "ds", "es", "fs", "gs")),
    b("ds.limit", guest_ds_access_rights=0x4093),
    b("tr.rights", guest_tr_access_rights=0x83),
    b("tr.rights", guest_tr_access_rights=0x1_008B),
    b("tr.rights", guest_tr_access_rights=0x808B),
    b("ldtr.rights", guest_ldtr_access_rights=0x83),
    b("ldtr.rights", guest_ldtr_limit=0x10_0000),
    *(b(f"guest_{name}_base", **{f"guest_{name}_base": BAD}) for name in ("gdtr", "idtr")),
    b("descriptor_tables.limit", guest_idtr_limit=0x1_0000),
    b("rip", guest_rip=BAD),
    b("rip", *EPT, off=OUT_OF_IA32E, guest_rip=1 << 32, **FLAT32),
    b("activity", guest_activity=4),
    b("activity.hlt", also=("guest.ss.dpl", "guest.cs.dpl"), guest_activity=1,
      guest_ss_access_rights=0xC0F3),
    b("activity.blocking", guest_activity=1, guest_interruptibility=2),
    b("activity.event", guest_activity=1, entry_interruption_info=EXCEPTION | 3),
    b("activity.event", guest_activity=2, guest_rflags=0x202,
      entry_interruption_info=0x8000_0030),
    b("activity.event", guest_activity=3, entry_interruption_info=0x8000_0202),
    b("interruptibility.reserved", guest_interruptibility=0x20),
    b("interruptibility.sti", guest_interruptibility=1),
    b("interruptibility.sti", guest_interruptibility=3, guest_rflags=0x202),
    b("interruptibility.smi", guest_interruptibility=4),
    b("interruptibility.enclave", guest_interruptibility=0x12),
    b("event.interrupt", entry_interruption_info=0x8000_00D1),
    b("event.interrupt", entry_interruption_info=0x8000_00D1, guest_rflags=0x202,
      guest_interruptibility=2),
    b("event.nmi", entry_interruption_info=0x8000_0202, guest_interruptibility=8),
    b("event.nmi_sti", entry_interruption_info=0x8000_0202, guest_interruptibility=1,
      guest_rflags=0x202),
    b("pending_debug.reserved", guest_pending_debug_exceptions=0x10),
    b("pending_debug.bs", guest_interruptibility=2, guest_pending_debug_exceptions=1 << 14),
    b("pending_debug.bs", guest_activity=1, guest_rflags=0x102),
    b("pending_debug.rtm", guest_pending_debug_exceptions=1 << 16),
    b("link_pointer", vmcs_link_pointer=0x123),
    b("link_pointer", vmcs_link_pointer=VMCS),
    b("link_pointer", vmcs_link_pointer=SHADOW),
    b("pdptes", *EPT, off=OUT_OF_IA32E, guest_pdpte2=0x1007, **FLAT32),
]  # fmt: skip
QUALIFICATIONS = {"guest.event.nmi_sti": 3, "guest.link_pointer": 4, "guest.pdptes": 2}


def check(one: Break, group: str) -> None:
    caps = VMX_PROFILES["everything"]
    state = state_of(caps, *one.controls, off=one.off, **one.fields)
    entry = Entry(state, caps, memory(), current=VMCS)
    found = {rule.name for rule in RULES if rule.broken(entry)}
    assert found == {f"{group}.{one.rule}", *one.also}
    result = check_entry(entry)
    assert not result.enters
    assert result.group is Group(group)
    if group == "guest":
        assert (result.error, result.exit_reason) == (None, GUEST_REASON)
        assert result.qualification == QUALIFICATIONS.get(result.rules[0], 0)
    else:
        assert (result.error, result.exit_reason) == (7 if group == "controls" else 8, None)


@pytest.mark.parametrize("one", CONTROLS, ids=lambda one: one.rule)
def test_each_control_rule(one: Break) -> None:
    check(one, "controls")


@pytest.mark.parametrize("one", HOST, ids=lambda one: one.rule)
def test_each_host_rule(one: Break) -> None:
    check(one, "host")


@pytest.mark.parametrize("one", GUEST, ids=lambda one: one.rule)
def test_each_guest_rule(one: Break) -> None:
    check(one, "guest")


def test_every_rule_is_broken_by_one_of_these() -> None:
    tried = {
        f"{group}.{one.rule}"
        for group, breaks in (("controls", CONTROLS), ("host", HOST), ("guest", GUEST))
        for one in breaks
    }
    assert {rule.name for rule in RULES} == tried


@pytest.mark.parametrize("profile", VMX_PROFILES)
def test_the_ordinary_state_enters(profile: str) -> None:
    caps = VMX_PROFILES[profile]
    assert check_entry(Entry(base_state(caps), caps, memory())) == ENTERS


@pytest.mark.parametrize(
    ("controls", "off", "fields"),
    [
        (REAL, OUT_OF_IA32E, UNPAGED),
        (EPT, OUT_OF_IA32E, FLAT32),
        (EPT, OUT_OF_IA32E, V86),
        (POSTED, (), {"posted_interrupt_vector": 0xF2}),
        (("secondary.vmcs_shadowing",), (), {"vmcs_link_pointer": SHADOW}),
        ((), (), {"guest_activity": 1}),
        ((), (), {"guest_rip": 0x7FFF_FFFF_FFFF}),
        ((), (), {"guest_rip": 1 << 56}),  # bit N - 1 may differ
        ((), (), {"guest_ds_access_rights": 0x1_0000, "guest_ds_base": 1 << 40}),
        ((), (), {"entry_interruption_info": EXCEPTION | 0x80D}),
        ((), (), {"entry_interruption_info": 0x8000_00D1, "guest_rflags": 0x202}),
        ((), (), {"host_cr0": 0xE001_0031, "guest_cr0": 0xE001_0031}),
        (("secondary.vpid", "secondary.ept", "secondary.pml"), (), {}),
    ],
)
def test_other_good_states_enter(
    controls: tuple[str, ...], off: tuple[str, ...], fields: dict[str, int]
) -> None:
    caps = VMX_PROFILES["everything"]
    state = state_of(caps, *controls, off=off, **fields)
    assert check_entry(Entry(state, caps, memory(), current=VMCS)) == ENTERS


def test_controls_fail_before_host_and_host_before_guest() -> None:
    caps = VMX_PROFILES["broadwell"]
    bad = {"guest_rflags": 0, "host_cr3": 1 << 60, "cr3_target_count": 9}
    groups = []
    while bad:
        result = check_entry(Entry(state_of(caps, **bad), caps, memory()))
        groups.append(result.group)
        bad.pop(list(bad)[-1])
    assert groups == [Group.CONTROLS, Group.HOST, Group.GUEST]


def test_secondary_controls_count_only_where_they_are_active() -> None:
    caps = VMX_PROFILES["broadwell"]
    state = state_of(caps, off=("primary.secondary_controls",), secondary_controls=0xFFFF_FFFF)
    assert check_entry(Entry(state, caps, memory())) == ENTERS


@pytest.mark.parametrize(
    ("entries", "failing"),
    [
        ([(0x277, 0x0007_0406_0007_0406)], None),
        ([(0xC000_0102, 0x1000)] * 3, None),
        ([(0xC000_0102, 0x1000), (0xC000_0100, 0)], 2),
        ([(0xC000_0101, 0)], 1),
        ([(0x80B, 0)], 1),
        ([(0x277, 2)], 1),
        ([(0xC000_0082, BAD)], 1),
        ([(0x9999_9999, 0)], 1),
        ([(1 << 32 | 0x277, 0)], 1),
        ([(0x1D9, 1 << 20)], 1),
        ([(0xC000_0080, 2)], 1),
    ],
)
def test_the_msr_load_area(entries: list[tuple[int, int]], failing: int | None) -> None:
    caps = VMX_PROFILES["broadwell"]
    ram = memory()
    for number, (index, value) in enumerate(entries):
        data = index.to_bytes(8, "little") + value.to_bytes(8, "little")
        ram.write(0x1_0000 + 16 * number, data)
    state = state_of(caps, entry_msr_load_address=0x1_0000, entry_msr_load_count=len(entries))
    result = check_entry(Entry(state, caps, ram))
    if failing is None:
        assert result == ENTERS
    else:
        assert result[:4] == (None, None, MSR_REASON, failing)


def test_an_msr_area_that_is_too_long_or_not_there_fails_where_it_ends() -> None:
    caps = VMX_PROFILES["broadwell"]
    ram = PhysicalMemory()
    ram.add_region(0, 1 << 16)
    entry = (0x277).to_bytes(8, "little") + bytes(8)
    ram.write(0, entry * 600)
    state = state_of(caps, entry_msr_load_address=0, entry_msr_load_count=600)
    assert check_entry(Entry(state, caps, ram)).qualification == 513
    state = state_of(caps, entry_msr_load_address=1 << 16, entry_msr_load_count=1)
    assert check_entry(Entry(state, caps, ram)).qualification == 1


@given(st.binary(min_size=2048, max_size=2048), st.sampled_from(sorted(VMX_PROFILES)))
def test_any_bytes_have_a_verdict(data: bytes, profile: str) -> None:
    """Whatever a VMCS holds, the entry ends in one of the ways that the architecture knows."""
    result = check_entry(Entry(unpack(data), VMX_PROFILES[profile], memory()))
    ends = (result.error, result.exit_reason)
    assert ends in ((None, None), (7, None), (8, None), (None, GUEST_REASON), (None, MSR_REASON))


@given(
    st.sampled_from([rule.name for rule in RULES]),
    st.sampled_from(CONTROLS + HOST + GUEST),
    st.sampled_from(CONTROLS + HOST + GUEST),
)
def test_two_broken_rules_fail_as_the_earlier_group(name: str, one: Break, two: Break) -> None:
    caps = VMX_PROFILES["everything"]
    state = state_of(caps, *one.controls, off=one.off, **one.fields)
    state = state.replace(two.fields)
    entry = Entry(state, caps, memory(), current=VMCS)
    broken = [rule for rule in RULES if rule.broken(entry)]
    result = check_entry(entry)
    if broken:
        order = list(Group)
        first = min(order.index(rule.group) for rule in broken)
        assert result.group is order[first]
        assert result.rules == tuple(r.name for r in broken if r.group is order[first])
        assert (name in result.rules) is any(
            r.name == name and r.group is order[first] for r in broken
        )
    else:
        assert result == ENTERS


@st.composite
def entered_one_after_the_other(draw: st.DrawFn) -> list[tuple[VmcsState, int, bool]]:
    """States of which some come again, the task priority in memory, the processor's mode."""
    caps = VMX_PROFILES["broadwell-posted"]
    shadow = state_of(caps, "primary.tpr_shadow", virtual_apic_address=0x2000, tpr_threshold=4)
    states = [state_of(caps), shadow, *draw(st.lists(vmcs_states(caps), max_size=3))]
    return draw(
        st.lists(
            st.tuples(st.sampled_from(states), st.sampled_from([0x30, 0x50]), st.booleans()),
            max_size=12,
        )
    )


@given(entered_one_after_the_other())
def test_what_is_not_looked_at_again_would_pass_again(
    entries: list[tuple[VmcsState, int, bool]],
) -> None:
    caps, memory, checks = VMX_PROFILES["broadwell-posted"], PhysicalMemory(), EntryChecks()
    memory.add_region(0, 0x1_0000)
    for state, priority, ia32e in entries:
        memory.write(0x2080, bytes([priority]))
        asked = [Entry(state, caps, memory, ia32e=ia32e) for _ in range(2)]
        assert checks.check(asked[0]) == check_entry(asked[1])
