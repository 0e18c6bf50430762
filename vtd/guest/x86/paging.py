"""The guest's own paging: from a linear address to a guest-physical one (SDM 4.3 to 4.7).

4-level, 5-level and PAE paging walk with :func:`pagetables.walk.walk`, on memory that EPT may
translate; the tables of 32-bit paging have entries of their own size. Left out: protection keys.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import NamedTuple

from pagetables import first_stage
from pagetables.bits import Implementation
from pagetables.geometry import PAGE_RECORDS, Geometry, StageKind, first_stage_geometry, levels_of
from pagetables.memory import BusError, TableMemory
from pagetables.unchanged import UnchangedMemory
from pagetables.walk import Stage, WalkFault, WalkRule, output, set_flags, walk
from vtd.guest.x86.entry_rules import (
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    EFER_LMA,
    EFER_NXE,
)

CR4_PSE, CR4_SMEP, CR4_SMAP = 1 << 4, 1 << 20, 1 << 21
RFLAGS_AC = 1 << 18
PRESENT, WRITE, USER = first_stage.PRESENT, first_stage.WRITE, first_stage.USER
ACCESSED, DIRTY, PAGE_SIZE = first_stage.ACCESSED, first_stage.DIRTY, first_stage.PAGE_SIZE
GLOBAL = first_stage.FirstStagePage4K.g.mask
EXECUTE_DISABLE = 1 << 63
PF_PRESENT, PF_WRITE, PF_USER, PF_RESERVED, PF_FETCH = 1, 2, 4, 8, 16
"""Error code of a page fault (4.7)."""


class PagingState(NamedTuple):
    """The registers that paging depends on."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    rflags: int
    pdptes: tuple[int, int, int, int]
    width: int
    """MAXPHYADDR."""

    @property
    def pcid(self) -> int:
        """The PCID that mappings are tagged with."""
        return self.cr3 & 0xFFF if self.cr4 & CR4_PCIDE else 0


class LinearPage(NamedTuple):
    """What paging makes of a linear address."""

    gpa: int
    rights: int
    """Rights of supervisor and user accesses, as in :mod:`vtd.guest.x86.mappings`."""
    user: bool
    """U/S of the linear address: every entry has it."""
    global_: bool
    writable: bool
    """R/W of the linear address."""
    execute_disable: bool


class PageFaultError(Exception):
    """A page fault with its error code, but for the bits of the access."""

    def __init__(self, code: int) -> None:
        super().__init__(f"page fault, error code {code:#x}")
        self.code = code


class SeenBits:
    """Table memory that keeps the OR of the entries that a walk read."""

    def __init__(self, memory: TableMemory) -> None:
        self._memory = memory
        self.bits = 0

    @property
    def frames(self) -> SeenBits:
        """Frames by number."""
        return self

    def __getitem__(self, number: int) -> _SeenFrame:
        return _SeenFrame(self, self._memory.frames[number])

    def host(self, address: int) -> int:
        """As the memory itself says."""
        return self._memory.host(address)

    def read_record(self, address: int, size: int) -> int:
        """A record as it is."""
        return self._memory.read_record(address, size)

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """An atomic update."""
        return self._memory.compare_exchange(address, size, expected, new)

    def write(self, address: int, data: bytes) -> None:
        """A store."""
        self._memory.write(address, data)


class _SeenFrame:
    def __init__(self, seen: SeenBits, frame: object) -> None:
        self._seen = seen
        self._frame = frame

    def __getitem__(self, index: int) -> int:
        entry: int = self._frame[index]  # type: ignore[index]
        self._seen.bits |= entry
        return entry


@functools.cache
def _geometry(levels: int, width: int) -> Geometry:
    implementation = Implementation(haw=width, features=frozenset({"fs1gp"}))
    if levels in (4, 5):
        return first_stage_geometry(levels, implementation)
    full = first_stage_geometry(4, implementation)
    pages = {shift: PAGE_RECORDS[StageKind.FIRST][shift] for shift in (12, 21)}
    pae = levels_of(2, implementation, first_stage.FirstStageEntry, pages, PRESENT, PAGE_SIZE)
    return replace(full, levels=pae)


