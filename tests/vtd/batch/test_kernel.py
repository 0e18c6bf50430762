"""The kernel of batches as Python runs it: in its arrays, in 64 bits, and as the unit."""

from collections.abc import Callable
from unittest import mock

import pytest

pytest.importorskip("numba", reason="needs the batch extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.batch_exactness import trial
from scripts.batch_scale import Case, pasids, requesters
from tests.support.interpreted import interpreted, words
from vtd.batch import engine, kernel
from vtd.batch.store import Store
from vtd.unit.caching.cache import UNBOUNDED


@settings(max_examples=40)
@given(st.integers(0, 1 << 32), st.sampled_from([1, 1 << 14]))
def test_no_index_and_no_word_goes_beyond_its_array(seed: int, faults: int) -> None:
    with interpreted(kernel, words), mock.patch.object(engine, "LOG", faults):
        assert trial(seed, 200).differences == []


@pytest.mark.parametrize("made", [requesters, pasids])
def test_nor_where_many_requesters_are_looked_ahead(made: Callable[[int], Case]) -> None:
    case = made(kernel.MANY + 200)
    with interpreted(kernel, words):
        engine.run(case.unit, case.first)
        rows = case.rows[:500]
        outcomes = engine.run(case.unit, rows)
    assert (outcomes["status"] == 1).all()
    assert (outcomes["address"] == rows["address"]).all()


def test_an_index_beyond_is_noticed() -> None:
    """What the others rely on: Python's own checks are there."""
    with interpreted(kernel, words):
        store = Store(UNBOUNDED)
        store.words[kernel.MASK] = 1 << 40
        with pytest.raises(IndexError):
            store.find(1, 0)
