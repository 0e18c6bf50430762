"""Random requests through the batch engine and, one by one, through units alike: any difference?

``python -m scripts.batch_exactness --requests 1000000`` goes on until so many requests were
compared: outcomes, fault records, events, counters, caches in their order, memory. A trial is a
unit of some profile, or a platform of several, which may share root table and domains (6.10), cache
shapes, domains of every kind with holes and flaws in their tables, and rows of requests with driver
and register accesses between them; its seed makes it again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from devices.dma import ATOMIC, EXECUTE_REQUESTED, NO_SNOOP, READ, WRITE, AddressType
from devices.source_id import SourceId
from devices.topology import Topology
from pagetables.build import BuildError, FramePool
from pagetables.geometry import PAGE_SHIFT
from pagetables.memory import BusError, PhysicalMemory
from vtd.batch.columns import ADDRESS_TYPE_SHIFT, NO_PASID, PRIVILEGED, Requests, RowKind, new_rows
from vtd.batch.engine import run
from vtd.batch.outcomes import OUTCOMES, Outcomes
from vtd.batch.single import carry_out
from vtd.dmar.description import build as build_table
from vtd.layouts.entries import PasidEntry
from vtd.layouts.entries import PasidTranslationType as Kind
from vtd.layouts.registers import FaultRecording, FaultStatus, ProtectedMemoryEnable
from vtd.platform import Platform
from vtd.software.domain import Domain, DomainError
from vtd.software.driver import Driver
from vtd.software.registers import NoAnswerError
from vtd.unit.caching.cache import OFF, UNBOUNDED, Replacement, Shape
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.reporting.events import Event
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.unit import RemappingUnit

MEMORY = 1 << 28
TABLES, GUEST_TABLES, DATA = 0x10_0000, 0x400_0000, 0x800_0000
GUEST_POOL = 0x20_0000
SOURCES = (0x0008, 0x0010, 0x0100, 0x0101, 0x3FF8)
SCOPED = (0x0008, 0x0010, 0x0100)
"""Sources that a unit of their own may cover."""
REGISTERS = 0xFED9_0000
PASIDS = (1, 5, 0x41)
TYPES = (AddressType.TRANSLATION_REQUEST, AddressType.TRANSLATED)
BASES = (0, 1 << 30, 0x7F_C000_0000, 0x7FFF_FFE0_0000, 0xFEC0_0000)
HIGH = 0xFFFF_8000_0000_0000
STRAY = (0xFEE0_1000, 0xFFFF_FFFF_FFFF_F000, 1 << 47, 0x5555_AAAA_1234_5678)
ACCESSES = (0, 4, 5, READ | EXECUTE_REQUESTED, READ | NO_SNOOP, WRITE | NO_SNOOP, 0xFF)
STRANGE: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("address", STRAY),
    ("access", ACCESSES),
    ("attributes", (6, 7)),
    ("pasid", (1 << 20, 0xFFFFF, 0, 0x1234)),
    ("source_id", (0, 0xFFFF, 0x0108)),
    ("length", (0x4_0000, 3)),
)


DRIVER_ERRORS = BuildError, BusError, DomainError, NoAnswerError
"""What a driver meets whose tables are spoilt, as these lead anywhere."""


class Part(NamedTuple):
    """A unit, and who drives it."""

    unit: RemappingUnit
    driver: Driver
    attacher: Driver
    """Whose structures it uses: its own driver's, or those of the first unit."""


class World(NamedTuple):
    """A unit, or a platform of several, their memory, and who drives them."""

    machine: RemappingUnit | Platform
    parts: list[Part]
    covered: dict[int, int]
    """The unit of each source that another one than the last covers."""
    memory: PhysicalMemory
    frames: FramePool
    domains: dict[Domain, int]
    """With log2 of the largest page of each."""
    events: list[tuple[int, Event]]
    """By unit."""
    attached: list[tuple[int, int]]
    """Source-id and PASID."""
    mapped: list[int]
    """Addresses that some domain had something at."""
    ats: bool
    """Whether functions may have device-TLBs."""

    def part_of(self, source_id: int) -> Part:
        """The unit that covers a source."""
        return self.parts[self.covered.get(source_id, -1)]


def shape(draw: random.Random) -> Shape:
    """Any shape of a cache."""
    if draw.random() < 0.4:
        return draw.choice([UNBOUNDED, UNBOUNDED, OFF])
    return Shape(
        draw.choice([1, 2, 3, 8, 64]),
        draw.choice([1, 1, 2, 3, 8]),
        draw.choice(list(Replacement)),
        draw.randrange(5),
        draw.choice([0, 0, 1]),
    )


