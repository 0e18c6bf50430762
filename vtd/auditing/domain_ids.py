"""Domain-ids that stand for several tables, or for others before software has waited.

VT-d 6.2.2.1, 6.2.3.1 and 6.5.3.3: what is cached under a domain-id is of one set of tables, and
entries that share tables agree on how they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from pagetables.observer import Structure
from vtd.auditing.agreements import AGREEMENTS, Use, of_context, of_pasid
from vtd.auditing.copies import Copy, Words
from vtd.auditing.debt import Debt, Kind, Owner, Word
from vtd.auditing.outdated import Outdated
from vtd.auditing.significance import change
from vtd.auditing.stored_words import Change
from vtd.auditing.uses import Uses
from vtd.auditing.verdicts import Verdicts
from vtd.layouts.entries import ContextEntry, PasidEntry, PasidTranslationType, TranslationType
from vtd.unit.observer import CacheName


class DomainIds:
    """Which tables each domain-id stands for, by the entries of requests."""

    def __init__(self, outdated: Outdated, uses: Uses, verdicts: Verdicts) -> None:
        self._keeps_faults = bool(outdated.unit.capabilities.cap.cm)
        """Whether domain-id 0 is that of entries which fault (6.2.2, 6.2.3), and not told of."""
        self._stored = outdated.stored
        self._read = outdated.read
        self._uses = uses
        self._verdicts = verdicts
        self._users: dict[tuple[str, Hashable], dict[Hashable, dict[int, _User]]] = {}
        """By rule and what it is about: who uses what, by the entry that says so."""
        self._told: set[tuple[str, Hashable, frozenset[Hashable]]] = set()
        self._open: list[tuple[int, Debt, Words]] = []
        """Disagreements that may be on their way to an end, with the words that they rest on."""
        self._left: dict[int, tuple[Copy, Change]] = {}
        """Domain-ids that entries have given up, but nobody has waited for that."""

    def serves(self, domain_id: int, pasid: int | None = None) -> None:
        """The entry of the current request leads to tables under this domain-id (6.2.2.1)."""
        entry = self._read.entry()
        if entry is not None and not domain_id and self._keeps_faults:
            self._keeps_faults = False  # once is enough
            text = f"what is kept of faults, too, as CM = 1, by the entry at {entry.address:#x}"
            self._verdicts.add(_debt(Kind.SHARED_DOMAIN, entry, domain_id, text))
        left = self._left.get(domain_id)
        if left is not None and entry is not None:
            copy, changed = left
            if _second_stage_root(changed.word) != _second_stage_root(entry):
                del self._left[domain_id]
                debt = self._verdicts.debt(Kind.NOT_WAITED_FOR, copy, changed)
                debt = debt._replace(missing=f"domain-id {domain_id}", section="6.5.2.9, 6.5.3.3")
                self._verdicts.add(debt)
        if entry is not None and entry.value & 1:
            user = _User(tuple(self._read.lookup.values()), entry, _use(entry, pasid))
            self._compare(user)

    def _compare(self, user: _User) -> None:
        """With all others that have something in common with it; one disagreement is enough."""
        found = False
        for rule, key, value, _ in AGREEMENTS:
            shared = key(user.use)
            if rule not in _TEXTS or shared is None:
                continue
            by_value = self._users.setdefault((rule, shared), {})
            own = value(user.use)
            for theirs in [each for each in by_value if each != own]:
                pair = rule, shared, frozenset((own, theirs))
                for address, other in list(by_value[theirs].items()):
                    if address == user.entry.address or self._has_changed(other.words):
                        del by_value[theirs][address]
                    elif not found and pair not in self._told:
                        found = True
                        self._told.add(pair)
                        self._disagree(rule, user, other)
            by_value.setdefault(own, {})[user.entry.address] = user

    def _has_changed(self, words: Words) -> bool:
        return any(change(word, self._stored.current(word)) for word in words)

    def _disagree(self, rule: str, user: _User, other: _User) -> None:
        kind = Kind.DISAGREEMENT if rule in _OF_TABLES else Kind.SHARED_DOMAIN
        text = _TEXTS[rule](user.use, other.use)
        entries = f"by the entries at {other.entry.address:#x} and {user.entry.address:#x}"
        debt = _debt(kind, user.entry, user.use.domain_id, f"{text}, {entries}")
        if rule in _OF_TABLES:
            self._open.append((self._verdicts.line, debt, (*user.words, *other.words)))
        else:
            self._verdicts.add(debt)

    def judged(self) -> list[tuple[int, Debt]]:
        """Entries that still disagree: they can't be changed all at once."""
        return [(line, debt) for line, debt, words in self._open if not self._has_changed(words)]

    def judge_table(self, copy: Copy) -> None:
        """Whether a table is kept for the tags of the request, but came from another root.

        The entry that led there has changed, or its domain-id is another's now (6.5.3.3).
        """
        entry, via = self._read.entry(), copy.via
        if entry is None or via is None:
            return
        now = self._stored.current(via)
        roots = (_root(copy.cache, each) for each in (via, entry))
        bits = change(via, now)
        if next(roots) != next(roots) and bits:
            self._uses.note(copy, Change(via, now, bits), reuse=via.address != entry.address)

    def left(self, copy: Copy) -> None:
        """An invalidation removed a copy: its domain-id is given up if its own entry changed."""
        if copy.cache not in (CacheName.CONTEXT, CacheName.PASID) or copy.domain_id is None:
            return
        own = next(
            (each for each in self._stored.changes(copy) if each.word is copy.words[-1]), None
        )
        if own is not None and not copy.refused:
            self._left[copy.domain_id] = copy, own

    def waited(self) -> None:
        """Nothing is cached any more under those that were given up."""
        self._left.clear()

    def set_root(self) -> None:
        """All tables are reached in another way."""
        self._users.clear()


