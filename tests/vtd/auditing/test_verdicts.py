"""What the audit says of drivers' mistakes, and that it is silent where they are mended."""

from __future__ import annotations

import re
import struct
from dataclasses import replace

import pytest

from devices.dma import PageRequest
from devices.interrupt_messages import RemappableAddress
from pagetables.build import TableBuilder
from tests.vtd.auditing.rig import (
    DATA,
    DEVICE,
    FIRST,
    INTERRUPTS,
    LEGACY,
    NEIGHBOUR,
    PASIDS,
    SECOND,
    Rig,
    leaf,
)
from vtd.auditing.debt import Kind
from vtd.auditing.page_request_audit import Wrong
from vtd.layouts.descriptors import PageGroupResponseDescriptor
from vtd.layouts.entries import PasidTranslationType
from vtd.layouts.interrupt_entries import RemappedIrte
from vtd.unit.caching.policy import AGGRESSIVE, POLICIES, CachePolicy

DIRTY = 1 << 9
MESSAGE = RemappableAddress.for_handle(5, shv=False)


def second_stage(
    *, size: int = 0x1000, ssade: bool = False, caches: CachePolicy = AGGRESSIVE
) -> tuple[Rig, TableBuilder]:
    rig = Rig(caches=caches)
    table = rig.second()
    table.map(0, 0x20_0000 if size > 0x1000 else DATA, size)
    rig.context()
    rig.pasid(0, SECOND, table=table, ssade=ssade)
    rig.start()
    return rig, table


def legacy() -> Rig:
    """A device in legacy mode that has used a page, and has another domain since."""
    rig = Rig(LEGACY)
    old, new = rig.second(), rig.second()
    old.map(0, DATA, 0x1000)
    new.map(0, DATA + 0x8000, 0x1000)
    rig.context(ssptptr=old.root << 12, did=7)
    rig.start()
    rig.port().read(0, 4)
    rig.context(ssptptr=new.root << 12, did=9)
    return rig


def clear_dirty(rig: Rig, table: TableBuilder) -> None:
    where, entry = leaf(rig, table, 0)
    rig.memory.load(where, (entry & ~DIRTY).to_bytes(8, "little"))


@pytest.mark.parametrize("paid", [True, False])
def test_a_use_is_in_the_window_if_the_invalidation_follows(paid: bool) -> None:
    rig, table = second_stage(ssade=True)
    port = rig.port()
    port.write(0, b"1")
    clear_dirty(rig, table)
    port.write(0, b"2")
    if paid:
        rig.iotlb(1, 0, ih=True)
    else:
        rig.iotlb(1, 0x5000, ih=True)
    rig.wait()
    port.write(0, b"3")
    kinds = [debt.kind for _, debt in rig.audit.judged()]
    assert kinds == [Kind.WINDOW if paid else Kind.MISSING]
    assert rig.silent is paid


@pytest.mark.parametrize("caches", POLICIES.values(), ids=POLICIES)
def test_rounds_of_dirty_flags_are_legal_whatever_a_unit_caches(caches: CachePolicy) -> None:
    """A unit without caches sets the flag again before the invalidation that software owes."""
    rig, table = second_stage(ssade=True, caches=caches)
    for _ in range(3):
        rig.port().write(0, b"1")
        clear_dirty(rig, table)
        rig.port().write(0, b"2")
        rig.iotlb(1, 0, ih=True)
        rig.wait()
    assert rig.silent


def test_an_invalidation_after_software_has_waited_is_too_late() -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0x5000)
    rig.wait()
    rig.port().read(0, 4)
    rig.iotlb(1, 0)
    rig.wait()
    assert rig.verdicts == ["missing"]


