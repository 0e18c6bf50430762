"""The page request queue: what is queued, answered or dropped, and the event."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, WRITE, PageGroupResponse, PageRequest
from tests.support.directed_faults import CASES, Case
from tests.support.world import HOLE, SCALABLE_MODES, Mode, Started, World, capabilities
from vtd.layouts.descriptors import PageRequestDescriptor
from vtd.layouts.registers import PageRequestEventControl, PageRequestStatus
from vtd.unit.caching.policy import AGGRESSIVE
from vtd.unit.interrupts.outcome import Message
from vtd.unit.options import Options
from vtd.unit.reporting.events import PageGroupResponseSent, PageRequestReceived, RequestBlocked
from vtd.unit.requests.request import kind_of

QUEUE = 0x1C000
EVENT = Message(0xFEE0_3000, 0x71)
PASID = 0x45
INVALID_REQUEST, SUCCESS = 1, 0
TABLE_CASES = [
    (case, mode)
    for case in CASES
    for mode in case.modes
    if mode in SCALABLE_MODES
    and (case.reason < 0x5D and case.reason != 0x89)
    and "prs" in World(mode, **case.setup).unit.features
]
UNQUALIFIED = {0x30, 0x32, 0x33, 0x38, 0x39, 0x3A, 0x40, 0x50, 0x58}


class Asker:
    """A started world whose page request queue is ready."""

    def __init__(self, world: World, options: Options | None = None) -> None:
        if world.mode in SCALABLE_MODES and "context" in world.places:
            context = world.get("context")
            if context.dte:
                world.change("context", pre=True)
        self.world = world
        self.started: Started = world.start(options)
        self.unit = self.started.unit
        for offset, value in ((0xC0, 0), (0xC8, 0), (0xD0, QUEUE)):
            self.unit.write_register(offset, 8, value)
        self.unit.write_register(0xE4, 4, EVENT.data)
        self.unit.write_register(0xE8, 4, EVENT.address)
        self.unit.write_register(0xE0, 4, 0)

    def ask(self, address: int = 0x5000, **fields: object) -> bool:
        request = self.world.request
        values: dict[str, object] = {
            "read": True, "write": False, "group_index": 3, "last": True,
            "pasid": request.pasid, "privileged": request.privileged, **fields,
        }  # fmt: skip
        message = PageRequest(address, **values)  # type: ignore[arg-type]
        return self.started.port().page_request(message).ok

    @property
    def responses(self) -> list[PageGroupResponse]:
        events = self.started.events
        return [event.response for event in events if isinstance(event, PageGroupResponseSent)]

    @property
    def status(self) -> PageRequestStatus:
        return PageRequestStatus(self.unit.read_register(0xDC, 4))

    @property
    def tail(self) -> int:
        return self.unit.read_register(0xC8, 8)

    def descriptor(self, number: int) -> PageRequestDescriptor:
        return PageRequestDescriptor.unpack(self.world.memory.read(QUEUE + 32 * number, 32))

    def events(self) -> int:
        return self.started.messages.count(EVENT)


def test_a_unit_without_page_requests_reads_no_table_for_them() -> None:
    world = World(Mode.SECOND, capabilities(prs=0))
    started = world.start()
    reads: list[str] = []
    world.hook = lambda kind, address, size, value: reads.append(kind)
    message = PageRequest(0x5000, read=True, write=False, group_index=3, last=True)
    assert not started.port().page_request(message).ok
    assert not reads
    assert not started.record().f
    assert not any(isinstance(event, PageGroupResponseSent) for event in started.events)


@pytest.mark.parametrize("last", [False, True], ids=["", "last"])
@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize(
    ("case", "mode"),
    TABLE_CASES,
    ids=[f"{case.reason:02X}h {mode.value}: {case.name}" for case, mode in TABLE_CASES],
)
@pytest.mark.section("7.4")
def test_each_row_is_answered_or_dropped(case: Case, mode: Mode, fpd: bool, last: bool) -> None:
    world = World(mode, **case.setup)
    world.change("context", pre=True)
    case.breaks(world)
    if fpd:
        world.change("context", fpd=True)
    asker = Asker(world)
    queued = asker.ask(last=last)
    assert not queued
    record = asker.started.record()
    assert record.f == (not (fpd and case.reason not in UNQUALIFIED))
    if record.f:
        assert record.fr == case.reason
        assert (record.t1, record.t2) == (0, 1)
        assert record.pp == (world.request.pasid is not None)
    expected = PageGroupResponse(INVALID_REQUEST, 3, world.request.pasid)
    assert asker.responses == [expected] * last
    assert asker.tail == 0
    assert not asker.status


@pytest.mark.parametrize(
    ("mode", "change", "reason"),
    [(Mode.SECOND, {"pre": False}, 0x47), (Mode.LEGACY, {"tt": 1}, 0x32)],
)
@pytest.mark.fault("RTA.3 p", "SCT.8 p")
def test_page_requests_have_to_be_enabled(mode: Mode, change: dict[str, int], reason: int) -> None:
    world = World(mode)
    asker = Asker(world)
    world.change("context", **change)
    assert not asker.ask()
    assert asker.started.record().fr == reason
    assert asker.responses == [PageGroupResponse(INVALID_REQUEST, 3, None)]


def test_a_pasid_beyond_pss_is_no_fault_of_a_page_request() -> None:
    """SGN.10 does not list page requests; SCT.7 does."""
    world = World(Mode.SECOND, pasid=PASID)
    world.change("context", pdts=0)
    world.ask(pasid=0x10000)
    asker = Asker(world)
    assert not asker.ask()
    assert asker.started.record().fr == 0x46


@given(
    st.integers(0, (1 << 52) - 1),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 511),
    st.sampled_from([(None, False), (PASID, False), (PASID, True)]),
)
@pytest.mark.section("7.4.1.1")
def test_a_descriptor_tells_what_the_message_told(
    page: int, read: bool, write: bool, last: bool, group: int, kind: tuple[int | None, bool]
) -> None:
    pasid, privileged = kind
    asker = Asker(World(Mode.SECOND, pasid=pasid))
    assert asker.ask(
        page << 12, read=read, write=write, last=last, group_index=group,
        privileged=privileged,
    )  # fmt: skip
    assert asker.descriptor(0) == PageRequestDescriptor.of(
        type=1,
        pp=pasid is not None,
        rid=asker.world.source_id,
        pasid=pasid or 0,
        pmr=privileged,
        rdr=read,
        wrr=write,
        lpig=last,
        prgi=group,
        addr=page << 12,
    )
    assert asker.responses == []
    assert asker.status == PageRequestStatus.of(ppr=True)
    assert isinstance(asker.started.events[-2], PageRequestReceived)


class Model:
    """The queue as 7.4.1 tells it, with numbers instead of memory."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.waiting: deque[int] = deque()
        self.overflowed = False
        self.pending = False
        self.events = 0

    def ask(self, number: int) -> bool:
        if self.overflowed:
            return False
        if len(self.waiting) == self.entries - 1:
            self.events += not self.pending
            self.overflowed = True
            return False
        self.events += not self.pending
        self.pending = True
        self.waiting.append(number)
        return True


