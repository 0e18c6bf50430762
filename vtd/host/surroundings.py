"""What a planner knows of a machine: table, functions, isolation groups, what units can do.

It comes from a machine that was put together from a description, or from what was collected of a
real one. What can't be known is None, or missing in a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from devices.capabilities import ExtendedCapabilityId
from devices.function import PciFunction
from devices.source_id import Bdf, SourceIdError
from vtd.dmar.assignment import ReservedRegion, reserved_regions
from vtd.dmar.pci_tree import PciFunction as ListedFunction
from vtd.dmar.pci_tree import PciTree, parse_address
from vtd.dmar.platform_data import PlatformData
from vtd.dmar.records import Drhd
from vtd.dmar.scopes import Scopes
from vtd.dmar.table import Table
from vtd.inspection.acs_quirks import REQUIRED
from vtd.inspection.isolation_groups import Groups, isolation_groups
from vtd.machine.assembly import Assembly
from vtd.unit.registers.capabilities import Capabilities

FEATURES = {
    "ats": ExtendedCapabilityId.ATS,
    "page_requests": ExtendedCapabilityId.PRI,
    "pasid": ExtendedCapabilityId.PASID,
}
"""Capabilities of functions that policies ask for."""


class Device(NamedTuple):
    """A function that a plan names, or a queue of one."""

    bdf: Bdf
    queue: str = ""


class UnknownDeviceError(ValueError):
    """A name that stands for no function of the machine."""


class Surroundings:
    """A machine as a planner sees it.

    ``names`` are those of a description, ``features`` the names of :data:`FEATURES` that functions
    are known to have, ``memory`` the bytes of ordinary memory.
    """

    def __init__(
        self,
        table: Table,
        data: PlatformData,
        *,
        names: Mapping[str, Bdf] | None = None,
        features: Mapping[Bdf, frozenset[str]] | None = None,
        memory: int | None = None,
    ) -> None:
        self.table = table
        self.tree = data.pci or PciTree(())
        self.scopes = Scopes(table, self.tree)
        self.names = dict(names or {})
        self.features = features
        self.memory = memory
        self._data = data

    @classmethod
    def of(cls, assembly: Assembly) -> Surroundings:
        """Those of a machine that was put together."""
        names, features = {}, {}
        for name, function in assembly.functions.items():
            virtual = function.sriov.functions if function.sriov else ()
            for known, each in (
                (name, function),
                *((f"{name}.vf{number}", each) for number, each in enumerate(virtual)),
            ):
                names[known] = bdf = assembly.platform.topology.bdf(each)
                features[bdf] = _features(each)
        memory = sum(each.size for each in assembly.machine.memory if not each.read_only)
        return cls(
            assembly.table,
            assembly.surroundings,
            names=names,
            features=features,
            memory=memory,
        )

    def device(self, name: str) -> Device:
        """What a name or an address stands for; UnknownDeviceError if it is nothing."""
        known, colon, queue = name.rpartition(":q")
        if not (colon and queue.isdecimal()):
            known, queue = name, ""
        bdf = self.names.get(known)
        if bdf is None:
            try:
                bdf = parse_address(known)
            except (SourceIdError, ValueError) as error:
                raise UnknownDeviceError(name) from error
        if bdf not in self.tree.functions:
            raise UnknownDeviceError(name)
        return Device(bdf, queue)

    def name(self, bdf: Bdf) -> str:
        """What to call a function."""
        return self._called.get(bdf, str(bdf))

    @cached_property
    def _called(self) -> dict[Bdf, str]:
        return {bdf: name for name, bdf in reversed(self.names.items())}

    def function(self, bdf: Bdf) -> ListedFunction:
        """A function of the machine."""
        return self.tree.functions[bdf]

    @cached_property
    def groups(self) -> Groups:
        """Isolation groups as Linux forms them."""
        return isolation_groups(self.tree)

    def group(self, bdf: Bdf, overrides: tuple[str, ...] = ()) -> tuple[Bdf, ...]:
        """The functions that can't be kept apart from one, itself included.

        ``overrides`` as of ``pcie_acs_override``: joins that the patch would hide don't count.
        """
        groups = self._overridden if overrides else self._members
        return groups.get(bdf, (bdf,))

    @cached_property
    def _members(self) -> dict[Bdf, tuple[Bdf, ...]]:
        return {bdf: group for group in self.groups.groups for bdf in group}

    @cached_property
    def _overridden(self) -> dict[Bdf, tuple[Bdf, ...]]:
        return {bdf: group for group in self.groups.overridden() for bdf in group}

    def is_bridge(self, bdf: Bdf) -> bool:
        """Whether a function is a bridge, as far as is known."""
        return bool(self.tree.functions[bdf].is_bridge)

    def redirects(self, port: Bdf) -> bool:
        """Whether a port is known to send peer-to-peer requests up to the root."""
        acs = self.function(port).acs
        return acs is not None and not REQUIRED & acs.capability & ~acs.control

    def unit(self, bdf: Bdf) -> Drhd | None:
        """The unit that remaps the requests of a function."""
        owner = self.scopes.owner(bdf)
        return owner.unit if owner else None

    @cached_property
    def capabilities(self) -> dict[int, Capabilities]:
        """What units can do, by the base of their registers, as far as it is known."""
        width = self.table.header.address_bits
        return {
            base: Capabilities.of(each.ver, each.cap, each.ecap, host_address_width=width)
            for base, each in (self._data.registers or {}).items()
            if each.answers
        }

    @cached_property
    def regions(self) -> dict[Bdf, list[ReservedRegion]]:
        """Reserved regions by the functions that need them; virtual functions need none."""
        found: dict[Bdf, list[ReservedRegion]] = {}
        for each in reserved_regions(self.table, self._data):
            if each.device is not None:
                found.setdefault(each.device, []).append(each)
        return found


def _features(function: PciFunction) -> frozenset[str]:
    return frozenset(
        name
        for name, capability in FEATURES.items()
        if function.config.find_extended_capability(capability) is not None
    )
