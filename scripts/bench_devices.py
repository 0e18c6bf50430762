"""What :mod:`scripts.bench` times of device models: I/OAT copies beside their own requests.

By itself, with the rates and the memory of a machine of 64 functions: ``python -m
scripts.bench_devices``.
"""

from __future__ import annotations

import argparse
import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from devices.function import BME
from devices.models import MODELS
from devices.models.ioat import IoatEngine
from devices.models.ioat_structures import DESCRIPTOR_SIZE, ChannelState, Descriptor
from pagetables.build import FramePool
from vtd.machine.assembly import Assembly, assemble
from vtd.machine.description import read_machine
from vtd.software.driver import Driver

ENGINE = """
[[memory]]
start = 0
size = "64 MiB"

[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true

[[function]]
name = "ioat"
at = "00:04.0"
model = "ioat"
bus_master = true
"""
TABLES, RING, SOURCE, DESTINATION = 0x10_0000, 0x40_0000, 0x80_0000, 0x100_0000
CHANNEL, DMACOUNT, CHANSTS, CHAINADDR = 0x80, 0x06, 0x08, 0x10
SIZE = 4096
FUNCTIONS, PORTS = 64, 8


@dataclass(frozen=True)
class Copies:
    """An engine behind a unit, with a ring of ``count`` copies of 4 KiB."""

    engine: IoatEngine
    count: int

    def copy(self) -> None:
        """Let the engine carry the ring out."""
        bar = self.engine.bars[0]
        bar.write(CHANNEL + CHAINADDR, 8, RING)
        bar.write(CHANNEL + DMACOUNT, 2, self.count)
        self.engine.clock.advance(self.count * self.engine.descriptor_nanoseconds)
        if bar.read(CHANNEL + CHANSTS, 8) & 7 != ChannelState.DONE:
            raise RuntimeError("the engine has stopped")

    def requests(self) -> None:
        """The requests of the same copies, sent by hand."""
        dma = self.engine.dma
        for number in range(self.count):
            dma.read(RING + DESCRIPTOR_SIZE * number, DESCRIPTOR_SIZE)
            data = dma.read(SOURCE + SIZE * number, SIZE).data
            dma.write(DESTINATION + SIZE * number, data)


def copies(count: int) -> Copies:
    """A machine with an engine whose ring and buffers are mapped."""
    assembly = assemble(read_machine(ENGINE))
    memory, engine = assembly.platform.memory, assembly.functions["ioat"]
    assert isinstance(engine, IoatEngine)
    driver = Driver(assembly.platform.unit_of(engine), memory, FramePool(TABLES, RING))
    driver.start()
    domain = driver.domain()
    driver.attach(assembly.platform.topology.requester_id(engine), domain)
    domain.map(RING, RING, 0x200_0000)
    for number in range(count):
        at = RING + DESCRIPTOR_SIZE * number
        descriptor = Descriptor.of(
            size=SIZE,
            source=SOURCE + SIZE * number,
            destination=DESTINATION + SIZE * number,
            next=at + DESCRIPTOR_SIZE,
        )
        memory.write(at, descriptor.pack())
    return Copies(engine, count)


def runners(count: int = 512) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, what to run, and how many operations that is."""
    made = copies(count)
    yield "I/OAT copy of 4 KiB", made.copy, count
    yield "  its three requests by hand", made.requests, count


def large_machine() -> Assembly:
    """A machine of 64 functions of all kinds behind 8 switches, each with bus mastering on."""
    models = itertools.cycle(sorted(MODELS))
    lines = [ENGINE]
    for switch in range(FUNCTIONS // PORTS):
        lines += [
            f'[[bridge]]\nname = "root{switch}"\nat = "00:{switch + 8:02x}.0"',
            'kind = "root_port"\nacs = true',
            f'[[switch]]\nname = "switch{switch}"\nat = "root{switch}/00.0"\nports = {PORTS}',
        ]
        lines += [
            f'[[function]]\nat = "switch{switch}.{port}/00.0"\nmodel = "{next(models)}"\n'
            "bus_master = true\n"
            for port in range(PORTS)
        ]
    return assemble(read_machine("\n".join(lines)))


def memory_of_large_machine() -> float:
    """MiB that Python objects of such a machine take, beyond what its software writes to memory."""
    tracemalloc.start()
    try:
        assembly = large_machine()
        used = tracemalloc.get_traced_memory()[0]
        for function in assembly.functions.values():
            if not function.command.value & BME:
                raise RuntimeError("a function can't do DMA")
        return used / (1 << 20)
    finally:
        tracemalloc.stop()


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_rates(runners())
    print(f"machine of {FUNCTIONS} functions: {memory_of_large_machine():.1f} MiB")


def print_rates(runners: Iterable[tuple[str, Callable[[], object], int]]) -> None:
    """The best of five runs of each, in operations a second."""
    for name, run, operations in runners:
        best = min(_cost(run) for _ in range(5)) / operations
        print(f"{name}: {best * 1e6:.1f} us, {1 / best:,.0f} a second")


def _cost(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
