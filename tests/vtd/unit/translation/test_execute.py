"""Requests with ER: refused by version 8 and up, and before that where ERS is clear."""

from __future__ import annotations

import pytest

from devices.dma import (
    EXECUTE_REQUESTED,
    NO_SNOOP,
    READ,
    WRITE,
    AddressType,
    CompletionStatus,
    DirectPort,
    PageRequest,
    Request,
)
from tests.support.world import HOST, PAGE, QUEUE, SCALABLE_MODES, Mode, World, capabilities
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.unit.requests.faults import FaultReason

FETCH = READ | EXECUTE_REQUESTED


@pytest.mark.parametrize("mode", SCALABLE_MODES)
@pytest.mark.parametrize("fpd", [False, True])
@pytest.mark.parametrize(("version", "code"), [(8, 0x34), (7, 0x5C)])
@pytest.mark.fault("RTA.5 u", "SPT.5 u")
def test_a_fetch_is_refused_whatever_is_cached(
    mode: Mode, version: int, code: int, fpd: bool
) -> None:
    world = World(mode, capabilities(version=version), pasid=0x45)
    started = world.start()
    assert started.admit() is not None
    world.change("pasid", fpd=fpd)
    started.unit.caches.clear()
    assert started.admit() is not None
    record = started.refusal(world.request._replace(access=FETCH))
    if fpd and code == 0x5C:
        assert record is None
    else:
        assert record is not None and record.fr == code
        assert record.exe and record.pp and record.pv == 0x45


@pytest.mark.parametrize(("version", "ers", "refused"), [(3, 1, False), (3, 0, True), (8, 1, True)])
def test_a_unit_that_serves_fetches_reads(version: int, ers: int, refused: bool) -> None:
    world = World(Mode.FIRST, capabilities(version=version, ers=ers), pasid=0x45)
    done = world.start().port().request(world.request._replace(access=FETCH, length=4))
    assert done.ok != refused
    assert len(done.data) == (0 if refused else 4)


@pytest.mark.parametrize(("version", "status"), [(8, "UR"), (7, "SC")])
@pytest.mark.fault("RTA.5 t", "SPT.5 t")
def test_translations_for_fetches(version: int, status: str) -> None:
    world = World(Mode.FIRST, capabilities(version=version), pasid=0x45)
    started = world.start()
    asks = AddressType.TRANSLATION_REQUEST
    asked = world.request._replace(access=FETCH, length=8, address_type=asks)
    given = started.port().request(asked)
    assert given.status is CompletionStatus(status)
    assert not any(entry.r or entry.w for entry in given.entries)
    assert started.record().f == (version == 8)  # 5Ch is a success without permission
    assert started.port().translate(world.address, pasid=0x45).entries[0].r


@pytest.mark.fault("RTA.5 d")
def test_translated_fetches_are_refused_by_version_8_alone() -> None:
    for version, passes in ((7, True), (8, False)):
        world = World(Mode.FIRST, capabilities(version=version, ptrs=1), pasid=0x45)
        world.change("context", eptr=True)
        request = Request(
            world.source_id, HOST, FETCH, 4, 0x45, address_type=AddressType.TRANSLATED
        )
        started = world.start()
        assert started.port().request(request).ok == passes
        assert started.record().fr == (0 if passes else 0x34)


def test_other_faults_of_a_fetch_say_so_too_and_those_of_a_plain_read_after_it_do_not() -> None:
    world = World(Mode.FIRST, capabilities(version=3, ers=1), pasid=0x45)
    world.change("first1", p=False)
    started = world.start()
    for access, exe in ((FETCH, True), (READ, False)):
        record = started.refusal(world.request._replace(access=access))
        assert record is not None
        assert (record.fr, record.exe) == (FaultReason.FS_NOT_PRESENT, exe)
        started.clear_records()


def test_spt_5_is_met_after_the_conditions_of_the_entry_and_before_the_missing_sre() -> None:
    world = World(Mode.FIRST, capabilities(version=7), pasid=0x45)
    asked = world.request._replace(access=FETCH, privileged=True)
    record = world.start().refusal(asked)
    assert record is not None and record.fr == FaultReason.EXECUTE_UNSUPPORTED
    world.change("pasid", p=False)
    record = world.start().refusal(asked)
    assert record is not None and record.fr == FaultReason.PASID_NOT_PRESENT


def test_legacy_mode_refuses_the_pasid_first() -> None:
    for version in (7, 8):
        world = World(Mode.LEGACY, capabilities(version=version))
        record = world.start().refusal(world.request._replace(access=FETCH, pasid=1))
        assert record is not None and record.fr == FaultReason.PASID_IN_LEGACY_MODE


def test_without_translation_er_is_ignored_with_the_rest_of_the_prefix() -> None:
    world = World(Mode.FIRST, capabilities(version=8), pasid=0x45)
    started = world.start()
    started.command(te=False)
    assert started.port().request(Request(world.source_id, HOST, FETCH, 4, 0x45)).ok


def test_er_can_be_sent_with_a_pasid_and_a_read_only_and_no_snoop_with_plain_transfers() -> None:
    plain = Request(1, 0, READ, 4)
    assert not plain._replace(access=FETCH).well_formed
    assert not plain._replace(access=WRITE | EXECUTE_REQUESTED, pasid=1).well_formed
    assert plain._replace(access=FETCH, pasid=1).well_formed
    assert plain._replace(access=WRITE | NO_SNOOP).well_formed
    assert not plain._replace(access=NO_SNOOP).well_formed
    assert plain._replace(access=FETCH, pasid=1, length=0).zero_length_read


@pytest.mark.parametrize("length", [4, 0x3000])
def test_requests_that_need_not_be_snooped_go_where_others_go(length: int) -> None:
    world = World(Mode.SECOND)
    port, data = world.start().port(), bytes(range(1, 5)) * (length // 4)
    for each in (port, DirectPort(world.memory)):
        address = world.address if each is port else HOST | PAGE
        write = Request(world.source_id, address, WRITE | NO_SNOOP, length, payload=data)
        assert each.request(write).ok
        read = Request(world.source_id, address, READ | NO_SNOOP, length)
        assert each.request(read).data == data
    assert world.memory.read(HOST | PAGE, length) == data


@pytest.mark.parametrize(("read", "pasid", "exr"), [(True, 0x45, True), (False, 0x45, False)])
def test_page_requests_say_that_the_page_is_to_be_executed(
    read: bool, pasid: int, exr: bool
) -> None:
    world = World(Mode.FIRST, pasid=pasid)
    world.change("context", pre=True)
    started = world.start()
    started.unit.write_register(0xD0, 8, QUEUE)
    asked = PageRequest(world.address, read, True, 1, True, pasid, execute=True)
    assert started.port().page_request(asked).ok
    written = PageRequestDescriptor.unpack(world.memory.read(QUEUE, 32))
    assert (written.exr, written.rdr) == (exr, read)
