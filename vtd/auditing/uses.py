"""Uses of what software changed before: judged when a cached entry is used, and by what follows.

VT-d 6.5.3: a use may be legal until software has waited for what it owes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devices.dma import WRITE
from vtd.auditing.copies import Copy
from vtd.auditing.debt import Debt, Kind, Owner, Word
from vtd.auditing.frames_left import PAGES
from vtd.auditing.outdated import Outdated
from vtd.auditing.significance import only_dirty, only_more_rights
from vtd.auditing.stored_words import PRESENT_IN_EITHER_STAGE, Change
from vtd.auditing.verdicts import Verdicts
from vtd.auditing.waits import Waits
from vtd.unit.observer import CacheName


@dataclass
class _Use:
    """A use of an outdated copy, whose verdict may be open."""

    copy: Copy
    changed: Change
    writer: str | None
    line: int
    reuse: bool
    late: bool
    """Whether software had waited for invalidations that should have paid."""


_OF_PAGES = (CacheName.IOTLB, CacheName.SECOND_STAGE)
"""Caches whose entries may be kept for having faulted although tables changed since."""


class Uses:
    """The uses of outdated copies; ``count`` is that of the copies that were checked."""

    def __init__(self, outdated: Outdated, waits: Waits, verdicts: Verdicts) -> None:
        self._outdated = outdated
        self._unit = outdated.unit
        self._stored = outdated.stored
        self._read = outdated.read
        self._waits = waits
        self._verdicts = verdicts
        self.count = 0
        self._uses: dict[tuple[CacheName, Owner, Word], _Use] = {}
        self._open: list[_Use] = []
        self.denying: tuple[Copy, Change] | None = None
        """The copy without a right that software has granted since, for the current request."""

    def use(self, copy: Copy) -> None:
        """A request goes by a copy, or by one that it stands before."""
        self.count += 1
        for each in copy.chain():
            self._judge(each)

    def _judge(self, copy: Copy) -> None:
        request = self._read.request
        for changed in self._stored.changes(copy):
            word, now, bits = changed
            if not copy.refused and now is not None and only_more_rights(word, bits, now):
                if self._unit.options.caches.trust_cached_rights:
                    self.denying = copy, changed
                continue
            reads = request is not None and not request.access & WRITE
            if reads and only_dirty(word, bits):
                continue
            if copy.refused and copy.cache in _OF_PAGES and self._outdated.still_refused(copy):
                return
            if self._outdated.only_resized(copy, changed):
                return
            self.note(copy, changed)
            return

    def note(self, copy: Copy, changed: Change, *, reuse: bool = False) -> None:
        """What a request goes by has changed; ``reuse``: its tags are another's now."""
        copy.used = True
        key = copy.cache, copy.owner, changed.word
        known = self._uses.get(key)
        given_away = self._is_given_away(copy, changed)
        if known is not None and (known.late or (known.copy is copy and not given_away)):
            return
        writer = self._stored.writer_of(changed.word)
        late = self._waits.closed_since(copy, self._stored.changed_at(changed.word)) or given_away
        use = self._uses[key] = _Use(copy, changed, writer, self._verdicts.line, reuse, late)
        if not late:
            self._open.append(use)

    def _is_given_away(self, copy: Copy, changed: Change) -> bool:
        """Whether an address is mapped once more, while a cache has what it led to (6.5.3.6)."""
        word, now, _ = changed
        if copy.cache not in PAGES or not (now or 0) & PRESENT_IN_EITHER_STAGE:
            return False
        return not copy.refused and self._stored.led_nowhere_since(word, copy.number)

    def denied(self) -> None:
        """The request was denied a right, which is stale if software has granted it."""
        if self.denying is not None and self._outdated.is_granted_now():
            self.note(*self.denying)
        self.denying = None

    def waited(self) -> None:
        """A wait descriptor is complete: uses of what should have been paid by now are late."""
        still_open: list[_Use] = []
        for use in self._open:
            if use.copy.gone:
                continue
            if self._waits.may_pay(use.copy):
                use.late = True
            else:
                still_open.append(use)
        self._open = still_open

    def judged(self) -> list[tuple[int, Debt]]:
        """The uses as they stand now, with the line of the log."""
        return [verdict for use in self._uses.values() for verdict in self._verdict(use)]

    def _verdict(self, use: _Use) -> Iterator[tuple[int, Debt]]:
        kind = Kind.MISSING
        if not use.copy.gone and self._outdated.stale_table(use.copy, use.changed) is not None:
            return  # that one is the debt
        if use.copy.early:
            if not use.copy.gone and self._outdated.remaker(use.copy) is not None:
                return  # that one is the debt
            kind = Kind.WRONG_ORDER
        elif use.copy.doubtful:
            kind = Kind.TIMED_OUT
        if use.copy.gone and not use.late:
            kind = Kind.WINDOW
        debt = self._verdicts.debt(kind, use.copy, use.changed, reuse=use.reuse)
        yield use.line, debt._replace(writer=use.writer)