@pytest.mark.parametrize("in_order", [True, False])
def test_the_context_cache_is_invalidated_before_the_iotlb(in_order: bool) -> None:
    rig = legacy()
    if in_order:
        rig.cc(did=7)
        rig.iotlb(7)
    else:
        rig.iotlb(7)
        rig.cc(did=7)
    rig.wait()
    rig.port().read(0, 4)
    assert rig.verdicts == ([] if in_order else ["wrong order"])


def test_the_wrong_order_is_mended_by_another_invalidation() -> None:
    rig = legacy()
    rig.iotlb(7)
    rig.cc(did=7)
    rig.iotlb(7)
    rig.wait()
    rig.port().read(0, 4)
    assert rig.silent


@pytest.mark.parametrize("in_order", [True, False])
def test_the_iotlb_is_invalidated_before_the_device_tlb(in_order: bool) -> None:
    rig = Rig()
    table = rig.first()
    table.map(0, DATA, 0x1000)
    rig.context()
    rig.pasid(1, FIRST, table=table, did=3)
    rig.start()
    rig.port().translate(0, 1, pasid=1)
    table.unmap(0, 0x1000)
    if not in_order:
        rig.device_tlb(1)
    rig.pasid_iotlb(1, 3, 0)
    if in_order:
        rig.device_tlb(1)
    rig.wait()
    assert rig.verdicts == ([] if in_order else ["wrong order"])
    if not in_order:
        assert "p_dev_tlb_inv of 00:02.0" in str(rig.the_debt())


@pytest.mark.parametrize("waited", [True, False])
def test_a_page_is_used_again_after_waiting(waited: bool) -> None:
    rig, table = second_stage()
    rig.port().write(0, b"mine")
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    if waited:
        rig.wait()
    rig.memory.load(DATA, b"secret")
    rig.wait()
    assert rig.verdicts == ([] if waited else ["not waited for"])


@pytest.mark.parametrize("waited", [True, False])
def test_a_table_is_used_again_after_waiting(waited: bool) -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    entry = rig.memory.read_record(table.root << 12, 8)
    rig.memory.write(table.root << 12, bytes(8))
    rig.iotlb(1)
    if waited:
        rig.wait()
    rig.memory.write(entry & ~0xFFF, bytes(4096))
    rig.wait()
    assert rig.verdicts == ([] if waited else ["not waited for"])


def test_what_a_device_writes_is_no_use_by_software() -> None:
    rig, table = second_stage()
    rig.port().write(0, b"mine")
    other = rig.second()
    other.map(0, DATA, 0x1000)
    rig.pasid(1, SECOND, table=other, did=2)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    assert rig.port().write(0, b"theirs", pasid=1).ok
    rig.wait()
    assert rig.silent


@pytest.mark.parametrize("mask", [0, 9])
@pytest.mark.parametrize("kind", [FIRST, SECOND])
def test_a_large_page_needs_its_address_mask(kind: PasidTranslationType, mask: int) -> None:
    rig = Rig(caches=replace(AGGRESSIVE, fractured=False))
    table = rig.second() if kind is SECOND else rig.first()
    table.map(0, 0x20_0000, 0x20_0000)
    rig.context()
    rig.pasid(0, kind, table=table)
    rig.start()
    for page in (0, 5):
        rig.port().read(page << 12, 4)
    table.unmap(0, 0x20_0000)
    if kind is SECOND:
        rig.iotlb(1, 0, am=mask)
    else:
        rig.pasid_iotlb(0, 1, 0, am=mask)
    rig.wait()
    rig.port().read(0x5000, 4)
    assert rig.verdicts == ([] if mask else ["missing"])
    if not mask:
        assert "AM = 9" in rig.the_debt().missing


SPLIT = DATA + 0x1_0000
"""Where the table of a page that is split is."""


