"""Ports for the device tests: memory behind them, interrupt messages kept aside."""

from devices.dma import Completion, CompletionStatus, DirectPort
from pagetables.memory import PhysicalMemory

RAM_SIZE = 0x100000


class RecordingPort(DirectPort):
    """1 MiB of memory at 0; 4-byte writes to FEEx_xxxxh end up in ``messages``."""

    def __init__(self) -> None:
        self.ram = PhysicalMemory()
        self.ram.add_region(0, RAM_SIZE)
        super().__init__(self.ram)
        self.messages: list[tuple[int, int]] = []

    def write(
        self, address: int, data: bytes, *, pasid: int | None = None, privileged: bool = False
    ) -> Completion:
        if address >> 20 == 0xFEE:
            self.messages.append((address, int.from_bytes(data, "little")))
            return Completion(CompletionStatus.SUCCESS)
        return super().write(address, data, pasid=pasid, privileged=privileged)
