"""The Toeplitz hash of receive side scaling, over tables made once for each key."""

from __future__ import annotations

from functools import lru_cache

KEY_BYTES = 40
LONGEST = 36
"""Bytes of the longest input: two IPv6 addresses and two ports."""


@lru_cache(maxsize=16)
def _tables(key: bytes) -> tuple[tuple[int, ...], ...]:
    """For each position and byte there, what it contributes: the key's 32 bits from each bit on."""
    number = int.from_bytes(key, "big")
    tables = []
    for position in range(LONGEST):
        table = [0] * 256
        for value in range(1, 256):
            lowest = value & -value
            shift = 8 * KEY_BYTES - 32 - 8 * position - (8 - lowest.bit_length())
            table[value] = table[value ^ lowest] ^ number >> shift & 0xFFFF_FFFF
        tables.append(tuple(table))
    return tuple(tables)


@lru_cache(maxsize=4096)
def toeplitz(key: bytes, data: bytes) -> int:
    """The hash of up to 36 bytes under a key of 40; that of a flow is looked for once."""
    value = 0
    for table, byte in zip(_tables(key), data, strict=False):
        value ^= table[byte]
    return value
