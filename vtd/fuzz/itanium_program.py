"""Bytes as a program of two Itanium guests and their monitor.

Every byte string is a program; parts of the VPDs come from it, too. A guest whose accelerations are
on, whichever, sees what one without any sees, and ends with the same VPD.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pagetables.memory import PhysicalMemory
from vtd.fuzz.program import ProgramBytes
from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.monitor import Monitor
from vtd.guest.itanium.outcomes import GuestInstruction
from vtd.guest.itanium.pal import Pal
from vtd.guest.itanium.partition import Partition
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import CONTROL_REGISTERS, Psr
from vtd.guest.itanium.vpd import PARTS, VPD_SIZE, Vpd, VpdError, parse_vpd, remarks

BUFFER, HOST_IVT, VPDS = 0x10_0000, 0x20_0000, (0x30_0000, 0x31_0000)
GUESTS, GUEST_SIZE = (0x40_0000, 0x50_0000), 0x10_0000
CAUSES = tuple(InterceptCause)
FREQUENT = (
    InterceptCause.SSM,
    InterceptCause.RSM,
    InterceptCause.MOV_TO_CR,
    InterceptCause.MOV_FROM_CR,
    InterceptCause.MOV_TO_PSR,
    InterceptCause.RFI,
    InterceptCause.ITC_D,
    InterceptCause.BSW_0,
)
CRS = tuple(sorted(CONTROL_REGISTERS))
VALUES = (
    0, 1, Psr.i.mask, Psr.ic.mask, Psr.i.mask | Psr.ic.mask, 1 << 16, 0x50, 0x30, 0x2000,
    0x4661, 12 << 2, 14 << 2 | 5 << 8, 1 << 40, (1 << 64) - 1, 0x8000, 0x4000_0000_0000_5000,
)  # fmt: skip
ADDRESSES = (0x5000, 0x2000, 0x4000_0000_0000_5000, 0x8000_0000_0000_0000, 1 << 50, 0x1234_5678)


def run_itanium_program(data: bytes, *, accelerated: bool) -> list[object]:
    """What both guests see of a program, and their VPDs at its end, without vac."""
    return list(_carry_out(data, accelerated=accelerated))


def read_vpd_bytes(data: bytes) -> None:
    """A VPD from a file that is mostly zeros: it is decoded, or refused with a VpdError."""
    at = int.from_bytes(data[:2], "little") % (VPD_SIZE - 64) & ~7
    with contextlib.suppress(VpdError):
        parse_vpd(data)
    whole = bytes(at) + data[2:].ljust(VPD_SIZE - at, b"\0")
    try:
        parse_vpd(whole[:VPD_SIZE])
    except VpdError:
        return
    for _ in remarks(whole[:VPD_SIZE]):
        continue


def _carry_out(data: bytes, *, accelerated: bool) -> Iterator[object]:
    program = ProgramBytes(data)
    vac = program.take(1) & 0x7F
    memory = PhysicalMemory()
    memory.add_region(0, 0x60_0000)
    cpu = ItaniumProcessor(memory)
    monitor = Monitor(Pal(memory), cpu, buffer=BUFFER, host_iva=HOST_IVT)
    guests = [
        monitor.create(vpd, Partition(1 + number, start, GUEST_SIZE), vac=vac if accelerated else 0)
        for number, (vpd, start) in enumerate(zip(VPDS, GUESTS, strict=True))
    ]
    monitor.switch_to(guests[0])
    while program.more:
        operation = program.take(1)
        match operation & 7:
            case 0:
                monitor.interrupt(guests[operation >> 3 & 1], program.take(1))
            case 1:
                monitor.switch_to(guests[operation >> 3 & 1])
            case 2:
                address = ADDRESSES[(operation >> 3) % len(ADDRESSES)]
                value = program.take(1)
                yield monitor.store(address, bytes([value])) if value & 1 else monitor.load(address)
            case 3:
                _change(guests[operation >> 3 & 1].vpd, monitor, program)
            case _:
                yield monitor.run(_instruction(operation, program))
        yield cpu.ip, cpu.psr, tuple(cpu.bank)
    monitor.stop()
    for guest, address in zip(guests, VPDS, strict=True):
        yield memory.read(address + 16, VPD_SIZE - 16)
        yield guest.in_service, guest.ip, tuple(guest.bank)


def _instruction(operation: int, program: ProgramBytes) -> GuestInstruction:
    choice = program.take(1)
    frequent = operation & 8
    cause = FREQUENT[operation >> 4 & 7] if frequent else CAUSES[choice % len(CAUSES)]
    register = CRS[choice % len(CRS)] if frequent else program.take(1)
    value = program.value() if choice & 0x80 else VALUES[program.take(1) % len(VALUES)]
    return GuestInstruction(cause, register, value)


def _change(vpd: Vpd, monitor: Monitor, program: ProgramBytes) -> None:
    """The monitor stores anything in a VPD, as it may while its guest does not run."""
    monitor.stop()
    names = ("vpsr", "vcr", "vgr", "vbgr", "vcpuid", "vhpi", "vpr", "vnat")
    name = names[program.take(1) % len(names)]
    index = program.take(1) % (PARTS[name].size // 8)
    vpd.write(name, program.value(), index)
