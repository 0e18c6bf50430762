"""A plan that runs: the host's driver sets everything up on a machine that was put together.

One driver for each unit; for each guest behind it an address space of each kind that its devices
need. Functions that no guest has get no address space: what they send is blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from devices.capabilities import AtsControl, ExtendedCapabilityId, PasidControl, PriControl
from devices.dma import SilentDevice
from devices.function import BME, PciFunction
from devices.source_id import Bdf
from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import second_stage_geometry
from pagetables.memory import FRAME_SIZE
from vtd.auditing.audit import Audit
from vtd.dmar.records import Rmrr as RmrrStructure
from vtd.host import abilities, ownership
from vtd.host.claimed import ClaimedUnit
from vtd.host.guests import Backed, Passed, RunningGuest
from vtd.host.memory import HostMemory
from vtd.host.ownership import Assigned
from vtd.host.plan import Backing, GuestMemory, Interrupts, Policy, Rmrr, Stage, Viommu
from vtd.host.planner import Judgement
from vtd.host.surroundings import Surroundings
from vtd.host.virtual_processor import (
    NOTIFICATION,
    WRITE_BACK,
    VirtualPages,
    VirtualProcessor,
)
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.layouts.interrupt_entries import (
    PostedInterruptDescriptor,
    PostedIrte,
    RemappedIrte,
    SourceValidationType,
)
from vtd.machine.assembly import Assembly
from vtd.software.domain import FIRST_STAGE, NESTED, SECOND_STAGE, Domain
from vtd.software.driver import Driver
from vtd.software.memory import Memory
from vtd.software.registers import NoAnswerError
from vtd.unit.interrupts.outcome import Message
from vtd.unit.reporting.events import Event, MessageSent
from vtd.unit.unit import RemappingUnit

COMMAND, ATS_CONTROL, PASID_CONTROL = 4, 6, 6
"""Offsets of the command register, and of control registers in ATS and PASID capabilities."""
PRI_CONTROL, PRI_CAPACITY, PRI_ALLOCATION = 4, 8, 0xC
"""Offsets in a page request capability."""
EVENT_ADDRESS, EVENT_VECTOR = 0xFEE0_0000, 0x50
"""The interrupt of a unit whose page request queue has something."""
VECTOR = 0x40
"""The vector of every device in its guest."""
TABLES = 8
"""The part of the host's memory that is kept for tables: one in so many."""
PAGE_SHIFTS = 30, 21, 12
"""Log2 of the sizes of pages."""
LOW = 0x10_0000
"""The host keeps the first MiB for itself."""
PASID = 1
"""That of devices whose policy has PASIDs."""


class HostError(ValueError):
    """A plan that can't be run."""


class Space(NamedTuple):
    """What tells the address spaces of a guest apart."""

    unit: int
    stage: Stage
    page_size: int
    memory: Backing
    shared_tables: bool

    @classmethod
    def of(cls, base: int, policy: Policy) -> Space:
        """That of a device with a policy, behind the unit at ``base``."""
        return cls(base, policy.stage, policy.page_size, policy.memory, policy.shared_tables)


