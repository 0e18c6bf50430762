"""What a device model, software and a command pay: ``scripts/bench [--format json]``.

``--before REVISION`` runs the benchmark of that revision in turns with this one.

A device behind a root port reads 64 bytes through its unit, which a driver has set up as an
operating system would. Every case runs in every round, so that a machine that slows down slows all
of them; a figure is the median over the rounds of its CPU time, also as a multiple of an empty
method call with three arguments in the same round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from resource import RUSAGE_CHILDREN, getrusage
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from devices.capabilities import PortType
from devices.dma import READ, WRITE
from devices.function import Identity, PciFunction
from devices.topology import Bridge, Topology
from pagetables.build import FramePool
from pagetables.extents import leaves
from pagetables.geometry import second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage
from scripts import bench_before, bench_devices, bench_dmar, bench_guest, bench_nic
from vtd.auditing.unit_audit import UnitAudit
from vtd.dmar.description import build as build_table
from vtd.layouts.descriptors import IotlbInvalidateDescriptor
from vtd.layouts.entries import PasidTranslationType as Kind
from vtd.layouts.registers import (
    InvalidationQueueAddress,
    InvalidationQueueHead,
    InvalidationQueueTail,
    IotlbGranularity,
)
from vtd.platform import Platform
from vtd.software.domain import Domain
from vtd.software.driver import Driver
from vtd.unit.caching.cache import UNBOUNDED, Shape
from vtd.unit.caching.policy import KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import PROFILES, Capabilities

if TYPE_CHECKING:
    from scripts.bench_batch import Cost

PAGES = 4096
BATCH = 16
"""Descriptors that software puts into the queue before it moves the tail."""
IOVA = 1 << 32
TARGET = 1 << 28
MEMORY = 1 << 30
FRAMES = MEMORY >> 12
LENGTH = 64

LRU_64 = CachePolicy(iotlb=Shape(ways=64))
EIGHT_BY_EIGHT = CachePolicy(iotlb=Shape(ways=8, sets=8))
WITH_STRUCTURES = CachePolicy(paging_structure=UNBOUNDED)
TABLE = """
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
"""


class Case(NamedTuple):
    """Something to time: ``run`` does ``operations`` of it, after ``prepare``."""

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


class Machine(NamedTuple):
    """A platform with one function behind a root port, and the driver of its unit."""

    platform: Platform
    function: PciFunction
    driver: Driver
    domain: Domain

    def clear_iotlb(self) -> None:
        """As a global invalidation does."""
        for unit in self.platform.units.values():
            unit.caches.invalidate_iotlb_global()


def machine(
    kind: Kind = Kind.SECOND_STAGE,
    policy: CachePolicy = KEEPS_STALE,
    *,
    scalable: bool = True,
    pages: int = PAGES,
    capabilities: Capabilities = PROFILES["xeon"],
) -> Machine:
    """A machine whose function may use ``pages`` pages of 4 KiB from ``IOVA`` on."""
    memory = PhysicalMemory()
    memory.add_region(0, MEMORY)
    topology = Topology()
    port = Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.ROOT_PORT)
    topology.add(port, topology.add_root_bus(), 0x1C)
    function = PciFunction(Identity(0x8086, 0x10C9, 0x020000))
    topology.add(function, topology.bus_behind(port), 0)
    topology.assign_bus_numbers()
    platform = Platform.build(
        memory,
        topology,
        build_table(TABLE),
        capabilities,
        Options(caches=policy),
    )
    port.command.value = port.command.value.replace(bme=True, mse=True)
    function.command.value = function.command.value.replace(bme=True)
    unit = platform.unit_of(function)
    frames = FramePool(0x10_0000, 0x800_0000)
    driver = Driver(unit, memory, frames, scalable=scalable)
    driver.start()
    second = None
    if kind is Kind.NESTED:
        second = driver.domain(Kind.SECOND_STAGE, largest=12)
        second.map(0, 0, MEMORY, READ | WRITE)
    guest_frames = FramePool(0x800_0000, TARGET) if second else None
    domain = driver.domain(kind, largest=12, second=second, guest_frames=guest_frames)
    domain.map(IOVA, TARGET, pages << 12, READ | WRITE)
    driver.attach(topology.requester_id(function), domain)
    return Machine(platform, function, driver, domain)


class Empty:
    """What everything is compared with."""

    def method(self, one: int, two: int, three: int) -> None:
        """Do nothing with three arguments."""


def empty_calls(count: int = 100_000) -> Callable[[], None]:
    """The empty method call with three arguments."""
    method = Empty().method

    def run() -> None:
        for _ in range(count):
            method(1, 2, 3)

    return run


def reads(machine: Machine, addresses: list[int], repeat: int = 1) -> Callable[[], None]:
    """The device reads 64 bytes at each address."""
    read = machine.function.dma.read
    if not all(read(address, LENGTH).ok for address in addresses[:2]):
        raise RuntimeError("the device can't read what the driver mapped for it")

    def run() -> None:
        for _ in range(repeat):
            for address in addresses:
                read(address, LENGTH)

    return run


def faults(machine: Machine, count: int) -> Callable[[], None]:
    """The device reads where nothing is mapped."""
    read = machine.function.dma.read

    def run() -> None:
        for number in range(count):
            read(number << 12, LENGTH)

    return run


def device_cases() -> Iterator[Case]:
    """What a device's read of 64 bytes costs."""
    order = [IOVA + (page << 12) + 0x100 for page in range(PAGES)]
    few, shuffled = order[:32], order[:]
    random.Random(1).shuffle(shuffled)
    for name, policy in (("", KEEPS_STALE), (" lru64", LRU_64), (" 8x8", EIGHT_BY_EIGHT)):
        run = reads(machine(policy=policy), few, 200)
        yield Case(f"device read hit{name}", run, 200 * len(few))
    legacy = machine(scalable=False)
    yield Case("device read hit legacy", reads(legacy, few, 200), 200 * len(few))
    for name, kind, policy, part in (
        ("device read miss", Kind.SECOND_STAGE, KEEPS_STALE, PAGES),
        ("device read miss psc", Kind.SECOND_STAGE, WITH_STRUCTURES, PAGES),
        ("device read miss first-stage", Kind.FIRST_STAGE, KEEPS_STALE, PAGES),
        ("device read miss uncached", Kind.SECOND_STAGE, UNCACHED, PAGES),
        ("device read miss nested", Kind.NESTED, UNCACHED, 512),
    ):
        world = machine(kind, policy)
        yield Case(name, reads(world, shuffled[:part]), part, world.clear_iotlb)


