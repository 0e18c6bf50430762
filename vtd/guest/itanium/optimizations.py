"""Which instructions of a guest do not intercept: accelerations, disables, options (SDM 11.7.4).

With an acceleration on, the instruction works on the VPD; with a disable on, on the processor; with
neither, the monitor gets it. Vectors in service are the monitor's alone, so a read of IVR that
finds one unmasked and every write of EOI are its business, too.
"""

from __future__ import annotations

from collections.abc import Callable

from vtd.guest.itanium.causes import GENERAL_EXCEPTION_VECTOR, InterceptCause
from vtd.guest.itanium.environment import Registration
from vtd.guest.itanium.interrupts import SPURIOUS, unmasked
from vtd.guest.itanium.outcomes import Executed, GuestFault, GuestInstruction, PassedThrough
from vtd.guest.itanium.registers import (
    AR_ITC,
    CONTROL_REGISTERS,
    EXTERNAL_INTERRUPT_CRS,
    INTERRUPTION_CRS,
    READ_BY_MOV,
    WORD,
    WRITTEN_BY_MOV,
    Cr,
    Psr,
    Tpr,
)
from vtd.guest.itanium.state import ItaniumState

Done = Executed | PassedThrough
ILLEGAL = GuestFault("illegal operation", GENERAL_EXCEPTION_VECTOR, 0)
VALID = 1 << 63
"""IFS.v."""
I_BIT = Psr.i.mask
ENABLED = Psr.of(i=1)
"""A read of IVR looks at TPR alone."""


def carry_out(
    cpu: ItaniumState, current: Registration, instruction: GuestInstruction
) -> Done | GuestFault | None:
    """The instruction without the monitor; None if it is the monitor's."""
    handler = HANDLERS.get(instruction.cause)
    return None if handler is None else handler(cpu, current, instruction)


def unvirtualized(cpu: ItaniumState, instruction: GuestInstruction) -> Done:
    """An unprivileged instruction above privilege level 0: nothing is virtualized."""
    if instruction.cause is InterceptCause.MOV_FROM_CPUID:
        numbers = cpu.features.cpuid
        return Executed(numbers[instruction.register] if instruction.register < len(numbers) else 0)
    if instruction.cause is InterceptCause.MOV_FROM_AR and instruction.register == AR_ITC:
        return Executed(cpu.itc)
    return Executed()


def _from_ar(
    cpu: ItaniumState, current: Registration, instruction: GuestInstruction
) -> Done | None:
    """Only the interval timer counter is virtualized, and only while it is secure (11.7.4.1.3)."""
    if instruction.register != AR_ITC:
        return Executed()
    if not cpu.psr.si:
        return PassedThrough(cpu.itc)
    environment = cpu.environment
    if environment is not None and environment.options.gitc:
        return Executed(cpu.itc + cpu.ito & WORD)
    return None


def _to_ar(cpu: ItaniumState, current: Registration, instruction: GuestInstruction) -> Done | None:
    return None if instruction.register == AR_ITC else Executed()


def _from_cr(
    cpu: ItaniumState, current: Registration, instruction: GuestInstruction
) -> Done | GuestFault | None:
    number = instruction.register
    if number not in CONTROL_REGISTERS:
        return ILLEGAL
    if _disabled(current, number):
        return PassedThrough(cpu.resources.cr.get(number, 0))
    if number == Cr.IVR:
        spurious = current.vac.a_int and not unmasked(cpu.kept.vhpi, ENABLED, _tpr(cpu))
        return Executed(SPURIOUS) if spurious else None
    accelerated = (
        current.vac.a_from_int_cr and not cpu.vpsr.ic
        if number in INTERRUPTION_CRS
        else current.vac.a_int and number == Cr.TPR
    )
    return _read(cpu, "vcr", number) if accelerated else None


def _to_cr(
    cpu: ItaniumState, current: Registration, instruction: GuestInstruction
) -> Done | GuestFault | None:
    number, value = instruction.register, instruction.value & WORD
    if number not in CONTROL_REGISTERS:
        return ILLEGAL
    if _disabled(current, number):
        cpu.resources.cr[number] = value
        return PassedThrough()
    accelerated = (
        current.vac.a_to_int_cr and not cpu.vpsr.ic
        if number in INTERRUPTION_CRS
        else current.vac.a_int and number == Cr.TPR
    )
    if not accelerated:
        return None
    cpu.kept.write(current, "vcr", value, number)
    return Executed()


def _disabled(current: Registration, number: int) -> int:
    """Whether a control register is not virtualized at all."""
    if number == Cr.ITM:
        return current.vdc.d_itm
    return current.vdc.d_extint if number in EXTERNAL_INTERRUPT_CRS else 0


