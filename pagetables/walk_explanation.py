"""A page walk that explains itself: each entry it read, decoded, and the rule that fired.

VT-d 3.6 to 3.8. The walk is the ordinary one, on memory that is observed; it sets the flags that
the walk sets, unless the caller hands in :class:`pagetables.unchanged.UnchangedMemory`. A nested
walk shows both dimensions: each first-stage step has the second-stage steps that found its table.
Left out: the judgement whether a request may use the page, and the D flag of the page, which
depend on the request.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from pagetables.bits import BitRecord
from pagetables.extents import show_rights
from pagetables.geometry import (
    PAGE_RECORDS,
    PAGE_SHIFT,
    TABLE_RECORDS,
    Geometry,
    Level,
    StageKind,
)
from pagetables.memory import TableMemory
from pagetables.nested import GuestMemory
from pagetables.observer import EntryObserver, Structure
from pagetables.walk import FRAME_NUMBER, STRUCTURES, Leaf, Stage, WalkFault, WalkRule, output, walk

PREFIXES = {StageKind.FIRST: "FS", StageKind.SECOND: "SS"}
ENTRY_NAMES = {12: "PTE", 21: "PDE", 30: "PDPE", 39: "PML4E", 48: "PML5E"}
UNREAD = frozenset({WalkRule.READ_ERROR, WalkRule.TABLE_BEYOND_WIDTH, WalkRule.TABLE_NOT_READABLE})
"""Rules that stop a walk before it has the entry."""


class EntryRole(Enum):
    """What a step that did not fail came to."""

    TABLE = "points to the next table"
    PAGE = "maps the page"


class Step(NamedTuple):
    """One entry of a walk."""

    kind: StageKind
    level: str
    """The specification's name of the entry, such as ``"SS-PML4E"``."""
    address: int
    """Where the tables say that the entry is: a guest physical address in nested first stage."""
    host: int | None
    """The physical address read, None if the walk did not come that far."""
    entry: int | None
    """What was read there."""
    record: BitRecord | None
    """The entry decoded, as a page or as a pointer to a table."""
    outcome: EntryRole | WalkRule
    reserved: int
    """With ``WalkRule.RESERVED``: the bits that had to be 0."""
    flags: int
    """Accessed and dirty flags that the walk set in the entry, or tried to."""
    second: tuple[Step, ...] = ()
    """In a nested walk the second-stage steps from ``address`` to ``host``."""


class WalkExplanation(NamedTuple):
    """A walk from beginning to end; the steps of the page itself come last in a nested walk."""

    address: int
    steps: tuple[Step, ...]
    physical: int | None
    """Host physical address, None if the walk faulted."""
    rights: str
    """``"rw"``, ``"r-"``, ``"-w"``, or ``"--"``: what the tables grant, in both stages."""
    user: bool
    """Whether every first-stage entry is open to requests without supervisor privilege."""
    fault: WalkFault | None


def explain_walk(memory: TableMemory, stage: Stage, address: int) -> WalkExplanation:
    """Walk one stage and keep what happened."""
    trace = _Trace(stage, address)
    try:
        leaf = walk(memory, stage, address, None, None, trace)
    except WalkFault as fault:
        return WalkExplanation(address, trace.steps(fault), None, "--", False, fault)
    geometry, (_, _, rights, _, _) = stage.geometry, leaf
    return WalkExplanation(
        address,
        trace.steps(None),
        output(leaf, address),
        show_rights(geometry, rights),
        rights & geometry.user == geometry.user,
        None,
    )


def explain_nested_walk(
    memory: TableMemory, first: Stage, second: Stage, width: int, address: int
) -> WalkExplanation:
    """Walk the first stage through the second, and the page's address too (3.8).

    ``width``: guest physical addresses at and above ``2**width`` can't be translated.
    """
    trace = _Trace(first, address)

    def walk_second(gpa: int) -> Leaf:
        inner = _Trace(second, gpa)
        try:
            leaf = walk(memory, second, gpa, None, None, inner)
        except WalkFault as fault:
            trace.second = inner.steps(fault)
            raise
        trace.second = inner.steps(None)
        return leaf

    guest = GuestMemory(memory, second, width, walk_second, trace)
    try:
        leaf = walk(guest, first, address, None, None, trace)
    except WalkFault as fault:
        return WalkExplanation(address, trace.steps(fault), None, "--", False, fault)
    _, shift, rights, _, _ = leaf
    gpa, geometry = output(leaf, address), first.geometry
    if gpa >> width:
        beyond = WalkFault(WalkRule.TABLE_BEYOND_WIDTH, StageKind.FIRST, shift, False)
        *steps, last = trace.steps(None)
        last = last._replace(outcome=beyond.rule)
        return WalkExplanation(address, (*steps, last), None, "--", False, beyond)
    page = explain_walk(memory, second, gpa)
    writable = rights & geometry.write and page.rights[1] == "w"
    return WalkExplanation(
        address,
        trace.steps(None) + page.steps,
        page.physical,
        page.rights[0] + ("w" if writable else "-"),
        page.fault is None and rights & geometry.user == geometry.user,
        page.fault,
    )


