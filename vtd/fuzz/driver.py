"""A model driver: software that maps, unmaps and moves domains, and invalidates as it must.

The driver of :mod:`vtd.software` writes the structures; what it owes afterwards is said here once
more and independently (:mod:`vtd.fuzz.owed_invalidations`), as the least that VT-d 6.5.3 demands,
and takes the place of what the driver would do. All of it comes out as steps of a case, so any
target can be driven; one rule may be dropped, for which an audit has to find a stale use then. Left
out: device-TLBs.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from devices.dma import READ, WRITE
from devices.interrupt_messages import RemappableAddress
from pagetables.build import BuildError, TableBuilder
from pagetables.geometry import StageKind
from pagetables.walk import ADDRESS
from vtd.fuzz.case import (
    DEVICES,
    Case,
    Step,
    dma_read,
    dma_write,
    mem_write,
    msi,
    reg_write,
    take_faults,
)
from vtd.fuzz.owed_invalidations import InvalidationRule, OwedInvalidations
from vtd.fuzz.places import (
    DATA,
    DATA_PAGES,
    DESCRIPTORS,
    DESCRIPTORS_SEEN,
    EMPTY_ROOT,
    INTERRUPTS,
    RID_PASID,
    ROOT_TABLE,
    SUPERPAGE,
    RecordPlace,
    device_places,
    paging_places,
    pasid_address,
    root_place,
)
from vtd.fuzz.recorded_steps import (
    Frames,
    RecordedMemory,
    RecordedRegisters,
    WithoutInvalidations,
    structures,
)
from vtd.layouts.entries import AddressWidth, PasidEntry, PasidTranslationType
from vtd.layouts.interrupt_entries import RemappedIrte, SourceValidationType
from vtd.layouts.registers import (
    FaultStatus,
    RootTableAddress,
    TranslationTableMode,
)
from vtd.software import domain as software
from vtd.software.guidance import Endpoint
from vtd.software.registers import command, write
from vtd.unit.departures import SPECIFICATION, Departures
from vtd.unit.registers.capabilities import Capabilities

PASIDS = (None, 1, 70)
"""No PASID, and two in different PASID tables."""
BASES = (0, 0x1000_0000_00)
"""Input addresses that mappings lie around, apart in the top table."""
UPPER_HALF = 0xFFFF_8000_0000_0000
"""In place of the second of them where addresses are canonical (3.6)."""

ACCESS = {"rw": READ | WRITE, "r-": READ, "-w": WRITE}
HOST_IDS = 8
"""Added to the number of a nested domain: that of the second stage below it."""

HUGE = 0x40_0000_0000
"""Where large pages are mapped."""

SECOND, FIRST = PasidTranslationType.SECOND_STAGE, PasidTranslationType.FIRST_STAGE
NESTED, PASS_THROUGH = PasidTranslationType.NESTED, PasidTranslationType.PASS_THROUGH


class Operation(NamedTuple):
    """One method of :class:`ModelDriver`, and its arguments."""

    name: str
    arguments: dict[str, Any]


class Mapping(NamedTuple):
    """A mapped page."""

    physical: int
    rights: str


@dataclass
class Domain:
    """One address space, and what it maps."""

    number: int
    """What operations call it."""
    space: software.Domain
    host: software.Domain | None = None
    """Whose second stage is below the first stage of a nested domain."""
    pages: dict[int, Mapping] = field(default_factory=dict)

    @property
    def domain_id(self) -> int:
        return self.space.domain_id

    @property
    def kind(self) -> PasidTranslationType:
        return self.space.kind

    @property
    def builder(self) -> TableBuilder | None:
        """First stage of a nested domain, else its only stage; None for pass-through."""
        return self.space.tables if self.space.levels else None


class ModelDriver:
    """Drives one unit from reset; :meth:`case` is what it did.

    ``scalable`` chooses the translation table mode; with ``coarse`` 1 or 2 invalidations are of a
    domain or of everything where less would do. ``departures`` of the unit may call for more
    than the specification: AW in PASID entries of the first stage, say. With ``device_tlbs``
    devices may ask for translations and pages; nothing is owed to them. With ``descriptors`` each
    domain maps a page more, of which nothing else is ever asked. Operations that make no
    sense at the moment, such as mapping what is mapped, do nothing.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        *,
        scalable: bool = False,
        drop: InvalidationRule | None = None,
        coarse: int = 0,
        departures: Departures = SPECIFICATION,
        device_tlbs: bool = False,
        descriptors: bool = False,
    ) -> None:
        self.capabilities = capabilities
        self._descriptors = descriptors
        self._device_tlbs = device_tlbs and "dt" in capabilities.features
        self._departures = departures
        self._drop = drop
        self.scalable = scalable
        features = capabilities.features
        self.kinds = [SECOND, PASS_THROUGH] if not scalable else []
        if scalable:
            needs = {FIRST: "fsts", SECOND: "ssts", NESTED: "nest", PASS_THROUGH: "pt"}
            self.kinds = [kind for kind, need in needs.items() if need in features]
        if "pt" not in features:
            self.kinds = [kind for kind in self.kinds if kind is not PASS_THROUGH]
        if "sslps_2m" not in features:  # the second stage of a nested domain maps all memory
            self.kinds = [kind for kind in self.kinds if kind is not NESTED]
        self.pasids: tuple[int | None, ...] = (None,)
        if scalable and "pasid" in features:
            reach = 1 << capabilities.pasid_width
            self.pasids = tuple(each for each in PASIDS if each is None or each < reach)
        self.domains: dict[int, Domain] = {}
        self.attached: dict[tuple[str, int | None], Domain] = {}
        self._memory = RecordedMemory()
        self._frames = Frames(structures(scalable=scalable, features=features))
        self._owed = OwedInvalidations(
            capabilities, self._memory.steps, scalable=scalable, drop=drop, coarse=coarse
        )
        self._writes = 0
        self._irtes: dict[int, int] = {}
        self._used: dict[tuple[str, int, int | None], None] = {}
        self._start()

    def case(self, rule: str = "") -> Case:
        """Everything so far, with a look at the fault records at the end."""
        steps = tuple(self._memory.steps)
        if steps[-1] != reg_write(52, 4, FaultStatus.of(pfo=True)):
            steps += tuple(take_faults(self.capabilities))
        return Case(self.capabilities, steps, rule or (self._drop.value if self._drop else ""))

    @property
    def steps(self) -> list[Step]:
        """The steps so far."""
        return self._memory.steps

    def emit(self, *steps: Step) -> None:
        """Take steps that the driver knows nothing of."""
        self._memory.steps += steps

    def run(self, operations: Iterable[Operation]) -> None:
        """Carry out operations, each a method of this class."""
        for name, arguments in operations:
            getattr(self, name)(**arguments)

    def word(self, place: RecordPlace) -> int:
        """What the driver has written to a structure."""
        return self._memory.read_record(place.address, place.size)

    def places(self) -> list[RecordPlace]:
        """Every structure that the unit may read for a DMA, present ones only."""
        places = [root_place(scalable=self.scalable)]
        for (device, pasid), domain in self.attached.items():
            places += device_places(device, pasid, scalable=self.scalable)
            owner = f"domain {domain.domain_id}"
            stages = [] if domain.builder is None else [domain.space]
            for stage in stages if domain.host is None else [*stages, domain.host]:
                first = stage.kind in (FIRST, NESTED)
                kind = StageKind.FIRST if first else StageKind.SECOND
                places += paging_places(self._memory, owner, stage.root, stage.levels, kind)
        return list(dict.fromkeys(places))

    def _start(self) -> None:
        for page in range(DATA_PAGES):
            address = DATA + page * 4096
            self.emit(mem_write(address + 16, address.to_bytes(8, "little")))
        for page in (SUPERPAGE, SUPERPAGE + 0x20_1000):
            self.emit(mem_write(page + 16, page.to_bytes(8, "little")))
        features = self.capabilities.features
        self._registers = RecordedRegisters(self.capabilities, self._memory.steps)
        self._driver = WithoutInvalidations(
            self._registers,
            self._memory,
            self._frames,
            scalable=self.scalable,
            host_address_width=self.capabilities.host_address_width,
        )
        for source_id in DEVICES.values():
            self._driver.structures.add_context_table(source_id)
        if self.scalable:
            for source_id in DEVICES.values():
                self._driver.attachments.add_endpoint(
                    Endpoint(source_id, self._device_tlbs, self._asks_for_pages)
                )
                for pasid in (RID_PASID, 64):
                    self._driver.structures.add_pasid_table(source_id, pasid)
        self._driver.start(interrupts="ir" in features, interrupt_entries=16)
        if "ir" in features:
            self._owed.interrupt_table()

    @property
    def _asks_for_pages(self) -> bool:
        return self._device_tlbs and self.scalable and "prs" in self.capabilities.features

    def enqueue(self, descriptor: int) -> None:
        """Give the unit's queue a descriptor."""
        self._owed.enqueue(descriptor)

    def set_function(self, name: str, *, enabled: bool) -> None:
        """Translation (te) or interrupt remapping (ire) off or on."""
        command(self._registers, **{name: enabled})

    def settle(self) -> None:
        """The root table pointer is set again, and all that is cached for DMA invalidated (6.6)."""
        command(self._registers, srtp=True)
        self._owed.everything()

    def settle_interrupts(self) -> None:
        """All interrupt-remapping entries that are cached are invalidated (6.7)."""
        self._owed.interrupt_table()

    def restart_queue(self) -> None:
        """The invalidation queue off, and on again from its first place."""
        command(self._registers, qie=False)
        self._owed.restart()
        command(self._registers, qie=True)

    def _store(self, address: int, value: int, size: int) -> None:
        self._memory.write(address, value.to_bytes(size, "little"))

    def attach(self, device: str, domain_id: int, kind: int, pasid: int | None = None) -> None:
        """Give a device, or a PASID of it, an address space, whatever it had before."""
        domain = self.domains.get(domain_id)
        if domain is None:
            domain = self._new_domain(domain_id, self.kinds[kind % len(self.kinds)])
        self._set(device, pasid if pasid in self.pasids else None, domain)

    def detach(self, device: str, pasid: int | None = None) -> None:
        """Take a device's address space away."""
        self._set(device, pasid if pasid in self.pasids else None, None)

    def detach_functions(self) -> None:
        """Take the address space from both functions of a device, with one invalidation each."""
        if self.scalable:
            return
        devices = [name for name in ("d0", "d1") if (name, None) in self.attached]
        domains = {self.attached[name, None].domain_id for name in devices}
        for name in devices:
            self._driver.detach(DEVICES[name])
            del self.attached[name, None]
        for domain_id in sorted(domains):
            self._owed.context_entry(domain_id, DEVICES["d0"], function_mask=3)

    def _set(self, device: str, pasid: int | None, domain: Domain | None) -> None:
        place, source_id = (device, pasid), DEVICES[device]
        before = self.attached.pop(place, None)
        if before is not None:
            self._driver.detach(source_id, pasid)
        if domain is not None:
            self.attached[place] = domain
            self._driver.attach(
                source_id,
                domain.space,
                pasid,
                ats=self._device_tlbs and (self.scalable or domain.builder is not None),
                page_requests=self._asks_for_pages,
            )
            if self._departures.ignore_aw_without_ssts and domain.kind in (FIRST, NESTED):
                self._set_width(device, pasid)
        if self.scalable:
            value = RID_PASID if pasid is None else pasid
            if before is not None:
                # Table 28: with a second stage, an entry no longer present costs the domain
                whole = domain is None and before.kind in (SECOND, NESTED)
                self._owed.pasid_entry(before.domain_id, value, whole_domain=whole)
            elif domain is not None and "cm" in self.capabilities.features:
                self._owed.absent_pasid_entry(0, value)
            return
        if before is not None:
            self._owed.context_entry(before.domain_id, DEVICES[device])
        elif "cm" in self.capabilities.features:
            self._owed.context_entry(0, DEVICES[device])

    def _set_width(self, device: str, pasid: int | None) -> None:
        """AW in the PASID entry of a first stage, where QEMU looks for the width of addresses."""
        place = pasid_address(device, pasid)
        entry = PasidEntry(self._memory.read_record(place, 64))
        self._store(place, entry.replace(aw=AddressWidth.AGAW_48), 64)

    def _new_domain(self, number: int, kind: PasidTranslationType) -> Domain:
        if kind is not NESTED:
            return self._add(Domain(number, self._space(number, kind)))
        host = self._space(HOST_IDS + number, SECOND)
        host.map(0x20_0000, 0x20_0000, 0x1E0_0000)
        space = self._driver.domain(
            kind, domain_id=self._id(number), second=host, guest_frames=self._frames
        )
        return self._add(Domain(number, space, host))

    def _add(self, domain: Domain) -> Domain:
        self.domains[domain.number] = domain
        if self._descriptors and domain.builder is not None:
            for address in DESCRIPTORS_SEEN:
                domain.space.map(address, DESCRIPTORS + domain.number * 4096, 4096, READ | WRITE)
        return domain

    def _id(self, number: int) -> int:
        """A domain-id that needs all bits that the unit has for one."""
        return number | number << self.capabilities.did_width - 4

    def _space(self, number: int, kind: PasidTranslationType) -> software.Domain:
        levels = int(max(self.capabilities.address_widths, default=AddressWidth.AGAW_48)) + 2
        space = self._driver.domain(
            kind, domain_id=self._id(number), levels=levels if kind is SECOND else None
        )
        if kind is SECOND and self.scalable and "ssads" in self.capabilities.features:
            space.set_dirty_tracking(enabled=True)
        return space

    def map(self, domain_id: int, where: int, page: int, count: int, rights: str = "rw") -> None:
        """Map ``count`` pages at slot ``where``; from 512 pages on a superpage if there is one."""
        domain = self.domains.get(domain_id)
        if domain is None or domain.builder is None:
            return
        address = self._slot(where, domain)
        target = DATA + page % DATA_PAGES * 4096
        count = min(count, DATA_PAGES - page % DATA_PAGES)
        if where % 8 == 7 and 1 << 21 in self._page_sizes(domain):
            address, target, count = address & -0x20_0000, SUPERPAGE, 512
        length = count * 4096
        self._memory.wrote_table = False
        try:
            domain.space.map(address, target, length, ACCESS[rights])
        except BuildError:
            return
        for offset in range(0, length, 4096):
            domain.pages[address + offset] = Mapping(target + offset, rights)
        if "cm" in self.capabilities.features and domain.kind is SECOND:
            self._forget_pages(domain, address, length, hint=False)

    def map_huge(self, domain_id: int, size: int, rights: str = "rw") -> None:
        """Map the lowest ``size`` bytes of memory with a page of that size, if there is one."""
        domain = self.domains.get(domain_id)
        if domain is None or domain.builder is None or size not in self._page_sizes(domain):
            return
        address = HUGE + size
        with suppress(BuildError):
            domain.space.map(address, 0, size, ACCESS[rights])
            domain.pages[address + DATA % size] = Mapping(DATA % size, rights)

    def _page_sizes(self, domain: Domain) -> set[int]:
        """Sizes of the large pages that the tables of a domain may have."""
        features = self.capabilities.features
        if domain.kind in (FIRST, NESTED):
            return {1 << 21} | ({1 << 30} if "fs1gp" in features else set())
        names = {"sslps_2m": 1 << 21, "sslps_1g": 1 << 30}
        return {size for name, size in names.items() if name in features}

    def unmap(self, domain_id: int, where: int, count: int) -> None:
        """Unmap what is mapped of ``count`` pages from page ``where`` on."""
        domain = self.domains.get(domain_id)
        if domain is not None:
            self._unmap(domain, self._place_of(domain, where), count * 4096)

    def _unmap(self, domain: Domain, address: int, length: int) -> None:
        self._memory.wrote_table = False
        if domain.builder is None:
            return
        whole = self._whole_pages(domain, address, length)
        if not domain.space.unmap(address, length):
            return
        for page in [each for each in domain.pages if address <= each < address + length]:
            del domain.pages[page]
        self._forget_pages(domain, *whole, hint=False)

    def _whole_pages(self, domain: Domain, address: int, length: int) -> tuple[int, int]:
        """Start and length of a range with the large pages at its ends, which have to be split.

        All of a page that is present owes its invalidation once its entry changes (6.5.3.3).
        """
        start, end = address, address + length
        shifts = [12 + 9 * level for level in range(domain.space.levels - 1, 0, -1)]
        for at in (address, address + length - 1):
            table = domain.space.root
            for shift in shifts:
                entry = self._memory.read_record(table | (at >> shift & 511) << 3, 8)
                if entry & 3 and entry & 0x80:
                    start = min(start, at >> shift << shift)
                    end = max(end, (at >> shift) + 1 << shift)
                if not entry & 3 or entry & 0x80:
                    break
                table = entry & ADDRESS
        return start, end - start

    def protect(self, domain_id: int, where: int, count: int, rights: str) -> None:
        """Give what is mapped of ``count`` pages at slot ``where`` other rights."""
        domain = self.domains.get(domain_id)
        if domain is None or domain.builder is None:
            return
        address, length = self._place_of(domain, where), count * 4096
        whole = self._whole_pages(domain, address, length)
        self._memory.wrote_table = False
        if not domain.space.protect(address, length, ACCESS[rights]):
            return
        for offset in range(0, length, 4096):
            known = domain.pages.get(address + offset)
            if known is not None:
                domain.pages[address + offset] = known._replace(rights=rights)
        self._forget_pages(domain, *whole, hint=not self._memory.wrote_table)

    def move(self, domain_id: int, where: int, page: int) -> None:
        """Make a mapped page lead elsewhere, with one invalidation for both writes."""
        domain = self.domains.get(domain_id)
        if domain is None or domain.builder is None:
            return
        address = self._place_of(domain, where)
        if address not in domain.pages:
            return
        known = domain.pages[address]
        target = DATA + page % DATA_PAGES * 4096
        whole = self._whole_pages(domain, address, 4096)
        domain.space.unmap(address, 4096)
        domain.space.map(address, target, 4096, ACCESS[known.rights])
        domain.pages[address] = known._replace(physical=target)
        self._forget_pages(domain, *whole, hint=False)

    def protect_host(self, domain_id: int, page: int, rights: str) -> None:
        """Change the second stage under a nested domain: the rights of one data page."""
        domain = self.domains.get(domain_id)
        if domain is None or domain.host is None:
            return
        address = DATA + page % DATA_PAGES * 4096
        domain.host.protect(address, 4096, ACCESS[rights])
        self._owed.pages(domain.domain_id, address, 4096, hint=False)

    def withdraw(self, device: str, where: int, pasid: int | None = None) -> None:
        """The host takes a guest's table away and gives it back, while the device goes on."""
        pasid = pasid if pasid in self.pasids else None
        domain = self.attached.get((device, pasid))
        if domain is None or domain.builder is None or domain.host is None:
            return
        address = self._place_of(domain, where)
        table = self._last_table(domain.builder, address)
        self._use(device, address + 16, False, pasid)
        domain.host.unmap(table, 4096)
        self._owed.pages(domain.domain_id, table, 4096, hint=False)
        for beside in (0, 4096):
            self._use(device, address + beside + 16, False, pasid)
        domain.host.map(table, table, 4096)
        if "cm" in self.capabilities.features:
            self._owed.pages(domain.domain_id, table, 4096, hint=False)
        self._use(device, address + 16, False, pasid)

    def _last_table(self, builder: TableBuilder, address: int) -> int:
        """The first-stage table that is the last on the way to an address."""
        table = builder.root << 12
        for shift in (39, 30, 21):
            entry = self._memory.read_record(table | (address >> shift & 511) << 3, 8)
            if not entry & 1 or entry & 0x80:
                break
            table = entry & ADDRESS
        return table

    def reuse(self, domain_id: int, kind: int) -> None:
        """Give up a domain that no device has, and make another one with its id."""
        domain = self.domains.get(domain_id)
        if domain is None or domain in self.attached.values():
            return
        self._driver.close(domain.space)
        if domain.host is not None:
            self._driver.close(domain.host)
        self._new_domain(domain_id, self.kinds[kind % len(self.kinds)])
        self._owed.reused_domain(domain.domain_id)

    def other_root(self, count: int) -> None:
        """Another root table, without entries, is set and used; then the first one again."""
        mode = TranslationTableMode.SCALABLE if self.scalable else TranslationTableMode.LEGACY
        for root in (EMPTY_ROOT, ROOT_TABLE):
            write(self._registers, RootTableAddress.of(rta=root, ttm=mode))
            command(self._registers, srtp=True)
            self._owed.root_table()
            self.repeat(count, write=False)

    def rest(self, device: str, where: int, page: int) -> None:
        """Translation is off while a page moves; a unit with scalable mode forgets it by itself.

        Other units have to be told, as at any time (6.6).
        """
        domain = self.attached.get((device, None))
        if domain is None or not domain.pages:
            return
        address = self._place_of(domain, where) + 16
        self._use(device, address, False, None)
        command(self._registers, te=False)
        if "smts" in self.capabilities.features:
            with self._owed.nothing():
                self.move(domain.number, where, page)
        else:
            self.move(domain.number, where, page)
        command(self._registers, te=True)
        self._use(device, address, False, None)

    def sweep(self, device: str, page: int) -> None:
        """Pages that are far apart go with one invalidation, and are used once more."""
        domain = self.attached.get((device, None))
        if domain is None or domain.builder is None:
            return
        slots = (0, 4, 7)
        for where in slots:
            self.map(domain.number, where, page, 1)
        for unmapped in (False, True):
            if unmapped:
                self._unmap(domain, 0, 0x100_0000)
            for where in slots:
                self._use(device, self._slot(where, domain) + 16, False, None)

    def interrupt_entry(self, index: int, vector: int, device: str | None) -> None:
        """Write an interrupt-remapping entry; without a device it is cleared."""
        if "ir" not in self.capabilities.features:
            return
        entry = 0
        if device is not None:
            entry = RemappedIrte.of(
                p=True,
                v=vector,
                sid=DEVICES[device],
                svt=SourceValidationType.SOURCE_ID if index % 2 else SourceValidationType.NONE,
                dst=vector << 8 & 0xFF00,
            )
        before = self._irtes.get(index, 0)
        self._store(INTERRUPTS + index * 16, entry, 16)
        self._irtes[index] = entry
        if before or "cm" in self.capabilities.features:
            self._owed.interrupt_entry(index)

    def retarget(self, device: str, index: int, vector: int) -> None:
        """An interrupt arrives, gets another vector, and arrives again."""
        for number in (vector, vector ^ 1):
            self.interrupt_entry(index, number, device)
            self.interrupt(device, index)

    def interrupt(self, device: str, index: int) -> None:
        """A device sends the interrupt of an index."""
        if "ir" in self.capabilities.features:
            address = RemappableAddress.for_handle(index, shv=False)
            self.emit(msi(device, address, 0))

    def dma(
        self, device: str, where: int, *, write: bool, pasid: int | None = None, count: int = 1
    ) -> None:
        """A device reads or writes 8 bytes of ``count`` pages, mapped ones mostly."""
        pasid = pasid if pasid in self.pasids else None
        domain = self.attached.get((device, pasid), self.attached.get((device, None)))
        address = self._place_of(domain, where) + 16
        if domain is not None and domain.kind is PASS_THROUGH:
            address = DATA + where % DATA_PAGES * 4096 + 16
        for page in range(count):
            self._use(device, address + page * 4096, write, pasid)

    def stream(
        self, device: str, where: int, page: int, count: int, pasid: int | None = None
    ) -> None:
        """A streaming buffer: mapped, its first and last page used, unmapped, and used again."""
        pasid = pasid if pasid in self.pasids else None
        domain = self.attached.get((device, pasid))
        if domain is None or domain.builder is None:
            return
        self.map(domain.number, where, page, count)
        first, length = self._slot(where, domain), count * 4096
        edges = sorted({first + 16, first + length - 4096 + 16})
        for address in edges:
            self._use(device, address, False, pasid)
        self._unmap(domain, first, length)
        for address in edges:
            self._use(device, address, False, pasid)

    def succeed(
        self, device: str, kind: int, where: int, page: int, pasid: int | None = None
    ) -> None:
        """The only user of a domain goes, and its successor gets the domain-id and the address."""
        pasid = pasid if pasid in self.pasids else None
        domain = self.attached.get((device, pasid))
        if domain is None or list(self.attached.values()).count(domain) > 1:
            return
        address = self._slot(where, domain) + 16
        for target in (page, page + 1):
            self.map(domain.number, where, target, 1)
            self._use(device, address, False, pasid)
            if target == page:
                self.detach(device, pasid)
                self.reuse(domain.number, kind)
                self.attach(device, domain.number, kind, pasid)

    def repeat(self, count: int, *, write: bool) -> None:
        """Once more the last requests, the oldest first, whatever has changed meanwhile."""
        for device, address, pasid in list(self._used)[-count:]:
            self._use(device, address, write, pasid)

    def _use(self, device: str, address: int, write: bool, pasid: int | None) -> None:
        self._used.pop((device, address, pasid), None)
        self._used[device, address, pasid] = None
        self.emit(self.request(device, address, write=write, pasid=pasid))

    def request(self, device: str, address: int, *, write: bool, pasid: int | None) -> Step:
        """The step of one DMA of 8 bytes; each write has its own data, clear of what is read."""
        if write:
            self._writes += 1
            data = (self._writes << 16 | 0xA5A5).to_bytes(8, "little")
            return dma_write(device, address + 64, data, pasid)
        return dma_read(device, address, 8, pasid)

    def _place_of(self, domain: Domain | None, where: int) -> int:
        """A page that is mapped, mostly, or else slot ``where``."""
        pages = [] if domain is None else list(domain.pages)
        return pages[where % len(pages)] if pages and where < 12 else self._slot(where, domain)

    def _slot(self, where: int, domain: Domain | None = None) -> int:
        """Few addresses: pages beside each other, across table borders, inside a large page."""
        base = BASES[where // 8 % len(BASES)]
        if base and domain is not None and domain.kind in (FIRST, NESTED):
            base = UPPER_HALF
        return (
            base
            + (0, 0x1000, 0x2000, 0x3000, 0x1F_F000, 0x20_0000, 0x20_1000, 0x40_4000)[where % 8]
        )

    def _forget_pages(self, domain: Domain, address: int, length: int, *, hint: bool) -> None:
        if domain.kind is SECOND:
            self._owed.pages(domain.domain_id, address, length, hint=hint)
            return
        users = {
            RID_PASID if pasid is None else pasid
            for (_, pasid), user in self.attached.items()
            if user is domain
        }
        for pasid in sorted(users):
            self._owed.pasid_pages(domain.domain_id, pasid, address, length, hint=hint)
