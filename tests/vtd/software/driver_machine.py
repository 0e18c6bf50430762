"""Random operations of the driver beside a plain model of what each device may reach.

The model is a dictionary of pages for each domain and a dictionary of who uses which. A unit that
keeps all it may (AGGRESSIVE) gives every device exactly what the model says, or the driver forgot
an invalidation; both audits watch as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from devices.capabilities import ExtendedCapabilityId
from devices.dma import READ, WRITE
from devices.models.dma_engine import DmaEngine
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from tests.support.world import capabilities
from vtd.auditing.audit import Audit
from vtd.auditing.device_tlb_audit import DeviceTlbAudit
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.interrupt_entries import RemappedIrte, SourceValidationType
from vtd.software.domain import FIRST_STAGE, NESTED, PASS_THROUGH, SECOND_STAGE, Domain
from vtd.software.driver import Driver
from vtd.software.guidance import Owed
from vtd.software.invalidation_rules import Rule
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.interrupts.outcome import Interrupt
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.reporting.events import Event, InterruptBlocked, InterruptDelivered
from vtd.unit.unit import RemappingUnit

PAGE = 0x1000
FRAMES, GUEST_FRAMES, DATA, END = 0x10_0000, 0x60_0000, 0x80_0000, 0xC0_0000
HIDDEN = 0x4000_0000
"""Where a guest sees data pages: not where they are."""
DEVICES = (0x0010, 0x0090, 0x0108)
"""Both halves of one bus, and another bus."""
PASIDS = (None, 1, 70)
"""No PASID, and two in different PASID tables."""
BASES = (0, 0x20_0000, 0x7F_FFFF_F000, 0x80_0000_0000)
"""Input addresses that mappings lie around: table borders of each level."""


class Setup(NamedTuple):
    """One way of driving a unit."""

    name: str
    scalable: bool
    queued: bool = True
    device_tlbs: bool = False
    changes: dict[str, int] = {}  # noqa: RUF012  # nobody writes to it
    """Fields of the capability registers other than those of a unit that has everything."""
    largest: int = 21


OLD = dict.fromkeys(
    ("smts", "esrtps", "esirtps", "fsts", "ssts", "nest", "pasid", "prs", "smpwcs", "ssads"), 0
)
"""What a unit without scalable mode lacks, and the invalidations that go with the pointers."""

SETUPS = (
    Setup("legacy", False),
    Setup("legacy, caching mode", False, changes={"cm": 1}),
    Setup("legacy, registers", False, queued=False),
    Setup("legacy, registers, caching mode", False, queued=False, changes={"cm": 1, "rwbf": 1}),
    Setup("legacy, device-TLBs", False, device_tlbs=True),
    Setup("legacy unit, domain-selective at best", False, changes={"psi": 0, "mamv": 0, **OLD}),
    Setup("scalable", True),
    Setup("scalable, small pages", True, largest=12),
    Setup("scalable, caching mode", True, changes={"cm": 1}),
    Setup("scalable, device-TLBs", True, device_tlbs=True),
    Setup("scalable, device-TLBs, caching mode", True, device_tlbs=True, changes={"cm": 1}),
    Setup("scalable, no flags", True, changes={"smpwcs": 0, "ssads": 0, "eafs": 0}),
    Setup("scalable, small masks", True, changes={"mamv": 3, "esrtps": 0, "esirtps": 0}),
)


class Mapping(NamedTuple):
    """What a page leads to."""

    physical: int
    access: int


@dataclass
class Space:
    """A domain and what the model knows of it."""

    domain: Domain
    pages: dict[int, Mapping] = field(default_factory=dict)
    second: Space | None = None
    dirty: set[int] | None = None
    """Pages written since they were asked for last; None while nobody tracks them."""


Spoil = Callable[[Owed], Owed | None]
"""What a wrong driver makes of an invalidation that it owes; None if it forgets it."""


class SpoiledDriver(Driver):
    """Owes what the driver owes, and does what ``spoil`` makes of it."""

    spoil: Spoil
    reorder: Callable[[list[Owed]], list[Owed]]
    """What a wrong driver makes of all that a change calls for."""
    waits = True
    seen: set[Rule]
    """Rules that there was an occasion for."""

    def invalidate(self, owed: Iterable[Owed]) -> None:
        wanted = list(owed)
        self.seen |= {each.rule for each in wanted}
        done = [each for each in map(self.spoil, wanted) if each is not None]
        if self.waits or self.queue is None:
            super().invalidate(self.reorder(done))
            return
        self.queue.submit(*(each.descriptor for each in self.reorder(done)))
        self.invalidator.give_back()


def correct(owed: Owed) -> Owed:
    """What the driver really does."""
    return owed


def in_order(owed: list[Owed]) -> list[Owed]:
    """How the driver really does it."""
    return owed


class Machine:
    """A unit, three devices, the driver and the model; :meth:`step` does something at random."""

    def __init__(
        self,
        setup: Setup,
        random: Random,
        spoil: Spoil = correct,
        *,
        reorder: Callable[[list[Owed]], list[Owed]] = in_order,
        waits: bool = True,
    ) -> None:
        self._reorder, self._waits = reorder, waits
        self.setup = setup
        self.random = random
        self.memory = PhysicalMemory()
        self.memory.add_region(0, END)
        has = capabilities(**{"nd": 0, **setup.changes})
        self.unit = RemappingUnit(has, self.memory, Options(caches=AGGRESSIVE))
        self.audit, self.device_tlb_audit = Audit(self.unit), DeviceTlbAudit(self.unit)
        self.events: list[Event] = []
        self.unit.subscribe(self.events.append)
        self._spoil = spoil
        self.seen: set[Rule] = set()
        self.ports = {device: UnitPort(self.unit, self.memory, device) for device in DEVICES}
        self.log: list[str] = []
        self._writes = 0
        self._begin()
        self.steps: list[Callable[[], None]] = [
            self.attach,
            self.attach,
            self.detach,
            self.map,
            self.map,
            self.unmap,
            self.protect,
            self.remap,
            self.new_domain,
            self.close,
            self.restart,
            self.look,
            self.look,
        ]
        if setup.scalable:
            self.steps += [self.release, self.change_host, self.track_dirty, self.read_dirty]
        if setup.queued:
            self.steps += [self.interrupt_entry, self.send_interrupts]

    def _begin(self) -> None:
        """A driver that knows nothing of what was there before, and devices from reset."""
        self.driver = SpoiledDriver(
            self.unit,
            self.memory,
            FramePool(FRAMES, GUEST_FRAMES),
            scalable=self.setup.scalable,
            queued=self.setup.queued,
            host_address_width=self.unit.capabilities.host_address_width,
        )
        self.driver.spoil = self._spoil
        self.driver.reorder, self.driver.waits = self._reorder, self._waits
        self.driver.seen = self.seen
        self.guest_frames = FramePool(GUEST_FRAMES, DATA)
        self.engines = {device: self._engine(device) for device in DEVICES}
        self.driver.start(interrupts=self.setup.queued)
        self.spaces: list[Space] = []
        self.attached: dict[tuple[int, int | None], Space] = {}
        self.interrupts: dict[int, int] = {}

    def _engine(self, device: int) -> DmaEngine:
        engine = DmaEngine()
        engine.connect(self.ports[device])
        self.unit.attach(device, engine.ats)
        engine.config.write(4, 2, 6)  # memory space and bus mastering
        return engine

    def _enable(self, device: int) -> None:
        """PASIDs and the device-TLB of a device on, as its driver does once it is attached."""
        for capability, value in (
            *(((ExtendedCapabilityId.PASID, 1),) if self.setup.scalable else ()),
            (ExtendedCapabilityId.ATS, 0x8000),
        ):
            config = self.engines[device].config
            at = config.find_extended_capability(capability)
            assert at is not None
            config.write(at + 6, 2, value)

    def run(self, steps: int) -> None:
        """Do some things, and look at what devices reach after each."""
        for _ in range(steps):
            self.random.choice(self.steps)()
            self.check()

    def check(self) -> None:
        """Nothing that the audits report."""
        assert self.audit.findings == [], (str(self.audit.findings[0]), self.log)
        assert self.device_tlb_audit.findings == [], self.log

    def _note(self, *what: object) -> None:
        self.log.append(" ".join(hex(each) if type(each) is int else str(each) for each in what))

    def restart(self) -> None:
        """Another driver takes over, as after a restart of the system; the unit sees none of it.

        It starts with tables of its own, where the old ones were.
        """
        if self.random.random() < 0.3:
            self.look()
            self._note("restart")
            self.driver.stop()
            self._begin()
            self.look()

    def new_domain(self) -> None:
        """A domain of any kind the setup has."""
        if len(self.spaces) >= 6:
            return
        kinds = [SECOND_STAGE, PASS_THROUGH, SECOND_STAGE]
        if self.setup.scalable:
            kinds += [FIRST_STAGE, FIRST_STAGE, NESTED, NESTED]
        kind: PasidTranslationType = self.random.choice(kinds)
        more: dict[str, Any] = {"largest": self.setup.largest}
        second = None
        if kind is NESTED:
            hosts = [space for space in self.spaces if space.domain.kind is SECOND_STAGE]
            hosts = [space for space in hosts if HIDDEN + DATA in space.pages]
            second = self.random.choice(hosts) if hosts else self._host()
            more |= {"second": second.domain, "guest_frames": self.guest_frames}
        domain = self.driver.domain(kind, **more)
        self._note("domain", domain.domain_id, kind.name)
        self.spaces.append(Space(domain, second=second))

    def _host(self) -> Space:
        """A second stage that has a guest's tables where they are, its data elsewhere."""
        host = Space(self.driver.domain(SECOND_STAGE, largest=self.setup.largest))
        self.spaces.append(host)
        self._note("host domain", host.domain.domain_id)
        self._map(host, GUEST_FRAMES, GUEST_FRAMES, DATA - GUEST_FRAMES, READ | WRITE)
        self._map(host, HIDDEN + DATA, DATA, END - DATA, READ | WRITE)
        return host

    def close(self) -> None:
        """Give up a domain that nobody has; its domain-id is the next one's."""
        used = {id(space) for space in self.attached.values()}
        used |= {id(space.second) for space in self.spaces}
        free = [space for space in self.spaces if id(space) not in used]
        if free:
            space = self.random.choice(free)
            self._note("close", space.domain.domain_id)
            self.driver.close(space.domain)
            self.spaces.remove(space)

    def attach(self) -> None:
        """A device, or a PASID of it, gets a domain."""
        if not self.spaces:
            self.new_domain()
        place = self.random.choice(DEVICES), self.random.choice(self._pasids)
        space = self.random.choice(self.spaces)
        if place in self.attached:
            return
        ats = self.setup.device_tlbs and (self.setup.scalable or space.domain.levels > 0)
        self._note("attach", *place, "to", space.domain.domain_id)
        self.driver.attach(place[0], space.domain, place[1], ats=ats)
        self.attached[place] = space
        if ats and not self.engines[place[0]].ats.enabled:
            self._enable(place[0])
        self.look_at(*place)

    @property
    def _pasids(self) -> tuple[int | None, ...]:
        return PASIDS if self.setup.scalable else (None,)

    def detach(self) -> None:
        """A device, or a PASID of it, loses its domain."""
        if self.attached:
            place = self.random.choice(sorted(self.attached, key=str))
            self.look_at(*place)
            self._note("detach", *place)
            del self.attached[place]
            self.driver.detach(*place)
            self.look_at(*place)

    def release(self) -> None:
        """A device without any domain loses its context entry."""
        used = {device for device, _ in self.attached}
        free = sorted(set(self.driver.attachments.endpoints) - used)
        if free:
            device = self.random.choice(free)
            self._note("release", device)
            self.driver.release(device)

    def _target(self) -> Space | None:
        spaces = [space for space in self.spaces if space.domain.levels]
        in_use = [space for space in spaces if space in self.attached.values()]
        return self.random.choice(in_use or spaces) if spaces else None

    def _range(self) -> tuple[int, int]:
        if self.random.random() < 0.2:
            return 0x40_0000, 0x20_0000
        address = self.random.choice(BASES) + self.random.randrange(4) * PAGE
        return address, self.random.choice((1, 1, 2, 5)) * PAGE

    def map(self) -> None:
        """Pages for a domain, where nothing is mapped."""
        space = self._target()
        if space is None:
            return
        address, length = self._range()
        if any(address + offset in space.pages for offset in range(0, length, PAGE)):
            return
        self._map(space, address, self._physical(space, length), length, self._access(space))
        self.look()

    def _physical(self, space: Space, length: int) -> int:
        step = 0x20_0000 if length == 0x20_0000 else PAGE
        physical = DATA + self.random.randrange((END - DATA - length) // step) * step
        return physical + (HIDDEN if space.second is not None else 0)

    def _access(self, space: Space) -> int:
        first = space.domain.kind is not SECOND_STAGE
        return self.random.choice((READ, READ | WRITE) if first else (READ, WRITE, READ | WRITE))

    def _map(self, space: Space, address: int, physical: int, length: int, access: int) -> None:
        self._note("map", space.domain.domain_id, address, physical, length, access)
        space.domain.map(address, physical, length, access)
        for offset in range(0, length, PAGE):
            space.pages[address + offset] = Mapping(physical + offset, access)

    def unmap(self) -> None:
        """Some of what is mapped goes."""
        space = self._target()
        if space is None or self._is_host(space):
            return
        address, length = self._place(space)
        self.look()
        self._note("unmap", space.domain.domain_id, address, length)
        space.domain.unmap(address, length)
        for offset in range(0, length, PAGE):
            space.pages.pop(address + offset, None)
            if space.dirty is not None:
                space.dirty.discard(address + offset)
        self.look()

    def _is_host(self, space: Space) -> bool:
        return GUEST_FRAMES in space.pages

    def _place(self, space: Space) -> tuple[int, int]:
        address, length = self._range()
        if space.pages and self.random.random() < 0.8:
            address = self.random.choice(list(space.pages))
            length = min(length, 5 * PAGE)
        return address, length

    def protect(self) -> None:
        """Other rights for some of what is mapped."""
        space = self._target()
        if space is None or self._is_host(space):
            return
        address, length = self._place(space)
        self.look()
        self._protect(space, address, length, self._access(space))
        self.look()

    def _protect(self, space: Space, address: int, length: int, access: int) -> None:
        self._note("protect", space.domain.domain_id, address, length, access)
        space.domain.protect(address, length, access)
        for offset in range(0, length, PAGE):
            known = space.pages.get(address + offset)
            if known is not None:
                space.pages[address + offset] = known._replace(access=access)

    def remap(self) -> None:
        """A page leads elsewhere."""
        space = self._target()
        if space is None or not space.pages or self._is_host(space):
            return
        address = self.random.choice(list(space.pages))
        self.look()
        self._note("remap", space.domain.domain_id, address)
        space.domain.unmap(address, PAGE)
        del space.pages[address]
        if space.dirty is not None:
            space.dirty.discard(address)
        self._map(space, address, self._physical(space, PAGE), PAGE, self._access(space))
        self.look()

    def change_host(self) -> None:
        """A guest's data pages get other rights, or other memory, below its first stage."""
        hosts = [space.second for space in self.spaces if space.second is not None]
        if not hosts:
            return
        host = self.random.choice(hosts)
        address = HIDDEN + DATA + self.random.randrange((END - DATA) // PAGE - 4) * PAGE
        users = [space for space in self.spaces if space.second is host and space.pages]
        if users and self.random.random() < 0.8:
            pages = list(self.random.choice(users).pages.values())
            address = min(self.random.choice(pages).physical, HIDDEN + END - 2 * PAGE)
        self.look()
        if self.random.random() < 0.5:
            self._protect(host, address, 2 * PAGE, self.random.choice((READ, READ | WRITE)))
        else:
            self._note("remap host", host.domain.domain_id, address)
            host.domain.unmap(address, PAGE)
            del host.pages[address]
            if host.dirty is not None:
                host.dirty.discard(address)
            self._map(host, address, DATA, PAGE, READ | WRITE)
        self.look()

    def track_dirty(self) -> None:
        """Dirty tracking of a second stage on or off."""
        seconds = [space for space in self.spaces if space.domain.kind is SECOND_STAGE]
        if not seconds or "ssads" not in self.driver.capabilities.features:
            return
        space = self.random.choice(seconds)
        self.look()
        enabled = not space.domain.second_stage_dirty
        self._note("dirty tracking", space.domain.domain_id, enabled)
        space.domain.set_dirty_tracking(enabled=enabled)
        space.dirty = None
        if enabled:
            self._read_dirty(space)  # what was set before does not count
            space.dirty = set()
        self.look()

    def read_dirty(self) -> None:
        """Ask which pages were written."""
        spaces = [space for space in self.spaces if space.dirty is not None]
        if "smpwcs" in self.driver.capabilities.features:
            spaces += [space for space in self.spaces if space.domain.kind is FIRST_STAGE]
        if spaces:
            space = self.random.choice(spaces)
            self._note("read dirty", space.domain.domain_id)
            found = self._read_dirty(space)
            expected = space.dirty
            if expected is not None:
                assert expected <= found, self.log
                if self.setup.largest == 12 and not self.setup.device_tlbs:
                    assert self._is_host(space) or found == expected, self.log
            space.dirty = set()
            self.look()

    def _read_dirty(self, space: Space) -> set[int]:
        found = [
            each
            for start in sorted({address & -0x4000_0000 for address in space.pages})
            for each in space.domain.read_and_clear_dirty(start, 0x4000_0000)
        ]
        return {page for start, size in found for page in range(start, start + size, PAGE)}

    def _wrote(self, space: Space, address: int) -> None:
        if space.dirty is not None:
            space.dirty.add(address)
        if space.second is not None:
            self._wrote(space.second, space.pages[address].physical)

    def look(self) -> None:
        """Devices use some addresses."""
        for _ in range(3):
            self.look_at(self.random.choice(DEVICES), self.random.choice(self._pasids))

    def look_at(self, device: int, pasid: int | None) -> None:
        """A device reads and writes, mapped pages mostly."""
        space = self.attached.get((device, pasid))
        address = self.random.choice(BASES) + self.random.randrange(5) * PAGE
        pages = {} if space is None else space.pages
        if pages and self.random.random() < 0.8:
            address = self.random.choice(list(pages))
        elif space is not None and space.domain.kind is PASS_THROUGH:
            address = DATA + self.random.randrange((END - DATA) // PAGE) * PAGE
        for wanted in self.random.sample((READ, WRITE), 2):
            self._use(device, pasid, space, address, wanted)

    def expected(self, space: Space | None, address: int, access: int) -> int | None:
        """Where an access leads by the model, or None."""
        if space is None:
            return None
        if space.domain.kind is PASS_THROUGH:
            return address
        known = space.pages.get(address)
        if known is None or access & ~known.access:
            return None
        if space.second is None:
            return known.physical
        return self.expected(space.second, known.physical, access)

    def _use(
        self, device: int, pasid: int | None, space: Space | None, address: int, access: int
    ) -> None:
        physical = self.expected(space, address, access)
        if physical is not None and not DATA <= physical < END:
            return  # pass-through to where the tables are
        if space is not None and space.domain.kind is PASS_THROUGH and physical is None:
            return
        agent: Any = self.ports[device]
        if self.engines[device].ats.enabled:
            likely = 0.3 if space is None else 0.7  # what is refused ends the use of the device-TLB
            agent = self.engines[device].ats if self.random.random() < likely else agent
        what = self.log[-8:], hex(device), pasid, hex(address), access
        self._writes += 1
        value = self._writes.to_bytes(8, "little")
        if access == READ:
            if physical is not None:
                self.memory.write(physical + 8, value)
            got = agent.read(address + 8, 8, pasid=pasid)
            assert got.ok == (physical is not None), what
            assert not got.ok or got.data == value, what
            return
        if physical is not None:
            self.memory.write(physical, bytes(8))
        done = agent.write(address, value, pasid=pasid)
        assert done.ok == (physical is not None), what
        if physical is not None and space is not None:
            assert self.memory.read(physical, 8) == value, what
            if space.domain.kind is not PASS_THROUGH:
                self._wrote(space, address)

    def interrupt_entry(self) -> None:
        """An entry is allocated, changed or freed."""
        self.send_interrupts()
        table, vector = self.driver.interrupts, self.random.randrange(0x20, 0xF0)
        entry = RemappedIrte.of(
            p=True, v=vector, sid=DEVICES[0], svt=SourceValidationType.SOURCE_ID
        )
        if len(self.interrupts) < 2:
            index = table.allocate(entry)
            self.interrupts[index] = vector
        elif self.random.random() < 0.5:
            index = self.random.choice(list(self.interrupts))
            table.change(index, entry)
            self.interrupts[index] = vector
        else:
            index = self.random.choice(list(self.interrupts))
            table.free(index)
            del self.interrupts[index]
        self._note("interrupt entry", index, self.interrupts.get(index))
        self.send_interrupts()

    def send_interrupts(self) -> None:
        """A device sends the first indices' interrupts."""
        for index in range(3):
            self.events.clear()
            self.ports[DEVICES[0]].write(0xFEE0_0010 | index << 5, bytes(4))
            outcomes = [
                each.outcome
                for each in self.events
                if isinstance(each, InterruptDelivered) and isinstance(each.outcome, Interrupt)
            ]
            blocked = [each for each in self.events if isinstance(each, InterruptBlocked)]
            vectors = [each.vector for each in outcomes]
            expected = self.interrupts.get(index)
            assert vectors == ([] if expected is None else [expected]), self.log
            assert len(blocked) == (expected is None), self.log
