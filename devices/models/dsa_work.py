"""Descriptors of the Data Streaming Accelerator as they are carried out, step by step.

A :class:`Work` stops wherever it waits for a page, and goes on when it is stepped again. How a
descriptor ended is told by its completion record, an error without one by a register of the device.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from enum import Enum
from typing import NamedTuple, Protocol

from devices.ats import AtsAgent
from devices.dma import ATOMIC, READ, WRITE, Request, ResponseCode
from devices.models.dsa_structures import (
    COMPLETION_SIZE,
    DESCRIPTOR_SIZE,
    HINTS,
    Completion,
    Descriptor,
    Flag,
    Operation,
    QueueConfiguration,
    Status,
)
from devices.network.frames import crc32c

PAGE = 0x1000
ATTEMPTS = 8
"""How often the same pages are asked for."""
ALLOWED = sum(Flag) | HINTS


class PageFaultError(Exception):
    """A transfer that no page, or no right, is there for; a descriptor raises and catches it."""

    def __init__(self, address: int, *, written: bool, asked: bool = False) -> None:
        super().__init__(f"{address:#x}")
        self.address = address
        self.written = written
        self.asked = asked
        """Whether the page was asked for, in vain."""


class Outcome(NamedTuple):
    """How an operation ended."""

    status: Status = Status.SUCCESS
    result: int = 0
    completed: int = 0
    crc: int = 0


class Pause(Enum):
    """Why a work stops, and what it needs to go on."""

    PAGE = "a page request is not answered"
    REST = "others may do something"
    DONE = "there is nothing left to do"


Steps = Generator[Pause, None, Outcome]
Bytes = Generator[Pause, None, bytes]


class Accelerator(Protocol):
    """What a work needs of its device."""

    agent: AtsAgent

    def interrupt(self, vector: int) -> bool:
        """Raise an interrupt; False if there is no such vector."""
        ...

    def software_error(self, work: Work, status: Status, fault: PageFaultError | None) -> None:
        """An error that no completion record tells."""
        ...


class Work:
    """One descriptor of a work queue."""

    def __init__(
        self,
        device: Accelerator,
        queue: int,
        configuration: QueueConfiguration,
        descriptor: Descriptor,
    ) -> None:
        self.queue = queue
        self.descriptor = descriptor
        self.pasid = int(configuration.pasid) if configuration.pasid_enabled else None
        self._privileged = self.pasid is not None and bool(configuration.privileged)
        self._device = device
        self._configuration = configuration
        self._done = 0
        """Bytes, or descriptors, of the current operation."""
        self._steps = self._complete(descriptor, in_batch=False)

    def step(self) -> Pause:
        """Go on as far as possible."""
        return next(self._steps, Pause.DONE)

    def _complete(self, descriptor: Descriptor, *, in_batch: bool) -> Generator[Pause, None, bool]:
        """Carry out a descriptor and tell how it ended; whether it went well."""
        flags, fault = int(descriptor.flags), None
        if descriptor.completion % COMPLETION_SIZE and flags & Flag.COMPLETION_VALID:
            self._device.software_error(self, Status.COMPLETION_ALIGNMENT, None)
            return False
        self._done = 0
        try:
            outcome = yield from self._operate(descriptor, in_batch=in_batch)
        except PageFaultError as met:
            fault = met
            status = Status.PAGE_REQUEST_REFUSED if met.asked else Status.PAGE_FAULT
            if descriptor.operation == Operation.BATCH:
                status = Status.BATCH_PAGE_FAULT
            outcome = Outcome(status, completed=self._done)
        well = outcome.status is Status.SUCCESS
        if flags & Flag.COMPLETION_VALID and (flags & Flag.REQUEST_COMPLETION or not well):
            yield from self._tell(descriptor, outcome, fault)
        elif not well:
            self._device.software_error(self, outcome.status, fault)
        if flags & Flag.REQUEST_INTERRUPT and not self._device.interrupt(int(descriptor.vector)):
            self._device.software_error(self, Status.INTERRUPT_HANDLE, None)
        return well

    def _tell(
        self, descriptor: Descriptor, outcome: Outcome, fault: PageFaultError | None
    ) -> Generator[Pause, None, None]:
        """Write the completion record."""
        record = Completion.of(
            status=int(outcome.status),
            written=int(fault is not None and fault.written),
            result=outcome.result,
            completed=outcome.completed,
            address=0 if fault is None else fault.address,
            crc=outcome.crc,
        )
        try:
            yield from self._write(int(descriptor.completion), record.pack(), blocking=True)
        except PageFaultError as met:
            self._device.software_error(self, Status.COMPLETION_PAGE_FAULT, met)

    def _operate(self, descriptor: Descriptor, *, in_batch: bool) -> Steps:
        invalid = self._invalid(descriptor, in_batch=in_batch)
        if invalid is not None:
            return invalid
        operations = {
            Operation.BATCH: self._batch,
            Operation.MOVE: self._move,
            Operation.FILL: self._fill,
            Operation.COMPARE: self._compare,
            Operation.COMPARE_PATTERN: self._compare,
            Operation.CRC: self._crc,
            Operation.COPY_WITH_CRC: self._move,
        }
        operate = operations.get(Operation(descriptor.operation))
        if operate is None:
            return Outcome()  # nothing to do, or everything before it is done already
        return (yield from operate(descriptor))

    def _invalid(self, descriptor: Descriptor, *, in_batch: bool) -> Outcome | None:
        """What is wrong with a descriptor, before it is begun."""
        operation, flags, size = descriptor.operation, int(descriptor.flags), int(descriptor.size)
        if operation not in set(Operation) or (in_batch and operation == Operation.BATCH):
            return Outcome(Status.INVALID_OPERATION)
        wrong = flags & ~ALLOWED
        if not self._configuration.block_on_fault:
            wrong |= flags & Flag.BLOCK_ON_FAULT
        if not flags & Flag.COMPLETION_VALID:
            wrong |= flags & Flag.REQUEST_COMPLETION
        if wrong:
            return Outcome(Status.INVALID_FLAGS, crc=wrong)
        if operation == Operation.BATCH:
            if descriptor.source % DESCRIPTOR_SIZE:
                return Outcome(Status.LIST_ALIGNMENT)
            if not 2 <= size <= 1 << self._configuration.max_batch:
                return Outcome(Status.DESCRIPTOR_COUNT)
        moves = operation not in (Operation.NO_OP, Operation.DRAIN, Operation.BATCH)
        if moves and not 1 <= size <= 1 << self._configuration.max_transfer:
            return Outcome(Status.TRANSFER_SIZE)
        return None

    def _batch(self, descriptor: Descriptor) -> Steps:
        failed, start, count = False, int(descriptor.source), int(descriptor.size)
        for number in range(count):
            self._done = number
            place = start + DESCRIPTOR_SIZE * number
            raw = yield from self._read(place, DESCRIPTOR_SIZE, descriptor)
            inner = Descriptor(int.from_bytes(raw, "little"))
            well = yield from self._complete(inner, in_batch=True)
            failed = failed or not well
            yield Pause.REST
        status = Status.BATCH_FAILED if failed else Status.SUCCESS
        return Outcome(status, completed=count)

    def _move(self, descriptor: Descriptor) -> Steps:
        """From the end where the beginning of the destination is still to be read."""
        source, target = int(descriptor.source), int(descriptor.destination)
        size, with_crc = int(descriptor.size), descriptor.operation == Operation.COPY_WITH_CRC
        crc = (yield from self._seed(descriptor)) if with_crc else 0
        backward = source < target < source + size
        if backward and with_crc:
            return Outcome(Status.OVERLAP)
        parts = list(pieces(size, source, target))
        for offset, length in reversed(parts) if backward else parts:
            data = yield from self._read(source + offset, length, descriptor)
            yield from self._write(target + offset, data, blocking=_blocks(descriptor))
            self._done += length
            crc = crc32c(data, crc) if with_crc else 0
        return Outcome(completed=size, crc=crc)

    def _fill(self, descriptor: Descriptor) -> Steps:
        pattern = int(descriptor.source).to_bytes(8, "little")
        target, size = int(descriptor.destination), int(descriptor.size)
        for offset, length in pieces(size, target):
            data = (pattern * (length // 8 + 2))[offset % 8 :][:length]
            yield from self._write(target + offset, data, blocking=_blocks(descriptor))
            self._done += length
        return Outcome(completed=size)

    def _compare(self, descriptor: Descriptor) -> Steps:
        """The place of the first difference; a predicate tells what software expects."""
        first, second, size = (
            int(each) for each in (descriptor.source, descriptor.destination, descriptor.size)
        )
        patterned = descriptor.operation == Operation.COMPARE_PATTERN
        pattern = second.to_bytes(8, "little")
        differ = 0
        for offset, length in pieces(size, first, *([] if patterned else [second])):
            one = yield from self._read(first + offset, length, descriptor)
            if patterned:
                other = (pattern * (length // 8 + 2))[offset % 8 :][:length]
            else:
                other = yield from self._read(second + offset, length, descriptor)
            if one != other:
                equal = next(at for at in range(length) if one[at] != other[at])
                self._done, differ = offset + equal, 1
                break
            self._done += length
        checked = int(descriptor.flags) & Flag.CHECK_RESULT
        met = not checked or differ == descriptor.seed & 1
        status = Status.SUCCESS if met else Status.FALSE_PREDICATE
        return Outcome(status, result=differ, completed=self._done)

    def _crc(self, descriptor: Descriptor) -> Steps:
        crc = yield from self._seed(descriptor)
        source, size = int(descriptor.source), int(descriptor.size)
        for offset, length in pieces(size, source):
            crc = crc32c((yield from self._read(source + offset, length, descriptor)), crc)
            self._done += length
        return Outcome(completed=size, crc=crc)

    def _seed(self, descriptor: Descriptor) -> Generator[Pause, None, int]:
        if int(descriptor.flags) & Flag.READ_SEED:
            raw = yield from self._read(int(descriptor.seed_address), 4, descriptor)
            return int.from_bytes(raw, "little")
        return int(descriptor.seed)

    def _read(self, address: int, length: int, descriptor: Descriptor) -> Bytes:
        return (yield from self._transfer(READ, address, length, None, _blocks(descriptor)))

    def _write(self, address: int, data: bytes, *, blocking: bool) -> Bytes:
        return (yield from self._transfer(WRITE, address, len(data), data, blocking))

    def _transfer(
        self, access: int, address: int, length: int, data: bytes | None, blocking: bool
    ) -> Bytes:
        """Reach memory, after asking for pages that are missing if that may be."""
        agent, written = self._device.agent, access == WRITE
        address &= (1 << 64) - 1
        request = Request(0, address, access, length, self.pasid, self._privileged, payload=data)
        for _ in range(ATTEMPTS):
            missing = agent.missing(request) if agent.enabled else ()
            if not missing:
                done = agent.request(request)
                if done.ok:
                    return done.data
                raise PageFaultError(address, written=written)
            fault = max(missing[0], address)
            if not (blocking and self._configuration.block_on_fault) or agent.pages is None:
                raise PageFaultError(fault, written=written)
            wanted = request._replace(access=ATOMIC) if written else request
            group = agent.request_pages(wanted, missing[:1])
            if group is None:
                raise PageFaultError(fault, written=written)
            while (code := agent.pages.take_response(group)) is None:
                yield Pause.PAGE
            if code != ResponseCode.SUCCESS:
                raise PageFaultError(fault, written=written, asked=True)
        raise PageFaultError(fault, written=written, asked=True)


def _blocks(descriptor: Descriptor) -> bool:
    return bool(int(descriptor.flags) & Flag.BLOCK_ON_FAULT)


def pieces(size: int, *addresses: int) -> Iterator[tuple[int, int]]:
    """Offset and length of parts that cross no page, wherever they begin."""
    offset = 0
    while offset < size:
        length = min(size - offset, *(PAGE - (each + offset) % PAGE for each in addresses))
        yield offset, length
        offset += length
