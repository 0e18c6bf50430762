"""How software reaches the registers of a unit: whole registers, one command at a time (6.9, 11.4).

A unit is whatever answers :class:`Registers`; nothing here knows how it works inside.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from vtd.layouts.registers import (
    GlobalCommand,
    GlobalStatus,
    InterruptRemappingTableAddress,
    Register,
    RootTableAddress,
)

R = TypeVar("R", bound=Register)
PATIENCE = 1 << 16
"""How often software looks at a register before it gives up."""
ONE_SHOT = GlobalCommand.of(srtp=True, wbf=True, sirtp=True)
"""Commands whose bits do not stay set (11.4.4.1)."""


class NoAnswerError(RuntimeError):
    """The unit did not do in time what software is waiting for."""


class Registers(Protocol):
    """The register space of a unit: offset and size in bytes, little-endian values."""

    def read_register(self, offset: int, size: int) -> int: ...

    def write_register(self, offset: int, size: int, value: int) -> None: ...


def read(unit: Registers, register: type[R]) -> R:
    """What a register reads as; ValueError for one without an offset of its own."""
    offset, size = _place(register)
    return register(unit.read_register(offset, size))


def write(unit: Registers, record: Register) -> None:
    """Write a whole register; ValueError for one without an offset of its own."""
    offset, size = _place(type(record))
    unit.write_register(offset, size, record)


def command(unit: Registers, **functions: bool) -> None:
    """One command of GCMD_REG, with every other function as it is, and its completion awaited.

    ``functions`` has one field of GCMD_REG: software may change only one at a time (11.4.4.1).
    NoAnswerError if the unit does not confirm it in GSTS_REG.
    """
    ((name, value),) = functions.items()
    running = GlobalCommand(read(unit, GlobalStatus) & ~ONE_SHOT)
    write(unit, running.replace(**functions))
    expected = GlobalCommand.FIELDS[name].place(value and name != "wbf")
    for _ in range(PATIENCE):
        if read(unit, GlobalStatus) & GlobalCommand.FIELDS[name].mask == expected:
            return
    raise NoAnswerError(f"GCMD_REG: {name.upper()} = {int(value)} is not confirmed in GSTS_REG")


def start(unit: Registers, status: GlobalStatus, root: int, interrupts: int = 0) -> None:
    """Program a unit from reset: the pointers that ``status`` says are set, then the functions.

    ``root`` and ``interrupts`` are contents of RTADDR_REG and IRTA_REG. The queue stays off.
    """
    write(unit, RootTableAddress(root))
    write(unit, InterruptRemappingTableAddress(interrupts))
    for name, wanted in (
        ("srtp", status.rtps),
        ("sirtp", status.irtps),
        ("te", status.tes),
        ("ire", status.ires),
        ("cfi", status.cfis),
    ):
        if wanted:
            command(unit, **{name: True})


def _place(register: type[Register]) -> tuple[int, int]:
    """Offset and size in bytes."""
    if register.OFFSET is None:
        raise ValueError(f"{register.__name__}: the capabilities of the unit say where it is")
    return register.OFFSET, register.WIDTH // 8
