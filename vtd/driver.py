"""What the first steps of a driver do to a unit: set its tables, switch its functions on.

VT-d 6.6, 6.7, 11.4.4 to 11.4.6. A driver of a real system also programs the invalidation queue and
the fault event; the loaders of images and the examples need no more than this.
"""

from __future__ import annotations

from vtd.registers import GlobalCommand, GlobalStatus
from vtd.unit import RemappingUnit

GCMD = 0x18
RTADDR = 0x20
CCMD = 0x28
IQT = 0x88
IRTA = 0xB8


def start(unit: RemappingUnit, status: GlobalStatus, root: int, interrupts: int = 0) -> None:
    """Program a unit from reset: the pointers that ``status`` says are set, then the functions.

    ``root`` and ``interrupts`` are contents of RTADDR_REG and IRTA_REG. The queue stays off.
    """
    unit.write_register(RTADDR, 8, root)
    unit.write_register(IRTA, 8, interrupts)
    for command in (
        GlobalCommand.of(srtp=status.rtps, sirtp=status.irtps),
        GlobalCommand.of(te=status.tes, ire=status.ires, cfi=status.cfis),
    ):
        unit.write_register(GCMD, 4, command)
