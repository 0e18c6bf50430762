"""What a request of an array costs with many requesters, many PASIDs, and large mapped spaces.

``python -m scripts.batch_scale`` asks a unit with an IOTLB of 64 entries, which nearly every
request misses, for pages by chance. Beside each case: a load that depends on the one before,
somewhere in as many bytes as the case's tables of requesters have, and the CPU time of making one
known. ``--stream ROWS`` puts a workload through instead, array after array, and says what memory
that takes. Needs the ``batch`` extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from devices.dma import READ, WRITE
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from scripts.bench_batch import follow
from vtd.batch.columns import Requests, new_rows
from vtd.batch.driven import by_driver
from vtd.batch.engine import engine_of, run
from vtd.batch.outcomes import OUTCOMES
from vtd.layouts.entries import PasidDirectoryEntry, ScalableContextEntry
from vtd.software.driver import Driver
from vtd.traces.workload import Workload
from vtd.unit.caching.cache import Shape
from vtd.unit.caching.policy import CachePolicy
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

COUNT = 400_000
PAGES = 4096
SOURCE = 0x0010
FRAMES, MEMORY_END = 1 << 46, (1 << 46) + (1 << 38)
DIRECTORY, PASID_TABLES = MEMORY_END - (1 << 36), MEMORY_END - (1 << 35)
WHOLE_DIRECTORY = 7
"""PDTS of a directory for all 2^20 PASIDs (9.4)."""


class Case(NamedTuple):
    """A unit and what is asked of it."""

    name: str
    unit: RemappingUnit
    rows: Requests
    first: Requests
    """One request of each requester."""


class Cost(NamedTuple):
    """Of a case, in nanoseconds but for the last one."""

    name: str
    request: float
    load: float
    """Of a dependent load in as many bytes as the tables of requesters have."""
    first_request: float
    table_bytes: int


class Machine(NamedTuple):
    """A unit with one domain."""

    unit: RemappingUnit
    driver: Driver
    memory: PhysicalMemory


def machine(*, scalable: bool, largest: int, mapped: int) -> Machine:
    """A unit whose domain maps so many bytes."""
    memory = PhysicalMemory()
    memory.add_region(0, MEMORY_END)
    options = Options(caches=CachePolicy(iotlb=Shape(ways=4, sets=16)))
    unit = RemappingUnit(PROFILES["xeon"], memory, options)
    driver = Driver(unit, memory, FramePool(FRAMES, DIRECTORY), scalable=scalable)
    driver.start()
    domain = driver.domain(levels=4, largest=largest)
    domain.map(0, 0, mapped, READ | WRITE)
    driver.attach(SOURCE, domain)
    return Machine(unit, driver, memory)


def requesters(count: int) -> Case:
    """So many source-ids in one domain: their context entries are that of the first one."""
    made = machine(scalable=False, largest=12, mapped=PAGES << 12)
    structures, memory = made.driver.structures, made.memory
    entry = memory.read(structures.context_entry(SOURCE), 16)
    sources = np.arange(count) + SOURCE
    for bus in range(int(sources[-1]) + 0xFF >> 8):
        structures.add_context_table(bus << 8)
        memory.write(structures.context_entry(bus << 8), entry * 256)
    return _case(f"{count} requesters", made, PAGES, 12, source_id=sources)


def pasids(count: int) -> Case:
    """So many PASIDs of one function in one domain."""
    made = machine(scalable=True, largest=12, mapped=PAGES << 12)
    structures, memory = made.driver.structures, made.memory
    entry = memory.read(structures.pasid_entry(SOURCE, 0), 64)
    at = structures.context_entry(SOURCE)
    context = ScalableContextEntry.unpack(memory.read(at, ScalableContextEntry.WIDTH // 8))
    context = context.replace(pasiddirptr=DIRECTORY, pdts=WHOLE_DIRECTORY)
    for number in range((count >> 6) + 1):
        table = PASID_TABLES + (number << 12)
        memory.write(table, entry * 64)
        memory.write(DIRECTORY + number * 8, PasidDirectoryEntry.of(p=True, smptblptr=table).pack())
    memory.write(at, context.pack())
    return _case(f"{count} PASIDs", made, PAGES, 12, pasid=np.arange(1, count + 1))


def mapped(size: int, shift: int) -> Case:
    """So many bytes in pages of 2^``shift``."""
    made = machine(scalable=False, largest=shift, mapped=size)
    return _case(f"2^{size.bit_length() - 1} bytes mapped", made, size >> shift, shift)


def _case(name: str, made: Machine, pages: int, shift: int, **who: Any) -> Case:
    draw = np.random.default_rng(1)
    some = {key: draw.choice(values, COUNT) for key, values in who.items()}
    addresses = draw.integers(pages, size=COUNT, dtype=np.uint64) << np.uint64(shift)
    columns: dict[str, Any] = {"length": 64, "access": READ, "source_id": SOURCE}
    rows = new_rows(COUNT, **{**columns, "address": addresses, **some})
    count = max([len(values) for values in who.values()], default=1)
    return Case(name, made.unit, rows, new_rows(count, **{**columns, **who}))


def cases(most_pasids: int) -> Iterator[Case]:
    """Each when it is asked for."""
    yield from map(requesters, (100, 60_000))
    yield from map(pasids, [each for each in (1000, 10_000, 100_000, 10**6) if each <= most_pasids])
    yield mapped(1 << 28, 12)
    yield from (mapped(size, 30) for size in (1 << 38, 1 << 46))


def measure(case: Case, rounds: int) -> Cost:
    """CPU time, medians of the rounds."""
    start = time.process_time()
    run(case.unit, case.first)
    learnt = (time.process_time() - start) * 1e9 / len(case.first)
    outcomes = run(case.unit, case.rows)
    if set(outcomes["status"].tolist()) != {1}:
        raise ValueError(f"{case.name}: not every request passes")
    size = engine_of(case.unit).table_bytes
    places = np.random.default_rng(2).permutation(max(size // 8, 1 << 12))
    times: dict[str, list[float]] = {"request": [], "load": []}
    for _ in range(rounds):
        start = time.process_time()
        run(case.unit, case.rows, outcomes=outcomes)
        times["request"].append((time.process_time() - start) * 1e9 / COUNT)
        start = time.process_time()
        follow(places, COUNT)
        times["load"].append((time.process_time() - start) * 1e9 / COUNT)
    medians = {name: statistics.median(each) for name, each in times.items()}
    return Cost(case.name, medians["request"], medians["load"], learnt, size)


STREAM = """
rows = {rows}
[[stream]]
kind = "nic"
at = "01:00.0"
functions = 16
order = "random"
"""
FIRST_FUNCTION = 0x0100


def stream(count: int) -> Iterator[tuple[int, float]]:
    """Rows of a workload through the engine, in the arrays in which they are generated.

    Rows done, and CPU time of the engine for each of these in nanoseconds; every 10^7 rows.
    """
    made = machine(scalable=False, largest=12, mapped=PAGES << 12)
    for source_id in range(FIRST_FUNCTION, FIRST_FUNCTION + 16):
        made.driver.attach(source_id, made.driver.domain(levels=4, largest=12))
    workload = Workload.parse(STREAM.format(rows=count))
    outcomes = np.empty(0, OUTCOMES)
    done, busy, step = 0, 0.0, min(count, 10**7)
    for rows in workload.arrays():
        if len(outcomes) < len(rows):
            outcomes = np.empty(len(rows), OUTCOMES)
        start = time.process_time()
        run(made.unit, rows, by_driver(made.driver), outcomes[: len(rows)])
        busy += time.process_time() - start
        if 2 in outcomes["status"][: len(rows)]:
            raise ValueError("not every request passes")
        before, done = done, done + len(rows)
        if done // step > before // step:
            yield done, busy * 1e9 / done


def main() -> int:
    """Measure each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pasids", type=int, default=10**6, help="the most to try")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--stream", type=int, metavar="ROWS", help="a workload of so many instead")
    options = parser.parse_args()
    if options.stream:
        for done, each in stream(options.stream):
            print(f"{done} rows, {each:.1f} ns each, {_resident()} MiB resident", flush=True)
        return 0
    costs = []
    for case in cases(options.pasids):
        costs.append(measure(case, options.rounds))
        if options.format == "text":
            name, request, load, first, size = costs[-1]
            print(
                f"{name:24} {request:7.1f} ns, a load in its {size / 2**20:.1f} MiB {load:6.1f} ns;"
                f" first requests {first / 1000:.0f} us; {_resident()} MiB resident",
                flush=True,
            )
    if options.format == "json":
        print(json.dumps([each._asdict() for each in costs]))
    return 0


def _resident() -> int:
    """MiB of this process."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) >> 10


if __name__ == "__main__":
    sys.exit(main())