class _User(NamedTuple):
    """A context or PASID entry that a request went by."""

    words: Words
    """All that leads there, from the root on."""
    entry: Word
    use: Use


def _use(entry: Word, pasid: int | None) -> Use:
    if entry.structure is Structure.CONTEXT:
        return of_context(ContextEntry(entry.value), entry.address, "")
    return of_pasid(PasidEntry(entry.value), entry.address, "", pasid or 0, permitted=False)


def _debt(kind: Kind, entry: Word, domain_id: int, text: str) -> Debt:
    """What is wrong with the domain-id, or with the tables, of an entry."""
    cache, section = CacheName.PASID, "6.2.3.1"
    if entry.structure is Structure.CONTEXT:
        cache, section = CacheName.CONTEXT, "6.2.2.1"
    return Debt(kind, cache, Owner(domain_id=domain_id), entry, entry.value, None, text, section)


def _two_tables(use: Use, other: Use) -> str:
    if use.second == other.second:
        return f"two address widths of the table at {use.second or 0:#x}"
    return f"two tables, at {other.second or 0:#x} and {use.second or 0:#x}"


_TEXTS: dict[str, Callable[[Use, Use], str]] = {
    "D01": _two_tables,
    "D02": lambda use, _: "translations with a second stage and others without",
    "D06": lambda use, _: f"two sets of tables of PASID {use.pasid or 0:#x}",
    "D04": lambda use, _: f"the second-stage table at {use.second or 0:#x}: SSADE is 0 and 1",
    "D05": lambda use, _: f"the first-stage table at {use.first or 0:#x}: two FSPM or EAFE",
}
"""What is said where entries disagree, by the rule of :data:`AGREEMENTS`."""
_OF_TABLES = "D04", "D05"


def _root(cache: CacheName, entry: Word) -> int | None:
    """Where the tables of a paging-structure cache begin, by a context or PASID entry."""
    if cache is CacheName.SECOND_STAGE:
        return _second_stage_root(entry)
    return PasidEntry(entry.value).fsptptr


def _second_stage_root(entry: Word) -> int | None:
    """Where the second stage of a context or PASID entry begins; None if it has none."""
    if entry.structure is Structure.CONTEXT:
        context = ContextEntry(entry.value)
        if not context.p or context.tt is TranslationType.PASS_THROUGH:
            return None
        return context.ssptptr
    pasid = PasidEntry(entry.value)
    second = pasid.pgtt in (PasidTranslationType.SECOND_STAGE, PasidTranslationType.NESTED)
    return pasid.ssptptr if pasid.p and second else None
