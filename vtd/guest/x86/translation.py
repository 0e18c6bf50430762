"""A guest's accesses to memory: paging, then EPT, each mapping cached on the way (SDM 25.5, 28).

The page to read next to chapter 28: :meth:`Translation.translate`. Exits and exceptions leave it as
signals; what they do is not known here.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

from pagetables import ept as ept_bits
from pagetables.ept import EXECUTE_USER
from pagetables.memory import BusError, FrameSource
from pagetables.walk import output
from vtd.guest.bus import Memory, put, put_number
from vtd.guest.x86.controls import AccessRights
from vtd.guest.x86.entry_rules import CR0_PG, Entry, record
from vtd.guest.x86.ept import (
    EptFaultError,
    EptStage,
    ept_stage,
    mark_used,
    missing_flags,
    violation,
    walk_ept,
)
from vtd.guest.x86.exits import ApicAccessType, ExitReason
from vtd.guest.x86.mappings import (
    FETCH,
    FRAME,
    GLOBAL,
    READ,
    USER_SHIFT,
    WRITE,
    Mappings,
    MappingSpace,
)
from vtd.guest.x86.outcomes import GP, PF, VE, CpuException
from vtd.guest.x86.paging import (
    PF_FETCH,
    PF_PRESENT,
    PF_USER,
    PF_WRITE,
    LinearPage,
    PageFaultError,
    PagingState,
    find_page,
)
from vtd.guest.x86.signals import ExitSignal, FaultSignal, apic_access_exit

PHYSICAL_FETCH_USER = 1 << 3
"""Right of a guest-physical mapping to user-mode fetches, with mode-based execute."""
PML_ENTRIES = 512
VE_BUSY = 0xFFFF_FFFF


class ProcessorMemory(Memory, Protocol):
    """Memory with everything that a processor does to it."""

    @property
    def frames(self) -> FrameSource: ...

    def host(self, address: int) -> int: ...

    def read_record(self, address: int, size: int) -> int: ...

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool: ...


class Translation:
    """From linear addresses to physical ones, as the registers of a guest say.

    ``state`` is the guest's state by field name, which may change: then :meth:`update` has to be
    called. :attr:`pages` are the mappings in use, :attr:`read`, :attr:`write` and :attr:`fetch` the
    rights that an access needs there.
    """

    def __init__(
        self,
        memory: ProcessorMemory,
        mappings: Mappings,
        entry: Entry,
        state: dict[str, int],
        efer: int,
    ) -> None:
        self.memory = memory
        self._mappings = mappings
        self.entry = entry
        self.state = state
        self.efer = efer
        secondary = entry.secondary
        self.ept: EptStage | None = None
        if secondary.ept:
            self.ept = ept_stage(
                entry.state.eptp, entry.capabilities, mode_based=secondary.mode_based_execute
            )
        self.vpid = entry.state.vpid if secondary.vpid else 0
        self._apic_access: int | None = None
        if secondary.virtualize_apic_accesses:
            self._apic_access = entry.state.apic_access_address >> 12
        self.user = record(AccessRights, entry.state.guest_ss_access_rights).dpl == 3
        self._linear: int | None = None
        """The linear address of the access that is under way."""
        self.update()

    def update(self) -> None:
        """Registers that tag or decide mappings changed: which mappings count from now on."""
        state = self.state
        self._paging = PagingState(
            state["guest_cr0"],
            state["guest_cr3"],
            state["guest_cr4"],
            self.efer,
            state["guest_rflags"],
            self._pdptes(),
            self.entry.capabilities.physical_width,
        )
        tag = None if self.ept is None else self.ept.tag
        self.space = MappingSpace(self.vpid, self._paging.pcid, tag)
        self.pages = self._mappings.space(self.space)
        shift = USER_SHIFT if self.user else 0
        self.read, self.write, self.fetch = READ << shift, WRITE << shift, FETCH << shift

    def _pdptes(self) -> tuple[int, int, int, int]:
        """The PDPTEs that PAE paging uses."""
        if self.entry.secondary.ept:
            values = [self.state[f"guest_pdpte{number}"] for number in range(4)]
        else:
            table = self.state["guest_cr3"] & 0xFFFF_FFE0
            values = [self.entry.read(table + 8 * number, 8) for number in range(4)]
        return values[0], values[1], values[2], values[3]

    def on_apic_page(self, physical: int) -> bool:
        """Whether an address is in the APIC-access page (29.4)."""
        return self._apic_access is not None and physical >> 12 == self._apic_access

    def translate(self, address: int, access: int) -> int:
        """The physical address of a linear one, cached from now on."""
        need = access << (USER_SHIFT if self.user else 0)
        mapping = self.pages.get(address >> 12)
        if mapping is not None and mapping & need:
            self._mappings.used(self.space, address >> 12)
            return mapping & FRAME | address & 0xFFF
        if self._paging.efer & 0x400 and not self.entry.capabilities.canonical(address):
            raise FaultSignal(CpuException(GP, 0))
        self._linear = address
        write = access == WRITE
        self._mappings.begin(self._paging.cr3 if self._paging.cr0 & CR0_PG else None)
        tables = self.memory if self.ept is None else GuestTables(self)
        try:
            page = find_page(tables, self._paging, address, write=write)
        except PageFaultError as fault:
            raise FaultSignal(self._page_fault(fault.code, address, access)) from fault
        if not page.rights & need:
            raise FaultSignal(self._page_fault(PF_PRESENT, address, access))
        rights = page.rights
        if self.ept is None:
            physical = page.gpa
        else:
            mapping = self.physical(page.gpa, access, page)
            physical = mapping & FRAME | page.gpa & 0xFFF
            rights &= _combined(mapping, user=page.user, mode_based=self.ept.mode_based)
        if not self.on_apic_page(physical):
            kept = physical & FRAME | rights | (GLOBAL if page.global_ else 0)
            self._mappings.add(self.space, address >> 12, kept)
        return physical

    def _page_fault(self, code: int, address: int, access: int) -> CpuException:
        code |= PF_WRITE if access == WRITE else 0
        code |= PF_USER if self.user else 0
        shows_fetch = self._paging.cr4 & 1 << 20 or self.efer & 1 << 11
        code |= PF_FETCH if access == FETCH and shows_fetch else 0
        return CpuException(PF, code, address)

    def physical(self, gpa: int, access: int, page: LinearPage | None = None) -> int:
        """The guest-physical mapping for an access; exits where EPT refuse it.

        ``access``: READ, WRITE and FETCH as needed. ``page``: what paging says of the linear
        address; None for an access that is not final, to a guest paging structure.
        """
        assert self.ept is not None  # the callers know
        mapping = self._mappings.find_physical(self.ept.tag, gpa >> 12)
        need = access
        if access & FETCH and self.ept.mode_based and page is not None and page.user:
            need = access & ~FETCH | PHYSICAL_FETCH_USER
        if mapping is not None and mapping & need == need:
            self._mappings.used_physical(self.ept.tag, gpa >> 12)
            return mapping
        try:
            leaf = walk_ept(self.memory, self.ept, gpa)
        except EptFaultError as fault:
            self._refuse(fault, access, page)
        entry, _, rights, _, _ = leaf
        granted = rights & (READ | WRITE | FETCH)
        if rights & EXECUTE_USER and self.ept.mode_based:
            granted |= PHYSICAL_FETCH_USER
        if granted & need != need:
            qualification = self._qualification(access, rights, page)
            self._violation(gpa, qualification, suppressed=bool(entry & 1 << 63))
        if self.ept.flags:
            self._use(gpa, write=bool(access & WRITE))
            if not access & WRITE and not entry & ept_bits.DIRTY:
                granted &= ~WRITE
        mapping = output(leaf, gpa) & FRAME | granted
        if self._apic_access != mapping >> 12:
            self._mappings.add_physical(self.ept.tag, gpa >> 12, mapping)
        elif page is None:
            raise apic_access_exit(gpa & 0xFFF, ApicAccessType.PHYSICAL_OTHER)
        return mapping

    def _qualification(self, access: int, rights: int, page: LinearPage | None) -> int:
        """Exit qualification of a violation, with advanced information where supported."""
        assert self.ept is not None  # there was a walk
        linear = self._linear is not None
        found = violation(self.ept, access, rights, linear=linear, final=page is not None)
        if page is not None and self.entry.capabilities.ept_vpid.advanced_information:
            found = found.replace(
                user_linear=page.user,
                writable_linear=page.writable,
                execute_disable_linear=page.execute_disable,
            )
        return int(found)

    def _refuse(self, fault: EptFaultError, access: int, page: LinearPage | None) -> NoReturn:
        if not fault.violation:
            raise ExitSignal(ExitReason.EPT_MISCONFIGURATION, guest_physical_address=fault.gpa)
        qualification = self._qualification(access, fault.rights, page)
        self._violation(fault.gpa, qualification, suppressed=fault.suppresses_ve)

    def _violation(self, gpa: int, qualification: int, *, suppressed: bool) -> NoReturn:
        """An EPT violation: an exit, or a virtualization exception (25.5.6)."""
        linear = self._linear
        self._mappings.after_violation(self.space, None if linear is None else linear >> 12, gpa)
        if not suppressed and self._virtualization_exception(gpa, qualification):
            raise FaultSignal(CpuException(VE))
        raise ExitSignal(
            ExitReason.EPT_VIOLATION,
            qualification,
            guest_physical_address=gpa,
            guest_linear_address=linear or 0,
        )

    def _virtualization_exception(self, gpa: int, qualification: int) -> bool:
        """Whether the violation is a #VE; if so the information page tells of it (25.5.6.2)."""
        entry = self.entry
        if not entry.secondary.ept_violation_ve or not self.state["guest_cr0"] & 1:
            return False
        page = entry.state.ve_information_address
        if entry.read(page + 4, 4):
            return False
        words = (
            (0, ExitReason.EPT_VIOLATION, 4),
            (4, VE_BUSY, 4),
            (8, qualification, 8),
            (16, self._linear or 0, 8),
            (24, gpa, 8),
            (32, entry.state.eptp_index, 2),
        )
        for offset, value, size in words:
            put_number(self.memory, page + offset, int(value), size)
        return True

    def _use(self, gpa: int, *, write: bool) -> None:
        """Accessed and dirty flags, and page-modification logging (28.2.4, 28.2.5)."""
        assert self.ept is not None  # flags belong to it
        missing = missing_flags(self.memory, self.ept, gpa, write=write)
        if not missing:
            return
        logging = self.entry.secondary.pml
        index = self.state["pml_index"]
        if logging and index >= PML_ENTRIES:
            raise ExitSignal(ExitReason.PML_FULL)
        mark_used(self.memory, self.ept, gpa, write=write)
        if logging and missing & ept_bits.DIRTY:
            where = self.entry.state.pml_address + 8 * index
            put_number(self.memory, where, gpa & FRAME, 8)
            self.state["pml_index"] = index - 1 & 0xFFFF


