"""What an access of a guest to a served register costs, beside a round trip that does nothing.

``python -m scripts.bench_live [--count N]``: a child process answers on UNIX sockets, once by
sending as many bytes back as the answer has, once as a server of functions. The parent is the
client of both, in turns, and prints the best mean time of each, their ratio, and what CPU time the
server took for an access.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


def echo(path: Path) -> None:
    """Answer each message of one client with as many bytes as a server would, until it leaves."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        connection, _ = listener.accept()
    answers = {len(request): bytes(size) for request, size in ANSWERS.items()}
    with connection:
        while data := connection.recv(1 << 16):
            connection.send(answers[len(data)])


def serve(path: Path) -> None:
    """Serve the machine until its client leaves."""
    server = Server(served_machine(), path.parent, time.monotonic_ns)
    try:
        while not server.clients:
            server.serve()
        while server.clients:
            server.serve()
    finally:
        server.close()


def spawn(run: Callable[[Path], None], path: Path) -> int:
    """A child process that runs ``run``; its number."""
    child = os.fork()
    if not child:
        try:
            run(path)
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
        paths: dict[Callable[[Path], None], Path] = {
            echo: Path(folder) / "echo.sock",
            serve: Path(folder) / "chipset.sock",
        }
        children = {run: spawn(run, path) for run, path in paths.items()}
        connections = {run: connect(path) for run, path in paths.items()}
        version = m.Version.build({"major": 0, "minor": 0, "data": b"{}"})
        connections[serve].send(m.message(0, m.Command.VERSION, 0, version))
        connections[serve].recv(1 << 16)
        connections[serve].send(FIND)
        connections[serve].recv(1 << 16)
        for name, request in (("register read", READ), ("register write", WRITE)):
            times: dict[Callable[[Path], None], list[float]] = {echo: [], serve: []}
            for _ in range(max(count // BATCH, 1)):
                for run, found in times.items():
                    found.append(exchange(connections[run], request, ANSWERS[request], BATCH))
            bare, served = (min(times[run]) for run in (echo, serve))
            print(
                f"{name:15} {served * 1e6:6.1f} us, bare round trip {bare * 1e6:6.1f} us, "
                f"ratio {served / bare:.2f}"
            )
        for connection in connections.values():
            connection.close()
        for run, child in children.items():
            _, _, usage = os.wait4(child, 0)
            print(f"{run.__name__:15} {_cpu(usage) / (2 * count) * 1e6:6.1f} us of CPU an access")


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str] | None = None) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="round trips of each kind")
    measure(parser.parse_args(arguments).count)


if __name__ == "__main__":
    main()
