"""What an access of a guest to a served register costs, beside a round trip that does nothing.

``python -m scripts.bench_live [--count N]``: a child process serves functions and, on a socket
beside theirs in the same event loop, answers with as many bytes as the answer of a register has.
The parent is the client of both, in turns, and prints the median time of each and their ratio.
Where the operating system runs the two processes decides most of either time: ``taskset -c 0``
in front keeps them on one processor.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from pathlib import Path
from statistics import median

from devices.clock import Clock
from devices.models.edu import Edu
from devices.topology import Topology
from pagetables.memory import PhysicalMemory
from vtd.dmar.records import Drhd, DrhdFlags, Header
from vtd.dmar.table import Table
from vtd.live import messages as m
from vtd.live.machine import LiveMachine
from vtd.live.server import Server
from vtd.platform import Platform
from vtd.unit.registers.capabilities import PROFILES

BASE = 0xFD00_0000
BATCH = 50
READ = m.message(1, m.Command.REGION_READ, 0, m.REGION_ACCESS.pack(0x10, 0, 8))
WRITE = m.message(1, m.Command.REGION_WRITE, 0, m.REGION_ACCESS.pack(0x38, 0, 4) + bytes(4))
FIND = m.message(1, m.Command.REGION_READ, 0, m.REGION_ACCESS.pack(8, 0, 8))
"""The read of CAP_REG with which an operating system begins."""
ANSWERS = {READ: 16 + 16 + 8, WRITE: 16 + 16}
"""Bytes of the answer to each."""


def served_machine() -> LiveMachine:
    """One unit for one function."""
    topology = Topology()
    topology.add(Edu(), topology.add_root_bus(), 4)
    drhd = Drhd(flags=DrhdFlags.of(include_pci_all=True), register_base=BASE)
    table = Table(Header(host_address_width=47), (drhd,)).sealed()
    platform = Platform.build(PhysicalMemory(), topology, table, PROFILES["qemu"])
    return LiveMachine(platform, Clock())


def serve(path: Path) -> None:
    """Serve the machine, and beside it a socket that answers with nothing, until both are left."""
    server = Server(served_machine(), path.parent, time.monotonic_ns)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        bare, _ = listener.accept()
    answers = {len(request): bytes(size) for request, size in ANSWERS.items()}

    def echo(_: int) -> None:
        data = bare.recv(1 << 16)
        if data:
            bare.send(answers[len(data)])

    server.watch(bare.fileno(), echo)
    with bare:
        try:
            while not server.clients:
                server.serve()
            while server.clients:
                server.serve()
        finally:
            server.close()


def spawn(path: Path) -> int:
    """A child process that serves; its number."""
    child = os.fork()
    if not child:
        try:
            serve(path)
        finally:
            os._exit(0)
    return child


def connect(path: Path) -> socket.socket:
    """A connection to the child, once it listens."""
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(str(path))
        except OSError:
            time.sleep(0.01)
        else:
            return connection


def exchange(connection: socket.socket, request: bytes, size: int, count: int) -> float:
    """Seconds that one of ``count`` round trips takes."""
    start = time.perf_counter()
    for _ in range(count):
        connection.send(request)
        if len(connection.recv(1 << 16)) != size:
            raise RuntimeError("an answer of another size")
    return (time.perf_counter() - start) / count


def measure(count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        child = spawn(Path(folder) / "bare.sock")
        bare = connect(Path(folder) / "bare.sock")
        served = connect(Path(folder) / "chipset.sock")
        version = m.Version.build({"major": 0, "minor": 0, "data": b"{}"})
        for first in (m.message(0, m.Command.VERSION, 0, version), FIND):
            served.send(first)
            served.recv(1 << 16)
        for name, request in (("register read", READ), ("register write", WRITE)):
            times: dict[socket.socket, list[float]] = {bare: [], served: []}
            for _ in range(max(count // BATCH, 1)):
                for connection, found in times.items():
                    found.append(exchange(connection, request, ANSWERS[request], BATCH))
            nothing, access = (median(times[connection]) for connection in (bare, served))
            print(
                f"{name:15} {access * 1e6:6.1f} us, bare round trip {nothing * 1e6:6.1f} us, "
                f"ratio {access / nothing:.2f}"
            )
        served.close()
        bare.close()
        os.waitpid(child, 0)


def main(arguments: list[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="round trips of each kind")
    measure(parser.parse_args(arguments).count)


if __name__ == "__main__":
    main()