class GuestTables:
    """Memory as the guest's page walk sees it: through EPT (implements ``TableMemory``).

    Each access is one to a guest paging structure: with accessed and dirty flags for EPT it counts
    as a write, too (28.2.4).
    """

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        assert translation.ept is not None  # there are no such tables without
        self._access = READ | WRITE if translation.ept.flags else READ

    @property
    def frames(self) -> GuestTables:
        """Frames by guest frame number."""
        return self

    def __getitem__(self, number: int) -> _GuestFrame:
        return _GuestFrame(self, number << 12)

    def host(self, address: int) -> int:
        """The physical address of what was found at a guest-physical one."""
        return self._translation.physical(address, self._access) & FRAME | address & 0xFFF

    def read_record(self, address: int, size: int) -> int:
        """A record at a guest-physical address; all ones where there is no memory."""
        mapping = self._translation.physical(address, self._access)
        try:
            return self._translation.memory.read_record(mapping & FRAME | address & 0xFFF, size)
        except BusError:
            return (1 << 8 * size) - 1

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> bool:
        """Set flags in an entry of the guest."""
        mapping = self._translation.physical(address, READ | WRITE)
        try:
            return self._translation.memory.compare_exchange(
                mapping & FRAME | address & 0xFFF, size, expected, new
            )
        except BusError:
            return True  # a flag of a table that can't be written is lost

    def write(self, address: int, data: bytes) -> None:
        """Store at a guest-physical address."""
        mapping = self._translation.physical(address, READ | WRITE)
        put(self._translation.memory, mapping & FRAME | address & 0xFFF, data)


class _GuestFrame:
    def __init__(self, tables: GuestTables, address: int) -> None:
        self._tables = tables
        self._address = address

    def __getitem__(self, index: int) -> int:
        return self._tables.read_record(self._address | index << 3, 8)


def _combined(mapping: int, *, user: bool, mode_based: bool) -> int:
    """The rights that a guest-physical mapping leaves to supervisor and user accesses."""
    rights = mapping & (READ | WRITE | FETCH)
    if mode_based and user:
        rights &= ~FETCH
        rights |= FETCH if mapping & PHYSICAL_FETCH_USER else 0
    return rights | rights << USER_SHIFT
