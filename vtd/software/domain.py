"""A domain: one address space, its page tables, and who uses it (VT-d 3.4.4, 3.5 to 3.8).

Mapping, unmapping and protecting write the tables and then have invalidated what may be cached of
what they changed (6.5.3.3). Frames of tables that were taken out are given to nobody before that is
complete. Dirty tracking reads D of pages and clears it (3.6.2, 3.7.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from devices.dma import READ, WRITE
from pagetables.build import Change, FrameAllocator, TableBuilder
from pagetables.geometry import Geometry, StageKind
from vtd.layouts.entries import AddressWidth, PasidTranslationType
from vtd.software.guidance import Guidance, Owed, Range, User
from vtd.software.invalidation import Invalidator
from vtd.software.memory import Memory

FIRST_STAGE, SECOND_STAGE, NESTED, PASS_THROUGH = (
    PasidTranslationType.FIRST_STAGE,
    PasidTranslationType.SECOND_STAGE,
    PasidTranslationType.NESTED,
    PasidTranslationType.PASS_THROUGH,
)


class DomainError(ValueError):
    """A request that makes no sense for this domain, or on this unit; nothing has changed."""


class Owner(Protocol):
    """What a domain needs of the driver it belongs to."""

    @property
    def guidance(self) -> Guidance: ...

    @property
    def caching_mode(self) -> bool: ...

    @property
    def invalidator(self) -> Invalidator: ...

    def invalidate(self, owed: Iterable[Owed]) -> None: ...

    def set_second_stage_dirty(self, domain: Domain, *, enabled: bool) -> None: ...


class DeferredFrames:
    """Table frames of a domain, which come back only after the invalidations (6.5.3.6)."""

    def __init__(self, allocator: FrameAllocator) -> None:
        self.allocator = allocator
        self.freed: list[int] = []

    def allocate(self) -> int:
        """A frame nobody else has."""
        return self.allocator.allocate()

    def free(self, frame: int) -> None:
        """Keep a frame until :meth:`take`."""
        self.freed.append(frame)

    def take(self) -> list[int]:
        """What was freed since the last time."""
        freed, self.freed = self.freed, []
        return freed


class Domain:
    """One address space; made by :meth:`vtd.software.driver.Driver.domain`.

    ``second`` is the domain whose second stage is below the first stage of a nested one.
    ``largest`` is log2 of the largest page to use, ``preset`` flags to set in every entry.
    """

    def __init__(
        self,
        owner: Owner,
        domain_id: int,
        kind: PasidTranslationType,
        memory: Memory,
        frames: FrameAllocator,
        geometry: Geometry | None,
        *,
        second: Domain | None = None,
        largest: int = 30,
        preset: int = 0,
    ) -> None:
        self.domain_id = domain_id
        self.kind = kind
        self.second = second
        self.nested: list[Domain] = []
        """The nested domains on top of this one's second stage."""
        self.users: list[User] = []
        self.closed = False
        self.second_stage_dirty = False
        """SSADE of the entries that lead to this second stage."""
        self._owner = owner
        self._geometry = geometry
        self._frames = DeferredFrames(frames)
        self._changes: list[Change] = []
        self._put_off: list[Range] = []
        """What was unmapped and not invalidated yet."""
        self._tables: TableBuilder | None = None
        if geometry is not None:
            self._tables = TableBuilder(
                memory,
                geometry,
                self._frames,
                translate=_same if second is None else second._host_address,
                largest=largest,
                preset=preset,
                changed=self._changes.append,
            )
        if second is not None:
            second.nested.append(self)

    @property
    def root(self) -> int:
        """The address of the top table; DomainError for pass-through."""
        return self.tables.root << 12

    @property
    def tables(self) -> TableBuilder:
        """The page tables that input addresses of this domain go through."""
        if self._tables is None:
            raise DomainError(f"domain {self.domain_id}: pass-through has no tables")
        return self._tables

    @property
    def levels(self) -> int:
        """Levels of the tables, 0 for pass-through."""
        return 0 if self._geometry is None else len(self._geometry.levels)

    @property
    def address_width(self) -> AddressWidth:
        """AW of a second stage (9.3, 9.6)."""
        return AddressWidth(self.levels - 2)

    def map(
        self,
        address: int,
        physical: int,
        length: int,
        access: int = READ | WRITE,
        *,
        user: bool = True,
        attributes: int = 0,
    ) -> None:
        """Map ``length`` bytes at ``address``; BuildError as of TableBuilder, nothing changed then.

        ``access``: READ, WRITE or both. ``physical`` is a guest physical address under nesting.
        """
        tables, rights = self.tables, _rights(access)
        if any(start < address + length and address < end for start, end in self._put_off):
            self.flush()
        try:
            tables.map(address, physical, length, rights, user=user, attributes=attributes)
        finally:  # what was mapped before frames ran out may be cached
            self._finish()

    def unmap(self, address: int, length: int, *, deferred: bool = False) -> int:
        """Remove what is mapped in the range; the number of bytes that were.

        No device reaches them any more when this returns, and their memory may be used again; with
        ``deferred`` only once :meth:`flush` has returned (6.5.3.6).
        """
        tables = self.tables
        try:
            return tables.unmap(address, length)
        finally:  # a page may have been split before frames ran out
            self._finish(deferred=deferred)

    def flush(self) -> None:
        """Have invalidated, all at once, what deferred unmaps have left."""
        if self._put_off:
            self._invalidate(self._put_off, leaves_only=False)

    def protect(self, address: int, length: int, access: int, *, user: bool = True) -> int:
        """Give what is mapped in the range these rights; the number of bytes that are."""
        tables, rights = self.tables, _rights(access)
        try:
            return tables.protect(address, length, rights, user=user)
        finally:
            self._finish()

    def physical(self, address: int) -> int | None:
        """Where an input address leads by the tables of this domain, or None."""
        return self.tables.physical(address)

    def set_dirty_tracking(self, *, enabled: bool) -> None:
        """Have the unit set A and D of the second stage, or not (SSADE, 9.6)."""
        self._owner.set_second_stage_dirty(self, enabled=enabled)

    def read_and_clear_dirty(self, address: int, length: int) -> list[tuple[int, int]]:
        """Pages that were written since the last time: address and size of each.

        The unit sets D of a page again when it is written after this returns.
        """
        found = self.tables.clear_dirty(address, length)
        self._finish()
        return found

    def close(self) -> None:
        """Give all tables up; their frames come back once the next invalidation is complete."""
        self.closed = True
        if self.second is not None:
            self.second.nested.remove(self)
        if self._tables is not None:
            self._tables.release()
            self._owner.invalidator.quarantine(self._frames.allocator, self._frames.take())

    def _host_address(self, address: int) -> int:
        """Where this second stage has a guest's table."""
        host = self.physical(address)
        if host is None:
            raise DomainError(f"domain {self.domain_id}: no guest memory at {address:#x}")
        return host

    def _finish(self, *, deferred: bool = False) -> None:
        """Have invalidated what may be cached of the entries that changed."""
        assert self._geometry is not None  # there are tables
        first = self._geometry.kind is StageKind.FIRST
        absent_is_cached = self._owner.caching_mode and not first  # 6.5.3.3: whatever CM says
        changes = [
            change
            for change in self._changes
            if absent_is_cached or change.before & self._geometry.present
        ]
        self._changes.clear()
        ranges = _ranges(changes)
        if deferred:
            self._put_off += ranges
            return
        self._invalidate(ranges, leaves_only=all(change.leaf for change in changes))

    def _invalidate(self, ranges: Sequence[Range], *, leaves_only: bool) -> None:
        """Invalidate these ranges, or with what was put off all; table frames may go then."""
        assert self._geometry is not None  # there are tables
        guidance = self._owner.guidance
        if ranges and self._put_off:
            self._put_off, ranges = [], [(0, 1 << 12 + 9 * self.levels)]
            leaves_only = False
        if not self._put_off:
            self._owner.invalidator.quarantine(self._frames.allocator, self._frames.take())
        if not ranges:
            owed: Iterator[Owed] = iter(())
        elif self._geometry.kind is StageKind.FIRST:
            owed = guidance.first_stage(self.users, ranges, leaves_only=leaves_only)
        else:
            users = [user for domain in (self, *self.nested) for user in domain.users]
            owed = guidance.second_stage(users, ranges, leaves_only=leaves_only)
        self._owner.invalidate(owed)


def _ranges(changes: Sequence[Change]) -> list[Range]:
    """The pages that changed: entries that point to tables have theirs among them (6.5.3.3)."""
    ranges: list[Range] = []
    pages = [change for change in changes if change.page]
    for change in sorted(pages, key=lambda each: (each.address, -each.size)):
        start, end = change.address, change.address + change.size
        if ranges and ranges[-1][1] >= start:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], end)
        else:
            ranges.append((start, end))
    return ranges


def _rights(access: int) -> str:
    if access not in (READ, WRITE, READ | WRITE):
        raise DomainError(f"access {access}: not READ, WRITE or both")
    return ("r" if access & READ else "-") + ("w" if access & WRITE else "-")


def _same(address: int) -> int:
    return address
