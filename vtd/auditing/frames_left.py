"""Pages and tables that nothing leads to any more, and are used again too early.

VT-d 6.5.2.9 and 6.5.3.6: others may still have them until a wait descriptor is complete. 6.5.4: and
requests that are under way, if a unit that can drain them was not told to.
"""

from __future__ import annotations

from pagetables import second_stage
from pagetables.first_stage import PRESENT
from pagetables.observer import Structure
from pagetables.walk import ADDRESS
from vtd.auditing.copies import Copy
from vtd.auditing.debt import Kind
from vtd.auditing.stored_words import PAGING, Change, StoredWords
from vtd.auditing.verdicts import Verdicts
from vtd.unit.observer import CacheName

LONG_STORE = 64
"""Bytes: a store of as many is of no single entry."""
PAGES = (CacheName.IOTLB, CacheName.DEVICE_TLB)


class FramesLeft:
    """The frames that software gave up without having waited for that."""

    def __init__(self, stored: StoredWords, verdicts: Verdicts) -> None:
        self._stored = stored
        self._verdicts = verdicts
        self._limbo: dict[int, tuple[Copy, Change]] = {}
        self._undrained: dict[int, tuple[Copy, Change, str]] = {}
        """Frames that requests under way may still reach, and the flag that would have helped."""

    def left(self, copy: Copy, undrained: str = "") -> None:
        """An invalidation removed a copy: nothing leads to its frame any more if that changed.

        ``undrained``: the flag that is missing for requests under way, DR or DW.
        """
        moved = next((each for each in self._stored.changes(copy) if _leads_elsewhere(each)), None)
        if moved is None:
            return
        frame, changed_at = _frame_of(copy), self._stored.changed_at(moved.word)
        filled_at, length = self._stored.filled(frame)
        if changed_at is not None and filled_at > changed_at and _is_reuse(copy, length):
            self._used_again(frame, copy, moved)
        else:
            self._limbo[frame] = copy, moved
        if undrained and copy.cache is CacheName.IOTLB:
            self._undrained[frame] = copy, moved, undrained

    def store(self, frame: int, length: int) -> None:
        """Software stores something there."""
        waiting = self._limbo.get(frame)
        if waiting is not None and _is_reuse(waiting[0], length):
            del self._limbo[frame]
            self._used_again(frame, *waiting)
        elif frame in self._undrained:
            copy, changed, flag = self._undrained.pop(frame)
            debt = self._verdicts.debt(Kind.NOT_DRAINED, copy, changed)
            missing = f"{flag} in the {debt.missing}"
            self._verdicts.add(debt._replace(missing=missing, section="6.5.4"))

    def drained(self, domain_id: int | None) -> None:
        """No request of a domain, or of any, is under way once software has waited."""
        for frame, (copy, changed, _) in list(self._undrained.items()):
            if domain_id in (None, copy.domain_id):
                del self._undrained[frame]
                self._limbo[frame] = copy, changed

    def waited(self) -> None:
        """Nobody has them any more."""
        self._limbo.clear()

    def _used_again(self, frame: int, copy: Copy, changed: Change) -> None:
        what = "page" if copy.cache in PAGES else "table"
        debt = self._verdicts.debt(Kind.NOT_WAITED_FOR, copy, changed)
        debt = debt._replace(missing=f"the {what} at {frame << 12:#x}", section="6.5.2.9, 6.5.3.6")
        self._verdicts.add(debt)


def _is_reuse(copy: Copy, length: int) -> bool:
    """Whether a store is by another user: not of one entry, where tables were."""
    return copy.cache in PAGES or length >= LONG_STORE


def _leads_elsewhere(changed: Change) -> bool:
    """Whether a paging entry does not lead any more to where it did."""
    word, now, _ = changed
    if word.structure not in PAGING:
        return False
    present = _SECOND_STAGE_RIGHTS if word.structure is Structure.SECOND_STAGE else PRESENT
    return now is None or not now & present or (now ^ word.value) & ADDRESS != 0


_SECOND_STAGE_RIGHTS = second_stage.READ | second_stage.WRITE


def _frame_of(copy: Copy) -> int:
    """The frame of the table, or of the piece of a page, that a copy leads to."""
    physical = copy.words[-1].value & ADDRESS
    if copy.cache is CacheName.IOTLB:
        inside = (1 << copy.shift) - 1
        physical = physical & ~inside | (copy.start or 0) & inside
    return physical >> 12
