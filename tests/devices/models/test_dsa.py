"""The Data Streaming Accelerator, driven as idxd and its users drive it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.capabilities import ExtendedCapabilityId
from devices.dma import PageGroupResponse, ResponseCode
from devices.models.dsa import GROUPS, MSIX_TABLE, QUEUES, Dsa
from devices.models.dsa_structures import (
    Command,
    CommandError,
    Completion,
    Descriptor,
    Flag,
    GroupConfiguration,
    Operation,
    QueueConfiguration,
    SoftwareError,
    Status,
)
from devices.network.frames import crc32c
from tests.support.ports import PagingPort

SOURCE, TARGET, RECORD, LIST, MISSING = 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000, 0x8_0000
PASID = 0x1234
GENCTRL, GENSTS, INTCAUSE, CMD, CMDSTS, SWERR = 0x88, 0x90, 0x98, 0xA0, 0xA8, 0xC0
ASKED = Flag.COMPLETION_VALID | Flag.REQUEST_COMPLETION


class Host:
    """A driver with one user's work queue: memory mapped one to one below MISSING."""

    def __init__(self, *, enabled: bool = True, **configuration: int) -> None:
        self.device = Dsa()
        self.port = PagingPort()
        self.ram = self.port.ram
        for page in range(0, MISSING, 0x1000):
            self.port.map(page, page, pasid=PASID)
        self.device.connect(self.port)
        self.device.config.write(4, 2, 6)
        self.registers, self.portals = self.device.bars[0], self.device.bars[2]
        for vector in range(2):
            for offset, value in ((0, 0xFEE0_0000), (4, 0), (8, vector), (12, 0)):
                self.registers.write(MSIX_TABLE + 16 * vector + offset, 4, value)
        assert self.device.msix is not None
        self.device.msix.control.value = self.device.msix.control.value.replace(enable=1)
        for capability, offset, value in (
            (ExtendedCapabilityId.PASID, 6, 1),
            (ExtendedCapabilityId.PRI, 0xC, 32),
            (ExtendedCapabilityId.PRI, 4, 1),
            (ExtendedCapabilityId.ATS, 6, 0x8000),
        ):
            at = self.device.config.find_extended_capability(capability)
            assert at is not None
            self.device.config.write(at + offset, 4 if offset == 0xC else 2, value)
        self.set(GENCTRL, 1)
        self.configure(**configuration)
        if enabled:
            self.enable()

    def configure(self, queue: int = 0, **configuration: int) -> None:
        given = {
            "size": 16, "dedicated": 1, "block_on_fault": 1, "priority": 1, "pasid": PASID,
            "pasid_enabled": 1, "max_transfer": 21, "max_batch": 5, **configuration,
        }  # fmt: skip
        raw = QueueConfiguration.of(**given).pack()
        for at in range(0, 32, 4):
            self.set(QUEUES + 32 * queue + at, int.from_bytes(raw[at : at + 4], "little"))
        self.group(0, queues=1, engines=1)

    def group(self, number: int, **values: int) -> None:
        raw = GroupConfiguration.of(**values).pack()
        for at in range(0, 64, 8):
            value = int.from_bytes(raw[at : at + 8], "little")
            self.registers.write(GROUPS + 64 * number + at, 8, value)

    def enable(self) -> None:
        assert self.command(Command.ENABLE_DEVICE) is CommandError.NONE
        assert self.command(Command.ENABLE_QUEUE) is CommandError.NONE

    def get(self, offset: int) -> int:
        return self.registers.read(offset, 4)

    def set(self, offset: int, value: int) -> None:
        self.registers.write(offset, 4, value)

    def command(self, command: Command, operand: int = 0) -> CommandError:
        """As idxd: with an interrupt, whose cause is written back."""
        before = len(self.port.messages)
        self.set(CMD, 1 << 31 | command << 20 | operand)
        assert not self.get(CMDSTS) >> 31
        assert self.port.messages[before:] == [(0xFEE0_0000, 0)]
        assert self.get(INTCAUSE) & 2
        self.set(INTCAUSE, 2)
        return CommandError(self.get(CMDSTS) & 0xFF)

    def submit(self, operation: int, flags: int = ASKED, **values: int) -> None:
        """Write a descriptor in eight pieces, and let time pass."""
        given = {"completion": RECORD, "operation": operation, "flags": flags, **values}
        raw = Descriptor.of(**given).pack()
        self.ram.write(RECORD, bytes(32))
        for at in range(0, 64, 8):
            value = int.from_bytes(raw[at : at + 8], "little")
            self.portals.write(0x1000 + at, 8, value)
        self.device.clock.advance(1_000_000)

    @property
    def record(self) -> Completion:
        return Completion(int.from_bytes(self.ram.read(RECORD, 32), "little"))

    def status(self) -> Status:
        return Status(self.record.status)

    @property
    def error(self) -> SoftwareError:
        parts = [self.registers.read(SWERR + at, 8).to_bytes(8, "little") for at in range(0, 32, 8)]
        return SoftwareError(int.from_bytes(b"".join(parts), "little"))

    def answer(self, code: ResponseCode, page: int | None = None) -> None:
        """Answer the last page request, after mapping the page."""
        asked = self.port.page_requests[-1]
        if page is not None:
            self.port.map(asked.address, page, pasid=PASID)
        self.device.agent.page_response(
            PageGroupResponse(code=code, group_index=asked.group_index, pasid=PASID)
        )
        self.device.clock.advance(1_000_000)


