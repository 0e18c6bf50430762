"""Domain-ids that stand for several tables, or for others before software has waited.

VT-d 6.2.2.1, 6.2.3.1 and 6.5.3.3: what is cached under a domain-id is of one set of tables.
"""

from __future__ import annotations

from pagetables.observer import Structure
from vtd.auditing.copies import Copy
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
        self._stored = outdated.stored
        self._read = outdated.read
        self._uses = uses
        self._verdicts = verdicts
        self._roots: dict[int, dict[int, tuple[Word, int]]] = {}
        """Second-stage tables of each domain-id, by the entry that leads there."""
        self._shared: set[tuple[int, int, int]] = set()
        self._left: dict[int, tuple[Copy, Change]] = {}
        """Domain-ids that entries have given up, but nobody has waited for that."""

    def serves(self, domain_id: int) -> None:
        """The entry of the current request leads to tables under this domain-id (6.2.2.1)."""
        entry = self._read.entry()
        root = None if entry is None else _second_stage_root(entry)
        left = self._left.get(domain_id)
        if left is not None and entry is not None:
            copy, changed = left
            if _second_stage_root(changed.word) != root:
                del self._left[domain_id]
                debt = self._verdicts.debt(Kind.NOT_WAITED_FOR, copy, changed)
                debt = debt._replace(missing=f"domain-id {domain_id}", section="6.5.2.9, 6.5.3.3")
                self._verdicts.add(debt)
        if entry is None or root is None:
            return
        roots = self._roots.setdefault(domain_id, {})
        for address, (other, other_root) in list(roots.items()):
            if address == entry.address:
                continue
            if change(other, self._stored.current(other)):
                del roots[address]
            elif (
                other_root != root and (domain_id, *sorted((root, other_root))) not in self._shared
            ):
                self._shared.add((domain_id, min(root, other_root), max(root, other_root)))
                tables = f"two tables, at {other_root:#x} and {root:#x}, by the entries at "
                tables += f"{address:#x} and {entry.address:#x}"
                section = "6.2.2.1" if entry.structure is Structure.CONTEXT else "6.2.3.1"
                owner = Owner(domain_id=domain_id)
                debt = Debt(
                    Kind.SHARED_DOMAIN,
                    CacheName.CONTEXT if entry.structure is Structure.CONTEXT else CacheName.PASID,
                    owner,
                    entry,
                    entry.value,
                    None,
                    tables,
                    section,
                )
                self._verdicts.add(debt)
        roots[entry.address] = entry, root

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
        self._roots.clear()


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
