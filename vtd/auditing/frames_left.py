"""Pages, tables and posted-interrupt descriptors that nothing leads to, used again too early.

VT-d 6.5.2.9 and 6.5.3.6: others may still have them until a wait descriptor is complete. 6.5.4: and
requests that are under way, if a unit that can drain them was not told to.
"""

from __future__ import annotations

from typing import NamedTuple

from pagetables import second_stage
from pagetables.first_stage import PRESENT
from pagetables.observer import Structure
from pagetables.walk import ADDRESS
from vtd.auditing.copies import Copy
from vtd.auditing.debt import Kind, Word
from vtd.auditing.led_to import DESCRIPTOR, FRAME, Place, places_of
from vtd.auditing.outdated import Outdated
from vtd.auditing.stored_words import PAGING, Change
from vtd.auditing.verdicts import Verdicts
from vtd.layouts.registers import GlobalStatus
from vtd.unit.observer import CacheName

LONG_STORE = 64
"""Bytes: a store of more is of no single entry, one of as many is of a whole descriptor."""
PAGES = (CacheName.IOTLB, CacheName.DEVICE_TLB)
STRUCTURES = (CacheName.CONTEXT, CacheName.PASID, CacheName.INTERRUPT)


class _Left(NamedTuple):
    """What led to a place, and does not any more."""

    copy: Copy
    changed: Change
    is_table: bool


class FramesLeft:
    """What software gave up without having waited for that."""

    def __init__(self, outdated: Outdated, verdicts: Verdicts) -> None:
        self._outdated = outdated
        self._stored = outdated.stored
        self._verdicts = verdicts
        self._limbo: dict[Place, _Left] = {}
        self._undrained: dict[int, tuple[Copy, Change, str]] = {}
        """Frames that requests under way may still reach, and the flag that would have helped."""
        self._descriptors: dict[int, int] = {}
        """Posted-interrupt descriptors by number: when software last stored all of one."""
        status = outdated.unit.registers[GlobalStatus]
        self._on = {False: status.tes, True: status.ires}
        """Whether requests and interrupts are remapped; by whether it is about interrupts."""
        self._since = {False: -1, True: -1}
        """Since when they are."""

    def switched(self, *, translation: bool, interrupts: bool) -> None:
        """While remapping is off, nobody has what its entries led to."""
        for about_interrupts, on in ((False, translation), (True, interrupts)):
            if on and not self._on[about_interrupts]:
                self._since[about_interrupts] = self._stored.now
            self._on[about_interrupts] = on
            for place, left in list(self._limbo.items()):
                if not self.is_on(left.copy):
                    del self._limbo[place]

    def is_on(self, copy: Copy) -> bool:
        """Whether requests, or interrupts, go by what a copy is of."""
        return self._on[_is_about_interrupts(copy)]

    def posted(self, entry: Word) -> None:
        """A unit has read this interrupt-remapping entry, which may lead to a descriptor."""
        for _, number in places_of(entry, entry.value):
            self._descriptors.setdefault(number, -1)

    def left(self, copy: Copy, undrained: str = "") -> None:
        """An invalidation removed a copy: nothing leads any more to where it did if that changed.

        ``undrained``: the flag that is missing for requests under way, DR or DW.
        """
        if copy.refused or not self.is_on(copy):
            return
        changes = list(self._stored.changes(copy))
        ended = [each for each in changes if _leads_elsewhere(each)]
        if not ended:
            return
        changed = min(ended, key=self._ended_at)
        places = set() if self._still_leads(copy, changes) else _ends_of(copy, changed)
        is_table = copy.cache not in PAGES
        for place in places:
            self._is_left(place, _Left(copy, changed, is_table))
            if undrained and copy.cache is CacheName.IOTLB and changed.word.structure in PAGING:
                self._undrained[place[1]] = copy, changed, undrained
        for place in _tables_below(copy, changed) - places:
            self._is_left(place, _Left(copy, changed, is_table=True))

    def _still_leads(self, copy: Copy, changes: list[Change]) -> bool:
        """Whether a page is reached all the same; if its entry alone was cleared, it is not."""
        word, now, _ = changes[-1]
        cleared = len(changes) == 1 and word is copy.words[-1] and not now
        return copy.cache in PAGES and not cleared and self._outdated.still_leads(copy)

    def _ended_at(self, changed: Change) -> int:
        """When software stored a change; if that was not seen, now."""
        changed_at = self._stored.changed_at(changed.word)
        return self._stored.now if changed_at is None else changed_at

    def _is_left(self, place: Place, left: _Left) -> None:
        if self._is_filled(place, left):
            self._used_again(place, left)
        else:
            self._limbo[place] = left

    def _is_filled(self, place: Place, left: _Left) -> bool:
        """Whether software has stored what is of another user there since."""
        changed_at = self._stored.changed_at(left.changed.word)
        if changed_at is None:
            return False
        since, (size, number) = max(self._since[_is_about_interrupts(left.copy)], changed_at), place
        if size == DESCRIPTOR:
            return self._descriptors.get(number, -1) > since
        filled_at, length = self._stored.filled(number)
        if filled_at > since and _is_reuse(left, length):
            return True
        return _is_of_entries(left) and self._stored.is_table_since(
            number, since, left.changed.word
        )

    def store(self, address: int, length: int) -> None:
        """Software stores something there."""
        last = address + max(length, 1) - 1
        for frame in range(address >> FRAME, (last >> FRAME) + 1):
            self._frame_stored(frame, length)
        if length >= LONG_STORE and self._descriptors:
            for number in range(address >> DESCRIPTOR, (last >> DESCRIPTOR) + 1):
                if number in self._descriptors:
                    self._descriptors[number] = self._stored.now
                    self._claimed((DESCRIPTOR, number))

    def _frame_stored(self, frame: int, length: int) -> None:
        left = self._limbo.get((FRAME, frame))
        if left is not None and self._is_filled((FRAME, frame), left):
            self._claimed((FRAME, frame))
        elif frame in self._undrained:
            copy, changed, flag = self._undrained.pop(frame)
            debt = self._verdicts.debt(Kind.NOT_DRAINED, copy, changed)
            missing = f"{flag} in the {debt.missing}"
            self._verdicts.add(debt._replace(missing=missing, section="6.5.4"))

    def _claimed(self, place: Place) -> None:
        left = self._limbo.pop(place, None)
        if left is not None:
            self._used_again(place, left)

    def drained(self, domain_id: int | None) -> None:
        """No request of a domain, or of any, is under way once software has waited."""
        for frame, (copy, changed, _) in list(self._undrained.items()):
            if domain_id in (None, copy.domain_id):
                del self._undrained[frame]
                self._limbo[FRAME, frame] = _Left(copy, changed, is_table=False)

    def waited(self) -> None:
        """Nobody has them any more."""
        for place, left in self._limbo.items():
            if _is_of_entries(left) and self._is_filled(place, left):
                self._used_again(place, left)
        self._limbo.clear()

    def _is_shared(self, page: Place, word: Word) -> bool:
        """Whether a page is mapped a second time, and was when ``word`` ceased to lead there."""
        changed_at = self._stored.changed_at(word) or 0
        spaces = self._outdated.copies.iotlb.values()
        return any(
            min(each.number, self._stored.there_since(each.words[-1])) < changed_at
            for space in spaces
            for each in space.values()
            if not each.refused
            and each.words[-1].structure in PAGING  # not passed through
            and _end_of(each) == page
            and self._outdated.harmful(each) is None
        )

    def _used_again(self, place: Place, left: _Left) -> None:
        copy, changed, is_table = left
        word = changed.word
        if not is_table and (self._is_shared(place, word) or _is_in(word, place)):
            return
        if word.structure not in PAGING and self._outdated.lead_to(places_of(word, word.value)):
            return  # others go on with the same tables
        size, number = place
        if is_table and size == FRAME and self._outdated.is_on_the_way(number, copy):
            return
        what = "table" if is_table else "page"
        if size == DESCRIPTOR:
            what = "posted-interrupt descriptor"
        debt = self._verdicts.debt(Kind.NOT_WAITED_FOR, copy, changed)
        missing = f"the {what} at {number << size:#x}"
        self._verdicts.add(debt._replace(missing=missing, section="6.5.2.9, 6.5.3.6"))


