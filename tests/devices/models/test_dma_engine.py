"""The DMA engine: every kind of request, and page requests that make a transfer wait."""

from hypothesis import given
from hypothesis import strategies as st

from devices.dma import (
    AtomicOp,
    Completion,
    CompletionStatus,
    PageGroupResponse,
    PageRequest,
    Request,
    ResponseCode,
)
from devices.models.dma_engine import (
    PAGE_REQUEST_ATTEMPTS,
    As,
    Atomic,
    CommandOutcome,
    DmaEngine,
    Read,
    SendMessage,
    SendPageRequest,
    Translate,
    Via,
    Write,
)
from devices.source_id import SourceId
from tests.support.ports import PagingPort, RecordingPort


class ServingPort(PagingPort):
    """Answers each group while it is being sent; maps it first unless it ``lies``."""

    def __init__(self, engine: DmaEngine, *, lies: bool = False) -> None:
        super().__init__()
        self.engine = engine
        self.lies = lies

    def request(self, request: Request) -> Completion:
        completion = super().request(request)
        message = request.payload
        if isinstance(message, PageRequest):
            if not self.lies:
                self.map(message.address, message.address, pasid=message.pasid)
            if message.last:
                self.engine.ats.page_response(
                    PageGroupResponse(ResponseCode.SUCCESS, message.group_index, message.pasid)
                )
        return completion


def start(engine: DmaEngine, port: RecordingPort, allocation: int = 4) -> None:
    """What a driver does: connect, enable PASID, PRI, ATS and bus mastering."""
    engine.connect(port)
    config = engine.config
    for capability, offset, value in ((0x1B, 6, 1), (0x13, 4, 1), (0x0F, 6, 0x8000)):
        at = config.find_extended_capability(capability)
        assert at is not None
        config.write(at + offset, 2, value)
        if capability == 0x13:
            config.write(at + 0xC, 4, allocation)
    config.write(4, 2, 6)


def ok(outcomes: list[CommandOutcome]) -> list[bool]:
    return [outcome.completion.ok for outcome in outcomes]


def test_plain_requests_go_through_the_port_in_order() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    port.map(0x1000, 0x9000, pasid=7)
    engine.submit(
        Write(0x1000, b"\1\0\0\0", pasid=7),
        Atomic(AtomicOp.FETCH_ADD, 0x1000, b"\2\0\0\0", pasid=7),
        Read(0x1000, 4, pasid=7),
        Read(0x1000, 4),
        SendMessage(0xFEE0_0000, 0x41),
    )
    outcomes = engine.run()
    assert ok(outcomes) == [True, True, True, False, True]
    assert outcomes[2].completion == engine.dma.read(0x1000, 4, pasid=7)
    assert port.ram.read(0x9000, 4) == b"\3\0\0\0"
    assert port.messages == [(0xFEE0_0000, 0x41)]


def test_a_translated_request_takes_any_address() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    engine.submit(Write(0x9000, b"1234", via=Via.TRANSLATED), Read(0x9000, 4, via=Via.TRANSLATED))
    assert ok(engine.run()) == [True, True]
    assert port.translated == [0x9000, 0x9000]


def test_a_translation_request_shows_its_completion() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    port.map(0x1000, 0x9000)
    engine.submit(Translate(0x1000, 2))
    completion = engine.run()[0].completion
    assert [(entry.address, entry.r) for entry in completion.entries] == [
        (0x9000, True),
        (0, False),
    ]


def test_another_requester_id_uses_the_port_of_that_id() -> None:
    engine, own, other = DmaEngine(), PagingPort(), RecordingPort()
    start(engine, own)
    forged = As(SourceId.parse("00:1f.0"), Write(0x1000, b"1234"))
    engine.submit(forged)
    assert ok(engine.run()) == [False]
    engine.impersonate = {SourceId.parse("00:1f.0"): other}.__getitem__
    engine.submit(forged)
    assert ok(engine.run()) == [True]
    assert other.ram.read(0x1000, 4) == b"1234"


def test_ats_requests_need_bus_mastering_and_somebody_who_takes_messages() -> None:
    engine = DmaEngine()
    requests = (
        Read(0x1000, 4, via=Via.TRANSLATED),
        SendPageRequest(PageRequest(0x1000, True, False, 0, True)),
    )
    start(engine, RecordingPort())
    engine.submit(*requests)
    assert ok(engine.run()) == [True, False]  # all addresses are physical there
    start(engine, PagingPort())
    engine.config.write(4, 2, 0)
    engine.submit(*requests)
    assert ok(engine.run()) == [False, False]


def test_a_bare_page_request_is_sent_as_given() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    request = PageRequest(0x1000, False, False, 5, True, pasid=9)
    engine.submit(SendPageRequest(request))
    assert engine.run()[0].completion.status is CompletionStatus.SUCCESS
    assert port.page_requests == [request]


def test_a_transfer_waits_for_its_page_and_goes_on() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    engine.submit(Write(0x1000, b"1234", pasid=7, via=Via.DEVICE_TLB), Read(0x9000, 4))
    assert engine.run() == []
    assert engine.blocked
    assert engine.run() == []
    request = port.page_requests[0]
    assert (request.address, request.write, request.pasid) == (0x1000, True, 7)
    port.map(0x1000, 0x9000, pasid=7)
    engine.ats.page_response(PageGroupResponse(ResponseCode.SUCCESS, request.group_index, 7))
    assert ok(engine.run()) == [True, False]
    assert not engine.blocked
    assert port.ram.read(0x9000, 4) == b"1234"


def test_a_refused_page_ends_the_transfer() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    engine.submit(Read(0x1000, 4, via=Via.DEVICE_TLB))
    engine.run()
    engine.ats.page_response(PageGroupResponse(ResponseCode.INVALID_REQUEST, 0))
    assert ok(engine.run()) == [False]
    assert not engine.blocked


@given(pages=st.integers(1, 20), allocation=st.integers(1, 6))
def test_a_large_transfer_asks_in_portions_of_the_allocation(pages: int, allocation: int) -> None:
    engine = DmaEngine()
    port = ServingPort(engine)
    start(engine, port, allocation)
    data = bytes(range(256)) * 16 * pages
    engine.submit(Write(0x1_0000, data, via=Via.DEVICE_TLB))
    assert ok(engine.run()) == [True]
    assert port.ram.read(0x1_0000, len(data)) == data
    assert len(port.page_requests) == pages


def test_a_handler_that_never_maps_is_not_asked_for_ever() -> None:
    engine = DmaEngine()
    port = ServingPort(engine, lies=True)
    start(engine, port)
    engine.submit(Read(0x1000, 4, via=Via.DEVICE_TLB), Read(0x1000, 4, via=Via.DEVICE_TLB))
    assert ok(engine.run()) == [False, False]
    assert len(port.page_requests) == 2 * PAGE_REQUEST_ATTEMPTS


def test_without_page_requests_a_missing_page_is_refused() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port, allocation=0)
    engine.submit(Read(0x1000, 4, via=Via.DEVICE_TLB))
    assert ok(engine.run()) == [False]


def test_reset_empties_the_queue() -> None:
    engine, port = DmaEngine(), PagingPort()
    start(engine, port)
    engine.submit(Read(0x1000, 4, via=Via.DEVICE_TLB))
    engine.run()
    engine.reset()
    assert not engine.blocked
    assert engine.run() == []
