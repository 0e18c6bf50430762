"""Single sentences of the specification that little else depends on."""

from collections.abc import Callable
from typing import Any

import pytest

from devices.dma import READ, WRITE, AddressType, CompletionStatus, PageRequest, Request
from tests.support.interrupt_world import (
    DESCRIPTOR,
    HOLE,
    POSTED,
    REMAPPED,
    WAITING,
    InterruptWorld,
)
from tests.support.world import HOST, PAGE, SECOND_TABLES, Mode, Started, World, capabilities
from vtd.layouts import descriptors as d
from vtd.layouts.entries import TranslationType
from vtd.layouts.registers import (
    ContextCommand,
    InvalidateAddress,
    IotlbInvalidate,
    RootTableAddress,
    TranslationTableMode,
)
from vtd.unit.interrupts.outcome import Posted
from vtd.unit.options import Options
from vtd.unit.reporting.events import RequestBlocked
from vtd.unit.requests.faults import FaultReason

FULL = capabilities(hpts=1, ptrs=1)


def reasons(started: Started) -> list[FaultReason]:
    """Why requests were blocked since the last time."""
    found = [event.reason for event in started.events if isinstance(event, RequestBlocked)]
    started.events.clear()
    return found


def answer(started: Started, request: Request) -> CompletionStatus:
    """How a request ends, apart from whether there is memory behind it."""
    admitted = started.unit.admit(request)
    return CompletionStatus.SUCCESS if isinstance(admitted, int) else admitted.status


def translation(started: Started, **changes: Any) -> CompletionStatus:
    """The status of a translation request for the address of the world."""
    asks = {"address_type": AddressType.TRANSLATION_REQUEST, "access": READ, "length": 8}
    return answer(started, started.world.request._replace(**{**asks, **changes}))


def translated(started: Started, **changes: Any) -> CompletionStatus:
    """The status of a translated read of host memory."""
    request = Request(started.world.source_id, HOST, READ, address_type=AddressType.TRANSLATED)
    return answer(started, request._replace(**changes))


def page_request(started: Started, pasid: int | None = None) -> bool:
    """Whether a page request was queued."""
    message = PageRequest(
        started.world.request.address, read=True, write=False, last=True, group_index=0, pasid=pasid
    )
    return started.port().page_request(message).ok


# Entries that met a fault condition are not cached (6.2.2, 6.2.3, 6.4)


def test_a_context_entry_that_refused_device_tlbs_is_not_cached() -> None:
    """LCT.5."""
    started = World(Mode.LEGACY).start()
    assert translation(started) is CompletionStatus.UNSUPPORTED_REQUEST
    started.world.change("context", tt=TranslationType.DEVICE_TLB)
    assert translation(started) is CompletionStatus.SUCCESS
    assert translated(started) is CompletionStatus.SUCCESS


def test_a_context_entry_whose_top_table_could_not_be_read_is_not_cached() -> None:
    """LCT.4.3 is a condition of the context entry."""
    for ask in (lambda started: started.admit(), translation):
        world = World(Mode.LEGACY)
        world.change("context", tt=TranslationType.DEVICE_TLB, ssptptr=0x8000_0000)
        started = world.start()
        ask(started)
        assert reasons(started) == [FaultReason.CONTEXT_INVALID]
        world.change("context", ssptptr=SECOND_TABLES)
        assert started.admit() == HOST | PAGE


def with_pasid(started: Started) -> int | None:
    return started.admit(started.world.request._replace(pasid=0x2045))


@pytest.mark.parametrize(
    ("field", "refusing", "ask", "reason"),
    [
        ("dte", False, translation, FaultReason.DEVICE_TLB_DISABLED),
        ("dte", False, translated, FaultReason.DEVICE_TLB_DISABLED),
        ("pre", False, page_request, FaultReason.PAGE_REQUEST_DISABLED),
        ("paside", False, with_pasid, FaultReason.PASID_DISABLED),
        ("pdts", 0, with_pasid, FaultReason.PASID_BEYOND_DIRECTORY),
        ("rid_pasid", 0x2045, with_pasid, FaultReason.PASID_IS_RID_PASID),
        (
            "eptr",
            False,
            lambda started: translated(started, pasid=0x2045),
            FaultReason.TRANSLATED_PASID_DISABLED,
        ),
    ],
)
def test_a_scalable_context_entry_that_refused_the_request_is_not_cached(
    field: str, refusing: int, ask: Callable[[Started], Any], reason: FaultReason
) -> None:
    """SCT.5 to SCT.10."""
    world = World(Mode.SECOND, FULL, pasid=None if field in ("dte", "pre") else 0x2045)
    world.ask(pasid=None)
    world.change("context", eptr=True, pre=field != "dte")
    allowing = getattr(world.get("context"), field)
    world.change("context", **{field: refusing})
    started = world.start()
    ask(started)
    assert reasons(started) == [reason]
    world.change("context", **{field: allowing})
    ask(started)
    assert reasons(started) == []


