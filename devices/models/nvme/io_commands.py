"""The commands of NVMe's I/O queues, on the namespaces of a subsystem."""

from __future__ import annotations

from devices.models.block_storage import BLOCK_SHIFT, BlockStorage
from devices.models.nvme.controller import Commands, Controller
from devices.models.nvme.structures import BROADCAST, CommandError, Io, Status, Submission
from devices.models.nvme.subsystem import Subsystem

RANGE_SIZE = 16
DEALLOCATE = 1 << 2


class IoCommands:
    """What each command does; ``counters`` are those of the health log."""

    def __init__(self, controller: Controller, subsystem: Subsystem) -> None:
        self._controller = controller
        self._subsystem = subsystem
        self.commands: Commands = {
            Io.FLUSH: self._flush,
            Io.WRITE: self._write,
            Io.READ: self._read,
            Io.COMPARE: self._compare,
            Io.WRITE_ZEROES: self._write_zeroes,
            Io.DATASET: self._dataset,
        }

    def _flush(self, command: Submission) -> int:
        if command.nsid == BROADCAST:
            self._subsystem.flush()
        else:
            self._subsystem.namespace(command.nsid).flush()
        return 0

    def _read(self, command: Submission) -> int:
        namespace, start, end = self._place(command)
        self._controller.to_host(command, namespace.read(start, end))
        self._count("reads", "units_read", end - start)
        return 0

    def _write(self, command: Submission) -> int:
        namespace, start, end = self._place(command)
        data = self._controller.from_host(command, end - start)
        namespace.write(start, data, durable=command.fua)
        self._count("writes", "units_written", end - start)
        return 0

    def _compare(self, command: Submission) -> int:
        namespace, start, end = self._place(command)
        if namespace.read(start, end) != self._controller.from_host(command, end - start):
            raise CommandError(Status.COMPARE_FAILURE)
        return 0

    def _write_zeroes(self, command: Submission) -> int:
        namespace, start, end = self._place(command, transfers=False)
        namespace.write(start, bytes(end - start), durable=command.fua)
        return 0

    def _dataset(self, command: Submission) -> int:
        """Deallocated blocks read as zeros; all other attributes are hints."""
        namespace = self._subsystem.namespace(command.nsid)
        count = (command.cdw10 & 0xFF) + 1
        data = self._controller.from_host(command, count * RANGE_SIZE)
        ranges = []
        for at in range(0, len(data), RANGE_SIZE):
            blocks = int.from_bytes(data[at + 4 : at + 8], "little")
            first = int.from_bytes(data[at + 8 : at + 16], "little")
            if first + blocks > namespace.blocks:
                raise CommandError(Status.LBA_OUT_OF_RANGE)
            ranges.append((first << BLOCK_SHIFT, blocks << BLOCK_SHIFT))
        for start, length in ranges if command.cdw11 & DEALLOCATE else ():
            namespace.write(start, bytes(length))
        return 0

    def _place(
        self, command: Submission, *, transfers: bool = True
    ) -> tuple[BlockStorage, int, int]:
        """The namespace of a command and its bytes there; raises CommandError."""
        namespace = self._subsystem.namespace(command.nsid)
        start = command.start_block << BLOCK_SHIFT
        end = start + (command.blocks << BLOCK_SHIFT)
        if end > namespace.blocks << BLOCK_SHIFT:
            raise CommandError(Status.LBA_OUT_OF_RANGE)
        if transfers and end - start > self._controller.max_transfer:
            raise CommandError(Status.BAD_FIELD)
        return namespace, start, end

    def _count(self, commands: str, units: str, length: int) -> None:
        counters = self._subsystem.counters
        counters[commands] += 1
        counters[units] += -(-length // 512_000)
