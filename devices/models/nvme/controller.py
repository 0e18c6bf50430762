"""One NVMe controller: registers, queues, interrupts, asynchronous events.

NVM Express Base Specification 1.4. Submission fetch, lists, data, completions and interrupt
messages are requests of their own, and each may be refused: data and lists end the command with a
transfer error, queue memory stops the controller (CSTS.CFS). Commands run when a doorbell is
written. A physical function has one, each virtual function has one. Metadata is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from devices.function import PciFunction
from devices.models.nvme.identify import ERROR_ENTRIES, EVENT_REQUESTS, MAX_PAGES_LOG2, VERSION
from devices.models.nvme.structures import (
    COMPLETION_SIZE,
    SUBMISSION_SIZE,
    Admin,
    AdminQueues,
    AsyncEvent,
    Capabilities,
    CommandError,
    CompletionEntry,
    Configuration,
    ControllerStatus,
    EventType,
    LogPage,
    Offset,
    Status,
    Submission,
)
from devices.models.nvme.transfer import pieces

CAPABILITIES = Capabilities.of(mqes=0x7FF, cqr=1, to=0xF, css=1, mpsmax=4)
DOORBELLS = int(Offset.DOORBELLS)
INVALID_DOORBELL, INVALID_TAIL = 0, 1
"""Information of error events."""

Commands = Mapping[int, Callable[[Submission], int]]
"""What carries a command out, by opcode; it returns the result, or raises CommandError."""


class Share(Protocol):
    """What a controller has of the device at the moment."""

    @property
    def queue_pairs(self) -> int:
        """I/O queue pairs that the host may have."""
        ...

    @property
    def usable(self) -> bool:
        """Whether it can be started at all."""
        ...


@dataclass(slots=True)
class CompletionQueue:
    """A completion queue in host memory."""

    base: int
    size: int
    vector: int | None
    head: int = 0
    tail: int = 0
    phase: int = 1

    @property
    def full(self) -> bool:
        """Whether the host has to take completions before more can be written."""
        return (self.tail + 1) % self.size == self.head


@dataclass(slots=True)
class SubmissionQueue:
    """A submission queue in host memory, and the completion queue it reports to."""

    base: int
    size: int
    completion_queue: int
    head: int = 0
    tail: int = 0


class Controller:
    """The controller of ``function``; ``shut_down`` is told when the host asks for that."""

    max_transfer = 4096 << MAX_PAGES_LOG2
    """Bytes of the largest transfer."""

    def __init__(self, function: PciFunction, share: Share, shut_down: Callable[[], None]) -> None:
        self.function = function
        self.share = share
        self._shut_down = shut_down
        self.admin_commands: Commands = {}
        self.io_commands: Commands = {}
        self.when_stopped: list[Callable[[], None]] = []
        if function.msix is not None:
            function.msix.when_controlled.append(self.drive_pin)
        self.power_on()

    @property
    def has_io_queues(self) -> bool:
        """Whether the host has made any."""
        return any(self.completion_queues.keys() - {0})

    def power_on(self) -> None:
        """As after power-on."""
        self.configuration = Configuration()
        self.controller_status = ControllerStatus()
        self._admin_queues = AdminQueues()
        self._asq = 0
        self._acq = 0
        self._masked = 0
        self._stop()

    def read(self, offset: int, size: int) -> int:
        """A register: 4 or 8 bytes, aligned; anything else, and the doorbells, read 0."""
        if size not in {4, 8} or offset % size:
            return 0
        registers: dict[int, int] = {
            Offset.CAP: int(CAPABILITIES),
            Offset.VS: VERSION | self._masked << 32,
            Offset.INTMC & ~7: self._masked | int(self.configuration) << 32,
            Offset.CSTS & ~7: int(self.controller_status) << 32,
            Offset.AQA & ~7: int(self._admin_queues) << 32,
            Offset.ASQ: self._asq,
            Offset.ACQ: self._acq,
        }
        return registers.get(offset & ~7, 0) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A register or doorbell: 4 or 8 bytes, aligned; anything else is dropped."""
        if size not in {4, 8} or offset % size:
            return
        shift = 8 * (offset & 7)
        enable = (1 << 8 * size) - 1 << shift
        word = value & 0xFFFF_FFFF
        if offset >= DOORBELLS:
            self._doorbell((offset - DOORBELLS) // 4, value & 0xFFFF)
        elif offset in (Offset.INTMS, Offset.INTMC):
            self._masked = self._masked | word if offset == Offset.INTMS else self._masked & ~word
            self.drive_pin()
        elif offset == Offset.CC:
            self._configure(Configuration(word & ~Configuration.RESERVED))
        elif offset == Offset.AQA:
            self._admin_queues = AdminQueues(word & ~AdminQueues.RESERVED)
        elif offset & ~7 == Offset.ASQ:
            self._asq = (self._asq & ~enable | value << shift & enable) & ~0xFFF
        elif offset & ~7 == Offset.ACQ:
            self._acq = (self._acq & ~enable | value << shift & enable) & ~0xFFF

    def drive_pin(self) -> None:
        """The pin is asserted while a queue holds completions whose vector is not masked."""
        messages = self.function.msix is not None and self.function.msix.enabled
        self.function.set_intx(
            not messages
            and any(
                queue.vector is not None
                and queue.head != queue.tail
                and not self._masked >> queue.vector & 1
                for queue in self.completion_queues.values()
            )
        )

    def report(self, type: EventType, information: int, log_page: LogPage) -> None:
        """Tell the host of an event, once until it has read the log page."""
        if type in self._reported:
            return
        self._reported[type] = AsyncEvent.of(type=type, information=information, log_page=log_page)
        self._waiting.append(type)
        self._answer_event_requests()

    def log_read(self, log_page: int) -> None:
        """Events that the log page was about may be reported again."""
        for type, event in list(self._reported.items()):
            if event.log_page == log_page and type not in self._waiting:
                del self._reported[type]

    def _answer_event_requests(self) -> None:
        queue = self.completion_queues.get(0)
        while self._waiting and self._event_requests and queue is not None and not queue.full:
            event = self._reported[self._waiting.pop(0)]
            command = self._event_requests.pop(0)
            self._finish(0, command, int(event), Status.SUCCESS)

    def _stop(self) -> None:
        self.submission_queues: dict[int, SubmissionQueue] = {}
        self.completion_queues: dict[int, CompletionQueue] = {}
        self._event_requests: list[int] = []
        """Command ids of asynchronous event requests."""
        self._reported: dict[EventType, AsyncEvent] = {}
        self._waiting: list[EventType] = []
        self.errors: list[tuple[int, int, int, int]] = []
        """Count, queue, command id and status of the latest errors, newest first."""
        self.error_count = 0
        for react in self.when_stopped:
            react()
        self.drive_pin()

    def _configure(self, after: Configuration) -> None:
        before, self.configuration = self.configuration, after
        if after.shn and not before.shn:
            self._shut_down()
        if not after.en:
            if before.en:
                self._stop()
                self.controller_status = ControllerStatus()
        elif not before.en:
            self._start()
        if after.shn and not before.shn:
            self.controller_status = self.controller_status.replace(shst=2)

    def _start(self) -> None:
        """Bring the admin queues up, or fail if the configuration makes no sense."""
        admin, configuration = self._admin_queues, self.configuration
        usable = admin.asqs and admin.acqs and configuration.mps <= CAPABILITIES.mpsmax
        if not usable or not self.share.usable:
            self.fail()
            return
        self.completion_queues[0] = CompletionQueue(self._acq, admin.acqs + 1, vector=0)
        self.submission_queues[0] = SubmissionQueue(self._asq, admin.asqs + 1, completion_queue=0)
        self.controller_status = self.controller_status.replace(rdy=1)

    def fail(self) -> None:
        """Stop until the host resets the controller: queue memory can't be reached."""
        self.controller_status = self.controller_status.replace(cfs=1)

    def _doorbell(self, number: int, value: int) -> None:
        """Doorbells alternate: tail of submission queue n, head of completion queue n."""
        qid, is_head = divmod(number, 2)
        queue = (self.completion_queues if is_head else self.submission_queues).get(qid)
        if queue is None or value >= queue.size:
            if self.controller_status.rdy:
                information = INVALID_DOORBELL if queue is None else INVALID_TAIL
                self.report(EventType.ERROR, information, LogPage.ERRORS)
        elif isinstance(queue, CompletionQueue):
            queue.head = value
            self.drive_pin()
            self._answer_event_requests()
            for sq_id, each in list(self.submission_queues.items()):
                if each.completion_queue == qid:
                    self._run(sq_id)
        else:
            queue.tail = value
            self._run(qid)

    def _run(self, sq_id: int) -> None:
        """Carry out what is in a submission queue, as long as completions fit."""
        while self.controller_status.rdy and not self.controller_status.cfs:
            queue = self.submission_queues.get(sq_id)
            if queue is None or queue.head == queue.tail:
                return
            if self.completion_queues[queue.completion_queue].full:
                return
            at = queue.base + queue.head * SUBMISSION_SIZE
            fetched = self.function.dma.read(at, SUBMISSION_SIZE)
            if not fetched.ok:
                self.fail()
                return
            queue.head = (queue.head + 1) % queue.size
            self._execute(sq_id, Submission.unpack(fetched.data))

    def _execute(self, sq_id: int, command: Submission) -> None:
        result, status = 0, Status.SUCCESS
        try:
            if sq_id == 0 and command.opcode == Admin.ASYNC_EVENT:
                self._request_event(command)
                return
            result = self._perform(sq_id, command)
        except CommandError as failure:
            status = failure.status
            self.error_count += 1
            entry = self.error_count, sq_id, command.cid, status
            self.errors = [entry, *self.errors][:ERROR_ENTRIES]
        self._finish(sq_id, command.cid, result, status)

    def _request_event(self, command: Submission) -> None:
        if len(self._event_requests) >= EVENT_REQUESTS:
            raise CommandError(Status.TOO_MANY_EVENT_REQUESTS)
        self._event_requests.append(command.cid)
        self._answer_event_requests()

    def _perform(self, sq_id: int, command: Submission) -> int:
        """The command's result; raises CommandError."""
        commands = self.io_commands if sq_id else self.admin_commands
        if command.opcode not in commands:
            raise CommandError(Status.BAD_OPCODE)
        if command.fuse or command.psdt == 3 or (command.psdt and not sq_id):
            raise CommandError(Status.BAD_FIELD)
        return commands[command.opcode](command)

    def _finish(self, sq_id: int, cid: int, result: int, status: Status) -> None:
        """Write a completion and interrupt for it."""
        queue = self.submission_queues.get(sq_id)
        if queue is None:
            return  # a command that deleted its own queue
        completions = self.completion_queues[queue.completion_queue]
        entry = (
            result
            | queue.head << _SQ_HEAD
            | sq_id << _SQ_ID
            | cid << _CID
            | completions.phase << _PHASE
            | (status and status << _STATUS | 1 << _DNR)
        )
        at = completions.base + completions.tail * COMPLETION_SIZE
        if not self.function.dma.write(at, entry.to_bytes(COMPLETION_SIZE, "little")).ok:
            self.fail()
            return
        completions.tail += 1
        if completions.tail == completions.size:
            completions.tail, completions.phase = 0, completions.phase ^ 1
        if completions.vector is not None and self.function.msix is not None:
            if self.function.msix.enabled:
                self.function.msix.notify(completions.vector)
            else:
                self.drive_pin()

    @property
    def page_size(self) -> int:
        """Bytes of a memory page, as the host chose."""
        return 4096 << self.configuration.mps

    def to_host(self, command: Submission, data: bytes) -> None:
        """Write data where a command says; CommandError where that is refused."""
        done, dma = 0, self.function.dma
        for address, length in pieces(dma, command, len(data), self.page_size, to_host=True):
            part = data[done : done + length]
            if address is None:
                done += length
                continue
            if address + length > 1 << 64 or not dma.write(address, part).ok:
                raise CommandError(Status.DATA_TRANSFER_ERROR)
            done += length

    def from_host(self, command: Submission, length: int) -> bytes:
        """The data of a command; CommandError where reading is refused."""
        parts, dma = [], self.function.dma
        for address, part in pieces(dma, command, length, self.page_size, to_host=False):
            if address is None or address + part > 1 << 64:
                raise CommandError(Status.DATA_TRANSFER_ERROR)
            read = dma.read(address, part)
            if not read.ok:
                raise CommandError(Status.DATA_TRANSFER_ERROR)
            parts.append(read.data)
        return b"".join(parts)


_SQ_HEAD, _SQ_ID, _CID, _PHASE, _STATUS, _DNR = (
    CompletionEntry.FIELDS[name].low
    for name in ("sq_head", "sq_id", "cid", "phase", "status", "dnr")
)