def fault_cases() -> Iterator[Case]:
    """What a blocked request costs, with a record and with all of them in use."""
    xeon = PROFILES["xeon"]
    many = replace(xeon, cap=xeon.cap.replace(nfr=RECORDS - 1, fro=0x2000))
    world = machine(capabilities=many)
    (unit,) = world.platform.units.values()
    status, fresh = unit.registers, unit.faults.snapshot()
    empty = unit.registers.snapshot()

    def clear() -> None:
        status.restore(empty)
        unit.faults.restore(fresh)

    yield Case("fault recorded", faults(world, RECORDS), RECORDS, clear)
    full = machine()
    faults(full, 64)()
    yield Case("fault overflow", faults(full, 1000), 1000)


RECORDS = 256
"""As many fault records as CAP.NFR can tell of."""


def software_cases() -> Iterator[Case]:
    """What software pays: one page invalidated, a domain listed, a platform forked."""
    world = machine(pages=65536)
    read, (unit,) = world.function.dma.read, world.platform.units.values()
    addresses = [IOVA + (page << 12) for page in range(65536)]
    queue = unit.registers[InvalidationQueueAddress]
    tail = unit.registers[InvalidationQueueTail].qt
    tails = [(tail + 32 * number) % 0x1000 for number in range(1, 65)]
    for number, address in enumerate(addresses[::1024]):
        descriptor = IotlbInvalidateDescriptor.of(
            g=IotlbGranularity.PAGE_IN_DOMAIN, did=world.domain.domain_id, addr=address
        )
        at = queue.iqa + (tail + 32 * number) % 0x1000
        world.platform.memory.write(at, int(descriptor).to_bytes(32, "little"))

    def fill() -> None:
        for address in addresses:
            read(address, 1)
        unit.registers[InvalidationQueueHead] = InvalidationQueueHead.of(qh=tail)
        unit.registers[InvalidationQueueTail] = InvalidationQueueTail.of(qt=tail)

    def invalidate() -> None:
        for each in tails[BATCH - 1 :: BATCH]:
            unit.write_register(0x88, 4, each)  # IQT_REG

    yield Case("invalidate page", invalidate, len(tails), fill)
    geometry = second_stage_geometry(world.domain.levels, PROFILES["xeon"].implementation)
    stage = Stage(geometry, world.domain.root >> 12)

    def show() -> None:
        for _ in leaves(world.platform.memory, stage, width=48):
            pass

    yield Case("list page", show, len(addresses))
    if find_spec("numpy") is not None:
        from pagetables.columns import columns  # noqa: PLC0415 - not installed everywhere

        def show_columns() -> None:
            for _ in columns(world.platform.memory, stage, width=48):
                pass

        yield Case("list page numpy", show_columns, len(addresses))
    blank = PhysicalMemory()

    def renew() -> None:
        for region in blank.regions:
            blank.remove_region(region.start)
        blank.add_region(0, MEMORY)

    def store() -> None:
        for number in range(1000):
            blank.write(number << 12, b"x")

    yield Case("first frame write", store, 1000, renew)
    big = machine(pages=16)
    ram = big.platform.memory
    for number in range(FRAMES):
        ram.write(number << 12 | 0xFF8, bytes(8))
    kept = [big.platform.fork()]

    def change() -> None:
        for number in range(1000):
            ram.write(TARGET + (number << 12), b"x")

    def fork() -> None:
        kept[0] = big.platform.fork()

    yield Case("fork", fork, 1, change)