@given(
    st.lists(
        st.sampled_from(["ask"] * 6 + ["take", "clear overflow", "clear pending"]), max_size=80
    ),
    st.integers(120, 127),
)
@pytest.mark.section("7.4.1", "11.4.11.1", "11.4.11.2")
@pytest.mark.fields(
    "PageRequestQueueTail.pqt", "PageRequestQueueHead.pqh", "PageRequestQueueAddress.pqa.pqs"
)
def test_the_queue_fills_overflows_and_recovers(actions: list[str], used: int) -> None:
    asker, model = Asker(World(Mode.SECOND)), Model(128)
    for number in range(used):  # nearly full, with the tail near the end
        assert asker.ask(number << 12) == model.ask(number)
    head = 0
    for number, action in enumerate(actions, used):
        if action == "ask":
            before = len(asker.responses)
            queued = model.ask(number)
            assert asker.ask(number << 12) == queued
            answered = [] if queued else [PageGroupResponse(SUCCESS, 3, None)]
            assert asker.responses[before:] == answered
        elif action == "take" and model.waiting:
            assert asker.descriptor(head).addr == model.waiting.popleft() << 12
            head = (head + 1) % 128
            asker.unit.write_register(0xC0, 8, head * 32)
        elif action == "clear overflow":
            asker.unit.write_register(0xDC, 4, 2)
            model.overflowed = False
        elif action == "clear pending":
            asker.unit.write_register(0xDC, 4, 1)
            model.pending = False
        assert asker.status == PageRequestStatus.of(pro=model.overflowed, ppr=model.pending)
        assert asker.tail == (head + len(model.waiting)) % 128 * 32
        assert asker.events() == model.events
    assert not asker.started.status()


