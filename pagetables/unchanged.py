"""Memory for onlookers: a walk on it sees what is there and sets no flags."""

from __future__ import annotations

from pagetables.memory import FrameSource, TableMemory


class UnchangedMemory:
    """Memory for looking only: stores and flag updates count as done, and nothing changes."""

    def __init__(self, memory: TableMemory) -> None:
        self._memory = memory

    @property
    def frames(self) -> FrameSource:
        """The frames of the memory itself."""
        return self._memory.frames

    def host(self, address: int) -> int:
        """As the memory itself says."""
        return self._memory.host(address)

    def read_record(self, address: int, size: int) -> int:
        """The naturally aligned record of ``size`` bytes at ``address``."""
        return self._memory.read_record(address, size)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """True, as if the record had been replaced."""
        return True

    def write(self, address: int, data: bytes) -> None:
        """Take ``data`` and forget it."""
