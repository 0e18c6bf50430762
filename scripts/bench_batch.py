"""What a request costs in an array of them.

Beside the batch engine, in the same rounds: the unit asked one by one, and a load of 8 bytes that
depends on the one before, somewhere in 64 MiB. Figures are medians over the rounds, of CPU time, in
nanoseconds. Needs the ``batch`` extra.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from devices.dma import READ, Request
from vtd.batch.columns import Requests, new_rows
from vtd.batch.engine import run
from vtd.layouts.entries import PasidTranslationType as Kind
from vtd.unit.caching.cache import OFF, Shape
from vtd.unit.caching.policy import KEEPS_STALE, CachePolicy
from vtd.unit.unit import RemappingUnit

if TYPE_CHECKING:
    from scripts.bench import Machine

COUNT = 400_000
"""Requests in an array."""
FOUR_BY_SIXTEEN = CachePolicy(iotlb=Shape(ways=4, sets=16))
WITHOUT_IOTLB = CachePolicy(iotlb=OFF)
PAGES = 4096
HOT = 16
"""Pages that seven of eight mixed requests are to."""
LOADS, WORDS = 200_000, 1 << 23


class Cost(NamedTuple):
    """What one request, or one load, cost."""

    name: str
    nanoseconds: float


class Timed(NamedTuple):
    """Something to time, that does ``operations`` of it."""

    name: str
    run: Callable[[], object]
    operations: int


def timed(machine: Callable[..., Machine], iova: int) -> Iterator[Timed]:
    """The cases, on machines whose pages are at ``iova``."""
    order = np.random.default_rng(1).permutation(PAGES)[np.arange(COUNT) % PAGES]
    warm = np.arange(COUNT) % HOT
    for name, kind, policy, pages in (
        ("batch hit", Kind.SECOND_STAGE, KEEPS_STALE, warm),
        ("batch hit 4x16", Kind.SECOND_STAGE, FOUR_BY_SIXTEEN, warm),
        ("batch miss", Kind.SECOND_STAGE, FOUR_BY_SIXTEEN, order),
        ("batch mixed", Kind.SECOND_STAGE, FOUR_BY_SIXTEEN, np.where(warm % 8, warm, order)),
        ("batch miss first-stage", Kind.FIRST_STAGE, FOUR_BY_SIXTEEN, order),
        ("batch nested", Kind.NESTED, WITHOUT_IOTLB, order % 512),
    ):
        world = machine(kind, policy, pages=512 if kind is Kind.NESTED else PAGES)
        rows = requests(world, iova + (pages.astype(np.uint64) << 12))
        yield Timed(name, carried_out(world, rows), len(rows))
        if name in ("batch hit", "batch miss"):
            fresh, few = machine(kind, policy), rows[: 1 << 12]
            yield Timed(name.replace("batch", "unit"), one_by_one(fresh, few), len(few))
    world = machine()
    rows = requests(world, np.arange(COUNT // 4, dtype=np.uint64) << 12)
    yield Timed("batch fault", carried_out(world, rows), len(rows))
    hundred = requests(world, iova + (warm[:100].astype(np.uint64) << 12))
    yield Timed("batch of 100 hits", carried_out(world, hundred, 100), 100 * len(hundred))
    places = np.random.default_rng(2).permutation(WORDS)
    yield Timed("random load", lambda: follow(places, LOADS), LOADS)


def requests(world: Machine, addresses: Any) -> Requests:
    """Reads of 64 bytes by the function of a machine."""
    source_id = int(world.platform.topology.requester_id(world.function))
    return new_rows(len(addresses), address=addresses, length=64, access=READ, source_id=source_id)


def _unit(world: Machine) -> RemappingUnit:
    (unit,) = world.platform.units.values()
    return unit


def carried_out(world: Machine, rows: Requests, times: int = 1) -> Callable[[], None]:
    """The rows through the batch engine, which knows the tables already."""
    unit = _unit(world)
    outcomes = run(unit, rows)

    def act() -> None:
        for _ in range(times):
            run(unit, rows, outcomes=outcomes)

    return act


def one_by_one(world: Machine, rows: Requests) -> Callable[[], None]:
    """The same put to the unit itself."""
    admit = _unit(world).admit
    made = [Request(int(row["source_id"]), int(row["address"]), READ, 64) for row in rows]

    def act() -> None:
        for request in made:
            admit(request)

    return act


@njit  # type: ignore[untyped-decorator]
def follow(places: Any, count: int) -> int:
    at = 0
    for _ in range(count):
        at = places[at]
    return at


def measure(
    machine: Callable[..., Machine], iova: int, rounds: int, progress: Callable[[str], None]
) -> list[Cost]:
    """Time every case in every round."""
    cases = list(timed(machine, iova))
    costs: dict[str, list[float]] = {case.name: [] for case in cases}
    for case in cases:
        case.run()
    for number in range(rounds):
        progress(f"batch: round {number + 1} of {rounds}")
        for case in cases:
            start = time.process_time()
            case.run()
            costs[case.name].append((time.process_time() - start) * 1e9 / case.operations)
    return [Cost(name, statistics.median(values)) for name, values in costs.items()]