@pytest.mark.section("6.2.3")
def test_a_pasid_entry_that_refused_a_privileged_request_is_not_cached() -> None:
    """SPT.6."""
    world = World(Mode.FIRST, pasid=0x45)
    world.ask(privileged=True)
    started = world.start()
    assert started.refusal() is not None
    world.change("pasid", sre=True)
    assert started.admit() == HOST | PAGE


def test_a_pasid_entry_with_too_small_a_host_permission_table_is_not_cached() -> None:
    """SPT.9."""
    world = World(Mode.SECOND, capabilities(haw=52, hpts=1))
    world.change("context", hpte=True)
    started = world.start()
    translated(started, address=1 << 49)
    world.change("pasid", hptsz=1)
    translated(started, address=1 << 49)
    assert reasons(started) == [FaultReason.HPT_BEYOND_SIZE, FaultReason.HPT_READ_DENIED]


def test_an_entry_that_has_served_a_request_stays_cached_when_it_refuses_another() -> None:
    started = World(Mode.LEGACY).start()
    assert started.admit() == HOST | PAGE
    assert translation(started) is CompletionStatus.UNSUPPORTED_REQUEST
    started.world.change("context", tt=TranslationType.DEVICE_TLB)
    assert translation(started) is CompletionStatus.UNSUPPORTED_REQUEST


def test_an_interrupt_entry_that_rejected_the_requester_is_not_cached() -> None:
    world = InterruptWorld(entry=REMAPPED.replace(sid=0x0200))
    started = world.start(Options())
    assert started.send() is None
    world.put_entry(REMAPPED)
    assert started.send() is not None
    world.put_entry(REMAPPED.replace(p=False))
    assert started.send() is not None  # cached now


@pytest.mark.parametrize("reason", [0x27, 0x28])
def test_an_interrupt_entry_that_could_not_post_is_not_cached(reason: int) -> None:
    world = InterruptWorld(entry=POSTED.replace(pdal=HOLE) if reason == 0x27 else POSTED)
    world.put_descriptor(int(WAITING) | 1 << 260)
    started = world.start(Options())
    assert started.send() is None
    assert started.record().fr == reason
    world.put_entry(POSTED.replace(vv=0x52))
    world.put_descriptor(WAITING)
    outcome = started.send()
    assert isinstance(outcome, Posted)
    assert (outcome.descriptor, outcome.vector) == (DESCRIPTOR, 0x52)


# Root table pointer


def test_requests_with_pasid_meet_the_mode_and_not_ssirwe() -> None:
    """RTA.1.4 does not apply to requests with PASID; in legacy mode they meet RTA.2."""
    started = World(Mode.LEGACY).start()
    started.set_root(
        RootTableAddress.of(rta=started.world.root.rta, ttm=TranslationTableMode.LEGACY, ssirwe=1)
    )
    for pasid, reason, status in (
        (None, FaultReason.MODE_INVALID, CompletionStatus.COMPLETER_ABORT),
        (0x45, FaultReason.PASID_IN_LEGACY_MODE, CompletionStatus.UNSUPPORTED_REQUEST),
    ):
        assert started.admit(started.world.request._replace(pasid=pasid)) is None
        assert translation(started, pasid=pasid) is status
        assert reasons(started) == [reason, reason]


@pytest.mark.parametrize(
    ("ttm", "missing"),
    [(TranslationTableMode.SCALABLE, "smts"), (TranslationTableMode.ABORT_DMA, "adms")],
)
def test_a_mode_that_the_unit_has_not_stops_the_queue(
    ttm: TranslationTableMode, missing: str
) -> None:
    """11.4.9.9, IQEI 7: the value is invalid by RTA.1.1 or RTA.1.3."""
    started = World(Mode.LEGACY, capabilities(**{missing: 0})).start()
    started.set_root(RootTableAddress.of(rta=started.world.root.rta, ttm=ttm))
    started.enable_queue(wide=True)
    started.submit(d.InvalidationWaitDescriptor.of())
    assert started.queue_error == 7


# Fields of invalidations that hardware ignores in part


def remap_page(started: Started) -> None:
    """Let the page of the world be another one, without an invalidation."""
    assert started.admit() == HOST | PAGE
    started.world.change("second1", addr=HOST | PAGE + 0x1000)
    assert started.admit() == HOST | PAGE