def _is_in(word: Word, place: Place) -> bool:
    """Whether a page is the table that maps it, so that stores to it are of entries."""
    return bool(word.size) and place == (FRAME, word.address >> FRAME)


def _is_about_interrupts(copy: Copy) -> bool:
    return copy.cache is CacheName.INTERRUPT


def _is_reuse(left: _Left, length: int) -> bool:
    """Whether a store is by another user: not of one entry, where tables were."""
    return not left.is_table or length > LONG_STORE


def _is_of_entries(left: _Left) -> bool:
    """Whether a table hung on a paging entry, as it does if it is one again."""
    return left.is_table and left.changed.word.structure in PAGING


def _tables_below(copy: Copy, changed: Change) -> set[Place]:
    """The tables that were reached by a word, and by no other of a copy."""
    if copy.cache not in _OF_REQUESTS:
        return set()
    number = copy.words.index(changed.word) + 1
    above, below = (
        {(FRAME, word.address >> FRAME) for word in words if word.size}
        for words in (copy.words[:number], copy.words[number:])
    )
    return below - above


_OF_REQUESTS = (CacheName.CONTEXT, CacheName.PASID, CacheName.IOTLB)
"""Caches whose copies know all structures that were met, in their order."""


def _leads_elsewhere(changed: Change) -> bool:
    """Whether an entry or a pointer does not lead any more to all that it did."""
    word, now, _ = changed
    if word.structure not in PAGING:
        return not places_of(word, word.value) <= places_of(word, now or 0)
    present = _SECOND_STAGE_RIGHTS if word.structure is Structure.SECOND_STAGE else PRESENT
    return now is None or not now & present or (now ^ word.value) & ADDRESS != 0


_SECOND_STAGE_RIGHTS = second_stage.READ | second_stage.WRITE


def _ends_of(copy: Copy, changed: Change) -> set[Place]:
    """Where a copy led that a change does not lead to."""
    word, now, _ = changed
    if word.structure in PAGING or copy.cache in PAGES:
        return {_end_of(copy)}
    return places_of(word, word.value) - places_of(word, now or 0)


def _end_of(copy: Copy) -> Place:
    """The table, or the piece of a page, that a copy leads to in the end."""
    frame = copy.words[-1].value & ADDRESS
    return FRAME, frame >> FRAME if copy.frame is None else copy.frame
