"""Accesses of a processor to physical memory: reads of nothing give all ones, stores are lost."""

from __future__ import annotations

from typing import Protocol

from pagetables.memory import BusError


class Memory(Protocol):
    """Memory as a processor uses it; BusError where there is none."""

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


def get(memory: Memory, address: int, length: int) -> bytes:
    """Bytes at a physical address."""
    try:
        return memory.read(address, length)
    except BusError:
        return b"\xff" * length


def put(memory: Memory, address: int, data: bytes) -> None:
    """Store bytes at a physical address."""
    try:
        memory.write(address, data)
    except BusError:
        return


def get_number(memory: Memory, address: int, length: int) -> int:
    """A little-endian number at a physical address."""
    try:
        return int.from_bytes(memory.read(address, length), "little")
    except BusError:
        return (1 << 8 * length) - 1


def put_number(memory: Memory, address: int, value: int, length: int) -> None:
    """Store the low bytes of a number."""
    try:
        memory.write(address, (value & (1 << 8 * length) - 1).to_bytes(length, "little"))
    except BusError:
        return
