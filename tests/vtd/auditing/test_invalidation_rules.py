"""Every invalidation rule, by a driver that forgets it and by one that keeps it.

VT-d 6.5.3.3 (Table 28), 6.5.3.4 (Table 29), 6.5.2.8, 6.6 and 6.7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from devices.dma import SilentDevice
from devices.interrupt_messages import RemappableAddress
from pagetables.build import TableBuilder
from tests.vtd.auditing.rig import (
    CONTEXTS,
    DATA,
    DEVICE,
    DIRECTORY,
    FIRST,
    INTERRUPTS,
    NEIGHBOUR,
    OTHER,
    PASIDS,
    PERMISSIONS,
    ROOT,
    SECOND,
    Rig,
    leaf,
    legacy,
)
from vtd.layouts.entries import (
    HostPermissionL1Entry,
    HostPermissionL2Entry,
    HostPermissionL3Entry,
    HostPermissionL4Entry,
)
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.software.invalidation_rules import Rule

Case = Callable[[bool], Rig]
CASES: dict[Rule, Case] = {}
NO_ESRTPS = {"esrtps": False}


def case(rule: Rule) -> Callable[[Case], Case]:
    """A driver whose only mistake, unless the invalidation is ``given``, is against ``rule``."""

    def declare(function: Case) -> Case:
        CASES[rule] = function
        return function

    return declare


def scalable(kind: object = SECOND, *, pasid: int = 0, **cap: int) -> tuple[Rig, TableBuilder]:
    """A device in scalable mode that has used page 0, with its device-TLB for PASID 1."""
    rig = Rig(cap=cap, ecap={"hpts": True})
    table = rig.second() if kind is SECOND else rig.first()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(pasid, SECOND if kind is SECOND else FIRST, table=table)
    rig.start()
    assert rig.port().read(0, 4, pasid=pasid or None).ok
    return rig, table


def translated(*, pasid: int | None = 1) -> tuple[Rig, TableBuilder, int]:
    """As above, with a translation in the device-TLB: the address that it has."""
    rig, table = scalable(FIRST, pasid=pasid or 0)
    return rig, table, rig.port().translate(0, 1, pasid=pasid).entries[0].address


def other_context(rig: Rig) -> None:
    """The context entry of the device leads to an empty second stage of another domain."""
    rig.context(ssptptr=rig.second().root << 12, did=2)


def other_root(rig: Rig, *, address: int = 0x3_0000) -> None:
    """Root and context tables at another place, with the same contents."""
    rig.memory.load(address + 0x1000, rig.memory.read(CONTEXTS, 0x1000))
    root = rig.memory.read(ROOT, 0x1000)
    moved = int.from_bytes(root[:8], "little") & 0xFFF | address + 0x1000
    rig.memory.load(address, moved.to_bytes(8, "little") + root[8:])
    rig.set_root(address)


def root_pointer(given: bool, forgotten: str, profile: str) -> Rig:
    rig = legacy(**NO_ESRTPS)[0] if profile == "legacy" else scalable(esrtps=False)[0]
    other_root(rig)
    if given or forgotten != "cc":
        rig.cc(None)
    if profile != "legacy" and (given or forgotten != "pc"):
        rig.pc(None)
    if given or forgotten != "iotlb":
        rig.iotlb(None)
    rig.wait()
    rig.port().read(0, 4)
    rig.port().read(0x1000, 4)
    return rig


@case(Rule.ROOT_POINTER_CONTEXT)
def _(given: bool) -> Rig:
    return root_pointer(given, "cc", "legacy")


@case(Rule.ROOT_POINTER_PASID)
def _(given: bool) -> Rig:
    return root_pointer(given, "pc", "scalable")


@case(Rule.ROOT_POINTER_IOTLB)
def _(given: bool) -> Rig:
    return root_pointer(given, "iotlb", "legacy")


class PermittedRig(Rig):
    """One with the table whose pages a host permission table allows."""

    permitted: TableBuilder


def with_permissions() -> tuple[PermittedRig, int]:
    """A device whose translated requests a host permission table has to allow."""
    rig = PermittedRig(cap=NO_ESRTPS, ecap={"hpts": True})
    table = rig.permitted = rig.first()
    table.map(0, DATA, 0x1000)
    rig.context(hpte=True)
    rig.pasid(0, FIRST, table=table, hptptr=PERMISSIONS, hptdid=9)
    l3, l2, l1 = (PERMISSIONS + (n << 12) for n in (1, 2, 3))
    rig.put(PERMISSIONS, HostPermissionL4Entry.of(av=True, addr=l3))
    rig.put(l3, HostPermissionL3Entry.of(av=True, addr=l2))
    rig.put(l2, HostPermissionL2Entry.of(av=True, addr=l1))
    rig.put(l1 + (DATA >> 17) * 16, HostPermissionL1Entry.of(pp=0x3333_3333))
    rig.start()
    address = rig.port().translate(0, 1).entries[0].address
    assert rig.port().write_translated(address, b"x").ok
    return rig, address


@case(Rule.ROOT_POINTER_HPT)
def _(given: bool) -> Rig:
    rig, address = with_permissions()
    other_root(rig)
    rig.cc(None)
    rig.pc(None)
    rig.iotlb(None)
    if given:
        rig.permissions(9)
    rig.wait()
    rig.port().write_translated(address, b"y")
    return rig


@case(Rule.HPT_CONTEXT)
def _(given: bool) -> Rig:
    rig, address = with_permissions()
    rig.context(hpte=False)
    rig.cc()
    rig.pc(1)
    rig.iotlb(1)
    rig.device_tlb()
    if given:
        rig.permissions(9)
    rig.wait()
    rig.port().translate(0, 1)
    rig.port().write_translated(address, b"y")
    return rig


@case(Rule.HPT_PASID)
def _(given: bool) -> Rig:
    rig, address = with_permissions()
    rig.put(PASIDS, rig.pasid_record(0).replace(hptdid=10))
    rig.pc(1, 0)
    rig.pasid_iotlb(0)
    rig.device_tlb()
    if given:
        rig.permissions(9)
    rig.wait()
    rig.port().translate(0, 1)
    rig.port().write_translated(address, b"y")
    return rig


@case(Rule.HPT_TABLES)
def _(given: bool) -> Rig:
    rig, address = with_permissions()
    permit(rig, 0x1111_1111)
    if given:
        rig.permissions(9, DATA)
    rig.wait()
    rig.port().write_translated(address, b"y")
    return rig


@case(Rule.HPT_REDUCED)
def _(given: bool) -> Rig:
    """6.5.3.4: a device that still has the translation would meet a fault."""
    rig, _ = with_permissions()
    where, entry = leaf(rig, rig.permitted, 0)
    rig.memory.load(where, (entry & ~1).to_bytes(8, "little"))
    rig.pasid_iotlb(0, address=0)
    if given:
        rig.device_tlb(address=0)
        rig.wait()
    permit(rig, 0)
    rig.permissions(9, DATA)
    if not given:
        rig.device_tlb(address=0)
    rig.wait()
    return rig


def permit(rig: Rig, rights: int) -> None:
    """Change what a host permission table allows for the pages about DATA."""
    rig.put(PERMISSIONS + 0x3000 + (DATA >> 17) * 16, HostPermissionL1Entry.of(pp=rights))


@pytest.mark.parametrize("early", [False, True])
def test_permissions_are_invalidated_after_the_entries_that_lead_to_them(early: bool) -> None:
    """A stale context entry would have the cache filled again."""
    rig, _ = with_permissions()
    rig.context(hpte=False)
    if early:
        rig.permissions(9)
    rig.cc()
    rig.pc(1)
    rig.iotlb(1)
    rig.device_tlb()
    if not early:
        rig.permissions(9)
    rig.wait()
    found = [(debt.title, debt.section, debt.early) for debt in rig.audit.findings]
    assert found == ([("wrong order", "6.5.3.4", "hpt_inv")] if early else [])


def test_an_invalidation_on_its_way_to_the_device_counts() -> None:
    """Descriptors are in order; that the device takes its time is no fault of the driver."""
    rig, _ = with_permissions()
    rig.unit.attach(DEVICE, SilentDevice())
    where, entry = leaf(rig, rig.permitted, 0)
    rig.memory.load(where, (entry & ~1).to_bytes(8, "little"))
    permit(rig, 0)
    rig.pasid_iotlb(0, address=0)
    rig.device_tlb(address=0)
    rig.permissions(9, DATA)
    assert "wrong order" not in rig.verdicts


Owed = dict[str, Callable[[Rig], None]]
MOVES: dict[str, tuple[int, Callable[[Rig], None], Owed]] = {
    "root entry": (
        CONTEXTS,
        lambda rig: rig.root(OTHER),
        {
            "cc": lambda rig: rig.cc(None),
            "pc": lambda rig: rig.pc(None),
            "iotlb": lambda rig: rig.iotlb(None),
            "device-TLB": Rig.device_tlb,
        },
    ),
    "context entry": (
        DIRECTORY,
        lambda rig: rig.context(directory=OTHER),
        {
            "cc": Rig.cc,
            "pc": lambda rig: rig.pc(1),
            "iotlb": lambda rig: rig.iotlb(1),
            "device-TLB": Rig.device_tlb,
        },
    ),
    "directory entry": (
        PASIDS,
        lambda rig: rig.directory(OTHER),
        {
            "pc": lambda rig: rig.pc(1, 0),
            "iotlb": lambda rig: rig.iotlb(1),
            "device-TLB": Rig.device_tlb,
        },
    ),
}
"""A table of scalable mode, how an entry comes to lead to a copy of it, and what that owes."""


def table_moved(given: bool, entry: str, forgotten: str) -> Rig:
    """An entry leads to another table, with all that Table 28 asks for but one."""
    table, move, owed = MOVES[entry]
    rig, _ = scalable()
    rig.port().translate(0, 1)
    rig.memory.load(OTHER, rig.memory.read(table, 0x1000))
    move(rig)
    for name, give in owed.items():
        if given or name != forgotten:
            give(rig)
    rig.wait()
    rig.port().read(0, 4)
    rig.port().read(0x1000, 4)
    return rig


for _rule, _entry, _forgotten in (
    (Rule.ROOT_ENTRY_CONTEXT, "root entry", "cc"),
    (Rule.ROOT_ENTRY_PASID, "root entry", "pc"),
    (Rule.ROOT_ENTRY_IOTLB, "root entry", "iotlb"),
    (Rule.ROOT_ENTRY_DEVICE_TLB, "root entry", "device-TLB"),
    (Rule.CONTEXT_ENTRY_CONTEXT, "context entry", "cc"),
    (Rule.CONTEXT_ENTRY_PASID, "context entry", "pc"),
    (Rule.CONTEXT_ENTRY_IOTLB, "context entry", "iotlb"),
    (Rule.CONTEXT_ENTRY_DEVICE_TLB, "context entry", "device-TLB"),
    (Rule.PASID_DIRECTORY_PASID, "directory entry", "pc"),
    (Rule.PASID_DIRECTORY_IOTLB, "directory entry", "iotlb"),
    (Rule.PASID_DIRECTORY_DEVICE_TLB, "directory entry", "device-TLB"),
):
    CASES[_rule] = partial(table_moved, entry=_entry, forgotten=_forgotten)


def pasid_gone(given: bool, forgotten: str, *, kind: object = FIRST) -> Rig:
    """P of a PASID entry goes from 1 to 0, with all that Table 28 asks for but one."""
    rig, _ = scalable(kind, pasid=1)
    given_address = rig.port().translate(0, 1, pasid=1).entries[0].address
    rig.clear(PASIDS + 64, 8)
    if given or forgotten != "pc":
        rig.pc(1, 1)
    if given or forgotten != "iotlb":
        if kind is SECOND:
            rig.iotlb(1)
        else:
            rig.pasid_iotlb(1)
    if given or forgotten != "device-TLB":
        rig.device_tlb(1)
    rig.wait()
    rig.port().read(0, 4, pasid=1)
    if not given:
        rig.port().write_translated(given_address, b"x")
    return rig


@case(Rule.PASID_ENTRY_PASID)
def _(given: bool) -> Rig:
    return pasid_gone(given, "pc")


@case(Rule.PASID_ENTRY_IOTLB)
def _(given: bool) -> Rig:
    return pasid_gone(given, "iotlb")


@case(Rule.PASID_ENTRY_DOMAIN_IOTLB)
def _(given: bool) -> Rig:
    return pasid_gone(given, "iotlb", kind=SECOND)


@case(Rule.PASID_ENTRY_DEVICE_TLB)
def _(given: bool) -> Rig:
    return pasid_gone(given, "device-TLB")


def second_user(rig: Rig) -> None:
    """The domain-id of the first device is given to another one, with tables of its own."""
    table = rig.second()
    table.map(0, DATA + 0x8000, 0x1000)
    rig.context(NEIGHBOUR, ssptptr=table.root << 12, did=1)


@case(Rule.DOMAIN_REUSE_CACHE)
def _(given: bool) -> Rig:
    """The first device keeps its context entry in the cache although it has none any more."""
    rig, _ = legacy(**NO_ESRTPS)
    rig.clear(CONTEXTS + DEVICE * 16, 16)
    if given:
        rig.cc()
    rig.iotlb(1)
    rig.wait()
    second_user(rig)
    rig.port(NEIGHBOUR).read(0, 4)
    rig.port().read(0x1000, 4)
    return rig


@case(Rule.DOMAIN_REUSE_IOTLB)
def _(given: bool) -> Rig:
    """Tables of the first device are kept under the domain-id that the second one has now."""
    rig, _ = legacy(**NO_ESRTPS)
    rig.clear(CONTEXTS + DEVICE * 16, 16)
    rig.cc()
    if given:
        rig.iotlb(1)
    rig.wait()
    second_user(rig)
    rig.port(NEIGHBOUR).read(0, 4)
    return rig


@case(Rule.DOMAIN_REUSE_DEVICE_TLB)
def _(given: bool) -> Rig:
    """A device-TLB keeps what it had in the domain whose id another one gets."""
    rig, _ = scalable(SECOND)
    rig.port().translate(0, 1)
    rig.clear(PASIDS, 8)
    rig.pc(1)
    rig.iotlb(1)
    if given:
        rig.device_tlb()
    rig.wait()
    rig.pasid(2, SECOND, table=rig.second(), did=1)
    rig.port().read(0, 4, pasid=2)
    return rig


@case(Rule.FIRST_STAGE_IOTLB)
def _(given: bool) -> Rig:
    rig, table = scalable(FIRST, pasid=1)
    table.unmap(0, 0x1000)
    if given:
        rig.pasid_iotlb(1, 1, 0)
    rig.wait()
    rig.port().read(0, 4, pasid=1)
    return rig


@case(Rule.FIRST_STAGE_DEVICE_TLB)
def _(given: bool) -> Rig:
    rig, table, address = translated()
    table.unmap(0, 0x1000)
    rig.pasid_iotlb(1, 1, 0)
    if given:
        rig.device_tlb(1, address=0)
    rig.wait()
    if not given:
        rig.port().write_translated(address, b"x")
    return rig


@case(Rule.SECOND_STAGE_IOTLB)
def _(given: bool) -> Rig:
    rig, table = legacy(**NO_ESRTPS)
    table.unmap(0, 0x1000)
    if given:
        rig.iotlb(1, 0)
    rig.wait()
    rig.port().read(0, 4)
    return rig


@case(Rule.SECOND_STAGE_DEVICE_TLB)
def _(given: bool) -> Rig:
    rig, table = scalable(SECOND)
    address = rig.port().translate(0, 1).entries[0].address
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    if given:
        rig.device_tlb(address=0)
    rig.wait()
    if not given:
        rig.port().write_translated(address, b"x")
    return rig


INDEX = 5
MESSAGE = RemappableAddress.for_handle(INDEX, shv=False)


def interrupts(**cap: int) -> Rig:
    """A device whose interrupt 5 was remapped once."""
    rig = Rig(cap=cap)
    rig.put(INTERRUPTS + INDEX * 16, RemappedIrte.of(p=True, v=0x55))
    rig.context()
    rig.start(interrupts=True)
    assert rig.port().write(MESSAGE, bytes(4)).ok
    return rig


@case(Rule.INTERRUPT_POINTER)
def _(given: bool) -> Rig:
    rig = interrupts(esirtps=False)
    rig.memory.load(OTHER, rig.memory.read(INTERRUPTS, 0x1000))
    rig.unit.write_register(0xB8, 8, OTHER | 7)
    rig.unit.write_register(0x18, 4, rig.command.replace(sirtp=True))
    if given:
        rig.iec()
    rig.wait()
    rig.port().write(MESSAGE, bytes(4))
    return rig


@case(Rule.INTERRUPT_ENTRY)
def _(given: bool) -> Rig:
    rig = interrupts()
    rig.put(INTERRUPTS + INDEX * 16, RemappedIrte.of(p=True, v=0x56))
    if given:
        rig.iec(INDEX)
    rig.wait()
    rig.port().write(MESSAGE, bytes(4))
    return rig


RELATED = {
    # the change is one of a context entry, and no cache knows that its domain-id is given away
    Rule.DOMAIN_REUSE_CACHE: {Rule.CONTEXT_ENTRY_CONTEXT},
    Rule.DOMAIN_REUSE_DEVICE_TLB: {Rule.PASID_ENTRY_DEVICE_TLB},
}
"""Rules that say the same for what happened before."""


def test_every_rule_has_its_case() -> None:
    assert set(CASES) == set(Rule)


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_a_rule_that_is_broken_is_found(rule: Rule) -> None:
    found = {debt.rule for debt in CASES[rule](False).audit.findings}
    assert found & {rule, *RELATED.get(rule, ())}


@pytest.mark.parametrize("rule", Rule, ids=lambda rule: rule.name)
def test_a_rule_that_is_kept_is_no_finding(rule: Rule) -> None:
    rig = CASES[rule](True)
    assert rig.silent, [*map(str, rig.audit.findings), *map(str, rig.devices.findings)]
