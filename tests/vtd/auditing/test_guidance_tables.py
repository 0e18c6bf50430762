"""Tables 28 and 29, row by row: each invalidation forgotten alone is reported, and all given none.

VT-d 6.5.3.3 and 6.5.3.4. ``test_invalidation_rules.py`` has the rules that the rows come to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pytest

from pagetables.build import TableBuilder
from tests.vtd.auditing.rig import (
    CONTEXTS,
    DATA,
    DEVICE,
    DIRECTORY,
    FIRST,
    LEGACY,
    NEIGHBOUR,
    NESTED,
    OTHER,
    PASIDS,
    PERMISSIONS,
    SECOND,
    Rig,
    leaf,
)
from vtd.layouts.descriptors import ContextCacheInvalidateDescriptor
from vtd.layouts.entries import (
    HostPermissionL1Entry,
    HostPermissionL2Entry,
    HostPermissionL3Entry,
    HostPermissionL4Entry,
    HostPermissionTableSize,
    PasidTranslationType,
    TranslationType,
)
from vtd.layouts.registers import ContextGranularity
from vtd.software.invalidation_rules import TABLES_28_AND_29, Rule

HPT_DOMAIN = 9


class Device:
    """A device that has a translation of page 0, and has used it."""

    def __init__(
        self, rig: Rig, table: TableBuilder, pasid: int | None, below: TableBuilder | None = None
    ) -> None:
        self.rig, self.table, self.pasid, self.below = rig, table, pasid, below or table
        rig.start()
        self.use()
        given = rig.port().translate(0, 1, pasid=pasid).entries[0]
        assert given.r
        self.address = given.address

    def use(self) -> None:
        """It reads, by the IOTLB or by tables, mapped and not."""
        for address in (0, 0x1000):
            self.rig.port().read(address, 4, pasid=self.pasid)

    def use_translation(self) -> bool:
        """Write by what it has in its device-TLB; whether that was let through."""
        return self.rig.port().write_translated(self.address, b"x", pasid=self.pasid).ok

    @property
    def entry(self) -> int:
        """Where its PASID entry is."""
        return PASIDS + (self.pasid or 0) * 64


def legacy() -> Device:
    rig = Rig(LEGACY, ecap={"dt": True})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12, tt=TranslationType.DEVICE_TLB)
    return Device(rig, table, None)


def scalable(kind: PasidTranslationType, pasid: int | None) -> Device:
    rig = Rig()
    table, below = rig.second() if kind is SECOND else rig.first(), None
    table.map(0, DATA, 0x1000)
    if kind is NESTED:
        below = rig.second()
        below.map(0, 0, DATA)
        below.map(DATA, DATA, 0x1000)
    rig.context()
    rig.pasid(pasid or 0, kind, table=table, below=below)
    return Device(rig, table, pasid, below)


def permitted(pasid: int | None) -> Device:
    """Its translated requests are held against a host permission table."""
    rig = Rig(ecap={"hpts": True, "ptrs": True})
    table = rig.first()
    table.map(0, DATA, 0x1000)
    rig.context(hpte=True, eptr=True)
    rig.pasid(pasid or 0, FIRST, table=table, hptptr=PERMISSIONS, hptdid=HPT_DOMAIN)
    l3, l2, l1 = (PERMISSIONS + (n << 12) for n in (1, 2, 3))
    rig.put(PERMISSIONS, HostPermissionL4Entry.of(av=True, addr=l3))
    rig.put(l3, HostPermissionL3Entry.of(av=True, addr=l2))
    rig.put(l2, HostPermissionL2Entry.of(av=True, addr=l1))
    rig.put(l1 + (DATA >> 17) * 16, HostPermissionL1Entry.of(pp=0x3333_3333))
    device = Device(rig, table, pasid)
    assert device.use_translation()
    return device


# Changes


def move_contexts(device: Device) -> None:
    device.rig.memory.load(OTHER, device.rig.memory.read(CONTEXTS, 0x1000))
    device.rig.root(OTHER)


def move_directory(device: Device) -> None:
    device.rig.memory.load(OTHER, device.rig.memory.read(DIRECTORY, 0x1000))
    device.rig.context(directory=OTHER)


def move_pasids(device: Device) -> None:
    device.rig.memory.load(OTHER, device.rig.memory.read(PASIDS, 0x1000))
    device.rig.directory(OTHER)


def other_legacy_tables(device: Device) -> None:
    root = device.rig.second().root << 12
    device.rig.context(ssptptr=root, did=1, tt=TranslationType.DEVICE_TLB)


def remove_legacy_entry(device: Device) -> None:
    device.rig.clear(CONTEXTS + DEVICE * 16, 16)


def remove_entry(device: Device) -> None:
    device.rig.memory.write(device.entry, bytes(8))


def set_fields(device: Device, **fields: int) -> None:
    record = device.rig.pasid_record(device.pasid or 0)
    device.rig.put(device.entry, record.replace(**fields))


def track_dirty(device: Device) -> None:
    set_fields(device, ssade=True)


def other_tables(device: Device) -> None:
    second = device.rig.pasid_record(device.pasid or 0).pgtt is SECOND
    table = device.rig.second() if second else device.rig.first()
    set_fields(device, **{"ssptptr" if second else "fsptptr": table.root << 12})


def snoop(device: Device) -> None:
    set_fields(device, pgsnp=True)


def unmap(device: Device) -> None:
    where, _ = leaf(device.rig, device.table, 0)
    device.rig.memory.write(where, bytes(8))


def unmap_below(device: Device) -> None:
    where, _ = leaf(device.rig, device.below, DATA)
    device.rig.memory.write(where, bytes(8))


def without_permissions(device: Device) -> None:
    device.rig.context(hpte=False, eptr=True)


def without_pasids(device: Device) -> None:
    device.rig.context(hpte=True, eptr=False)


def larger_permissions(device: Device) -> None:
    set_fields(device, hptsz=HostPermissionTableSize.SIZE_8K)


def moved_permissions(device: Device) -> None:
    device.rig.memory.load(OTHER, device.rig.memory.read(PERMISSIONS, 0x1000))
    set_fields(device, hptptr=OTHER)


def other_permissions(device: Device) -> None:
    set_fields(device, hptdid=HPT_DOMAIN + 1)


def fewer_permissions(device: Device) -> None:
    where = PERMISSIONS + 0x3000 + (DATA >> 17) * 16
    device.rig.put(where, HostPermissionL1Entry.of(pp=0x1111_1111))


def reuse(device: Device) -> None:
    """A newcomer with tables of its own gets the domain-id, and is the first to use it."""
    rig, table = device.rig, device.rig.second()
    table.map(0, DATA + 0x8000, 0x1000)
    if rig.scalable:
        rig.pasid(2, SECOND, table=table)
        rig.port().read(0, 4, pasid=2)
    else:
        rig.context(NEIGHBOUR, ssptptr=table.root << 12)
        rig.port(NEIGHBOUR).read(0, 4)
    device.use()


Act = Callable[[Device], None]


def leave_cache(device: Device) -> None:
    """Domain-selective, in the cache that has domain-ids."""
    if device.rig.scalable:
        device.rig.pc(1)
    else:
        granularity = ContextGranularity.DOMAIN
        device.rig.queue.submit(ContextCacheInvalidateDescriptor.of(g=granularity, did=1))


def device_tlb(device: Device) -> None:
    device.rig.device_tlb(device.pasid)


GIVE: dict[Rule, Act] = {
    Rule.ROOT_ENTRY_CONTEXT: lambda device: device.rig.cc(None),
    Rule.ROOT_ENTRY_PASID: lambda device: device.rig.pc(None),
    Rule.ROOT_ENTRY_IOTLB: lambda device: device.rig.iotlb(None),
    Rule.ROOT_ENTRY_DEVICE_TLB: device_tlb,
    Rule.CONTEXT_ENTRY_CONTEXT: lambda device: device.rig.cc(),
    Rule.CONTEXT_ENTRY_PASID: lambda device: device.rig.pc(1),
    Rule.CONTEXT_ENTRY_IOTLB: lambda device: device.rig.iotlb(1),
    Rule.CONTEXT_ENTRY_DEVICE_TLB: device_tlb,
    Rule.PASID_DIRECTORY_PASID: lambda device: device.rig.pc(1, device.pasid or 0),
    Rule.PASID_DIRECTORY_IOTLB: lambda device: device.rig.iotlb(1),
    Rule.PASID_DIRECTORY_DEVICE_TLB: device_tlb,
    Rule.PASID_ENTRY_PASID: lambda device: device.rig.pc(1, device.pasid or 0),
    Rule.PASID_ENTRY_DOMAIN_IOTLB: lambda device: device.rig.iotlb(1),
    Rule.PASID_ENTRY_IOTLB: lambda device: device.rig.pasid_iotlb(device.pasid or 0),
    Rule.PASID_ENTRY_DEVICE_TLB: device_tlb,
    Rule.DOMAIN_REUSE_CACHE: leave_cache,
    Rule.DOMAIN_REUSE_IOTLB: lambda device: device.rig.iotlb(1),
    Rule.DOMAIN_REUSE_DEVICE_TLB: device_tlb,
    Rule.FIRST_STAGE_IOTLB: lambda device: device.rig.pasid_iotlb(device.pasid or 0, 1, 0, ih=True),
    Rule.FIRST_STAGE_DEVICE_TLB: device_tlb,
    Rule.SECOND_STAGE_IOTLB: lambda device: device.rig.iotlb(
        1, 0 if device.below is device.table else DATA, ih=True
    ),
    Rule.SECOND_STAGE_DEVICE_TLB: device_tlb,
    Rule.HPT_CONTEXT: lambda device: device.rig.permissions(HPT_DOMAIN),
    Rule.HPT_PASID: lambda device: device.rig.permissions(HPT_DOMAIN),
    Rule.HPT_TABLES: lambda device: device.rig.permissions(HPT_DOMAIN, DATA),
}
"""The descriptor of each rule, as the tables print it."""


class Case(NamedTuple):
    """A change that a row is about; ``then`` is what happens once software has waited."""

    make: Callable[[], Device]
    change: Act
    then: Act = Device.use


def both(
    make: Callable[[int | None], Device], change: Act, then: Act = Device.use
) -> dict[str, Case]:
    """Of requests without PASID (RID_PASID), and of those with one."""
    return {
        name: Case(lambda pasid=pasid: make(pasid), change, then)  # type: ignore[misc]
        for name, pasid in (("RID_PASID", None), ("PASID 1", 1))
    }


def of_kinds(*kinds: PasidTranslationType, **changes: Act) -> dict[str, Case]:
    """Each of the changes, in each kind of translation."""
    return {
        f"{kind.name.lower()}, {name}, {whose}": case
        for kind in kinds
        for name, change in changes.items()
        for whose, case in both(partial(scalable, kind), change).items()
    }


CASES: dict[str, dict[str, Case]] = {
    "legacy: root entry": {"moved": Case(legacy, move_contexts)},
    "legacy: context entry": {
        "other tables": Case(legacy, other_legacy_tables),
        "removed": Case(legacy, remove_legacy_entry),
    },
    "legacy: domain-id used again": {"removed": Case(legacy, remove_legacy_entry, reuse)},
    "legacy: second-stage tables": {"unmapped": Case(legacy, unmap)},
    "scalable: root entry": of_kinds(SECOND, FIRST, moved=move_contexts),
    "scalable: context entry": of_kinds(SECOND, FIRST, moved=move_directory),
    "scalable: PASID directory entry": of_kinds(SECOND, FIRST, moved=move_pasids),
    "scalable: PASID entry with a second stage: P 1 to 0, or SSADE 0 to 1": {
        **of_kinds(SECOND, NESTED, P=remove_entry, SSADE=track_dirty),
        **of_kinds(SECOND, SSPTPTR=other_tables),
    },
    "scalable: PASID entry without a second stage: P 1 to 0": of_kinds(FIRST, P=remove_entry),
    "scalable: PASID entry: any other field": {
        **of_kinds(FIRST, NESTED, FSPTPTR=other_tables),
        **of_kinds(FIRST, SECOND, NESTED, PGSNP=snoop),
    },
    "scalable: domain-id used again": both(partial(scalable, SECOND), remove_entry, reuse),
    "scalable: first-stage tables": of_kinds(FIRST, NESTED, unmapped=unmap),
    "scalable: second-stage tables": {
        **of_kinds(SECOND, unmapped=unmap),
        **of_kinds(NESTED, unmapped=unmap_below),
    },
    "scalable: context entry: HPTE or EPTR 1 to 0": {
        **both(permitted, without_permissions),
        "EPTR": Case(partial(permitted, 1), without_pasids),
    },
    "scalable: PASID entry: HPTSZ, HPTPTR or HPTDID": {
        f"{name}, {whose}": case
        for name, change in (
            ("HPTSZ", larger_permissions),
            ("HPTPTR", moved_permissions),
            ("HPTDID", other_permissions),
        )
        for whose, case in both(permitted, change).items()
    },
    "scalable: host permission tables": both(permitted, fewer_permissions),
}
"""Other second-stage tables under the same domain-id cost the domain, as P does: p_iotlb_inv leaves
what is cached of second-stage tables (Table 24)."""
FIRST_OF_ALL = {
    "scalable: context entry: HPTE or EPTR 1 to 0": "scalable: context entry",
    "scalable: PASID entry: HPTSZ, HPTPTR or HPTDID": "scalable: PASID entry: any other field",
}
"""What rows of Table 29 come after: they add to what Table 28 says of the same entry."""
SAME = {
    Rule.DOMAIN_REUSE_CACHE: {Rule.CONTEXT_ENTRY_CONTEXT, Rule.PASID_ENTRY_PASID},
    Rule.DOMAIN_REUSE_DEVICE_TLB: {Rule.CONTEXT_ENTRY_DEVICE_TLB, Rule.PASID_ENTRY_DEVICE_TLB},
}
"""Rules that ask for the same when a domain-id is given up, before anybody uses it again."""
ROWS = {str(row): row for row in TABLES_28_AND_29}


def owed(row: str) -> tuple[Rule, ...]:
    return *(ROWS[FIRST_OF_ALL[row]].owed if row in FIRST_OF_ALL else ()), *ROWS[row].owed


KEPT = [
    pytest.param(case, owed(row), id=f"{row}: {name}")
    for row, cases in CASES.items()
    for name, case in cases.items()
]
BROKEN = [
    pytest.param(case, owed(row), rule, id=f"{row}: {name}: {rule.name}")
    for row, cases in CASES.items()
    for name, case in cases.items()
    for rule in ROWS[row].owed
]


def play(case: Case, rules: Sequence[Rule]) -> Device:
    """The change, invalidations, and the device goes on."""
    device = case.make()
    case.change(device)
    for rule in rules:
        GIVE[rule](device)
    device.rig.wait()
    case.then(device)
    return device


@pytest.mark.parametrize(("case", "rules", "forgotten"), BROKEN)
def test_an_invalidation_that_is_forgotten_is_named(
    case: Case, rules: tuple[Rule, ...], forgotten: Rule
) -> None:
    device = play(case, [rule for rule in rules if rule is not forgotten])
    if forgotten.descriptor == "hpt_inv":
        device.rig.port().translate(0, 1, pasid=device.pasid)
    device.use_translation()
    found = {debt.rule for debt in device.rig.audit.findings}
    assert found & {forgotten, *SAME.get(forgotten, ())}, [
        str(debt) for debt in device.rig.audit.findings
    ]


@pytest.mark.parametrize(("case", "rules"), KEPT)
def test_a_row_that_is_kept_is_silent(case: Case, rules: tuple[Rule, ...]) -> None:
    device = play(case, rules)
    assert [str(debt) for debt in device.rig.audit.findings] == []
    assert device.rig.silent


def test_each_row_has_its_cases() -> None:
    assert list(CASES) == list(ROWS)
    assert all(CASES.values())
