"""What a guest that is a host itself costs whoever emulates its unit, counted for each operation.

    python -m scripts.guest_traffic [KERNEL]

boots a kernel (as ``vtd live boot`` names them) four times, CM = 0 and 1, strict and lazy. In the
guest, VFIO type 1 maps and unmaps memory for one device, and a driver uses a disk by the DMA API.
For each operation the table says how many writes of registers reached the unit, and how many
invalidations of the IOTLB: by page, and of whole domains or everything. An emulator is entered for
a write; a descriptor costs it no further entry. Reads, of the fault status while software waits,
depend on how soon the emulator answers, and are not counted.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from devices.models.edu import Edu, EduRegister
from pagetables.bits import BitRecord
from vtd.commands.live_guest import make_guest, store
from vtd.layouts.descriptors import IotlbInvalidateDescriptor
from vtd.layouts.registers import IotlbGranularity
from vtd.live.boot import Boot, Guest, run
from vtd.live.cells import STRICT
from vtd.live.judgement import findings
from vtd.live.machine import LiveMachine
from vtd.live.machine_parts import disk, edu, unit
from vtd.unit.observer import Observer

OPERATION = re.compile(r"operation (\d+) (\d+) (.*)")
WAYS = {"strict": STRICT, "lazy": "iommu.strict=0"}


class Operation(NamedTuple):
    """What the guest does over and over."""

    number: int
    rounds: int
    name: str


class Cost(NamedTuple):
    """What one operation costs, on average."""

    writes: float
    pages: float
    wholes: float

    def __str__(self) -> str:
        return " / ".join(f"{round(each, 2):g}" for each in self)


@dataclass
class Traffic(Observer):
    """Counts what reaches a unit while an edu device holds the number of an operation."""

    operating: Edu

    def __post_init__(self) -> None:
        self.writes: Counter[int] = Counter()
        self.pages: Counter[int] = Counter()
        self.wholes: Counter[int] = Counter()

    @property
    def _number(self) -> int:
        return ~self.operating.read(EduRegister.LIVENESS, 4) & 0xFFFF_FFFF

    def register_written(self, offset: int, size: int, value: int) -> None:
        """Software has written to a register."""
        self.writes[self._number] += 1

    def invalidated(self, command: BitRecord) -> None:
        """An invalidation has been carried out."""
        if isinstance(command, IotlbInvalidateDescriptor):
            paged = command.g == IotlbGranularity.PAGE_IN_DOMAIN
            (self.pages if paged else self.wholes)[self._number] += 1

    def cost(self, operation: Operation) -> Cost:
        """Of one round."""
        number, rounds, _ = operation
        return Cost(*(each[number] / rounds for each in (self.writes, self.pages, self.wholes)))


def counted(guest: Guest, caching_mode: int, append: str) -> Iterator[tuple[Operation, Cost]]:
    """Boot once; what each operation cost. RuntimeError if something went wrong."""
    machine = unit("qemu", {"cm": caching_mode}) + disk() + edu()
    seen: list[Traffic] = []

    def watch(live: LiveMachine) -> None:
        (device,) = (each for each in live.platform.topology.functions() if isinstance(each, Edu))
        for each in live.platform.units.values():
            seen.append(Traffic(device))
            each.observe(seen[-1])

    boot = Boot(machine, ("units", "traffic"), append, caches="aggressive")
    outcome = run(guest, boot, time.monotonic_ns, watch=watch)
    problems = list(findings(outcome))
    if problems:
        raise RuntimeError("; ".join(problems))
    for note in outcome.notes:
        found = OPERATION.fullmatch(note)
        if found:
            operation = Operation(int(found[1]), int(found[2]), found[3])
            yield operation, seen[0].cost(operation)


def rows(costs: dict[str, dict[Operation, Cost]]) -> Iterator[list[str]]:
    """The table, its head first."""
    yield ["operation", *costs]
    for operation in next(iter(costs.values())):
        yield [operation.name, *(str(each[operation]) for each in costs.values())]


def main(arguments: Sequence[str] | None = None) -> None:
    """Boot, count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernel", nargs="?")
    kernel = store().find_kernel(parser.parse_args(arguments).kernel)
    guest = make_guest(None, kernel, None)
    costs = {}
    for caching_mode in (0, 1):
        for way, append in WAYS.items():
            name = f"CM = {caching_mode}, {way}"
            print(f"{kernel.release}: {name}", file=sys.stderr)
            costs[name] = dict(counted(guest, caching_mode, append))
    table = list(rows(costs))
    table.insert(1, ["---"] * len(table[0]))
    for row in table:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
