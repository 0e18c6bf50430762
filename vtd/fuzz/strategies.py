"""Hypothesis strategies for everything a remapping unit is given (needs the ``fuzz`` extra).

Units, programs of a well-behaved driver, table sets by flavour (valid, one rule broken and named,
hostile), interrupt tables, requests, register programs, invalidation sequences, DMAR tables. All
draw small numbers first, so examples shrink to short programs and few entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from random import Random
from typing import Any, NamedTuple

from hypothesis import strategies as st

from devices.interrupt_messages import RemappableAddress
from pagetables.bits import BitRecord
from vtd.dmar import Table
from vtd.dmar.records import STRUCTURES, Header
from vtd.fuzz.case import DEVICES, Case, Step, mem_read, msi, store, take_faults
from vtd.fuzz.driver import PASIDS, ModelDriver, Operation
from vtd.fuzz.owed_invalidations import InvalidationRule
from vtd.fuzz.places import DESCRIPTOR, NOWHERE, RID_PASID, interrupt_place
from vtd.layouts.descriptors import DESCRIPTORS, DescriptorType
from vtd.layouts.interrupt_entries import PostedInterruptDescriptor, PostedIrte, RemappedIrte
from vtd.unit.departures import SPECIFICATION, Departures
from vtd.unit.implementation import implementation_registers
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.registers.drawn_capabilities import drawn_capabilities
from vtd.unit.registers.register_map import register_map

Draw = st.DrawFn

RIGHTS = st.sampled_from(["rw", "r-"])
DOMAINS = st.integers(1, 3)
DEVICE = st.sampled_from(list(DEVICES))
SLOTS = st.integers(0, 15)


MANY = ("xeon", *PROFILES, "xeon")
"""Profiles, the one with most functions more often."""


class Flavour(Enum):
    """How a table set relates to the rules."""

    VALID = "valid"
    FLAWED = "one rule broken"
    HOSTILE = "hostile"


def drawn_units(*needed: str) -> st.SearchStrategy[Capabilities]:
    """Consistent units with the needed functions, all other fields at random."""
    wanted = dict.fromkeys(needed, 1)
    return st.integers(0, 0xFFFF).map(lambda number: drawn_capabilities(Random(number), wanted))


@st.composite
def capabilities(draw: Draw, names: Sequence[str] = MANY, needed: str = "") -> Capabilities:
    """A unit: a profile, with optional functions taken away where nothing depends on them.

    One in four is drawn field by field, with the ``needed`` function.
    """
    if draw(st.integers(0, 3)) == 3:
        return draw(drawn_units(*needed.split()))
    unit = PROFILES[draw(st.sampled_from(list(names)))]
    for field in ("zlr", "psi", "sslps"):
        if draw(st.integers(0, 5)) == 0:
            unit = _replace(unit, cap=unit.cap.replace(**{field: 0}))
    if unit.ecap.sc and draw(st.integers(0, 5)) == 0:
        unit = _replace(unit, ecap=unit.ecap.replace(sc=False))
    return unit


def _replace(unit: Capabilities, **registers: int) -> Capabilities:
    return Capabilities.of(
        unit.version,
        registers.get("cap", unit.cap),
        registers.get("ecap", unit.ecap),
        unit.host_address_width,
    )


def _operation(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.builds(lambda **drawn: Operation(name, drawn), **arguments)


PASID = st.sampled_from(PASIDS)
COUNTS = st.sampled_from([1, 2, 4])

attaching = _operation(
    "attach", device=DEVICE, domain_id=DOMAINS, kind=st.integers(0, 3), pasid=PASID
)
mapping = _operation(
    "map", domain_id=DOMAINS, where=SLOTS, page=st.integers(0, 63), count=COUNTS, rights=RIGHTS
)
requesting = _operation(
    "dma", device=DEVICE, where=SLOTS, write=st.booleans(), pasid=PASID, count=st.integers(1, 3)
)
streaming = _operation(
    "stream", device=DEVICE, where=SLOTS, page=st.integers(0, 63), count=COUNTS, pasid=PASID
)
succeeding = _operation(
    "succeed",
    device=DEVICE,
    kind=st.integers(0, 3),
    where=SLOTS,
    page=st.integers(0, 63),
    pasid=PASID,
)
repeating = _operation("repeat", count=st.integers(1, 6), write=st.booleans())
changing = st.one_of(
    _operation(
        "unmap",
        domain_id=DOMAINS,
        where=SLOTS,
        count=st.sampled_from([1, 2, 4, 512, 0x1000, 0x4_0000]),
    ),
    _operation("other_root", count=st.integers(1, 4)),
    _operation("rest", device=DEVICE, where=SLOTS, page=st.integers(0, 63)),
    _operation("sweep", device=DEVICE, page=st.integers(0, 63)),
    _operation("protect", domain_id=DOMAINS, where=SLOTS, count=COUNTS, rights=RIGHTS),
    _operation("move", domain_id=DOMAINS, where=SLOTS, page=st.integers(0, 63)),
    _operation("withdraw", device=DEVICE, where=SLOTS, pasid=PASID),
    _operation("protect_host", domain_id=DOMAINS, page=st.integers(0, 7), rights=RIGHTS),
    _operation("detach", device=DEVICE, pasid=PASID),
    _operation("detach_functions"),
    _operation("reuse", domain_id=DOMAINS, kind=st.integers(0, 3)),
    _operation(
        "interrupt_entry",
        index=st.integers(0, 2),
        vector=st.integers(32, 255),
        device=st.one_of(DEVICE, st.none()),
    ),
)
interrupting = _operation("interrupt", device=DEVICE, index=st.integers(0, 2))
retargeting = _operation(
    "retarget", device=DEVICE, index=st.integers(0, 2), vector=st.integers(32, 255)
)


operating = st.sampled_from(
    [
        *[requesting] * 5,
        *[repeating] * 5,
        *[changing] * 4,
        interrupting,
        retargeting,
        mapping,
        attaching,
        streaming,
        succeeding,
    ]
).flatmap(lambda kind: kind)
"""What a driver and its devices do, by how often; ``one_of`` would weigh each kind alike."""


@st.composite
def beginnings(draw: Draw) -> list[Operation]:
    """A driver sets up: every device gets an address space, and these get some mappings."""
    begin = [
        Operation("attach", {"device": name, "domain_id": domain, "kind": kind, "pasid": None})
        for name, (domain, kind) in zip(
            DEVICES, draw(st.tuples(*[st.tuples(DOMAINS, st.integers(0, 3))] * 4)), strict=True
        )
    ]
    return begin + [draw(mapping) for _ in range(draw(st.integers(2, 8)))]


@st.composite
def operations(draw: Draw, size: int = 60) -> list[Operation]:
    """What a driver does: it sets up a few address spaces, then changes and uses them."""
    begin = draw(beginnings())
    return begin + [draw(operating) for _ in range(draw(st.integers(size // 8, size)))]


def supports_scalable(unit: Capabilities) -> bool:
    """Whether scalable mode with some stage can be used."""
    return "smts" in unit.features and bool(unit.features & {"fsts", "ssts"})


@st.composite
def driver_cases(
    draw: Draw,
    units: st.SearchStrategy[Capabilities] | None = None,
    drop: InvalidationRule | None = None,
    descriptors: bool = False,
) -> Case:
    """A program of a driver that owes no invalidation, except those of ``drop``.

    ``descriptors``: each domain has room for those of devices.
    """
    unit = draw(capabilities() if units is None else units)
    scalable = supports_scalable(unit) and draw(st.booleans())
    coarse = draw(st.sampled_from([0, 0, 1, 2])) if drop is None else 0
    driver = ModelDriver(unit, scalable=scalable, drop=drop, coarse=coarse, descriptors=descriptors)
    driver.run(draw(operations()))
    return driver.case()


class Flaw(NamedTuple):
    """A change of one entry against one rule, or of bits that no rule is about."""

    rule: str
    address: int
    size: int
    value: int

    def step(self) -> Step:
        """The write that breaks the rule."""
        return store(self.address, self.value, self.size)


@st.composite
def flaws(draw: Draw, driver: ModelDriver) -> Flaw:
    """One bit of one structure turned over, or a pointer led astray; the rule is named."""
    place = draw(st.sampled_from(driver.places()))
    value = driver.word(place)
    kind = draw(st.integers(0, 7))
    pointers = [name for name in place.record.FIELDS if name in _POINTERS]
    if kind == 0 and pointers:
        name = draw(st.sampled_from(pointers))
        beyond = 1 << min(driver.capabilities.host_address_width, 51)
        target = draw(st.sampled_from([0, NOWHERE, beyond, *([0xFEE0_0000] * (name == "addr"))]))
        shift = place.record.FIELDS[name].shift
        target = target >> shift << shift
        changed: int = place.record(value).replace(**{name: target})
        return Flaw(f"{place.name}: {name} = {target:#x}", place.address, place.size, changed)
    bits = _interesting_bits(place.record)
    bit = draw(st.one_of(st.sampled_from(bits), st.integers(0, place.size * 8 - 1)))
    rule = f"{place.name}: {bit_name(place.record, bit)} turned over"
    return Flaw(rule, place.address, place.size, value ^ 1 << bit)


_POINTERS = ("ctp", "lctp", "uctp", "ssptptr", "pasiddirptr", "smptblptr", "fsptptr", "addr")


def bit_name(record: type[BitRecord], bit: int) -> str:
    """What a bit of a record is: a field, or reserved."""
    for name, bits in record.FIELDS.items():
        if bits.low <= bit <= bits.high:
            ignored = " (ignored)" if bits.ignored else ""
            return f"bit {bit - bits.low} of {name}{ignored}"
    return f"reserved bit {bit}"


def _interesting_bits(record: type[BitRecord]) -> list[int]:
    """The low bits of every field, and every reserved bit next to one."""
    fields = record.FIELDS.values()
    bits = {bits.low for bits in fields} | {bits.low + 1 for bits in fields if bits.high > bits.low}
    edges = {bits.high + 1 for bits in fields} | {bits.low - 1 for bits in fields}
    return sorted(bit for bit in bits | edges if 0 <= bit < record.WIDTH)


@st.composite
def hostile_words(draw: Draw, driver: ModelDriver) -> Flaw:
    """Any word in place of a table entry, with a bias to ones that lead somewhere."""
    place = draw(st.sampled_from(driver.places()))
    targets = [0x10_0000, 0x10_1000, 0x11_0000, 0x20_0000, 0x20_1000, 0x80_0000, NOWHERE]
    low = draw(st.sampled_from([3, 7, 1, 2, 0, 0x83, 0x87, 0x103, 0x363]))
    value = draw(st.sampled_from(targets)) | low
    if draw(st.integers(0, 3)) == 0:
        value = draw(st.integers(0, (1 << place.size * 8) - 1))
    elif place.size > 8:
        value |= driver.word(place) & ~((1 << 64) - 1)
    return Flaw(f"{place.name}: {value:#x}", place.address, place.size, value)


@st.composite
def table_cases(
    draw: Draw,
    flavour: Flavour | None = None,
    units: st.SearchStrategy[Capabilities] | None = None,
    scalable: bool | None = None,
    with_pasids: bool = True,
    with_flags: bool = False,
    departures: Departures = SPECIFICATION,
    settled: bool = False,
    descriptors: bool = False,
) -> Case:
    """A table set of a flavour, and requests to it; nothing is cached when the tables change.

    ``with_flags``: afterwards software looks at the entries, for the flags that were set.
    ``settled``: all is invalidated after the change, for units that read structures before a
    request needs them, which they may (6.2.1).
    ``departures`` and ``descriptors``: as :class:`ModelDriver` has them.
    """
    unit = draw(capabilities() if units is None else units)
    flavour = draw(st.sampled_from(Flavour)) if flavour is None else flavour
    if scalable is None:
        scalable = supports_scalable(unit) and draw(st.booleans())
    driver = ModelDriver(unit, scalable=scalable, departures=departures, descriptors=descriptors)
    if not with_pasids:
        driver.pasids = (None,)
    driver.run(draw(address_spaces()))
    broken: list[Flaw] = []
    if flavour is Flavour.FLAWED:
        broken = [draw(flaws(driver))]
    elif flavour is Flavour.HOSTILE:
        broken = draw(st.lists(hostile_words(driver), min_size=1, max_size=8))
    for flaw in broken:
        driver.emit(flaw.step())
    if settled:
        driver.settle()
    draw_requests(draw, driver)
    if with_flags:
        driver.emit(*(mem_read(place.address, place.size) for place in driver.places()))
    return driver.case("; ".join(flaw.rule for flaw in broken) or "valid")


@st.composite
def address_spaces(draw: Draw) -> list[Operation]:
    """Some devices and PASIDs get address spaces with some mappings."""
    users = st.lists(
        st.tuples(DEVICE, DOMAINS, st.integers(0, 3), PASID),
        min_size=1,
        max_size=4,
        unique_by=lambda each: (each[0], each[3]),
    )
    begin = [
        Operation("attach", {"device": name, "domain_id": domain, "kind": kind, "pasid": pasid})
        for name, domain, kind, pasid in draw(users)
    ]
    return begin + draw(st.lists(st.one_of(mapping, huge_mapping), min_size=1, max_size=5))


huge_mapping = _operation(
    "map_huge", domain_id=DOMAINS, size=st.sampled_from([1 << 21, 1 << 30]), rights=RIGHTS
)


def draw_requests(draw: Draw, driver: ModelDriver, most: int = 6) -> None:
    """Requests to mapped pages, beside them and beyond every width, with the faults read back."""
    records = driver.capabilities.fault_records
    for number, request in enumerate(draw(st.lists(requests(driver), min_size=1, max_size=most))):
        driver.emit(request)
        if (number + 1) % records == 0:
            driver.emit(*take_faults(driver.capabilities))


_ADDRESSES = (16, 0x1000, 0x20_0010, 1 << 38, 1 << 39, 1 << 47, 1 << 48, 0xFFFF_8000_0000_0000)
"""Addresses that are often not mapped, or beyond a width."""


_PASID_EDGES = (RID_PASID, 64, 0x1FFF, 0x2000, 0xF_FFFF)
"""PASIDs that nobody has: of RID_PASID, and in and beyond tables, directories and the unit."""


class Aim(NamedTuple):
    """Who asks for what."""

    device: str
    address: int
    pasid: int | None


@st.composite
def aims(draw: Draw, driver: ModelDriver) -> Aim:
    """A device, and an address that is likely to mean something."""
    used = [place for place, domain in driver.attached.items() if domain.builder is not None]
    device, pasid = draw(st.sampled_from(used or [("d0", None)]))
    if draw(st.integers(0, 7)) == 0:
        device = draw(DEVICE)
        edges = _PASID_EDGES if driver.pasids != (None,) else ()
        pasid = draw(st.sampled_from([*driver.pasids, *edges]))
    domain = driver.attached.get((device, pasid))
    pages: list[int] = [] if domain is None else sorted(domain.pages)
    addresses = list(_ADDRESSES)
    if draw(st.integers(0, 5)) and pages:
        addresses = [page + 16 for page in pages[:4] + pages[-2:]]
    return Aim(device, draw(st.sampled_from(addresses)), pasid)


@st.composite
def requests(draw: Draw, driver: ModelDriver) -> Step:
    """A DMA of a device to an address that is likely to mean something."""
    aim = draw(aims(driver))
    return driver.request(aim.device, aim.address, write=draw(st.booleans()), pasid=aim.pasid)


def _one_bit(entry: int) -> st.SearchStrategy[int]:
    """An interrupt-remapping entry with any one bit turned over."""
    return st.integers(0, 127).map(lambda bit: entry ^ 1 << bit)


@st.composite
def _one_field(draw: Draw, entry: int) -> int:
    """An interrupt-remapping entry with another value in one field of either format."""
    record = draw(st.sampled_from([RemappedIrte, PostedIrte]))
    bits = record.FIELDS[draw(st.sampled_from(list(record.FIELDS)))]
    value = draw(st.integers(0, (1 << bits.high - bits.low + 1) - 1))
    return entry & ~bits.mask | value << bits.low


@st.composite
def _descriptors(draw: Draw, vector: int) -> int:
    """A posted-interrupt descriptor, in which one bit may be turned over."""
    descriptor = PostedInterruptDescriptor.of(
        pir=draw(st.sampled_from([0, 1, 1 << vector])),
        on=draw(st.booleans()),
        sn=draw(st.booleans()),
        nv=draw(st.integers(0, 255)),
        ndst=draw(st.sampled_from([0, 0x1200])),
    )
    flip = draw(st.one_of(st.just(0), st.integers(256, 511).map(lambda bit: 1 << bit)))
    return descriptor ^ flip


@st.composite
def _posted_entries(draw: Draw, vector: int) -> int:
    """An entry of posted format, in which one bit may be turned over."""
    entry = PostedIrte.of(
        p=True,
        im=True,
        urg=draw(st.booleans()),
        vv=vector,
        pdal=draw(st.sampled_from([DESCRIPTOR, DESCRIPTOR, NOWHERE])),
    )
    return draw(st.one_of(st.just(int(entry)), _one_bit(entry)))


@st.composite
def interrupt_cases(
    draw: Draw,
    units: st.SearchStrategy[Capabilities] | None = None,
    wide_data: bool = True,
    settled: bool = False,
) -> Case:
    """Interrupt-remapping entries, some broken, and messages that name them and others.

    ``wide_data``: also messages with data of more than 16 bits, which few devices can send.
    ``settled``: all entries are invalidated once they are written.
    """
    names = [name for name, unit in PROFILES.items() if "ir" in unit.features]
    unit = draw(capabilities(names, "ir") if units is None else units)
    driver = ModelDriver(unit)
    entries = draw(
        st.lists(
            st.tuples(st.integers(0, 17), st.integers(32, 255), DEVICE), min_size=1, max_size=3
        )
    )
    for index, vector, device in entries:
        driver.interrupt_entry(index, vector, device)
    posted = "pi" in unit.features and draw(st.booleans())
    if posted:
        index, vector, _ = draw(st.sampled_from(entries))
        driver.emit(
            store(DESCRIPTOR, draw(_descriptors(vector)), 64),
            store(interrupt_place(index).address, draw(_posted_entries(vector)), 16),
        )
    elif draw(st.booleans()):
        index, _, _ = draw(st.sampled_from(entries))
        place = interrupt_place(index)
        changed = draw(st.one_of(_one_bit(driver.word(place)), _one_field(driver.word(place))))
        driver.emit(store(place.address, changed, 16))
    if settled:
        driver.settle_interrupts()
    known = st.sampled_from([index for index, _, _ in entries])
    edges = st.sampled_from([0xFFFF, 0x8000, 16, 31, 32])
    subhandles = st.sampled_from([0, 1, 15, 0xFFFF, *([0x1_0000] * wide_data)])
    unused = st.sampled_from([0, *(vector for _, vector, _ in entries)])
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.one_of(known, st.integers(0, 17), edges))
        shv = draw(st.integers(0, 3)) == 0
        data = draw(subhandles if shv else unused)
        address = RemappableAddress.for_handle(index, shv=shv)
        driver.emit(msi(draw(DEVICE), address, data), *take_faults(unit))
        if posted:
            driver.emit(mem_read(DESCRIPTOR, 64))
    return driver.case("interrupt table")


class RegisterAccess(NamedTuple):
    """An access of software in a register program; ``value`` None is a read."""

    offset: int
    size: int
    value: int | None


@st.composite
def register_programs(draw: Draw, unit: Capabilities, size: int = 20) -> list[RegisterAccess]:
    """Reads and writes of registers, aligned or not, with values made of their fields."""
    constants = implementation_registers(unit)
    places = register_map(unit.features, unit.cap, unit.ecap, constants)
    accesses = []
    for _ in range(draw(st.integers(1, size))):
        register, number = draw(st.sampled_from(list(places)))
        offset = places[register, number]
        width = register.WIDTH // 8
        masks = st.sets(st.sampled_from(_masks(register)))
        values = st.one_of(st.integers(0, (1 << register.WIDTH) - 1), masks.map(sum))
        value = draw(st.one_of(st.none(), values))
        size_of_access = draw(st.sampled_from([4, 8]))
        shift = draw(st.sampled_from([0, *range(0, width, size_of_access)]))
        part = None if value is None else value >> shift * 8 & (1 << size_of_access * 8) - 1
        accesses.append(RegisterAccess(offset + shift, size_of_access, part))
    return accesses


def _masks(register: type[BitRecord]) -> list[int]:
    return [bits.mask for bits in register.FIELDS.values()] or [0]


@st.composite
def invalidation_sequences(draw: Draw, unit: Capabilities, size: int = 8) -> list[int]:
    """Descriptors for the queue: of each kind, with their fields drawn, some of them broken."""
    sequence = []
    for _ in range(draw(st.integers(1, size))):
        kind = draw(st.sampled_from(DescriptorType))
        record = DESCRIPTORS[kind]
        value: int = record.of()
        for name, bits in record.FIELDS.items():
            if not name.startswith("type") and draw(st.booleans()):
                value |= bits.place(draw(st.integers(0, bits.max)) << bits.shift)
        if draw(st.integers(0, 7)) == 0:
            value ^= 1 << draw(st.integers(0, record.WIDTH - 1))
        sequence.append(value)
    return sequence


@st.composite
def dmar_tables(draw: Draw, flavour: Flavour | None = None) -> bytes:
    """A DMAR table: sealed, with one byte changed, or any bytes behind a header."""
    flavour = draw(st.sampled_from(Flavour)) if flavour is None else flavour
    header = Header(host_address_width=draw(st.integers(11, 51))).pack_fields()
    if flavour is Flavour.HOSTILE:
        return header + draw(st.binary(max_size=64))
    kinds = st.sampled_from([*STRUCTURES, 0xFF])
    structures = st.builds(_structure, kinds, st.binary(max_size=24))
    body = b"".join(draw(st.lists(structures, max_size=4)))
    length = (len(header) + len(body)).to_bytes(4, "little")
    data = bytearray(Table.parse(header[:4] + length + header[8:] + body).sealed().pack())
    if flavour is Flavour.FLAWED:
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


def _structure(kind: int, payload: bytes) -> bytes:
    return kind.to_bytes(2, "little") + (4 + len(payload)).to_bytes(2, "little") + payload
