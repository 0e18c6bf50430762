"""Device-TLBs and their driver: what misbehaviour the unit stops, and what only the audit sees.

Stopped by the unit: no answer, a late one or one under a wrong ITag (the wait descriptor does not
complete, so the page is not given away), use after the context entry forbids it, and any use that a
host permission table forbids. Seen by the audit alone: translations kept in spite of an answered
invalidation, addresses nobody gave, and a driver that forgets the device-TLB.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.ats import Misbehaviour
from devices.capabilities import ExtendedCapabilityId
from devices.device_tlb import DeviceTlb
from devices.models.dma_engine import Read, Via, Write
from pagetables.bits import BitRecord
from tests.support.device_tlb_platform import (
    PAGES,
    PASID,
    SOURCE_ID,
    Platform,
)
from tests.support.world import capabilities
from vtd.auditing.device_tlb_audit import Misuse
from vtd.layouts.descriptors import ContextCacheInvalidateDescriptor
from vtd.layouts.entries import PasidEntry, ScalableContextEntry
from vtd.layouts.registers import ContextGranularity, FaultStatus
from vtd.unit.caching.policy import POLICIES
from vtd.unit.options import Options
from vtd.unit.reporting.events import RequestBlocked

ADDRESS = 0x7000_0000

steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "read", "unmap"]),
        st.integers(0, 5),
        st.binary(min_size=1, max_size=8),
    ),
    max_size=30,
)


def status(platform: Platform) -> FaultStatus:
    return FaultStatus(platform.unit.read_register(0x34, 4))


@given(steps, st.sampled_from(sorted(POLICIES)), st.sampled_from([None, 0, 2]))
def test_an_honest_device_with_a_correct_driver_never_uses_stale_data(
    actions: list[tuple[str, int, bytes]], policy: str, capacity: int | None
) -> None:
    platform = Platform(options=Options(caches=POLICIES[policy]), tlb=DeviceTlb(capacity))
    contents: dict[int, bytes] = {}
    for action, number, data in actions:
        address = ADDRESS + number * 0x1000
        if action == "write":
            assert platform.write(address, data)
            contents[address] = data + contents.get(address, b"")[len(data) :]
        elif action == "read" and address in contents:
            assert platform.read(address, len(contents[address])) == contents[address]
        elif action == "unmap" and address in platform.mapped:
            assert platform.unmap(address)
            contents.pop(address, None)
        assert platform.intact()
    assert platform.audit.findings == []
    assert not status(platform)


def change(platform: Platform, where: int, record: type[BitRecord], **fields: int) -> None:
    """Software changes fields of a structure."""
    size = record.WIDTH // 8
    entry = record.unpack(platform.memory.read(where, size))
    platform.memory.write(where, entry.replace(**fields).pack())


def used(misbehaviour: Misbehaviour) -> Platform:
    """A platform whose engine has used ADDRESS once."""
    platform = Platform(misbehaviour=misbehaviour)
    platform.map(ADDRESS)
    assert platform.write(ADDRESS, b"mine")
    return platform


@pytest.mark.parametrize("misbehaviour", [Misbehaviour.IGNORE, Misbehaviour.DELAY])
def test_without_an_answer_the_page_is_not_given_away(misbehaviour: Misbehaviour) -> None:
    platform = used(misbehaviour)
    page = platform.mapped[ADDRESS]
    assert not platform.unmap(ADDRESS)
    assert page not in platform.free
    assert platform.write(ADDRESS, b"late")  # to a page that is still its own
    assert platform.audit.findings == []
    if misbehaviour is Misbehaviour.DELAY:
        platform.engine.ats.answer_delayed()
        assert platform.queue.complete
        platform.release(ADDRESS)
        assert platform.read(ADDRESS, 4) == bytes(4)  # a page of its own again, by page request
        assert platform.audit.findings == []
        return
    (itag,) = platform.unit.devices.outstanding
    platform.unit.devices.time_out(itag)
    assert status(platform).ite
    assert not platform.queue.complete
    platform.write(ADDRESS, b"more")
    assert [finding.misuse for finding in platform.audit.findings] == [Misuse.OUTDATED]


def test_a_second_answer_is_an_error_of_the_device() -> None:
    platform = used(Misbehaviour.ANSWER_TWICE)
    assert platform.unmap(ADDRESS)
    assert status(platform).ice
    assert platform.unit.read_register(0xB0, 8) >> 48 == SOURCE_ID
    assert platform.write(ADDRESS, b"new")
    assert platform.intact()
    assert platform.audit.findings == []


def test_an_answer_under_another_itag_completes_nothing() -> None:
    platform = used(Misbehaviour.ANSWER_WRONG_TAG)
    assert not platform.unmap(ADDRESS)
    assert status(platform).ice
    assert platform.unit.devices.pending


def test_entries_kept_after_an_answer_are_seen_by_the_audit_alone() -> None:
    platform = used(Misbehaviour.KEEP_ENTRIES)
    page = platform.mapped[ADDRESS]
    assert platform.unmap(ADDRESS)
    assert platform.write(ADDRESS, b"evil")
    assert platform.memory.read(page, 4) == b"evil"  # the unit let it through
    assert not status(platform)
    (finding,) = platform.audit.findings
    assert finding.misuse is Misuse.INVALIDATED
    assert finding.request.address == page
    assert str(finding) == (
        f"translated write of 01:01.0 at {page:#x} for {ADDRESS:#x}: the translation was "
        "invalidated, and the device said so (VT-d 4.2.5)"
    )


def test_forged_addresses_are_seen_by_the_audit_alone() -> None:
    platform = Platform(misbehaviour=Misbehaviour.FORGE_ADDRESS)
    victim = platform.free[-1]
    assert platform.write(victim, b"evil")
    assert platform.memory.read(victim, 4) == b"evil"
    (finding,) = platform.audit.findings
    assert finding.misuse is Misuse.NEVER_GIVEN
    assert str(finding).startswith("translated write of 01:01.0 at ")


def test_forged_addresses_are_blocked_by_a_host_permission_table() -> None:
    platform = Platform(
        capabilities(haw=52, mgaw=56, hpts=1), misbehaviour=Misbehaviour.FORGE_ADDRESS
    )
    change(platform, platform.structures.context_entry(SOURCE_ID), ScalableContextEntry, hpte=True)
    place = platform.structures.pasid_entry(SOURCE_ID, PASID)
    found = PasidEntry.unpack(platform.memory.read(place, 64))
    no_pasid = found.replace(hptptr=PAGES)  # an empty table, for requests without PASID
    platform.structures.add_pasid_table(SOURCE_ID, 0)
    platform.structures.store(platform.structures.pasid_entry(SOURCE_ID, 0), no_pasid)
    assert not platform.write(platform.free[-1], b"evil")
    (blocked,) = [event for event in platform.events if isinstance(event, RequestBlocked)]
    assert blocked.reason == 0xA4
    assert platform.audit.findings == []


def test_use_while_ats_is_disabled_ends_with_the_context_entry() -> None:
    platform = used(Misbehaviour.USE_WHILE_DISABLED)
    platform.control(ExtendedCapabilityId.ATS, 6, 0)
    assert platform.write(ADDRESS, b"more")
    change(
        platform,
        platform.structures.context_entry(SOURCE_ID),
        ScalableContextEntry,
        dte=False,
        pre=False,
    )
    platform.queue.submit(ContextCacheInvalidateDescriptor.of(g=ContextGranularity.GLOBAL))
    assert not platform.write(ADDRESS, b"evil")
    blocked = [event for event in platform.events if isinstance(event, RequestBlocked)]
    assert [event.reason for event in blocked] == [0x44]


def test_a_driver_that_forgets_the_device_tlb_is_found_by_the_audit() -> None:
    platform = used(Misbehaviour.NONE)
    page = platform.mapped[ADDRESS]
    platform.unmap(ADDRESS, invalidates=False)
    assert platform.write(ADDRESS, b"evil")
    assert platform.memory.read(page, 4) == b"evil"
    (finding,) = platform.audit.findings
    assert finding.misuse is Misuse.OUTDATED


def test_writes_need_a_translation_that_grants_them() -> None:
    platform = Platform()
    platform.map(ADDRESS, "r-")
    assert platform.read(ADDRESS, 4) == bytes(4)
    page = platform.mapped[ADDRESS]
    platform.engine.submit(
        Write(page, b"evil", via=Via.TRANSLATED), Read(page, 4, via=Via.TRANSLATED)
    )
    platform.engine.run()
    assert [finding.misuse for finding in platform.audit.findings] == [Misuse.NOT_GRANTED]
