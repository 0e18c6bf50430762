"""Blocks of 512 bytes in memory or in a file, behind a volatile write cache: what a disk keeps.

NVM Express NVM Command Set, flush and FUA; virtio 1.2, 5.2.6. What was written since the last flush
may be lost with the power, block by block, and only that: a block then has any of its contents
since the flush.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from random import Random

BLOCK_SHIFT = 9
BLOCK = 1 << BLOCK_SHIFT
CACHE = 16 << 20
"""Bytes of what may be lost; beyond that the device writes its cache back by itself."""


class BlockStorage:
    """The blocks; ``cache`` says whether writes may wait in volatile memory."""

    def __init__(self, storage: bytearray | mmap.mmap) -> None:
        self.storage = storage
        self.cache = True
        self._before: list[tuple[int, bytes]] = []
        """What was at a place before each write that is not flushed, the oldest first."""
        self._cached = 0

    @classmethod
    def made(cls, blocks: int, file: str = "") -> BlockStorage:
        """So many, all zero, in memory; or the beginning of a file, made as long as it has to be.

        ValueError for sizes that can't be, and for a file that can't be used.
        """
        if not 1 <= blocks < 1 << 32:
            raise ValueError(f"blocks: {blocks} is not in 1..2^32-1")
        if not file:
            return cls(bytearray(blocks << BLOCK_SHIFT))
        try:
            return cls(_mapped(Path(file), blocks << BLOCK_SHIFT))
        except OSError as error:
            raise ValueError(f"file: {file}: {error.strerror or error}") from error

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self.storage) >> BLOCK_SHIFT

    def read(self, start: int, end: int) -> bytes:
        """Bytes as they are now, flushed or not."""
        return bytes(memoryview(self.storage)[start:end])

    def write(self, start: int, data: bytes, *, durable: bool = False) -> None:
        """Store whole blocks; ``durable`` they outlast the power."""
        end = start + len(data)
        if self.cache and not durable:
            self._before.append((start, self.read(start, end)))
            self._cached += len(data)
        elif self._before:
            self.flush()
        self.storage[start:end] = data
        if self._cached > CACHE:
            self.flush()

    def flush(self) -> None:
        """All that was written outlasts the power from now on."""
        self._before.clear()
        self._cached = 0

    def lose_power(self, random: Random) -> None:
        """Every block that is not flushed becomes what it was at some time since the last flush."""
        versions: dict[int, list[bytes]] = {}
        for start, data in self._before:
            for at in range(0, len(data), BLOCK):
                versions.setdefault(start + at, []).append(data[at : at + BLOCK])
        for at, older in versions.items():
            kept = random.choice([*older, self.read(at, at + BLOCK)])
            self.storage[at : at + BLOCK] = kept
        self.flush()


def _mapped(path: Path, size: int) -> mmap.mmap:
    with path.open("r+b" if path.exists() else "w+b") as file:
        if file.seek(0, os.SEEK_END) < size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)
