"""How QEMU is told of a served machine: its functions by socket, the bridges above, the table.

The bridges are QEMU's own; firmware numbers their buses depth first, as the topology does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

from devices.capabilities import PortType
from devices.topology import Bridge
from vtd.live.machine import Endpoint, LiveMachine

BRIDGES = {
    PortType.ROOT_PORT: "pcie-root-port",
    PortType.UPSTREAM_PORT: "x3130-upstream",
    PortType.DOWNSTREAM_PORT: "xio3130-downstream",
    PortType.PCIE_TO_PCI_BRIDGE: "pcie-pci-bridge",
    None: "pci-bridge",
}
"""QEMU's devices by the type of port."""


SLOTS = (PortType.ROOT_PORT, PortType.DOWNSTREAM_PORT)
"""Ports that want a slot number."""
ROOT = "pcie.0"


def qemu_arguments(
    machine: LiveMachine,
    table: PurePath,
    path: Callable[[Endpoint], PurePath],
    *,
    memory: str = "1G",
    message_timeout: int = 60_000,
) -> list[str]:
    """The arguments of QEMU, without those of a guest: no kernel, disk or console.

    ``table`` is a file with the DMAR table, ``path`` the socket of an endpoint, both as QEMU sees
    them. ``message_timeout`` is how many milliseconds an answer may take, for breakpoints.
    """
    arguments = [
        *("-machine", "q35,memory-backend=ram,accel=tcg"),
        *("-object", f"memory-backend-memfd,id=ram,size={memory},share=on"),
        *("-m", memory),
        *("-acpitable", f"file={table}"),
    ]
    for device in _devices(machine, path):
        if device["driver"] == "vfio-user-pci":
            device["x-msg-timeout"] = message_timeout
        arguments += ["-device", json.dumps(device)]
    return arguments


def _devices(
    machine: LiveMachine, path: Callable[[Endpoint], PurePath]
) -> Iterator[dict[str, Any]]:
    """Bridges before what is behind them, as QEMU wants it."""
    topology = machine.platform.topology
    endpoints = {id(each.served.function): each for each in machine.endpoints}
    served = [function for function in topology.functions() if not function.driven]
    slots = Counter(topology.bdf(function).source_id >> 3 for function in served)
    for function in served:
        _, above = topology.path(function)
        device: dict[str, Any] = {"driver": "vfio-user-pci"}
        if isinstance(function, Bridge):
            device = {"driver": BRIDGES[function.port_type], "id": _name(above)}
            if function.port_type in SLOTS:
                device |= {"chassis": topology.bdf(function).source_id, "slot": 0}
            elif function.port_type is None:
                device["chassis_nr"] = topology.bdf(function).source_id.devfn or 1
        else:
            device["socket"] = _socket(path(endpoints[id(function)]))
        source_id = topology.bdf(function).source_id
        device |= {
            "bus": _name(above[:-1]),
            "addr": f"{source_id.device:02x}.{source_id.function}",
        }
        if slots[source_id >> 3] > 1:
            device["multifunction"] = True
        yield device
    chipset = machine.endpoints[0]
    yield {
        "driver": "vfio-user-pci",
        "socket": _socket(path(chipset)),
        "bus": ROOT,
        "addr": f"{machine.chipset_device:02x}.0",
    }


def _socket(path: PurePath) -> dict[str, str]:
    return {"path": str(path), "type": "unix"}


def _name(path: tuple[tuple[int, int], ...]) -> str:
    """What QEMU calls the bus behind the bridge at ``path``."""
    steps = "-".join(f"{device:02x}.{function}" for device, function in path)
    return f"bridge-{steps}" if steps else ROOT
