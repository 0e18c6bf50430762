"""The ATS agent: what it may send, what it keeps, how it answers, and each misbehaviour."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.ats import AtsAgent, Misbehaviour, put_device_tlb
from devices.capabilities import ExtendedCapabilityId, add_ats, add_pasid, add_pri
from devices.device_tlb import DeviceTlb
from devices.dma import (
    READ,
    WRITE,
    AtomicOp,
    CompletionStatus,
    InvalidationRequest,
    PageGroupResponse,
    Request,
    ResponseCode,
)
from devices.function import Identity, PciFunction
from devices.models.edu import Edu
from devices.pri import PageRequestInterface
from devices.sriov import Sriov
from tests.support.ports import PagingPort, RecordingPort

EVERYTHING = InvalidationRequest(0, 1 << 64, False, None, 5)
WANTED = Request(0, 0x5000, READ)
"""What the page requests of these tests are for."""


class Bench(NamedTuple):
    """A function with every capability, its agent, and the port it is connected to."""

    function: PciFunction
    agent: AtsAgent
    port: PagingPort

    def control(self, capability: int, value: int) -> None:
        """Write the 16-bit control register of an extended capability."""
        at = self.function.config.find_extended_capability(capability)
        assert at is not None
        self.function.config.write(at + (4 if capability == 0x13 else 6), 2, value)

    def allow(self, requests: int) -> None:
        """Write the page request allocation."""
        at = self.function.config.find_extended_capability(0x13)
        assert at is not None
        self.function.config.write(at + 0xC, 4, requests)


def make(
    misbehaviour: Misbehaviour = Misbehaviour.NONE, traffic_classes: int = 1, *, on: bool = True
) -> Bench:
    function = PciFunction(Identity(0x1234, 0x11E9, 0x00FF00))
    agent = AtsAgent(
        function,
        add_ats(function.config),
        pages=PageRequestInterface(add_pri(function.config)),
        pasid=add_pasid(function.config, translated=True),
        misbehaviour=misbehaviour,
        traffic_classes=traffic_classes,
    )
    bench = Bench(function, agent, PagingPort())
    function.connect(bench.port)
    function.config.write(4, 2, 4)
    bench.port.map(0x1000, 0x9000)
    bench.port.map(0x2000, 0xA000)
    bench.port.map(0x3000, 0xB000, "r")
    bench.port.map(0x1000, 0xC000, pasid=7)
    if on:
        bench.control(0x1B, 0b101)
        bench.control(0x13, 1)
        bench.control(0x0F, 0x8000)
        bench.allow(4)
    return bench


@given(data=st.binary(max_size=0x1800), offset=st.integers(0, 0x7FF), pasid=st.sampled_from([None]))
def test_transfers_through_the_device_tlb_move_the_bytes(
    data: bytes, offset: int, pasid: int | None
) -> None:
    bench = make()
    assert bench.agent.write(0x1000 + offset, data, pasid=pasid).ok
    assert bench.agent.read(0x1000 + offset, len(data), pasid=pasid).data == data
    assert bench.port.ram.read(0x9000 + offset, len(data)) == data
    touched = {(0x1000 + offset + at) >> 12 for at in range(max(len(data), 1))}
    assert bench.port.translations == len(touched)


def test_a_kept_translation_is_used_as_a_translated_request() -> None:
    bench = make()
    for _ in range(3):
        assert bench.agent.read(0x1234, 4).ok
    assert bench.port.translations == 1
    assert bench.port.translated == [0x9234] * 3


def test_pasids_have_translations_of_their_own() -> None:
    bench = make()
    bench.agent.read(0x1000, 4)
    bench.agent.read(0x1000, 4, pasid=7)
    bench.agent.read(0x1000, 4, pasid=7, privileged=True)
    assert bench.port.translated == [0x9000, 0xC000, 0xC000]
    assert bench.port.translations == 3


def test_while_ats_is_off_requests_go_untranslated() -> None:
    bench = make(on=False)
    assert bench.agent.write(0x1000, b"1234").ok
    assert bench.agent.read(0x1000, 4).data == b"1234"
    assert bench.port.translations == 0
    assert bench.port.translated == []
    assert not bench.agent.translate(0x1000).ok


def test_disabling_ats_drops_every_translation() -> None:
    bench = make()
    bench.agent.read(0x1000, 4)
    bench.control(0x0F, 0)
    assert len(bench.agent.tlb) == 0


def test_function_reset_drops_every_translation() -> None:
    bench = make()
    bench.agent.read(0x1000, 4)
    bench.agent.request_pages(WANTED, [0x5000])
    bench.function.reset()
    assert len(bench.agent.tlb) == 0
    assert bench.agent.pages is not None
    assert bench.agent.pages.outstanding == 0


def test_nothing_leaves_without_bus_mastering() -> None:
    bench = make()
    bench.agent.read(0x1000, 4)
    bench.function.config.write(4, 2, 0)
    assert not bench.agent.read(0x1000, 4).ok
    assert not bench.agent.write(0x1000, b"1234").ok
    assert not bench.agent.atomic(AtomicOp.SWAP, 0x1000, bytes(4)).ok
    assert not bench.agent.translate(0x2000).ok
    assert bench.agent.request_pages(WANTED, [0x5000]) is None
    assert bench.port.translated == [0x9000]


@pytest.mark.parametrize(
    ("control", "kind", "sent"),
    [
        (0b001, (7, False), True),
        (0b001, (7, True), False),
        (0b101, (7, True), True),
        (0b000, (7, False), False),
        (0b001, (1 << 20, False), False),
        (0b101, (None, True), False),
    ],
    ids=str,
)
def test_the_pasid_capability_decides_what_may_be_sent(
    control: int, kind: tuple[int | None, bool], sent: bool
) -> None:
    bench = make(on=False)
    bench.control(0x1B, control)
    bench.control(0x0F, 0x8000)
    assert bench.agent.request(Request(0, 0x1000, READ, 4, *kind)).ok is sent
    assert bool(bench.port.translations) is sent


@pytest.mark.parametrize(("control", "pasid"), [(0b0001, None), (0b1001, 7)])
def test_translated_requests_carry_the_pasid_only_if_that_is_enabled(
    control: int, pasid: int | None
) -> None:
    bench = make(on=False)
    bench.control(0x1B, control)
    bench.control(0x0F, 0x8000)
    for _ in range(2):
        bench.agent.read(0x1000, 4, pasid=7)
        bench.agent.write(0x1000, b"1234", pasid=7)
    assert bench.port.translated_pasids == [pasid] * 4


def test_pasid_control_is_fixed_while_ats_is_enabled() -> None:
    bench = make()
    bench.control(0x1B, 0)
    assert bench.agent.read(0x1000, 4, pasid=7).ok


def test_a_port_without_ats_leaves_the_function_without_it() -> None:
    bench = make()
    plain = RecordingPort()
    bench.function.connect(plain)
    assert not bench.agent.translate(0x1000).ok
    assert not bench.agent.enabled
    assert bench.agent.write(0x9000, b"1234").ok
    assert plain.ram.read(0x9000, 4) == b"1234"
    bench.agent.invalidate(EVERYTHING)
    assert bench.agent.request_pages(WANTED, [0x1000]) == 0  # a message: nobody tells its fate
    assert bench.agent.pages is not None
    assert bench.agent.pages.outstanding == 1


def test_a_missing_permission_is_refused_by_the_function_itself() -> None:
    bench = make()
    assert bench.agent.read(0x3000, 4).ok
    assert not bench.agent.write(0x3000, b"1234").ok
    assert not bench.agent.read(0x5000, 4).ok
    assert bench.agent.missing(Request(0, 0x2800, WRITE, 0x1000)) == (0x3000,)
    assert bench.agent.missing(Request(0, 0x2800, READ, 0x1000)) == ()


def test_a_write_asks_for_write_permission_a_read_does_not() -> None:
    bench = make()
    bench.agent.read(0x1000, 4)
    assert bench.agent.tlb.entries()[0].permissions == READ
    bench.agent.write(0x1000, b"1234")
    assert bench.agent.tlb.entries()[0].permissions == READ | WRITE


def test_untranslated_only_ranges_are_reached_untranslated_and_not_kept() -> None:
    bench = make()
    bench.port.untranslated_only = True
    assert bench.agent.write(0x1000, b"1234").ok
    assert bench.port.translated == []
    assert len(bench.agent.tlb) == 0


def test_an_unsupported_translation_request_turns_ats_off_until_enabled_anew() -> None:
    bench = make()
    bench.port.status = CompletionStatus.UNSUPPORTED_REQUEST
    assert bench.agent.read(0x1000, 4).ok
    assert bench.agent.read(0x1000, 4).ok
    assert bench.port.translations == 1
    assert not bench.agent.enabled
    bench.port.status = CompletionStatus.SUCCESS
    bench.control(0x0F, 0x8000)
    bench.agent.read(0x1000, 4)
    assert bench.port.translated == [0x9000]


def test_an_aborted_translation_request_fails_the_access_alone() -> None:
    bench = make()
    bench.port.status = CompletionStatus.COMPLETER_ABORT
    assert not bench.agent.read(0x1000, 4).ok
    assert bench.agent.enabled
    assert bench.port.translated == []


def test_several_translations_of_one_request_are_kept_one_after_another() -> None:
    bench = make()
    assert len(bench.agent.translate(0x1000, 3).entries) == 3
    assert bench.agent.read(0x1000, 0x3000).ok
    assert bench.port.translations == 1


def test_atomics_go_untranslated() -> None:
    bench = make()
    bench.port.pages[0x1000, None] = (0x9000, True, True)
    assert bench.agent.atomic(AtomicOp.FETCH_ADD, 0x1000, bytes([1, 0, 0, 0])).data == bytes(4)
    assert bench.port.translated == []


@pytest.mark.parametrize("traffic_classes", [1, 3, 8])
def test_an_invalidation_is_completed_once_per_traffic_class(traffic_classes: int) -> None:
    bench = make(traffic_classes=traffic_classes)
    bench.agent.read(0x1000, 4)
    bench.agent.invalidate(EVERYTHING)
    assert len(bench.agent.tlb) == 0
    assert bench.port.completions == [(1 << 5, traffic_classes)] * traffic_classes


def test_traffic_classes_fit_the_completion_count() -> None:
    with pytest.raises(ValueError, match="traffic_classes"):
        make(traffic_classes=9)


@pytest.mark.parametrize(
    ("misbehaviour", "completions", "kept"),
    [
        (Misbehaviour.NONE, [1 << 5], 0),
        (Misbehaviour.IGNORE, [], 1),
        (Misbehaviour.DELAY, [], 1),
        (Misbehaviour.ANSWER_TWICE, [1 << 5] * 2, 0),
        (Misbehaviour.ANSWER_WRONG_TAG, [1 << 6], 0),
        (Misbehaviour.KEEP_ENTRIES, [1 << 5], 1),
    ],
)
def test_misbehaviour_shows_in_the_answer_or_in_what_is_kept(
    misbehaviour: Misbehaviour, completions: list[int], kept: int
) -> None:
    bench = make(misbehaviour)
    bench.agent.read(0x1000, 4)
    bench.agent.invalidate(EVERYTHING)
    assert [vector for vector, _ in bench.port.completions] == completions
    assert len(bench.agent.tlb) == kept


def test_a_delayed_invalidation_is_answered_when_told_to() -> None:
    bench = make(Misbehaviour.DELAY)
    bench.agent.read(0x1000, 4)
    bench.agent.invalidate(EVERYTHING)
    assert bench.agent.delayed == [EVERYTHING]
    bench.agent.answer_delayed()
    assert (bench.agent.delayed, len(bench.agent.tlb)) == ([], 0)
    assert bench.port.completions == [(1 << 5, 1)]


def test_a_forged_address_never_saw_a_translation() -> None:
    bench = make(Misbehaviour.FORGE_ADDRESS)
    bench.agent.read(0x4000, 4)
    assert (bench.port.translations, bench.port.translated) == (0, [0x4000])


def test_use_while_disabled_keeps_translations_past_the_disable() -> None:
    bench = make(Misbehaviour.USE_WHILE_DISABLED)
    bench.agent.read(0x1000, 4)
    bench.control(0x0F, 0)
    bench.agent.read(0x1000, 4)
    assert bench.port.translated == [0x9000, 0x9000]


def test_without_the_page_request_capability_there_are_no_page_requests() -> None:
    function = PciFunction(Identity(0x1234, 0x11E9, 0x00FF00))
    agent = AtsAgent(function, add_ats(function.config))
    function.connect(PagingPort())
    function.config.write(4, 2, 4)
    assert agent.request_pages(WANTED, [0x5000]) is None
    agent.page_response(PageGroupResponse(ResponseCode.SUCCESS, 0))


def test_a_virtual_function_shares_the_pasid_and_page_requests_of_its_physical_one() -> None:
    bench = make()
    sriov = Sriov(bench.function, total_vfs=1, first_offset=0x10, stride=0, vf_device_id=1)
    bench.function.config.write(sriov.count.offset, 2, 1)
    bench.function.config.write(sriov.control.offset, 2, 1)
    virtual = sriov.functions[0]
    agent = AtsAgent(
        virtual, add_ats(virtual.config), pages=bench.agent.pages, pasid=bench.agent.pasid
    )
    virtual.connect(bench.port)
    virtual.config.write(4, 2, 4)
    virtual.config.write(0x106, 2, 0x8000)
    assert agent.read(0x1000, 4, pasid=7).ok
    assert agent.request_pages(WANTED, [0x5000] * 3) == 0
    assert bench.agent.request_pages(WANTED, [0x5000] * 2) is None
    assert bench.agent.request_pages(WANTED, [0x5000]) == 1


def test_what_the_root_refuses_is_refused_to_the_device() -> None:
    bench = make()
    bench.port.untranslated_only = True
    bench.port.map(0x2000, 0xA000, "r")
    assert not bench.agent.write(0x2000, b"1234").ok
    bench.port.map(0x2000, 0xA000, "")
    assert not bench.agent.read(0x2000, 4).ok


def test_a_device_tlb_can_be_put_in_front_of_any_model() -> None:
    """A conventional function becomes an express one; its interrupts stay untranslated."""
    edu, port = Edu(), PagingPort()
    agent = put_device_tlb(edu, DeviceTlb(8))
    edu.connect(port)
    assert edu.client is agent and edu.pcie is not None and edu.config.size == 4096
    edu.config.write(4, 2, 6)
    at = edu.config.find_extended_capability(0xF)
    assert at is not None
    port.map(0x5000, 0x3000)
    port.ram.write(0x3010, b"page")
    for enabled in (False, True):
        edu.config.write(at + 6, 2, enabled << 15)
        for _ in range(3):
            assert edu.dma.read(0x5010, 4).data == b"page"
        assert port.translations == (1 if enabled else 0)
        assert len(agent.tlb) == (1 if enabled else 0)
    assert len(port.translated) == 3
    edu.send_message(0xFEE0_0000, 5)
    assert port.messages == [(0xFEE0_0000, 5)]
    edu.reset()
    assert len(agent.tlb) == 0
    with pytest.raises(ValueError, match="already"):
        put_device_tlb(edu)


def test_a_function_of_any_model_can_ask_for_pages() -> None:
    """The pages are asked for in one group, and the transfer is sent again if they came."""
    edu = Edu()
    agent = put_device_tlb(edu, page_requests=4)
    assert agent.pages is not None
    at = edu.config.find_extended_capability(ExtendedCapabilityId.PRI)
    assert at is not None
    assert edu.config.read(at + 8, 4) == 4
    assert not edu.dma.read(0x1000, 8).ok  # nothing is on yet, and nobody answers