class RunningHost:
    """A machine on which the plan of ``judgement`` runs, with an audit of every unit.

    ``forced`` runs what the planner refuses, as far as it can be carried out. HostError for a plan
    that contradicts itself, or needs what is not modelled here.
    """

    def __init__(
        self,
        judgement: Judgement,
        around: Surroundings,
        assembly: Assembly,
        *,
        forced: bool = False,
    ) -> None:
        self.plan = judgement.plan
        self.platform = assembly.platform
        self.physical = assembly.platform.memory
        self.stores: Memory = assembly.stores or self.physical
        """Memory as its processors use it."""
        self.audits: dict[int, Audit] = {}
        self.drivers: dict[int, Driver] = {}
        self.guests: dict[str, RunningGuest] = {}
        self.passed: list[Passed] = []
        self._around = around
        self._devices = judgement.devices
        self._asking: dict[tuple[int, int], tuple[RunningGuest, Domain]] = {}
        """Whose page requests are answered from which address space."""
        self._remapping: set[int] = set()
        """Units that remap interrupts."""
        self._flush = assembly.stores.flush if assembly.stores else None
        self._claims = _claims(judgement.devices) if forced else {}
        if not (judgement.works or forced):
            stops = [each for each in judgement.verdicts if each.stops]
            raise HostError(f"{stops[0].subject}: {stops[0].text}")
        try:
            self._set_up(judgement, assembly, judgement.rivals if forced else ())
        except HostError:
            raise
        except (ValueError, NoAnswerError) as error:
            raise HostError(f"it can't be set up: {error}") from error

    def _set_up(
        self, judgement: Judgement, assembly: Assembly, rivals: tuple[Assigned, ...]
    ) -> None:
        machine = assembly.machine
        memory = HostMemory(
            ((each.start, each.start + each.size) for each in machine.memory if not each.read_only),
            [(0, LOW), *((each.base, each.end) for each in assembly.table.all(RmrrStructure))],
        )
        total = sum(each.size for each in machine.memory)
        self.frames = memory.pool(total // TABLES & -FRAME_SIZE)
        self._make_guests(memory)
        self._start_units(judgement)
        for each in (*judgement.devices, *rivals):
            self._pass(each, self.function(each.bdf))

    def unit(self, base: int) -> RemappingUnit:
        """A unit by the base of its registers."""
        return self.platform.units[base]

    def function(self, bdf: Bdf) -> PciFunction:
        """A function by its address; HostError if the machine has none there."""
        function = self.platform.topology.find(bdf)
        if function is None:
            raise HostError(f"there is no {bdf}")
        return function

    def _make_guests(self, memory: HostMemory) -> None:
        for guest in self.plan.guests:
            backed = []
            wanted = {each.policy.page_size for each in self._devices if each.guest == guest.name}
            for each in guest.memory:
                alignment = _alignment(each, max(wanted | {21}))
                shift = each.start % alignment
                host = memory.take(each.size + shift, alignment) + shift
                backed.append(Backed(each.start, host, each.size))
            self.guests[guest.name] = RunningGuest(guest, tuple(backed))

    def _start_units(self, judgement: Judgement) -> None:
        scalable = ownership.scalable_units(judgement.devices)
        for base in sorted({each.base for each in judgement.devices if each.base is not None}):
            unit = self.unit(base)
            seen = ClaimedUnit(unit, self._claims[base]) if base in self._claims else unit
            policies = [each.policy for each in judgement.devices if each.base == base]
            self.audits[base] = Audit(unit)
            driver = self.drivers[base] = Driver(
                seen, self.stores, self.frames, scalable=base in scalable, flush=self._flush
            )
            checked = any(each.interrupts is not Interrupts.UNSAFE for each in policies)
            if "ir" in unit.capabilities.features and driver.queue is not None and checked:
                self._remapping.add(base)
            driver.start(
                interrupts=base in self._remapping,
                interrupt_entries=max(2, 1 << (len(policies) - 1).bit_length()),
            )
            if any(each.page_requests for each in policies):
                self._serve_page_requests(base)

    def _serve_page_requests(self, base: int) -> None:
        """Have pages mapped when devices behind a unit ask for them."""
        driver, unit = self.drivers[base], self.unit(base)
        event = Message(EVENT_ADDRESS, EVENT_VECTOR)

        def resolve(request: PageRequestDescriptor) -> bool:
            found = self._asking.get((base, request.rid))
            if found is None:
                return False
            guest, domain = found
            host = guest.reached_at(request.addr)
            if host is None:
                return False
            if domain.physical(request.addr) is None:
                domain.map(request.addr, host, FRAME_SIZE)
            return True

        handler = driver.serve_page_requests(resolve, event)

        def deliver(told: Event) -> None:
            if isinstance(told, MessageSent):
                handler.interrupt(told.message)

        unit.subscribe(deliver)

    def _pass(self, each: Assigned, function: PciFunction) -> None:
        """Give a function to its guest, whose driver switches bus mastering on."""
        policy, guest = each.policy, self.guests[each.guest]
        function.config.write(COMMAND, 2, function.command.value | BME)
        if each.base is None:
            self.passed.append(Passed(each.name, guest, function, None, policy, None, None))
            return
        base = each.base
        driver = self.drivers[base]
        domain = self._space(guest, base, policy)
        source_id = int(self.platform.topology.requester_id(function))
        if policy.rmrr is Rmrr.MAP:
            for region in self._around.regions.get(each.bdf, []):
                _map_region(guest, domain, region.region)
        if source_id in driver.attachments.endpoints:  # an alias of another function
            self.passed.append(Passed(each.name, guest, function, base, policy, domain, None))
            return
        physical = self._around.tree.physical_function(each.bdf)
        pasid = PASID if policy.pasid else None
        for sent in dict.fromkeys((None, pasid)):
            driver.attach(
                source_id,
                domain,
                sent,
                ats=policy.ats,
                page_requests=policy.page_requests,
                physical_function=None if physical is None else int(physical.source_id),
            )
        if policy.dirty_tracking and policy.stage is not Stage.FIRST:
            (domain.second or domain).set_dirty_tracking(enabled=True)
        if policy.ats and function.client is None:  # it knows no such messages
            self.unit(base).attach(source_id, SilentDevice())
        self._asking[base, source_id] = guest, domain
        switch_on(function, policy)
        handle = None
        if base in self._remapping and policy.interrupts is not Interrupts.UNSAFE:
            handle = self._interrupt(driver, guest, policy, source_id)
        self.passed.append(Passed(each.name, guest, function, base, policy, domain, handle, pasid))

    def _space(self, guest: RunningGuest, base: int, policy: Policy) -> Domain:
        """The address space of a guest for devices with this policy behind a unit."""
        space = Space.of(base, policy)
        if space not in guest.domains:
            guest.domains[space] = self._make_space(guest, self.drivers[base], policy)
        return guest.domains[space]

    def _make_space(self, guest: RunningGuest, driver: Driver, policy: Policy) -> Domain:
        if policy.stage is Stage.NESTED:
            return self._nested(guest, driver, policy)
        kind = FIRST_STAGE if policy.stage is Stage.FIRST else SECOND_STAGE
        domain = driver.domain(kind, largest=policy.page_size, memory=self._tables(policy))
        pinned = policy.memory is Backing.PINNED
        for device, size, host in self._seen(guest) if pinned else ():
            domain.map(device, host, size, attributes=_attributes(policy))
        return domain

    def _seen(self, guest: RunningGuest) -> Iterator[tuple[int, int, int]]:
        """What a guest's devices reach by the host's tables: device address, size, host address.

        A guest that owns its first stage expects its own maps there, which are not applied here.
        """
        if guest.description.viommu is Viommu.NESTED:
            return ((each.guest, each.size, each.host) for each in guest.memory)
        return guest.reached()

    def _tables(self, policy: Policy) -> Memory | None:
        """Where tables are stored that are EPT too: as processors do, without flushing."""
        return self.stores if policy.shared_tables else None

    def processor(self, guest: RunningGuest) -> VirtualProcessor:
        """A processor that runs the guest; EPT is a second stage of it where a policy shares them.

        EPT of its own maps the same memory (SDM 28.2).
        """
        if guest.processor is None:
            shared = (
                guest.domains.get(Space.of(each.base, each.policy))
                for each in self._devices
                if each.guest == guest.name and each.policy.shared_tables and each.base is not None
            )
            domain = next(shared, None)
            root = self._ept(guest) if domain is None else (domain.second or domain).root
            pages = VirtualPages(*(self.frames.allocate() * FRAME_SIZE for _ in range(4)))
            guest.processor = VirtualProcessor(self.physical, pages, root)
            guest.processor.enter(posted=True)
        return guest.processor

    def _ept(self, guest: RunningGuest) -> int:
        some = next(iter(self.drivers.values()))
        geometry = second_stage_geometry(4, some.capabilities.implementation)
        builder = TableBuilder(self.physical, geometry, self.frames, largest=21)
        for each in guest.memory:
            builder.map(each.guest, each.host, each.size, attributes=WRITE_BACK)
        return builder.root << 12

    def _nested(self, guest: RunningGuest, driver: Driver, policy: Policy) -> Domain:
        """A first stage in the guest's memory; its tables are at the end of the largest range."""
        second = driver.domain(SECOND_STAGE, largest=policy.page_size, memory=self._tables(policy))
        largest = guest.description.largest
        size = abilities.own_tables(guest.description, driver.capabilities) * FRAME_SIZE
        start = largest.end - size
        host = guest.host_address(start)
        if start < largest.start or host is None:
            raise HostError(f"no room for the first stage of {guest.name} in its memory")
        if policy.memory is Backing.PINNED:
            for each in guest.memory:
                second.map(each.guest, each.host, each.size, attributes=_attributes(policy))
        else:  # but for what the guest wrote already
            second.map(start, host, size, attributes=_attributes(policy))
        frames = FramePool(start, largest.end)
        first = driver.domain(NESTED, second=second, guest_frames=frames, largest=12)
        for device, physical, size in guest.description.own_maps():
            first.map(device, physical, size)
        return first

    def _interrupt(
        self, driver: Driver, guest: RunningGuest, policy: Policy, source_id: int
    ) -> int:
        """An entry for the one interrupt of a function, checked against its requester id."""
        checked = {"sid": source_id, "svt": SourceValidationType.SOURCE_ID}
        if policy.interrupts is Interrupts.REMAPPED:
            entry = RemappedIrte.of(p=True, v=VECTOR, dst=0, **checked)
            return driver.interrupts.allocate(entry)
        if not guest.descriptors:
            guest.descriptors = tuple(
                self._descriptor(number) for number in range(guest.description.cpus)
            )
        low, high = guest.descriptors[0] & 0xFFFF_FFFF, guest.descriptors[0] & ~0xFFFF_FFFF
        posted = PostedIrte.of(p=True, im=True, vv=VECTOR, pdal=low, pdah=high, **checked)
        return driver.interrupts.allocate(posted)

    def _descriptor(self, processor: int) -> int:
        address = self.frames.allocate() * FRAME_SIZE
        descriptor = PostedInterruptDescriptor.of(nv=NOTIFICATION, ndst=processor << 8)
        self.physical.write(address, descriptor.pack())
        return address

    def findings(self) -> Iterator[str]:
        """What the audits found wrong with what the host's driver did."""
        for base, audit in self.audits.items():
            for each in audit.findings:
                yield f"unit {base:#x}: {each}"


def _alignment(memory: GuestMemory, largest: int) -> int:
    """That of the largest page, no larger than 2^``largest``, of which one fits in a range."""
    return next(
        1 << shift
        for shift in PAGE_SHIFTS
        if shift <= largest and -(-memory.start >> shift) < memory.end >> shift
    )


def _attributes(policy: Policy) -> int:
    """Memory type of the pages of a second stage, which the processor looks at if it is EPT too."""
    return WRITE_BACK if policy.shared_tables else 0


def _claims(devices: Iterable[Assigned]) -> dict[int, set[str]]:
    """What units have to claim for the policies of their devices, by the base of their registers.

    All that goes without interrupt remapping does so.
    """
    claims: dict[int, set[str]] = {}
    scalable = ownership.scalable_units(devices)
    for each in devices:
        if each.base is not None:
            flags = claims.setdefault(each.base, set())
            if each.base in scalable and each.policy.stage is Stage.SECOND:
                flags.update(("smts", "ssts"))
            for need in abilities.NEEDS:
                if need.asked(each.policy):
                    flags.update(need.flags)
    return claims


def switch_on(function: PciFunction, policy: Policy) -> None:
    """Have a function do what its policy asks, as far as it can: PASIDs come before ATS (4.2.1).

    Of pages it may ask for as many as it can.
    """
    config = function.config
    at = config.find_extended_capability(ExtendedCapabilityId.PASID)
    if policy.pasid and at is not None:
        config.write(at + PASID_CONTROL, 2, PasidControl.of(enable=True))
    at = config.find_extended_capability(ExtendedCapabilityId.PRI)
    if policy.page_requests and at is not None:
        config.write(at + PRI_ALLOCATION, 4, config.read(at + PRI_CAPACITY, 4))
        config.write(at + PRI_CONTROL, 2, PriControl.of(enable=True))
    at = config.find_extended_capability(ExtendedCapabilityId.ATS)
    if policy.ats and at is not None:
        config.write(at + ATS_CONTROL, 2, AtsControl.of(enable=True))


def _map_region(guest: RunningGuest, domain: Domain, region: RmrrStructure) -> None:
    """One to one, unless another device of the guest needed it before."""
    start, end = region.base & -FRAME_SIZE, -(-region.end // FRAME_SIZE) * FRAME_SIZE
    below = domain.second or domain
    if below.physical(start) is None:
        below.map(start, start, end - start)
        if domain.second is not None:
            domain.map(start, start, end - start)
        guest.regions.append((start, end - start))
