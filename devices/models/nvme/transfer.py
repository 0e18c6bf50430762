"""Where the data of an NVMe command lies in host memory: PRP entries and scatter-gather lists.

NVM Express Base Specification 1.4. Lists are themselves read by DMA, and each read may be refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from devices.dma import DmaPort
from devices.models.nvme.structures import (
    CommandError,
    SglDescriptor,
    SglType,
    Status,
    Submission,
)

ENTRY_SIZE = 8
MOST_DESCRIPTORS = 1024
"""Descriptors of a scatter-gather list; more are refused."""

Piece = tuple[int | None, int]
"""Address, None for what is not wanted, and length of a part of a transfer."""


def pieces(
    dma: DmaPort, command: Submission, length: int, page_size: int, *, to_host: bool
) -> Iterator[Piece]:
    """The pieces of a transfer, whichever way the command describes them."""
    if command.psdt:
        return _sgl_pieces(dma, command, length, to_host=to_host)
    return _prp_pieces(dma, command, length, page_size)


def _sgl_pieces(
    dma: DmaPort, command: Submission, length: int, *, to_host: bool
) -> Iterator[Piece]:
    """The pieces that the descriptors of a scatter-gather list give."""
    for descriptor in _descriptors(dma, command.sgl):
        if descriptor.type == SglType.BIT_BUCKET and not to_host:
            continue
        part = min(descriptor.length, length)
        if part:
            yield None if descriptor.type == SglType.BIT_BUCKET else descriptor.address, part
        length -= part
        if not length:
            return
    if length:
        raise CommandError(Status.SGL_LENGTH)


def _descriptors(dma: DmaPort, first: SglDescriptor) -> Iterator[SglDescriptor]:
    """The data of a list, segment after segment; only the last of one leads to the next."""
    waiting, last, count = [first], False, 0
    while waiting:
        descriptor = waiting.pop(0)
        count += 1
        if count > MOST_DESCRIPTORS:
            raise CommandError(Status.SGL_COUNT)
        if descriptor.subtype or descriptor.type not in set(SglType):
            raise CommandError(Status.SGL_TYPE)
        if descriptor.type in (SglType.DATA, SglType.BIT_BUCKET):
            yield descriptor
            continue
        size = descriptor.length
        if waiting or last or not size or size % 16 or size > 16 * MOST_DESCRIPTORS:
            raise CommandError(Status.SGL_SEGMENT)
        last = descriptor.type == SglType.LAST_SEGMENT
        read = dma.read(descriptor.address, size)
        if not read.ok:
            raise CommandError(Status.DATA_TRANSFER_ERROR)
        waiting = [SglDescriptor.unpack(read.data[at : at + 16]) for at in range(0, size, 16)]


def _prp_pieces(dma: DmaPort, command: Submission, length: int, page_size: int) -> Iterator[Piece]:
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
