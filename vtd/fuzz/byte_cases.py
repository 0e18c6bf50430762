"""Byte strings as cases: random ones, and the shortest that fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from vtd.fuzz.properties import BYTE_PROPERTIES, Tally, Violation

BYTE_CASES_PER_SEED = 1_000
ByteCheck = Callable[[bytes, Tally], None]
"""Raises Violation."""


def byte_cases(name: str, seed: int) -> Iterator[bytes]:
    """The short byte strings of a seed of a property."""
    source = random.Random(f"{name} {seed}")
    for _ in range(BYTE_CASES_PER_SEED):
        data = source.randbytes(source.randrange(BYTE_PROPERTIES[name][2]))
        yield _dmar_like(source, data) if name == "dmar" else data


def _dmar_like(source: random.Random, data: bytes) -> bytes:
    """Bytes with a table's signature and structures whose Type and Length make sense, mostly."""
    parts = [b"DMAR", len(data).to_bytes(4, "little"), data[8:48].ljust(40, b"\0")]
    at = 48
    while at < len(data):
        size = source.randrange(1, 40)
        payload = data[at : at + size]
        length = len(payload) + 4 + (source.random() < 0.1)
        parts.append(bytes([source.randrange(8), 0]) + length.to_bytes(2, "little") + payload)
        at += size
    table = b"".join(parts)
    return table[:4] + len(table).to_bytes(4, "little") + table[8:]


def shortest(check: ByteCheck, data: bytes, expired: Callable[[], bool]) -> Violation:
    """Take bytes away, and then set them to 0, as long as the check fails and time is left."""
    found = _violation(check, data)
    assert found is not None
    for size in (64, 16, 4, 1):
        at = 0
        while at < len(data) and not expired():
            for shorter in (
                data[:at] + data[at + size :],
                data[:at] + bytes(size) + data[at + size :],
            ):
                again = _violation(check, shorter) if shorter != data else None
                if again is not None and len(shorter) <= len(data):
                    found, data = again, shorter
                    break
            else:
                at += size
                continue
            at += size if len(shorter) == len(data) else 0
    return found


def _violation(check: ByteCheck, data: bytes) -> Violation | None:
    try:
        check(data, Tally())
    except Violation as violation:
        return violation
    return None
