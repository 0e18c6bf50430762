"""The EPT walk and its verdicts: violation, misconfiguration, or the page (SDM 28.2).

The walk is the one of the unit's second stage, on geometry of its own; here is what EPT ask beyond
masks. Permissions are compared after the last level, except that an entry without any ends the
walk, so a misconfiguration further down wins over a violation. A table entry that can't be read
reads as all ones, which is a misconfiguration.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

from pagetables.bits import BitRecord, Implementation
from pagetables.ept import (
    ACCESSED,
    DIRTY,
    EXECUTE,
    EXECUTE_USER,
    READ,
    WRITE,
    EptPage4K,
    decode_ept_entry,
    ept_geometry,
)
from pagetables.geometry import Geometry
from pagetables.memory import BusError, TableMemory
from pagetables.walk import FRAME_NUMBER, Leaf, Stage, WalkFault, set_flags, walk
from vtd.guest.x86.capabilities import VmxCapabilities
from vtd.guest.x86.controls import EptPointer
from vtd.guest.x86.exits import EptQualification

MEMORY_TYPE = EptPage4K.emt.mask
_BAD_TYPES = frozenset(
    type_ << EptPage4K.emt.low for type_ in (2, 3, 7)
)  # reserved codes (28.2.3.1)
ALL_ONES = (1 << 64) - 1
SUPPRESS_VE = EptPage4K.sve.mask


class EptRule(Enum):
    """Why a walk ended without a page, or what an entry is."""

    TABLE = "points to the next table"
    PAGE = "maps the page"
    NOT_PRESENT = "not present: no access is allowed"
    WRITE_WITHOUT_READ = "misconfigured: writable and not readable"
    EXECUTE_ONLY = "misconfigured: executable and not readable, which is not supported"
    RESERVED = "misconfigured: reserved bits are set"
    RESERVED_TYPE = "misconfigured: reserved memory type"
    UNREADABLE = "misconfigured: there is no memory, reads give all ones"
    BEYOND_WIDTH = "the address has more bits than the tables translate"


VIOLATIONS = frozenset({EptRule.NOT_PRESENT, EptRule.BEYOND_WIDTH})


class EptStep(NamedTuple):
    """One entry of a walk."""

    shift: int
    address: int
    entry: int
    record: BitRecord
    rule: EptRule
    reserved: int
    """With ``EptRule.RESERVED``: the bits that have to be 0."""


class EptStage(NamedTuple):
    """EPT as EPTP and the VM-execution controls set them up."""

    eptp: EptPointer
    tables: Stage
    """For the walk: no flag is set while it is not known where it ends."""
    flags: bool
    """Accessed and dirty flags are in use."""
    execute_only: bool
    mode_based: bool

    @property
    def tag(self) -> int:
        """EPTRTA: what mappings are tagged with (28.3.1)."""
        return self.eptp >> 12


@functools.cache
def ept_stage(eptp: int, capabilities: VmxCapabilities, *, mode_based: bool = False) -> EptStage:
    """The stage of an EPTP that the processor accepts."""
    pointer = EptPointer(eptp)
    implementation = capabilities.ept_implementation
    features = implementation.features | ({"mode_based_execute"} if mode_based else set())
    geometry = ept_geometry(pointer.walk + 1, Implementation(implementation.haw, 16, features))
    return EptStage(
        pointer,
        Stage(geometry, pointer.root >> 12),
        pointer.ad,
        capabilities.ept_vpid.execute_only,
        mode_based,
    )


class EptFaultError(Exception):
    """A walk that ended without a page; ``steps`` are its entries, the last one decides."""

    def __init__(self, gpa: int, steps: tuple[EptStep, ...], rule: EptRule, rights: int) -> None:
        super().__init__(f"{gpa:#x}: {rule.value}")
        self.gpa = gpa
        self.steps = steps
        self.rule = rule
        self.rights = rights
        """Rights ANDed over all levels; 0 where an entry is not present."""

    @property
    def violation(self) -> bool:
        """Whether it is an EPT violation; otherwise it is a misconfiguration."""
        return self.rule in VIOLATIONS

    @property
    def suppresses_ve(self) -> bool:
        """Bit 63 of the entry that decides (25.5.6.1)."""
        return not self.steps or bool(self.steps[-1].entry & SUPPRESS_VE)


def walk_ept(memory: TableMemory, stage: EptStage, gpa: int) -> Leaf:
    """The entry that maps a guest-physical address; EptFaultError if there is none.

    Rights are left to the caller, who knows the access, and so are flags.
    """
    geometry = stage.tables.geometry
    if not gpa >> geometry.width:
        try:
            leaf = entry, _, rights, _, _ = walk(memory, stage.tables, gpa)
        except WalkFault:
            pass
        else:
            # What is readable at every level is neither write-only nor execute-only anywhere.
            if rights & READ and entry & MEMORY_TYPE not in _BAD_TYPES:
                return leaf
    return _examined(memory, stage, gpa)


def _examined(memory: TableMemory, stage: EptStage, gpa: int) -> Leaf:
    """The same by looking at each entry: which rule ends the walk, or the page after all."""
    steps = tuple(examine(memory, stage, gpa))
    rights = stage.tables.geometry.rights
    for step in steps:
        rights &= step.entry
    if not steps:
        raise EptFaultError(gpa, steps, EptRule.BEYOND_WIDTH, 0)
    last = steps[-1]
    if last.rule is not EptRule.PAGE:
        present = 0 if last.rule is EptRule.NOT_PRESENT else rights
        raise EptFaultError(gpa, steps, last.rule, present)
    frame, index = last.address >> 12, last.address >> 3 & 511
    return last.entry, last.shift, rights, frame, index


def examine(memory: TableMemory, stage: EptStage, gpa: int) -> Iterator[EptStep]:
    """Each entry of a walk with the rule it falls under; nothing beyond the tables' width."""
    geometry = stage.tables.geometry
    if gpa >> geometry.width:
        return
    frame = stage.tables.root
    for shift, stop, leaf, page_reserved in geometry.levels:
        index = gpa >> shift & 511
        try:
            entry, there = memory.frames[frame][index], True
        except BusError:
            entry, there = ALL_ONES, False
        page = bool(leaf) and (shift == 12 or bool(entry & leaf))
        reserved = entry & (page_reserved if page else stop & ~leaf)
        rule = _rule(stage, geometry, entry, page=page, reserved=reserved)
        if not there:
            rule = EptRule.UNREADABLE
        where = frame << 12 | index << 3
        yield EptStep(shift, where, entry, decode_ept_entry(shift, entry), rule, reserved)
        if rule is not EptRule.TABLE:
            return
        frame = entry >> 12 & FRAME_NUMBER


