"""Interrupt remapping and posting: against the oracle, each fault, the cache, and a consumer."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.interrupt_messages import RemappableAddress
from tests.support import fault_coverage
from tests.support.interrupt_oracle import Blocked, Recorded, Sent
from tests.support.interrupt_world import (
    DESCRIPTOR,
    HOLE,
    INDEX,
    POSTED,
    REMAPPED,
    TABLE,
    WAITING,
    InterruptWorld,
    StartedInterrupts,
    message,
)
from tests.support.world import capabilities
from vtd.layouts.descriptors import InterruptEntryCacheInvalidateDescriptor
from vtd.layouts.interrupt_entries import DeliveryMode, RemappedIrte, TriggerMode
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, UNCACHED
from vtd.unit.departures import QEMU, Departures, departures_named
from vtd.unit.interrupts.interrupt_remapping import InterruptFault
from vtd.unit.interrupts.outcome import Interrupt, Posted
from vtd.unit.options import Options
from vtd.unit.requests.faults import FaultReason

FPD = 1 << 1
WITHOUT_INDEX = {0x20, 0x25, 0x29, 0x2A, 0x2B}


def sent(interrupt: Interrupt) -> Sent:
    return Sent(
        interrupt.vector,
        interrupt.delivery_mode,
        bool(interrupt.trigger_mode),
        bool(interrupt.destination_mode),
        interrupt.redirection_hint,
        interrupt.destination,
    )


def agree(world: InterruptWorld) -> int | None:
    """Compare with the oracle: outcome, memory, record; the fault reason if there is one."""
    words = world.words()
    expected = world.expected(words)
    started = world.start()
    outcome = started.send()
    assert {where: word for where, word in words.words.items() if word} == world.words().words
    match outcome:
        case Interrupt():
            assert sent(outcome) == expected
        case Posted(descriptor, vector, notification):
            assert expected == Recorded(descriptor, vector, notification and sent(notification))
        case None:
            assert isinstance(expected, Blocked)
            (event,) = started.blocked
            assert event.reason in expected.reasons
            suppressed = expected.fpd and event.reason not in fault_coverage.UNQUALIFIED
            assert event.recorded == (not suppressed)
            record = started.record()
            assert record.f == event.recorded
            if record.f:
                assert (record.fr, record.sid) == (event.reason, world.source_id)
                assert (record.at, record.t1, record.t2, record.pp) == (0, 0, 0, 0)
                if event.reason not in WITHOUT_INDEX:
                    assert expected.index is not None
                    assert record.fi == (expected.index & 0xFFFF) << 48
                    assert event.interrupt_index == expected.index
            return event.reason
    return None


Change = Callable[[InterruptWorld], object]


def entry(value: int) -> Change:
    return lambda world: world.put_entry(value)


def with_descriptor(value: int) -> Change:
    def change(world: InterruptWorld) -> None:
        world.put_entry(POSTED)
        world.put_descriptor(value)

    return change


def send(address: int, data: int = 0) -> Change:
    def change(world: InterruptWorld) -> None:
        world.address, world.data = address, data

    return change


def from_source(source_id: int) -> Change:
    def change(world: InterruptWorld) -> None:
        world.source_id = source_id

    return change


def frozen(world: InterruptWorld) -> None:
    world.put_entry(POSTED)
    world.make_read_only(DESCRIPTOR >> 12)


def nothing(_: InterruptWorld) -> None:
    """The world is made so that it faults."""


SUBHANDLE = RemappableAddress.for_handle(INDEX, shv=True)
CASES: list[tuple[int, str, Change, dict[str, Any]]] = [
    (0x20, "data above the subhandle", send(SUBHANDLE, 0x1_0000), {}),
    (0x21, "index beyond S", send(message(0x100)), {}),
    (0x21, "handle and subhandle beyond S", send(SUBHANDLE, 0xFB), {}),
    (0x21, "17-bit sum", send(RemappableAddress.for_handle(0xFFFF, shv=True), 0xFFFF),
     {"size": 15}),
    (0x21, "beyond the HAW", nothing, {"table": 1 << 46}),
    (0x22, "P=0", entry(REMAPPED.replace(p=False)), {}),
    (0x23, "no memory", nothing, {"table": HOLE}),
    (0x24, "bit 12", entry(REMAPPED | 1 << 12), {}),
    (0x24, "bit 24", entry(REMAPPED | 1 << 24), {}),
    (0x24, "bit 127", entry(REMAPPED | 1 << 127), {}),
    (0x24, "reserved SVT", entry(REMAPPED.replace(svt=3)), {}),
    (0x24, "reserved DLM", entry(REMAPPED.replace(dlm=3)), {}),
    (0x24, "wide DST in xAPIC mode", entry(REMAPPED.replace(dst=0x1_0300)), {}),
    (0x24, "low DST bits in xAPIC mode", entry(REMAPPED.replace(dst=0x301)), {}),
    (0x24, "posted, without PI", entry(POSTED), {"unit": capabilities(pi=0)}),
    (0x24, "posted, bit 7", entry(POSTED | 1 << 7), {}),
    (0x24, "posted, beyond the HAW", entry(POSTED.replace(pdah=1 << 46)), {}),
    (0x25, "CFIS=0", send(0xFEE0_0000), {}),
    (0x25, "EIME=1", send(0xFEE0_0000), {"eime": True, "compatibility": True}),
    (0x26, "another SID", from_source(0x0109), {}),
    (0x26, "SQ=01b, another bit", entry(REMAPPED.replace(sq=1, sid=0x0109)), {}),
    (0x26, "bus below", entry(REMAPPED.replace(svt=2, sid=0x0205)), {}),
    (0x26, "bus above", entry(REMAPPED.replace(svt=2, sid=0x0000)), {}),
    (0x27, "no memory", entry(POSTED.replace(pdal=HOLE)), {}),
    (0x27, "read-only", frozen, {}),
    (0x28, "bit 258", with_descriptor(WAITING | 1 << 258), {}),
    (0x28, "bit 511", with_descriptor(WAITING | 1 << 511), {}),
    (0x28, "wide NDST in xAPIC mode", with_descriptor(WAITING.replace(ndst=0x1_0000)), {}),
    (0x2A, "EIME=0", nothing, {"unit": capabilities(eimer=1)}),
    (0x2B, "IRES=0", nothing, {"unit": capabilities(irreq=1), "enabled": False}),
]  # fmt: skip


@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize("case", CASES, ids=[f"{code:02X}h {name}" for code, name, *_ in CASES])
@pytest.mark.section("5.1.4.1")
def test_a_broken_rule_has_its_fault_reason(
    case: tuple[int, str, Change, dict[str, Any]], fpd: bool
) -> None:
    code, _, breaks, setup = case
    world = InterruptWorld(**setup)
    breaks(world)
    if fpd:
        word = int.from_bytes(world.memory.read(TABLE + 16 * INDEX, 16), "little")
        world.put_entry(word | FPD)
    assert agree(world) == code
    fault_coverage.reached(code, fault_coverage.INTERRUPT, "directed", fpd=fpd)


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0xFEE0_0000, 1),
        (0xFEE0_0000, 2),
        (0xFEE0_1000, 8),
        (0xFEE0_0002, 3),
        (0xFEE0_0002, 4),
        (0xFEEF_FFF0, 16),
    ],
)
@pytest.mark.fault("29 i")
def test_other_writes_to_the_range_are_no_interrupts(address: int, length: int) -> None:
    started = InterruptWorld(entry=REMAPPED.replace(fpd=True)).start()
    assert not started.port().write(address, bytes(length)).ok
    record = started.record()
    assert (record.fr, record.fi) == (0x29, address & ~0xFFF)
    for fpd in (False, True):
        fault_coverage.reached(0x29, fault_coverage.INTERRUPT, "directed", fpd=fpd)


@pytest.mark.parametrize(
    "mode", [DeliveryMode.SMI, DeliveryMode.NMI, DeliveryMode.INIT, DeliveryMode.EXT_INT]
)
@pytest.mark.section("5.1.4", "5.1.7")
def test_delivery_modes_that_are_always_edge_triggered(mode: DeliveryMode) -> None:
    started = InterruptWorld(entry=REMAPPED.replace(dlm=mode, tm=TriggerMode.LEVEL)).start()
    outcome = started.send()
    assert isinstance(outcome, Interrupt)
    assert outcome.trigger_mode is TriggerMode.EDGE
    departing_unit = started.world.start(departing("keep_trigger_mode"))
    outcome = departing_unit.send()
    assert isinstance(outcome, Interrupt)
    assert outcome.trigger_mode is TriggerMode.LEVEL


@pytest.mark.section("5.1.1")
def test_the_requester_is_verified_before_the_fields_of_the_entry() -> None:
    for departures, code in (((), 0x26), (("check_reserved_irte_before_source",), 0x24)):
        world = InterruptWorld(entry=RemappedIrte(REMAPPED.replace(sid=0x0200) | 1 << 90))
        started = world.start(Options(caches=UNCACHED, departures=departures_named(departures)))
        assert started.send() is None
        assert started.record().fr == code


def test_a_pasid_is_ignored_while_dma_remapping_is_off() -> None:
    started = InterruptWorld().start()
    assert started.port().write(message(), bytes(4), pasid=5).interrupt is not None
    assert started.port().read(0xFEE0_0000, 0, pasid=5).ok
    started.command(te=True)
    assert not started.port().write(message(), bytes(4), pasid=5).ok
    assert started.record().fr == 0x31  # legacy mode


@pytest.mark.fault("29 i")
def test_reads_of_the_range_are_blocked_but_a_zero_length_one() -> None:
    started = InterruptWorld().start()
    assert started.port().read(0xFEE0_0000, 0).ok
    assert not started.port().read(0xFEE0_0000, 4).ok
    assert started.record().fr == 0x29


@pytest.mark.section("5.1.4.1")
def test_every_interrupt_code_has_a_directed_case() -> None:
    assert {code for code, *_ in CASES} | {0x29} == set(range(0x20, 0x2C))


@st.composite
def interrupt_worlds(draw: st.DrawFn) -> InterruptWorld:
    """Random setups around an interrupt that gets through."""
    odd = draw(st.integers(0, 5))
    features = draw(st.sampled_from([{}, {}, {"pi": 0}, {"eimer": 1}, {"irreq": 1}]))
    eime = draw(st.booleans())
    base = draw(st.sampled_from([REMAPPED, POSTED]))
    world = InterruptWorld(
        unit=capabilities(haw=draw(st.sampled_from([39, 46, 52])), **features),
        table=draw(st.sampled_from([TABLE] * 8 + [HOLE, 1 << 45, 1 << 50])),
        size=draw(st.sampled_from([0, 3, 7, 15])),
        eime=eime,
        compatibility=draw(st.booleans()),
        enabled=draw(st.integers(0, 4)) > 0,
        entry=base,
    )
    word = int(base) | draw(st.sampled_from([0, FPD]))
    if base is REMAPPED:
        word |= draw(st.integers(0, 0xFF)) << 16 | draw(st.integers(0, 63)) << 2
        if eime:
            word |= draw(st.integers(0, 0xFFFF_FFFF)) << 32
    else:
        word |= draw(st.integers(0, 0xFF)) << 16 | draw(st.booleans()) << 14
    if odd == 0:
        word ^= 1 << draw(st.integers(0, 127))
    if odd == 1:
        world.source_id = draw(st.integers(0, 0xFFFF))
        checks = draw(st.integers(0, 15)) << 80 | draw(st.integers(0, 0xFFFF)) << 64
        word = word & ~(0xF_FFFF << 64) | checks
    descriptor = draw(st.integers(0, (1 << 258) - 1)) | int(WAITING)
    if odd == 2:
        descriptor ^= 1 << draw(st.integers(0, 511))
    if odd == 3 and draw(st.booleans()):
        world.make_read_only(DESCRIPTOR >> 12)
    if odd == 4:
        word = draw(st.integers(0, (1 << 128) - 1))
        if draw(st.booleans()):
            word |= 1
    world.put_descriptor(descriptor)
    form = draw(st.integers(0, 5))
    if form == 0:
        world.address = 0xFEE0_0000 | draw(st.integers(0, 0x3FFFF)) << 2
        world.data = draw(st.sampled_from([0, 0x4041, draw(st.integers(0, 0xFFFF_FFFF))]))
    elif form == 1:
        index = draw(st.sampled_from([INDEX, INDEX, 0, 0xFFFF]))
        subhandle = draw(st.integers(0, index))
        world.address = RemappableAddress.for_handle(index - subhandle, shv=True)
        world.data = subhandle
    world.put_entry(word)
    return world


@given(interrupt_worlds())
@settings(max_examples=300)
@pytest.mark.section("5.1.2.2", "5.1.4")
@pytest.mark.fields(
    "RemappedIrte.fpd.dm.rh.tm.dlm.im.sq", "PostedIrte.fpd.sq", "RemappableData.subhandle"
)
def test_interrupts_are_what_the_oracle_says(world: InterruptWorld) -> None:
    agree(world)


def breaks_of(code: int) -> st.SearchStrategy[tuple[Change, dict[str, Any]]]:
    return st.sampled_from(
        [(change, setup) for number, _, change, setup in CASES if number == code]
    )


@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize("code", sorted({code for code, *_ in CASES} | {0x29}))
def test_every_code_is_reached_by_generated_interrupts(code: int, fpd: bool) -> None:
    if code == 0x29:

        @given(st.integers(0xFEE0_0000, 0xFEEF_FFE0), st.sampled_from([1, 2, 3, 5, 8, 16]))
        @settings(max_examples=10)
        def no_interrupt(address: int, length: int) -> None:
            started = InterruptWorld().start()
            in_page = 0x1000 - address % 0x1000
            length = min(length, in_page)
            if length != 4:
                assert not started.port().write(address, bytes(length)).ok
                assert started.record().fr == 0x29

        no_interrupt()
    else:

        @given(breaks_of(code), st.sampled_from([39, 46]), st.integers(0, 15))
        @settings(max_examples=10)
        def check(broken: tuple[Change, dict[str, Any]], haw: int, available: int) -> None:
            change, setup = broken
            world = InterruptWorld(**{"unit": capabilities(haw=haw), **setup})
            change(world)
            word = int.from_bytes(world.memory.read(TABLE + 16 * INDEX, 16), "little")
            word |= available << 8 | (FPD if fpd else 0)
            world.put_entry(word)
            assert agree(world) == code

        check()
    fault_coverage.reached(code, fault_coverage.INTERRUPT, "generated", fpd=fpd)


@given(st.integers(0, (1 << 128) - 1), st.integers(0, (1 << 512) - 1), st.booleans())
def test_random_entries_and_descriptors_do_nothing_but_fault(
    word: int, descriptor: int, eime: bool
) -> None:
    world = InterruptWorld(eime=eime)
    world.put_descriptor(descriptor)
    world.put_entry(word | 1)
    agree(world)


@pytest.mark.fields("CompatibilityAddress.dm.rh.dst", "CompatibilityData.v.dlm.tm")
def test_messages_pass_unchanged_while_remapping_is_off() -> None:
    world = InterruptWorld(enabled=False)
    world.address, world.data = 0xFEE4_2_00C, 0x8123
    outcome = world.start().send()
    assert isinstance(outcome, Interrupt)
    assert sent(outcome) == Sent(0x23, 1, True, True, True, 0x42)


# The interrupt entry cache


def cached(started: StartedInterrupts) -> int | None:
    outcome = started.send()
    return outcome.vector if isinstance(outcome, Interrupt) else None


def invalidate(started: StartedInterrupts, index: int | None, mask: int = 0) -> None:
    """iec_inv through the queue."""
    descriptor = InterruptEntryCacheInvalidateDescriptor.of()
    if index is not None:
        descriptor = descriptor.replace(g=1, iidx=index, im=mask)
    tail = started.unit.read_register(0x88, 8)
    started.world.memory.write(0x4000 + tail, descriptor.pack())
    started.unit.write_register(0x88, 8, tail + 16)


def start_cached(policy: Any = KEEPS_STALE, **setup: Any) -> StartedInterrupts:
    started = InterruptWorld(**setup).start(Options(caches=policy))
    started.unit.write_register(0x90, 8, 0x4000)
    started.command(qie=True)
    return started


@pytest.mark.parametrize("policy", [KEEPS_STALE, AGGRESSIVE])
@pytest.mark.section("6.4")
def test_an_entry_stays_until_it_is_invalidated(policy: Any) -> None:
    started = start_cached(policy)
    assert cached(started) == 0x41
    started.world.put_entry(REMAPPED.replace(v=0x42))
    assert cached(started) == 0x41
    invalidate(started, None)
    assert cached(started) == 0x42
    started.world.put_entry(0)
    assert cached(started) == 0x42
    invalidate(started, INDEX)
    assert cached(started) is None
    started.world.put_entry(REMAPPED)  # a fault is not kept
    assert cached(started) == 0x41


@pytest.mark.parametrize("mask", range(16))
@pytest.mark.parametrize("index", [0, 5, 64, 255])
@pytest.mark.section("6.5.2.8")
def test_an_index_mask_covers_its_aligned_range(index: int, mask: int) -> None:
    started = start_cached()
    world = started.world
    for number in range(256):
        world.put_entry(REMAPPED, number)
        world.address = message(number)
        assert cached(started) == 0x41
        world.put_entry(REMAPPED.replace(v=0x42), number)
    invalidate(started, index, mask)
    for number in range(256):
        world.address = message(number)
        inside = number >> mask == index >> mask
        assert cached(started) == (0x42 if inside else 0x41)


@pytest.mark.parametrize("esirtps", [0, 1])
@pytest.mark.section("6.7")
def test_what_sirtp_and_ire_do_to_the_cache(esirtps: int) -> None:
    for act in ("table", "disable"):
        started = start_cached(unit=capabilities(esirtps=esirtps))
        assert cached(started) == 0x41
        started.world.put_entry(REMAPPED.replace(v=0x42))
        if act == "table":
            started.set_table()
        else:
            started.command(ire=False)
            started.command(ire=True)
        assert cached(started) == (0x42 if esirtps else 0x41)


@pytest.mark.section("5.1.3")
def test_the_table_takes_effect_with_sirtp() -> None:
    started = InterruptWorld().start()
    started.unit.write_register(0xB8, 8, HOLE | 7)
    assert cached(started) == 0x41
    started.command(sirtp=True)
    assert cached(started) is None


@given(st.lists(st.sampled_from(["write", "off", "on", "restore", "clear"]), max_size=8))
@pytest.mark.section("11.4.10")
def test_the_table_stays_the_one_of_the_last_sirtp_whatever_else_software_does(
    actions: list[str],
) -> None:
    """11.4.4.1: IRTA_REG alone has no effect, nor have IRE and invalidations."""
    started = InterruptWorld().start()
    for action in actions:
        match action:
            case "write":
                started.unit.write_register(0xB8, 8, HOLE | 1 << 11 | 2)
            case "off" | "on":
                started.command(ire=action == "on")
            case "restore":
                state = started.unit.snapshot()
                started.unit.restore(state)
            case "clear":
                started.unit.interrupts.clear()
    started.command(ire=True)
    outcome = started.send()
    assert isinstance(outcome, Interrupt)
    assert outcome.vector == REMAPPED.v
    started.unit.write_register(0xB8, 8, HOLE | 2)
    started.command(sirtp=True)
    assert started.send() is None


def test_a_unit_without_interrupt_remapping_passes_messages() -> None:
    features = {"ir": 0, "eim": 0, "pi": 0, "mhmv": 0}
    started = InterruptWorld(unit=capabilities(**features)).start()
    assert started.unit.read_register(0x1C, 4) >> 23 & 7 == 0
    assert cached(started) == 0


# Posting


class Consumer:
    """A processor that takes what is posted, at a chosen access of the unit to the descriptor."""

    def __init__(self, world: InterruptWorld, turns: set[int], action: str) -> None:
        self.world = world
        self.turns = turns
        self.action = action
        self.accesses = 0
        self.taken = 0

    def __call__(self, kind: str, address: int, size: int, value: int) -> None:
        if address != DESCRIPTOR:
            return
        self.accesses += 1
        if self.accesses in self.turns:
            self.act()

    def act(self) -> None:
        """Take all vectors, suppress or allow notifications, or have another unit post."""
        descriptor = self.world.get_descriptor()
        match self.action:
            case "take":
                self.taken |= descriptor.pir
                descriptor = descriptor.replace(pir=0, on=False)
            case "suppress":
                descriptor = descriptor.replace(sn=True)
            case "allow":
                descriptor = descriptor.replace(sn=False)
            case "move":
                descriptor = descriptor.replace(ndst=0x700, nv=0xF3)
            case _:
                descriptor = descriptor.replace(pir=descriptor.pir | 1 << 0x77, on=True)
        self.world.put_descriptor(descriptor)


@pytest.mark.parametrize("action", ["take", "suppress", "allow", "move", "post"])
@pytest.mark.parametrize("turns", [{1}, {2}, {1, 2}, {2, 3}, {1, 2, 3, 4}, {4}, {1, 3, 5, 7}])
@pytest.mark.parametrize("before", [0, 1 << 257, 1 << 256 | 1 << 0x30])
@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.section("5.2.4")
def test_no_interrupt_is_lost_to_a_consumer_at_any_step(
    action: str, turns: set[int], before: int, urgent: bool
) -> None:
    world = InterruptWorld(entry=POSTED.replace(urg=urgent), descriptor=WAITING)
    world.put_descriptor(WAITING | before)
    consumer = Consumer(world, turns, action)
    world.hook = consumer
    started = world.start()
    for vector in (0x51, 0x52):
        world.put_entry(POSTED.replace(urg=urgent, vv=vector))
        outcome = started.send()
        assert isinstance(outcome, Posted)
        assert outcome.vector == vector
        after = world.get_descriptor()
        # The vector is there, or the consumer has it; a notification speaks of what was true
        # at the moment of the update.
        assert (after.pir | consumer.taken) >> vector & 1
        if outcome.notification is not None:
            assert after.on
            assert outcome.notification.destination == after.ndst >> 8 & 0xFF
            assert outcome.notification.vector == after.nv
        else:
            assert after.on or (after.sn and not urgent)
    missing = before & ((1 << 256) - 1) & ~(world.get_descriptor().pir | consumer.taken)
    assert missing == 0
    if action == "post" and consumer.accesses >= min(turns):
        assert world.get_descriptor().pir >> 0x77 & 1


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("sn", [False, True])
@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.section("5.2.3")
def test_a_notification_is_sent_when_5_2_3_says_so(on: bool, sn: bool, urgent: bool) -> None:
    world = InterruptWorld(entry=POSTED.replace(urg=urgent))
    world.put_descriptor(WAITING.replace(on=on, sn=sn))
    outcome = world.start().send()
    assert isinstance(outcome, Posted)
    due = not on and (urgent or not sn)
    assert (outcome.notification is not None) == due
    after = world.get_descriptor()
    assert after == WAITING.replace(on=on or due, sn=sn, pir=1 << 0x51)
    if outcome.notification is not None:
        assert sent(outcome.notification) == Sent(0xF2, 0, False, False, False, 2)


@pytest.mark.section("5.2.3")
@pytest.mark.parametrize("data", [0, 0xC000], ids=["edge", "level"])
@pytest.mark.section("5.2.6")
def test_a_posted_interrupt_is_an_edge_whatever_its_request_is(data: int) -> None:
    world = InterruptWorld(entry=POSTED)
    world.data = data  # trigger mode and level of the request, ignored with SHV = 0
    outcome = world.start().send()
    assert isinstance(outcome, Posted)
    assert outcome.notification is not None
    assert outcome.notification.trigger_mode is TriggerMode.EDGE


def test_a_descriptor_error_leaves_the_descriptor_alone() -> None:
    world = InterruptWorld(entry=POSTED)
    frozen(world)
    assert world.start().send() is None
    assert world.get_descriptor() == WAITING


@pytest.mark.section("5.2.2")
def test_what_surrounds_a_descriptor_of_64_bytes_is_neither_looked_at_nor_changed() -> None:
    world = InterruptWorld(entry=POSTED)
    start = DESCRIPTOR - 64
    around = b"\xff" * 64 + WAITING.pack() + b"\xff" * 64
    world.memory.load(start, around)
    assert isinstance(world.start().send(), Posted)
    after = world.memory.read(start, len(around))
    assert after[:64] == after[128:] == b"\xff" * 64
    assert after[64:128] != WAITING.pack()


def departing(name: str) -> Options:
    """The options of a unit with one departure."""
    return Options(departures=departures_named([name]))


def test_a_bad_entry_under_the_option_of_recorded_units_is_a_source_fault() -> None:
    world = InterruptWorld(entry=REMAPPED.replace(svt=3))
    started = world.start(departing("reject_source_of_reserved_svt"))
    assert started.send() is None
    assert started.record().fr == FaultReason.IR_SOURCE_REJECTED


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"dlm": 3}, "ignore_reserved_irte_values"),
        ({"dlm": 6}, "ignore_reserved_irte_values"),
        ({"dst": 1 << 22}, "ignore_reserved_irte_values"),
        ({"im": 1}, "ignore_im_without_pi"),
    ],
)
def test_recorded_units_do_not_look_at_some_reserved_values(
    wrong: dict[str, int], name: str
) -> None:
    world = InterruptWorld(unit=capabilities(pi=0), entry=REMAPPED.replace(**wrong))
    assert world.start().send() is None
    assert world.start(departing(name)).send() is not None
    others = Departures(**{each: each != name for each in QEMU.names})
    assert world.start(Options(departures=others)).send() is None


def test_recorded_units_have_the_ends_of_a_bus_range_the_other_way_round() -> None:
    for sid, allowed, recorded in ((0x0002, True, False), (0x0200, False, True)):
        world = InterruptWorld(entry=REMAPPED.replace(svt=2, sid=sid))
        world.source_id = 0x0108
        assert (world.start().send() is not None) == allowed
        as_recorded = world.start(departing("swap_irte_bus_range"))
        assert (as_recorded.send() is not None) == recorded


def test_recorded_units_take_the_low_16_bits_of_handle_and_subhandle() -> None:
    world = InterruptWorld(entry=REMAPPED)
    world.address, world.data = RemappableAddress.for_handle(INDEX + 1, shv=True), 0xFFFF
    assert world.start().send() is None
    assert world.start(departing("wrap_interrupt_index")).send() is not None


def test_a_fault_says_what_it_is() -> None:
    fault = InterruptFault(FaultReason.IR_NOT_PRESENT, 5, fpd=True)
    assert "interrupt-remapping entry not present" in str(fault)
    assert not fault.recorded


@pytest.mark.section("5.1.2.1")
def test_compatibility_interrupts_pass_where_cfis_and_xapic_mode_let_them() -> None:
    world = InterruptWorld(compatibility=True)
    world.address, world.data = 0xFEE4_2000, 0x23
    assert agree(world) is None
    outcome = world.start().send()
    assert isinstance(outcome, Interrupt)
    assert sent(outcome) == Sent(0x23, 0, False, False, False, 0x42)


def test_recorded_units_pass_compatibility_interrupts() -> None:
    world = InterruptWorld()
    world.address, world.data = 0xFEE4_2000, 0x23
    assert world.start().send() is None
    assert world.start(departing("pass_compatibility_format")).send() is not None
