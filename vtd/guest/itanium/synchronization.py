"""What the processor keeps of a VPD while accelerations are on, until it is synchronized (11.7.4).

An acceleration may hold VPD fields in the processor. A monitor that reads one without
PAL_VPS_SYNC_READ reads an old value, one that writes it without PAL_VPS_SYNC_WRITE changes nothing.
Which implementation keeps what is its own business; here it is all that accelerations use, so that
every synchronization that is left out shows.
"""

from __future__ import annotations

from vtd.guest.itanium.environment import Registration
from vtd.guest.itanium.registers import INTERRUPTION_CRS, Cr
from vtd.guest.itanium.vpd import Vac

VpdPlace = tuple[str, int]
"""A part of the VPD and the number of a quadword in it."""

_CRS = tuple(("vcr", int(number)) for number in sorted(INTERRUPTION_CRS))
KEPT_BY: dict[str, tuple[VpdPlace, ...]] = {
    "a_int": (("vpsr", 0), ("vcr", Cr.TPR)),
    "a_from_int_cr": (("vpsr", 0), *_CRS),
    "a_to_int_cr": (("vpsr", 0), *_CRS),
    "a_from_psr": (("vpsr", 0),),
    "a_from_cpuid": (),
    "a_cover": (("vpsr", 0), ("vcr", Cr.IFS)),
    "a_bsw": (("vpsr", 0),),
}
"""What each acceleration keeps; vhpi is told by PAL_VPS_SET_PENDING_INTERRUPT instead."""


def kept_places(vac: Vac) -> frozenset[VpdPlace]:
    """The places that the processor keeps with these accelerations."""
    return frozenset(
        place for name, places in KEPT_BY.items() if getattr(vac, name) for place in places
    )


class Kept:
    """Registers of the processor that stand for places of a VPD.

    They hold their values until they are loaded, whichever virtual processor is current.
    """

    def __init__(self) -> None:
        self._values: dict[VpdPlace, int] = {}
        self.vhpi = 0
        """The pending interrupt that the processor was told of."""

    def read(self, current: Registration, name: str, index: int = 0) -> int:
        """A field of the current VPD as the processor has it."""
        if (name, index) in kept_places(current.vac):
            return self._values.get((name, index), 0)
        return current.vpd.read(name, index)

    def write(self, current: Registration, name: str, value: int, index: int = 0) -> None:
        """Change a field of the current VPD as the processor has it."""
        if (name, index) in kept_places(current.vac):
            self._values[name, index] = value
        else:
            current.vpd.write(name, value, index)

    def to_vpd(self, current: Registration) -> None:
        """PAL_VPS_SYNC_READ: the VPD gets what the processor keeps."""
        for name, index in kept_places(current.vac):
            current.vpd.write(name, self._values.get((name, index), 0), index)

    def from_vpd(self, current: Registration) -> None:
        """PAL_VPS_SYNC_WRITE: the processor gets what the VPD holds."""
        for name, index in kept_places(current.vac):
            self._values[name, index] = current.vpd.read(name, index)