def _rule(stage: EptStage, geometry: Geometry, entry: int, *, page: bool, reserved: int) -> EptRule:
    """What an entry is, by 28.2.3.1 in order."""
    if not entry & geometry.present:
        return EptRule.NOT_PRESENT
    if entry & WRITE and not entry & READ:
        return EptRule.WRITE_WITHOUT_READ
    if not entry & READ and not stage.execute_only:
        return EptRule.EXECUTE_ONLY
    if page and entry & MEMORY_TYPE in _BAD_TYPES:
        return EptRule.RESERVED_TYPE
    if reserved:
        return EptRule.RESERVED
    return EptRule.PAGE if page else EptRule.TABLE


def missing_flags(memory: TableMemory, stage: EptStage, gpa: int, *, write: bool) -> int:
    """Which of accessed and dirty an access would set anywhere on its way (28.2.4)."""
    steps = tuple(examine(memory, stage, gpa))
    missing = 0
    for step in steps:
        missing |= ACCESSED & ~step.entry
    if write:
        missing |= DIRTY & ~steps[-1].entry
    return missing


def mark_used(memory: TableMemory, stage: EptStage, gpa: int, *, write: bool) -> None:
    """Set the accessed flags of an address, and the dirty flag of its page for a write (28.2.4).

    Flags of tables that can't be written stay as they are.
    """
    flagged = replace(stage.tables, accessed=ACCESSED, dirty=DIRTY)
    try:
        leaf = walk(memory, flagged, gpa)
        while write and not leaf[0] & DIRTY:
            if set_flags(memory, flagged, leaf, DIRTY):
                return
            leaf = walk(memory, flagged, gpa)
    except WalkFault:
        return


def violation(
    stage: EptStage, access: int, rights: int, *, linear: bool, final: bool
) -> EptQualification:
    """The qualification of a violation (27.2.1, Table 27-7).

    ``access``: READ, WRITE and EXECUTE of the access. ``rights``: of the walk, 0 if not present.
    ``linear``: the access has a linear address; ``final``: it is to the page, not to a table.
    """
    return EptQualification.of(
        read=access & READ,
        write=(access & WRITE) // WRITE,
        fetch=(access & EXECUTE) // EXECUTE,
        readable=rights & READ,
        writable=(rights & WRITE) // WRITE,
        executable=(rights & EXECUTE) // EXECUTE,
        user_executable=(rights & EXECUTE_USER) // EXECUTE_USER if stage.mode_based else 0,
        linear_valid=linear,
        final=linear and final,
    )
