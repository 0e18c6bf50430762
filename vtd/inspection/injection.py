"""Errors of memory that somebody asks for: observers that refuse what the unit is about to do.

The engine turns an injected error into the architected fault like any other error of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagetables.observer import InjectedError, Structure
from vtd.unit.observer import Observer


@dataclass
class FailRead(Observer):
    """Fails the read with this number, counted from 1; later reads succeed."""

    number: int
    count: int = 0

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """Raise InjectedError when it is this read's turn."""
        self.count += 1
        if self.count == self.number:
            raise InjectedError(address, f"injected error: read number {self.number}")


@dataclass
class FailRange(Observer):
    """Fails every access that touches ``start`` up to ``end``; updates and writes only if told."""

    start: int
    end: int
    """The first address after the range."""
    reads: bool = True

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """A read of the range fails."""
        if self.reads:
            self._refuse("read", address, size)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """An update in the range fails."""
        self._refuse("update", address, size)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        """A write to the range fails."""
        self._refuse("write", address, len(data))

    def _refuse(self, what: str, address: int, size: int) -> None:
        if address < self.end and self.start < address + size:
            raise InjectedError(address, f"injected error: {what} in {self.start:#x}-{self.end:#x}")