def entry_name(kind: StageKind, shift: int) -> str:
    """The specification's name of the entries at the level with this shift."""
    return f"{PREFIXES[kind]}-{ENTRY_NAMES[shift]}"


def decode_entry(geometry: Geometry, level: Level, entry: int) -> BitRecord:
    """A paging entry as the record that the level and its PS bit make it."""
    if level.shift == PAGE_SHIFT or entry & level.leaf:
        return PAGE_RECORDS[geometry.kind][level.shift](entry)
    return TABLE_RECORDS[geometry.kind](entry)


class _Read:
    """An entry that was read, before it is known what came of it."""

    def __init__(self, host: int, entry: int, second: tuple[Step, ...]) -> None:
        self.host = host
        self.entry = entry
        self.second = second
        self.flags = 0


class _Trace(EntryObserver):
    """What the walk of one stage does to memory."""

    def __init__(self, stage: Stage, address: int) -> None:
        self._stage = stage
        self._structure = STRUCTURES[stage.geometry.kind]
        self._address = address
        self._reads: list[_Read] = []
        self.second: tuple[Step, ...] = ()
        """In a nested walk the second-stage steps to what is read next."""

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        """The next entry of the walk."""
        self._reads.append(_Read(address, value, self.second))
        self.second = ()

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        """A flag of that entry, which in a nested walk also dirties the table's page."""
        read = self._reads[-1]
        if structure is self._structure:
            read.flags |= new & ~old
        elif address == read.second[-1].host:
            *steps, leaf = read.second
            read.second = (*steps, leaf._replace(flags=leaf.flags | new & ~old))

    def updated(self, structure: Structure, address: int, new: int, *, done: bool) -> None:
        """An update that finds the entry changed starts the walk again."""
        if structure is self._structure:
            self.second = ()
            if not done:
                self._reads.clear()

    def steps(self, fault: WalkFault | None) -> tuple[Step, ...]:
        """The steps of the walk that ended with ``fault`` or, None, with a page."""
        steps: list[Step] = []
        geometry, frame = self._stage.geometry, self._stage.root
        for level, read in zip(geometry.levels, self._reads, strict=False):
            steps.append(self._step(level, frame, read))
            frame = read.entry >> PAGE_SHIFT & FRAME_NUMBER
        if fault is None:
            return (*steps[:-1], steps[-1]._replace(outcome=EntryRole.PAGE))
        other_stage = fault.kind is not geometry.kind
        unset = any(self._stage.accessed & ~(each.entry | each.flags) for each in self._reads[-1:])
        if fault.rule in UNREAD or (other_stage and not unset):
            steps.append(self._step(geometry.levels[len(steps)], frame, None))
        level, entry, reserved = geometry.levels[len(steps) - 1], steps[-1].entry, 0
        if fault.rule is WalkRule.RESERVED and entry is not None and not other_stage:
            reserved = entry & (level.page_reserved if entry & level.leaf else level.stop)
        return (*steps[:-1], steps[-1]._replace(outcome=fault.rule, reserved=reserved))

    def _step(self, level: Level, frame: int, read: _Read | None) -> Step:
        geometry = self._stage.geometry
        address = frame << PAGE_SHIFT | (self._address >> level.shift & 511) << 3
        unread = Step(
            geometry.kind,
            entry_name(geometry.kind, level.shift),
            address,
            host=None,
            entry=None,
            record=None,
            outcome=EntryRole.TABLE,
            reserved=0,
            flags=0,
            second=self.second,
        )
        if read is None:
            return unread
        return unread._replace(
            host=read.host,
            entry=read.entry,
            record=decode_entry(geometry, level, read.entry),
            flags=read.flags,
            second=read.second,
        )