@pytest.mark.parametrize(
    ("bits", "is_legal"),
    [(0, True), (0x20_0000, False), (2, False), (DIRTY, False), (1 << 11, False)],
    ids=["only the size", "another frame", "fewer rights", "clean again", "snooped"],
)
@pytest.mark.parametrize("joined", [False, True])
def test_a_page_of_another_size_may_be_used_late_if_nothing_else_changed(
    bits: int, is_legal: bool, joined: bool
) -> None:
    rig, table = second_stage(size=0x20_0000, ssade=True)
    place, large = leaf(rig, table, 0)
    large |= DIRTY
    pages = [large & ~0x80 | page << 12 for page in range(512)]
    if joined:
        before, after = SPLIT | 3, large ^ bits
    else:
        before, after = large, SPLIT | 3
        pages[5] ^= bits
    rig.memory.write(SPLIT, struct.pack("<512Q", *pages))
    rig.memory.write(place, before.to_bytes(8, "little"))
    rig.iotlb(1)
    rig.wait()
    rig.port().write(0x5000, b"x")
    rig.memory.write(place, after.to_bytes(8, "little"))
    rig.iotlb(1, 0x9000)
    rig.wait()
    rig.port().write(0x5000, b"y")
    assert rig.verdicts == ([] if is_legal else ["missing"])


@pytest.mark.parametrize("mask", [0, 9])
def test_dirty_flags_of_a_large_page_need_its_address_mask(mask: int) -> None:
    rig, table = second_stage(size=0x20_0000, ssade=True)
    for page in (0, 5):
        rig.port().write(page << 12, b"x")
    clear_dirty(rig, table)
    rig.iotlb(1, 0, am=mask)
    rig.wait()
    rig.port().write(0x5000, b"y")
    assert rig.verdicts == ([] if mask else ["missing"])


def test_ssade_asks_for_the_domain() -> None:
    rig, table = second_stage()
    rig.port().write(0, b"x")
    rig.pasid(0, SECOND, table=table, ssade=True)
    rig.pc(1, 0)
    rig.port().write(0, b"y")
    assert rig.the_debt().missing == "domain-selective iotlb_inv of domain 1"
    rig.iotlb(1)
    rig.wait()
    assert rig.silent


@pytest.mark.parametrize("shared", [True, False])
def test_a_domain_id_for_two_tables_is_called_that(shared: bool) -> None:
    rig = Rig(LEGACY)
    one, two = rig.second(), rig.second()
    one.map(0, DATA, 0x1000)
    two.map(0, DATA + 0x1000, 0x1000)
    rig.context(ssptptr=one.root << 12, did=7)
    rig.context(NEIGHBOUR, ssptptr=two.root << 12, did=7 if shared else 8)
    rig.start()
    rig.port().read(0, 4)
    rig.port(NEIGHBOUR).read(0, 4)
    assert rig.verdicts == (["shared domain-id"] if shared else [])
    assert all("missing" not in str(debt) for debt in rig.audit.findings)


@pytest.mark.parametrize("caching_mode", [True, False])
def test_an_interrupt_entry_may_be_kept_as_absent_under_caching_mode(caching_mode: bool) -> None:
    rig = Rig("viommu", cap={"cm": caching_mode})
    rig.context()
    rig.start(interrupts=True)
    rig.port().write(MESSAGE, bytes(4))
    rig.put(INTERRUPTS + 5 * 16, RemappedIrte.of(p=True, v=0x55))
    rig.port().write(MESSAGE, bytes(4))
    assert rig.verdicts == (["missing"] if caching_mode else [])
    rig.iec(5)
    rig.wait()
    assert rig.silent


def test_an_interrupt_index_mask_has_to_cover_the_entries() -> None:
    for mask, verdicts in ((2, []), (0, ["missing"])):
        rig = Rig()
        rig.context()
        for index in (4, 5):
            rig.put(INTERRUPTS + index * 16, RemappedIrte.of(p=True, v=0x50 + index))
        rig.start(interrupts=True)
        rig.port().write(MESSAGE, bytes(4))
        for index in (4, 5):
            rig.put(INTERRUPTS + index * 16, RemappedIrte.of(p=True, v=0x60 + index))
        rig.iec(4, im=mask)
        rig.wait()
        rig.port().write(MESSAGE, bytes(4))
        assert rig.verdicts == verdicts


