"""Two virtual functions behind a root port, each in a virtual machine of its own.

Topology, SR-IOV, a reserved region (RMRR), a domain for each function, interrupt remapping: what a
hypervisor sets up before it hands out devices, and what then stops one machine's device from
reaching the other machine. Every step prints what was seen.
"""

from devices.capabilities import AcsCapabilities, PortType
from devices.function import Identity, PciFunction
from devices.interrupt_programming import remappable_message
from devices.isolation import REDIRECTS, isolation_groups
from devices.source_id import SourceId
from devices.sriov import NumVfs, Sriov, SriovControl
from devices.topology import Bridge, Topology
from pagetables.build import FramePool
from pagetables.memory import PhysicalMemory
from vtd.dmar.assignment import reserved_regions
from vtd.dmar.description import build
from vtd.layouts.interrupt_entries import RemappedIrte, SourceValidationType
from vtd.platform import Platform
from vtd.software.domain import Domain
from vtd.software.driver import Driver
from vtd.unit.interrupts.outcome import Interrupt
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.reporting.events import Event, InterruptBlocked, InterruptDelivered, RequestBlocked

TABLES, GUESTS = 0x10_0000, 0x100_0000
SIZE = 0x10_0000
"""Bytes of a virtual machine's memory, which its device sees from address 0 on."""
REGION = 0x7B_0000
DMAR = f"""
[header]
flags = ["intr_remap"]
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed90000
[[structure]]
type = "RMRR"
base = {REGION:#x}
limit = {REGION + 0xFFF:#x}
[[structure.scope]]
type = "pci_endpoint"
path = ["1c.0", "00.0"]
"""


def main() -> None:
    """Build the machine, hand out its functions, and let them try."""
    memory, topology = PhysicalMemory(), Topology()
    memory.add_region(0, 64 << 20)
    port = Bridge(Identity(0x8086, 0x9D10, 0x060400), PortType.ROOT_PORT)
    acs = port.add_acs(AcsCapabilities.of(sv=1, tb=1, rr=1, cr=1, uf=1))
    nic = PciFunction(Identity(0x8086, 0x1572, 0x020000))
    sriov = Sriov(nic, total_vfs=4, first_offset=8, stride=1, vf_device_id=0x154C)
    topology.add(port, topology.add_root_bus(), device=0x1C)
    topology.add(nic, topology.bus_behind(port), device=0)
    topology.add_sriov(sriov)
    topology.assign_bus_numbers()
    dmar = build(DMAR)
    platform = Platform.build(memory, topology, dmar, PROFILES["qemu"])
    unit = platform.unit_of(nic)
    unit.subscribe(tell)

    # The host's driver: two virtual functions, and a root port that lets nothing pass sideways.
    nic.config.write(sriov.count.offset, 2, NumVfs.of(count=2))
    nic.config.write(sriov.control.offset, 2, SriovControl.of(vf_enable=1, vf_mse=1))
    platform.connect()  # the new functions get their ports
    port.config.write(acs.control.offset, 2, REDIRECTS)
    for function in topology.functions():
        function.command.value = function.command.value.replace(bme=True)
    for group in isolation_groups(topology):
        print("group    ", ", ".join(str(topology.bdf(each)) for each in group))
    for region in reserved_regions(dmar):
        print(
            "region   ", f"{region.region.base:#x} for {region.entry}; {region.policies['Linux']}"
        )

    # The hypervisor: for each virtual function a domain with the memory of one virtual machine. The
    # physical function stays with the host, and keeps its reserved region (8.4).
    driver = Driver(unit, memory, FramePool(TABLES, REGION))
    driver.start(interrupts=True)
    domains = []
    for number, function in enumerate((nic, *sriov.functions)):
        domain = driver.domain()
        domains.append(domain)
        if function is nic:
            domain.map(REGION, REGION, 0x1000)
        else:
            domain.map(0, GUESTS + number * SIZE, SIZE)
        source_id = topology.requester_id(function)
        driver.attach(source_id, domain)
        driver.interrupts.allocate(
            RemappedIrte.of(
                p=True,
                v=0x30 + number,
                dst=number << 8,
                sid=source_id,
                svt=SourceValidationType.SOURCE_ID,
            )
        )
    attempts(memory, (nic, *sriov.functions), domains[1])


def attempts(memory: PhysicalMemory, functions: tuple[PciFunction, ...], domain: Domain) -> None:
    """What the devices try, each programmed by its own machine; ``domain`` is the first VF's."""
    nic, first, second = functions
    print("writes   ", first.dma.write(0x4000, b"one").status.name)
    print("writes   ", second.dma.write(0x4000, b"two").status.name)
    print(
        "memory   ",
        memory.read(GUESTS + SIZE + 0x4000, 3),
        memory.read(GUESTS + 2 * SIZE + 0x4000, 3),
    )
    print("beyond   ", first.dma.write(GUESTS + 2 * SIZE, b"!").status.name)
    print("reserved ", nic.dma.read(REGION, 4).status.name)
    first.send_message(*remappable_message(1))
    second.send_message(*remappable_message(1))

    # The hypervisor takes a page back. The table alone is not enough: the IOTLB still has it.
    domain.tables.unmap(0x4000, 0x1000)
    print("unmapped ", first.dma.read(0x4000, 3).status.name)
    domain.unmap(0x4000, 0x1000)
    print("unmapped ", first.dma.read(0x4000, 3).status.name)


def tell(event: Event) -> None:
    """What the unit did, as its one subscriber hears it."""
    match event:
        case RequestBlocked(request, reason):
            print(
                "blocked  ", f"{SourceId(request.source_id)} at {request.address:#x}: {reason.text}"
            )
        case InterruptBlocked(source_id, _, reason):
            print("blocked  ", f"interrupt of {SourceId(source_id)}: {reason.text}")
        case InterruptDelivered(source_id, Interrupt() as interrupt):
            print("delivered", f"interrupt of {SourceId(source_id)}: vector {interrupt.vector:#x}")


if __name__ == "__main__":
    main()
