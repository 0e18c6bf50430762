"""Random plans on a small server: guests, their memory and maps, policies, who gets what."""

from __future__ import annotations

from hypothesis import strategies as st

from vtd.host.plan import (
    Assignment,
    Guest,
    GuestMap,
    GuestMemory,
    Interrupts,
    Plan,
    Policy,
    Stage,
    Viommu,
)
from vtd.machine.description import Machine, read_machine
from vtd.machine.reading import Where

DEVICES = ("nic.vf0", "nic.vf1", "nic.vf2", "disk", "one", "two")
MACHINE = """
[[memory]]
start = 0
size = "32 MiB"
[[unit]]
profile = "xeon"
base = 0xfed9_0000
devices = ["left"]
[[unit]]
profile = "qemu-scalable-first"
base = 0xfeda_0000
include_all = true
[[bridge]]
name = "left"
at = "00:1c.0"
kind = "root_port"
acs = true
[[switch]]
name = "switch"
at = "left/00.0"
ports = 2
acs = true
[[bridge]]
name = "right"
at = "00:1d.0"
kind = "pcie_to_pci"
[[function]]
name = "nic"
at = "switch.0/00.0"
sriov = { total = 4, first_offset = 0x80, stride = 2 }
vfs = 3
[[function]]
name = "disk"
at = "switch.1/00.0"
[[function]]
name = "one"
at = "right/01.0"
[[function]]
name = "two"
at = "right/02.0"
"""


def machine() -> Machine:
    return read_machine(MACHINE)


def _pages(top: int) -> st.SearchStrategy[int]:
    return st.integers(0, top).map(lambda number: number << 12)


@st.composite
def guests(draw: st.DrawFn, name: str) -> Guest:
    """Up to three ranges of memory, and perhaps maps of the guest's own."""
    memory: list[GuestMemory] = []
    end = 0
    for _ in range(draw(st.integers(1, 3))):
        start = end + draw(_pages(600))
        size = draw(st.integers(1, 520)) << 12
        memory.append(GuestMemory(start=start, size=size))
        end = start + size
    viommu = draw(st.sampled_from(Viommu))
    maps: list[GuestMap] = []
    at = 0
    for _ in range(draw(st.integers(0, 3)) if viommu is not Viommu.NONE else 0):
        at += draw(_pages(700))
        size = draw(st.integers(1, 40)) << 12
        maps.append(GuestMap(device=at, guest=draw(_pages(end >> 12)), size=size))
        at += size
    return Guest(
        where=Where(name=name), name=name, memory=tuple(memory), viommu=viommu, maps=tuple(maps)
    )


def policies() -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        stage=st.sampled_from(Stage),
        interrupts=st.sampled_from(Interrupts),
        page_size=st.sampled_from((12, 21)),
        shared_tables=st.booleans(),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """One to three guests; each device goes to one of them or stays with the host."""
    found = [draw(guests(name)) for name in ("a", "b", "c")[: draw(st.integers(1, 3))]]
    assignments = []
    for number, device in enumerate(DEVICES):
        guest = draw(st.none() | st.sampled_from(found))
        if guest is not None:
            where = Where(name=f"assign {number}")
            policy = draw(policies())
            assignments.append(
                Assignment(where=where, guest=guest.name, devices=(device,), policy=policy)
            )
    return Plan(guests=tuple(found), assignments=tuple(assignments))
