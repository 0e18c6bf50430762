"""The PCI functions of a platform and the bridges between them, as far as a listing shows them.

A listing that lacks something says nothing about it: what was not shown is unknown, and the answers
here keep that apart from "there is none". Forms of listings are in :mod:`vtd.dmar.listing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

from devices.source_id import Bdf, SourceId, SourceIdError
from vtd.dmar.alias_quirks import UNDECLARED_BRIDGES, sent_numbers
from vtd.dmar.bridges import bridges_above

NTB_CLASS = 0x0680
"""Class of non-transparent bridges, which firmware lists as bridges."""
BRIDGE_CLASSES = (0x0604, 0x0607, 0x0609)
"""PCI to PCI, CardBus and semi-transparent bridges: classes whose header is that of a bridge."""
INTEL = 0x8086
VMD_DEVICES = (
    0x201D, 0x28C0, 0x467F, 0x4C3D, 0x7D0B, 0x9A0B, 0xA77F, 0xAD0B, 0xB06F, 0xB60B,
)  # fmt: skip
"""Intel's VMD endpoints (drivers/pci/controller/vmd.c of Linux)."""
LAST_SEGMENT = 0xFFFF
"""Linux numbers the domains behind Intel VMD controllers above it; no table can name those."""


class PciTreeError(ValueError):
    """Text that holds no PCI functions; the message says where it is wrong."""


class Acs(NamedTuple):
    """The two registers of an access control services capability."""

    capability: int
    control: int


class SrIov(NamedTuple):
    """Where the virtual functions of a physical function are."""

    offset: int
    stride: int
    number: int
    """NumVFs: functions that are switched on."""
    total: int
    """TotalVFs: functions that there may be."""

    def holds(self, distance: int, number: int) -> bool:
        """Whether one of ``number`` virtual functions is ``distance`` behind the physical one."""
        if not self.offset or distance < self.offset:
            return False
        index, rest = divmod(distance - self.offset, self.stride or 1)
        return rest == 0 and index < (number if self.stride else min(number, 1))


@dataclass(frozen=True)
class PciFunction:
    """One function as software sees it. ``*_known`` is false for what the listing can't show."""

    bdf: Bdf
    name: str = ""
    class_code: int | None = None
    """Base class and sub-class, 16 bits; None if not known."""
    secondary_bus: int | None = None
    """Bus behind a bridge, None for other functions or unknown."""
    subordinate_bus: int | None = None
    """Last bus below a bridge, None for other functions or unknown."""
    express_type: int | None = None
    """Device/port type of the PCI Express capability, None for conventional PCI or unknown."""
    physical_function: Bdf | None = None
    """The physical function of an SR-IOV virtual function."""
    sriov: SrIov | None = None
    acs: Acs | None = None
    vendor_id: int | None = None
    device_id: int | None = None
    phantom_bits: int = 0
    """Highest bits of the function number that phantom functions use; 0 while switched off."""
    group: int | None = None
    """Isolation group that the listing names."""
    host: Bdf | None = None
    """The VMD endpoint whose domain the function is in."""
    is_vmd: bool = False
    memory: tuple[tuple[int, int], ...] = ()
    """Memory of BARs and bridge windows, half-open ranges."""
    header_known: bool = True
    express_known: bool = True
    acs_known: bool = True

    ROOT_PORT = 4
    TO_PCI_BRIDGE = 7
    FROM_PCI_BRIDGE = 8

    @classmethod
    def partly(cls, bdf: Bdf, **shown: Any) -> PciFunction:
        """A function of which a listing shows these fields and nothing else."""
        hidden = {"header_known": False, "express_known": False, "acs_known": False}
        return cls(bdf, **{**hidden, **shown})

    @property
    def is_bridge(self) -> bool | None:
        """Whether the configuration header is that of a bridge; None if that is not known."""
        if self.secondary_bus is not None or self.class_code in BRIDGE_CLASSES:
            return True
        return False if self.header_known else None

    def merged(self, other: PciFunction) -> PciFunction:
        """This function with what another listing of it shows in addition."""
        known = {each: getattr(self, each) or getattr(other, each) for each in _KNOWN}
        values = {}
        for name in _FIELDS:
            mine = getattr(self, name)
            unset = mine in (None, "", ()) or (name in _OFF and not mine)
            values[name] = getattr(other, name) if unset else mine
        return PciFunction(**{**values, **known, "bdf": self.bdf})


_KNOWN = ("header_known", "express_known", "acs_known")
_OFF = ("is_vmd", "phantom_bits")
"""Fields that are 0 where a listing shows nothing; a type of 0 is that of an endpoint."""
_FIELDS = [each.name for each in fields(PciFunction)]


