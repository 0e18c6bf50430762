"""What is served of a platform, and on what ways interrupts leave."""

from __future__ import annotations

import pytest

from devices.clock import Clock
from devices.models.edu import Edu
from devices.topology import Topology
from pagetables.memory import PhysicalMemory
from tests.vtd.live.client import Client
from tests.vtd.live.served import BASE, EDU, NVME, served_machine
from vtd.dmar.records import Drhd, DrhdFlags, Header
from vtd.dmar.table import Table
from vtd.live.machine import LiveError, LiveMachine
from vtd.live.session import Session
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine
from vtd.platform import Platform
from vtd.unit.interrupts.outcome import Interrupt, Posted, compatibility_interrupt
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import InterruptDelivered

FIRMWARE = 0xF_0000


def on_bus(*places: tuple[int, int, int]) -> Platform:
    """A platform with a function at each bus, device and segment."""
    topology = Topology()
    wanted = {(segment, bus) for bus, _, segment in places}
    roots = {each: topology.add_root_bus(*each) for each in sorted(wanted)}
    for bus, device, segment in places:
        topology.add(Edu(), roots[segment, bus], device)
    drhds = [
        Drhd(
            flags=DrhdFlags.of(include_pci_all=True),
            segment=segment,
            register_base=BASE + 0x1_0000 * segment,
        )
        for segment in sorted({segment for _, _, segment in places})
    ]
    table = Table(Header(host_address_width=47), tuple(drhds)).sealed()
    return Platform.build(PhysicalMemory(), topology, table, PROFILES["qemu"])


def test_the_chipset_comes_first_and_bridges_are_not_served() -> None:
    text = """
        [[unit]]
        profile = "qemu"
        base = 0xfd000000
        include_all = true
        [[bridge]]
        name = "port"
        at = "00:04.0"
        kind = "root_port"
        [[function]]
        at = "port/00.0"
        model = "edu"
        [[memory]]
        start = 0
        size = "1 MiB"
    """
    platform = assemble(read_machine(text)).platform
    assert platform.memory.regions
    machine = LiveMachine(platform, Clock())
    assert [each.name for each in machine.endpoints] == ["chipset", "0000:01:00.0"]
    assert machine.chipset_device == 3
    assert not machine.platform.memory.regions  # the guest brings its own
    assert machine.described() == [{"bdf": "0000:01:00.0", "model": "edu"}]
    assert machine.bridges() == {"0000:00:04.0": 1}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([(0x80, 3, 0)], "root bus 0000:80: a served machine has one, 0000:00"),
        ([(0, 3, 0), (0, 3, 1)], "root bus 0001:00: a served machine has one, 0000:00"),
        ([(0, each, 0) for each in range(3, 31)], "no device number is free"),
    ],
)
def test_what_no_client_can_have_is_refused(
    places: list[tuple[int, int, int]], message: str
) -> None:
    with pytest.raises(LiveError, match=message):
        LiveMachine(on_bus(*places), Clock())


def test_interrupts_are_counted_and_lost_while_nobody_delivers_them() -> None:
    machine = served_machine()
    (unit,) = machine.platform.units.values()
    interrupt = compatibility_interrupt(0xFEE0_3000, 0x41)
    notification = compatibility_interrupt(0xFEE0_4000, 0xF2)

    def happens(outcome: Interrupt | Posted) -> None:
        unit._publish(InterruptDelivered(0x28, outcome))

    happens(interrupt)
    assert (machine.counts()["lost"], machine.messages_wait) == (1, False)
    session: Session = machine.connect(machine.endpoints[0])
    Client(session).agree()
    happens(interrupt)
    happens(Posted(0x8000, 0x51, notification))
    happens(Posted(0x8000, 0x51, None))  # suppressed: software finds it in the descriptor
    assert machine.messages_wait
    sent = session.take()
    assert [sent[at + 16 : at + 20].hex() for at in (0, 36)] == ["0030e0fe", "0040e0fe"]
    assert len(sent) == 72
    assert machine.counts() == {
        "exits": 1, "faults": 0, "interrupts": 3, "lost": 1, "requests": 0, "hits": 0
    }  # fmt: skip
    machine.disconnect(machine.endpoints[0])
    assert machine.counts()["exits"] == 1


def test_the_pointer_to_the_mp_table_of_firmware_is_taken_away() -> None:
    machine = served_machine()
    memory = machine.platform.memory
    memory.add_region(FIRMWARE, 0x1_0000)
    memory.write(FIRMWARE + 0x40, b"_MP_rest")
    memory.write(FIRMWARE + 0x64, b"_MP_")  # at no place where anybody looks
    served = machine.endpoints[0].served
    served.read(0, 0, 4)
    assert memory.read(FIRMWARE + 0x40, 8) == bytes(4) + b"rest"
    assert memory.read(FIRMWARE + 0x64, 4) == b"_MP_"
    memory.remove_region(FIRMWARE)
    served.reset()
    served.read(0, 0, 4)  # without that memory nothing is to be done


def test_a_bar_elsewhere_than_the_table_says_is_told() -> None:
    notes: list[str] = []
    machine = served_machine(notes.append)
    for address in (0xFC00_0000, BASE):
        machine.chipset.reset()
        machine.chipset.config.write(0x10, 4, address)
        machine.chipset.config.write(4, 2, 2)
    (note,) = notes
    assert "0xfc000000" in note
    assert "0xfd000000" in note


def test_every_function_can_be_connected_again() -> None:
    machine = served_machine()
    assert [each.name for each in machine.endpoints] == ["chipset", NVME, EDU]
    for _ in range(2):
        for endpoint in machine.endpoints:
            Client(machine.connect(endpoint)).agree()
        for endpoint in machine.endpoints:
            machine.disconnect(endpoint)
            assert endpoint.session is None
