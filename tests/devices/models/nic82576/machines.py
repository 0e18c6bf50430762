"""Machines with an 82576 for the tests: memory behind it, something at the other end, a driver."""

from __future__ import annotations

from devices.models.nic82576.controller import Nic82576
from devices.network.link import Sink
from tests.devices.models.nic82576.drivers import MiniIgb, MiniIgbvf, PfAgent, Rings
from tests.support.ports import RecordingPort

SECOND = 1_000_000_000
OUTSIDE = b"\2\0\0\0\0\x09"


class Machine:
    """A controller with 1 MiB of memory behind it, a sink at the other end, and its driver."""

    def __init__(self, nic: Nic82576 | None = None, *, attach: bool = True) -> None:
        self.nic = nic or Nic82576()
        self.port = RecordingPort()
        self.nic.connect(self.port)
        self.sink = Sink()
        if attach:
            self.nic.attach(self.sink)
        self.driver = MiniIgb(self.nic, self.port.ram)

    def up(self) -> None:
        self.driver.probe()
        self.nic.clock.advance(SECOND)

    def messages(self) -> list[int]:
        taken = [data for _, data in self.port.messages]
        self.port.messages.clear()
        return taken


class VirtualMachines(Machine):
    """``count`` virtual functions, each with a memory of its own and a driver; the PF up too."""

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        self.up()
        self.driver.vectors()
        self.rings = self.driver.open(queue=count % 8)
        self.driver.enable_vfs(count)
        self.agent = PfAgent(self.driver)
        self.ports: list[RecordingPort] = []
        self.guests: list[MiniIgbvf] = []
        for index, function in enumerate(self.nic.sriov.functions):
            port = RecordingPort()
            function.connect(port)
            self.agent.macs[index] = vf_mac(index)
            self.ports.append(port)
            self.guests.append(MiniIgbvf(function, port.ram, 0x1_0000, self.agent))
        self.guest_rings: list[Rings] = []

    def start_guests(self) -> None:
        for index, guest in enumerate(self.guests):
            assert guest.reset()
            guest.vectors(0x50 + 16 * index)
            self.guest_rings.append(guest.open())


def vf_mac(index: int) -> bytes:
    return bytes((2, 0, 0, 0, 1, index))


def frame_for(mac: bytes, length: int = 100, source: bytes = OUTSIDE) -> bytes:
    return mac + source + b"\x88\xb5" + bytes(index & 0xFF for index in range(length - 14))
