"""The page of fault conditions is that of the tests, and they name rows that there are."""

from scripts.fault_rows import rows, shown
from vtd.unit.requests.faults import FaultReason


def test_every_reason_has_a_row_and_every_row_a_reason() -> None:
    listed = {int(row.code, 16) for row in rows() if row.code != "-"}
    assert listed == {int(reason) for reason in FaultReason}


def test_what_tests_meet_is_a_row_that_requests_of_this_kind_can_meet() -> None:
    known = {(row.condition, kind) for row in rows() for kind in row.kinds}
    whole = {(condition.rpartition(".")[0], kind) for condition, kind in known}
    assert set(shown()) <= known | whole
