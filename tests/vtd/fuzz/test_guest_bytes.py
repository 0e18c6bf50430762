"""Properties of EPT, VMCSs and VPDs find what is wrong, and the strategies give what they say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from vtd.fuzz.ept_oracle import EptVerdict
from vtd.fuzz.guest_bytes import DisagreementError, enter_bytes, walk_bytes
from vtd.fuzz.guest_strategies import vmcs_states
from vtd.fuzz.properties import BYTE_PROPERTIES, Tally, Violation
from vtd.guest.itanium import optimizations
from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.outcomes import Executed
from vtd.guest.x86.base_state import base_state
from vtd.guest.x86.capabilities import VMX_PROFILES
from vtd.guest.x86.fields import FIELDS
from vtd.guest.x86.judgement import Judgement, judge
from vtd.guest.x86.vmcs import VmcsState, pack, unpack

CAPS = VMX_PROFILES["broadwell"]
MODULE = "vtd.fuzz.guest_bytes"


def test_a_walk_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.ept_verdict", lambda *_, **__: EptVerdict("violation"))
    with pytest.raises(DisagreementError, match="EPT walk of"):
        walk_bytes(b"")


def test_a_second_stage_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    page = EptVerdict("page", 0x9123, 3)
    for name in ("ept_verdict", "_verdict"):
        monkeypatch.setattr(f"{MODULE}.{name}", lambda *_, **__: page)
    with pytest.raises(DisagreementError, match="second stage of"):
        walk_bytes(b"")


@pytest.mark.parametrize(
    ("state", "words"),
    [({"guest_rflags": 0}, "is broken, and yet: Entered"), ({}, "no rule is broken, and yet")],
)
def test_an_entry_that_should_not_be_is_told(
    state: dict[str, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judgement is of another state than the one that enters, or does not."""
    other = judge(base_state(CAPS).replace(state), CAPS)
    monkeypatch.setattr(f"{MODULE}.judge", lambda *_: other)
    bit_1 = bytes([0, _number("pin_controls"), 0, 1, *bytes(7)])  # it has to be 1
    data = b"\0" if state else bit_1
    with pytest.raises(DisagreementError, match=words):
        enter_bytes(data)


def _number(name: str) -> int:
    return [field.name for field in FIELDS].index(name)


def test_an_acceleration_that_does_something_else_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(cpu: Any, current: Any, instruction: Any) -> Executed | None:
        return Executed(1) if current.vac.a_cover else None

    monkeypatch.setitem(optimizations.HANDLERS, InterceptCause.COVER, wrong)
    program = bytes([0x20, 0x04, 35, 0, 0])  # a_cover; COVER is the 36th cause
    with pytest.raises(Violation, match="accelerations show"):
        BYTE_PROPERTIES["vpd"][1](program, Tally())


@given(vmcs_states(CAPS))
def test_a_generated_state_is_judged_and_kept(state: VmcsState) -> None:
    assert isinstance(judge(state, CAPS), Judgement)
    assert unpack(pack(state)).values() == state.values()
