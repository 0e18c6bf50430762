"""How a driver reaches the registers of a unit, and its first steps: tables set, functions on.

VT-d 6.6, 6.7, 11.4.4, 11.4.5, 11.4.10. Left out: the invalidation queue
(:mod:`vtd.software.queue_driver`), page requests
(:mod:`vtd.software.page_request_handler`) and the fault event.
"""

from __future__ import annotations

from typing import TypeVar

from vtd.layouts.registers import (
    GlobalCommand,
    GlobalStatus,
    InterruptRemappingTableAddress,
    Register,
    RootTableAddress,
)
from vtd.unit.unit import RemappingUnit

R = TypeVar("R", bound=Register)


def read(unit: RemappingUnit, register: type[R]) -> R:
    """What a register reads as; ValueError for one without an offset of its own."""
    offset, size = _place(register)
    return register(unit.read_register(offset, size))


def write(unit: RemappingUnit, record: Register) -> None:
    """Write a whole register; ValueError for one without an offset of its own."""
    offset, size = _place(type(record))
    unit.write_register(offset, size, record)


def _place(register: type[Register]) -> tuple[int, int]:
    """Offset and size in bytes."""
    if register.OFFSET is None:
        raise ValueError(f"{register.__name__}: the capabilities of the unit say where it is")
    return register.OFFSET, register.WIDTH // 8


def start(unit: RemappingUnit, status: GlobalStatus, root: int, interrupts: int = 0) -> None:
    """Program a unit from reset: the pointers that ``status`` says are set, then the functions.

    ``root`` and ``interrupts`` are contents of RTADDR_REG and IRTA_REG. The queue stays off.
    """
    write(unit, RootTableAddress(root))
    write(unit, InterruptRemappingTableAddress(interrupts))
    for command in (
        GlobalCommand.of(srtp=status.rtps, sirtp=status.irtps),
        GlobalCommand.of(te=status.tes, ire=status.ires, cfi=status.cfis),
    ):
        write(unit, command)
