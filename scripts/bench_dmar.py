"""Times of the DMAR library, medians in this process: ``python -m scripts.bench_dmar``."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vtd.dmar import Table, validate
from vtd.dmar.records import DeviceScope, Drhd, DrhdFlags, Header, HeaderFlags, Rhsa, Rmrr

ROUNDS = 11
TABLES = Path(__file__).resolve().parents[1] / "tests" / "dmar"
"""The tables to validate, if no other folder is given."""


class Measured(NamedTuple):
    """One figure and what it may be."""

    name: str
    milliseconds: float
    target: float


def median_ms(action: Callable[[], object], rounds: int) -> float:
    """Median time of one call in milliseconds, after one call to warm up."""
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def typical_table() -> bytes:
    """A client platform: graphics unit, INCLUDE_PCI_ALL unit, two regions."""
    endpoint = DeviceScope.PCI_ENDPOINT
    graphics = DeviceScope.of(endpoint, ((2, 0),))
    apic = DeviceScope.of(DeviceScope.IOAPIC, ((0x1F, 0),), enumeration_id=2, start_bus=0xF0)
    hpet = DeviceScope.of(DeviceScope.MSI_CAPABLE_HPET, ((0x1F, 0),))
    usb = DeviceScope.of(endpoint, ((0x14, 0),))
    structures = (
        Drhd(register_base=0xFED90000, scopes=(graphics,)),
        Drhd(flags=DrhdFlags(1), register_base=0xFED91000, scopes=(apic, hpet)),
        Rmrr(base=0x8E47E000, limit=0x8E49DFFF, scopes=(usb,)),
        Rmrr(base=0x9D000000, limit=0x9F7FFFFF, scopes=(graphics,)),
    )
    return Table(Header(flags=HeaderFlags(1)), structures).sealed().pack()


def many_units(count: int = 200) -> bytes:
    """A table of units with one device each, and an RHSA for each of them."""
    units = []
    for number in range(count):
        device = DeviceScope.of(1, ((number & 31, number >> 5),), start_bus=number)
        base = 0xFC000000 + 0x1000 * number
        units.append(Drhd(register_base=base, scopes=(device,)))
    affinities = [Rhsa(register_base=unit.register_base) for unit in units]
    return Table(Header(), (*units, *affinities)).sealed().pack()


def many_scopes(count: int = 8000) -> bytes:
    """A 64 KiB unit with as many scope entries as fit, all different."""
    entries = tuple(
        DeviceScope.of(1, ((number >> 3 & 31, number & 7),), start_bus=number >> 8)
        for number in range(count)
    )
    return Table(Header(), (Drhd(register_base=0xFED90000, scopes=entries),)).sealed().pack()


def corpus_time(folder: Path, rounds: int) -> float:
    """Milliseconds to validate every table below a folder."""
    tables = [file.read_bytes() for file in sorted(folder.rglob("*.bin"))]
    return median_ms(lambda: [validate(data) for data in tables], rounds)


def measure(folder: Path = TABLES, rounds: int = ROUNDS) -> list[Measured]:
    """Decoding plus all rules, for the tables that have a target and all tables of a folder."""
    typical, units, scopes = typical_table(), many_units(), many_scopes()
    return [
        Measured("typical table", median_ms(lambda: validate(typical), rounds), 1.5),
        Measured("200 units, 200 RHSA", median_ms(lambda: validate(units), rounds), 60),
        Measured("64 KiB, 8000 scope entries", median_ms(lambda: validate(scopes), rounds), 400),
        Measured("all tables of the folder", corpus_time(folder, rounds), 2000),
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=TABLES, help="of *.bin tables")
    folder: Path = parser.parse_args().folder
    if not any(folder.rglob("*.bin")):
        parser.error(f"{folder}: no table in it")
    for name, milliseconds, target in measure(folder):
        verdict = "ok" if milliseconds <= target else "TOO SLOW"
        print(f"{name:28} {milliseconds:8.2f} ms   target {target:g} ms   {verdict}")


if __name__ == "__main__":
    main()
