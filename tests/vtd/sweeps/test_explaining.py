"""A unit of a design misses as often as a sweep counts, and explains one row of a trace."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="sweeps need the batch extra")
pytest.importorskip("numba", reason="sweeps need the batch extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.vtd.sweeps.test_kernel import SHIFTS, rows, run  # noqa: E402
from vtd.batch import engine  # noqa: E402
from vtd.batch.columns import Requests, RowKind, new_rows  # noqa: E402
from vtd.batch.outcomes import Status  # noqa: E402
from vtd.sweeps.designs import INVALIDATING, TABLES, Design, Invalidating, Pass  # noqa: E402
from vtd.sweeps.explaining import DesignUnit, explain_trace  # noqa: E402
from vtd.traces.rows import TraceRow  # noqa: E402
from vtd.unit.caching.cache import OFF, Replacement, Shape  # noqa: E402

MODES = [each for each in INVALIDATING.values() if each is not Invalidating.DEFERRED]


@settings(max_examples=25)
@given(st.data())
def test_a_unit_of_a_design_misses_as_often_as_a_sweep_counts(data: st.DataObject) -> None:
    page_size, tables = (
        data.draw(st.sampled_from(sorted(SHIFTS))),
        data.draw(st.sampled_from([*TABLES])),
    )
    iotlb = Shape(
        data.draw(st.integers(1, 6)),
        data.draw(st.sampled_from([1, 2, 4])),
        data.draw(st.sampled_from([Replacement.LRU, Replacement.FIFO])),
    )
    mode = data.draw(st.sampled_from(MODES))
    found = data.draw(rows(SHIFTS[page_size]))
    if tables == "3-level":
        found = [row._replace(address=row.address % (1 << 39)) for row in found]
    if data.draw(st.booleans()):
        found = [
            row._replace(kind=RowKind.UNMAP)
            if row.kind == RowKind.INVALIDATE and row.length
            else row
            for row in found
        ]
    design = Design(iotlb, OFF, page_size, tables, mode)
    wanted = Pass(iotlb, (iotlb.ways or 0,), OFF, page_size, TABLES[tables], mode)
    _, counts = run(wanted, found)
    unit, array = DesignUnit(design), np.array(found, new_rows(0).dtype)
    unit.map(array)
    outcomes = engine.run(unit.unit, array, unit.act)
    assert unit.unit.caches.iotlb.counters.misses == counts.misses[0]
    assert (outcomes["status"][array["kind"] == RowKind.DMA] == Status.PASSED).all()


def reads(pages: list[int]) -> Requests:
    return new_rows(len(pages), address=np.array(pages) << 12, length=64, access=1, source_id=0x10)


def explained(pages: list[int], number: int, ways: int, sets: int = 1) -> str:
    design = Design(Shape(ways, sets), OFF, "4K", "4-level", Invalidating.STRICT)
    return explain_trace(design, reads(pages), number).cause


def test_a_miss_tells_how_many_pages_came_to_its_set() -> None:
    assert explained([1, 1], 1, 4) == "hit: a page of 0x1000 bytes from 0x1000"
    assert explained([1, 2], 1, 4) == "miss: the first use of this page"
    pages = [2, 1, 4, 6, 3, 8, 2]
    assert explained(pages, 6, 2, 2) == (
        "miss: row 0 used this page, then 5 other pages, 3 of them in its set of 2 ways"
    )


def test_an_invalidation_is_named_where_nothing_else_can_have_been_it() -> None:
    trace = reads([5, 5, 6, 5])
    trace["kind"][1], trace["length"][1] = RowKind.UNMAP, 0x1000
    design = Design(Shape(4), OFF, "4K", "4-level", Invalidating.STRICT)
    told = explain_trace(design, trace, 3)
    assert told.cause == "miss: row 0 used this page, and an invalidation since then removed it"
    assert told.request.walk is not None
    assert len(told.request.walk.steps) == 4


def test_what_no_unit_can_have_is_one_line() -> None:
    design = Design(Shape(4), OFF, "4K", "4-level", Invalidating.TRACE)
    other = reads([1, 2])
    other["source_id"][1] = 0x1_0010
    with pytest.raises(
        ValueError, match="row 1, column source_id: another segment, so another unit"
    ):
        explain_trace(design, other, 0)
    with pytest.raises(ValueError, match="deferred is none that a row can be explained with"):
        explain_trace(design._replace(invalidation=Invalidating.DEFERRED), reads([1]), 0)
    large = np.array([TraceRow(0, 0, pasid=0xF_FFFF, source_id=0x10)], new_rows(0).dtype)
    with pytest.raises(ValueError, match="pasid: 1048575 is not in reach"):
        explain_trace(design, large, 0)


def test_an_address_beyond_the_tables_is_refused_as_by_the_unit() -> None:
    trace = reads([1 << 40, 1])
    design = Design(Shape(4), OFF, "4K", "4-level", Invalidating.TRACE)
    assert explain_trace(design, trace, 0).status is Status.REFUSED
    assert explain_trace(design, trace, 1).status is Status.PASSED
