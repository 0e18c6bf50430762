"""Feed random and mutated tables to everything: ``python -m scripts.fuzz_dmar``.

Checks for every input that decoding, rules and rebuilding raise nothing and lose nothing, and for
some of them the slower parts: description, comparison, audit, every input form. Keeps the slowest
input in mind; one that takes longer than the limit counts as a failure.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vtd.dmar import Scopes, Table, TableError, validate
from vtd.dmar.decoded import decoded
from vtd.dmar.description import build, describe
from vtd.dmar.diff import diff
from vtd.dmar.inputs import acpi_tables
from vtd.dmar.protection import audit
from vtd.dmar.records import FIXED_PART

LIMIT = 2.0
"""Seconds of processor time an input of up to 64 KiB may take, in all parts together."""
LARGE = 7_919
"""One of so many inputs has 64 KiB."""
SLOWER_PARTS = 50
"""One of so many inputs goes through the slower parts too."""
INTERESTING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0F, 0x10, 0x7F, 0x80, 0xFE, 0xFF)


class Outcome(NamedTuple):
    """What a campaign found."""

    inputs: int
    findings: int
    slowest: float
    """Seconds of processor time of the slowest input."""
    slowest_size: int
    failures: list[str]


TABLES = Path(__file__).resolve().parents[1] / "tests" / "dmar"
"""The tables that mutations start from, if no other folder is given."""


def inputs(rng: random.Random, count: int, tables: list[bytes]) -> Iterator[bytes]:
    """Mutated tables, fixed parts with random bodies, random bytes, and now and then 64 KiB."""
    for number in range(count):
        kind = rng.random()
        if number % LARGE == LARGE - 1:
            yield _large(rng)
        elif kind < 0.8:
            yield _mutated(rng, bytearray(rng.choice(tables)), tables)
        elif kind < 0.95:
            yield _random_body(rng, rng.randrange(200))
        else:
            yield rng.randbytes(rng.randrange(300))


def _mutated(rng: random.Random, data: bytearray, tables: list[bytes]) -> bytes:
    for _ in range(rng.randint(1, 8)):
        position = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if position < len(data):
                data[position] ^= 1 << rng.randrange(8)
            case 1 if position < len(data):
                data[position] = rng.choice(INTERESTING)
            case 2:
                del data[position : position + rng.randrange(40)]
            case 3:
                data[position:position] = rng.randbytes(rng.randrange(20))
            case 4:
                other = rng.choice(tables)
                start = rng.randrange(len(other) + 1)
                data[position:position] = other[start : start + rng.randrange(80)]
            case _:
                data[position:position] = data[position : position + rng.randrange(60)]
    if rng.random() < 0.5 and len(data) >= FIXED_PART:
        data[4:8] = len(data).to_bytes(4, "little")
    return bytes(data[:65536])


def _random_body(rng: random.Random, size: int) -> bytes:
    """A sound fixed part, then structures of random types with lengths that mostly fit."""
    body = bytearray()
    while len(body) < size:
        length = rng.choice((0, 4, 8, 16, 20, 24, 32, 40, rng.randrange(70)))
        payload = bytearray(rng.randbytes(max(0, length - 4)))
        for position in range(1, len(payload), 8):
            payload[position] = rng.choice((8, 8, 8, 10, payload[position]))
        body += rng.randrange(8).to_bytes(2, "little") + length.to_bytes(2, "little") + payload
    total = FIXED_PART + len(body)
    return b"DMAR" + total.to_bytes(4, "little") + bytes(28) + b"\x26\x01" + bytes(10) + body


def _large(rng: random.Random) -> bytes:
    """64 KiB of one kind of structure or entry, the worst cases for slow rules."""
    match rng.randrange(4):
        case 0:
            unit = b"\x03\0\x14\0" + bytes(4) + rng.randbytes(2) + bytes(10)
        case 1:
            unit = b"\0\0\x18\0" + bytes(4) + rng.randbytes(3) + bytes(5) + b"\x01\x08" + bytes(6)
        case 2:
            unit = b"\x05\0\x10\0" + rng.randbytes(4) + b"\x01\x08" + bytes(6)
        case _:
            unit = rng.randbytes(1) + b"\0\x04\0"
    body = (unit * (65488 // len(unit)))[: 65488 // len(unit) * len(unit)]
    total = FIXED_PART + len(body)
    return b"DMAR" + total.to_bytes(4, "little") + bytes(28) + b"\x26\x01" + bytes(10) + body


def check_input(data: bytes, slower_parts: bool) -> int:
    """The number of findings; raises AssertionError or anything else if something is wrong."""
    findings = validate(data)
    if len(data) < FIXED_PART:
        return len(findings)
    table = Table.parse(data)
    if table.pack() != data:
        raise AssertionError("bytes lost")
    if slower_parts:
        decoded(table)
        audit(table)
        if build(describe(table)).pack() != data:
            raise AssertionError("bytes lost in the description")
        if diff(table, table):
            raise AssertionError("a table differs from itself")
        scopes = Scopes(table)
        for each, entry in table.entries:
            bdf = scopes.resolve(each.segment, entry)
            if bdf is not None:
                scopes.owner(bdf)
        for form in (data, data.hex().encode(), data[::3]):
            try:
                acpi_tables(form)
            except TableError:
                continue
    return len(findings)


def campaign(count: int, seed: int, folder: Path = TABLES) -> Outcome:
    """Check ``count`` inputs; the same seed and tables give the same inputs."""
    rng = random.Random(seed)
    tables = [file.read_bytes() for file in sorted(folder.rglob("*.bin"))]
    findings, slowest, slowest_size = 0, 0.0, 0
    failures: list[str] = []
    for number, data in enumerate(inputs(rng, count, tables)):
        start = time.process_time()
        try:
            findings += check_input(data, slower_parts=number % SLOWER_PARTS == 0)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}: {data[:200].hex()}")
        spent = time.process_time() - start
        if spent > slowest:
            slowest, slowest_size = spent, len(data)
        if spent > LIMIT:
            failures.append(f"{spent:.1f} s for {len(data)} bytes: {data[:200].hex()}")
    return Outcome(count, findings, slowest, slowest_size, failures)


def main() -> None:
    """Run a campaign and print its outcome; exit code 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("seed", nargs="?", type=int, default=1)
    parser.add_argument("folder", nargs="?", type=Path, default=TABLES, help="of *.bin tables")
    asked = parser.parse_args()
    if not any(asked.folder.rglob("*.bin")):
        parser.error(f"{asked.folder}: no table in it")
    start = time.perf_counter()
    outcome = campaign(asked.inputs, asked.seed, asked.folder)
    minutes = (time.perf_counter() - start) / 60
    print(
        f"{outcome.inputs} inputs, {outcome.findings} findings, {len(outcome.failures)} failures, "
        f"slowest {outcome.slowest:.2f} s ({outcome.slowest_size} bytes), {minutes:.1f} minutes"
    )
    for failure in outcome.failures[:20]:
        print(failure)
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
