"""Which copies are outdated so that an invalidation is owed, and in which order (6.5.2, 6.5.3).

Left out: whether somebody uses them.
"""

from __future__ import annotations

import functools
import operator
from contextlib import suppress
from itertools import chain

from devices.dma import READ, WRITE, Request
from pagetables.observer import Structure
from pagetables.second_stage import IO_READ, IO_WRITE, PAGE_SIZE
from pagetables.second_stage import READ as MAY_READ
from pagetables.second_stage import WRITE as MAY_WRITE
from pagetables.walk import ADDRESS
from vtd.auditing.copies import Copies, Copy
from vtd.auditing.debt import Word
from vtd.auditing.led_to import Place, places_of
from vtd.auditing.request_words import RequestWords
from vtd.auditing.significance import change, only_more_rights
from vtd.auditing.stored_words import PAGING, Change, StoredWords
from vtd.unit.caching.iotlb import IotlbEntry
from vtd.unit.observer import CacheName, Observer
from vtd.unit.requests.faults import TranslationFault
from vtd.unit.requests.request import RequestKind, kind_of
from vtd.unit.translation.remapping import onlooker
from vtd.unit.translation.translate import entry_for
from vtd.unit.unit import RemappingUnit

_RIGHTS = MAY_READ | MAY_WRITE | IO_READ | IO_WRITE
_PRESENT = 1
"""P of context and PASID entries."""


class _Way(Observer):
    """The structures that were read."""

    def __init__(self) -> None:
        self.read_so_far: list[tuple[Structure, int, int]] = []
        """Which, where, and what it said."""

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """One more."""
        self.read_so_far.append((structure, address, value))