class PciTree:
    """The functions of a platform by their address."""

    def __init__(self, functions: Iterable[PciFunction]) -> None:
        self.functions: dict[Bdf, PciFunction] = {}
        for each in functions:
            known = self.functions.get(each.bdf)
            self.functions[each.bdf] = each if known is None else known.merged(each)

    @cached_property
    def _parents(self) -> dict[tuple[int, int], PciFunction]:
        """The bridge of every bus that has one above it."""
        return {
            (each.bdf.segment, each.secondary_bus): each
            for each in self.functions.values()
            if each.secondary_bus
        }

    @cached_property
    def segments(self) -> frozenset[int]:
        """PCI segments that functions are in, without the domains behind VMD controllers."""
        return frozenset(bdf.segment for bdf in self.functions if bdf.segment <= LAST_SEGMENT)

    @cached_property
    def closed_bridges(self) -> tuple[PciFunction, ...]:
        """Bridges whose buses are not known."""
        return tuple(
            each
            for each in self.functions.values()
            if each.is_bridge and each.secondary_bus is None
        )

    def secondary_bus(self, bridge: Bdf) -> int | None:
        """The bus behind a bridge; None if it is no bridge, not there or not known."""
        function = self.functions.get(bridge)
        return function.secondary_bus if function else None

    def bridge_above(self, bdf: Bdf) -> Bdf | None:
        """The nearest bridge that forwards the bus of a function; None on a root bus.

        A bus that is the secondary bus of no bridge may still be in the range of one: virtual
        functions use further buses, and hot plug keeps some free (VT-d 8.3.3, 8.3.4).
        """
        segment, bus = bdf.segment, bdf.source_id.bus
        candidates = (self._parents.get((segment, secondary)) for secondary in range(bus, 0, -1))
        for bridge in filter(None, candidates):
            if bus <= max(bridge.secondary_bus or 0, bridge.subordinate_bus or 0):
                return bridge.bdf
        return None

    def bridges_above(self, bdf: Bdf) -> list[Bdf]:
        """The bridges above a function, nearest first."""
        return bridges_above(self, bdf)

    def may_be_below_a_bridge(self, bdf: Bdf) -> bool:
        """Whether the bus of a function may be behind a bridge whose buses are not known."""
        if bdf.source_id.bus == 0 or self.bridge_above(bdf) is not None:
            return False
        if any(each.bdf.segment == bdf.segment for each in self.closed_bridges):
            return True
        function = self.functions.get(bdf)
        silent = function is not None and not (function.header_known or function.express_known)
        return silent and not any(segment == bdf.segment for segment, _ in self._parents)

    def path(self, bdf: Bdf) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Root bus and (device, function) of every step down to a function (VT-d 8.3.1)."""
        way = [*reversed(self.bridges_above(bdf)), bdf]
        steps = tuple((each.source_id.device, each.source_id.function) for each in way)
        return way[0].source_id.bus, steps

    def physical_function(self, bdf: Bdf) -> Bdf | None:
        """The function whose place in a table counts for an id; None if that is the id itself.

        That is the physical function of a virtual function (VT-d 8.3.3), the function that a
        phantom function number stands for (3.4.1), and the VMD endpoint of a domain behind one.
        """
        found = bdf
        for _ in range(3):
            found = self._represented(found) or found
        return None if found == bdf else found

    def _represented(self, bdf: Bdf) -> Bdf | None:
        function = self.functions.get(bdf)
        if function and function.physical_function:
            return function.physical_function
        if bdf.segment > LAST_SEGMENT:
            return (function and function.host) or self.vmd_hosts.get(bdf.segment)
        for owner in self._sriov_owners:
            distance = bdf.source_id - owner.bdf.source_id
            if owner.sriov and owner.bdf.segment == bdf.segment:
                number = owner.sriov.number if function else owner.sriov.total
                if owner.sriov.holds(distance, number):
                    return owner.bdf
        return None if function else self._phantom_owner(bdf)

    def possible_physical_function(self, bdf: Bdf) -> Bdf | None:
        """A function that a listed one may be a virtual function of, which the listing hides.

        That is a lower function of the same device, of the same kind, without its capabilities.
        """
        function = self.functions.get(bdf)
        if function is None or self.physical_function(bdf) is not None:
            return None
        for low in range(bdf.source_id.function):
            other = self.functions.get(Bdf(bdf.segment, SourceId(bdf.source_id & ~7 | low)))
            if other and not other.acs_known and other.class_code == function.class_code:
                return other.bdf
        return None

    @cached_property
    def _sriov_owners(self) -> list[PciFunction]:
        return [each for each in self.functions.values() if each.sriov]

    def _phantom_owner(self, bdf: Bdf) -> Bdf | None:
        """The function of the same device that uses this function number as a phantom one."""
        for low in range(8):
            source_id = bdf.source_id
            owner = Bdf(bdf.segment, SourceId(source_id & ~7 | low))
            bits = self.functions[owner].phantom_bits if owner in self.functions else 0
            if bits and (source_id.function ^ low) & 7 >> bits == 0:
                return owner
        return None

    @cached_property
    def vmd_hosts(self) -> dict[int, Bdf]:
        """The VMD endpoint of every domain above ffffh, where it is certain.

        With several endpoints the domain's memory has to lie in a BAR of one of them; their
        numbers follow the order in which drivers came up, which no listing shows.
        """
        endpoints = [
            each
            for each in self.functions.values()
            if each.is_vmd or (each.vendor_id == INTEL and each.device_id in VMD_DEVICES)
        ]
        domains: dict[int, list[PciFunction]] = {}
        for each in self.functions.values():
            if each.bdf.segment > LAST_SEGMENT:
                domains.setdefault(each.bdf.segment, []).append(each)
        hosts = {}
        for domain, members in domains.items():
            if len(endpoints) == 1:
                hosts[domain] = endpoints[0].bdf
                continue
            inside = [each for each in endpoints if any(map(_inside(each), members))]
            if len(inside) == 1:
                hosts[domain] = inside[0].bdf
        return hosts

    def alias(self, bdf: Bdf) -> Bdf | None:
        """The requester id that a PCI Express to PCI bridge above puts in place of the device's.

        None if requests keep the id of the device (VT-d 3.4.1), or if :meth:`alias_unknown`.
        """
        for depth, bridge in enumerate(self._from_the_root(bdf)):
            if not bridge.express_known:
                return None
            if bridge.express_type == PciFunction.TO_PCI_BRIDGE or (depth and _undeclared(bridge)):
                return Bdf(bdf.segment, SourceId.of(bridge.secondary_bus or 0, 0))
            if bridge.express_type in (None, PciFunction.FROM_PCI_BRIDGE):
                return bridge.bdf
        return None

    def quirk_aliases(self, bdf: Bdf) -> frozenset[Bdf]:
        """Other ids of its bus with which a function may send, as Linux knows that device."""
        function = self.functions.get(bdf)
        if function is None:
            return frozenset()
        own = bdf.source_id & 0xFF
        numbers = sent_numbers(function.vendor_id, function.device_id, own)
        return frozenset(
            Bdf(bdf.segment, SourceId(bdf.source_id & ~0xFF | each)) for each in numbers
        )

    def alias_unknown(self, bdf: Bdf) -> Bdf | None:
        """The bridge whose kind would decide about the alias, but is not in the listing."""
        for bridge in self._from_the_root(bdf):
            if not bridge.express_known:
                return bridge.bdf
            if bridge.express_type in (
                None, PciFunction.TO_PCI_BRIDGE, PciFunction.FROM_PCI_BRIDGE
            ):  # fmt: skip
                return None
        return None

    def _from_the_root(self, bdf: Bdf) -> Iterator[PciFunction]:
        """The bridges above; the first conventional one is the last to put its id in."""
        return (self.functions[above] for above in reversed(self.bridges_above(bdf)))

    def _repr_svg_(self) -> str:
        """In a notebook: the functions as a tree."""
        from vtd.dmar.tree_picture import pci_tree_svg  # noqa: PLC0415 - only notebooks need it

        return pci_tree_svg(self)

    def to_json(self) -> str:
        """The tree as JSON that :func:`vtd.dmar.listing.parse_pci_tree` reads."""
        return json.dumps({"devices": list(map(_json, self.functions.values()))}, indent=1)


def _json(function: PciFunction) -> dict[str, Any]:
    shown = {name: getattr(function, name) for name in _FIELDS}
    values = {name: value for name, value in shown.items() if value not in (None, ())}
    if function.express_known:
        values["express_type"] = function.express_type
    for name in ("bdf", "physical_function", "host"):
        if name in values:
            values[name] = str(getattr(function, name))
    for name in ("sriov", "acs"):
        if name in values:
            values[name] = getattr(function, name)._asdict()
    return values


def _undeclared(bridge: PciFunction) -> bool:
    ids = bridge.vendor_id, bridge.device_id
    return bridge.express_type is None and ids in UNDECLARED_BRIDGES


def _inside(endpoint: PciFunction) -> Any:
    def touches(function: PciFunction) -> bool:
        return any(
            start <= first < end for first, _ in function.memory for start, end in endpoint.memory
        )

    return touches


def parse_address(text: str) -> Bdf:
    """A function as listings write it, ``00:02.0`` or ``10000:e1:00.0``; PciTreeError otherwise."""
    domain, _, rest = text.partition(":")
    try:
        if rest.count(":") == 1 and 4 < len(domain) <= 8:
            return Bdf(int(domain, 16), Bdf.parse(rest).source_id)
        return Bdf.parse(text)
    except (SourceIdError, ValueError) as error:
        raise PciTreeError(f"PCI tree: {error}") from error
