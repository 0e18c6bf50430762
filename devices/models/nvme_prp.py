"""Physical region pages: where the data of an NVMe command lies in host memory.

NVM Express Base Specification 1.4, PRP entries and lists. The list itself is read by DMA, and every
read of it may be refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from devices.dma import DmaPort
from devices.models.nvme_structures import CommandError, Status, Submission

ENTRY_SIZE = 8


def segments(
    dma: DmaPort, command: Submission, length: int, page_size: int
) -> Iterator[tuple[int, int]]:
    """Address and length of each piece of a transfer, within one page each.

    PRP1 may start inside a page. PRP2 is the only other page, or the list of all others. Raises
    CommandError when it gets to an entry that is wrong or can't be read.
    """
    if command.prp1 % 4:
        raise CommandError(Status.BAD_PRP_OFFSET)
    first = min(length, page_size - command.prp1 % page_size)
    yield command.prp1, first
    length -= first
    if length <= page_size:
        entries: Iterator[int] = iter([command.prp2] if length else [])
    else:
        entries = _entries(dma, command.prp2, -(-length // page_size), page_size)
    for address in entries:
        if address % page_size:
            raise CommandError(Status.BAD_PRP_OFFSET)
        yield address, min(length, page_size)
        length -= page_size


def _entries(dma: DmaPort, address: int, count: int, page_size: int) -> Iterator[int]:
    """``count`` entries of a list, which may begin inside a page.

    If the rest does not fit in the page, its last slot is the address of the next page of the list.
    """
    if address % ENTRY_SIZE:
        raise CommandError(Status.BAD_PRP_OFFSET)
    while True:
        slots = (page_size - address % page_size) // ENTRY_SIZE
        completion = dma.read(address, min(slots, count) * ENTRY_SIZE)
        if not completion.ok:
            raise CommandError(Status.DATA_TRANSFER_ERROR)
        entries = [
            int.from_bytes(completion.data[at : at + ENTRY_SIZE], "little")
            for at in range(0, len(completion.data), ENTRY_SIZE)
        ]
        if count <= slots:
            yield from entries
            return
        address = entries.pop()
        if address % page_size:
            raise CommandError(Status.BAD_PRP_OFFSET)
        yield from entries
        count -= len(entries)
