"""Isolation groups: which functions can reach each other without a remapping unit seeing it.

PCI Express Base Specification 6.12, Access Control Services. Egress control, which only narrows
what redirection already decides, is left out.
"""

from __future__ import annotations

from devices.capabilities import AcsControl, PortType
from devices.function import PciFunction
from devices.source_id import SourceId
from devices.sriov import VirtualFunction
from devices.topology import Topology

REDIRECTS = AcsControl.of(sv=1, rr=1, cr=1, uf=1)
"""What has to be enabled for peer-to-peer requests to go up to the root."""

_PORTS = {PortType.ROOT_PORT, PortType.DOWNSTREAM_PORT}
_NEVER_ACS = {
    PortType.PCIE_TO_PCI_BRIDGE,
    PortType.PCI_TO_PCIE_BRIDGE,
    PortType.ROOT_COMPLEX_EVENT_COLLECTOR,
}


def isolation_groups(topology: Topology, segment: int = 0) -> tuple[tuple[PciFunction, ...], ...]:
    """The functions of a segment, those that are not isolated from each other together.

    A function joins a bridge above it if some port between that bridge and the root does not
    redirect. Functions of one device that do not redirect join each other, and so do functions
    that share a requester id.
    """
    functions = topology.functions(segment)
    group: dict[PciFunction, list[PciFunction]] = {each: [each] for each in functions}

    def join(one: PciFunction, other: PciFunction) -> None:
        if group[one] is not group[other]:
            merged = group[one] + group[other]
            for member in merged:
                group[member] = merged

    sharing: dict[SourceId, PciFunction] = {}
    for function in functions:
        bridges = list(topology.bridges_above(function))
        for index, bridge in enumerate(bridges):
            if not all(redirects(topology, above) for above in bridges[index:]):
                join(function, bridge)
        join(function, sharing.setdefault(topology.requester_id(function), function))
        if not redirects(topology, function):
            for sibling in topology.siblings(function):
                if not redirects(topology, sibling):
                    join(function, sibling)
    distinct = {id(members): members for members in group.values()}
    return tuple(tuple(sorted(members, key=functions.index)) for members in distinct.values())


def redirects(topology: Topology, function: PciFunction) -> bool:
    """Whether peer-to-peer requests of, or below, this function go up to the root.

    What the capability does not offer counts as wired on. A device of one function needs no
    capability, and virtual functions are taken to be isolated by their device.
    """
    if isinstance(function, VirtualFunction):
        return True
    if function.pcie is None or function.pcie.port_type in _NEVER_ACS:
        return False
    if function.pcie.port_type not in _PORTS and len(topology.siblings(function)) == 1:
        return True
    if function.acs is None:
        return False
    needed = REDIRECTS & function.acs.capabilities.value
    return function.acs.control.value & needed == needed
