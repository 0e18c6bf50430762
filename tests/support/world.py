"""A unit with tables for one request, in each translation mode: what tests of the engine vary.

Everything is where software could have put it: structures in low memory, pages and first-stage
tables from :data:`HOST` on. Under nesting the guest sees that memory from ``guest`` on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from devices.dma import READ, Request
from pagetables.bits import BitRecord
from pagetables.first_stage import (
    FirstStageEntry,
    FirstStagePage1G,
    FirstStagePage2M,
    FirstStagePage4K,
)
from pagetables.memory import PhysicalMemory
from pagetables.second_stage import (
    SecondStageEntry,
    SecondStagePage1G,
    SecondStagePage2M,
    SecondStagePage4K,
)
from tests.support.meddling import Meddling
from tests.support.oracle import Words
from tests.support.translation_oracle import Ask, Refused, Unit
from tests.support.translation_oracle import translate as expected_translation
from vtd.layouts.entries import (
    ContextEntry,
    PasidDirectoryEntry,
    PasidEntry,
    PasidTranslationType,
    RootEntry,
    ScalableContextEntry,
    ScalableRootEntry,
    TranslationType,
)
from vtd.layouts.registers import (
    Capability,
    ExtendedCapability,
    FaultRecording,
    FaultStatus,
    GlobalCommand,
    InvalidationQueueAddress,
    RootTableAddress,
    TranslationTableMode,
    Version,
)
from vtd.unit.interrupts.outcome import Message
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import Event, MessageSent
from vtd.unit.unit import RemappingUnit

ROOT, CONTEXT, DIRECTORY, PASID_TABLE = 0x1000, 0x2000, 0x4000, 0x5000
QUEUE, STATUS = 0x8000, 0xF000
"""The invalidation queue, and where its wait descriptors write."""
SECOND_TABLES = 0x10000
HOST = 0x4000_0000
"""Host memory for pages: 1 GiB aligned, so that pages of any size can begin here."""
HOST_SIZE = 0x20_0000
FIRST_TABLES = 0x10_000
"""First-stage tables and the page of the request, as offsets from :data:`HOST`."""
PAGE = 0x20_000
HOLE = 0x8000_0000
"""Where there is no memory."""
INTERRUPTS = 0xFEE0_0000
SOURCE_ID = 0x0108

FIRST_LEAVES: dict[int, type[BitRecord]] = {
    12: FirstStagePage4K,
    21: FirstStagePage2M,
    30: FirstStagePage1G,
}
SECOND_LEAVES: dict[int, type[BitRecord]] = {
    12: SecondStagePage4K,
    21: SecondStagePage2M,
    30: SecondStagePage1G,
}


class Mode(Enum):
    """How requests are translated."""

    LEGACY = "legacy"
    LEGACY_PASS_THROUGH = "legacy pass-through"
    FIRST = "first stage"
    SECOND = "second stage"
    NESTED = "nested"
    PASS_THROUGH = "pass-through"


LEGACY_MODES = (Mode.LEGACY, Mode.LEGACY_PASS_THROUGH)
SCALABLE_MODES = (Mode.FIRST, Mode.SECOND, Mode.NESTED, Mode.PASS_THROUGH)
KINDS = {
    Mode.FIRST: PasidTranslationType.FIRST_STAGE,
    Mode.SECOND: PasidTranslationType.SECOND_STAGE,
    Mode.NESTED: PasidTranslationType.NESTED,
    Mode.PASS_THROUGH: PasidTranslationType.PASS_THROUGH,
}

EVERYTHING: dict[str, int] = {
    # CAP_REG
    "esrtps": 1, "esirtps": 1, "fs5lp": 1, "pi": 1, "fs1gp": 1, "drd": 1, "dwd": 1, "mamv": 18,
    "nfr": 7, "psi": 1, "sslps": 3, "fro": 0x400, "zlr": 1, "mgaw": 56, "sagaw": 14, "phmr": 1,
    "plmr": 1, "nd": 6,
    # ECAP_REG
    "ssirws": 1, "rprivs": 1, "adms": 1, "rps": 1, "smpwcs": 1, "fsts": 1, "ssts": 1, "ssads": 1,
    "smts": 1, "pds": 1, "dit": 1, "pasid": 1, "pss": 15, "eafs": 1, "nwfs": 1, "srs": 1, "prs": 1,
    "nest": 1, "mts": 1, "mhmv": 15, "iro": 0x500, "sc": 1, "pt": 1, "eim": 1, "ir": 1, "dt": 1,
    "qi": 1, "c": 1,
}  # fmt: skip
"""Fields of the capability registers of a unit that has everything; PASIDs have 16 bits."""


def capabilities(haw: int = 46, version: int = 5, **changes: int) -> Capabilities:
    """A unit with everything but for the ``changes``, fields of CAP_REG and ECAP_REG."""
    values = {**EVERYTHING, **changes}
    cap = {name: value for name, value in values.items() if name in Capability.FIELDS}
    ecap = {name: value for name, value in values.items() if name in ExtendedCapability.FIELDS}
    return Capabilities(
        Version.of(max=version), Capability.of(**cap), ExtendedCapability.of(**ecap), haw
    )


@dataclass
class World(Meddling):
    """Memory in which ``request`` succeeds, until a test changes something.

    Structures are in ``places`` by name: ``root``, ``context``, ``directory``, ``pasid``, and the
    entries on the way by level from 1, ``first4`` to ``first1``, ``second4`` to ``second1``.
    """

    mode: Mode
    unit: Capabilities = field(default_factory=capabilities)
    source_id: int = SOURCE_ID
    pasid: int | None = None
    """PASID of the request."""
    rid_pasid: int = 0
    first_levels: int = 4
    second_levels: int = 4
    first_size: int = 12
    """log2 of the page size; a large page begins at the start of host memory."""
    second_size: int = 12
    guest: int = 0x7_C000_0000
    """Where the guest, or the second stage alone, sees host memory; 1 GiB aligned."""
    high: int = 0x2A
    """Address bits from 30 upwards of the request, where the first stage translates it."""

    def __post_init__(self) -> None:
        self.memory = PhysicalMemory()
        self.memory.add_region(0, 0x20000)
        self.memory.add_region(HOST, HOST_SIZE)
        Meddling.__init__(self)
        self.places: dict[str, tuple[int, type[BitRecord]]] = {}
        self.second_entries: list[int] = []
        """Addresses of the second-stage entries that map host memory."""
        legacy = self.mode in LEGACY_MODES
        ttm = TranslationTableMode.LEGACY if legacy else TranslationTableMode.SCALABLE
        self.root = RootTableAddress.of(rta=ROOT, ttm=ttm)
        second = self.mode in (Mode.LEGACY, Mode.SECOND, Mode.NESTED)
        first = self.mode in (Mode.FIRST, Mode.NESTED)
        if second:
            self._build_second_stage()
        if first:
            self._build_first_stage()
        if legacy:
            self._build_legacy()
        else:
            self._build_scalable()
        self.request = Request(self.source_id, self.address, READ, 4, self.pasid)

    @property
    def address(self) -> int:
        """An input address that leads to ``HOST + PAGE``."""
        if self.mode in (Mode.FIRST, Mode.NESTED):
            return self.high << 30 | PAGE
        if self.mode in (Mode.LEGACY, Mode.SECOND):
            return self.guest | PAGE
        return HOST | PAGE

    def add(self, name: str, address: int, record: BitRecord) -> None:
        """Store a structure and remember its place."""
        self.places[name] = address, type(record)
        self.memory.load(address, record.pack())

    def get(self, name: str) -> Any:
        """The structure as it is in memory."""
        address, record = self.places[name]
        return record.unpack(self.memory.read(address, record.WIDTH // 8))

    def put(self, name: str, value: int) -> None:
        """Overwrite a structure."""
        address, record = self.places[name]
        self.memory.load(address, record(value).pack())

    def change(self, name: str, **fields: int) -> None:
        """Give fields of a structure other values."""
        self.put(name, self.get(name).replace(**fields))

    def set_bits(self, name: str, mask: int) -> None:
        """Set bits of a structure that may belong to no field."""
        self.put(name, self.get(name) | mask)

    def ask(self, **changes: Any) -> None:
        """Change fields of the request."""
        self.request = self.request._replace(**changes)

    def _build_second_stage(self) -> None:
        if self.second_size == 12:
            pages: Iterable[int] = (
                *range(FIRST_TABLES, FIRST_TABLES + 0x5000, 0x1000),
                *range(PAGE, PAGE + 0x4000, 0x1000),
            )
        else:
            pages = (0,)
        table = SECOND_TABLES
        for level in range(self.second_levels, 0, -1):
            shift = 12 + 9 * (level - 1)
            index = self.guest >> shift & 511
            if shift == self.second_size:
                for page in pages:
                    leaf = SECOND_LEAVES[shift].of(r=True, w=True, addr=HOST | page)
                    if shift > 12:
                        leaf = leaf.replace(ps=True)
                    where = table + (index + (page >> 12 if shift == 12 else 0)) * 8
                    self.second_entries.append(where)
                    name = f"second{level}" if page in (0, PAGE) else f"second{level} {page:#x}"
                    self.add(name, where, leaf)
                return
            entry = SecondStageEntry.of(r=True, w=True, addr=table + 0x1000)
            self.add(f"second{level}", table + index * 8, entry)
            table += 0x1000

    def _build_first_stage(self) -> None:
        guest = self.guest if self.mode is Mode.NESTED else HOST
        offset = FIRST_TABLES
        address = self.high << 30 | PAGE
        for level in range(self.first_levels, 0, -1):
            shift = 12 + 9 * (level - 1)
            where = HOST + offset + (address >> shift & 511) * 8
            if shift == self.first_size:
                page = PAGE if shift == 12 else 0
                leaf = FIRST_LEAVES[shift].of(p=True, rw=True, us=True, addr=guest + page)
                self.add(f"first{level}", where, leaf.replace(ps=True) if shift > 12 else leaf)
                return
            offset += 0x1000
            entry = FirstStageEntry.of(p=True, rw=True, us=True, addr=guest + offset)
            self.add(f"first{level}", where, entry)

    def _build_legacy(self) -> None:
        bus, function = divmod(self.source_id, 256)
        self.add("root", ROOT + bus * 16, RootEntry.of(p=True, ctp=CONTEXT))
        entry = ContextEntry.of(p=True, aw=self.second_levels - 2, did=5)
        if self.mode is Mode.LEGACY:
            entry = entry.replace(ssptptr=SECOND_TABLES)
        else:
            entry = entry.replace(tt=TranslationType.PASS_THROUGH)
        self.add("context", CONTEXT + function * 16, entry)

    def _build_scalable(self) -> None:
        bus, function = divmod(self.source_id, 256)
        root = ScalableRootEntry.of(lp=True, lctp=CONTEXT, up=True, uctp=CONTEXT + 0x1000)
        self.add("root", ROOT + bus * 16, root)
        context = ScalableContextEntry.of(
            p=True, dte="dt" in self.unit.features, pdts=7, pasiddirptr=DIRECTORY
        )
        if "pasid" in self.unit.features:
            context = context.replace(paside=True)
        self.add("context", CONTEXT + function * 32, context.replace(rid_pasid=self.rid_pasid))
        pasid = self.rid_pasid if self.pasid is None else self.pasid
        self.add(
            "directory",
            DIRECTORY + (pasid >> 6) * 8,
            PasidDirectoryEntry.of(p=True, smptblptr=PASID_TABLE),
        )
        entry = PasidEntry.of(p=True, pgtt=KINDS[self.mode], did=5)
        if "smpwcs" in self.unit.features:
            entry = entry.replace(pwsnp=True)
        if self.mode in (Mode.SECOND, Mode.NESTED):
            entry = entry.replace(aw=self.second_levels - 2, ssptptr=SECOND_TABLES)
        if self.mode in (Mode.FIRST, Mode.NESTED):
            guest = self.guest if self.mode is Mode.NESTED else HOST
            entry = entry.replace(fspm=self.first_levels - 4, fsptptr=guest + FIRST_TABLES)
        self.add("pasid", PASID_TABLE + (pasid & 63) * 64, entry)

    def words(self) -> Words:
        """Memory for the oracle."""
        words: dict[int, int] = {}
        for frame, data in self.memory.snapshot().items():
            for index, word in enumerate(memoryview(data).cast("Q")):
                if word:
                    words[frame << 12 | index << 3] = word
        frames = (
            frame
            for region in self.memory.regions
            for frame in range(region.start >> 12, region.end >> 12)
        )
        return Words(frozenset(frames), words, self.read_only)

    def expected(self, words: Words | None = None) -> int | Refused:
        """What the oracle says of the request; flags are set in ``words``."""
        request = self.request
        ask = Ask(
            request.source_id,
            request.address,
            reads=bool(request.access & 1),
            writes=bool(request.access & 2),
            zero_length=request.length == 0,
            pasid=request.pasid,
            privileged=request.privileged,
        )
        unit = Unit(self.unit.cap, self.unit.ecap, self.unit.host_address_width)
        return expected_translation(self.words() if words is None else words, unit, self.root, ask)

    def start(self, options: Options | None = None) -> Started:
        """The unit, with translation enabled."""
        started = Started(self, self.join(RemappingUnit(self.unit, self.memory, options)))
        started.set_root(self.root)
        started.command(te=True)
        return started


class Started:
    """A running unit, driven as software drives it."""

    def __init__(self, world: World, unit: RemappingUnit) -> None:
        self.world = world
        self.unit = unit
        self.events: list[Event] = []
        unit.subscribe(self.events.append)
        self._command = GlobalCommand(0)

    @property
    def messages(self) -> list[Message]:
        """Interrupts that the unit sent of its own."""
        return [event.message for event in self.events if isinstance(event, MessageSent)]

    def port(self, source_id: int | None = None) -> UnitPort:
        """The port of a requester."""
        source_id = self.world.source_id if source_id is None else source_id
        return UnitPort(self.unit, self.world.memory, source_id)

    def admit(self, request: Request | None = None) -> int | None:
        """The physical address of the request, or None."""
        outcome = self.unit.admit(self.world.request if request is None else request)
        return outcome if isinstance(outcome, int) else None

    def set_root(self, root: RootTableAddress) -> None:
        """SRTP."""
        self.unit.write_register(0x20, 8, root)
        self.command(srtp=True)

    def command(self, **functions: bool) -> None:
        """One command, with all enabled functions kept."""
        one_shot = {"srtp", "sirtp", "wbf"}
        self._command = self._command.replace(
            **{name: value for name, value in functions.items() if name not in one_shot}
        )
        shots = {name: value for name, value in functions.items() if name in one_shot}
        self.unit.write_register(0x18, 4, self._command.replace(**shots))

    def enable_queue(self, *, wide: bool, size: int = 0) -> None:
        """Switch queued invalidation on, with a queue of ``2**size`` pages."""
        self._wide, self._queue_size, self._tail = wide, 0x1000 << size, 0
        address = InvalidationQueueAddress.of(iqa=QUEUE, dw=wide, qs=size)
        self.unit.write_register(0x90, 8, address)
        self.command(qie=True)

    def submit(self, *descriptors: int) -> None:
        """Write descriptors into the queue, then the tail register once."""
        size = 32 if self._wide else 16
        for descriptor in descriptors:
            data = descriptor.to_bytes(size, "little")
            self.world.memory.write(QUEUE + self._tail, data)
            self._tail = (self._tail + size) % self._queue_size
        self.unit.write_register(0x88, 8, self._tail)

    @property
    def head(self) -> int:
        """IQH_REG."""
        return self.unit.read_register(0x80, 8)

    @property
    def tail(self) -> int:
        """What :meth:`submit` wrote last."""
        return self._tail

    @property
    def queue_error(self) -> int | None:
        """IQEI while FSTS.IQE is set."""
        return self.unit.read_register(0xB0, 8) & 15 if self.status().iqe else None

    def record(self, index: int = 0) -> FaultRecording:
        """A fault recording register, as software reads it."""
        base = self.unit.capabilities.fault_recording_offset + 16 * index
        low, high = (self.unit.read_register(base + half, 8) for half in (0, 8))
        return FaultRecording(high << 64 | low)

    def status(self) -> FaultStatus:
        """FSTS_REG."""
        return FaultStatus(self.unit.read_register(0x34, 4))

    def clear_records(self) -> None:
        """Clear all F fields, then PFO."""
        base = self.unit.capabilities.fault_recording_offset
        for index in range(self.unit.capabilities.fault_records):
            self.unit.write_register(base + 16 * index + 12, 4, 1 << 31)
        self.unit.write_register(0x34, 4, 1)

    def refusal(self, request: Request | None = None) -> FaultRecording | None:
        """Try the request: the record of its fault, None if it has none; records are cleared."""
        self.admit(request)
        found = [self.record(index) for index in range(self.unit.capabilities.fault_records)]
        self.clear_records()
        return next((record for record in found if record.f), None)
