"""The page walk: from a table root and an input address to the entry that maps the page.

VT-d 3.6 and 3.7. One loop serves every stage, depth and page size; :mod:`pagetables.geometry`
holds the differences. A nested walk is a first-stage walk over :mod:`pagetables.nested` memory.
Permissions are collected here and judged by the caller, who knows the request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pagetables.geometry import Geometry, StageKind
from pagetables.memory import BusError, TableMemory
from pagetables.observer import EntryObserver, Structure

ADDRESS = (1 << 52) - (1 << 12)
FRAME_NUMBER = (1 << 40) - 1

Visit = Callable[[int, int, int], None]
"""Told of each entry that points to a table: its level's shift, the table frame, rights so far."""


Leaf = tuple[int, int, int, int, int]
"""What maps the page: the entry with the flags that the walk set, log2 of the page size, the rights
ANDed over all levels, and the entry's place: its table's frame in the memory walked, and index."""


OFFSETS = tuple((1 << shift) - 1 for shift in range(64))
"""The address bits within a page, by log2 of its size."""
STARTS = tuple(ADDRESS & ~offset for offset in OFFSETS)
"""The bits of an entry that say where a page begins, by log2 of its size."""


def output(leaf: Leaf, address: int) -> int:
    """The address that ``address`` is translated to by the leaf of its page."""
    entry, shift, _, _, _ = leaf
    return entry & STARTS[shift] | address & OFFSETS[shift]


def place(leaf: Leaf) -> int:
    """The address of the entry that maps a page, in the memory that was walked."""
    _, _, _, frame, index = leaf
    return frame << 12 | index << 3


class WalkRule(Enum):
    """Why a walk ended without a page."""

    READ_ERROR = "reading the entry failed"
    NOT_PRESENT = "the entry is not present, or leaves no right of those above"
    RESERVED = "a reserved bit of the entry is set"
    NOT_SNOOPED = "a flag has to be set and the walk is not snooped"
    UPDATE_ERROR = "setting a flag of the entry failed"
    TABLE_BEYOND_WIDTH = "the table or page is beyond the second-stage address width"
    TABLE_NOT_READABLE = "the second stage does not let the table be read"
    TABLE_NOT_WRITABLE = "the second stage does not let a flag of the table be set"


_NOT_PRESENT = WalkRule.NOT_PRESENT  # asking the enumeration takes several times as long


class IndirectMemory(ABC):
    """Memory whose addresses are translated to those of another one."""

    @abstractmethod
    def reach(self, address: int) -> tuple[TableMemory, int]:
        """Where an update of this address happens; flags that it needs on the way are set."""


class TableRefusedError(BusError):
    """A table that guest memory refuses to a first-stage walk, by one of the ``TABLE`` rules."""

    def __init__(self, address: int, rule: WalkRule) -> None:
        super().__init__(address, rule.value)
        self.rule = rule


class WalkFault(Exception):  # noqa: N818 - the specification's word
    """A walk that ended without a page, at the entry of the level with this ``shift``.

    The ``TABLE`` rules are faults of the first stage (SFS.5 to SFS.8): ``kind``, ``shift`` and
    ``top`` say which first-stage table the second stage refused.
    """

    if TYPE_CHECKING:  # made by Exception itself, which is several times as fast

        def __init__(self, rule: WalkRule, kind: StageKind, shift: int, top: bool, /) -> None: ...

    @property
    def rule(self) -> WalkRule:
        """Why the walk ended."""
        rule: WalkRule = self.args[0]
        return rule

    @property
    def kind(self) -> StageKind:
        """Whose table the entry is in."""
        kind: StageKind = self.args[1]
        return kind

    @property
    def shift(self) -> int:
        """The level of the entry, by the lowest address bit of its index."""
        shift: int = self.args[2]
        return shift

    @property
    def top(self) -> bool:
        """Whether the table is the root of its stage."""
        return bool(self.args[3])

    def __str__(self) -> str:
        return f"{self.kind.value} stage, bit {self.shift}: {self.rule.value}"


