"""Cells with units that do not exist: capabilities at random, and consistent (11.4.2, 11.4.3).

What Linux is known to do wrong with some capabilities is expected where they meet it. Lies are the
self-test: the registers say something that the unit does not keep to, and somebody has to notice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from vtd.live.boot import Boot
from vtd.live.cells import DEVICES, NARROW, SCALABLE, SECOND, THREE_LEVELS, Cell
from vtd.live.linux_faults import (
    ADDRESS_ZERO,
    HINT,
    NO_STAGE,
    NO_STAGE_UNUSED,
    NO_WIDTH,
    RESERVED_AW,
    TOP_TABLE,
    UNALIGNED,
    LinuxFault,
)
from vtd.live.machine_parts import edu, unit
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.registers.drawn_capabilities import drawn_capabilities

CHECKS = ("units", "nvme", "rebind", "domain_types", "vfio")
_FLAGS = (
    *("esrtps", "esirtps", "ecmds", "fs5lp", "fs1gp", "psi", "zlr", "cm", "phmr", "plmr", "rwbf"),
    *("pms", "rps", "smpwcs", "fsts", "ssts", "ssads", "smts", "pds", "dit", "pasid", "eafs"),
    *("nwfs", "srs", "prs", "nest", "sc", "pt", "eim", "ir", "pi", "dt", "qi", "c", "drd", "dwd"),
)


def random_cells(
    count: int, seed: int, changed: Mapping[str, int] | None = None
) -> dict[str, Cell]:
    """Cells with units at random, and before them those whose unit lies.

    ``changed`` are fields that every unit has, to find out which one matters. ValueError where no
    consistent unit has them.
    """
    drawn = [random_cell(f"{seed}.{number}", changed or {}) for number in range(count)]
    return {cell.name: cell for cell in (*lies(), *drawn)}


def random_cell(name: str, changed: Mapping[str, int]) -> Cell:
    """The cell of one unit; the same for the same name."""
    return _cell(name, drawn_capabilities(random.Random(name), changed, _FLAGS))


def _cell(name: str, made: Capabilities) -> Cell:
    machine = (
        f"address_bits = {made.host_address_width}\n"
        f"[[unit]]\nbase = 0xfd000000\ninclude_all = true\nversion = {int(made.version):#x}\n"
        f"cap = {int(made.cap):#x}\necap = {int(made.ecap):#x}\n" + DEVICES
    )
    boot = Boot(
        machine,
        CHECKS,
        append=SCALABLE,
        caches="aggressive",
        interrupts_remapped=bool(made.ecap.ir),
    )
    faults = dict(_known_faults(made))
    return Cell(f"random:{name}", described(made), boot, faults, certain=False)


def described(made: Capabilities) -> str:
    """The unit as the values of its registers."""
    return (
        f"VER {int(made.version):#x} CAP {int(made.cap):#x} ECAP {int(made.ecap):#x} "
        f"HAW {made.host_address_width}"
    )


def _known_faults(made: Capabilities) -> Iterator[tuple[str, LinuxFault]]:
    """What Linux does wrong with such a unit, by the beginning of the release."""
    cap, ecap, sagaw = made.cap, made.ecap, int(made.cap.sagaw)
    if ecap.smts and ecap.fsts and ecap.ssts and (sagaw == 2 or (sagaw == 8 and not cap.fs5lp)):
        yield "*", NO_WIDTH
    elif ecap.smts and ecap.fsts and not ecap.ssts:
        yield "*", RESERVED_AW
    elif ecap.smts and not ecap.fsts and not ecap.ssts:
        yield "7", NO_STAGE
        yield "6.1", NO_STAGE_UNUSED
    elif sagaw & 8 and 39 <= cap.mgaw + 1 <= 42:
        yield "7", TOP_TABLE
    elif not ecap.qi and cap.psi and (cap.cm or cap.mamv % 2 == 0):
        if cap.mamv % 2 == 0:
            yield "7", HINT
        if cap.cm:
            yield "*", ADDRESS_ZERO
    elif ecap.fsts:
        yield "6.1", UNALIGNED


LIES: Mapping[str, tuple[str, Mapping[str, int], str]] = {
    "mamv": (unit("qemu", {"mamv": 0}), {"mamv": 18}, "iommu.strict=1"),
    "psi": (unit("qemu", {"psi": 0, "mamv": 0}), {"psi": 1, "mamv": 18}, "iommu.strict=1"),
    "cm": (unit("qemu", {"cm": 1}), {"cm": 0}, "iommu.strict=1"),
    "sc": (unit("qemu", {"sc": 0}), {"sc": 1}, ""),
    "sagaw": (NARROW + unit("qemu", THREE_LEVELS), {"sagaw": 4, "mgaw": 47}, ""),
    "sslps": (unit("qemu", {"sslps": 0}), {"sslps": 3}, ""),
    "nd": (unit("qemu", {**SECOND, "nd": 0}), {"nd": 6}, SCALABLE),
}
"""What the unit keeps to, what its registers say instead, and the kernel's command line."""


def lies() -> Iterator[Cell]:
    """Units that say what is not true."""
    for name, (machine, said, append) in LIES.items():
        boot = Boot(
            machine + DEVICES + (_more_devices() if name == "nd" else ""),
            CHECKS,
            append=append,
            caches="aggressive",
            lies=said,
            silence=90,
            seconds=600,
        )
        yield Cell(f"lie:{name}", f"{name.upper()} is not as the unit says", boot, {}, noticed=True)


def _more_devices() -> str:
    """So many that the last ones get domain-ids which are those of the first ones modulo 16."""
    inert = "".join(
        f'[[function]]\nat = "00:{device:02x}.0"\nmodel = "inert"\n'
        "parameters = { vendor_id = 0x1234, device_id = 0x1111, class_code = 0x088000 }\n"
        for device in range(0x08, 0x15)
    )
    return inert + edu("00:15.0") + edu("00:16.0")
