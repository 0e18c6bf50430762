"""Devices that do DMA on demand: what each kind can do, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vtd.conformance.descriptors import KEY, OWN
from vtd.conformance.format import NVME_COMMANDS, PAGE, Driver
from vtd.fuzz.case import Step


class Device(NamedTuple):
    """A device as the payload is told of it."""

    driver: int
    bus: int
    devfn: int
    message: int
    """Offset of its MSI capability, of NVMe MSI-X, in configuration space."""
    registers: int


class Reach(NamedTuple):
    """What a kind of device can do."""

    name: str
    granule: int
    """Its transfers are multiples of so many bytes."""
    alignment: int
    pages: int
    """Pages that one transfer may touch; 0 for any number."""
    buffer: int
    """Bytes that it keeps."""
    commands: int
    """Transfers and messages of a case; 0 for any number."""
    message_bits: int
    """Of the data of its messages; 0 if it sends none without a descriptor."""
    longest: int = 0
    """Bytes of one transfer; 0 for any number."""
    fetches: bool = False
    """Whether it needs descriptors in memory that its requests reach."""

    def refusal(self, address: int, length: int) -> str:
        """Why it can't do a transfer; empty if it can."""
        if length % self.granule or address % self.alignment:
            return f"{self.name} moves {self.granule} bytes from a multiple of {self.alignment} on"
        if self.longest and length > self.longest:
            return f"{self.name} moves {self.longest} bytes at once"
        if self.pages and (address % PAGE + length - 1) // PAGE >= self.pages:
            return f"{self.name} moves {self.pages} pages at once"
        return ""

    def without_descriptors(self, step: Step) -> str:
        """Why it can't take a step for which it has no descriptors; empty if it can."""
        if not self.fetches or OWN in step or KEY in step:
            return ""
        if step["op"] == "msi":
            return "" if self.message_bits else f"{self.name} sends no message by itself"
        return f"{self.name} reaches no memory for its descriptors"

    def widened(self, address: int, length: int) -> tuple[int, int]:
        """The smallest transfer that it can do around another one, in the same pages."""
        first, end = address - address % PAGE, -(-(address + length) // PAGE) * PAGE
        size = -(-length // self.granule) * self.granule
        return max(first, min(address - address % self.alignment, end - size)), size


REACHES: Mapping[int, Reach] = {
    Driver.EDU: Reach("edu", 1, 1, 0, 4096, 0, 16),
    Driver.NVME: Reach("NVMe", 512, 4, 2, 1 << 16, NVME_COMMANDS - 2, 32),
    Driver.NIC: Reach("NIC", 64, 1, 1, PAGE, 0, 16, longest=23 * 64, fetches=True),
    Driver.IOAT: Reach("I/OAT", 1, 1, 1, PAGE, 0, 0, longest=23 * 64, fetches=True),
}


class Numbered(NamedTuple):
    """A device of an image."""

    number: int
    reach: Reach
