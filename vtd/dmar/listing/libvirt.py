"""PCI functions as libvirt's ``virsh nodedev-list --tree`` and ``nodedev-dumpxml`` show them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from devices.source_id import Bdf
from vtd.dmar.pci_tree import PciFunction, parse_address

_NAME = re.compile(
    r"(?<![\w-])pci_([0-9a-f]{4,8})_([0-9a-f]{2})_([0-9a-f]{2})_([0-7])(?=</name>|\s*$)", re.ASCII
)
_GROUP = re.compile(r"<iommuGroup number=['\"](\d+)['\"]>(.*?)</iommuGroup>", re.DOTALL)
_MEMBER = re.compile(
    r"<address domain=['\"]0x([0-9a-f]{4,8})['\"] bus=['\"]0x([0-9a-f]{2})['\"] "
    r"slot=['\"]0x([0-9a-f]{2})['\"] function=['\"]0x([0-7])['\"]",
    re.ASCII,
)


def libvirt_functions(text: str) -> Iterator[PciFunction]:
    """The functions, the buses of bridges that the tree shows, and the groups of the XML."""
    above: list[tuple[int, Bdf]] = []
    for line in text.splitlines():
        if match := _NAME.search(line):
            bdf, column = _bdf(match), match.start()
            while above and above[-1][0] >= column:
                above.pop()
            yield PciFunction.partly(bdf)
            if above and above[-1][1].source_id.bus != bdf.source_id.bus:
                yield PciFunction.partly(above[-1][1], secondary_bus=bdf.source_id.bus)
            above.append((column, bdf))
    for group in _GROUP.finditer(text):
        for match in _MEMBER.finditer(group[2]):
            yield PciFunction.partly(_bdf(match), group=int(group[1]))


def _bdf(match: re.Match[str]) -> Bdf:
    return parse_address(f"{match[1]}:{match[2]}:{match[3]}.{match[4]}")
