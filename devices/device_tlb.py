"""A device-TLB: the translations a function obtained and keeps until told to drop them.

VT-d chapter 4, PCI Express Address Translation Services. Entries have the size the completion gave,
and are tagged by PASID (or none) and by privilege. Translations without permission, and ranges for
untranslated requests only, are not kept.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from enum import Enum
from typing import NamedTuple

from devices.dma import READ, WRITE, InvalidationRequest, Request, TranslationEntry

_Key = tuple[int, int, int | None]
"""Page number, log2 of the size, tag."""

_Value = tuple[int, int, int]
"""Translated address, READ and WRITE permissions, mask of the offset."""

_PAGE = -0x1000
"""A page of the index: translated page address and, below it, the permissions."""

_ANY_PASID = 1 << 20
"""Stands for the PASID in the tag of entries marked global."""


def tag(request: Request) -> int | None:
    """What entries are tagged with: None, the PASID, or the PASID complemented if privileged."""
    pasid = request.pasid
    return ~pasid if request.privileged and pasid is not None else pasid


class Replacement(Enum):
    """Which entry a full device-TLB gives up."""

    LRU = "lru"
    FIFO = "fifo"
    RANDOM = "random"


class CachedTranslation(NamedTuple):
    """One entry, for inspection; ``pasid`` is None without PASID and for global entries."""

    address: int
    translated: int
    size: int
    permissions: int
    pasid: int | None
    privileged: bool
    global_: bool


class DeviceTlb:
    """Translations by address and tag; ``capacity`` None is unbounded, 0 keeps nothing.

    ``hits``, ``misses``, ``evictions`` and ``dropped`` (by invalidation) count up from 0.
    """

    def __init__(
        self,
        capacity: int | None = 64,
        replacement: Replacement = Replacement.LRU,
        seed: int = 0,
    ) -> None:
        if capacity is not None and capacity < 0:
            raise ValueError(f"capacity: {capacity} is negative")
        self.capacity = capacity
        self.replacement = replacement
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.dropped = 0
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()
        self._shifts: tuple[int, ...] = ()
        self._has_global = False
        self._touch = self._entries.move_to_end if replacement is Replacement.LRU else None
        self._indexed = capacity is None or replacement is not Replacement.LRU
        self._pages: dict[int | None, dict[int, int]] = {}
        self._untagged = self._pages[None] = {}
        self._random = random.Random(seed)

    def lookup(self, address: int, need: int, pasid: int | None = None) -> int | None:
        """The translated address if an entry grants all of ``need`` (READ | WRITE), or None.

        ``pasid`` is the PASID, or :func:`tag` of a privileged request.
        """
        pages = self._untagged if pasid is None else self._pages.get(pasid)
        if pages is not None:
            page = pages.get(address >> 12)
            if page is not None and page & need == need:
                self.hits += 1
                return page & _PAGE | address & 0xFFF
        return self._find(address, need, pasid)

    def _find(self, address: int, need: int, pasid: int | None) -> int | None:
        """Look through the entries of every size, those of all PASIDs last."""
        entries = self._entries
        for shift in self._shifts:
            key = (address >> shift, shift, pasid)
            entry = entries.get(key)
            if entry is not None and entry[1] & need == need:
                self.hits += 1
                if self._touch is not None:
                    self._touch(key)
                translated = entry[0] | address & entry[2]
                if self._indexed:
                    page = translated & _PAGE | entry[1]
                    self._pages.setdefault(pasid, {})[address >> 12] = page
                return translated
        if self._has_global and pasid is not None and pasid not in {_ANY_PASID, ~_ANY_PASID}:
            return self._find(address, need, _ANY_PASID if pasid >= 0 else ~_ANY_PASID)
        self.misses += 1
        return None

    def insert(self, address: int, entry: TranslationEntry, pasid: int | None = None) -> None:
        """Keep the translation that a completion gave for ``address``, if it can be kept."""
        permissions = READ * entry.r | WRITE * entry.w
        if entry.u or not permissions or self.capacity == 0:
            return
        shift = entry.size.bit_length() - 1
        offset = entry.size - 1
        if entry.global_ and pasid is not None:
            pasid = _ANY_PASID if pasid >= 0 else ~_ANY_PASID
            self._has_global = True
        key = (address >> shift, shift, pasid)
        if key not in self._entries and len(self._entries) == self.capacity:
            self._evict()
        if shift not in self._shifts:
            self._shifts = tuple(sorted((*self._shifts, shift)))
        self._entries[key] = (entry.address & ~offset, permissions, offset)
        self._forget_pages()

    def invalidate(self, request: InvalidationRequest) -> None:
        """Drop what the request covers: any overlap, exactly its tag.

        A global request covers every PASID and the entries marked global; one without PASID
        covers the entries without PASID only (VT-d 6.5.2.5, 6.5.2.6).
        """
        end = request.address + request.size
        tags = (request.pasid, None if request.pasid is None else ~request.pasid)
        doomed = [
            (number, shift, tagged)
            for number, shift, tagged in self._entries
            if (tagged is not None if request.global_ else tagged in tags)
            and number << shift < end
            and request.address < number + 1 << shift
        ]
        for key in doomed:
            del self._entries[key]
        self._forget_pages()
        self.dropped += len(doomed)

    def clear(self) -> None:
        """Drop everything, as when ATS is disabled."""
        self._entries.clear()
        self._forget_pages()
        self._shifts = ()
        self._has_global = False

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> tuple[CachedTranslation, ...]:
        """What is kept, the next to be given up first (under LRU and FIFO)."""
        found = []
        for (number, shift, tagged), (translated, permissions, _) in self._entries.items():
            privileged = tagged is not None and tagged < 0
            pasid = ~tagged if tagged is not None and tagged < 0 else tagged
            found.append(
                CachedTranslation(
                    address=number << shift,
                    translated=translated,
                    size=1 << shift,
                    permissions=permissions,
                    pasid=None if pasid == _ANY_PASID else pasid,
                    privileged=privileged,
                    global_=pasid == _ANY_PASID,
                )
            )
        return tuple(found)

    def _forget_pages(self) -> None:
        """Empty the index, which holds nothing that the entries don't."""
        for pages in self._pages.values():
            pages.clear()

    def _evict(self) -> None:
        if self.replacement is Replacement.RANDOM:
            del self._entries[self._random.choice(list(self._entries))]
        else:
            self._entries.popitem(last=False)
        self.evictions += 1
