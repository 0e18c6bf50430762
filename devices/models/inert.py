"""A function that only says what it is: it stands for a device whose workings do not matter.

It has the identity, the interrupts and the express capability that it is told to have, and sends
nothing of itself; its port is there for whoever wants to send in its name.
"""

from __future__ import annotations

from devices.function import Identity, PciFunction

BAR_SIZE = 0x1_0000
MSIX_PENDING = 0x8000


class Inert(PciFunction):
    """The function; ``express`` is whether it is PCI Express, with 4 KiB of configuration space.

    ``msix_vectors`` other than 0 gives it a BAR with that many vectors.
    """

    def __init__(
        self,
        vendor_id: int = 0x8086,
        device_id: int = 0x1000,
        class_code: int = 0xFF0000,
        revision: int = 0,
        subsystem_vendor_id: int = 0,
        subsystem_id: int = 0,
        express: bool = True,
        msix_vectors: int = 0,
    ) -> None:
        super().__init__(
            Identity(vendor_id, device_id, class_code, revision, subsystem_vendor_id, subsystem_id),
            config_size=4096 if express else 256,
        )
        if express:
            self.add_pci_express()
        if msix_vectors:
            self.add_bar(0, BAR_SIZE)
            self.add_msix(msix_vectors, table=(0, 0), pending=(0, MSIX_PENDING))
