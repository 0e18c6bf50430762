"""Primary fault logging against a model of 7.2.1 and 7.3 written from the text."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import ATOMIC, READ, WRITE, Request
from tests.support.world import HOLE, Mode, Started, World, capabilities
from vtd.layouts.registers import FaultRecording, FaultStatus
from vtd.unit.departures import QEMU, SPECIFICATION, Departures
from vtd.unit.options import Options
from vtd.unit.requests.faults import FaultReason
from vtd.unit.unit import RemappingUnit

PPF, PFO, IQE = 1 << 1, 1 << 0, 1 << 4
REASON = 0x08


def start(records: int, *, compress: bool = False) -> Started:
    """A unit with this many fault records; every request has fault 08h."""
    unit = capabilities(nfr=records - 1, fro=0x1000)
    world = World(Mode.LEGACY, unit)
    world.root = world.root.replace(rta=HOLE)
    return world.start(Options(departures=Departures(compress_faults=compress)))


@dataclass
class Model:
    """The recording registers and the fault event, as the text describes them."""

    size: int
    compress: bool
    records: dict[int, int] = field(default_factory=dict)
    """Source-ids of the records with F set."""
    next: int = 0
    pfo: bool = False
    fri: int = 0
    masked: bool = True
    pending: bool = False
    sent: int = 0

    def fault(self, source_id: int) -> None:
        """Steps 2 to 5 of 7.2.1."""
        if self.pfo or (self.compress and source_id in self.records.values()):
            return
        if self.next in self.records:
            self.pfo = True
            return
        first = not self.records
        self.records[self.next] = source_id
        if first:
            self.fri = self.next
            self.pending = True
            self._send()
        self.next = (self.next + 1) % self.size

    def clear(self, index: int) -> None:
        """Software writes 1 to F."""
        self.records.pop(index, None)
        self._settle()

    def clear_overflow(self) -> None:
        """Software writes 1 to PFO."""
        self.pfo = False
        self._settle()

    def mask(self, masked: bool) -> None:
        """Software writes IM."""
        self.masked = masked
        self._send()

    def _send(self) -> None:
        if self.pending and not self.masked:
            self.pending = False
            self.sent += 1

    def _settle(self) -> None:
        if not self.records and not self.pfo:
            self.pending = False


steps = st.one_of(
    st.tuples(st.just("fault"), st.integers(1, 4)),
    st.tuples(st.just("fault"), st.integers(1, 4)),
    st.tuples(st.just("clear"), st.integers(0, 7)),
    st.tuples(st.just("clear all"), st.just(0)),
    st.tuples(st.just("clear overflow"), st.just(0)),
    st.tuples(st.just("mask"), st.booleans()),
    st.tuples(st.just("restart"), st.just(0)),
)


@given(st.sampled_from([1, 2, 3, 8]), st.booleans(), st.lists(steps, max_size=40))
@settings(max_examples=100)
@pytest.mark.section("7.2.1")
def test_logging_follows_the_steps_of_7_2_1(
    size: int, compress: bool, program: list[tuple[str, Any]]
) -> None:
    started, model = start(size, compress=compress), Model(size, compress)
    base = started.unit.capabilities.fault_recording_offset
    for step, value in program:
        match step:
            case "fault":
                started.admit(Request(value, 0x1000, READ))
                model.fault(value)
            case "clear" if value < size:
                started.unit.write_register(base + value * 16 + 12, 4, 1 << 31)
                model.clear(value)
            case "clear all":
                for index in range(size):
                    started.unit.write_register(base + index * 16 + 8, 8, 1 << 63)
                    model.clear(index)
            case "clear overflow":
                started.unit.write_register(0x34, 4, PFO | PPF)
                model.clear_overflow()
            case "mask":
                started.unit.write_register(0x38, 4, value << 31)
                model.mask(value)
            case "restart":
                started.command(te=False)
                started.command(te=True)
                model.next = 0
        status = started.status()
        found = {
            index: started.record(index).sid for index in range(size) if started.record(index).f
        }
        assert found == model.records
        assert (status.ppf, status.pfo) == (bool(model.records), model.pfo)
        if status.ppf:
            assert status.fri == model.fri
        assert len(started.messages) == model.sent
        assert started.unit.read_register(0x38, 4) == model.masked << 31 | model.pending << 30


@pytest.mark.parametrize("records", [1, 2, 17, 256])
def test_each_record_is_used_in_turn(records: int) -> None:
    started = start(records)
    for number in range(records + 3):
        started.admit(Request(number, 0x1000 * number, WRITE))
    for index in range(records):
        record = started.record(index)
        assert (record.sid, record.fi, record.fr) == (index, 0x1000 * index, REASON)
    assert started.status() == FaultStatus.of(ppf=True, pfo=True)


def test_logging_goes_on_where_it_stopped() -> None:
    started = start(4)
    for number in range(6):
        started.admit(Request(number, 0, READ))
    started.clear_records()
    started.admit(Request(0x77, 0, READ))
    assert [started.record(index).f for index in range(4)] == [True, False, False, False]
    started.clear_records()
    started.admit(Request(0x78, 0, READ))
    assert started.record(1).sid == 0x78
    assert started.status().fri == 1


@pytest.mark.section("7.2.1")
def test_a_unit_that_software_has_not_touched_records_from_the_first_record_on() -> None:
    has = capabilities(nfr=1, irreq=1)
    unit = RemappingUnit(has, World(Mode.LEGACY, has).memory)
    unit.faults.interrupt_fault(7, 0xFEE0_0000, 3, FaultReason.IR_REMAPPING_REQUIRED)
    record = unit.registers[FaultRecording, 0]
    assert (record.f, record.sid, record.fi) == (True, 7, 3 << 48)


@pytest.mark.section("7.2.1")
def test_under_overflow_faults_of_interrupts_are_lost_though_a_record_is_free() -> None:
    started = start(1)
    for number in (1, 2):
        started.unit.faults.interrupt_fault(number, 0xFEE0_0000, 0, FaultReason.IR_NOT_PRESENT)
    started.unit.write_register(started.unit.capabilities.fault_recording_offset + 12, 4, 1 << 31)
    started.unit.faults.interrupt_fault(3, 0xFEE0_0000, 0, FaultReason.IR_NOT_PRESENT)
    assert started.status() == FaultStatus.of(pfo=True)
    started.unit.write_register(0x34, 4, PFO)
    started.unit.faults.interrupt_fault(4, 0xFEE0_0000, 0, FaultReason.IR_NOT_PRESENT)
    assert (started.record().f, started.record().sid) == (True, 4)


@pytest.mark.parametrize(
    ("commands", "index"),
    [
        ([{"qie": True}], 1),
        ([{"ire": True}, {"te": False}], 1),
        ([{"ire": True}, {"te": False}, {"ire": False}], 0),
        ([{"te": False}], 0),
    ],
)
@pytest.mark.section("7.2.1")
def test_only_a_unit_that_remaps_nothing_goes_back_to_the_first_record(
    commands: list[dict[str, bool]], index: int
) -> None:
    started = start(4)
    started.admit(Request(1, 0, READ))
    for command in commands:
        started.command(**command)
    assert started.unit.faults.next_index == index


@pytest.mark.section("11.4.7.1")
def test_an_overflow_is_no_event() -> None:
    started = start(1)
    started.unit.write_register(0x38, 4, 0)
    started.admit(Request(1, 0, READ))
    started.admit(Request(2, 0, READ))
    assert started.status().pfo
    assert len(started.messages) == 1


def test_an_event_while_another_status_is_set_is_none() -> None:
    started = start(2)
    started.enable_queue(wide=False)
    started.unit.write_register(0x38, 4, 0)
    started.submit(0xF)
    started.admit(Request(1, 0, READ))
    assert started.status() & (IQE | PPF) == IQE | PPF
    assert len(started.messages) == 1
    started.unit.write_register(0x34, 4, IQE)
    started.clear_records()


@pytest.mark.section("7.3")
def test_clearing_every_cause_withdraws_a_masked_event() -> None:
    started = start(2)
    started.admit(Request(1, 0, READ))
    assert started.unit.read_register(0x38, 4) == 0xC000_0000
    started.clear_records()
    assert started.unit.read_register(0x38, 4) == 0x8000_0000
    started.unit.write_register(0x38, 4, 0)
    assert started.messages == []


@pytest.mark.parametrize("cause", ["iqe", "ice", "ite"])
@pytest.mark.section("7.3")
def test_errors_of_the_queue_keep_a_masked_event_pending_until_they_are_cleared(cause: str) -> None:
    started = start(2)
    bit = FaultStatus.FIELDS[cause].mask
    started.unit.faults.raise_status(**{cause: True})
    assert started.unit.read_register(0x38, 4) == 0xC000_0000
    started.admit(Request(1, 0, READ))
    started.clear_records()
    assert started.unit.read_register(0x38, 4) == 0xC000_0000
    started.unit.write_register(0x34, 4, bit)
    assert started.unit.read_register(0x38, 4) == 0x8000_0000


def test_an_event_stays_pending_while_a_cause_is_left() -> None:
    started = start(2)
    started.admit(Request(1, 0, READ))
    started.admit(Request(2, 0, READ))
    base = started.unit.capabilities.fault_recording_offset
    started.unit.write_register(base + 12, 4, 1 << 31)
    assert started.unit.read_register(0x38, 4) == 0xC000_0000
    started.unit.write_register(0x38, 4, 0)
    assert len(started.messages) == 1


@pytest.mark.section("7.2", "11.4.7.6")
def test_a_record_names_the_request() -> None:
    started = start(8)
    requests = [
        Request(0x1234, 0x7_1234_5678, READ, 4),
        Request(0x1234, 0x7_1234_5678, WRITE, 4),
        Request(0x1234, 0x7_1234_5678, ATOMIC, 8),
        Request(0x1234, 0x7_1234_5678, READ, 4, 0x5_4321, privileged=True),
    ]
    for request in requests:
        started.admit(request)
    low, high = 0x7_1234_5000, 1 << 63 | REASON << 32 | 0x1234
    assert started.record(0) == (high | 1 << 62) << 64 | low
    assert started.record(1) == high << 64 | low
    assert started.record(2) == (high | 1 << 62 | 1 << 28) << 64 | low
    with_pasid = 0x31 << 32 | 1 << 63 | 0x1234 | 1 << 62
    with_pasid |= 0x5_4321 << 40 | 1 << 31 | 1 << 29
    assert started.record(3) == with_pasid << 64 | low


@pytest.mark.fields("ExtendedCapability.pasid", "FaultRecording.pp")
def test_a_unit_without_pasid_records_none() -> None:
    world = World(Mode.LEGACY, capabilities(smts=0, pasid=0))
    started = world.start()
    started.admit(Request(1, 0x1000, READ, 4, 0x45))
    record = started.record()
    assert (record.fr, record.pp, record.pv) == (0x31, False, 0)


@pytest.mark.parametrize(("sagaw", "width"), [(2, 39), (4, 48), (6, 48), (8, 57), (0, 64)])
def test_the_address_has_as_many_bits_as_the_widest_tables(sagaw: int, width: int) -> None:
    world = World(Mode.LEGACY, capabilities(sagaw=sagaw))
    world.root = world.root.replace(rta=HOLE)
    started = world.start()
    started.admit(Request(1, (1 << 64) - 1, READ))
    assert started.record().fi == (1 << width) - 0x1000


@pytest.mark.parametrize("departures", [SPECIFICATION, QEMU])
def test_a_transfer_past_the_last_address_is_refused(departures: Departures) -> None:
    world = World(Mode.LEGACY, capabilities(sagaw=0))
    started = world.start(Options(departures=departures))
    assert not started.port().read((1 << 64) - 4, 8).ok
    assert not started.port().write((1 << 64) - 4, bytes(8)).ok


@pytest.mark.parametrize(
    ("reason", "undefined"),
    [(FaultReason.IR_NOT_AN_INTERRUPT, {0, 4}), (FaultReason.CONTEXT_NOT_PRESENT, set())],
)
def test_only_the_information_of_some_reasons_is_undefined(
    reason: FaultReason, undefined: set[int]
) -> None:
    started = start(2)
    started.unit.faults.log(FaultRecording.of(fr=reason))
    base = started.unit.capabilities.fault_recording_offset
    defined = started.unit.faults.is_information_defined
    assert {each for each in range(0, 16, 4) if not defined(base + each)} == undefined
    assert defined(0x34)
