"""The PCI tree: buses, bridges, and what a request's source-id has become at the root.

PCI Express Base Specification, chapters 6 and 7; PCI Bridge Specification; VT-d 3.12 for the ids
that bridges substitute. Bus numbers are those software programmed into the bridges. Address windows
of bridges are left out: memory decoding is a matter of the functions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from devices.capabilities import AcsControl, ExtendedCapabilityId, PortType
from devices.config_space import BridgeControl, BusNumbers
from devices.dma import AddressType, CompletionStatus
from devices.function import BME, CLOSED, Bar, Identity, PciFunction
from devices.source_id import Bdf, SourceId
from devices.sriov import Sriov, VirtualFunction

Path = tuple[int, tuple[tuple[int, int], ...]]
"""A root bus and the (device, function) of each step down, as in a DMAR device scope."""


class TopologyError(ValueError):
    """A place that does not exist, is taken, or belongs to another tree.

    ``function`` is the one that can't be numbered, if that is what is wrong.
    """

    def __init__(self, message: str, function: PciFunction | None = None) -> None:
        super().__init__(message)
        self.function = function


class Bridge(PciFunction):
    """A function with a type 1 header and a bus behind it.

    ``port_type`` is one of the ports and bridges of PCI Express, or None for a conventional
    PCI-to-PCI bridge.
    """

    header_type = 1

    def __init__(self, identity: Identity, port_type: PortType | None = None) -> None:
        super().__init__(identity)
        self.port_type = port_type
        self.buses = self.config.add(0x18, BusNumbers(), routing=True)
        self.config.add(0x3E, BridgeControl())
        if port_type is not None:
            self.add_pci_express(port_type)

    @property
    def secondary(self) -> int:
        """The bus number behind it, 0 until software assigned one."""
        return self.buses.value.secondary

    @property
    def access_control(self) -> AcsControl:
        """What software has enabled of ACS; nothing without the capability."""
        return AcsControl(0) if self.acs is None else self.acs.control.value


class Bus:
    """A bus of a segment: the functions on it by device and function number."""

    def __init__(
        self,
        segment: int,
        root_number: int,
        bridge: Bridge | None,
        host: PciFunction | None = None,
    ) -> None:
        self.segment = segment
        self.bridge = bridge
        """The bridge it is behind, None for a root bus."""
        self.host = host
        """The VMD endpoint whose domain this is the root bus of; None for all other buses."""
        self.functions: dict[int, PciFunction] = {}
        self._root_number = root_number

    @property
    def number(self) -> int:
        """The bus number: that of the root bus, or what the bridge was programmed with."""
        return self._root_number if self.bridge is None else self.bridge.secondary


class Topology:
    """All segments of a machine and the functions plugged into them."""

    def __init__(self) -> None:
        self.roots: list[Bus] = []
        self._places: dict[PciFunction, tuple[Bus, int]] = {}
        self._behind: dict[Bridge, Bus] = {}
        self._sriov: list[Sriov] = []
        self.on_change: list[Callable[[], None]] = []
        """Called when functions came or went, or something changed that routes requests."""

    def add_root_bus(
        self, segment: int = 0, number: int = 0, host: PciFunction | None = None
    ) -> Bus:
        """A root bus; several per segment are allowed.

        ``host`` is the VMD endpoint that has it in its domain, a segment of its own: requests from
        there carry the id of the endpoint.
        """
        if any((bus.segment, bus.number) == (segment, number) for bus in self.roots):
            raise TopologyError(f"bus: {segment:04x}:{number:02x} exists already")
        bus = Bus(segment, SourceId.of(number, 0).bus, None, host)
        self.roots.append(bus)
        if host is not None:
            host.on_way_changed = self._changed
        return bus

    def add(self, function: PciFunction, bus: Bus, device: int, number: int = 0) -> Bdf:
        """Plug ``function`` in as function ``number`` of ``device``; returns where it is now."""
        devfn = SourceId.of(0, device, number).devfn
        if devfn in bus.functions or function in self._places:
            raise TopologyError(f"{device:02x}.{number}: taken, or plugged in already")
        bus.functions[devfn] = function
        self._places[function] = (bus, devfn)
        device_functions = self.siblings(function)
        if len(device_functions) > 1:
            for each in device_functions:
                header = each.header
                header.value = header.initial = header.value.replace(multifunction=1)
        if isinstance(function, Bridge):
            self._behind[function] = Bus(bus.segment, 0, function)
            function.on_way_changed = self._changed
        self._changed()
        return self.bdf(function)

    def remove(self, function: PciFunction) -> None:
        """Pull a function out, with its virtual functions and all that is behind it.

        What is pulled out reaches nothing any more; TopologyError for what is not plugged in.
        """
        bus, devfn = self._place(function)
        if isinstance(function, Bridge):
            for each in list(self._behind[function].functions.values()):
                self.remove(each)
            del self._behind[function]
        gone = [function]
        if function.sriov in self._sriov:
            self._sriov.remove(function.sriov)
            gone += function.sriov.functions
        del bus.functions[devfn], self._places[function]
        for each in gone:
            each.connect(CLOSED)
        self._changed()

    def add_sriov(self, sriov: Sriov) -> None:
        """Make the virtual functions of a plugged-in function part of the tree."""
        self._place(sriov.physical)
        self._sriov.append(sriov)
        sriov.physical.on_way_changed = self._changed
        self._changed()

    def bus_behind(self, bridge: Bridge) -> Bus:
        """The bus on the far side of a bridge."""
        self._place(bridge)
        return self._behind[bridge]

    def assign_bus_numbers(self, given: Mapping[Bridge, range] | None = None) -> None:
        """Number the buses depth first, as firmware does; root buses keep their numbers.

        ``given``: the buses, first to last, that bridges have; TopologyError if one is in use when
        it comes to that, or a bridge below needs more. Others get what they need, for all virtual
        functions there may be.
        """
        for root in self.roots:
            self._assign(root, root.number, None, given or {})

    def bdf(self, function: PciFunction) -> Bdf:
        """Where a function is: its segment and its own requester id."""
        if isinstance(function, VirtualFunction):
            if function not in function.sriov.functions:
                raise TopologyError("the virtual function is not enabled any more")
            segment, source_id = self.bdf(function.sriov.physical)
            return Bdf(segment, SourceId(source_id + function.routing_offset & 0xFFFF))
        bus, devfn = self._place(function)
        return Bdf(bus.segment, SourceId(bus.number << 8 | devfn))

    def functions(self, segment: int = 0) -> tuple[PciFunction, ...]:
        """Every function of a segment, bridges before what is behind them, then VFs."""
        placed = [
            function
            for root in self.roots
            if root.segment == segment
            for function in self._below(root)
        ]
        virtual = [
            function
            for sriov in self._sriov
            if self._place(sriov.physical)[0].segment == segment
            for function in sriov.functions
        ]
        return (*placed, *virtual)

    def find(self, bdf: Bdf) -> PciFunction | None:
        """The function that configuration requests to ``bdf`` reach, or None."""
        for root in self.roots:
            bus = self._route(root, bdf.source_id.bus) if root.segment == bdf.segment else None
            if bus is not None and bdf.source_id.devfn in bus.functions:
                return bus.functions[bdf.source_id.devfn]
        for sriov in self._sriov:
            for function in sriov.functions:
                if self.bdf(function) == bdf:
                    return function
        return None

    def config_read(self, bdf: Bdf, offset: int, size: int) -> int:
        """A configuration read; all ones where there is no function."""
        function = self.find(bdf)
        if function is None:
            return (1 << 8 * size) - 1
        return function.config.read(offset, size)

    def config_write(self, bdf: Bdf, offset: int, size: int, value: int) -> None:
        """A configuration write; dropped where there is no function."""
        function = self.find(bdf)
        if function is not None:
            function.config.write(offset, size, value)

    def bar_at(self, address: int, segment: int = 0) -> tuple[PciFunction, Bar, int] | None:
        """The function and BAR that claim a memory address, and the offset in it, or None."""
        for function in self.functions(segment):
            claimed = function.bar_at(address)
            if claimed is not None:
                return function, *claimed
        return None

    def path(self, function: PciFunction) -> Path:
        """The way down from the root bus, which does not depend on bus numbers."""
        steps = []
        place: PciFunction | None = _physical(function)
        bus = self._place(_physical(function))[0]
        while place is not None:
            bus, devfn = self._place(place)
            steps.append((devfn >> 3, devfn & 7))
            place = bus.bridge
        return bus.number, tuple(reversed(steps))

    def bridge_map(self) -> dict[Bdf, int]:
        """The secondary bus of every bridge, as resolving a DMAR device scope needs it."""
        return {self.bdf(bridge): bridge.secondary for bridge in self._behind}

    def secondary_bus(self, bridge: Bdf) -> int | None:
        """The bus behind a bridge; None if there is no bridge at that place."""
        function = self.find(bridge)
        return function.secondary if isinstance(function, Bridge) else None

    def bridge_above(self, bdf: Bdf) -> Bdf | None:
        """The bridge above a function; None on a root bus, or if there is no such function."""
        function = self.find(bdf)
        bridges = iter(()) if function is None else self.bridges_above(function)
        bridge = next(bridges, None)
        return None if bridge is None else self.bdf(bridge)

    def physical_function(self, bdf: Bdf) -> Bdf | None:
        """The function whose place in a DMAR table counts; None if it is the function itself.

        That is the physical function of a virtual one (VT-d 8.3.3), and the VMD endpoint of what is
        in its domain.
        """
        function = self.find(bdf)
        if function is None:
            return None
        host = self._host(function)
        represents = _physical(function) if host is None else host
        return None if represents is function else self.bdf(represents)

    def aliases(self, function: PciFunction) -> tuple[SourceId, ...]:
        """Every id its requests may carry, its own first, the one bridges put last (VT-d 3.12).

        A PCIe-to-PCI bridge sends them as device 0, function 0 of its secondary bus, or lets
        some pass as they are; any other bridge to or from conventional PCI sends them as its own.
        """
        ids = [self.bdf(function).source_id]
        for bridge in self.bridges_above(function):
            if bridge.port_type is PortType.PCIE_TO_PCI_BRIDGE:
                ids.append(SourceId.of(bridge.secondary, 0, 0))
            elif bridge.port_type in {None, PortType.PCI_TO_PCIE_BRIDGE}:
                ids.append(self.bdf(bridge).source_id)
        host = self._host(function)
        if host is not None:
            ids += self.aliases(host)
        return tuple(dict.fromkeys(ids))

    def requester_id(self, function: PciFunction) -> SourceId:
        """The source-id under which requests of ``function`` arrive at the root."""
        return self.aliases(function)[-1]

    def phantom_ids(self, function: PciFunction) -> tuple[SourceId, ...]:
        """The further ids a function may send under while phantom functions are enabled."""
        pcie = function.pcie
        if pcie is None or not pcie.control.value.phantom_functions:
            return ()
        source_id = self.bdf(function).source_id
        bits = pcie.capabilities.value.phantom_functions
        low = source_id & ~7 | source_id.function & 7 >> bits
        ids = (SourceId(low | high << 3 - bits) for high in range(1 << bits))
        return tuple(phantom for phantom in ids if phantom != source_id)

    def refusal(
        self,
        function: PciFunction,
        source_id: SourceId,
        address_type: AddressType = AddressType.UNTRANSLATED,
    ) -> CompletionStatus | None:
        """How the bridges above refuse a request of ``function``; None if they let it through."""
        met = self.met_above(function, source_id, address_type)
        return met if isinstance(met, CompletionStatus) else None

    def met_above(
        self,
        function: PciFunction,
        source_id: SourceId,
        address_type: AddressType,
        address: int | None = None,
    ) -> CompletionStatus | tuple[Bar, int] | None:
        """What a request meets above ``function``; None if it arrives at the root.

        Each bridge has to have bus mastering on, or the request is not supported. A root or
        downstream port with ACS also aborts a requester id from outside its buses (source
        validation) and anything but untranslated requests (translation blocking; VT-d 4.2.2). With
        an ``address``, a switch takes it to the BAR of another function behind it, unless the port
        that it came in by redirects requests (RR), which translated ones pass over with DT. What
        is met is then the BAR, and the offset in it.
        """
        for bridge in self.bridges_above(function):
            refused = _refusal(bridge, source_id, address_type)
            if refused is not None:
                return refused
            if address is not None and self._turns_round(bridge, address_type):
                peer = self._across(bridge, address)
                if peer is not None:
                    return peer
        host = self._host(function)
        if host is None:
            return None
        if not host.command.value & BME:
            return CompletionStatus.UNSUPPORTED_REQUEST
        return self.met_above(host, self.bdf(host).source_id, address_type, address)

    def is_switched(self, function: PciFunction) -> bool:
        """Whether some switch above may take requests of ``function`` to another one."""
        kinds = (AddressType.UNTRANSLATED, AddressType.TRANSLATED)
        above = self.bridges_above(function)
        return any(self._turns_round(bridge, kind) for bridge in above for kind in kinds)

    def _turns_round(self, bridge: Bridge, address_type: AddressType) -> bool:
        """Whether a switch routes by address what comes in by this port of it."""
        bus = self._place(bridge)[0]
        if bus.bridge is None or bus.bridge.port_type is not PortType.UPSTREAM_PORT:
            return False
        acs = bridge.access_control
        if address_type is AddressType.TRANSLATED:
            return bool(acs.dt or not acs.rr)
        return address_type is AddressType.UNTRANSLATED and not acs.rr

    def _across(self, bridge: Bridge, address: int) -> tuple[Bar, int] | None:
        """The BAR of a function behind another port of the switch that claims an address."""
        own = set(self._below(self._behind[bridge]))
        for other in self._below(self._place(bridge)[0]):
            claimed = None if other in own else other.bar_at(address)
            if claimed is not None:
                return claimed
        return None

    def bridges_above(self, function: PciFunction) -> Iterator[Bridge]:
        """The bridges between a function and the root, nearest first."""
        bridge = self._place(_physical(function))[0].bridge
        while bridge is not None:
            yield bridge
            bridge = self._place(bridge)[0].bridge

    def is_forwarded(self, function: PciFunction) -> bool:
        """Whether something above a function forwards its requests, or stops them."""
        above = next(self.bridges_above(function), None)
        return above is not None or self._host(function) is not None

    def siblings(self, function: PciFunction) -> tuple[PciFunction, ...]:
        """The plugged-in functions of the same device, itself included.

        They share the device number; with ARI the whole bus is one device.
        """
        bus, devfn = self._place(_physical(function))
        if function.config.find_extended_capability(ExtendedCapabilityId.ARI) is not None:
            return tuple(bus.functions.values())
        return tuple(each for at, each in bus.functions.items() if at >> 3 == devfn >> 3)

    def _changed(self) -> None:
        """Requests may take another way from now on."""
        for function in self._places:
            function.bus_master.reconsider()
        for sriov in self._sriov:
            for virtual in sriov.functions:
                virtual.bus_master.reconsider()
        for react in self.on_change:
            react()

    def _host(self, function: PciFunction) -> PciFunction | None:
        """The VMD endpoint in whose domain a function is."""
        bus = self._place(_physical(function))[0]
        while bus.bridge is not None:
            bus = self._place(bus.bridge)[0]
        return bus.host

    def _place(self, function: PciFunction) -> tuple[Bus, int]:
        try:
            return self._places[function]
        except KeyError:
            raise TopologyError("the function is not plugged in here") from None

    def _below(self, bus: Bus) -> Iterator[PciFunction]:
        for _, function in sorted(bus.functions.items()):
            yield function
            if isinstance(function, Bridge):
                yield from self._below(self._behind[function])

    def _route(self, bus: Bus, number: int) -> Bus | None:
        """The bus of that number at or below ``bus``, the way a configuration request finds it."""
        if bus.number == number:
            return bus
        for function in bus.functions.values():
            if isinstance(function, Bridge):
                buses = function.buses.value
                if 0 < buses.secondary <= number <= buses.subordinate:
                    return self._route(self._behind[function], number)
        return None

    def _assign(self, bus: Bus, last: int, end: int | None, given: Mapping[Bridge, range]) -> int:
        """Number everything behind ``bus``; takes and returns the last number in use.

        ``end`` is the last one there may be, where that is given.
        """
        for sriov in self._sriov:
            if end is None and self._place(sriov.physical)[0] is bus:
                last = max(last, self._last_vf_bus(sriov))
        for _, function in sorted(bus.functions.items()):
            if isinstance(function, Bridge):
                wanted = given.get(function, range(last + 1, last + 1))
                secondary, most = wanted.start, max(wanted.start, wanted.stop - 1)
                if secondary <= last:
                    raise TopologyError(f"bus: {secondary:#x} is in use already", function)
                if end is not None and most > end:
                    text = f"bus: {most:#x} is needed, the last one behind the bridge above is"
                    raise TopologyError(f"{text} {end:#x}", function)
                if most > 0xFF:
                    raise TopologyError(f"bus: {bus.segment:04x} has more than 256 buses", function)
                function.buses.value = BusNumbers.of(
                    primary=bus.number, secondary=secondary, subordinate=0xFF
                )
                within = most if function in given else end
                last = max(most, self._assign(self._behind[function], secondary, within, given))
                function.buses.value = function.buses.value.replace(subordinate=last)
        return last

    def _last_vf_bus(self, sriov: Sriov) -> int:
        routing, total = sriov.routing.value, sriov.total.value.count
        first = self.bdf(sriov.physical).source_id + routing.first_offset
        last = first + (total - 1) * routing.stride >> 8
        if last > 0xFF:
            text = f"virtual functions need bus {last:#x}, the last one is 0xff"
            raise TopologyError(text, sriov.physical)
        return last


def _refusal(
    bridge: Bridge, source_id: SourceId, address_type: AddressType
) -> CompletionStatus | None:
    """How a bridge refuses a request that comes in from below; None if it does not."""
    if not bridge.command.value & BME:
        return CompletionStatus.UNSUPPORTED_REQUEST
    acs, buses = bridge.access_control, bridge.buses.value
    forged = acs.sv and not buses.secondary <= source_id.bus <= buses.subordinate
    blocked = acs.tb and address_type is not AddressType.UNTRANSLATED
    return CompletionStatus.COMPLETER_ABORT if forged or blocked else None


def _physical(function: PciFunction) -> PciFunction:
    """The function whose place in the tree counts."""
    return function.sriov.physical if isinstance(function, VirtualFunction) else function