def policy(draw: random.Random) -> CachePolicy:
    """Any policy, mostly one that the kernel knows."""
    context, pasid = (UNBOUNDED if draw.random() < 0.7 else shape(draw) for _ in range(2))
    structures = OFF if draw.random() < 0.4 else shape(draw)
    made = CachePolicy(context, pasid, shape(draw), structures)
    if draw.random() < 0.04:
        return replace(AGGRESSIVE, iotlb=made.iotlb, paging_structure=structures)
    return made


def capabilities(draw: random.Random) -> Capabilities:
    """A profile, perhaps with more records."""
    known = PROFILES[draw.choice(["xeon", "xeon", "xeon", "viommu", "qemu", "client"])]
    if draw.random() < 0.3 and "smts" in known.features:
        known = replace(known, ecap=known.ecap.replace(smpwcs=False, ssads=False, eafs=False))
    return known


def build(draw: random.Random, *, watch: bool) -> World:
    """A machine; the same draws make the same one."""
    memory = PhysicalMemory()
    memory.add_region(0, MEMORY)
    apart = draw.sample(SCOPED, draw.choice([0, 0, 0, 1, 2]))
    alike = capabilities(draw) if draw.random() < 0.7 else None
    units = [
        RemappingUnit(alike or capabilities(draw), memory, Options(caches=policy(draw)))
        for _ in range(len(apart) + 1)
    ]
    machine = _platform(memory, units, apart) if apart else units[0]
    frames = FramePool(TABLES, GUEST_TABLES)
    covered = {source_id: number for number, source_id in enumerate(apart)}
    ats = draw.random() < 0.3
    world = World(machine, [], covered, memory, frames, {}, [], [], [], ats)
    sharing = alike is not None and draw.random() < 0.5
    for number, unit in enumerate(units):
        if watch:
            unit.subscribe(partial(_note, world.events, number))
        _add_part(draw, world, unit, sharing=sharing and number > 0)
    for source_id in SOURCES[: draw.randrange(3, len(SOURCES) + 1)]:
        driver = world.part_of(source_id).attacher
        _attach(draw, world, driver, source_id, None)
        if driver.scalable and "pasid" in driver.capabilities.features:
            for pasid in PASIDS[: draw.randrange(len(PASIDS) + 1)]:
                _attach(draw, world, driver, source_id, pasid)
    for part in world.parts:
        for domain in part.driver.domains.values():
            if domain.kind is Kind.SECOND_STAGE and draw.random() < 0.5:
                with suppress(DomainError):
                    part.driver.set_second_stage_dirty(domain, enabled=True)
    _spoil(draw, world)
    return world


def _note(events: list[tuple[int, Event]], number: int, event: Event) -> None:
    events.append((number, event))


def _platform(memory: PhysicalMemory, units: list[RemappingUnit], apart: list[int]) -> Platform:
    """A platform whose last unit covers all but a source of each other one."""
    lines, bases = [], [REGISTERS + number * 0x1000 for number in range(len(units))]
    for base in bases:
        lines += ["[[structure]]", 'type = "DRHD"', f"register_base = {base}"]
        if base == bases[-1]:
            lines.append('flags = ["include_pci_all"]')
            continue
        source_id = SourceId(apart[base - REGISTERS >> 12])
        lines += ["[[structure.scope]]", 'type = "pci_endpoint"', f"start_bus = {source_id.bus}"]
        lines.append(f'path = ["{source_id.device:02x}.{source_id.function}"]')
    table = build_table("\n".join(lines))
    return Platform(memory, Topology(), table, dict(zip(bases, units, strict=True)))


def _add_part(draw: random.Random, world: World, unit: RemappingUnit, *, sharing: bool) -> None:
    """Have a unit driven, with structures and domains of its own or those of the first unit."""
    features = unit.capabilities.features
    first = world.parts[0].attacher if sharing else None
    scalable = "smts" in features and draw.random() < 0.7
    driver = Driver(
        unit, world.memory, world.frames, scalable=first.scalable if first else scalable
    )
    if first is not None:
        driver.structures = first.structures
    driver.start()
    world.parts.append(Part(unit, driver, first or driver))
    if first is not None:
        return
    kinds = [Kind.SECOND_STAGE, Kind.SECOND_STAGE, Kind.PASS_THROUGH]
    if scalable:
        kinds = [Kind.SECOND_STAGE, Kind.FIRST_STAGE, Kind.NESTED, Kind.NESTED, Kind.PASS_THROUGH]
    for _ in range(draw.randrange(2, 5)):
        _add_domain(draw, world, driver, draw.choice(kinds))