@pytest.mark.parametrize("granularity", [2, 3])
@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
def test_bits_beyond_domain_ids_and_guest_addresses_are_ignored(
    mode: Mode, granularity: int
) -> None:
    """6.5.2.3: DID bits above the domain-id width, ADDR bits above MGAW."""
    world = World(mode, capabilities(nd=2, mgaw=47))
    started = world.start()
    started.enable_queue(wide=mode is Mode.SECOND)
    remap_page(started)
    started.submit(
        d.IotlbInvalidateDescriptor.of(
            g=granularity, did=0xAB05, addr=world.address & -0x1000 | 1 << 60
        )
    )
    assert started.admit() == HOST | PAGE + 0x1000


@pytest.mark.parametrize("granularity", [2, 3])
def test_so_are_they_in_the_registers(granularity: int) -> None:
    """11.4.6.3, 11.4.6.4."""
    world = World(Mode.LEGACY, capabilities(nd=2, mgaw=47))
    started = world.start()
    remap_page(started)
    offset = started.unit.capabilities.iotlb_offset
    address = InvalidateAddress.of(addr=world.address & -0x1000 | 1 << 60)
    started.unit.write_register(offset, 8, address)
    command = IotlbInvalidate.of(ivt=True, iirg=granularity, did=0xAB05)
    started.unit.write_register(offset + 8, 8, command)
    assert IotlbInvalidate(started.unit.read_register(offset + 8, 8)).iaig == granularity
    assert started.admit() == HOST | PAGE + 0x1000


@pytest.mark.parametrize("granularity", [2, 3])
def test_so_are_they_for_context_entries(granularity: int) -> None:
    """11.4.6.1."""
    started = World(Mode.LEGACY, capabilities(nd=2)).start()
    assert started.admit() == HOST | PAGE
    started.world.change("context", p=False)
    command = ContextCommand.of(icc=True, cirg=granularity, sid=started.world.source_id, did=0xAB05)
    started.unit.write_register(0x28, 8, command)
    started.unit.caches.invalidate_iotlb_global()
    assert started.admit() is None


@pytest.mark.parametrize("granularity", [0, 1])
def test_so_are_they_for_pasid_entries(granularity: int) -> None:
    """6.5.2.2, 6.5.2.4."""
    started = World(Mode.FIRST, capabilities(nd=2)).start()
    started.enable_queue(wide=True)
    assert started.admit() == HOST | PAGE
    started.world.change("pasid", p=False)
    started.submit(
        d.PasidCacheInvalidateDescriptor.of(g=granularity, did=0xAB05),
        d.PasidIotlbInvalidateDescriptor.of(
            g=2 + granularity, did=0xAB05, addr=started.world.address & -0x1000
        ),
    )
    assert started.admit() is None


def test_without_page_selective_invalidation_the_register_does_the_domain() -> None:
    """6.5.1.2 and 11.4.2, PSI; the descriptor is invalid (6.5.2.3)."""
    started = World(Mode.LEGACY, capabilities(psi=0, mamv=0)).start()
    remap_page(started)
    offset = started.unit.capabilities.iotlb_offset
    started.unit.write_register(offset, 8, InvalidateAddress.of(am=9))
    started.unit.write_register(offset + 8, 8, IotlbInvalidate.of(ivt=True, iirg=3, did=5))
    assert IotlbInvalidate(started.unit.read_register(offset + 8, 8)).iaig == 2
    assert started.admit() == HOST | PAGE + 0x1000
    started.enable_queue(wide=False)
    started.submit(d.IotlbInvalidateDescriptor.of(g=3, did=5))
    assert started.queue_error == 4


# Requests


def test_a_write_of_no_bytes_needs_write_permission_in_the_host_permission_table() -> None:
    """3.14 exempts reads only."""
    world = World(Mode.SECOND, FULL)
    world.change("context", hpte=True)
    world.change("pasid", hptptr=0x6000)
    for table in (0x6000, 0x9000, 0xA000):  # the entries of address 0 on levels 4, 3 and 2
        below = 0x9000 if table == 0x6000 else table + 0x1000
        world.memory.write(table + 8, (below | 1).to_bytes(8, "little"))
    world.memory.write(0xB000, bytes([READ]))
    started = world.start()
    assert translated(started, address=0, length=0) is CompletionStatus.SUCCESS
    translated(started, address=0, access=WRITE, length=0)
    assert reasons(started) == [FaultReason.HPT_WRITE_DENIED]


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_remapped_is_kept_from_protected_memory(version: int) -> None:
    """11.4.8.1: early units exempt requests other than pass-through and translated ones."""
    started = World(Mode.PASS_THROUGH, capabilities(version=version)).start()
    started.unit.write_register(0x70, 8, HOST)
    started.unit.write_register(0x78, 8, HOST)
    assert started.admit() is not None
    assert translated(started) is CompletionStatus.SUCCESS
    started.unit.write_register(0x64, 4, 1 << 31)
    assert started.admit() is None
    assert translated(started) is CompletionStatus.UNSUPPORTED_REQUEST
    assert started.status() == 0
