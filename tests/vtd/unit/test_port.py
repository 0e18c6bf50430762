"""The port of a requester: transfers page by page, the interrupt range, atomics, no memory."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import dma
from devices.dma import AddressType, Atomic, AtomicOp, Completion, CompletionStatus, Request
from devices.peer import PeerSpace
from tests.support.world import HOLE, HOST, INTERRUPTS, PAGE, Mode, Started, World, capabilities
from vtd.unit.observer import Observer
from vtd.unit.port import UnitPort
from vtd.unit.reporting.events import InterruptBlocked, InterruptDelivered, RequestBlocked
from vtd.unit.requests.faults import FaultReason

UR = CompletionStatus.UNSUPPORTED_REQUEST
FOUR_PAGES = range(PAGE, PAGE + 0x4000, 0x1000)


def start(mode: Mode = Mode.SECOND) -> Started:
    """Four pages in a row are mapped, to host memory in the opposite order."""
    world = World(mode)
    for page, target in zip(FOUR_PAGES, reversed(FOUR_PAGES), strict=True):
        name = "second1" if page == PAGE else f"second1 {page:#x}"
        world.change(name, addr=HOST | target)
    for index, target in enumerate(reversed(FOUR_PAGES)):
        world.memory.write(HOST | target, bytes([index + 1]) * 0x1000)
    return world.start()


@pytest.mark.section("3.13")
def test_each_page_of_a_read_is_translated_for_itself() -> None:
    started = start()
    address = started.world.address + 0xFFE
    assert started.port().read(address, 0x1004) == Completion(
        CompletionStatus.SUCCESS, b"\1\1" + b"\2" * 0x1000 + b"\3\3"
    )


def test_every_page_has_a_translation_of_its_own_that_is_used_until_it_is_invalidated() -> None:
    world = World(Mode.PASS_THROUGH)
    pages = range(0x1000, 0x20000, 0x1000)
    for page in pages:
        world.memory.load(page | 0xFF8, page.to_bytes(8, "little"))
    started = world.start()
    port, counters = started.port(), started.unit.caches.iotlb.counters
    for _ in range(2):
        for page in pages:
            assert port.read(page | 0xFF8, 8).data == page.to_bytes(8, "little")
    assert (counters.misses, counters.hits) == (len(pages), len(pages))


@pytest.mark.section("3.13")
def test_a_write_reaches_every_page_that_lets_it() -> None:
    started = start()
    world = started.world
    world.change(f"second1 {PAGE + 0x1000:#x}", w=False)
    outcome = started.port().write(world.address + 0xFFF, b"a" + b"b" * 0x1000 + b"c")
    assert outcome.status is UR
    assert world.memory.read(HOST | PAGE + 0x3FFF, 1) == b"a"
    assert world.memory.read(HOST | PAGE + 0x2000, 4) == b"\2" * 4
    assert world.memory.read(HOST | PAGE + 0x1000, 1) == b"c"
    (event,) = started.events
    assert isinstance(event, RequestBlocked)
    assert event.request.address == world.address + 0x1000


def test_a_read_that_is_refused_part_of_the_way_gives_no_data() -> None:
    started = start()
    started.world.change(f"second1 {PAGE + 0x1000:#x}", r=False)
    assert started.port().read(started.world.address, 0x2000) == Completion(UR)
    assert started.port().read(started.world.address, 0x1000).ok


def test_the_first_refusal_is_the_outcome_of_a_write() -> None:
    started = start()
    assert started.port().write(started.world.address - 0x1000, bytes(0x2000)).status is UR
    assert len(started.events) == 1


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
@pytest.mark.section("3.14")
def test_a_zero_length_read_of_a_write_only_page_succeeds(mode: Mode) -> None:
    for zlr in (0, 1):
        world = World(mode, capabilities(zlr=zlr))
        world.change("second1", r=False)
        started = world.start()
        port = started.port()
        assert port.read(world.address, 0).ok == bool(zlr)
        assert not port.read(world.address, 1).ok
        assert port.write(world.address, b"x").ok
        assert port.read(world.address, 0).ok == bool(zlr)


@pytest.mark.parametrize(
    ("op", "operands", "after"),
    [
        (AtomicOp.FETCH_ADD, b"\2\0\0\0", b"\3\1\1\1\1\1\1\1"),
        (AtomicOp.SWAP, bytes(8), bytes(8)),
        (AtomicOp.CAS, b"\1" * 8 + b"\7" * 8, b"\7" * 8),
        (AtomicOp.CAS, b"\2" * 8 + b"\7" * 8, b"\1" * 8),
    ],
)
def test_an_atomic_answers_with_what_was_there(op: AtomicOp, operands: bytes, after: bytes) -> None:
    started = start()
    outcome = started.port().atomic(op, started.world.address, operands)
    assert outcome == Completion(CompletionStatus.SUCCESS, b"\1" * op.size(operands))
    assert started.world.memory.read(HOST | PAGE + 0x3000, 8) == after


@pytest.mark.parametrize("rights", [{"r": False}, {"w": False}])
def test_an_atomic_needs_both_rights(rights: dict[str, bool]) -> None:
    started = start()
    started.world.change("second1", **rights)
    assert started.port().atomic(AtomicOp.SWAP, started.world.address, bytes(4)).status is UR


@pytest.mark.parametrize("offset", [1, 2, 0xFFC, 0xFFE])
def test_an_atomic_that_is_not_aligned_is_refused(offset: int) -> None:
    started = start()
    world = started.world
    before = world.memory.read(HOST | PAGE, 0x4000)
    outcome = started.port().atomic(AtomicOp.SWAP, world.address + offset, b"\xff" * 8)
    assert outcome.status is UR
    assert world.memory.read(HOST | PAGE, 0x4000) == before


@given(
    st.sampled_from([dma.WRITE, dma.ATOMIC]),
    st.integers(0, 16),
    st.one_of(
        st.none(),
        st.binary(max_size=16),
        st.builds(Atomic, st.sampled_from(AtomicOp), st.binary(max_size=16)),
    ),
    st.booleans(),
)
def test_a_request_that_does_not_carry_what_its_length_says_changes_nothing(
    access: int, length: int, payload: bytes | Atomic | None, on: bool
) -> None:
    started = start()
    world = started.world
    started.command(te=on)
    before = world.memory.snapshot()
    target = world.address if on else HOST | PAGE
    if isinstance(payload, bytes):
        carried = len(payload)
    else:
        carried = payload.op.size(payload.operands) if payload and payload.is_of(length) else -1
    request = Request(world.source_id, target, access, length, payload=payload)
    outcome = started.port().request(request)
    assert outcome.ok == (carried == length)
    assert outcome.ok or world.memory.snapshot() == before
    for address in (INTERRUPTS, HOLE):
        assert not started.port().request(request._replace(address=address, length=0)).data


def test_no_memory_behind_a_translation_is_an_unsupported_request() -> None:
    started = start()
    started.world.change("second1", addr=HOLE)
    port, address = started.port(), started.world.address
    assert port.read(address, 4).status is UR
    assert port.write(address, b"abcd").status is UR
    assert port.atomic(AtomicOp.SWAP, address, bytes(4)).status is UR
    assert started.events == []


def test_addresses_are_physical_while_translation_is_off() -> None:
    started = start()
    started.command(te=False)
    port = started.port()
    assert port.read(HOST | PAGE, 2).data == b"\4\4"
    assert port.read(HOST | PAGE, 2, pasid=5).data == b"\4\4"
    assert port.read(started.world.address, 2).status is UR
    assert port.write(HOST | PAGE, b"ab").ok
    assert started.world.memory.read(HOST | PAGE, 2) == b"ab"
    assert started.events == []


def test_pasid_and_privilege_reach_the_unit() -> None:
    world = World(Mode.FIRST, pasid=0x45)
    world.change("pasid", sre=True)
    world.change("first1", us=False)
    started = world.start()
    port, address = started.port(), world.address
    assert port.read(address, 4, pasid=0x45, privileged=True).ok
    assert port.write(address, b"abcd", pasid=0x45, privileged=True).ok
    assert port.atomic(AtomicOp.SWAP, address, b"efgh", pasid=0x45, privileged=True).data == b"abcd"
    assert not port.read(address, 4, pasid=0x45).ok
    assert not port.read(address, 4).ok


@pytest.mark.section("3.15")
def test_four_bytes_to_the_interrupt_range_are_an_interrupt() -> None:
    started = World(Mode.PASS_THROUGH).start()
    assert started.port().write(INTERRUPTS | 0x3000, (0x41).to_bytes(4, "little")).ok
    (event,) = started.events
    assert isinstance(event, InterruptDelivered)


def test_a_transfer_into_the_interrupt_range_is_cut_before_it() -> None:
    world = World(Mode.PASS_THROUGH)
    world.memory.add_region(INTERRUPTS - 0x1000, 0x2000)
    started = world.start()
    assert not started.port().write(INTERRUPTS - 2, b"abcde").ok
    assert world.memory.read(INTERRUPTS - 2, 4) == b"ab\0\0"
    (event,) = started.events
    assert isinstance(event, InterruptBlocked)
    assert event.reason is FaultReason.IR_NOT_AN_INTERRUPT


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.section("3.15")
def test_other_accesses_to_the_interrupt_range_are_blocked(enabled: bool) -> None:
    world = World(Mode.PASS_THROUGH)
    world.memory.add_region(INTERRUPTS, 0x1000)
    started = world.start()
    started.command(te=enabled)
    port = started.port()
    assert port.read(INTERRUPTS, 0).ok
    assert not port.read(INTERRUPTS, 4).ok
    assert not port.write(INTERRUPTS, bytes(8)).ok
    assert not port.write(INTERRUPTS, b"").ok
    assert not port.atomic(AtomicOp.SWAP, INTERRUPTS, bytes(4)).ok
    assert not port.read(INTERRUPTS, 1).ok
    assert {type(event) for event in started.events} == {InterruptBlocked}


def test_with_a_pasid_the_interrupt_range_is_translated() -> None:
    world = World(Mode.FIRST, pasid=0x45, high=3)
    started = world.start()
    assert started.port().write(INTERRUPTS, bytes(4), pasid=0x45).status is UR
    (event,) = started.events
    assert isinstance(event, RequestBlocked)
    assert event.reason is FaultReason.FS_NOT_PRESENT


@pytest.mark.parametrize("mode", Mode)
def test_transfers_reach_the_page_every_time(mode: Mode) -> None:
    world = World(mode)
    started = world.start()
    port = started.port()
    there, elsewhere = world.address | 0x120, world.address ^ 1 << 38
    for number in range(3):
        before, after = bytes([number] * 4), bytes([number + 1] * 4)
        assert port.read(there, 4).data == before
        assert port.write(there, b"\xff" * 4).ok
        assert world.memory.read(HOST | PAGE | 0x120, 4) == b"\xff" * 4
        assert port.atomic(AtomicOp.SWAP, there, after).data == b"\xff" * 4
        assert world.memory.read(HOST | PAGE | 0x120, 4) == after
        for outcome in (
            port.read(elsewhere, 4),
            port.write(elsewhere, before),
            port.atomic(AtomicOp.SWAP, elsewhere, before),
        ):
            assert outcome.status is UR


@given(
    st.lists(
        st.tuples(st.integers(0, 0x4FFF), st.integers(1, 3), st.sampled_from([0, 1, 4, 0x1003])),
        max_size=30,
    )
)
def test_transfers_are_the_same_with_and_without_what_is_cached(
    steps: list[tuple[int, int, int]],
) -> None:
    fast, slow = start(), start()
    for started in (fast, slow):
        started.world.change(f"second1 {PAGE + 0x1000:#x}", w=False)
        started.world.change(f"second1 {PAGE + 0x2000:#x}", r=False)
    ports = fast.port(), slow.port()
    for number, (offset, access, length) in enumerate(steps):
        address, data = fast.world.address + offset, bytes([number + 5]) * length
        outcomes = []
        for port in ports:
            slow.unit.caches.clear()
            match access:
                case dma.READ:
                    outcomes.append(port.read(address, length))
                case dma.WRITE:
                    outcomes.append(port.write(address, data))
                case _:
                    operand = bytes([number + 5] * 4)
                    outcomes.append(port.atomic(AtomicOp.SWAP, address & ~3, operand))
        assert outcomes[0] == outcomes[1]
    assert fast.world.memory.snapshot() == slow.world.memory.snapshot()
    assert [event.reason for event in fast.events if isinstance(event, RequestBlocked)] == [
        event.reason for event in slow.events if isinstance(event, RequestBlocked)
    ]


GUEST = World(Mode.SECOND).guest
ANY_REQUEST = st.builds(
    Request,
    st.just(0),
    st.builds(
        operator.add,
        st.sampled_from([*(GUEST | page for page in FOUR_PAGES), 0x9000, INTERRUPTS]),
        st.integers(0, 8) | st.integers(0xFF0, 0xFFF),
    ),
    st.integers(-1, 9),
    st.sampled_from([-1, 0, 1, 4, 8, 16, 0xFFF, 0x1001, 0x2000]),
    st.sampled_from([None, None, 0, 3, -1, 1 << 20, 1 << 40]),
    st.booleans(),
    st.sampled_from(AddressType),
    st.sampled_from([None, b"", b"1234", b"x" * 0xFFF, b"y" * 0x2000])
    | st.builds(Atomic, st.sampled_from(AtomicOp), st.sampled_from([b"1234", b"12345678", b"5"])),
)
"""Requests of every kind, most of which no requester can send."""


@given(st.lists(ANY_REQUEST, max_size=12))
def test_a_request_that_nobody_can_send_reaches_only_what_is_mapped(
    requests: list[Request],
) -> None:
    plain, watched = start(), start()
    for started in (plain, watched):
        started.world.change(f"second1 {PAGE + 0x1000:#x}", w=False)
        started.port().read(started.world.address, 0x4000)
    watched.unit.observe(Observer())
    ports = plain.port(), watched.port()
    memory = plain.world.memory
    kept = [HOST | PAGE + 0x2000, HOST | PAGE + 0x4000, HOST | PAGE - 0x1000, 0]
    before = [memory.read(page, 0x1000) for page in kept]
    for request in requests:
        answers = [port.request(request) for port in ports]
        assert answers[0] == answers[1]
        known = request.access in (dma.READ, dma.WRITE, dma.ATOMIC, dma.MESSAGE)
        if not known or request.length < 0 or (request.pasid or 0) >> 20:
            assert answers[0].status is UR
    assert [memory.read(page, 0x1000) for page in kept] == before
    assert memory.snapshot() == watched.world.memory.snapshot()
    assert plain.unit.caches.iotlb.counters == watched.unit.caches.iotlb.counters


def test_an_atomic_that_carries_bytes_does_not_leave_its_page() -> None:
    started = start()
    world = started.world
    world.change(f"second1 {PAGE + 0x1000:#x}", w=False)
    assert started.port().write(world.address, bytes(4)).ok
    request = Request(0, world.address + 0xFF0, dma.ATOMIC, 0xFFF, payload=b"A" * 0xFFF)
    before = world.memory.snapshot()
    assert started.port().request(request).status is UR
    assert world.memory.snapshot() == before


def test_an_access_of_nothing_is_refused_where_nothing_is_mapped() -> None:
    started = start()
    before = started.world.memory.snapshot()
    assert started.port().request(Request(0, 0x99_9000, 0, 4, payload=b"EVIL")).status is UR
    assert started.world.memory.snapshot() == before
    assert started.unit.caches.iotlb.counters.hits == 0


def test_a_write_of_four_bytes_that_claims_eight_is_no_interrupt() -> None:
    started = start()
    assert not started.port().request(Request(0, INTERRUPTS, dma.WRITE, 8, payload=b"1234")).ok
    (event,) = started.events
    assert isinstance(event, InterruptBlocked)
    assert event.reason is FaultReason.IR_NOT_AN_INTERRUPT


class Peers(PeerSpace):
    """Takes every request, and notes to which address it came."""

    def __init__(self) -> None:
        self.addresses: list[int] = []

    def carry_out(self, request: Request, address: int) -> Completion:
        self.addresses.append(address)
        return Completion(CompletionStatus.SUCCESS, bytes(request.length))


@pytest.mark.parametrize("length", [1, 2, 4, 8, 12])
@pytest.mark.section("3.17")
def test_what_is_for_no_memory_goes_to_a_peer_by_its_address_after_translation(length: int) -> None:
    started, peers = start(), Peers()
    started.world.change("second1", addr=HOLE)
    port = UnitPort(started.unit, started.world.memory, started.world.source_id, peers)
    for _ in range(2):  # the second time by what is cached
        assert port.read(started.world.address + 0x10, length).ok
        assert port.write(started.world.address + 0x20, bytes(length)).ok
        assert port.atomic(dma.AtomicOp.SWAP, started.world.address + 0x30, bytes(8)).ok
    assert peers.addresses == [HOLE + 0x10, HOLE + 0x20, HOLE + 0x30] * 2


@pytest.mark.parametrize("carried", [0x0FFF, 0x1800, 0x2001])
def test_a_write_across_pages_that_carries_another_length_changes_nothing(carried: int) -> None:
    started = start()
    before = started.world.memory.snapshot()
    source_id, address = started.world.source_id, started.world.address
    request = Request(source_id, address, dma.WRITE, 0x2000, payload=b"x" * carried)
    assert started.port().request(request).status is UR
    assert started.world.memory.snapshot() == before


@pytest.mark.parametrize("write", [False, True])
def test_a_read_ends_at_the_first_page_that_refuses_it_and_a_write_does_not(write: bool) -> None:
    started = start()
    for page in FOUR_PAGES[1:3]:
        started.world.change(f"second1 {page:#x}", r=False, w=False)
    port, address = started.port(), started.world.address
    assert not (port.write(address, bytes(0x4000)) if write else port.read(address, 0x4000)).ok
    blocked = [each.request.address for each in started.events if isinstance(each, RequestBlocked)]
    assert blocked == [address + 0x1000, address + 0x2000][: 2 if write else 1]