def _read(cpu: ItaniumState, name: str, index: int) -> Executed:
    return Executed(cpu.field(name, index))


def _tpr(cpu: ItaniumState) -> Tpr:
    return Tpr(cpu.field("vcr", Cr.TPR) & ~Tpr.RESERVED)


def _from_psr(
    cpu: ItaniumState, current: Registration, instruction: GuestInstruction
) -> Done | None:
    return Executed(cpu.vpsr & READ_BY_MOV) if current.vac.a_from_psr else None


def _to_psr(cpu: ItaniumState, current: Registration, instruction: GuestInstruction) -> Done | None:
    """Accelerated if it changes nothing but PSR.i."""
    return _change_i(cpu, current, cpu.vpsr & WRITTEN_BY_MOV ^ instruction.value & 0xFFFF_FFFF)


def _ssm(cpu: ItaniumState, current: Registration, instruction: GuestInstruction) -> Done | None:
    if instruction.value != I_BIT:
        return None
    return _change_i(cpu, current, ~cpu.vpsr & I_BIT)


def _rsm(cpu: ItaniumState, current: Registration, instruction: GuestInstruction) -> Done | None:
    if instruction.value != I_BIT:
        return None
    return _change_i(cpu, current, cpu.vpsr & I_BIT)


def _change_i(cpu: ItaniumState, current: Registration, change: int) -> Done | None:
    if not current.vac.a_int or change & ~I_BIT:
        return None
    cpu.kept.write(current, "vpsr", cpu.vpsr ^ change)
    return Executed()


def _from_cpuid(
    cpu: ItaniumState, current: Registration, instruction: GuestInstruction
) -> Done | None:
    if not current.vac.a_from_cpuid or instruction.register > 4:
        return None
    return _read(cpu, "vcpuid", instruction.register)


def _cover(cpu: ItaniumState, current: Registration, instruction: GuestInstruction) -> Done | None:
    if not current.vac.a_cover:
        return None
    if not cpu.vpsr.ic:
        cpu.kept.write(current, "vcr", VALID | instruction.value & (1 << 38) - 1, Cr.IFS)
    return Executed()


def _bsw(cpu: ItaniumState, current: Registration, instruction: GuestInstruction) -> Done | None:
    if not current.vac.a_bsw:
        return None
    bank = int(instruction.cause is InterceptCause.BSW_1)
    cpu.kept.write(current, "vpsr", current.vpd.switch_bank(cpu.bank, bank, cpu.vpsr))
    return Executed()


def _direct(
    file: str, disable: str, *, write: bool
) -> Callable[[ItaniumState, Registration, GuestInstruction], Done | None]:
    """A move to or from a register file whose virtualization can be disabled."""

    def handler(
        cpu: ItaniumState, current: Registration, instruction: GuestInstruction
    ) -> Done | None:
        if not getattr(current.vdc, disable):
            return None
        registers: dict[int, int] = getattr(cpu.resources, file)
        if write:
            registers[instruction.register] = instruction.value & WORD
            return PassedThrough()
        return PassedThrough(registers.get(instruction.register, 0))

    return handler


HANDLERS: dict[
    InterceptCause,
    Callable[[ItaniumState, Registration, GuestInstruction], Done | GuestFault | None],
] = {
    InterceptCause.MOV_TO_AR: _to_ar,
    InterceptCause.MOV_TO_AR_IMM: _to_ar,
    InterceptCause.MOV_FROM_AR: _from_ar,
    InterceptCause.MOV_TO_CR: _to_cr,
    InterceptCause.MOV_FROM_CR: _from_cr,
    InterceptCause.MOV_TO_PSR: _to_psr,
    InterceptCause.MOV_FROM_PSR: _from_psr,
    InterceptCause.MOV_TO_DBR: _direct("dbr", "d_ibr_dbr", write=True),
    InterceptCause.MOV_TO_IBR: _direct("ibr", "d_ibr_dbr", write=True),
    InterceptCause.MOV_FROM_DBR: _direct("dbr", "d_ibr_dbr", write=False),
    InterceptCause.MOV_FROM_IBR: _direct("ibr", "d_ibr_dbr", write=False),
    InterceptCause.MOV_TO_PMC: _direct("pmc", "d_pmc", write=True),
    InterceptCause.MOV_FROM_PMC: _direct("pmc", "d_pmc", write=False),
    InterceptCause.MOV_TO_PMD: _direct("pmd", "d_to_pmd", write=True),
    InterceptCause.MOV_FROM_CPUID: _from_cpuid,
    InterceptCause.SSM: _ssm,
    InterceptCause.RSM: _rsm,
    InterceptCause.COVER: _cover,
    InterceptCause.BSW_0: _bsw,
    InterceptCause.BSW_1: _bsw,
}
"""Instructions that may do without the monitor; the others never do."""
