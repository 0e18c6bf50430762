"""Many requesters: each leads where its request goes, also where the kernel looks ahead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("numba", reason="needs the batch extra")

from scripts.batch_scale import Case, mapped, measure, pasids, requesters, stream
from vtd.batch.engine import engine_of, run
from vtd.batch.kernel import MANY

MORE = MANY + 500


@pytest.mark.parametrize("made", [requesters, pasids])
def test_each_of_many_requesters_reaches_its_pages(made: Callable[[int], Case]) -> None:
    case = made(MORE)
    assert (run(case.unit, case.first)["hit"] == 0).all()
    rows = case.rows[:20_000]
    outcomes = run(case.unit, rows)
    assert (outcomes["status"] == 1).all()
    assert (outcomes["address"] == rows["address"]).all()
    counters = case.unit.caches.iotlb.counters
    assert counters.hits == outcomes["hit"].sum() < 1000


def test_a_case_is_measured_beside_a_load() -> None:
    case = mapped(1 << 38, 30)
    cost = measure(case, 1)
    assert (cost.name, cost.table_bytes) == ("2^38 bytes mapped", engine_of(case.unit).table_bytes)


def test_a_workload_is_streamed_to_its_end() -> None:
    assert [done for done, _ in stream(30_000)][-1] == 30_000