def test_what_is_never_paid_nor_used_is_unpaid() -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    rig.wait()
    assert set(rig.verdicts) == {"unpaid"}
    rig.iotlb(1)
    rig.wait()
    assert rig.silent


@pytest.mark.parametrize("bit", [2, 10, 52, 63])
def test_bits_that_hardware_ignores_open_no_debt(bit: int) -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    where, entry = leaf(rig, table, 0)
    rig.memory.load(where, (entry | 1 << bit).to_bytes(8, "little"))
    rig.wait()
    rig.port().read(0, 4)
    assert rig.silent


def test_fields_of_the_other_stage_open_no_debt() -> None:
    rig, _ = second_stage()
    rig.port().read(0, 4)
    rig.put(PASIDS, rig.pasid_record(0).replace(fsptptr=0x7000, wpe=True))
    rig.wait()
    rig.port().read(0, 4)
    assert rig.silent


def test_available_bits_of_a_context_entry_open_no_debt() -> None:
    rig = Rig(LEGACY)
    table = rig.second()
    table.map(0, DATA, 0x1000)
    rig.context(ssptptr=table.root << 12)
    rig.start()
    rig.port().read(0, 4)
    rig.context(ssptptr=table.root << 12, ign_70_67=5)
    rig.wait()
    rig.port().read(0, 4)
    assert rig.silent


def test_wasteful_invalidations_are_counted() -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    rig.iotlb(1, 0)
    table.unmap(0, 0x1000)
    rig.iotlb(2)
    rig.iotlb(1, 0)
    rig.wait()
    assert (rig.audit.descriptors, rig.audit.wasteful) == (3, 2)
    table.map(0, DATA, 0x1000)
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    rig.iotlb(1, 0)
    assert (rig.audit.descriptors, rig.audit.wasteful) == (4, 2)


def test_a_finding_names_the_calls_that_stored() -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    clear_leaf(rig, table)
    rig.port().read(0, 4)
    assert "by test_verdicts.py:" in str(rig.the_debt())
    assert "in clear_leaf < " in str(rig.the_debt())


def test_a_finding_names_the_callers_of_what_the_project_stored() -> None:
    rig, table = second_stage()
    rig.port().read(0, 4)
    table.unmap(0, 0x1000)
    rig.port().read(0, 4)
    by = re.compile(r" by build\.py:\d+ in _write < test_verdicts\.py:\d+ in test_")
    assert rig.audit.findings
    assert all(by.search(str(debt)) for debt in rig.audit.findings)


def clear_leaf(rig: Rig, table: TableBuilder) -> None:
    where, _ = leaf(rig, table, 0)
    rig.memory.write(where, bytes(8))


@pytest.mark.parametrize("waited", [True, False])
def test_a_domain_id_is_used_again_after_waiting(waited: bool) -> None:
    rig = Rig(LEGACY)
    old, new = rig.second(), rig.second()
    old.map(0, DATA, 0x1000)
    new.map(0, DATA, 0x1000)
    rig.context(ssptptr=old.root << 12, did=7)
    rig.start()
    rig.port().read(0, 4)
    rig.context(ssptptr=new.root << 12, did=8)
    rig.cc(did=7)
    rig.iotlb(7)
    if waited:
        rig.wait()
    rig.context(NEIGHBOUR, ssptptr=new.root << 12, did=7)
    rig.port(NEIGHBOUR).read(0, 4)
    assert rig.verdicts == ([] if waited else ["not waited for"])


