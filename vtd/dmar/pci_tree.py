"""The PCI functions of a platform, from ``lspci`` text or JSON, and the bridges between them.

Takes the output of ``lspci -xxxx`` (or ``-xxx``, ``-x``), of ``lspci -vvv``, and JSON lists of
functions with ``bdf`` and either ``config`` (hex) or the decoded values. Of a function only what
device scopes need is kept: its header type, class, the buses behind it and its PCI Express kind.
Left out are functions in domains above ffffh, which are no PCI segments: Linux makes them up for
devices behind an Intel VMD controller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from devices.source_id import Bdf, SourceId, SourceIdError
from vtd.dmar.scopes import bridges_above

NTB_CLASS = 0x0680
"""Class of non-transparent bridges, which firmware lists as bridges."""


class PciTreeError(ValueError):
    """Text that holds no PCI functions; the message says where it is wrong."""


@dataclass(frozen=True)
class PciFunction:
    """One function as software sees it."""

    bdf: Bdf
    name: str = ""
    class_code: int | None = None
    """Base class and sub-class, 16 bits; None if not known."""
    secondary_bus: int | None = None
    """Bus behind a bridge, None for other functions."""
    subordinate_bus: int | None = None
    """Last bus below a bridge, None for other functions or unknown."""
    express_type: int | None = None
    """Device/port type of the PCI Express capability, None for conventional PCI or unknown."""
    physical_function: Bdf | None = None
    """The physical function of an SR-IOV virtual function."""

    ROOT_PORT = 4
    TO_PCI_BRIDGE = 7

    @property
    def is_bridge(self) -> bool:
        """Whether the configuration header is that of a bridge."""
        return self.secondary_bus is not None


class PciTree:
    """The functions of a platform by their address."""

    def __init__(self, functions: Iterable[PciFunction]) -> None:
        self.functions = {function.bdf: function for function in functions}

    @cached_property
    def _parents(self) -> dict[tuple[int, int], PciFunction]:
        """The bridge of every bus that has one above it."""
        return {
            (each.bdf.segment, each.secondary_bus): each
            for each in self.functions.values()
            if each.secondary_bus
        }

    def secondary_bus(self, bridge: Bdf) -> int | None:
        """The bus behind a bridge; None if it is no bridge or not there."""
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

    def physical_function(self, bdf: Bdf) -> Bdf | None:
        """The physical function of a virtual function."""
        function = self.functions.get(bdf)
        return function.physical_function if function else None

    def alias(self, bdf: Bdf) -> Bdf | None:
        """The requester id that a PCI Express to PCI bridge above puts in place of the device's.

        None if requests keep the id of the device (VT-d 3.4.1).
        """
        for above in self.bridges_above(bdf):
            bridge = self.functions[above]
            if bridge.express_type == PciFunction.TO_PCI_BRIDGE:
                return Bdf(bdf.segment, SourceId.of(bridge.secondary_bus or 0, 0))
            if bridge.express_type is None and self._express_above(bridge):
                return bridge.bdf
        return None

    def _express_above(self, bridge: PciFunction) -> bool:
        """Whether a conventional bridge sits below PCI Express or on a root bus."""
        above = self.bridge_above(bridge.bdf)
        return above is None or self.functions[above].express_type is not None

    def to_json(self) -> str:
        """The tree as JSON that :func:`parse_pci_tree` reads."""
        functions = []
        for each in self.functions.values():
            values = {name: value for name, value in asdict(each).items() if value is not None}
            values["bdf"] = str(each.bdf)
            if each.physical_function:
                values["physical_function"] = str(each.physical_function)
            functions.append(values)
        return json.dumps({"devices": functions}, indent=1)


def parse_pci_tree(text: str) -> PciTree:
    """The functions in ``lspci`` text or JSON; PciTreeError if there are none."""
    parse = _json_functions if text.lstrip()[:1] in ("[", "{") else _lspci_functions
    tree = PciTree(parse(text))
    if not tree.functions:
        raise PciTreeError("PCI tree: no function found")
    return tree


_HEADING = re.compile(r"((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (.*)", re.ASCII)
_NO_SEGMENT = re.compile(r"[0-9a-f]{5,8}:[0-9a-f]{2}:", re.ASCII)
_HEX_LINE = re.compile(r"([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?){1,16})", re.ASCII)
_BUSES = re.compile(
    r"\s+Bus: primary=\w+, secondary=([0-9a-f]+)(?:, subordinate=([0-9a-f]+))?", re.ASCII
)
_CLASS = re.compile(r".*\[([0-9a-f]{4})\]: |([0-9a-f]{4}): ", re.ASCII)
_EXPRESS = re.compile(r"\s+Capabilities: \[\w+\] Express (?:\(v\d\) )?([^,(]*)")
_EXPRESS_TYPES = {
    "Endpoint": 0,
    "Legacy Endpoint": 1,
    "Root Port": 4,
    "Upstream Port": 5,
    "Downstream Port": 6,
    "PCI-Express to PCI/PCI-X Bridge": 7,
    "PCI/PCI-X to PCI-Express Bridge": 8,
    "Root Complex Integrated Endpoint": 9,
    "Root Complex Event Collector": 10,
}


def _lspci_functions(text: str) -> Iterator[PciFunction]:
    """Functions of lspci output: each starts with its address at the start of a line."""
    heading: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        match = _HEADING.match(line)
        if match is None:
            lines.append(line)
            continue
        if heading is not None:
            yield _lspci_function(heading, lines)
        heading, lines = None if _NO_SEGMENT.match(line) else match, []
    if heading is not None:
        yield _lspci_function(heading, lines)


def _lspci_function(heading: re.Match[str], lines: list[str]) -> PciFunction:
    bdf, name = _bdf(heading[1]), heading[2]
    config = bytearray()
    secondary = subordinate = express = None
    for line in lines:
        if (match := _HEX_LINE.match(line)) and int(match[1], 16) == len(config):
            config += bytes.fromhex(match[2])
        elif match := _BUSES.match(line):
            secondary = int(match[1], 16)
            subordinate = int(match[2], 16) if match[2] else None
        elif match := _EXPRESS.match(line):
            express = _EXPRESS_TYPES.get(match[1].strip())
    if len(config) >= 64:
        return _from_config(bdf, name, bytes(config))
    found = _CLASS.match(name)
    class_code = int(found[1] or found[2], 16) if found else None
    return PciFunction(bdf, name, class_code, secondary, subordinate, express)


def _from_config(bdf: Bdf, name: str, config: bytes) -> PciFunction:
    """A function from its configuration space, at least the header of 64 bytes."""
    bridge = config[0x0E] & 0x7F in (1, 2)
    class_code = config[0x0B] << 8 | config[0x0A]
    secondary, subordinate = config[0x19:0x1B] if bridge else (None, None)
    return PciFunction(bdf, name, class_code, secondary, subordinate, _express_type(config))


def _express_type(config: bytes) -> int | None:
    """Device/port type of the PCI Express capability."""
    if not config[6] & 0x10:
        return None
    seen = set()
    position = config[0x34] & ~3
    while 0x40 <= position <= len(config) - 4 and position not in seen:
        seen.add(position)
        if config[position] == 0x10:
            return config[position + 2] >> 4
        position = config[position + 1] & ~3
    return None


def _json_functions(text: str) -> Iterator[PciFunction]:
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PciTreeError(f"PCI tree: not JSON: {error}") from error
    entries = data.get("devices") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise PciTreeError("PCI tree: a list of functions is needed")
    for number, entry in enumerate(entries):
        where = f"PCI tree, function {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("bdf"), str):
            raise PciTreeError(f"{where}: no bdf")
        if _NO_SEGMENT.match(entry["bdf"]):
            continue
        bdf = _bdf(entry["bdf"])
        name = str(entry.get("name", ""))
        physical = entry.get("physical_function") or entry.get("physfn")
        owner = _bdf(physical) if isinstance(physical, str) else None
        config = _hex(entry.get("config"), where)
        if len(config) >= 64:
            yield replace(_from_config(bdf, name, config), physical_function=owner)
        else:
            yield PciFunction(
                bdf,
                name,
                _optional(entry, "class_code", where, 0xFFFF),
                _optional(entry, "secondary_bus", where, 0xFF),
                _optional(entry, "subordinate_bus", where, 0xFF),
                _optional(entry, "express_type", where, 0xF),
                owner,
            )


def _optional(entry: dict[str, object], name: str, where: str, largest: int) -> int | None:
    value = entry.get(name)
    if value is None or (isinstance(value, int) and 0 <= value <= largest):
        return value
    raise PciTreeError(f"{where}: {name} is no number up to 0x{largest:x}")


def _hex(value: object, where: str) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError as error:
        raise PciTreeError(f"{where}: config is not hexadecimal") from error


def _bdf(text: str) -> Bdf:
    try:
        return Bdf.parse(text)
    except SourceIdError as error:
        raise PciTreeError(f"PCI tree: {error}") from error