@settings(max_examples=60)
@given(
    source=st.integers(SOURCE, SOURCE + 5000),
    distance=st.integers(-9000, 9000),
    data=st.binary(min_size=1, max_size=9000),
)
def test_a_move_arrives_whatever_overlaps(source: int, distance: int, data: bytes) -> None:
    host, target = Host(), source + distance
    host.ram.write(source, data)
    host.submit(Operation.MOVE, source=source, destination=target, size=len(data))
    assert host.status() is Status.SUCCESS
    assert host.record.completed == len(data)
    assert host.ram.read(target, len(data)) == data


@given(st.binary(min_size=8, max_size=8), st.integers(0, 5000), st.integers(1, 9000))
@settings(max_examples=40)
def test_a_fill_repeats_its_pattern(pattern: bytes, shift: int, size: int) -> None:
    host, value = Host(), int.from_bytes(pattern, "little")
    host.submit(Operation.FILL, source=value, destination=TARGET + shift, size=size)
    assert host.status() is Status.SUCCESS
    assert host.ram.read(TARGET + shift, size) == (pattern * (size // 8 + 1))[:size]
    host.submit(Operation.COMPARE_PATTERN, source=TARGET + shift, destination=value, size=size)
    assert (host.status(), host.record.result) == (Status.SUCCESS, 0)


@given(st.binary(min_size=1, max_size=6000), st.data())
@settings(max_examples=40)
def test_a_comparison_tells_the_first_difference(data: bytes, draw: st.DataObject) -> None:
    host, at = Host(), draw.draw(st.integers(0, len(data) - 1))
    host.ram.write(SOURCE + 77, data)
    host.ram.write(TARGET + 5, data)
    values = {"source": SOURCE + 77, "destination": TARGET + 5, "size": len(data)}
    host.submit(Operation.COMPARE, **values)
    assert (host.record.result, host.record.completed) == (0, len(data))
    host.ram.write(TARGET + 5 + at, bytes([data[at] ^ 0xFF]))
    host.submit(Operation.COMPARE, **values)
    assert (host.status(), host.record.result) == (Status.SUCCESS, 1)
    assert host.record.completed == at
    host.submit(Operation.COMPARE, ASKED | Flag.CHECK_RESULT, **values)
    assert host.status() is Status.FALSE_PREDICATE
    host.submit(Operation.COMPARE, ASKED | Flag.CHECK_RESULT, seed=1, **values)
    assert host.status() is Status.SUCCESS


@given(st.binary(min_size=1, max_size=5000), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30)
def test_a_crc_goes_on_from_its_seed(data: bytes, seed: int, from_memory: bool) -> None:
    host = Host()
    host.ram.write(SOURCE + 4000, data)
    host.ram.write(LIST, seed.to_bytes(4, "little"))
    flags = ASKED | (Flag.READ_SEED if from_memory else 0)
    values = {"source": SOURCE + 4000, "size": len(data), "destination": TARGET}
    values |= {"seed_address": LIST} if from_memory else {"seed": seed}
    for operation in (Operation.CRC, Operation.COPY_WITH_CRC):
        host.submit(operation, flags, **values)
        assert host.status() is Status.SUCCESS
        assert host.record.crc == crc32c(data, seed)
    assert host.ram.read(TARGET, len(data)) == data


def batch(host: Host, *descriptors: Descriptor) -> None:
    for number, each in enumerate(descriptors):
        host.ram.write(LIST + 64 * number, each.pack())


def test_a_batch_ends_after_all_of_its_descriptors() -> None:
    host = Host()
    host.ram.write(SOURCE, b"first and second")
    move = Descriptor.of(operation=Operation.MOVE, source=SOURCE, destination=TARGET, size=16)
    fill = Descriptor.of(operation=Operation.FILL, source=0x41, destination=SOURCE, size=1)
    batch(host, move, fill)
    host.submit(Operation.BATCH, source=LIST, size=2)
    assert (host.status(), host.record.completed) == (Status.SUCCESS, 2)
    assert host.ram.read(TARGET, 16) == b"first and second"
    assert host.ram.read(SOURCE, 1) == b"A"


def test_a_batch_with_a_descriptor_that_fails_says_so() -> None:
    host = Host()
    bad = Descriptor.of(operation=0x55, flags=ASKED, completion=RECORD + 64)
    inner = Descriptor.of(operation=Operation.BATCH, flags=ASKED, completion=RECORD + 96)
    batch(host, bad, inner)
    host.submit(Operation.BATCH, source=LIST, size=2)
    assert (host.status(), host.record.completed) == (Status.BATCH_FAILED, 2)
    for place in (64, 96):
        assert host.ram.read(RECORD + place, 1)[0] == Status.INVALID_OPERATION
    host.submit(Operation.BATCH, source=MISSING, size=2)
    assert (host.status(), host.record.address) == (Status.BATCH_PAGE_FAULT, MISSING)


@pytest.mark.parametrize(
    ("operation", "flags", "values", "status"),
    [
        (0x55, ASKED, {}, Status.INVALID_OPERATION),
        (Operation.NO_OP, ASKED | 0x8_0000, {}, Status.INVALID_FLAGS),
        (Operation.MOVE, ASKED, {"size": 0}, Status.TRANSFER_SIZE),
        (Operation.MOVE, ASKED, {"size": (1 << 21) + 1}, Status.TRANSFER_SIZE),
        (Operation.BATCH, ASKED, {"source": LIST, "size": 1}, Status.DESCRIPTOR_COUNT),
        (Operation.BATCH, ASKED, {"source": LIST, "size": 33}, Status.DESCRIPTOR_COUNT),
        (Operation.BATCH, ASKED, {"source": LIST + 8, "size": 2}, Status.LIST_ALIGNMENT),
        (
            Operation.COPY_WITH_CRC,
            ASKED,
            {"source": SOURCE, "destination": SOURCE + 1, "size": 2},
            Status.OVERLAP,
        ),
    ],
)
def test_what_can_not_be_carried_out_is_told(
    operation: int, flags: int, values: dict[str, int], status: Status
) -> None:
    host = Host()
    host.submit(operation, flags, **values)
    assert host.status() is status
    assert host.record.crc == (0x8_0000 if status is Status.INVALID_FLAGS else 0)


@pytest.mark.parametrize("written", [False, True])
def test_a_page_that_is_not_there_ends_a_descriptor_that_may_not_wait(written: bool) -> None:
    host = Host()
    start = MISSING - 0x1000
    values = {"source": SOURCE, "destination": start} if written else {"source": start}
    host.submit(Operation.MOVE, size=0x1800, **({"destination": TARGET} | values))
    assert host.status() is Status.PAGE_FAULT
    assert (host.record.written, host.record.address) == (written, MISSING)
    assert host.record.completed == 0x1000
    assert not host.port.page_requests


def test_a_page_that_is_not_there_is_asked_for() -> None:
    host = Host()
    host.ram.write(SOURCE, b"to a page that comes late" * 100)
    flags = ASKED | Flag.BLOCK_ON_FAULT
    host.submit(Operation.MOVE, flags, source=SOURCE, destination=MISSING, size=2000)
    assert host.status() is Status.NONE
    (asked,) = host.port.page_requests
    assert (asked.address, asked.pasid, asked.write) == (MISSING, PASID, True)
    host.answer(ResponseCode.SUCCESS, page=0x9_0000)
    assert (host.status(), host.record.completed) == (Status.SUCCESS, 2000)
    assert host.ram.read(0x9_0000, 25) == b"to a page that comes late"


@pytest.mark.parametrize("code", [ResponseCode.INVALID_REQUEST, ResponseCode.SUCCESS])
def test_a_page_that_never_comes_ends_the_descriptor(code: ResponseCode) -> None:
    host = Host()
    flags = ASKED | Flag.BLOCK_ON_FAULT
    host.submit(Operation.MOVE, flags, source=MISSING + 5, destination=TARGET, size=8)
    for _ in range(8):
        if host.status() is Status.NONE:
            host.answer(code)
    assert host.status() is Status.PAGE_REQUEST_REFUSED
    assert (host.record.written, host.record.address) == (0, MISSING + 5)
    assert len(host.port.page_requests) == (8 if code is ResponseCode.SUCCESS else 1)


def test_a_queue_that_may_not_block_refuses_the_flag() -> None:
    host = Host(block_on_fault=0)
    host.submit(Operation.NO_OP, ASKED | Flag.BLOCK_ON_FAULT)
    assert (host.status(), host.record.crc) == (Status.INVALID_FLAGS, Flag.BLOCK_ON_FAULT)


def test_a_completion_record_waits_for_its_page_too() -> None:
    host = Host()
    host.submit(Operation.NO_OP, completion=MISSING)
    assert host.port.page_requests[-1].address == MISSING
    host.answer(ResponseCode.SUCCESS, page=0x9_0000)
    assert host.ram.read(0x9_0000, 1)[0] == Status.SUCCESS


def test_an_error_without_a_record_is_in_the_register_and_interrupts() -> None:
    host = Host(block_on_fault=0)
    host.submit(Operation.NO_OP, completion=MISSING)
    error = host.error
    assert (error.valid, error.overflow, error.queue, error.pasid) == (1, 0, 0, PASID)
    assert (error.error, error.written, error.address) == (
        Status.COMPLETION_PAGE_FAULT, 1, MISSING,
    )  # fmt: skip
    assert host.port.messages[-1] == (0xFEE0_0000, 0)
    assert host.get(INTCAUSE) & 1
    host.submit(0x55, 0)
    assert host.error.overflow == 1
    assert host.error.error == Status.COMPLETION_PAGE_FAULT
    host.set(SWERR, 3)
    assert host.error.valid == 0
    host.submit(Operation.NO_OP, completion=RECORD + 4)
    assert host.error.error == Status.COMPLETION_ALIGNMENT


def test_an_interrupt_comes_after_the_record() -> None:
    host = Host()
    host.submit(Operation.NO_OP, ASKED | Flag.REQUEST_INTERRUPT, vector=1)
    assert host.status() is Status.SUCCESS
    assert host.port.messages[-1] == (0xFEE0_0000, 1)
    host.submit(Operation.NO_OP, ASKED | Flag.REQUEST_INTERRUPT, vector=99)
    assert host.error.error == Status.INTERRUPT_HANDLE


def test_a_descriptor_may_arrive_in_any_pieces() -> None:
    host = Host()
    host.ram.write(RECORD, bytes(32))
    raw = Descriptor.of(operation=Operation.NO_OP, flags=ASKED, completion=RECORD).pack()
    for at in (32, 0, 48, 16, 8, 24, 40):
        host.portals.write(0x40 + at, 8, int.from_bytes(raw[at : at + 8], "little"))
    host.device.clock.advance(10_000)
    assert host.status() is Status.NONE
    for at in (60, 56):
        host.portals.write(0x40 + at, 4, int.from_bytes(raw[at : at + 4], "little"))
    host.device.clock.advance(10_000)
    assert host.status() is Status.SUCCESS
    assert host.portals.read(0x40, 8) == 2**64 - 1
    host.ram.write(RECORD, bytes(32))
    host.portals.write(0x80, 64, int.from_bytes(raw, "little"))
    host.device.clock.advance(10_000)
    assert host.status() is Status.SUCCESS


def test_a_queue_takes_no_more_than_its_size() -> None:
    host = Host(size=2)
    raw = Descriptor.of(
        operation=Operation.FILL, source=1, destination=TARGET, size=1, completion=RECORD,
        flags=ASKED | Flag.BLOCK_ON_FAULT,
    )  # fmt: skip
    for number in range(4):
        one = raw.replace(destination=TARGET + number)
        host.portals.write(0, 64, int(one))
    host.device.clock.advance(1_000_000)
    assert host.ram.read(TARGET, 4) == b"\1\1\0\0"


def test_a_drain_is_done_when_nothing_waits_any_more() -> None:
    host = Host()
    flags = ASKED | Flag.BLOCK_ON_FAULT
    host.submit(Operation.MOVE, flags, source=MISSING, destination=TARGET, size=8)
    host.set(CMD, 1 << 31 | Command.DRAIN_QUEUE << 20 | 1)
    assert host.get(CMDSTS) >> 31
    host.set(CMD, Command.ENABLE_DEVICE << 20)  # not heard while another one is active
    messages = len(host.port.messages)
    host.answer(ResponseCode.SUCCESS, page=0x9_0000)
    assert host.get(CMDSTS) == 0
    assert len(host.port.messages) == messages + 1
    assert host.status() is Status.SUCCESS


@pytest.mark.parametrize("command", [Command.ABORT_QUEUE, Command.ABORT_ALL])
def test_an_abort_forgets_what_waits(command: Command) -> None:
    host = Host()
    flags = ASKED | Flag.BLOCK_ON_FAULT
    host.submit(Operation.MOVE, flags, source=MISSING, destination=TARGET, size=8)
    assert host.command(command, 1) is CommandError.NONE
    host.answer(ResponseCode.SUCCESS, page=0x9_0000)
    assert host.status() is Status.NONE
    host.submit(Operation.NO_OP)
    assert host.status() is Status.SUCCESS


def test_a_queue_that_is_off_takes_nothing_and_can_be_changed() -> None:
    host = Host()
    host.configure(pasid=7)
    assert host.device.configuration(0).pasid == PASID
    assert host.command(Command.DISABLE_QUEUE, 1) is CommandError.NONE
    host.submit(Operation.NO_OP)
    assert host.status() is Status.NONE
    host.configure(pasid=7)
    assert host.device.configuration(0).pasid == 7
    assert host.command(Command.ENABLE_QUEUE) is CommandError.NONE
    host.submit(Operation.NO_OP)  # nothing is mapped for this PASID
    assert host.status() is Status.NONE
    assert host.port.page_requests[-1].pasid == 7


@pytest.mark.parametrize(
    ("prepare", "command", "operand", "error"),
    [
        (lambda h: h.configure(size=129), Command.ENABLE_DEVICE, 0, CommandError.QUEUE_SIZES),
        (lambda h: h.group(0, queues=1), Command.ENABLE_DEVICE, 0, CommandError.GROUP_INCOMPLETE),
        (
            lambda h: h.group(1, queues=1, engines=2),
            Command.ENABLE_DEVICE,
            0,
            CommandError.QUEUE_IN_TWO_GROUPS,
        ),
        (
            lambda h: h.group(1, queues=2, engines=1),
            Command.ENABLE_DEVICE,
            0,
            CommandError.ENGINE_IN_TWO_GROUPS,
        ),
        (
            lambda h: h.group(0, queues=2, engines=1),
            Command.ENABLE_DEVICE,
            0,
            CommandError.QUEUE_WITHOUT_GROUP,
        ),
        (
            lambda h: h.device.config.write(4, 2, 2),
            Command.ENABLE_DEVICE,
            0,
            CommandError.NO_BUS_MASTER,
        ),
        (lambda _: None, Command.ENABLE_QUEUE, 0, CommandError.DEVICE_DISABLED),
        (lambda _: None, Command.DISABLE_DEVICE, 0, CommandError.NOT_ENABLED),
        (lambda _: None, Command.DRAIN_QUEUE, 1, CommandError.NOT_ENABLED),
        (lambda h: h.enable(), Command.ENABLE_DEVICE, 0, CommandError.DEVICE_ENABLED),
        (lambda h: h.enable(), Command.ENABLE_QUEUE, 0, CommandError.QUEUE_ENABLED),
        (lambda h: h.enable(), Command.ENABLE_QUEUE, 1, CommandError.QUEUE_SIZE),
        (lambda h: h.enable(), Command.ENABLE_QUEUE, 8, CommandError.INVALID_QUEUE),
        (lambda h: h.enable(), Command.DRAIN_QUEUE, 2, CommandError.QUEUE_DISABLED),
        (lambda h: h.enable(), Command.DRAIN_QUEUE, 0x1_0001, CommandError.INVALID_QUEUE),
        (lambda h: h.enable(), 31, 0, CommandError.INVALID_COMMAND),
    ],
)
def test_a_command_that_can_not_be_carried_out_says_why(
    prepare: Callable[[Host], None], command: int, operand: int, error: CommandError
) -> None:
    host = Host(enabled=False)
    prepare(host)
    host.set(CMD, command << 20 | operand)
    assert CommandError(host.get(CMDSTS)) is error


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"priority": 0}, CommandError.QUEUE_PRIORITY),
        ({"dedicated": 0}, CommandError.QUEUE_MODE),
        ({"max_transfer": 22}, CommandError.MAX_TRANSFER),
        ({"max_batch": 11}, CommandError.MAX_BATCH),
    ],
)
def test_a_queue_that_can_not_be_so_is_not_enabled(
    wrong: dict[str, int], error: CommandError
) -> None:
    host = Host(enabled=False, **wrong)
    assert host.command(Command.ENABLE_DEVICE) is CommandError.NONE
    assert host.command(Command.ENABLE_QUEUE) is error


def test_a_reset_forgets_everything_but_who_wants_interrupts() -> None:
    host = Host()
    flags = ASKED | Flag.BLOCK_ON_FAULT
    host.submit(Operation.MOVE, flags, source=MISSING, destination=TARGET, size=8)
    host.set(CMD, Command.RESET_DEVICE << 20)
    assert (host.get(GENSTS), host.get(CMDSTS)) == (0, 0)
    assert host.device.configuration(0).size == 0
    host.answer(ResponseCode.SUCCESS, page=0x9_0000)
    assert host.status() is Status.NONE
    host.configure()
    host.enable()
    host.submit(Operation.NO_OP)
    assert host.status() is Status.SUCCESS
