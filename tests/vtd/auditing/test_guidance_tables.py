"""Tables 28 and 29, row by row: each invalidation forgotten alone is reported, and all given none.

VT-d 6.5.3.3 and 6.5.3.4. ``test_invalidation_rules.py`` has the rules that the rows come to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from pagetables.build import TableBuilder
from tests.vtd.auditing.rig import (
    CONTEXTS,
    DATA,
    DIRECTORY,
    FIRST,
    LEGACY,
    OTHER,
    PASIDS,
    SECOND,
    Rig,
    leaf,
)
from tests.vtd.auditing.test_invalidation_rules import CASES
from vtd.layouts.entries import PasidTranslationType, TranslationType
from vtd.software.invalidation_rules import Rule


class Device:
    """A device that has a translation of page 0, and has used it."""

    def __init__(self, rig: Rig, table: TableBuilder, pasid: int | None) -> None:
        self.rig, self.table, self.pasid = rig, table, pasid
        rig.start()
        self.use()
        given = rig.port().translate(0, 1, pasid=pasid).entries[0]
        assert given.r
        self.address = given.address

    def use(self) -> None:
        """It reads, by the IOTLB or by tables, mapped and not."""
        for address in (0, 0x1000):
            self.rig.port().read(address, 4, pasid=self.pasid)

    def use_translation(self) -> None:
        """What it has in its device-TLB."""
        self.rig.port().write_translated(self.address, b"x", pasid=self.pasid)


def legacy() -> Device:
    rig = Rig(LEGACY, ecap={"dt": True})
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12, tt=TranslationType.DEVICE_TLB)
    return Device(rig, table, None)


def scalable(kind: PasidTranslationType, pasid: int | None) -> Device:
    rig = Rig()
    table = rig.second() if kind is SECOND else rig.first()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(pasid or 0, kind, table=table)
    return Device(rig, table, pasid)


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


def at(device: Device) -> int:
    return PASIDS + (device.pasid or 0) * 64


def remove_entry(device: Device) -> None:
    device.rig.memory.write(at(device), bytes(8))


def track_dirty(device: Device) -> None:
    record = device.rig.pasid_record(device.pasid or 0)
    device.rig.put(at(device), record.replace(ssade=True))


def other_tables(device: Device) -> None:
    record = device.rig.pasid_record(device.pasid or 0)
    if record.pgtt is SECOND:
        record = record.replace(ssptptr=device.rig.second().root << 12)
    else:
        record = record.replace(fsptptr=device.rig.first().root << 12)
    device.rig.put(at(device), record)


def snoop(device: Device) -> None:
    record = device.rig.pasid_record(device.pasid or 0)
    device.rig.put(at(device), record.replace(pgsnp=True))


def unmap(device: Device) -> None:
    where, _ = leaf(device.rig, device.table, 0)
    device.rig.memory.write(where, bytes(8))


Give = Callable[[Device], None]


class Owed(NamedTuple):
    """An invalidation of a row, and what a finding has to name where it is forgotten."""

    name: str
    give: Give


CC = Owed("cc_inv", lambda device: device.rig.cc())
ALL_CC = Owed("cc_inv", lambda device: device.rig.cc(None))
ALL_PC = Owed("pc_inv", lambda device: device.rig.pc(None))
DOMAIN_PC = Owed("pc_inv", lambda device: device.rig.pc(1))
PC = Owed("pc_inv", lambda device: device.rig.pc(1, device.pasid or 0))
ALL_IOTLB = Owed("iotlb_inv", lambda device: device.rig.iotlb(None))
IOTLB = Owed("iotlb_inv", lambda device: device.rig.iotlb(1))
PAGE = Owed("iotlb_inv", lambda device: device.rig.iotlb(1, 0, ih=True))
PASID_IOTLB = Owed("p_iotlb_inv", lambda device: device.rig.pasid_iotlb(device.pasid or 0))
PASID_PAGE = Owed(
    "p_iotlb_inv", lambda device: device.rig.pasid_iotlb(device.pasid or 0, 1, 0, ih=True)
)
DEVICE_TLB = Owed("dev_tlb_inv", lambda device: device.rig.device_tlb(device.pasid))


class Row(NamedTuple):
    """A row of Table 28, in one mode and for one kind of user."""

    make: Callable[[], Device]
    change: Callable[[Device], None]
    owed: tuple[Owed, ...]


def both(
    kind: PasidTranslationType, change: Callable[[Device], None], *owed: Owed
) -> dict[str, Row]:
    """A row for requests without PASID (RID_PASID), and for those with one."""
    return {
        name: Row(lambda pasid=pasid: scalable(kind, pasid), change, owed)  # type: ignore[misc]
        for name, pasid in (("RID_PASID", None), ("PASID 1", 1))
    }


def named(row: str, rows: dict[str, Row]) -> dict[str, Row]:
    return {f"{row}: {name}": each for name, each in rows.items()}


ROWS = {
    "legacy root entry": Row(legacy, move_contexts, (ALL_CC, ALL_IOTLB, DEVICE_TLB)),
    "legacy context entry": Row(legacy, other_legacy_tables, (CC, IOTLB, DEVICE_TLB)),
    "legacy second-stage tables": Row(legacy, unmap, (PAGE, DEVICE_TLB)),
    **named(
        "scalable root entry",
        both(SECOND, move_contexts, ALL_CC, ALL_PC, ALL_IOTLB, DEVICE_TLB),
    ),
    **named(
        "scalable context entry", both(SECOND, move_directory, CC, DOMAIN_PC, IOTLB, DEVICE_TLB)
    ),
    **named("PASID directory entry", both(SECOND, move_pasids, PC, IOTLB, DEVICE_TLB)),
    **named("second stage, P 1 to 0", both(SECOND, remove_entry, PC, IOTLB, DEVICE_TLB)),
    **named("second stage, SSADE 0 to 1", both(SECOND, track_dirty, PC, IOTLB, DEVICE_TLB)),
    **named("first stage, P 1 to 0", both(FIRST, remove_entry, PC, PASID_IOTLB, DEVICE_TLB)),
    **named("first stage, other field", both(FIRST, other_tables, PC, PASID_IOTLB, DEVICE_TLB)),
    **named("second stage, other field", both(SECOND, snoop, PC, PASID_IOTLB, DEVICE_TLB)),
    **named("second stage, other tables", both(SECOND, other_tables, PC, IOTLB, DEVICE_TLB)),
    **named("first-stage tables", both(FIRST, unmap, PASID_PAGE, DEVICE_TLB)),
    **named("second-stage tables", both(SECOND, unmap, PAGE, DEVICE_TLB)),
}
"""Other tables under the same domain-id cost the domain: p_iotlb_inv leaves what is cached of
second-stage tables (Table 24)."""
ELSEWHERE = {
    "domain-id used again": (
        Rule.DOMAIN_REUSE_CACHE,
        Rule.DOMAIN_REUSE_IOTLB,
        Rule.DOMAIN_REUSE_DEVICE_TLB,
    ),
    "Table 29": (Rule.HPT_CONTEXT, Rule.HPT_PASID, Rule.HPT_TABLES),
}
"""Rows whose rules have a case each in ``test_invalidation_rules.py``."""
BROKEN = [
    pytest.param(row, number, id=f"{name}: {owed.name}")
    for name, row in ROWS.items()
    for number, owed in enumerate(row.owed)
]


def play(row: Row, forgotten: int | None) -> Device:
    """The change, its invalidations but one, and the device goes on."""
    device = row.make()
    row.change(device)
    for number, owed in enumerate(row.owed):
        if number != forgotten:
            owed.give(device)
    device.rig.wait()
    device.use()
    if forgotten is not None:
        device.use_translation()
    return device


@pytest.mark.parametrize(("row", "number"), BROKEN)
def test_an_invalidation_that_is_forgotten_is_named(row: Row, number: int) -> None:
    findings = play(row, number).rig.audit.findings
    missing = [debt.missing for debt in findings]
    assert any(row.owed[number].name in each for each in missing), missing


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_a_row_that_is_kept_is_silent(row: Row) -> None:
    device = play(row, None)
    assert [str(debt) for debt in device.rig.audit.findings] == []


def test_the_other_rows_have_their_cases() -> None:
    assert {rule for rules in ELSEWHERE.values() for rule in rules} <= set(CASES)
