"""An NVMe controller with admin and I/O queues and one namespace in memory.

NVM Express Base Specification 1.4. Submission fetch, PRP lists, data, completions and interrupt
messages are requests of their own, and each may be refused: data and lists end the command with a
transfer error, queue memory stops the controller (CSTS.CFS). Commands run when a doorbell is
written. Pin interrupts, SGLs, metadata and several namespaces are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from devices.capabilities import PortType
from devices.function import Identity, PciFunction
from devices.models.nvme_prp import segments
from devices.models.nvme_structures import (
    BLOCK_SHIFT,
    COMPLETION_SIZE,
    NUMBER_OF_QUEUES,
    SUBMISSION_SIZE,
    Admin,
    AdminQueues,
    Capabilities,
    CommandError,
    CompletionEntry,
    Configuration,
    ControllerStatus,
    Io,
    Offset,
    Status,
    Submission,
    active_namespaces,
    identify_controller,
    identify_namespace,
    namespace_descriptors,
)

IDENTITY = Identity(
    vendor_id=0x1B36,
    device_id=0x0010,
    class_code=0x010802,
    revision=2,
    subsystem_vendor_id=0x1AF4,
    subsystem_id=0x1100,
)
BAR_SIZE = 0x4000
REGISTERS_SIZE = 0x2000
MSIX_TABLE, MSIX_PENDING = 0x2000, 0x3000
MAX_QUEUE_PAIRS = 64
MAX_PAGES_LOG2 = 7

CAPABILITIES = Capabilities.of(mqes=0x7FF, cqr=1, to=0xF, css=1, mpsmax=4)
VERSION = 0x0001_0400


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


class Nvme(PciFunction):
    """The controller; its namespace has ``blocks`` blocks of 512 bytes, all zero at first."""

    def __init__(self, blocks: int = 2048, queue_pairs: int = 4) -> None:
        if not 1 <= queue_pairs <= MAX_QUEUE_PAIRS:
            raise ValueError(f"queue_pairs: {queue_pairs} is not in 1..{MAX_QUEUE_PAIRS}")
        if not 1 <= blocks < 1 << 32:
            raise ValueError(f"blocks: {blocks} is not in 1..2^32-1")
        super().__init__(IDENTITY)
        self.queue_pairs = queue_pairs
        self.storage = bytearray(blocks << BLOCK_SHIFT)
        self._asq = 0
        self._acq = 0
        self.add_pci_express(PortType.ENDPOINT)
        self.add_bar(0, BAR_SIZE, wide=True)
        self._msix = self.add_msix(
            queue_pairs + 1, table=(0, MSIX_TABLE), pending=(0, MSIX_PENDING)
        )
        self.bars[0].place(0, REGISTERS_SIZE, self)
        self.at_reset.append(self._power_on)
        self._admin_commands: dict[int, Callable[[Submission], int]] = {
            Admin.DELETE_SQ: self._delete_sq,
            Admin.CREATE_SQ: self._create_sq,
            Admin.GET_LOG_PAGE: self._get_log_page,
            Admin.DELETE_CQ: self._delete_cq,
            Admin.CREATE_CQ: self._create_cq,
            Admin.IDENTIFY: self._identify,
            Admin.ABORT: self._abort,
            Admin.SET_FEATURES: self._features,
            Admin.GET_FEATURES: self._features,
        }
        self._io_commands: dict[int, Callable[[Submission], int]] = {
            Io.FLUSH: self._flush,
            Io.WRITE: self._write,
            Io.READ: self._read,
            Io.COMPARE: self._compare,
            Io.WRITE_ZEROES: self._write_zeroes,
        }
        self._power_on()

    def read(self, offset: int, size: int) -> int:
        """A register: 4 or 8 bytes, aligned; anything else, and the doorbells, read 0."""
        if size not in {4, 8} or offset % size:
            return 0
        registers: dict[int, int] = {
            Offset.CAP: int(CAPABILITIES),
            Offset.VS: VERSION,
            Offset.CC & ~7: int(self.configuration) << 32,
            Offset.CSTS & ~7: int(self.controller_status) << 32,
            Offset.AQA & ~7: int(self._admin_queues) << 32,
            Offset.ASQ: self._asq,
            Offset.ACQ: self._acq,
        }
        return registers.get(offset & ~7, 0) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """A register or doorbell: 4 or 8 bytes, aligned; anything else is dropped."""
        if size not in {4, 8} or offset % size:
            return
        shift = 8 * (offset & 7)
        enable = (1 << 8 * size) - 1 << shift
        if offset >= Offset.DOORBELLS:
            self._doorbell((offset - Offset.DOORBELLS) // 4, value & 0xFFFF)
        elif offset == Offset.CC:
            self._configure(Configuration(value & ~Configuration.RESERVED & 0xFFFF_FFFF))
        elif offset == Offset.AQA:
            self._admin_queues = AdminQueues(value & ~AdminQueues.RESERVED & 0xFFFF_FFFF)
        elif offset & ~7 == Offset.ASQ:
            self._asq = (self._asq & ~enable | value << shift & enable) & ~0xFFF
        elif offset & ~7 == Offset.ACQ:
            self._acq = (self._acq & ~enable | value << shift & enable) & ~0xFFF

    def _power_on(self) -> None:
        self.configuration = Configuration()
        self.controller_status = ControllerStatus()
        self._admin_queues = AdminQueues()
        self._asq = 0
        self._acq = 0
        self._stop()

    def _stop(self) -> None:
        self._submission: dict[int, SubmissionQueue] = {}
        self._completion: dict[int, CompletionQueue] = {}

    def _configure(self, after: Configuration) -> None:
        before, self.configuration = self.configuration, after
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
        if not admin.asqs or not admin.acqs or configuration.mps > CAPABILITIES.mpsmax:
            self.controller_status = self.controller_status.replace(cfs=1)
            return
        self._completion[0] = CompletionQueue(self._acq, admin.acqs + 1, vector=0)
        self._submission[0] = SubmissionQueue(self._asq, admin.asqs + 1, completion_queue=0)
        self.controller_status = self.controller_status.replace(rdy=1)

    def _doorbell(self, number: int, value: int) -> None:
        """Doorbells alternate: tail of submission queue n, head of completion queue n."""
        qid, is_head = divmod(number, 2)
        if is_head:
            completion_queue = self._completion.get(qid)
            if completion_queue is not None and value < completion_queue.size:
                completion_queue.head = value
                for sq_id, queue in list(self._submission.items()):
                    if queue.completion_queue == qid:
                        self._run(sq_id)
        else:
            queue_written = self._submission.get(qid)
            if queue_written is not None and value < queue_written.size:
                queue_written.tail = value
                self._run(qid)

    def _run(self, sq_id: int) -> None:
        """Carry out what is in a submission queue, as long as completions fit."""
        while self.controller_status.rdy and not self.controller_status.cfs:
            queue = self._submission.get(sq_id)
            if queue is None or queue.head == queue.tail:
                return
            if self._completion[queue.completion_queue].full:
                return
            fetched = self.dma.read(queue.base + queue.head * SUBMISSION_SIZE, SUBMISSION_SIZE)
            if not fetched.ok:
                self.controller_status = self.controller_status.replace(cfs=1)
                return
            queue.head = (queue.head + 1) % queue.size
            self._execute(sq_id, queue, Submission.unpack(fetched.data))

    def _execute(self, sq_id: int, queue: SubmissionQueue, command: Submission) -> None:
        if sq_id == 0 and command.opcode == Admin.ASYNC_EVENT:
            return  # outstanding until there is an event, and there is none
        entry = CompletionEntry.of(cid=command.cid, sq_id=sq_id, sq_head=queue.head)
        try:
            entry = entry.replace(result=self._perform(sq_id, command))
        except CommandError as failure:
            entry = entry.replace(status=failure.status, dnr=1)
        self._complete(queue.completion_queue, entry)

    def _perform(self, sq_id: int, command: Submission) -> int:
        """The command's result; raises CommandError."""
        commands = self._io_commands if sq_id else self._admin_commands
        if command.opcode not in commands:
            raise CommandError(Status.BAD_OPCODE)
        if command.psdt or command.fuse:
            raise CommandError(Status.BAD_FIELD)
        if sq_id and command.nsid != 1:
            raise CommandError(Status.BAD_NAMESPACE)
        return commands[command.opcode](command)

    def _complete(self, qid: int, entry: CompletionEntry) -> None:
        queue = self._completion[qid]
        data = entry.replace(phase=queue.phase).pack()
        if not self.dma.write(queue.base + queue.tail * COMPLETION_SIZE, data).ok:
            self.controller_status = self.controller_status.replace(cfs=1)
            return
        queue.tail += 1
        if queue.tail == queue.size:
            queue.tail, queue.phase = 0, queue.phase ^ 1
        if queue.vector is not None:
            self._msix.notify(queue.vector)

    def _create_cq(self, command: Submission) -> int:
        qid, size = self._new_queue(command, self._completion)
        vector = command.cdw11 >> 16 if command.cdw11 & 2 else None
        if vector is not None and vector > self.queue_pairs:
            raise CommandError(Status.BAD_VECTOR)
        self._completion[qid] = CompletionQueue(command.prp1, size, vector)
        return 0

    def _create_sq(self, command: Submission) -> int:
        qid, size = self._new_queue(command, self._submission)
        completion_queue = command.cdw11 >> 16
        if completion_queue == 0 or completion_queue not in self._completion:
            raise CommandError(Status.CQ_INVALID)
        self._submission[qid] = SubmissionQueue(command.prp1, size, completion_queue)
        return 0

    def _new_queue(
        self, command: Submission, queues: dict[int, SubmissionQueue] | dict[int, CompletionQueue]
    ) -> tuple[int, int]:
        """Number and entries of the queue to create; raises CommandError."""
        qid, size = command.cdw10 & 0xFFFF, (command.cdw10 >> 16) + 1
        if not 0 < qid <= self.queue_pairs or qid in queues:
            raise CommandError(Status.QID_INVALID)
        if not 1 < size <= CAPABILITIES.mqes + 1:
            raise CommandError(Status.QUEUE_SIZE)
        if not command.cdw11 & 1:
            raise CommandError(Status.BAD_FIELD)
        if command.prp1 % self._page_size:
            raise CommandError(Status.BAD_PRP_OFFSET)
        return qid, size

    def _delete_sq(self, command: Submission) -> int:
        qid = command.cdw10 & 0xFFFF
        if qid == 0 or self._submission.pop(qid, None) is None:
            raise CommandError(Status.QID_INVALID)
        return 0

    def _delete_cq(self, command: Submission) -> int:
        qid = command.cdw10 & 0xFFFF
        if qid == 0 or qid not in self._completion:
            raise CommandError(Status.QID_INVALID)
        if any(queue.completion_queue == qid for queue in self._submission.values()):
            raise CommandError(Status.BAD_QUEUE_DELETION)
        del self._completion[qid]
        return 0

    def _identify(self, command: Submission) -> int:
        pages = {
            0: lambda: identify_namespace(len(self.storage) >> BLOCK_SHIFT),
            1: lambda: identify_controller(self.queue_pairs, MAX_PAGES_LOG2),
            2: lambda: active_namespaces(command.nsid),
            3: namespace_descriptors,
        }
        which = command.cdw10 & 0xFF
        if which not in pages:
            raise CommandError(Status.BAD_FIELD)
        if which in {0, 3} and command.nsid != 1:
            raise CommandError(Status.BAD_NAMESPACE)
        self._to_host(command, pages[which]())
        return 0

    def _get_log_page(self, command: Submission) -> int:
        """Every log page is empty."""
        length = ((command.cdw10 >> 16 | (command.cdw11 & 0xFFFF) << 16) + 1) * 4
        if length > self._max_transfer:
            raise CommandError(Status.BAD_FIELD)
        self._to_host(command, bytes(length))
        return 0

    def _abort(self, command: Submission) -> int:
        """Commands end before an abort can reach them: result bit 0, not aborted."""
        return 1

    def _features(self, command: Submission) -> int:
        """The queues granted do not depend on the queues asked for."""
        if command.cdw10 & 0xFF != NUMBER_OF_QUEUES:
            raise CommandError(Status.BAD_FIELD)
        return self.queue_pairs - 1 | self.queue_pairs - 1 << 16

    def _flush(self, command: Submission) -> int:
        return 0

    def _read(self, command: Submission) -> int:
        start, end = self._blocks(command)
        self._to_host(command, bytes(self.storage[start:end]))
        return 0

    def _write(self, command: Submission) -> int:
        start, end = self._blocks(command)
        self.storage[start:end] = self._from_host(command, end - start)
        return 0

    def _compare(self, command: Submission) -> int:
        start, end = self._blocks(command)
        if self.storage[start:end] != self._from_host(command, end - start):
            raise CommandError(Status.COMPARE_FAILURE)
        return 0

    def _write_zeroes(self, command: Submission) -> int:
        start, end = self._blocks(command)
        self.storage[start:end] = bytes(end - start)
        return 0

    def _blocks(self, command: Submission) -> tuple[int, int]:
        """The bytes of the namespace a command is about; raises CommandError."""
        start = command.start_block << BLOCK_SHIFT
        end = start + (command.blocks << BLOCK_SHIFT)
        if end > len(self.storage):
            raise CommandError(Status.LBA_OUT_OF_RANGE)
        if command.opcode != Io.WRITE_ZEROES and end - start > self._max_transfer:
            raise CommandError(Status.BAD_FIELD)
        return start, end

    @property
    def _page_size(self) -> int:
        return 4096 << self.configuration.mps

    @property
    def _max_transfer(self) -> int:
        return 4096 << MAX_PAGES_LOG2

    def _segments(self, command: Submission, length: int) -> Iterator[tuple[int, int]]:
        return segments(self.dma, command, length, self._page_size)

    def _to_host(self, command: Submission, data: bytes) -> None:
        done = 0
        for address, length in self._segments(command, len(data)):
            if not self.dma.write(address, data[done : done + length]).ok:
                raise CommandError(Status.DATA_TRANSFER_ERROR)
            done += length

    def _from_host(self, command: Submission, length: int) -> bytes:
        parts = []
        for address, part in self._segments(command, length):
            completion = self.dma.read(address, part)
            if not completion.ok:
                raise CommandError(Status.DATA_TRANSFER_ERROR)
            parts.append(completion.data)
        return b"".join(parts)
