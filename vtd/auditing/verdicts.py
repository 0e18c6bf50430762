"""Debts that were judged, and how each is put: the missing invalidation, and the section."""

from __future__ import annotations

from pagetables.observer import Structure
from vtd.auditing.copies import Copy
from vtd.auditing.debt import Debt, Kind, Owner, Word, owed_for
from vtd.auditing.page_request_audit import PageRequestFinding
from vtd.auditing.significance import ALL
from vtd.auditing.stored_words import Change, StoredWords
from vtd.auditing.torn_writes import Torn
from vtd.auditing.unflushed_audit import UnflushedFinding
from vtd.unit.observer import CacheName


class Verdicts:
    """The debts that are certain, each with the line of the log where it was met."""

    def __init__(self, stored: StoredWords) -> None:
        self._stored = stored
        self.line = 0
        """Where the reader of a log is."""
        self.judged: list[tuple[int, Debt]] = []

    def add(self, debt: Debt) -> None:
        """A debt is certain at this line."""
        self.judged.append((self.line, debt))

    def of_unflushed(self, found: UnflushedFinding) -> Debt:
        """What is wrong with a read without the latest store."""
        structure, address, value, stored = found.read
        word = Word(structure, address, 8, value, ALL)
        cache = _CACHES.get(structure, CacheName.IOTLB)
        writer = self._stored.writer_of(word)
        missing, section = found.missing, found.section
        return Debt(Kind.UNFLUSHED, cache, Owner(), word, stored, writer, missing, section)

    def debt(self, kind: Kind, copy: Copy, changed: Change, *, reuse: bool = False) -> Debt:
        """What is owed for a change of a copy."""
        word, now, _ = changed
        owner = copy.owner
        rule, missing = owed_for(copy.cache, owner, word, now, reuse=reuse)
        section = "6.5.3.6" if kind is Kind.WINDOW else rule.section
        if kind is Kind.WRONG_ORDER:
            section = _ORDER.get(copy.cache, "6.5.2.1")
        if kind is Kind.TIMED_OUT:
            section = "6.5.2.11"
        writer = self._stored.writer_of(word)
        return Debt(kind, copy.cache, owner, word, now, writer, missing, section, rule, copy.early)


_ORDER = {CacheName.DEVICE_TLB: "6.5.2.6", CacheName.HOST_PERMISSION: "6.5.3.4"}


def of_page_request(found: PageRequestFinding) -> Debt:
    """What is wrong with the answers to page requests."""
    owner = Owner(found.source_id, None, found.pasid)
    word = Word(Structure.PAGE_REQUEST, 0, 0, found.group, ALL)
    text, section = found.text, found.wrong.section
    return Debt(Kind.PAGE_REQUEST, CacheName.DEVICE_TLB, owner, word, None, None, text, section)


def of_no_function(source_id: int, text: str) -> Debt:
    """What is wrong with PFSID."""
    word = Word(Structure.QUEUE_DESCRIPTOR, 0, 0, source_id, ALL)
    cache, owner = CacheName.DEVICE_TLB, Owner(source_id)
    return Debt(Kind.NO_FUNCTION, cache, owner, word, None, None, text, "6.5.2.5, 6.5.2.6")


def of_torn(torn: Torn, writer: str) -> Debt:
    """What is wrong with a change in several stores."""
    word = Word(torn.structure, torn.address, torn.size, torn.before, ALL)
    what = f"the {torn.structure.value} at {torn.address:#x}"
    text = f"{what} was changed by several stores while it was present, the last by {writer}"
    cache, section = _TORN[torn.structure]
    return Debt(Kind.TORN, cache, Owner(), word, torn.after, writer, text, section)


_CACHES = {
    Structure.CONTEXT: CacheName.CONTEXT,
    Structure.PASID: CacheName.PASID,
    Structure.INTERRUPT_ENTRY: CacheName.INTERRUPT,
}
"""The caches for which structures other than paging entries are read."""
_TORN = {
    Structure.CONTEXT: (CacheName.CONTEXT, "6.2.2.1"),
    Structure.PASID: (CacheName.PASID, "6.2.3.1"),
    Structure.INTERRUPT_ENTRY: (CacheName.INTERRUPT, "9.9"),
}