def audit_cases() -> Iterator[Case]:
    """What a DMA and a store to a table cost, watched by the audits and by nobody."""
    for name, audited in (("", False), (" audited", True)):
        world = machine()
        (unit,) = world.platform.units.values()
        if audited:
            UnitAudit(unit)
        few = [IOVA + (page << 12) for page in range(32)]
        yield Case(f"read beside a driver{name}", reads(world, few, 20), 20 * len(few))
        memory, root = world.platform.memory, world.domain.root
        entry = memory.read(root, 8)

        def store(memory: PhysicalMemory = memory, root: int = root, entry: bytes = entry) -> None:
            for _ in range(2000):
                memory.write(root, entry)

        yield Case(f"table write{name}", store, 2000)


def start_cases() -> Iterator[Case]:
    """The start of the command, and of the interpreter alone."""
    for name, arguments in (("python", ["-c", "pass"]), ("help", ["-m", "vtd.cli", "--help"])):
        yield Case(name, partial(start, arguments), 1)


def start(arguments: list[str]) -> None:
    """Run this interpreter and throw its output away."""
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)


def measure(rounds: int, progress: Callable[[str], None]) -> list[Figure]:
    """Time every case in every round."""
    empty, count = empty_calls(), 100_000
    others = (
        Case(*each)
        for each in (*bench_devices.runners(), *bench_nic.runners(), *bench_guest.runners())
    )
    chosen = [*device_cases(), *fault_cases(), *software_cases(), *audit_cases()]
    chosen += [*others, *start_cases()]
    times: dict[str, list[tuple[float, float]]] = {case.name: [] for case in chosen}
    baseline = []
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for case in chosen:
            call = seconds(empty) / count
            baseline.append(call)
            case.prepare()
            cost = seconds(case.run) / case.operations
            times[case.name].append((cost * 1e6, cost / call))
    figures = [Figure("empty call", statistics.median(baseline) * 1e6, 1.0)]
    for name, values in times.items():
        costs, ratios = zip(*values, strict=True)
        figures.append(Figure(name, statistics.median(costs), statistics.median(ratios)))
    return figures


def seconds(run: Callable[[], object]) -> float:
    """CPU time of one run, of processes that it starts and waits for as well."""
    start = _cpu()
    run()
    return _cpu() - start


def _cpu() -> float:
    children = getrusage(RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", metavar="REVISION", help="compare with the cases of a revision")
    options = parser.parse_args()
    if options.before is not None:
        return print_changes(options.before, options.rounds, as_json=options.format == "json")
    figures = measure(options.rounds, _tell)
    tables = bench_dmar.measure()
    batch = batch_costs(options.rounds)
    if options.format == "json":
        rows: list[Figure | bench_dmar.Measured | Cost] = [*figures, *tables, *batch]
        print(json.dumps([each._asdict() for each in rows]))
        return 0
    shown = Table("case", "us", "x empty call")
    for figure in figures:
        shown.add_row(figure.name, f"{figure.microseconds:.3f}", f"{figure.empty_calls:.1f}")
    Console().print(shown)
    dmar = Table("DMAR table library", "ms", "target ms")
    for measured in tables:
        dmar.add_row(measured.name, f"{measured.milliseconds:.2f}", f"{measured.target:g}")
    Console().print(dmar)
    if batch:
        requests = Table("request in an array", "ns")
        for cost in batch:
            requests.add_row(cost.name, f"{cost.nanoseconds:.1f}")
        Console().print(requests)
    return 0


def batch_costs(rounds: int) -> list[Cost]:
    """What requests cost in arrays of them, if the ``batch`` extra is installed."""
    if find_spec("numba") is None or find_spec("numpy") is None:
        _tell("batch: not measured, needs the batch extra")
        return []
    from scripts import bench_batch  # noqa: PLC0415 - not installed everywhere

    return bench_batch.measure(machine, IOVA, rounds, _tell)


def print_changes(revision: str, rounds: int, *, as_json: bool) -> int:
    """Print the cases of a revision beside those of this tree; 2 if it can't be measured."""
    try:
        changes = bench_before.compare(revision, rounds, _tell)
    except bench_before.RevisionError as error:
        _tell(str(error))
        return 2
    if as_json:
        print(json.dumps([{**each._asdict(), "times": each.times} for each in changes]))
        return 0
    shown = Table("x empty call", revision, "now", "times as fast")
    for each in changes:
        values = (each.before, each.after, each.times)
        shown.add_row(each.name, *("no such case" if v is None else f"{v:.1f}" for v in values))
    Console().print(shown)
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
