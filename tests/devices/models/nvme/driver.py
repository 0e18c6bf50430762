"""A driver of the NVMe controller, as far as tests need one."""

from __future__ import annotations

from devices.function import PciFunction
from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import Admin, CompletionEntry, Submission
from tests.support.ports import PagingPort

ADMIN_SQ, ADMIN_CQ, IO_SQ, IO_CQ, LIST, DATA = (
    0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x1_0000,
)  # fmt: skip
ENTRIES = 8
ENABLE = 1 | 6 << 16 | 4 << 20


class Host:
    """A driver: memory mapped one to one, admin and one I/O queue pair of 8 entries."""

    def __init__(
        self,
        device: PciFunction | None = None,
        *,
        start: bool = True,
        port: PagingPort | None = None,
    ) -> None:
        self.device = device or Nvme(blocks=2048)
        self.port = port or PagingPort()
        self.ram = self.port.ram
        for page in range(0, 0x10_0000, 0x1000):
            self.port.map(page, page)
        self.device.connect(self.port)
        self.device.config.write(4, 2, 6)
        self.tails = [0, 0]
        self.heads = [0, 0]
        self.phases = [1, 1]
        if start:
            self.start()

    def start(self) -> None:
        bar = self.device.bars[0]
        bar.write(0x24, 4, (ENTRIES - 1) << 16 | ENTRIES - 1)
        for offset, value in ((0x28, ADMIN_SQ), (0x2C, 0), (0x30, ADMIN_CQ), (0x34, 0)):
            bar.write(offset, 4, value)
        bar.write(0x14, 4, ENABLE)
        assert bar.read(0x1C, 4) == 1

    def create_io_queues(self, vector: int = 1) -> None:
        size = (ENTRIES - 1) << 16
        assert self.admin(Admin.CREATE_CQ, prp1=IO_CQ, cdw10=size | 1, cdw11=vector << 16 | 3) == 0
        assert self.admin(Admin.CREATE_SQ, prp1=IO_SQ, cdw10=size | 1, cdw11=1 << 16 | 1) == 0

    def submit(self, qid: int, opcode: int, **fields: int) -> None:
        """Put a command into a queue and ring its doorbell."""
        base = (ADMIN_SQ, IO_SQ)[qid]
        command = Submission.of(opcode=opcode, cid=self.tails[qid], **fields)
        self.ram.write(base + 64 * self.tails[qid], command.pack())
        self.tails[qid] = (self.tails[qid] + 1) % ENTRIES
        self.device.bars[0].write(0x1000 + 8 * qid, 4, self.tails[qid])

    def reap(self, qid: int) -> CompletionEntry | None:
        """Take one completion, if there is one, and ring the head doorbell."""
        base = (ADMIN_CQ, IO_CQ)[qid]
        entry = CompletionEntry.unpack(self.ram.read(base + 16 * self.heads[qid], 16))
        if entry.phase != self.phases[qid]:
            return None
        self.heads[qid] = (self.heads[qid] + 1) % ENTRIES
        self.phases[qid] ^= self.heads[qid] == 0
        self.device.bars[0].write(0x1004 + 8 * qid, 4, self.heads[qid])
        return entry

    def result(self, opcode: int, **fields: int) -> int:
        """The result of an admin command that succeeds."""
        self.submit(0, opcode, **fields)
        entry = self.reap(0)
        assert entry is not None and entry.status == 0
        return entry.result

    def admin(self, opcode: int, **fields: int) -> int:
        """The status of an admin command."""
        self.submit(0, opcode, **fields)
        entry = self.reap(0)
        assert entry is not None
        return entry.status

    def io(
        self,
        opcode: int,
        block: int,
        blocks: int,
        prp1: int = DATA,
        prp2: int = 0,
        nsid: int = 1,
        **fields: int,
    ) -> int:
        """The status of an I/O command."""
        values = {"prp1": prp1, "prp2": prp2, "cdw10": block, "cdw12": blocks - 1, **fields}
        self.submit(1, opcode, nsid=nsid, **values)
        entry = self.reap(1)
        assert entry is not None
        return entry.status

    @property
    def storage(self) -> bytearray:
        assert isinstance(self.device, Nvme)
        storage = self.device.subsystem.namespaces[1].storage
        assert isinstance(storage, bytearray)
        return storage

    @property
    def fatal(self) -> bool:
        return bool(self.device.bars[0].read(0x1C, 4) & 2)