def find_page(memory: TableMemory, state: PagingState, address: int, *, write: bool) -> LinearPage:
    """Where paging puts a linear address; PageFaultError if nowhere.

    A write sets the dirty flag of the page if its rights allow it to a supervisor or a user.
    """
    if not state.cr0 & CR0_PG:
        return LinearPage(address & 0xFFFF_FFFF, 0x3F, True, False, True, False)
    if not state.efer & EFER_LMA and not state.cr4 & CR4_PAE:
        return _find_32_bit(memory, state, address & 0xFFFF_FFFF, write=write)
    root, levels = state.cr3 >> 12 & (1 << 40) - 1, 5 if state.cr4 & CR4_LA57 else 4
    if not state.efer & EFER_LMA:
        address &= 0xFFFF_FFFF
        pdpte = state.pdptes[address >> 30]
        if not pdpte & PRESENT:
            raise PageFaultError(0)
        root, levels = pdpte >> 12 & (1 << 40) - 1, 2
    stage = Stage(_geometry(levels, state.width), root, ACCESSED, DIRTY)
    seen = SeenBits(memory)
    try:
        leaf = walk(seen, stage, address)
    except WalkFault as fault:
        if fault.rule is WalkRule.UPDATE_ERROR:  # flags of tables in ROM stay as they are
            return find_page(UnchangedMemory(memory), state, address, write=write)
        if fault.rule in (WalkRule.RESERVED, WalkRule.READ_ERROR):
            # Reads of nothing give all ones, which sets reserved bits.
            raise PageFaultError(PF_PRESENT | PF_RESERVED) from fault
        raise PageFaultError(0) from fault
    entry, _, rights, _, _ = leaf
    disabled = bool(seen.bits & EXECUTE_DISABLE)
    if disabled and not state.efer & EFER_NXE:
        raise PageFaultError(PF_PRESENT | PF_RESERVED)
    page = _page(state, entry, rights, output(leaf, address), disabled=disabled)
    if write and page.rights & 0x12 and not entry & DIRTY:
        try:
            done = set_flags(memory, stage, leaf, DIRTY)
        except WalkFault:
            done = True
        if not done:
            return find_page(memory, state, address, write=write)
        entry |= DIRTY
    return page if entry & DIRTY else page._replace(rights=page.rights & ~0x12)


def _page(state: PagingState, entry: int, rights: int, gpa: int, *, disabled: bool) -> LinearPage:
    """The rights of supervisor and user accesses (4.6)."""
    user, writable = bool(rights & USER), bool(rights & WRITE)
    supervisor = 1 | 2 * (writable or not state.cr0 & CR0_WP) | 4 * (not disabled)
    if user and state.cr4 & CR4_SMEP:
        supervisor &= ~4
    if user and state.cr4 & CR4_SMAP and not state.rflags & RFLAGS_AC:
        supervisor &= 4
    ordinary = (1 | 2 * writable | 4 * (not disabled)) if user else 0
    global_ = bool(entry & GLOBAL and state.cr4 & CR4_PGE)
    return LinearPage(gpa, supervisor | ordinary << 3, user, global_, writable, disabled)


def _find_32_bit(
    memory: TableMemory, state: PagingState, address: int, *, write: bool
) -> LinearPage:
    """32-bit paging: two levels of 1024 entries of 4 bytes, pages of 4 MiB with CR4.PSE (4.3)."""
    table, rights = state.cr3 & 0xFFFF_F000, WRITE | USER
    large = False
    for shift in (22, 12):
        where = table | (address >> shift & 0x3FF) << 2
        try:
            entry = memory.read_record(where, 4)
        except BusError:
            entry = 0xFFFF_FFFF
        if not entry & PRESENT:
            raise PageFaultError(0)
        rights &= entry
        large = shift == 22 and bool(entry & PAGE_SIZE and state.cr4 & CR4_PSE)
        if large and entry & (1 << 22) - (1 << min(state.width, 40) - 19):
            raise PageFaultError(PF_PRESENT | PF_RESERVED)
        last = large or shift == 12
        flags = ACCESSED | (DIRTY if last and write and _may_write(state, rights) else 0)
        try:
            done = not flags & ~entry or memory.compare_exchange(where, 4, entry, entry | flags)
        except BusError:
            done = True
        if not done:
            return _find_32_bit(memory, state, address, write=write)
        entry |= flags
        if last:
            break
        table = entry & 0xFFFF_F000
    if large:
        gpa = (entry >> 13 & 0xFF) << 32 | entry & 0xFFC0_0000 | address & 0x3F_FFFF
    else:
        gpa = entry & 0xFFFF_F000 | address & 0xFFF
    page = _page(state, entry, rights, gpa, disabled=False)
    return page if entry & DIRTY else page._replace(rights=page.rights & ~0x12)


def _may_write(state: PagingState, rights: int) -> bool:
    return bool(rights & WRITE) or not state.cr0 & CR0_WP
