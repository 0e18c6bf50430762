"""PCI functions from ``lspci`` text as people post it.

Any verbosity, ``-x`` to ``-xxxx``, ``-t``, ``-n``, ``-nn``, ``-D``, ``-PP``, ``-mm`` and ``-vmm``,
with root's rights or not; indented, quoted by mail, with the prefix of a log; several listings of a
machine in one text are put together. Lines that are none of lspci's are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from devices.source_id import Bdf
from vtd.dmar.listing.config_space import HEADER, from_config
from vtd.dmar.listing.lspci_tree import TREE_START, tree_functions
from vtd.dmar.pci_tree import Acs, PciFunction, SrIov, parse_address

CLASS_NAMES = {
    "raid bus controller": 0x0104,
    "non-volatile memory controller": 0x0108,
    "ethernet controller": 0x0200,
    "network controller": 0x0280,
    "vga compatible controller": 0x0300,
    "xga compatible controller": 0x0301,
    "3d controller": 0x0302,
    "display controller": 0x0380,
    "audio device": 0x0403,
    "host bridge": 0x0600,
    "isa bridge": 0x0601,
    "pci bridge": 0x0604,
    "cardbus bridge": 0x0607,
    "semi-transparent pci-to-pci bridge": 0x0609,
    "usb controller": 0x0C03,
    "smbus": 0x0C05,
}
"""Names of the pci.ids database for the classes that decisions rest on, in lower case."""
VMD_NAME = "volume management device"

_ADDRESS = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
_QUOTE = r"[\s>|*+#`]*"
_HEADING = re.compile(rf"{_QUOTE}(?:Slot:\s+)?({_ADDRESS})(?:\s+(.*))?", re.ASCII)
_PATH = re.compile(
    rf"({_QUOTE})({_ADDRESS}(?:/[0-9a-f]{{2}}:[0-9a-f]{{2}}\.[0-7])+)(?=\s)", re.ASCII
)
"""The bridges above a function and itself, as ``-PP`` prints them; the domain is in the first."""
_NAMED = r"\S[^:]*\[[0-9a-f]{4}\]|(?:Class )?[0-9a-f]{4}|(?i:" + "|".join(CLASS_NAMES) + ")"
_PREFIXED = re.compile(rf".*?[\s\]:>|-]({_ADDRESS}) ((?:{_NAMED}): .*)", re.ASCII)
"""A heading behind the prefix of a log or of grep; what follows has to look like a class."""
_HEX_LINE = re.compile(r"(?:^|[\s>|:-])([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?){1,16})\s*$", re.ASCII)
_CLASS_NUMBER = re.compile(
    r"\"?[^:\"]*?\[(?:Class )?([0-9a-f]{4})\](?::|\"| -|$)|(?:Class )?\"?([0-9a-f]{4})\"?"
    r"(?::(?![0-9a-f]{4}\b)| |$)",
    re.ASCII,
)
_CLASS_NAME = re.compile(r"\"?([^:\"\[]+?)\s*(?:\[[0-9a-f]{4}\])?(?::|\"|$)", re.ASCII)
_IDS = re.compile(
    r"\[([0-9a-f]{4}):([0-9a-f]{4})\]|(?:[0-9a-f]{4}: |^)([0-9a-f]{4}):([0-9a-f]{4})\b", re.ASCII
)
"""Also of ``lspci -p`` of ESXi, where nothing is before them."""
_QUOTED_ID = re.compile(r"\[([0-9a-f]{4})\]\"|\"([0-9a-f]{4})\"", re.ASCII)
_DETAILS = re.compile(r"(?:Control|Flags|Status|Bus|Capabilities): ?\S", re.ASCII)
_BUSES = re.compile(
    r"Bus: primary=\w+,\s+[>|\s]*secondary=([0-9a-f]{2})(?:,\s+[>|\s]*subordinate=([0-9a-f]{2}))?"
)
_HIDDEN = re.compile(r"Capabilities: ?<")
_CAPABILITY = re.compile(r"Capabilities: \[([0-9a-f]+)(?: v\d+)?\]", re.ASCII)
_NO_CAPABILITIES = re.compile(r"Status: Cap-")
_EXPRESS = re.compile(r"Capabilities: \[\w+\] Express (?:\(v\d\) )?([A-Z][^,(\n]*)")
EXPRESS_TYPES = {
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
_ACS = re.compile(r"Access Control Services")
_ACS_FLAGS = r"\s+((?:[>|\s]*[A-Z]\w+[+-])+)"
_ACS_CAPABILITY, _ACS_CONTROL = (
    re.compile("ACSCap:" + _ACS_FLAGS),
    re.compile("ACSCtl:" + _ACS_FLAGS),
)
_ACS_NAMES = (
    "SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans",
)  # fmt: skip
"""Bits of both ACS registers, from bit 0 on."""
_VF_NUMBERS = re.compile(r"Total VFs: (\d+),\s+[>|\s]*Number of VFs: (\d+)", re.ASCII)
_VF_PLACES = re.compile(r"VF offset: (\d+),\s+[>|\s]*stride: (\d+)", re.ASCII)
_VF_ENABLED = re.compile(r"IOVCtl:\s+Enable([+-])")
_PHANTOM = re.compile(r"PhantFunc ([0-7])")
_PHANTOM_ENABLED = re.compile(r"PhantFunc\+")
_GROUP = re.compile(r"IOMMU ?[gG]roup:?\s+(\d+)", re.ASCII)
_GROUP_HEADING = re.compile(
    rf"{_QUOTE}(?:(?:IOMMU )?[Gg]roup +(\d+)\b|Group:\s+(\d+)\s+(?={_ADDRESS}))", re.ASCII
)
"""What scripts print in front of the functions of a group, or above them."""
_IDS_FIRST = re.compile(
    rf"^(?:.*\s|)\[([0-9a-f]{{4}}:[0-9a-f]{{4}})\]\s+(?:\[R\]\s*)?({_ADDRESS})\s+"
    r"(\S.*?)(?:: |\s\s+)(\S.*)$",
    re.ASCII,
)
"""A function as scripts print it that put the ids first."""
_NO_COLON = re.compile(rf"({_ADDRESS} \S[^:\[]*\[[0-9a-f]{{4}}\])(?= \w)", re.ASCII)
"""The class of a function as ls-iommu prints it."""
_MEMORY = re.compile(r"Memory at ([0-9a-f]{4,16}) .*?\[size=(\d+)([KMGT]?)\]", re.ASCII)
_WINDOW = re.compile(r"emory behind bridge: ([0-9a-f]{4,16})-([0-9a-f]{4,16})", re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MACHINE_FIELD = re.compile(rf"{_QUOTE}(Class|Vendor|Device|SVendor|SDevice):\s+(.*)", re.ASCII)


def lspci_functions(text: str) -> Iterator[PciFunction]:
    """Functions of lspci output: each starts with its address, or is drawn in a tree."""
    heading: re.Match[str] | None = None
    details: list[str] = []
    drawn: list[str] = []
    group: str | None = None
    for written in text.splitlines():
        line = written
        if match := _GROUP_HEADING.match(line):
            group = f"IOMMU group: {match[1] or match[2]}"
        elif not line.strip():
            group = None
        if TREE_START.search(line) or (drawn and re.search(r"[+\\]-[\[0-9a-f]", line)):
            drawn.append(line)
            continue
        if match := _PATH.match(line):
            *bridges, last = _path(match[2])
            yield from bridges
            line = f"{match[1]}{last.bdf}{line[match.end() :]}"
        usual = _IDS_FIRST.sub(r"\2 \3: \4 [\1]", _NO_COLON.sub(r"\1:", line))
        match = _HEADING.fullmatch(usual) or _PREFIXED.fullmatch(usual)
        if match is None:
            details.append(line)
            continue
        if heading is not None:
            yield _function(heading, details)
        heading, details = match, [group] if group else []
    if heading is not None:
        yield _function(heading, details)
    yield from tree_functions(drawn)


def _function(heading: re.Match[str], lines: list[str]) -> PciFunction:
    """One function from its heading and the lines up to the next one."""
    bdf, name = parse_address(heading[1]), (heading[2] or "").strip()
    shown = _described(bdf, name or _machine_name(lines), "\n".join(lines))
    config = bytearray()
    for line in lines:
        match = _HEX_LINE.search(line)
        if match and int(match[1], 16) == len(config):
            config += bytes.fromhex(match[2])
    if len(config) < HEADER:
        return shown
    read = from_config(bdf, bytes(config), shown.name)
    return replace(read.merged(shown), is_vmd=shown.is_vmd)


def _path(text: str) -> list[PciFunction]:
    """The bridges of a path with the buses behind them, and the function that it leads to."""
    first, *others = text.split("/")
    domain = first[: -len("00:00.0")]
    places = [parse_address(first), *(parse_address(domain + each) for each in others)]
    buses = [*(each.source_id.bus for each in places[1:]), None]
    return [
        PciFunction.partly(place, secondary_bus=bus)
        for place, bus in zip(places, buses, strict=True)
    ]


def _machine_name(lines: list[str]) -> str:
    """The heading of an ordinary listing from the lines of ``lspci -vmm``."""
    fields: dict[str, str] = {}
    for line in lines:
        if match := _MACHINE_FIELD.fullmatch(line):
            fields.setdefault(match[1], match[2].strip())
    if "Class" not in fields:
        return ""
    return f"{fields['Class']}: {fields.get('Vendor', '')} {fields.get('Device', '')}".strip()


def _described(bdf: Bdf, name: str, details: str) -> PciFunction:
    """What the words of a listing say."""
    header_known = bool(_DETAILS.search(details))
    buses = _BUSES.search(details)
    express = _EXPRESS.search(details)
    express_type = EXPRESS_TYPES.get(express[1].strip()) if express else None
    listed = bool(_CAPABILITY.search(details)) and not _HIDDEN.search(details)
    express_known = express_type is not None if express else listed or _none(details)
    acs = _acs(details)
    phantom = _PHANTOM.search(details)
    vendor, device = _ids(name)
    group = _GROUP.search(details)
    return PciFunction(
        bdf,
        name,
        class_code=_class_code(name),
        secondary_bus=int(buses[1], 16) if buses else None,
        subordinate_bus=int(buses[2], 16) if buses and buses[2] else None,
        express_type=express_type,
        sriov=_sriov(details),
        acs=acs,
        vendor_id=vendor,
        device_id=device,
        phantom_bits=int(phantom[1]).bit_length()
        if phantom and _PHANTOM_ENABLED.search(details)
        else 0,
        group=int(group[1]) if group else None,
        is_vmd=VMD_NAME in name.lower() or "Kernel driver in use: vmd" in details,
        memory=tuple(_memory(details)) if "emory" in details else (),
        header_known=header_known,
        express_known=express_known,
        acs_known=acs is not None or (express_known and not _ACS.search(details)),
    )


def _none(details: str) -> bool:
    return bool(_NO_CAPABILITIES.search(details))


def _class_code(name: str) -> int | None:
    if found := _CLASS_NUMBER.match(name):
        return int(found[1] or found[2], 16)
    found = _CLASS_NAME.match(name)
    return CLASS_NAMES.get(found[1].strip().lower()) if found else None


def _ids(name: str) -> tuple[int | None, int | None]:
    """Vendor and device id, which ``-n`` and ``-nn`` print."""
    if found := list(_IDS.finditer(name)):
        vendor, device = [each for each in found[-1].groups() if each]
        return int(vendor, 16), int(device, 16)
    numbers = [int(first or second, 16) for first, second in _QUOTED_ID.findall(name)]
    return (numbers[1], numbers[2]) if len(numbers) >= 3 else (None, None)


def _acs(details: str) -> Acs | None:
    capability, control = _ACS_CAPABILITY.search(details), _ACS_CONTROL.search(details)
    return Acs(_bits(capability[1]), _bits(control[1])) if capability and control else None


def _bits(flags: str) -> int:
    return sum(1 << bit for bit, name in enumerate(_ACS_NAMES) if f"{name}+" in flags)


def _sriov(details: str) -> SrIov | None:
    numbers, places = _VF_NUMBERS.search(details), _VF_PLACES.search(details)
    if not numbers or not places:
        return None
    enabled = _VF_ENABLED.search(details)
    on = enabled is None or enabled[1] == "+"
    return SrIov(int(places[1]), int(places[2]), int(numbers[2]) if on else 0, int(numbers[1]))


def _memory(details: str) -> Iterator[tuple[int, int]]:
    for match in _MEMORY.finditer(details):
        start = int(match[1], 16)
        yield start, start + int(match[2]) * _UNITS[match[3]]
    for match in _WINDOW.finditer(details):
        yield int(match[1], 16), int(match[2], 16) + 1
