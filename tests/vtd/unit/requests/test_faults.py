"""Fault reasons: each is met by its own mistake, recorded as the specification says, or not."""

import pytest

from tests.support import fault_coverage
from tests.support.directed_faults import CASES, Case
from tests.support.translation_oracle import Refused
from tests.support.world import Mode, World
from vtd.unit.reporting.events import RequestBlocked
from vtd.unit.requests.faults import Answer, FaultReason, TranslationFault

NOT_HERE = {
    0x0D, 0x32, 0x44, 0x47, 0x49, 0x60, 0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5,  # device-TLBs, pages
    0x34, 0x5C,  # tests/vtd/unit/translation/test_execute.py
}  # fmt: skip


def label(case: Case, mode: Mode) -> str:
    return f"{case.reason:02X}h {mode.value}: {case.name}"


DIRECTED = [(case, mode) for case in CASES for mode in case.modes]


@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize(("case", "mode"), DIRECTED, ids=[label(*one) for one in DIRECTED])
@pytest.mark.section("7.1.3")
def test_a_broken_rule_has_its_fault_reason(case: Case, mode: Mode, fpd: bool) -> None:
    world = case.world(mode)
    if fpd:
        world.change("context", fpd=True)
    expected = world.expected()
    assert isinstance(expected, Refused)
    assert case.reason in expected.reasons
    started = world.start()
    record = started.refusal()
    recorded = not (fpd and case.reason not in fault_coverage.UNQUALIFIED)
    blocked = RequestBlocked(world.request, case.reason, recorded)
    assert started.events == [blocked]
    assert (record is not None) == recorded
    column = fault_coverage.ROOT if case.root else mode.value
    fault_coverage.reached(case.reason, column, "directed", fpd=fpd)
    if record is None:
        return
    request = world.request
    assert record.fr == case.reason
    assert record.sid == request.source_id
    assert record.fi == request.address >> 12 << 12
    assert record.at == 0
    assert (record.t1, record.t2) == {1: (1, 0), 2: (0, 0), 3: (1, 1)}[request.access]
    if "smts" in world.unit.features:
        assert record.pp == (request.pasid is not None)
        assert record.pv == (request.pasid or 0)
        assert record.priv == (request.pasid is not None and request.privileged)


@pytest.mark.section("3.4.4")
def test_every_code_has_a_directed_case_in_each_mode() -> None:
    covered = {
        (int(case.reason), fault_coverage.ROOT if case.root else mode.value)
        for case, mode in DIRECTED
    }
    legal = {
        (code, mode)
        for code, modes in fault_coverage.LEGAL.items()
        for mode in modes
        if mode != fault_coverage.INTERRUPT
    }
    assert legal <= covered
    assert {int(reason) for reason in FaultReason} == set(fault_coverage.LEGAL) | NOT_HERE


@pytest.mark.parametrize("reason", FaultReason)
@pytest.mark.section("7.1.1")
def test_fpd_suppresses_what_table_30_calls_qualified(reason: FaultReason) -> None:
    assert reason.qualified == (reason not in fault_coverage.UNQUALIFIED)
    assert TranslationFault(reason).recorded
    assert TranslationFault(reason, True).recorded == (not reason.qualified)


@pytest.mark.parametrize("place", ["context", "directory", "pasid"])
def test_fpd_of_any_structure_on_the_way_counts(place: str) -> None:
    case = next(case for case in CASES if case.reason is FaultReason.SS_NOT_PRESENT)
    world = case.world(Mode.SECOND)
    world.change(place, fpd=True)
    started = world.start()
    assert started.refusal() is None
    assert started.status() == 0


@pytest.mark.parametrize("place", ["context", "directory", "pasid"])
def test_fpd_counts_in_an_entry_that_is_not_present(place: str) -> None:
    world = World(Mode.SECOND)
    world.change(place, p=False, fpd=True)
    assert world.start().refusal() is None


def test_fpd_of_a_structure_that_was_not_reached_does_not_count() -> None:
    case = next(case for case in CASES if case.reason is FaultReason.SM_CONTEXT_NOT_PRESENT)
    world = case.world(Mode.SECOND)
    world.change("directory", fpd=True)
    world.change("pasid", fpd=True)
    record = world.start().refusal()
    assert record is not None and record.fr == FaultReason.SM_CONTEXT_NOT_PRESENT


@pytest.mark.section("7.1.3")
def test_ats_outcomes_are_those_of_table_30() -> None:
    not_present = FaultReason.PASID_NOT_PRESENT
    assert (not_present.ats, not_present.translated) == (Answer.NO_PERMISSION, Answer.UR)
    unreadable = FaultReason.PASID_READ_ERROR
    assert (unreadable.ats, unreadable.translated) == (Answer.CA, Answer.CA)
    assert FaultReason.SM_WRITE_DENIED.ats is Answer.REDUCED


def test_a_fault_says_what_it_is() -> None:
    assert str(TranslationFault(FaultReason.ROOT_NOT_PRESENT)) == (
        "fault 0x01: root entry not present"
    )
