"""Results of a sweep: a row for each design, as Parquet, JSON or a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from vtd.recordings.whole_file import read_some
from vtd.sweeps.costs import Costs
from vtd.sweeps.designs import PAGE_SIZES, TABLES, Design, Space, pass_of, shape_text
from vtd.traces.places import opened, replacing

if TYPE_CHECKING:
    from vtd.sweeps.outcomes import Outcome

FORMAT = "vtd-sweep-1"


@dataclass(frozen=True)
class Result:
    """What one design made of one trace."""

    trace: str
    sets: int
    ways: int
    entries: int
    policy: str
    index: int
    page_size: str
    structures: str
    tables: str
    invalidation: str
    requesters: int
    requests: int
    lookups: int
    """4 KiB pieces of the requests."""
    misses: int
    miss_ratio: float
    reads: int
    """Table entries that walks read."""
    reads_per_request: float
    packets: int
    """Markers of the trace."""
    reads_per_packet: float | None
    latency: float
    """Of a request in ns, by the costs."""
    gigabits: float | None
    """Bound by the costs; None where nothing bounds it."""
    bytes: int
    duration: int
    """Nanoseconds of the trace."""
    removed: int
    """Entries that invalidations removed from the largest cache of the pass."""
    history: dict[str, list[int]]
    """Counters at times of the trace: time, requests, packets, lookups, misses, reads."""


def results(
    space: Space, trace: str, outcomes: Sequence[Outcome], costs: Costs
) -> Iterator[Result]:
    """The designs of a space, in their order."""
    places = {
        (outcome.wanted._replace(ways=()), ways): (outcome, at)
        for outcome in outcomes
        for at, ways in enumerate(outcome.wanted.ways)
    }
    for design in space.designs():
        outcome, at = places[pass_of(design), design.iotlb.ways or 0]
        yield _result(trace, design, outcome, at, costs)


def _result(trace: str, design: Design, outcome: Outcome, at: int, costs: Costs) -> Result:
    last = outcome.history[-1]
    shape, structures = design.iotlb, bool(design.structures.ways)
    read = [_reads(design, each.reads[at], each.cold[at]) for each in outcome.history]
    misses, reads = last.misses[at], read[-1]
    return Result(
        trace=trace,
        sets=shape.sets,
        ways=shape.ways or 0,
        entries=shape.sets * (shape.ways or 0),
        policy=shape.replacement.value,
        index=shape.index,
        page_size=design.page_size,
        structures=shape_text(design.structures),
        tables=design.tables,
        invalidation=design.invalidation.text,
        requesters=outcome.requesters,
        requests=last.requests,
        lookups=last.lookups,
        misses=misses,
        miss_ratio=misses / max(1, last.lookups),
        reads=reads,
        reads_per_request=reads / max(1, last.requests),
        packets=last.markers,
        reads_per_packet=reads / last.markers if last.markers else None,
        latency=costs.latency(last.lookups, misses, reads, structures=structures)
        / max(1, last.requests),
        gigabits=costs.gigabits(last.bytes, misses, reads, structures=structures),
        bytes=last.bytes,
        duration=last.time - outcome.start,
        removed=last.removed,
        history={
            "time": [each.time for each in outcome.history],
            "requests": [each.requests for each in outcome.history],
            "packets": [each.markers for each in outcome.history],
            "lookups": [each.lookups for each in outcome.history],
            "misses": [each.misses[at] for each in outcome.history],
            "reads": read,
        },
    )


def _reads(design: Design, reads: int, cold: int) -> int:
    """All entries read.

    Nested: each one of the first stage behind a walk of the second, whose pages are as large,
    unless a cached table tells where it is; and another walk for the page itself.
    """
    if design.tables != "nested":
        return reads
    second = TABLES[design.tables] - (PAGE_SIZES[design.page_size] - 12) // 9
    return reads * (second + 1) + cold * second


def save(place: str, found: Sequence[Result]) -> None:
    """Write results: JSON if the name ends so, else Parquet."""
    rows = [asdict(each) for each in found]
    with replacing(place) as stream:
        if place.endswith(".json"):
            stream.write(json.dumps({"format": FORMAT, "results": rows}).encode())
            return
        import pyarrow as pa  # noqa: PLC0415 - results in JSON need none
        import pyarrow.parquet as pq  # noqa: PLC0415

        table = pa.Table.from_pylist(rows).replace_schema_metadata({"vtd": FORMAT})
        pq.write_table(table, stream, compression="zstd")


def load(place: str) -> list[Result]:
    """Results that were saved; ValueError for what is none."""
    with opened(place) as stream:
        data = read_some(stream)
    try:
        rows = json.loads(data)["results"] if data[:1] == b"{" else _parquet_rows(data)
        names = {each.name for each in fields(Result)}
        return [Result(**{name: row[name] for name in names}) for row in rows]
    except KeyError as error:
        raise ValueError(f"no results of vtd sweep: {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"no results of vtd sweep: {error}") from error


def _parquet_rows(data: bytes) -> list[Any]:
    import pyarrow as pa  # noqa: PLC0415 - results in JSON need none
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        rows: list[Any] = pq.read_table(pa.BufferReader(data)).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return rows
