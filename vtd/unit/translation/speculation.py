"""Translations that nobody asked for: pages behind one that was used, and what was invalidated.

Hardware may fill its caches at any time (6.2.4, 6.2.5), and a device goes on sending while
software invalidates (6.2.2.1). What is found so is cached like any other translation; nothing is
stored in memory, so where a flag would have to be set first nothing is cached (6.2.4.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from devices.dma import READ, Request
from pagetables.geometry import PAGE_SHIFT
from pagetables.memory import BusError
from pagetables.unchanged import UnchangedMemory
from vtd.unit.caching.iotlb import NOTHING, Space, Translation
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import RequestKind
from vtd.unit.translation.departing import Translate
from vtd.unit.translation.remapping import Remapping
from vtd.unit.translation.translate import translate


class Unwritable(UnchangedMemory):
    """Memory in which no flag can be set."""

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Never: a translation that needs it is not made."""
        raise BusError(address, "nothing is stored for a request that nobody made")


def look_ahead(remapping: Remapping, pages: Iterable[tuple[RequestKind, int]]) -> None:
    """Translate reads of the pages at these addresses that the IOTLB does not have."""
    iotlb, memory = remapping.caches.iotlb, remapping.memory
    remapping.memory = Unwritable(memory)
    try:
        for kind, address in pages:
            space = iotlb.space(kind)
            if space.line(address >> PAGE_SHIFT) is not NOTHING:
                continue
            source_id, pasid, privileged = kind
            request = Request(source_id, address, READ, 1, pasid, privileged)
            if remapping.observer is not None:
                remapping.observer.looks_ahead(request)
            with suppress(TranslationFault):
                translate(remapping, request, space, address, READ)
    finally:
        remapping.memory = memory


def pages_behind(request: Request, count: int) -> list[tuple[RequestKind, int]]:
    """The pages that follow the one of a request, in the same 2 MiB."""
    source_id, address, _, _, pasid, privileged, _, _ = request
    first = (address >> PAGE_SHIFT) + 1
    last = (address >> 21) + 1 << 9
    kind = source_id, pasid, privileged
    return [(kind, number << PAGE_SHIFT) for number in range(first, min(first + count, last))]


def prefetching(pages: int) -> Translate:
    """:func:`translate`, with that many pages behind the one of a request looked up as well."""
    if not pages:
        return translate

    def translate_on(
        remapping: Remapping,
        request: Request,
        space: Space,
        address: int,
        access: int,
        cached: Translation | None,
    ) -> Translation:
        entry = translate(remapping, request, space, address, access, cached)
        look_ahead(remapping, pages_behind(request, pages))
        return entry

    return translate_on
