"""The arguments of QEMU: every function at its place, behind the bridges that are above it."""

from __future__ import annotations

import json
from pathlib import PurePath

from devices.clock import Clock
from vtd.live.machine import LiveMachine
from vtd.live.qemu_arguments import qemu_arguments
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine

MACHINE = """
[[unit]]
profile = "qemu"
base = 0xfd000000
include_all = true
[[bridge]]
name = "port"
at = "00:1c.0"
kind = "root_port"
[[bridge]]
name = "pci"
at = "00:04.0"
kind = "pcie_to_pci"
[[bridge]]
name = "old"
at = "pci/02.0"
kind = "pci_to_pci"
[[switch]]
name = "switch"
at = "port/00.0"
ports = 2
[[function]]
at = "switch.1/00.0"
model = "nvme"
[[function]]
at = "old/03.0"
model = "edu"
[[function]]
at = "00:06.0"
model = "edu"
[[function]]
at = "00:06.1"
model = "edu"
[[function]]
at = "00:07.0"
model = "nvme"
vfs = 1
parameters = { vfs = 2 }
"""


def devices() -> list[dict[str, object]]:
    machine = LiveMachine(assemble(read_machine(MACHINE)).platform, Clock())
    arguments = qemu_arguments(
        machine, PurePath("/seen/dmar.bin"), lambda each: PurePath("/seen") / each.name
    )
    assert arguments[:8] == [
        *("-machine", "q35,memory-backend=ram,accel=tcg"),
        *("-object", "memory-backend-memfd,id=ram,size=1G,share=on"),
        *("-m", "1G"),
        *("-acpitable", "file=/seen/dmar.bin"),
    ]
    assert set(arguments[8::2]) == {"-device"}
    return [json.loads(each) for each in arguments[9::2]]


def test_functions_are_behind_the_bridges_above_them() -> None:
    found = devices()
    buses = {each["id"] for each in found if "id" in each} | {"pcie.0"}
    assert {each["bus"] for each in found} <= buses
    kinds = {each["id"]: each["driver"] for each in found if "id" in each}
    above = {each["id"]: each["bus"] for each in found if "id" in each}
    sockets = {each["socket"]["path"]: each for each in found if "socket" in each}  # type: ignore[index]

    def way(path: str) -> list[object]:
        bus, drivers = sockets[path]["bus"], []
        while bus != "pcie.0":
            drivers.append(kinds[bus])
            bus = above[bus]
        return drivers

    # 1: pci, 2: old, 3: port, 4: switch, 5 and 6: its ports
    assert way("/seen/0000:06:00.0") == ["xio3130-downstream", "x3130-upstream", "pcie-root-port"]
    assert way("/seen/0000:02:03.0") == ["pci-bridge", "pcie-pci-bridge"]
    assert way("/seen/chipset") == way("/seen/0000:00:06.0") == []


def test_bridges_come_before_what_is_behind_them_and_have_numbers_of_their_own() -> None:
    found = devices()
    known = {"pcie.0"}
    for each in found:
        assert each["bus"] in known
        known |= {str(each["id"])} if "id" in each else set()
    numbered = [each["chassis"] for each in found if "chassis" in each]
    assert len(set(map(str, numbered))) == len(numbered) == 3


def test_places_and_functions_of_one_device_are_as_described() -> None:
    places = {
        str(each["socket"]["path"]): (each["addr"], each.get("multifunction"))  # type: ignore[index]
        for each in devices()
        if "socket" in each
    }
    assert places == {
        "/seen/0000:06:00.0": ("00.0", None),
        "/seen/0000:02:03.0": ("03.0", None),
        "/seen/0000:00:07.0": ("07.0", True),
        "/seen/0000:00:07.1": ("07.1", True),
        "/seen/0000:00:06.0": ("06.0", True),
        "/seen/0000:00:06.1": ("06.1", True),
        "/seen/chipset": ("03.0", None),
    }