@dataclass(frozen=True, slots=True)
class Stage:
    """The tables of one stage as a context or PASID entry sets them up."""

    geometry: Geometry
    root: int
    """Frame number of the top table."""
    accessed: int = 0
    """Flags to set in every entry used: A, also EA, or 0."""
    dirty: int = 0
    """Flag to set in the entry of a page that is written."""
    snooped: bool = True
    """Whether flags may be set at all (3.10: SMPWC and PWSNP)."""


def walk(
    memory: TableMemory,
    stage: Stage,
    address: int,
    visit: Visit | None = None,
    start: tuple[int, int, int] | None = None,
    observer: EntryObserver | None = None,
) -> Leaf:
    """Find the entry that maps ``address``; WalkFault names the rule that stopped the walk.

    ``start`` resumes below a table that a paging-structure cache remembers: how many levels are
    done, the table frame, and the rights so far.
    """
    geometry, frame, accessed = stage.geometry, stage.root, stage.accessed
    steps, present, rights = geometry.steps, geometry.present, geometry.rights
    if start is not None:
        done, frame, rights = start
        steps = steps[done:]
    follow = accessed or visit is not None
    frames = memory.frames
    try:
        for shift, stop, leaf, page_reserved in steps:  # noqa: B007 - used below
            entry = frames[frame][address >> shift & 511]
            if observer is not None:
                where = memory.host(frame << 12 | (address >> shift & 511) << 3)
                observer.read(STRUCTURES[geometry.kind], where, 8, entry)
            rights &= entry
            if entry & stop or not rights & present:  # at the last level always
                break
            if follow:
                if entry & accessed != accessed and not set_flags(
                    memory,
                    stage,
                    (entry, shift, rights, frame, address >> shift & 511),
                    accessed,
                    observer,
                ):
                    return walk(memory, stage, address, visit, None, observer)
                if visit is not None:
                    visit(shift, entry >> 12 & FRAME_NUMBER, rights)
            frame = entry >> 12 & FRAME_NUMBER
    except BusError as error:
        raise _fault(_rule(error, WalkRule.READ_ERROR), stage, shift) from error
    if not rights & present:
        raise _fault(_NOT_PRESENT, stage, shift)
    if not entry & leaf or entry & page_reserved:
        raise _fault(WalkRule.RESERVED, stage, shift)
    index = address >> shift & 511
    if accessed and entry & accessed != accessed:
        found = entry, shift, rights, frame, index
        if not set_flags(memory, stage, found, accessed, observer):
            return walk(memory, stage, address, visit, None, observer)
        entry |= accessed
    return entry, shift, rights, frame, index


STRUCTURES = {
    StageKind.FIRST: Structure.FIRST_STAGE,
    StageKind.SECOND: Structure.SECOND_STAGE,
}


def set_flags(
    memory: TableMemory,
    stage: Stage,
    found: Leaf,
    flags: int,
    observer: EntryObserver | None = None,
) -> bool:
    """Atomically set accessed or dirty flags in an entry that a walk found (3.6.2, 3.7.2).

    False if the entry is no longer what it was: somebody changed it and the walk starts again.
    """
    (entry, shift, *_), where = found, place(found)
    if not stage.snooped:
        raise _fault(WalkRule.NOT_SNOOPED, stage, shift)
    try:
        if observer is None:
            return memory.compare_exchange(where, 8, entry, entry | flags)
        if isinstance(memory, IndirectMemory):
            memory, where = memory.reach(where)
        structure = STRUCTURES[stage.geometry.kind]
        observer.update(structure, where, 8, entry, entry | flags)
        done = memory.compare_exchange(where, 8, entry, entry | flags)
        observer.updated(structure, where, entry | flags, done=done)
        return done
    except BusError as error:
        raise _fault(_rule(error, WalkRule.UPDATE_ERROR), stage, shift) from error


def _rule(error: BusError, otherwise: WalkRule) -> WalkRule:
    return error.rule if isinstance(error, TableRefusedError) else otherwise


def _fault(rule: WalkRule, stage: Stage, shift: int) -> WalkFault:
    geometry = stage.geometry
    return WalkFault(rule, geometry.kind, shift, shift == geometry.steps[0][0])
