"""The PCI functions of an NVMe device: the physical one, and virtual ones with controllers."""

from __future__ import annotations

from functools import partial
from random import Random

from devices.capabilities import PortType
from devices.function import Identity, PciFunction
from devices.models.nvme.admin_commands import AdminCommands
from devices.models.nvme.controller import Controller
from devices.models.nvme.io_commands import IoCommands
from devices.models.nvme.subsystem import Primary, Subsystem
from devices.sriov import Sriov, VirtualFunction

IDENTITY = Identity(
    vendor_id=0x1B36,
    device_id=0x0010,
    class_code=0x010802,
    revision=2,
    subsystem_vendor_id=0x1AF4,
    subsystem_id=0x1100,
    interrupt_pin=1,
)
BAR_SIZE = 0x4000
REGISTERS_SIZE = 0x2000
MSIX_TABLE, MSIX_PENDING = 0x2000, 0x3000
MAX_QUEUE_PAIRS = 64
MAX_VIRTUAL_FUNCTIONS = 127
FLEXIBLE = 4
"""Queues and vectors for each virtual function, all of which may go to one."""


class Nvme(PciFunction):
    """An NVMe device; its ``namespaces`` have ``blocks`` blocks of 512 bytes each.

    They are in memory, all zero at first, or in ``file``. ``vfs`` virtual functions have
    controllers that have nothing until virtualization management gives them queues and vectors.
    """

    def __init__(
        self,
        blocks: int = 2048,
        queue_pairs: int = 4,
        namespaces: int = 1,
        file: str = "",
        vfs: int = 0,
        serial: str = "model",
    ) -> None:
        if not 1 <= queue_pairs <= MAX_QUEUE_PAIRS:
            raise ValueError(f"queue_pairs: {queue_pairs} is not in 1..{MAX_QUEUE_PAIRS}")
        if not 0 <= vfs <= MAX_VIRTUAL_FUNCTIONS:
            raise ValueError(f"vfs: {vfs} is not in 0..{MAX_VIRTUAL_FUNCTIONS}")
        if not serial.isascii() or not 0 < len(serial) <= 20:
            raise ValueError(f"serial: {serial!r} is not of 1 to 20 ASCII characters")
        super().__init__(IDENTITY)
        self.subsystem = Subsystem(blocks, namespaces, file, vfs, FLEXIBLE * vfs)
        self.serial = serial
        self.add_pci_express(PortType.ENDPOINT)
        self.add_bar(0, BAR_SIZE, wide=True)
        self.add_msix(queue_pairs + 1, table=(0, MSIX_TABLE), pending=(0, MSIX_PENDING))
        self.controller = Controller(self, Primary(queue_pairs), self.subsystem.flush)
        self.bars[0].place(0, REGISTERS_SIZE, self.controller)
        self.at_reset.append(self.controller.power_on)
        admin = AdminCommands(self.controller, self.subsystem, 0, serial, primary=True)
        self.controller.admin_commands = admin.commands
        self.controller.io_commands = IoCommands(self.controller, self.subsystem).commands
        if vfs:
            Sriov(
                self,
                total_vfs=vfs,
                first_offset=1,
                stride=1,
                vf_device_id=IDENTITY.device_id,
                vf_bars={0: (BAR_SIZE, True)},
                make=partial(NvmeVirtual, owner=self),
            )

    def lose_power(self, seed: int = 0) -> None:
        """Power fails and comes back: what was not flushed is kept or lost, block by block."""
        random = Random(seed)
        for namespace in self.subsystem.namespaces.values():
            namespace.lose_power(random)
        self.subsystem.counters["unsafe_shutdowns"] += 1
        self.reset()


class NvmeVirtual(VirtualFunction):
    """A virtual function whose controller shares the namespaces of the physical one's."""

    def __init__(self, sriov: Sriov, index: int, owner: Nvme) -> None:
        super().__init__(sriov, index)
        secondary = owner.subsystem.secondaries[index]
        vectors = owner.subsystem.most
        self.add_msix(vectors, table=(0, MSIX_TABLE), pending=(0, MSIX_PENDING))
        self.controller = Controller(self, secondary, owner.subsystem.flush)
        self.bars[0].place(0, REGISTERS_SIZE, self.controller)
        self.at_reset.append(self.controller.power_on)
        admin = AdminCommands(
            self.controller, owner.subsystem, secondary.identifier, owner.serial, primary=False
        )
        self.controller.admin_commands = admin.commands
        self.controller.io_commands = IoCommands(self.controller, owner.subsystem).commands