@pytest.mark.parametrize("torn", [True, False])
def test_an_entry_that_is_torn_is_reported_with_its_store(torn: bool) -> None:
    rig, _ = second_stage()
    rig.port().read(0, 4)
    record = rig.pasid_record(0).replace(ssptptr=rig.second().root << 12, did=5).pack()
    rig.memory.write(PASIDS + 8, record[8:16])
    if torn:
        rig.memory.write(PASIDS, record[:8])
    rig.pc(1, 0)
    rig.pasid_iotlb(0, 1)
    rig.iotlb(1)
    rig.wait()
    assert rig.verdicts == (["torn"] if torn else [])


QUEUE_OF_REQUESTS, PAGE_REQUEST_HEAD, PAGE_REQUEST_TAIL = 0x9000, 0xC0, 0xC8


def requested(*, last: bool = True) -> Rig:
    """A device has asked for a page."""
    rig = Rig()
    table = rig.first()
    table.map(0x5000, DATA, 0x1000)
    rig.context()
    rig.pasid(1, FIRST, table=table, did=3)
    rig.start()
    rig.port().read(0x5000, 4, pasid=1)
    rig.unit.write_register(0xD0, 8, QUEUE_OF_REQUESTS)
    for offset in (PAGE_REQUEST_HEAD, PAGE_REQUEST_TAIL):
        rig.unit.write_register(offset, 8, 0)
    message = PageRequest(0, True, False, 7, last, pasid=1)
    assert rig.port().page_request(message).ok
    return rig


def respond(rig: Rig, group: int = 7) -> None:
    rig.queue.submit(PageGroupResponseDescriptor.of(rid=DEVICE, pp=True, pasid=1, prgi=group))


def test_a_response_answers_a_group_once() -> None:
    rig = requested()
    respond(rig)
    assert rig.silent
    respond(rig)
    respond(rig, 8)
    assert [finding.wrong for finding in rig.page_requests.findings] == [
        Wrong.TWICE,
        Wrong.NO_GROUP,
    ]


def test_a_response_waits_for_the_last_request() -> None:
    rig = requested(last=False)
    respond(rig)
    assert [finding.wrong for finding in rig.page_requests.findings] == [Wrong.EARLY]


@pytest.mark.parametrize(
    ("answered", "drained", "wrong"),
    [(True, True, None), (True, False, Wrong.IN_FLIGHT), (False, True, Wrong.UNDRAINED)],
)
def test_a_pasid_is_given_away_once_its_groups_are_answered_and_drained(
    answered: bool, drained: bool, wrong: Wrong | None
) -> None:
    rig = requested()
    other = rig.first()
    other.map(0x5000, DATA, 0x1000)
    if answered:
        respond(rig)
    rig.pasid(1, FIRST, table=other, did=4)
    rig.pc(3, 1)
    rig.pasid_iotlb(1, 3)
    rig.device_tlb(1)
    assert rig.queue.wait(drain_page_requests=drained)
    rig.port().read(0x5000, 4, pasid=1)
    assert [finding.wrong for finding in rig.page_requests.findings] == ([wrong] if wrong else [])
    assert rig.verdicts == (["page request"] if wrong else [])


@pytest.mark.parametrize("granted", [True, False])
def test_a_right_that_the_other_stage_denies_is_nothing_stale(granted: bool) -> None:
    rig = Rig()
    below, guest = rig.second(), rig.first()
    below.map(0, 0, DATA)
    below.map(DATA, DATA, 0x1000)
    guest.map(0, DATA, 0x1000)
    for table, address in ((guest, 0), *([] if granted else [(below, DATA)])):
        where, entry = leaf(rig, table, address)
        rig.memory.load(where, (entry & ~2).to_bytes(8, "little"))
    rig.context()
    rig.pasid(1, PasidTranslationType.NESTED, table=guest, below=below)
    rig.start()
    assert rig.port().read(0, 4, pasid=1).ok
    where, entry = leaf(rig, guest, 0)
    rig.memory.load(where, (entry | 2).to_bytes(8, "little"))
    assert not rig.port().write(0, b"x", pasid=1).ok
    assert rig.verdicts == (["missing"] if granted else [])