@pytest.mark.section("7.4.1")
def test_an_overflow_answers_only_the_last_of_a_group() -> None:
    asker = Asker(World(Mode.SECOND))
    asker.unit.write_register(0xC0, 8, 0x20)
    assert not asker.ask(last=False)
    assert asker.responses == []
    assert asker.status.pro
    assert asker.unit.page_requests.overflow_responses == 0
    assert not asker.ask()
    assert asker.unit.page_requests.overflow_responses == 1
    sent = [each for each in asker.started.events if isinstance(each, PageGroupResponseSent)]
    assert [each.automatic for each in sent] == [True]  # no descriptor of software asked for it


@pytest.mark.section("7.5", "11.4.11.4", "11.4.11.6", "11.4.11.7")
def test_one_event_until_both_status_fields_are_clear() -> None:
    asker = Asker(World(Mode.SECOND))
    asker.ask()
    asker.ask()
    assert asker.events() == 1
    asker.unit.write_register(0xDC, 4, 1)
    asker.ask()
    assert asker.events() == 2


@pytest.mark.section("7.5", "11.4.11.5")
def test_a_masked_event_is_kept_or_withdrawn() -> None:
    asker = Asker(World(Mode.SECOND))
    asker.unit.write_register(0xE0, 4, 1 << 31)
    asker.ask()
    control = PageRequestEventControl(asker.unit.read_register(0xE0, 4))
    assert control.ip
    assert asker.events() == 0
    asker.unit.write_register(0xDC, 4, 3)
    assert not PageRequestEventControl(asker.unit.read_register(0xE0, 4)).ip
    asker.ask()
    asker.unit.write_register(0xE0, 4, 0)
    assert asker.events() == 1


@pytest.mark.parametrize("sms", [False, True])
@pytest.mark.section("7.9")
def test_stop_markers_are_queued_or_dropped_without_a_trace(sms: bool) -> None:
    world = World(Mode.SECOND, capabilities(sms=sms), pasid=PASID)
    asker = Asker(world)
    assert asker.ask(0, read=False)
    assert asker.descriptor(0).lpig
    asker.unit.write_register(0xC0, 8, 0x40)
    asker.unit.write_register(0xDC, 4, 1)
    assert not asker.ask(0, read=False)
    world.change("context", pre=False)
    asker.unit.caches.clear()
    assert not asker.ask(0, read=False)
    assert not asker.status
    assert asker.responses == []
    assert not asker.started.status()


@pytest.mark.fields("ExtendedCapability.prs")
def test_requests_are_dropped_while_remapping_is_off_or_where_prs_is_not_reported() -> None:
    asker = Asker(World(Mode.SECOND))
    asker.started.command(te=False)
    assert not asker.ask()
    assert not Asker(World(Mode.SECOND, capabilities(prs=0))).ask()
    assert asker.responses == []
    assert not any(isinstance(event, RequestBlocked) for event in asker.started.events)


@pytest.mark.section("11.4.11.3")
def test_a_queue_without_memory_takes_nothing() -> None:
    asker = Asker(World(Mode.SECOND))
    asker.unit.write_register(0xD0, 8, HOLE)
    assert asker.ask()
    assert asker.tail == 32


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.SECOND, Mode.NESTED])
@pytest.mark.section("6.5.3.1")
def test_what_is_cached_of_the_page_is_dropped(mode: Mode) -> None:
    """Table 27, on a unit that keeps everything it may."""
    world = World(mode, pasid=PASID)
    leaf, right = ("second1", "w") if mode is Mode.SECOND else ("first1", "rw")
    world.change(leaf, **{right: False})
    asker = Asker(world, Options(caches=AGGRESSIVE))
    request = world.request
    assert asker.started.admit(request) is not None
    world.change(leaf, **{right: True})
    asker.ask(request.address - 0x1000)
    asker.ask(request.address + 0x1000)
    narrow = mode is not Mode.NESTED  # nested: the whole domain
    cached = asker.unit.caches.iotlb.find(kind_of(request), request.address)
    assert (cached is not None) == narrow
    asker.ask(request.address)
    assert asker.unit.caches.iotlb.find(kind_of(request), request.address) is None
    assert asker.started.admit(request._replace(access=READ | WRITE)) is not None
