"""Figures of two revisions, put side by side."""

import pytest

from scripts.bench_before import Change, RevisionError, changes, compare


def test_medians_are_compared_and_missing_cases_said_to_be_missing() -> None:
    before = [{"old": 7.0, "read": 30.0}, {"old": 9.0, "read": 50.0}, {"old": 8.0, "read": 40.0}]
    after = [{"read": 10.0, "new": 1.0}, {"read": 20.0, "new": 3.0}, {"read": 90.0, "new": 2.0}]
    read, new, old = changes(before, after)
    assert read == Change("read", 40.0, 20.0)
    assert read.times == 2.0
    assert new == Change("new", None, 2.0)
    assert old == Change("old", 8.0, None)
    assert new.times is old.times is None


def test_a_revision_that_is_none_is_an_error_of_one_line() -> None:
    with pytest.raises(RevisionError, match=r"^no-such-revision: [^\n]+$"):
        compare("no-such-revision", 1, print)
