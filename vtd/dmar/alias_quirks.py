"""Devices that send requests with other ids than their own, as Linux knows them.

Facts from the quirks that call ``pci_add_dma_alias``, or set ``PCI_DEV_FLAG_PCIE_BRIDGE_ALIAS``,
in ``drivers/pci/quirks.c`` of Linux 6.18.
Left out, as a listing does not show what they depend on: Adaptec 3405 and 3805 (by subsystem id)
and Switchtec non-transparent bridges (by the proxy ids that they hold).
"""

from __future__ import annotations

from collections.abc import Iterable

RICOH, GLENFLY, MARVELL, HIGHPOINT, JMICRON, LITE_ON, INTEL, PLX = (
    0x1180, 0x6766, 0x1B4B, 0x1103, 0x197B, 0x1C28, 0x8086, 0x10B5,
)  # fmt: skip

FUNCTION_0 = frozenset(((RICOH, 0xE832), (RICOH, 0xE476), (GLENFLY, 0x3D40), (GLENFLY, 0x3D41)))
"""Devices all of whose functions may send as function 0: vendor and device ids."""
FUNCTION_1 = frozenset((
    *((MARVELL, each) for each in (
        0x9120, 0x9123, 0x9125, 0x9128, 0x9130, 0x9172, 0x917A, 0x9182, 0x9183, 0x91A0, 0x9215,
        0x9220, 0x9230, 0x9235,
    )),
    (HIGHPOINT, 0x0642), (HIGHPOINT, 0x0645), (JMICRON, 0x2392), (LITE_ON, 0x0122),
))  # fmt: skip
"""Devices that may send as function 1, whether it exists or not; mostly SATA controllers."""
UNDECLARED_BRIDGES = frozenset((
    (0x1B21, 0x1080),  # ASMedia ASM1083 and ASM1085
    (0x10E3, 0x8113),  # Tundra
    (0x1283, 0x8892), (0x1283, 0x8893),  # ITE
    (INTEL, 0x244E),  # 82801
))  # fmt: skip
"""PCI Express to PCI bridges without the capability that says so, if below a port that has one."""


def _numbers(devices: Iterable[int], functions: Iterable[int]) -> frozenset[int]:
    return frozenset(device << 3 | function for device in devices for function in functions)


FIXED = {
    **dict.fromkeys(((INTEL, 0x2260), (INTEL, 0x2264)), frozenset((0x80, 0x88, 0x93))),
    **dict.fromkeys(
        ((INTEL, each) for each in (0x2954, 0x2955, 0x2956, 0x2958, 0x2959, 0x295A)),
        _numbers(range(32), range(5)),
    ),
    **dict.fromkeys(((PLX, 0x87B0), (PLX, 0x87B1)), _numbers(range(32), range(8))),
}
"""Xeon Phi x200, Visual Compute Accelerators and PLX bridges: ids of what is behind them."""


def sent_numbers(vendor: int | None, device: int | None, own: int) -> frozenset[int]:
    """Device and function numbers (7:3, 2:0) beside ``own`` with which a device may send."""
    if vendor is None or device is None:
        return frozenset()
    ids = vendor, device
    if ids in FUNCTION_0:
        return frozenset((own & ~7,)) - {own}
    if ids in FUNCTION_1:
        return frozenset((own & ~7 | 1,)) - {own}
    return FIXED.get(ids, frozenset()) - {own}
