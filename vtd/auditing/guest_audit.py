"""Audit of INVEPT and INVVPID: uses of cached mappings whose tables have changed since (SDM 28.3).

Every mapping of a processor remembers the entries that it came from: those of EPT, those of the
guest's paging, and CR3. A processor that still uses one after software changed an entry was not
given the invalidation that software owed. :meth:`GuestAudit.owed` is the ledger: what is owed now,
used or not. Left out: changes of CR0 and CR4, and those that only add rights, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from pagetables import ept, first_stage
from pagetables.memory import BusError, FrameReader, FrameSource
from vtd.guest.x86.mappings import GLOBAL, Mappings, MappingSpace
from vtd.guest.x86.processor import LogicalProcessor
from vtd.guest.x86.translation import ProcessorMemory


class MappingKind(Enum):
    """Kinds of cached mappings (28.3.1)."""

    LINEAR = "linear mapping"
    PHYSICAL = "guest-physical mapping"
    COMBINED = "combined mapping"


class Origin(Enum):
    """What a mapping came from."""

    EPT = "EPT entry"
    PAGING = "paging-structure entry of the guest"
    CR3 = "guest CR3"


class Entry(NamedTuple):
    """An entry that a mapping came from."""

    origin: Origin
    address: int
    """0 for CR3."""
    size: int
    value: int


Entries = dict[tuple[Origin, int], Entry]


class StaleMapping(NamedTuple):
    """A cached mapping whose tables software has changed."""

    kind: MappingKind
    space: MappingSpace
    page: int
    """Address of the page: linear, or guest-physical."""
    changed: Entry
    """As the mapping knows it."""
    now: int | None
    """What it holds now; None where there is no memory any more."""
    writer: str | None
    missing: str
    """The invalidation that would remove the mapping."""

    def __str__(self) -> str:
        now = "gone" if self.now is None else f"{self.now:#x}"
        where = f" at {self.changed.address:#x}" if self.changed.size else ""
        by = f" by {self.writer}" if self.writer else ""
        return (
            f"{self.kind.value} of {self.page:#x} used after the {self.changed.origin.value}"
            f"{where} changed from {self.changed.value:#x} to {now}{by}: missing {self.missing} "
            "(SDM 28.3.3)"
        )


class GuestAudit:
    """Watches ``processor`` from now on; guests that run already are not watched.

    ``findings`` keeps the first stale use of each mapping and entry.
    """

    def __init__(self, processor: LogicalProcessor) -> None:
        self.findings: list[StaleMapping] = []
        self.uses = 0
        self._memory = processor.memory
        self._writers: dict[int, str] = {}
        self._reported: set[tuple[MappingSpace, int, Entry]] = set()
        self._processor = processor
        self.mappings = _WatchedMappings(self)
        processor.mappings = self.mappings
        processor.memory = _WatchedMemory(self._memory, self.mappings)

    def wrote(self, address: int, length: int, writer: str) -> None:
        """Software stored ``length`` bytes; ``writer`` is how findings name the place."""
        for number in range(address >> 3, (address + length - 1 >> 3) + 1):
            self._writers[number] = writer

    def owed(self) -> list[StaleMapping]:
        """Mappings that are cached now although their tables have changed."""
        owed: list[StaleMapping] = []
        for kind, space, page, entries in self.mappings.kept():
            owed += self._stale(kind, space, page, entries)
        return owed

    def use(self, kind: MappingKind, space: MappingSpace, page: int, entries: Entries) -> None:
        """A mapping is used."""
        self.uses += 1
        for stale in self._stale(kind, space, page, entries):
            seen = space, page, stale.changed
            if seen not in self._reported:
                self._reported.add(seen)
                self.findings.append(stale)

    def _stale(
        self, kind: MappingKind, space: MappingSpace, page: int, entries: Entries
    ) -> Iterator[StaleMapping]:
        for entry in entries.values():
            now = self._current(entry, space)
            if now is None or _takes_away(entry, now):
                writer = self._writers.get(entry.address >> 3) if entry.size else None
                missing = _missing(kind, space, page, entry)
                yield StaleMapping(kind, space, page << 12, entry, now, writer, missing)

    def _current(self, entry: Entry, space: MappingSpace) -> int | None:
        if entry.origin is Origin.CR3:
            guest = self._processor.guest
            # Only the guest of the same space says what its CR3 is.
            if guest is None or guest.translation.space != space:
                return entry.value
            return guest.state["guest_cr3"]
        try:
            return self._memory.read_record(entry.address, entry.size)
        except BusError:
            return None


_FLAGS = {
    Origin.EPT: (ept.ACCESSED, ept.DIRTY, ept.RIGHTS | ept.EXECUTE_USER),
    Origin.PAGING: (first_stage.ACCESSED, first_stage.DIRTY, first_stage.WRITE | first_stage.USER),
    Origin.CR3: (0, 0, 0),
}
"""Accessed flag, dirty flag, and rights of an entry."""
_IGNORED = {
    Origin.EPT: ept.EptPage4K.ign_62_52.mask | ept.EptPage4K.ign_11.mask | ept.EptPage4K.sve.mask,
    Origin.PAGING: first_stage.FirstStagePage4K.ign_9.mask
    | first_stage.FirstStagePage4K.ign_11.mask
    | 0x7FF << 52,
    Origin.CR3: 0xFFF,
}


def _takes_away(entry: Entry, now: int) -> bool:
    """Whether a change matters to who uses the mapping: not flags set, nor rights added."""
    accessed, dirty, rights = _FLAGS[entry.origin]
    change = (entry.value ^ now) & ~accessed & ~_IGNORED[entry.origin]
    return bool(change & ~(now & (dirty | rights)))


def _missing(kind: MappingKind, space: MappingSpace, page: int, entry: Entry) -> str:
    if entry.origin is Origin.EPT and space.ept is not None:
        return f"INVEPT single-context of EPTP {space.ept << 12:#x}"
    if entry.origin is Origin.CR3:
        return f"INVVPID single-context of VPID {space.vpid}"
    address = f"individual-address of VPID {space.vpid}, address {page << 12:#x}"
    return f"INVVPID {address}, or INVLPG by the guest"


class _WatchedMappings(Mappings):
    """Mappings that remember what each came from, and tell of uses."""

    direct = False

    def __init__(self, audit: GuestAudit) -> None:
        super().__init__()
        self._audit = audit
        self._entries: dict[tuple[MappingSpace, int], Entries] = {}
        self._physical: dict[tuple[int, int], Entries] = {}
        self._request: Entries = {}
        self._walk: Entries = {}
        self.ept_on = False

    def kept(self) -> Iterator[tuple[MappingKind, MappingSpace, int, Entries]]:
        """Every mapping with the entries that it came from."""
        for ept_tag, pages in self.physical.items():
            for page in pages:
                space = MappingSpace(0, 0, ept_tag)
                yield MappingKind.PHYSICAL, space, page, self._physical[ept_tag, page]
        for space, pages in self.linear.items():
            kind = MappingKind.LINEAR if space.ept is None else MappingKind.COMBINED
            for page in pages:
                yield kind, space, page, self._entries[space, page]

    def begin(self, cr3: int | None) -> None:
        """A translation begins: its entries are collected from here."""
        self._request = {}
        if cr3 is not None:
            self._request[Origin.CR3, 0] = Entry(Origin.CR3, 0, 0, cr3)
        self.ept_on = False

    def read(self, origin: Origin, address: int, size: int, value: int) -> None:
        """A walk read an entry."""
        entry = Entry(origin, address, size, value)
        self._request[origin, address] = entry
        if origin is Origin.EPT:
            self._walk[origin, address] = entry

    def updated(self, address: int, value: int) -> None:
        """The processor set a flag in an entry itself."""
        for entries in (self._request, self._walk):
            for origin in (Origin.EPT, Origin.PAGING):
                entry = entries.get((origin, address))
                if entry is not None:
                    entries[origin, address] = entry._replace(value=value)

    def find_physical(self, ept: int, page: int) -> int | None:
        """A guest-physical mapping; what is read next belongs to the new one."""
        self._walk = {}
        self.ept_on = True
        return super().find_physical(ept, page)

    def used_physical(self, ept: int, page: int) -> None:
        """A guest-physical mapping was used: a new combined mapping comes from it, too."""
        entries = self._physical[ept, page]
        self._request.update(entries)
        self._audit.use(MappingKind.PHYSICAL, MappingSpace(0, 0, ept), page, entries)

    def add_physical(self, ept: int, page: int, mapping: int) -> None:
        """Keep a guest-physical mapping."""
        super().add_physical(ept, page, mapping)
        self._physical[ept, page] = dict(self._walk)

    def used(self, space: MappingSpace, page: int) -> None:
        """A linear or combined mapping was used."""
        kind = MappingKind.LINEAR if space.ept is None else MappingKind.COMBINED
        self._audit.use(kind, space, page, self._entries[space, page])

    def add(self, space: MappingSpace, page: int, mapping: int) -> None:
        """Keep a linear or combined mapping."""
        super().add(space, page, mapping)
        entries = dict(self._request)
        if mapping & GLOBAL:  # it holds under every CR3
            entries.pop((Origin.CR3, 0), None)
        self._entries[space, page] = entries


class _WatchedMemory:
    """Memory that tells which entries walks read, and which flags they set.

    With EPT a walk of frames is one of EPT, and records are entries of the guest; without, frames
    are the guest's tables.
    """

    def __init__(self, memory: ProcessorMemory, mappings: _WatchedMappings) -> None:
        self._memory = memory
        self._mappings = mappings

    @property
    def frames(self) -> FrameSource:
        """Frames whose quadwords are entries."""
        return _WatchedFrames(self._memory, self._mappings)

    def host(self, address: int) -> int:
        """As the memory itself says."""
        return self._memory.host(address)

    def read_record(self, address: int, size: int) -> int:
        """A record: an entry of the guest's paging."""
        value = self._memory.read_record(address, size)
        if size <= 8:
            self._mappings.read(Origin.PAGING, address, size, value)
        return value

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """An atomic update: a flag of an entry, if it is one."""
        done = self._memory.compare_exchange(address, size, expected, new)
        if done:
            self._mappings.updated(address, new)
        return done

    def read(self, address: int, length: int) -> bytes:
        """Bytes."""
        return self._memory.read(address, length)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        self._memory.write(address, data)


class _WatchedFrames:
    """Frames whose quadwords are entries of a walk: of EPT, if it is on, or of the guest."""

    def __init__(self, memory: ProcessorMemory, mappings: _WatchedMappings) -> None:
        self._memory = memory
        self._mappings = mappings

    def __getitem__(self, number: int) -> _WatchedFrame:
        origin = Origin.EPT if self._mappings.ept_on else Origin.PAGING
        return _WatchedFrame(self._memory.frames[number], number << 12, origin, self._mappings)


class _WatchedFrame:
    def __init__(
        self, frame: FrameReader, address: int, origin: Origin, mappings: _WatchedMappings
    ) -> None:
        self._frame = frame
        self._address = address
        self._origin = origin
        self._mappings = mappings

    def __getitem__(self, index: int) -> int:
        value = self._frame[index]
        self._mappings.read(self._origin, self._address | index << 3, 8, value)
        return value