def _add_domain(draw: random.Random, world: World, driver: Driver, kind: Kind) -> None:
    second, guest_frames = None, None
    try:
        if kind is Kind.NESTED:
            below = draw.choice([12, 21, 30])
            second = driver.domain(Kind.SECOND_STAGE, largest=below)
            world.domains[second] = below
            at = GUEST_TABLES + len(world.domains) * GUEST_POOL
            guest_frames = FramePool(at, at + GUEST_POOL)
            if below == PAGE_SHIFT:
                second.map(at, at, GUEST_POOL, READ | WRITE)
                second.map(DATA, DATA, 4 << 20, READ | WRITE)
            else:
                second.map(0, 0, MEMORY, READ | WRITE)
        largest = draw.choice([12, 12, 21, 30])
        domain = driver.domain(
            kind,
            levels=draw.choice([None, None, None, 5]) if kind is not Kind.PASS_THROUGH else None,
            largest=largest,
            second=second,
            guest_frames=guest_frames,
        )
    except DomainError:
        return
    world.domains[domain] = largest
    if kind is not Kind.PASS_THROUGH:
        for _ in range(draw.randrange(6, 14)):
            change(draw, world, domain, unmapping=False)


def _attach(
    draw: random.Random, world: World, driver: Driver, source_id: int, pasid: int | None
) -> None:
    domains = [*driver.domains.values()]
    if domains:
        try:
            ats = world.ats and "dt" in driver.capabilities.features
            driver.attach(source_id, draw.choice(domains), pasid, ats=ats)
        except DomainError:
            return
        world.attached.append((source_id, NO_PASID if pasid is None else pasid))
        if pasid is not None and "srs" in driver.capabilities.features and draw.random() < 0.7:
            at = driver.structures.pasid_entry(source_id, pasid)
            entry = PasidEntry(world.memory.read_record(at, PasidEntry.WIDTH // 8))
            driver.structures.store(at, entry.replace(sre=True))


def change(draw: random.Random, world: World, domain: Domain, *, unmapping: bool) -> None:
    """Map or unmap something, perhaps in the tables only."""
    large = draw.random() < 0.2 and world.domains[domain] > PAGE_SHIFT
    length = 1 << world.domains[domain] if large else draw.randrange(1, 40) << 12
    base = draw.choice(BASES) + (0 if large else draw.randrange(0x20) << 12)
    target = 0 if large else DATA + (draw.randrange(0x400) << 12)
    if draw.random() < 0.03:
        target = 0xFEE0_0000
    if domain.kind in (Kind.FIRST_STAGE, Kind.NESTED) and draw.random() < 0.3:
        base |= HIGH
    if not large and world.mapped and draw.random() < 0.5:
        base = draw.choice(world.mapped) & ~0xFFF
    rights = draw.choice([READ, WRITE, WRITE, *[READ | WRITE] * 4])
    user = draw.random() < 0.8
    try:
        if not unmapping:
            domain.map(base, target, length, rights, user=user)
            world.mapped.append(base + draw.randrange(length))
        elif draw.random() < 0.6:
            domain.tables.unmap(base, length)
        else:
            domain.unmap(base, length)
    except DRIVER_ERRORS:
        return


def _spoil(draw: random.Random, world: World) -> None:
    """Flip bits of table entries."""
    used = world.frames.used
    for _ in range(draw.choice([0, 0, 0, 1, 5, 30])):
        frame = draw.choice([TABLES + (draw.randrange(used) << 12), GUEST_TABLES + GUEST_POOL])
        entries = world.memory.frames[frame >> 12]
        filled = [index for index in range(512) if entries[index]]
        if filled:
            at = frame + draw.choice(filled) * 8
            word = world.memory.read_record(at, 8) ^ 1 << draw.randrange(64)
            world.memory.write(at, word.to_bytes(8, "little"))


def requests(draw: random.Random, world: World, count: int) -> Requests:
    """Rows of requests, some of them strange, with changes between them."""
    rows = new_rows(count)
    rare = draw.choice([0.0, 0.002, 0.01, 0.05])
    known = world.mapped or [0]
    few = [
        draw.choice(known) + (draw.randrange(-2, 3) << 12) & (1 << 64) - 1
        if draw.random() < 0.95
        else draw.choice(BASES) + (draw.randrange(0x28) << 12)
        for _ in range(draw.choice([2, 8, 60, 400]))
    ]
    stray = draw.choice([0.0, 0.02, 0.3])
    asking = draw.choice([0.0, 0.05, 0.3]) if world.ats else draw.choice([0.0, 0.002])
    changes = draw.choice([0, 0, 0.002, 0.02, 0.1])
    empty = draw.choice([0.02, 0.02, 0.2])
    source, pasid = SOURCES[0], NO_PASID
    for number in range(count):
        if draw.random() < 0.3:
            source, pasid = draw.choice(world.attached or [(8, NO_PASID)])
            if draw.random() < stray:
                source = draw.choice(SOURCES)
                pasid = draw.choice(PASIDS) if draw.random() < 0.3 else NO_PASID
        address = draw.choice(few) & ~0xFFF | draw.choice([0, 8, 0x100, draw.randrange(0x1000)])
        length = draw.choice([4, 8, 64, 256])
        if draw.random() < 0.1:
            length = draw.choice([1, 0x1000, 0x3001, 0x8000])
        elif draw.random() < empty:
            length = 0
        access = draw.choice([READ, READ, WRITE])
        attributes = PRIVILEGED if pasid != NO_PASID and draw.random() < 0.15 else 0
        if draw.random() < 0.05:
            access, length = ATOMIC, draw.choice([4, 8, 8, 0])
            address &= ~7
        if draw.random() < asking:
            attributes |= draw.choice(TYPES) << ADDRESS_TYPE_SHIFT
            access, length = draw.choice([(READ, 8), (READ, 8), (access, length)])
        row = {
            "time": number,
            "address": address,
            "length": length,
            "pasid": pasid,
            "source_id": source,
            "access": access,
            "attributes": attributes,
        }
        if draw.random() < rare:
            row |= _strange(draw)
        if draw.random() < changes:
            row["kind"] = draw.choice(
                [RowKind.MAP, RowKind.UNMAP, RowKind.INVALIDATE, RowKind.MARKER]
            )
        for name, value in row.items():
            rows[number][name] = value
    return rows


def _strange(draw: random.Random) -> dict[str, int]:
    """Columns of a row that no device should send, or few."""
    name, values = draw.choice(STRANGE)
    found = {name: draw.choice(values)}
    if name != "address" and draw.random() < 0.3:
        found["address"] = draw.choice(STRAY)
    return found


def software(world: World, seed: int) -> Any:
    """Somebody who changes something at a row; the same for the same row."""

    def act(row: Any) -> None:
        draw = random.Random(seed * 1_000_003 + int(row["time"]))
        tables = [each for each in world.domains if each.levels]
        if row["kind"] != RowKind.INVALIDATE and tables and draw.random() < 0.9:
            domain = draw.choice(tables)
            change(draw, world, domain, unmapping=row["kind"] == RowKind.UNMAP)
        else:
            action = draw.choices(ACTIONS, ACTION_WEIGHTS)[0]
            with suppress(*DRIVER_ERRORS):
                action(draw, world, draw.choice(world.parts))

    return act


def _invalidate_pages(draw: random.Random, world: World, part: Part) -> None:
    hint, domain_id = draw.random() < 0.5, draw.randrange(1, 5)
    part.unit.caches.invalidate_iotlb_pages(domain_id, *_range(draw), hint=hint)


def _invalidate_pasid_pages(draw: random.Random, world: World, part: Part) -> None:
    hint, domain_id, pasid = draw.random() < 0.5, draw.randrange(1, 5), draw.choice((0, *PASIDS))
    part.unit.caches.invalidate_pasid_iotlb_pages(domain_id, pasid, *_range(draw), hint=hint)


def _protect(draw: random.Random, world: World, part: Part) -> None:
    if ProtectedMemoryEnable in part.unit.registers:
        enable = ProtectedMemoryEnable.of(epm=draw.random() < 0.5)
        part.unit.write_register(ProtectedMemoryEnable.OFFSET or 0, 4, enable)


def _replace_memory(draw: random.Random, world: World, part: Part) -> None:
    world.memory.remove_range(DATA + 0x100_0000, DATA + 0x110_0000)
    world.memory.add_region(DATA + 0x100_0000, 0x10_0000)


def _reset(draw: random.Random, world: World, part: Part) -> None:
    part.unit.reset()
    part.driver.resume()


def _clear_faults(draw: random.Random, world: World, part: Part) -> None:
    unit = part.unit
    for index in range(unit.capabilities.fault_records):
        at = unit.registers.offset(FaultRecording, index) + 12
        unit.write_register(at, 4, 1 << 31)
    unit.write_register(FaultStatus.OFFSET or 0, 4, 0xFFFF_FFFF)


ACTIONS, ACTION_WEIGHTS = zip(
    (lambda draw, world, part: part.unit.caches.invalidate_iotlb_domain(draw.randrange(1, 5)), 6),
    (lambda draw, world, part: part.unit.caches.invalidate_context_global(), 2),
    (lambda draw, world, part: part.unit.caches.invalidate_pasid_global(), 2),
    (_invalidate_pages, 4),
    (_invalidate_pasid_pages, 4),
    (lambda draw, world, part: part.unit.caches.invalidate_iotlb_global(), 1),
    (_clear_faults, 1),
    (lambda draw, world, part: world.memory.snapshot(), 1),
    (lambda draw, world, part: part.unit.restore(part.unit.snapshot()), 1),
    (lambda draw, world, part: _spoil(draw, world), 2),
    (_protect, 0.5),
    (_replace_memory, 0.5),
    (_reset, 0.2),
    strict=True,
)
"""What happens between requests, and how often."""


def _range(draw: random.Random) -> tuple[int, int]:
    size = 1 << draw.choice([12, 12, 14, 21, 30])
    start = draw.choice(BASES) & -size
    return start, start + size


def plain(value: Any) -> Any:
    """A state in which faults are equal if they say the same."""
    if isinstance(value, TranslationFault):
        return "fault", value.reason, value.fpd
    if isinstance(value, tuple | list):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


class Result(NamedTuple):
    """What a trial compared, and where the two differ."""

    requests: int
    hits: int
    refused: int
    differences: list[str]


def one_by_one(world: World, rows: Requests, act: Any) -> Outcomes:
    """The outcomes of the unit, which carries out every row itself."""
    outcomes = np.zeros(len(rows), OUTCOMES)
    for row, outcome in zip(rows, outcomes, strict=True):
        if row["kind"] == RowKind.DMA:
            carry_out(world.part_of(int(row["source_id"])).unit, row, outcome)
        elif row["kind"] != RowKind.MARKER:
            act(row)
    return outcomes


def trial(seed: int, count: int) -> Result:
    """One trial of so many rows."""
    draw = random.Random(seed)
    watch = draw.random() < 0.3
    here, there = (build(random.Random(seed + 1), watch=watch) for _ in range(2))
    rows = requests(draw, here, count)
    differences = []
    at, parts = 0, []
    while at < count:
        size = draw.choices([1, 100, count], [1, 3, 9])[0]
        part = rows[at : at + size]
        at += size
        parts.append((run(here.machine, part, software(here, seed)), part))
        expected = one_by_one(there, part, software(there, seed))
        wrong = np.flatnonzero(parts[-1][0] != expected)
        if len(wrong):
            first = wrong[0]
            differences.append(
                f"row {part[first]}: {parts[-1][0][first]}, by the unit {expected[first]}"
            )
            break
        for number, units in enumerate(zip(*(world.parts for world in (here, there)), strict=True)):
            for name in RemappingUnit.STATE:
                ours, theirs = (_state(getattr(each.unit, name)) for each in units)
                if ours != theirs:
                    differences.append(f"unit {number}, {name}: {_where(ours, theirs)}")
        if differences:
            break
    if here.memory.snapshot() != there.memory.snapshot():
        differences.append("memory")
    if here.events != there.events:
        differences.append("events")
    outcomes = np.concatenate([each for each, _ in parts])
    dma = np.concatenate([each for _, each in parts])["kind"] == RowKind.DMA
    return Result(
        int(dma.sum()),
        int(outcomes["hit"].sum()),
        int((outcomes["status"] == 2).sum()),
        differences,
    )


def _state(part: Any) -> Any:
    return plain(part.snapshot()) if hasattr(part, "snapshot") else part


def _where(ours: Any, theirs: Any) -> str:
    """The first part in which two states differ."""
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                return f"{number}, {_where(one, other)}"
    return f"{str(ours)[:600]} is not {str(theirs)[:600]}"


def main() -> int:
    """Compare until there are enough, or Ctrl-C; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=3000, help="of each trial")
    options = parser.parse_args()
    seed, done, hits, refused, wrong = options.seed, 0, 0, 0, 0
    with suppress(KeyboardInterrupt):
        while done < options.requests:
            result = trial(seed, options.rows)
            seed, done = seed + 1, done + result.requests
            hits, refused = hits + result.hits, refused + result.refused
            wrong += bool(result.differences)
            for difference in result.differences:
                print(f"seed {seed - 1}: {difference}", file=sys.stderr)
            print(f"{done} requests, {wrong} trials differ", file=sys.stderr)
    counts = {"requests": done, "hits": hits, "refused": refused, "differences": wrong}
    print(json.dumps({**counts, "trials": seed - options.seed}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
