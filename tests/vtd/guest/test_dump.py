"""VMCS dumps of KVM and Xen: read back, judged, and refused where they are cut or otherwise."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.guest.dumps import kvm_dump, xen_dump
from tests.vtd.guest.machine import state_of
from vtd.guest.x86.capabilities import VMX_PROFILES
from vtd.guest.x86.dump import DumpError, parse_dumps
from vtd.guest.x86.fields import BY_NAME
from vtd.guest.x86.judgement import judge, with_ordinary
from vtd.guest.x86.vmcs import VmcsState

EVERYTHING = VMX_PROFILES["everything"]
FORMS = {"kvm": kvm_dump, "xen": xen_dump}


def broken(values: dict[str, int], profile: str = "everything") -> set[str]:
    caps = VMX_PROFILES[profile]
    return {rule.name for rule in judge(with_ordinary(values, caps), caps).broken}


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_what_is_printed_is_read(form: str, data: st.DataObject) -> None:
    state = state_of(EVERYTHING)
    printed = set(parse_dumps(FORMS[form](state))[0].values)
    names = data.draw(st.lists(st.sampled_from(sorted(printed)), max_size=8))
    values = {name: data.draw(st.integers(0, (1 << 8 * BY_NAME[name].size) - 1)) for name in names}
    state = state.replace(values)
    (dump,) = parse_dumps(FORMS[form](state))
    assert dump.values == {name: state[name] for name in printed}
    assert len(printed) > 100


PREFIXES: dict[str, Callable[[str], str]] = {
    "none": lambda line: line,
    "dmesg": lambda line: f"[  673.850218] {line}",
    "dmesg with the caller": lambda line: f"[  673.850218][ T1234] kvm_intel: {line}",
    "raw level": lambda line: f"<3>[  673.850218] {line}",
    "syslog": lambda line: f"Nov 28 10:00:01 host kernel: [  673.850218] kvm_intel: {line}",
    "journal": lambda line: f"2026-11-28T10:00:01.123456+01:00 host kernel: {line}",
    "Xen's console": lambda line: f"(XEN) [2026-11-28 10:00:01.234] {line}",
    "a quoted mail": lambda line: f"> > (XEN) {line}",
}


def bare_lines(text: str) -> list[str]:
    """The lines of a dump without what its form puts before them."""
    return [
        line.partition("kvm_intel: ")[2] or line.removeprefix("(XEN) ")
        for line in text.splitlines()
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_logs_put_before_a_line_does_not_matter(form: str, prefix: str) -> None:
    text = FORMS[form](state_of(EVERYTHING, guest_cr3=1 << 63))
    (expected,) = parse_dumps(text)
    (dump,) = parse_dumps("\n".join(map(PREFIXES[prefix], bare_lines(text))))
    assert dump == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", PREFIXES)
@given(width=st.integers(40, 90))
def test_lines_that_a_mail_has_wrapped_are_put_together(form: str, prefix: str, width: int) -> None:
    text = FORMS[form](state_of(EVERYTHING))
    lines = []
    for line in bare_lines(text):
        first, *rest = textwrap.wrap(line, width)
        lines += [PREFIXES[prefix](first), *rest]
    (dump,), (expected,) = parse_dumps("\n".join(lines)), parse_dumps(text)
    assert dump.values == expected.values


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_off_a_row_is_not_taken_from_the_next(form: str) -> None:
    text = FORMS[form](state_of(EVERYTHING))
    cut = re.sub(r"^(.*\bDS: .*) .*$", r"\1", text, flags=re.MULTILINE)
    (dump,), (expected,) = parse_dumps(cut), parse_dumps(text)
    assert expected.values.keys() - dump.values.keys() == {
        f"guest_ds_{part}" for part in ("selector", "access_rights", "limit", "base")
    }


def test_xen_says_where_efer_is_from() -> None:
    text = xen_dump(state_of(EVERYTHING, guest_efer=0xD01))
    for source in ("VMCS", "MSR LL"):
        (dump,) = parse_dumps(text.replace("EFER =", f"EFER({source}) ="))
        assert dump.values["guest_efer"] == 0xD01


def test_several_dumps_in_one_log_are_told_apart() -> None:
    log = (
        "noise\n" + kvm_dump(state_of(EVERYTHING, vpid=1)) + kvm_dump(state_of(EVERYTHING, vpid=2))
    )
    dumps = parse_dumps(log)
    assert [dump.values["vpid"] for dump in dumps] == [1, 2]
    assert dumps[0].line == 2


# Three public dumps: what was printed of each, the rest ordinary.

DRAKVUF = {
    "guest_cr0": 0x8005_003B, "guest_cr4": 0x36_2670, "guest_cr3": 0x8000_0000_1A02_F080,
    "guest_rflags": 0x82, "guest_rip": 0xFFFF_FFFF_8184_F058, "guest_rsp": 0xFFFF_8800_18CF_7F50,
    "guest_cs_selector": 0x10, "guest_cs_access_rights": 0xA09B, "guest_ss_selector": 0x18,
    "guest_ds_selector": 0, "guest_ds_access_rights": 0x1_C000, "guest_fs_base": 0x7FDB_9D9C_2700,
    "guest_gs_base": 0xFFFF_8800_1F40_0000, "guest_gdtr_base": 0xFFFF_8800_1F40_C000,
    "guest_ldtr_access_rights": 0x1_C000, "exit_reason": 0x8000_0021,
}  # fmt: skip
COCONUT = {
    "guest_cr0": 0x8001_0033, "guest_cr4": 0x34_2AF0, "guest_cr3": 0x80_00F7_6000,
    "guest_rflags": 2, "guest_rip": 0xFFFF_FF80_0004_2837, "guest_rsp": 0xFFFF_FE60_00BE_50 << 8,
    "guest_cs_access_rights": 0xA09B, "guest_dr7": 0x400,
}  # fmt: skip
DOSEMU = {
    "guest_rflags": 0x2_0202, "guest_cs_selector": 0xFFFF, "guest_cs_base": 0xF_FFF0,
    "guest_cs_limit": 0xFFFF, "guest_cs_access_rights": 0xF3,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_cr3_field_with_bit_63(form: str) -> None:
    state = with_ordinary(DRAKVUF, EVERYTHING)
    (dump,) = parse_dumps(FORMS[form](state))
    assert broken(dump.values) == {"guest.cr3"}


@pytest.mark.parametrize("form", FORMS)
def test_a_good_64_bit_state_of_a_machine_with_umip(form: str) -> None:
    values = {**COCONUT, "guest_rsp": 0xFFFF_FE60_00BE_5000}
    (dump,) = parse_dumps(FORMS[form](with_ordinary(values, EVERYTHING)))
    assert broken(dump.values) == set()
    assert broken(dump.values, "broadwell") >= {"guest.cr3", "guest.cr4"}


@pytest.mark.parametrize("form", FORMS)
def test_virtual_8086_registers_in_ia_32e_mode(form: str) -> None:
    (dump,) = parse_dumps(FORMS[form](with_ordinary(DOSEMU, EVERYTHING)))
    names = broken(dump.values)
    assert "guest.rflags.vm" in names
    assert {f"guest.{name}.virtual_8086" for name in ("ss", "ds", "es", "fs", "gs")} <= names
    assert "guest.cs.virtual_8086" not in names  # what was printed of CS keeps the rules


def test_an_interrupt_injected_with_interrupts_off() -> None:
    values = {"guest_rflags": 2, "entry_interruption_info": 0x8000_00D1}
    assert broken(values) == {"guest.event.interrupt"}


def test_rules_that_need_memory_are_said_to_be_unknown() -> None:
    state = state_of(EVERYTHING, "primary.tpr_shadow", tpr_threshold=1)
    judged = judge(state, EVERYTHING)
    assert not judged.broken
    assert [rule.name for rule in judged.unknown] == ["controls.tpr_threshold.vtpr"]


CUTS: list[tuple[Callable[[str], str], str]] = [
    (lambda text: "", "no VMCS dump"),
    (lambda text: "VMCB Control Area:\n", "VMCB"),
    (lambda text: text[: text.index("RFLAGS")], "guest state has no guest_rflags"),
    (lambda text: text[: text.index("*** Host")], "host state has no host_rip"),
    (lambda text: text[: text.index("*** Control")], "control state has no pin_controls"),
    (lambda text: text[: text.index("EntryControls")], "entry_controls"),
    (lambda text: text[text.index("*** Host") :], "without guest state"),
    (lambda text: text.replace("ActivityState", "Other"), "guest_activity"),
    (lambda text: text.replace("CR3 = 0x", "CR3 = 0x1"), "too wide"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("cut", "words"), CUTS)
def test_what_is_no_whole_dump_is_named(form: str, cut: Callable[[str], str], words: str) -> None:
    with pytest.raises(DumpError, match=words):
        parse_dumps(cut(FORMS[form](state_of(EVERYTHING))))


@given(st.text(max_size=200), st.integers(0, 3000))
def test_any_text_is_a_dump_or_is_refused(text: str, at: int) -> None:
    dump = kvm_dump(state_of(EVERYTHING))
    try:
        found = parse_dumps(dump[:at] + text + dump[at:])
    except DumpError:
        return
    assert all(isinstance(VmcsState(dump.values), VmcsState) for dump in found)
    assert found
