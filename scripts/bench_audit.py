"""What ``vtd audit`` of a long log costs: ``python -m scripts.bench_audit [--entries N]``.

The log is that of the driver of :mod:`vtd.software` with devices that use buffers of one to
four pages, each mapped, written and read, unmapped and invalidated; it is written to a temporary
file, and the command that reads it is timed alone.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import TextIO

from pagetables.memory import PhysicalMemory
from vtd.fuzz.own_driver import OwnDriver
from vtd.recordings.log_recorder import LogRecorder
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

TABLES, RAM, END = 0x10_0000, 0x100_0000, 0x1000_0000
DEVICES = {f"nic{number}": 0x10 + number * 8 for number in range(4)}
LIVE = 64
"""Buffers that each device has mapped at a time."""


def write_log(out: TextIO, entries: int) -> int:
    """Write a log with at least so many lines; how many it has."""
    lines = 0

    def write(line: str) -> None:
        nonlocal lines
        lines += 1
        out.write(line)

    memory = PhysicalMemory()
    memory.add_region(0, END)
    unit = RemappingUnit(PROFILES["xeon"], memory)
    recorder = LogRecorder(write, PROFILES["xeon"], [(0, END)], DEVICES)
    driver = OwnDriver(recorder.registers(unit), recorder.memory(memory), TABLES, RAM)
    driver.reset()
    for domain, source_id in enumerate(DEVICES.values(), 1):
        driver.attach(source_id, domain)
    random_ = random.Random(1)
    live: dict[str, deque[tuple[int, int]]] = {name: deque() for name in DEVICES}
    number = 0
    while lines < entries:
        for domain, (name, buffers) in enumerate(live.items(), 1):
            number += 1
            length = random_.randint(1, 4) << 12
            address = number % 4096 << 14
            driver.map(domain, address, RAM + (number % 4096 << 15), length, 3)
            for place in range(address, address + length, 0x400):
                write_or_read = random_.random() < 0.5
                if write_or_read:
                    recorder.step("dma_write", device=name, iova=hex(place), hex="00" * 64)
                else:
                    recorder.step("dma_read", device=name, iova=hex(place), length=64)
            buffers.append((address, length))
            if len(buffers) > LIVE:
                driver.unmap(domain, *buffers.popleft())
    return lines


def main() -> int:
    """Write the log, time the command, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10**6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.jsonl")
        with path.open("w") as out:
            lines = write_log(out, options.entries)
        before = getrusage(RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "vtd.cli", "audit", str(path)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        after = getrusage(RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(ended.stdout.removeprefix(str(path)).strip(), ended.stderr)
    print(f"{lines} lines: {seconds:.1f} s of CPU, {after.ru_maxrss >> 10} MiB")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