class Outdated:
    """What is to be invalidated of the copies of one unit."""

    def __init__(
        self, unit: RemappingUnit, copies: Copies, stored: StoredWords, read: RequestWords
    ) -> None:
        self.unit = unit
        self.copies = copies
        self.stored = stored
        self.read = read

    def put(self, copy: Copy) -> Copy:
        """A copy takes the place of one with its key, or stands before it if that is owed for."""
        known = copy.place.get(copy.key)
        if known is not None and (known.used or self._differs(known, copy)):
            copy.older = known
        copy.put()
        return copy

    def _differs(self, known: Copy, copy: Copy) -> bool:
        """Whether an outdated copy is not just replaced by the same again."""
        return known.words != copy.words and self.harmful(known) is not None

    def harmful(self, copy: Copy) -> Change | None:
        """The first change for which an invalidation is owed, of the copy or an older one."""
        for each in copy.chain():
            for changed in self.stored.changes(each):
                word, now, bits = changed
                skippable = now is not None and only_more_rights(word, bits, now)
                if skippable and not each.refused and not self._counts_grants(word):
                    continue
                absent_table = each.refused and each.cache is CacheName.SECOND_STAGE
                if absent_table:  # judged by the requests that it blocks
                    continue
                if each.refused and each.cache is CacheName.IOTLB and self.still_refused(each):
                    continue
                if self.only_resized(each, changed):
                    continue
                return changed
        return self._without_user(copy)

    def _without_user(self, copy: Copy) -> Change | None:
        """The entry that led to a second-stage table, if it is not present any more.

        Only invalidations of the domain remove what is kept of such tables then (Tables 24 and 28).
        """
        via = copy.via
        if via is None or copy.cache is not CacheName.SECOND_STAGE or copy.refused:
            return None
        now = self.stored.current(via)
        gone = via.value & ~(now or 0) & _PRESENT
        return Change(via, now, gone) if gone else None

    def _counts_grants(self, word: Word) -> bool:
        """6.5.3.5: under CM = 1 no invalidation of second-stage entries can be skipped."""
        return word.structure is Structure.SECOND_STAGE and self.unit.capabilities.cap.cm

    def still_refused(self, copy: Copy) -> bool:
        """Whether no access to a page is let through, as the structures are now.

        A fault that is cached under CM = 1 is stale only if mapping the page made it so; tables
        that appeared on the way to it are no change of the page (6.5.3.3).
        """
        if copy.cache is CacheName.IOTLB:
            kind, address = self._kind_of(copy), copy.start or 0
        elif self.read.request is None:
            return True
        else:
            kind, address = kind_of(self.read.request), self.read.request.address
        return self._reached(kind, address) is None

    def still_leads(self, copy: Copy) -> bool:
        """Whether the page of a copy is still reached by its address, on another way."""
        address = copy.start or 0
        entry = self._reached(self._kind_of(copy), address)
        return entry is not None and entry.physical + address - entry.address >> 12 == copy.frame

    def only_resized(self, copy: Copy, changed: Change) -> bool:
        """Whether its page is the same as before, and only reached by a page of another size.

        Then it does not matter which of the two a request uses (6.5.3.3, last item). Left out:
        first-stage tables, where PAT is elsewhere in larger pages.
        """
        if changed.word.structure not in PAGING or not (changed.now or 0) & _RIGHTS:
            return False
        stages = {word.structure for word in copy.words if word.structure in PAGING}
        if copy.cache is not CacheName.IOTLB or copy.refused or stages != {Structure.SECOND_STAGE}:
            return False
        if not self.still_leads(copy):
            return False
        pasid = self._kind_of(copy)[1]
        now = [value for stage, _, value in self._way(copy, pasid) if stage in stages]
        before = [word.value for word in copy.words if word.structure in stages]
        leaf = copy.words[-1]._replace(value=_meaning(before))
        return len(now) != len(before) and not change(leaf, _meaning(now))

    def _reached(self, kind: RequestKind, address: int) -> IotlbEntry | None:
        """Where some access leads, as the structures are now; None if each is refused."""
        tables = onlooker(self.unit.remapping)
        source_id, pasid, privileged = kind
        for access in (READ, WRITE):
            with suppress(TranslationFault):
                request = Request(source_id, address, access, 1, pasid, privileged)
                return entry_for(tables, request)
        return None

    def is_on_the_way(self, frame: int, copy: Copy) -> bool:
        """Whether requests go through a table, as far as is known: those of a copy, or others."""
        known = (
            each
            for each in self.copies.all()
            for word in each.words
            if word.size and word.address >> 12 == frame
        )
        way = (*self._way(copy, self._kind_of(copy)[1]), *self._way(copy, None))
        on_it = any(frame == address >> 12 for _, address, _ in way)
        return on_it or any(self._leads_on(each) for each in known)

    def _leads_on(self, copy: Copy) -> bool:
        """Whether all that a copy came from leads where it did, whatever rights were added."""
        changes = self.stored.changes(copy)
        return all(
            now is not None and only_more_rights(word, bits, now) for word, now, bits in changes
        )

    def _way(self, copy: Copy, pasid: int | None) -> list[tuple[Structure, int, int]]:
        """What a request of a copy goes through, as the structures are now."""
        tables, seen = onlooker(self.unit.remapping), _Way()
        tables.root = self.unit.remapping.new_root or tables.root
        tables.observer = seen
        source_id, _, privileged = self._kind_of(copy)
        with suppress(TranslationFault):
            entry_for(tables, Request(source_id, copy.start or 0, READ, 1, pasid, privileged))
        return seen.read_so_far

    def _kind_of(self, copy: Copy) -> RequestKind:
        """Which requests go by what the IOTLB or a device-TLB has."""
        spaces = self.copies.iotlb.items()
        kinds = (kind for kind, space in spaces if space is copy.place)
        return next(kinds, (copy.source_id or 0, copy.pasid, False))

    def lead_to(self, places: set[Place]) -> bool:
        """Whether an entry that some cache has, and that nobody changed, leads to one of them."""
        copies = chain(
            self.copies.context.values(),
            self.copies.pasid.values(),
            self.copies.interrupts.values(),
        )
        return any(
            places & places_of(copy.words[-1], copy.words[-1].value) and self.harmful(copy) is None
            for copy in copies
        )

    def is_granted_now(self) -> bool:
        """Whether the tables, as they are now, let the current request through."""
        request = self.read.request
        assert request is not None
        with suppress(TranslationFault):
            entry_for(onlooker(self.unit.remapping, self.unit.remapping.memory), request)
            return True
        return False

    def stale_table(self, copy: Copy, changed: Change) -> Copy | None:
        """The table, kept from before a change, by which an IOTLB entry was made since (6.2.5)."""
        word = changed.word
        changed_at = self.stored.changed_at(word)
        if copy.cache is not CacheName.IOTLB or changed_at is None or copy.number < changed_at:
            return None
        tables = chain(*(tables.values() for tables in self.copies.tables.values()))
        stale = (each for each in tables if word in each.words and self.harmful(each) is not None)
        return next(stale, None)

    def remaker(self, copy: Copy) -> Copy | None:
        """An outdated copy in a cache that is to be invalidated first, of which this is made."""
        source_id = copy.source_id
        if source_id is None:
            return None
        above: list[Copy | None] = []
        if copy.cache is not CacheName.CONTEXT:
            above.append(self.copies.context.get(source_id))
        if copy.cache in (CacheName.IOTLB, CacheName.DEVICE_TLB) and copy.pasid is not None:
            above.append(self.copies.pasid.get((source_id, copy.pasid)))
        if copy.cache is CacheName.HOST_PERMISSION:  # 6.5.3.4
            entries = {word.address for word in copy.words if word.structure is Structure.PASID}
            above += (
                each
                for (source, _), each in self.copies.pasid.items()
                if source == source_id and each.words[-1].address in entries
            )
        if copy.cache is CacheName.DEVICE_TLB:
            start, end = copy.start or 0, (copy.start or 0) + (1 << copy.shift)
            for privileged in (False, True):
                space = self.copies.iotlb[source_id, copy.pasid, privileged]
                if end - start >> 12 < len(space):
                    above += (space.get(number) for number in range(start >> 12, end >> 12))
                else:
                    above += (each for each in space.values() if each.meets(start, end))
        outdated = (each for each in above if each is not None and self.harmful(each))
        return next(outdated, None)


def _meaning(entries: list[int]) -> int:
    """What second-stage entries from the top to a leaf say of its page, but where and how large."""
    rights = functools.reduce(operator.and_, entries) & _RIGHTS
    return entries[-1] & ~(ADDRESS | PAGE_SIZE | _RIGHTS) | rights
