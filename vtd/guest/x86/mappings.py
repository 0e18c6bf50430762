"""Cached mappings of a logical processor, their tags, and what drops them (SDM 28.3).

Linear mappings (VPID, PCID), guest-physical mappings (EPTRTA) and combined mappings (all three), a
4 KiB page each. A mapping is one number: the physical frame and the rights below. Left out:
paging-structure caches, which show nothing that these do not.
"""

from __future__ import annotations

from typing import NamedTuple

READ, WRITE, FETCH = 1, 2, 4
"""Rights of supervisor accesses; those of user accesses are shifted by ``USER_SHIFT``."""
USER_SHIFT = 3
GLOBAL = 1 << 6
"""A global page: kept where globals are."""
FRAME = ~0xFFF


class MappingSpace(NamedTuple):
    """The tags of linear and combined mappings."""

    vpid: int
    pcid: int
    ept: int | None
    """EPTRTA; None for linear mappings."""


Pages = dict[int, int]
"""Mappings by page number."""


class Mappings:
    """All cached mappings; ``keep`` False keeps none.

    An audit is told of uses and of new mappings; while ``direct`` guests use :meth:`space` without
    telling.
    """

    direct = True

    def __init__(self, *, keep: bool = True) -> None:
        self.keep = keep
        self.linear: dict[MappingSpace, Pages] = {}
        """Linear and combined mappings."""
        self.physical: dict[int, Pages] = {}
        """Guest-physical mappings by EPTRTA."""

    def begin(self, cr3: int | None) -> None:
        """A translation begins that may end in new mappings, under this CR3 if paging is on."""

    def used(self, space: MappingSpace, page: int) -> None:
        """A linear or combined mapping was used."""

    def used_physical(self, ept: int, page: int) -> None:
        """A guest-physical mapping was used."""

    def space(self, space: MappingSpace) -> Pages:
        """The mappings of one space; the same object as long as the processor lives."""
        return self.linear.setdefault(space, {})

    def guest_physical(self, ept: int) -> Pages:
        """The guest-physical mappings of one EPTRTA."""
        return self.physical.setdefault(ept, {})

    def add(self, space: MappingSpace, page: int, mapping: int) -> None:
        """Keep a linear or combined mapping."""
        if self.keep:
            self.space(space)[page] = mapping

    def add_physical(self, ept: int, page: int, mapping: int) -> None:
        """Keep a guest-physical mapping."""
        if self.keep:
            self.guest_physical(ept)[page] = mapping

    def find_physical(self, ept: int, page: int) -> int | None:
        """A guest-physical mapping."""
        return self.guest_physical(ept).get(page)

    def invept(self, ept: int | None = None) -> None:
        """INVEPT: guest-physical and combined mappings of one EPTRTA, None for all (28.3.3.1)."""
        for tag, pages in self.physical.items():
            if ept in (None, tag):
                pages.clear()
        for space, pages in self.linear.items():
            if space.ept is not None and ept in (None, space.ept):
                pages.clear()

    def invvpid_address(self, vpid: int, page: int) -> None:
        """INVVPID 0: one linear address of one VPID."""
        for space, pages in self.linear.items():
            if space.vpid == vpid:
                pages.pop(page, None)

    def invvpid(self, vpid: int, *, globals_too: bool = True) -> None:
        """INVVPID 1 and 3: one VPID, perhaps but for global translations."""
        for space, pages in self.linear.items():
            if space.vpid == vpid:
                _clear(pages, globals_too=globals_too)

    def invvpid_all(self) -> None:
        """INVVPID 2: every VPID but 0."""
        for space, pages in self.linear.items():
            if space.vpid:
                pages.clear()

    def flush_pcid(self, vpid: int, pcid: int) -> None:
        """MOV to CR3: the PCID's mappings but for global ones (4.10.4.1)."""
        for space, pages in self.linear.items():
            if (space.vpid, space.pcid) == (vpid, pcid):
                _clear(pages, globals_too=False)

    def after_violation(self, space: MappingSpace, page: int | None, gpa: int) -> None:
        """An EPT violation: what would be used for the faulting addresses (28.3.3.1)."""
        if space.ept is not None:
            self.guest_physical(space.ept).pop(gpa >> 12, None)
        if page is not None:
            self.space(space).pop(page, None)


def _clear(pages: Pages, *, globals_too: bool) -> None:
    if globals_too:
        pages.clear()
    else:
        for page in [page for page, mapping in pages.items() if not mapping & GLOBAL]:
            del pages[page]
