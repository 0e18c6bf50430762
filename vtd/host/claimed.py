"""A unit as software sees it that does not look at what the unit can do.

Its capability registers claim what policies ask for; nothing else of it changes, so the unit treats
what such software writes as its own capabilities demand (11.4.2, 11.4.3).
"""

from __future__ import annotations

from collections.abc import Iterable

from vtd.layouts.registers import AddressWidths, Capability, ExtendedCapability, LargePages
from vtd.software.registers import Registers, read

PAGES = {"sslps_2m": LargePages.PAGE_2M, "sslps_1g": LargePages.PAGE_2M | LargePages.PAGE_1G}


class ClaimedUnit:
    """``unit`` with further flags in CAP_REG and ECAP_REG, and with some kind of second stage.

    ``flags`` are names as of ``Capabilities.features``.
    """

    def __init__(self, unit: Registers, flags: Iterable[str]) -> None:
        self._unit = unit
        some = read(unit, Capability).sagaw
        cap = Capability.of(sagaw=some or AddressWidths.AGAW_48)
        ecap = ExtendedCapability(0)
        for flag in flags:
            if flag in ExtendedCapability.FIELDS:
                ecap = ecap.replace(**{flag: True})
            elif flag in Capability.FIELDS:
                cap = cap.replace(**{flag: True})
            else:
                cap = cap.replace(sslps=cap.sslps | PAGES[flag])
        self._claims = {Capability.OFFSET: int(cap), ExtendedCapability.OFFSET: int(ecap)}

    def read_register(self, offset: int, size: int) -> int:
        """As the unit answers, with what is claimed."""
        return self._unit.read_register(offset, size) | self._claims.get(offset, 0)

    def write_register(self, offset: int, size: int, value: int) -> None:
        """As it is."""
        self._unit.write_register(offset, size, value)
