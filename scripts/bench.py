"""Times of the engine, side by side in one run: ``scripts/bench [--format json]``.

Every case runs in every round, so that a machine that slows down slows all of them; a figure is the
median over the rounds, its ratio the median of the ratios to the empty method call of its round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from devices.device_tlb import DeviceTlb, Replacement
from devices.dma import READ, WRITE, TranslationEntry
from pagetables import first_stage, second_stage
from pagetables.bits import BitRecord
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.observed import AccessKind, ObservedMemory
from pagetables.walk import walk
from scripts import bench_dmar, bench_guest
from vtd.layouts import descriptors, entries, interrupt_entries
from vtd.layouts.entries import PasidTranslationType as Kind
from vtd.layouts.registers import GlobalCommand, RootTableAddress, TranslationTableMode
from vtd.unit.caching.cache import UNBOUNDED, Shape
from vtd.unit.caching.policy import KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.requests.request import Request
from vtd.unit.requests.target import Target
from vtd.unit.translation.translate import translate
from vtd.unit.unit import RemappingUnit

Runner = tuple[Callable[[], object], int]
"""What to time, and how many operations it does."""

PAGES = 65536
IOVA = 1 << 32
TARGET = 1 << 26
SOURCE_ID = 0x0010
LIKE_HARDWARE = CachePolicy(paging_structure=UNBOUNDED)
"""With paging-structure caches, as hardware units have."""

SMALL = CachePolicy(iotlb=Shape(ways=64))


class Case(NamedTuple):
    """Something to time: ``run`` does ``count`` operations."""

    name: str
    run: Callable[[], object]
    operations: int
    prepare: Callable[[], object] = lambda: None


class Figure(NamedTuple):
    """What a case cost."""

    name: str
    microseconds: float
    empty_calls: float
    """The same as a multiple of an empty method call with three arguments."""


class World(NamedTuple):
    """A unit that translates ``PAGES`` pages from ``IOVA`` on for one requester."""

    memory: PhysicalMemory
    unit: RemappingUnit
    port: UnitPort


def build(kind: Kind | None, policy: CachePolicy = KEEPS_STALE) -> World:
    """A world in legacy mode (None), or in scalable mode with this translation type."""
    implementation = PROFILES["xeon"].implementation
    memory = PhysicalMemory()
    memory.add_region(0, TARGET + (PAGES << 12))
    pool = FramePool(0x1000, TARGET)
    unit = RemappingUnit(PROFILES["xeon"], memory, Options(caches=policy))
    flags = second_stage.ACCESSED | second_stage.DIRTY if kind is Kind.NESTED else 0
    second = TableBuilder(
        memory, second_stage_geometry(4, implementation), pool, largest=12, preset=flags
    )
    if kind is Kind.NESTED:
        second.map(0, 0, TARGET)  # the guest sees its tables and pages where they are
    second.map(TARGET if kind is Kind.NESTED else IOVA, TARGET, PAGES << 12)
    first = TableBuilder(
        memory,
        first_stage_geometry(4, implementation),
        pool,
        largest=12,
        preset=first_stage.ACCESSED | first_stage.DIRTY,
    )
    first.map(IOVA, TARGET, PAGES << 12)
    tables = [pool.allocate() << 12 for _ in range(4)]
    root, context, directory, pasids = tables
    if kind is None:
        mode = TranslationTableMode.LEGACY
        put(memory, root, entries.RootEntry.of(p=True, ctp=context))
        entry = entries.ContextEntry.of(p=True, ssptptr=second.root << 12, aw=2, did=1)
        put(memory, context + SOURCE_ID * 16, entry)
    else:
        mode = TranslationTableMode.SCALABLE
        put(memory, root, entries.ScalableRootEntry.of(lp=True, lctp=context))
        scalable = entries.ScalableContextEntry.of(p=True, pasiddirptr=directory)
        put(memory, context + SOURCE_ID * 32, scalable)
        put(memory, directory, entries.PasidDirectoryEntry.of(p=True, smptblptr=pasids))
        stages = {"fsptptr": first.root << 12, "ssptptr": second.root << 12, "aw": 2}
        put(memory, pasids, entries.PasidEntry.of(p=True, pgtt=kind, did=1, pwsnp=True, **stages))
    unit.write_register(0x20, 8, RootTableAddress.of(rta=root, ttm=mode))
    for command in (GlobalCommand.of(srtp=True), GlobalCommand.of(te=True)):
        unit.write_register(0x18, 4, command)
    return World(memory, unit, UnitPort(unit, memory, SOURCE_ID))


def put(memory: PhysicalMemory, address: int, record: BitRecord) -> None:
    """Store a record in memory."""
    memory.write(address, record.pack())


class Empty:
    """What everything is compared with."""

    def method(self, one: int, two: int, three: int) -> None:
        """Do nothing with three arguments."""


def empty_calls(count: int = 100_000) -> Runner:
    """The empty method call with three arguments."""
    method = Empty().method

    def run() -> None:
        for _ in range(count):
            method(1, 2, 3)

    return run, count


def repeat(action: Callable[..., object], *arguments: object, count: int = 20_000) -> Runner:
    """A case of the same call over and over."""

    def run() -> None:
        for _ in range(count):
            action(*arguments)

    return run, count


def hits(find: Callable[[int, int], object], count: int = 50_000) -> Runner:
    """The same page over and over, for reading."""
    address = IOVA + 0x123

    def run() -> None:
        for _ in range(count):
            find(address, READ)

    return run, count


def permuted(world: World, order: list[int]) -> Runner:
    """Every page once, in random order, on an empty IOTLB."""
    resolve = world.port.resolve

    def run() -> None:
        for address in order:
            resolve(address, READ)

    return run, len(order)


def packets(world: World, order: list[int]) -> Runner:
    """Packets of six requests: descriptor, four to one payload page, completion."""
    resolve = world.port.resolve
    descriptor, completion = IOVA, IOVA + 0x1000

    def run() -> None:
        for payload in order:
            resolve(descriptor, READ)
            resolve(payload, WRITE)
            resolve(payload + 0x400, WRITE)
            resolve(payload + 0x800, WRITE)
            resolve(payload + 0xC00, WRITE)
            resolve(completion, WRITE)

    return run, 6 * len(order)


def plain_table(order: list[int]) -> Runner:
    """The baseline: a dictionary from page to page, with nothing else of an IOMMU."""
    pages = {address >> 12: address for address in order}

    def run() -> None:
        for address in order:
            pages[address >> 12] | address & 0xFFF

    return run, len(order)


def cases() -> Iterator[Case]:
    """Everything that is timed."""
    order = [IOVA + (page << 12) for page in range(PAGES)]
    random.Random(1).shuffle(order)
    few = order[:4096]
    legacy, hardware = build(None), build(None, LIKE_HARDWARE)
    second, first = build(Kind.SECOND_STAGE), build(Kind.FIRST_STAGE)
    yield Case("plain dictionary of pages", *plain_table(order))
    for name, world in (
        ("legacy", legacy),
        ("scalable second-stage", second),
        ("scalable first-stage", first),
        ("legacy, IOTLB of 64 LRU entries,", build(None, SMALL)),
    ):
        yield Case(f"{name} hit", *hits(world.port.resolve))
    for name, world in (
        ("legacy miss, paging structures cached", hardware),
        ("legacy miss, tables walked from the root", legacy),
        ("scalable second-stage miss, walked from the root", second),
    ):
        yield Case(name, *permuted(world, order), world.unit.caches.iotlb.clear)
    yield Case(
        "packets of six, all payload pages new",
        *packets(hardware, few),
        hardware.unit.caches.iotlb.clear,
    )
    yield Case("packets of six, payload pages known", *packets(hardware, few))
    nested = build(Kind.NESTED, UNCACHED)
    ask = Request(SOURCE_ID, IOVA, READ)
    yield Case(
        f"nested 4-on-4, nothing cached ({reads_of(nested, ask)} reads)",
        *repeat(translate, nested.unit.remapping, ask, count=500),
    )
    yield from table_cases(legacy)
    yield Case("DMA read of 8 bytes, IOTLB hit", *repeat(legacy.port.read, IOVA + 0x120, 8))
    for name, run, operations in bench_guest.runners():
        yield Case(name, run, operations)
    yield from record_cases()


def reads_of(world: World, request: Request) -> int:
    """Memory reads of the page tables that a translation takes, context lookup left out."""
    count = 0

    def hook(kind: AccessKind, address: int, size: int, value: int) -> None:
        nonlocal count
        count += kind is AccessKind.READ and size == 8

    translate(world.unit.remapping, request)
    memory = world.unit.remapping.memory
    world.unit.remapping.memory = ObservedMemory(world.memory, hook)
    translate(world.unit.remapping, request)
    world.unit.remapping.memory = memory
    return count - 1  # the PASID directory entry


def table_cases(world: World) -> Iterator[Case]:
    """Walks, registers, data and the device-TLB."""
    context = world.unit.caches.context.peek(SOURCE_ID)
    target = context.value if context else None
    if isinstance(target, Target) and target.second is not None:
        yield Case("walk of 4 levels", *repeat(walk, world.memory, target.second, IOVA))
    yield Case("register read", *repeat(world.unit.read_register, 0x1C, 4))
    yield Case("register write", *repeat(world.unit.write_register, 0x3C, 4, 0x31))
    yield Case("DMA read of 64 bytes", *repeat(world.port.read, IOVA + 0x100, 64, count=5000))
    for size, capacity, replacement in (
        ("unbounded", None, Replacement.LRU),
        ("64 entries", 64, Replacement.FIFO),
        ("64 entries", 64, Replacement.LRU),
    ):
        tlb = DeviceTlb(capacity, replacement)
        tlb.insert(
            IOVA, TranslationEntry(TARGET, 4096, True, True, False, False, False, False, False)
        )
        yield Case(f"device-TLB hit, {size} {replacement.value}", *hits(tlb.lookup))


def record_cases() -> Iterator[Case]:
    """Each structure by its construct codec, and by masks on a plain number."""
    records = (
        entries.RootEntry,
        entries.ContextEntry,
        entries.ScalableContextEntry,
        entries.PasidEntry,
        second_stage.SecondStagePage4K,
        first_stage.FirstStagePage4K,
        interrupt_entries.RemappedIrte,
        descriptors.IotlbInvalidateDescriptor,
    )
    for record in records:
        data = record(1).pack()
        yield Case(f"{record.__name__} by construct", *repeat(record.codec.parse, data, count=3000))
        masks = tuple(bits.mask for bits in record.FIELDS.values())
        yield Case(f"{record.__name__} by masks", *repeat(by_masks, data, masks, count=3000))


def by_masks(data: bytes, masks: tuple[int, ...]) -> list[int]:
    """All fields of a stored record, as the hot path reads them."""
    number = int.from_bytes(data, "little")
    return [number & mask for mask in masks]


def measure(rounds: int, progress: Callable[[str], None]) -> list[Figure]:
    """Time every case in every round."""
    empty, count = empty_calls()
    chosen = list(cases())
    times: dict[str, list[tuple[float, float]]] = {case.name: [] for case in chosen}
    baseline = []
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        call = seconds(empty) / count
        baseline.append(call)
        for case in chosen:
            case.prepare()
            cost = seconds(case.run) / case.operations
            times[case.name].append((cost * 1e6, cost / call))
    figures = [Figure("empty method call, three arguments", statistics.median(baseline) * 1e6, 1.0)]
    for name, values in times.items():
        costs, ratios = zip(*values, strict=True)
        figures.append(Figure(name, statistics.median(costs), statistics.median(ratios)))
    return figures


def seconds(run: Callable[[], object]) -> float:
    """CPU time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures = measure(options.rounds, lambda text: print(text, file=sys.stderr))
    dmar = bench_dmar.measure()
    if options.format == "json":
        print(
            json.dumps(
                {"engine": [f._asdict() for f in figures], "dmar": [f._asdict() for f in dmar]}
            )
        )
        return
    table = Table("case", "us", "x empty call", "per second")
    for figure in figures:
        per_second = f"{1e6 / figure.microseconds:,.0f}"
        table.add_row(
            figure.name, f"{figure.microseconds:.3f}", f"{figure.empty_calls:.1f}", per_second
        )
    Console().print(table)
    tables = Table("DMAR table library", "ms", "target ms")
    for measured in dmar:
        tables.add_row(measured.name, f"{measured.milliseconds:.2f}", f"{measured.target:g}")
    Console().print(tables)


if __name__ == "__main__":
    main()
