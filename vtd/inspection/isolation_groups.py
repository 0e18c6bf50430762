"""Isolation groups as Linux forms them: functions that can't be kept apart share one.

Follows ``pci_device_group`` (drivers/iommu/iommu.c) and ``pci_acs_enabled`` (drivers/pci/pci.c): a
function joins the bridge above it unless every port up to the root redirects peer requests (ACS),
what sends with a bridge's id joins that bridge, and functions of one device join unless they have
ACS. A device that Linux knows to send with another id of its bus joins the function that has it.
ACS bits that a port's capability lacks count as hard-wired. What a listing does not show is taken
for not isolated, and said, unless the listing names the group that the kernel formed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from devices.capabilities import AcsControl, PortType
from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciFunction, PciTree
from vtd.inspection.acs_quirks import EGRESS_CONTROL, REQUIRED, Quirk, quirk

PORTS = (PortType.ROOT_PORT, PortType.DOWNSTREAM_PORT)
ONE_FUNCTION_IS_ENOUGH = (
    PortType.ENDPOINT,
    PortType.LEGACY_ENDPOINT,
    PortType.UPSTREAM_PORT,
    PortType.ROOT_COMPLEX_ENDPOINT,
)
"""Kinds that need ACS only beside other functions of the device."""
BELOW_A_PORT = (
    PortType.ENDPOINT,
    PortType.LEGACY_ENDPOINT,
    PortType.UPSTREAM_PORT,
    PortType.PCIE_TO_PCI_BRIDGE,
)
HOST_BRIDGE = 0x0600
NAMES = {"sv": "SrcValid", "rr": "ReqRedir", "cr": "CmpltRedir", "uf": "UpstreamFwd"}
"""ACS bits as lspci writes them."""


class Isolation(NamedTuple):
    """Whether a function keeps peers apart, why, and whether that is certain."""

    isolated: bool
    reason: str
    known: bool = True


class Join(NamedTuple):
    """Two functions that share a group, and why."""

    first: Bdf
    second: Bdf
    reason: str
    known: bool = True
    by_override: bool = False
    """Whether Linux with the ACS override patch would not see this join."""


@dataclass(frozen=True)
class Groups:
    """The groups of a machine, the joins they come from, and what is taken on trust."""

    groups: tuple[tuple[Bdf, ...], ...]
    joins: tuple[Join, ...]
    trusted: tuple[tuple[Bdf, Quirk], ...]
    """Functions that count as isolated for a quirk of Linux."""
    unplaced: tuple[Bdf, ...] = ()
    """Functions below a bridge that the listing lacks, and that names no group for them."""

    @property
    def unknown(self) -> tuple[Join, ...]:
        """Joins that the listing neither shows nor rules out."""
        return tuple(each for each in self.joins if not each.known)

    def _repr_html_(self) -> str:
        """In a notebook: a row for each group, with what its functions share."""
        from vtd.pictures.markup import html_table  # noqa: PLC0415 - only notebooks need it

        rows: list[list[object]] = [
            [
                number,
                ", ".join(map(str, group)),
                "; ".join(each.reason for each in self.joins if each.second in group),
            ]
            for number, group in enumerate(self.groups, 1)
        ]
        return html_table("Isolation groups", ["Group", "Functions", "Why"], rows)

    def overridden(self) -> tuple[tuple[Bdf, ...], ...]:
        """The groups that Linux would show with ``pcie_acs_override=downstream,multifunction``."""
        kept = [each for each in self.joins if not each.by_override]
        return _closure((bdf for group in self.groups for bdf in group), kept)


def isolation_groups(tree: PciTree) -> Groups:
    """The groups of the functions in a listing."""
    joins = tuple(dict.fromkeys(_settled(tree, _joins(tree))))
    trusted = tuple(
        (each.bdf, found)
        for each in tree.functions.values()
        if (found := quirk(each)) not in (None, Quirk.SHIFTED_CONTROL)
    )
    unplaced = tuple(filter(lambda bdf: _is_unplaced(tree, bdf), sorted(tree.functions)))
    return Groups(_closure(sorted(tree.functions), joins), joins, trusted, unplaced)


def _settled(tree: PciTree, joins: Iterable[Join]) -> Iterator[Join]:
    """The joins; where the listing shows too little to tell, the groups that it names tell."""
    told: dict[Bdf, Join] = {}
    named: dict[int, Bdf] = {}
    for bdf, each in sorted(tree.functions.items()):
        first = bdf if each.group is None else named.setdefault(each.group, bdf)
        if first != bdf:
            why = f"the listing has both in group {each.group}; lspci -vvv as root shows why"
            told[bdf] = Join(first, bdf, why)
    for join in joins:
        one, other = (tree.functions[bdf] for bdf in (join.first, join.second))
        if join.known or None in (one.group, other.group):
            yield join
        elif one.group == other.group:  # a listing with an error may join a function to itself
            yield told.get(join.second) or told.get(join.first) or join
    for bdf, join in told.items():
        if not (tree.functions[bdf].express_known and tree.functions[join.first].express_known):
            yield join


def _is_unplaced(tree: PciTree, bdf: Bdf) -> bool:
    """Whether a function is, or is likely to be, below a bridge that is not listed.

    Integrated devices say what they are, and downstream ports are behind their switch. A bus
    behind another port has device 0 only, so one with others is a root bus, if the listing shows
    which buses are behind bridges at all.
    """
    function = tree.functions[bdf]
    if bdf.source_id.bus == 0 or function.group is not None or function.class_code == HOST_BRIDGE:
        return False
    if tree.bridges_above(bdf) or _is_virtual(tree, function):
        return False
    if function.express_known:
        below = function.express_type in BELOW_A_PORT and not bdf.source_id.device
        return below or function.express_type == PortType.DOWNSTREAM_PORT
    beside = (
        each.bdf.source_id.device
        for each in tree.functions.values()
        if _on_bus(each.bdf, bdf) and not _is_virtual(tree, each)
    )
    bridges = (each.secondary_bus for each in tree.functions.values() if each.secondary_bus)
    return not any(beside) or next(bridges, None) is None


def _on_bus(one: Bdf, other: Bdf) -> bool:
    return (one.segment, one.source_id.bus) == (other.segment, other.source_id.bus)


def _closure(functions: Iterable[Bdf], joins: Iterable[Join]) -> tuple[tuple[Bdf, ...], ...]:
    """Functions put together that are joined, directly or not; in the order of addresses."""
    leader = {bdf: bdf for bdf in functions}

    def find(bdf: Bdf) -> Bdf:
        while leader[bdf] != bdf:
            leader[bdf] = leader[leader[bdf]]
            bdf = leader[bdf]
        return bdf

    for join in joins:
        leader[find(join.second)] = find(join.first)
    groups: dict[Bdf, list[Bdf]] = defaultdict(list)
    for bdf in sorted(leader):
        groups[find(bdf)].append(bdf)
    return tuple(tuple(group) for group in sorted(groups.values()))


def _joins(tree: PciTree) -> Iterator[Join]:
    devices: dict[tuple[int, int], list[PciFunction]] = defaultdict(list)
    for each in tree.functions.values():
        if each.physical_function is None and not _is_virtual(tree, each):
            devices[each.bdf.segment, each.bdf.source_id >> 3].append(each)
        yield from _joins_upwards(tree, each)
        for sent in sorted(tree.quirk_aliases(each.bdf) & tree.functions.keys()):
            yield Join(sent, each.bdf, f"requests of {each.bdf} may carry its id")
    for functions in devices.values():
        yield from _joins_of_device(functions)


def _is_virtual(tree: PciTree, function: PciFunction) -> bool:
    owner = tree.physical_function(function.bdf)
    return owner is not None and owner.segment == function.bdf.segment


def _joins_upwards(tree: PciTree, function: PciFunction) -> Iterator[Join]:
    """What a function shares with the bridges above it, or with the controller of its domain."""
    bdf = function.bdf
    host = tree.physical_function(bdf)
    if host is not None and host.segment != bdf.segment and host in tree.functions:
        yield Join(host, bdf, f"requests carry the id of the VMD controller {host}")
    place = host if host is not None and host.segment == bdf.segment else bdf
    above = tree.bridges_above(place)
    for bridge in above:
        kind = tree.functions[bridge]
        if _sends_with_own_id(kind):
            known = kind.express_known
            why = f"requests carry an id of the bridge {bridge} to conventional PCI"
            yield Join(bridge, bdf, why if known else f"{bridge} may be a bridge to PCI", known)
    if above:
        weakest = _weakest(tree, above)
        if weakest is not None:
            port, isolation = weakest
            overridden = tree.functions[port].express_type in PORTS
            why = f"{port} {isolation.reason}"
            yield Join(above[0], bdf, why, isolation.known, overridden)


def _sends_with_own_id(bridge: PciFunction) -> bool:
    """Whether a bridge puts its id into requests, or may do so."""
    kinds = (None, PortType.PCIE_TO_PCI_BRIDGE, PortType.PCI_TO_PCIE_BRIDGE)
    return bridge.express_type in kinds


def _weakest(tree: PciTree, ports: list[Bdf]) -> tuple[Bdf, Isolation] | None:
    """The first port on the way up that turns peer requests round; a certain one first."""
    found = [(port, _isolation(tree, tree.functions[port])) for port in ports]
    weak = [(port, isolation) for port, isolation in found if not isolation.isolated]
    certain = [each for each in weak if each[1].known]
    return next(iter(certain or weak), None)


def _joins_of_device(functions: list[PciFunction]) -> Iterator[Join]:
    """What the functions of one device share: each that lacks ACS with the first such."""
    if len(functions) < 2:
        return
    weak = [
        (each, isolation)
        for each in functions
        if not (isolation := _own_isolation(each, alone=False)).isolated
    ]
    for each, isolation in weak[1:]:
        first, first_isolation = weak[0]
        known = isolation.known and first_isolation.known
        overridden = each.express_type is not None and first.express_type is not None
        why = f"functions of one device: {each.bdf} {isolation.reason}"
        yield Join(first.bdf, each.bdf, why, known, overridden)


def _isolation(tree: PciTree, function: PciFunction) -> Isolation:
    source_id = function.bdf.source_id
    beside = any(
        each.segment == function.bdf.segment
        and each.source_id >> 3 == source_id >> 3
        and each != function.bdf
        for each in tree.functions
    )
    return _own_isolation(function, alone=not beside)


def _own_isolation(function: PciFunction, alone: bool) -> Isolation:
    """Whether a function keeps its peers apart; ``alone`` if its device has no other function."""
    found = quirk(function)
    if found is Quirk.SHIFTED_CONTROL:
        return Isolation(False, "has its ACS control where lspci does not show it", known=False)
    if found is not None:
        return Isolation(True, found.value)
    kind = function.express_type
    if not function.express_known:
        return Isolation(False, "is not shown with its capabilities (lspci -vvv as root)", False)
    if kind in ONE_FUNCTION_IS_ENOUGH and alone:
        return Isolation(True, "is the only function of its device")
    if kind not in (*PORTS, *ONE_FUNCTION_IS_ENOUGH):
        return Isolation(False, "is no PCI Express function with ACS")
    return _by_acs(function)


def _by_acs(function: PciFunction) -> Isolation:
    """What the ACS capability of a function says; bits that it lacks count as hard-wired."""
    if not function.acs_known:
        return Isolation(False, "is not shown with the bits of its ACS (lspci -vvv as root)", False)
    if function.acs is None:
        return Isolation(False, "has no ACS capability")
    needed = REQUIRED & (function.acs.capability | EGRESS_CONTROL)
    missing = needed & ~function.acs.control
    if missing:
        bits = ", ".join(name for field, name in NAMES.items() if missing & _bit(field))
        return Isolation(False, f"has ACS with {bits} off")
    return Isolation(True, "has ACS enabled")


def _bit(name: str) -> int:
    return AcsControl.of(**{name: 1})
