"""What a monitor does for each intercept: the instruction, on the VPD and on what it keeps itself.

The VPD has to be synchronized before and after. A fault that the guest is due is raised as
:class:`ReflectedFault` and never leaves the monitor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vtd.guest.itanium.causes import InterceptCause
from vtd.guest.itanium.outcomes import GuestInstruction
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import (
    AR_ITC,
    INTERRUPTION_CRS,
    MASKS,
    READ_BY_MOV,
    WORD,
    WRITTEN_BY_MOV,
    Cpuid3,
    Cr,
    Itir,
    Psr,
    RegionRegister,
    TranslationEntry,
)
from vtd.guest.itanium.services import thash, ttag
from vtd.guest.itanium.translations import PAGE_SIZES
from vtd.guest.itanium.virtual_processor import VirtualProcessor
from vtd.guest.itanium.vpd import Vpd

VALID = 1 << 63
"""IFS.v."""
ILLEGAL_OPERATION, RESERVED_FIELD = 0x00, 0x30
"""ISR codes of general exceptions."""
READ_ONLY = frozenset({Cr.IVR, *range(Cr.IRR0, Cr.IRR3 + 1)})
REGISTER_LIMITS = {"pkr": 16, "pmc": 256, "pmd": 256, "ibr": 8, "dbr": 8}
"""How many registers of each file a virtual processor has."""


class ReflectedFault(Exception):  # noqa: N818 - it is the guest's, not an error
    """A general exception for the guest."""

    def __init__(self, code: int) -> None:
        super().__init__(f"general exception {code:#x}")
        self.code = code


class Emulated(NamedTuple):
    """Where an instruction is carried out."""

    cpu: ItaniumProcessor
    guest: VirtualProcessor

    @property
    def vpd(self) -> Vpd:
        """The VPD of the guest."""
        return self.guest.vpd


Emulator = Callable[[Emulated, GuestInstruction], int]


def emulate(cpu: ItaniumProcessor, guest: VirtualProcessor, instruction: GuestInstruction) -> int:
    """Carry out an instruction; its result, 0 if it has none. ReflectedFault: it faults."""
    return EMULATORS[instruction.cause](Emulated(cpu, guest), instruction)


def _to_ar(at: Emulated, instruction: GuestInstruction) -> int:
    """Only ar.itc comes here."""
    at.guest.itc_offset = instruction.value - at.cpu.itc & WORD
    at.cpu.ito = at.guest.itc_offset
    return 0


def _from_ar(at: Emulated, instruction: GuestInstruction) -> int:
    return at.cpu.itc + at.guest.itc_offset & WORD if instruction.register == AR_ITC else 0


def _from_cr(at: Emulated, instruction: GuestInstruction) -> int:
    number = instruction.register
    if number in INTERRUPTION_CRS and at.vpd.vpsr.ic:
        raise ReflectedFault(ILLEGAL_OPERATION)
    if number == Cr.IVR:
        return at.guest.read_ivr()
    return 0 if number == Cr.EOI else at.vpd.cr(number)


def _to_cr(at: Emulated, instruction: GuestInstruction) -> int:
    number = instruction.register
    if number in READ_ONLY or (number in INTERRUPTION_CRS and at.vpd.vpsr.ic):
        raise ReflectedFault(ILLEGAL_OPERATION)
    if number == Cr.EOI:
        at.guest.end_of_interrupt()
    else:
        at.vpd.set_cr(number, instruction.value & WORD)
    return 0


def _from_psr(at: Emulated, instruction: GuestInstruction) -> int:
    return at.vpd.vpsr & READ_BY_MOV


def _to_psr(at: Emulated, instruction: GuestInstruction) -> int:
    value = instruction.value & 0xFFFF_FFFF
    if value & ~WRITTEN_BY_MOV:
        raise ReflectedFault(RESERVED_FIELD)
    at.vpd.vpsr = at.vpd.vpsr & ~WRITTEN_BY_MOV | value
    return 0


def _mask(at: Emulated, instruction: GuestInstruction) -> int:
    """ssm and rsm."""
    mask = instruction.value
    if mask & ~MASKS:
        raise ReflectedFault(RESERVED_FIELD)
    set_bits = mask if instruction.cause is InterceptCause.SSM else 0
    at.vpd.vpsr = at.vpd.vpsr & ~mask | set_bits
    return 0


def _from_cpuid(at: Emulated, instruction: GuestInstruction) -> int:
    last = Cpuid3(at.vpd.read("vcpuid", 3) & ~Cpuid3.RESERVED).number
    if instruction.register > min(last, 4):
        raise ReflectedFault(RESERVED_FIELD)
    return at.vpd.read("vcpuid", instruction.register)


def _cover(at: Emulated, instruction: GuestInstruction) -> int:
    if not at.vpd.vpsr.ic:
        at.vpd.set_cr(Cr.IFS, VALID | instruction.value & (1 << 38) - 1)
    return 0


def _bsw(at: Emulated, instruction: GuestInstruction) -> int:
    bank = int(instruction.cause is InterceptCause.BSW_1)
    at.vpd.vpsr = at.vpd.switch_bank(at.cpu.bank, bank, at.vpd.vpsr)
    return 0


def _rfi(at: Emulated, instruction: GuestInstruction) -> int:
    """Back to where the interruption was; IFS is the business of the register stack."""
    psr = Psr(at.vpd.cr(Cr.IPSR) & ~Psr.RESERVED & ~Psr.vm.mask)
    at.vpd.switch_bank(at.cpu.bank, psr.bn, at.vpd.vpsr)
    at.vpd.vpsr = psr
    at.cpu.iip = at.vpd.cr(Cr.IIP) & ~0xF
    return 0


def _from_register(file: str, at: Emulated, instruction: GuestInstruction) -> int:
    _check_number(file, instruction)
    return at.guest.registers.get((file, instruction.register), 0)


def _to_register(file: str, at: Emulated, instruction: GuestInstruction) -> int:
    _check_number(file, instruction)
    at.guest.registers[file, instruction.register] = instruction.value & WORD
    return 0


def _check_number(file: str, instruction: GuestInstruction) -> None:
    if instruction.register >= REGISTER_LIMITS[file]:
        raise ReflectedFault(RESERVED_FIELD)


def _to_pkr(at: Emulated, instruction: GuestInstruction) -> int:
    _check_number("pkr", instruction)
    key = at.guest.partition.key(instruction.value & WORD)
    if key is None:
        raise ReflectedFault(RESERVED_FIELD)
    at.cpu.pkr[instruction.register] = key
    return _to_register("pkr", at, instruction)


def _from_rr(at: Emulated, instruction: GuestInstruction) -> int:
    return at.guest.rr[instruction.register & 7]


def _to_rr(at: Emulated, instruction: GuestInstruction) -> int:
    number = instruction.register & 7
    register = at.guest.partition.region(instruction.value & WORD)
    if register is None or register.ps not in PAGE_SIZES:
        raise ReflectedFault(RESERVED_FIELD)
    at.guest.rr[number] = RegionRegister(instruction.value)
    at.cpu.rr[number] = register
    return 0


def _insert(at: Emulated, instruction: GuestInstruction) -> int:
    """itc and itr: translations of data and instructions are one set."""
    if at.vpd.vpsr.ic:
        raise ReflectedFault(ILLEGAL_OPERATION)
    address, itir = at.vpd.cr(Cr.IFA), Itir(at.vpd.cr(Cr.ITIR) & ~Itir.RESERVED)
    if itir.ps not in PAGE_SIZES:
        raise ReflectedFault(RESERVED_FIELD)
    entry = instruction.value & WORD & ~TranslationEntry.RESERVED
    _purge_machine(at, address, itir.ps)
    rid = at.guest.rr[address >> 61].rid
    at.guest.translations.insert(rid, address, itir.ps, entry, itir.key)
    return 0


def _purge(at: Emulated, instruction: GuestInstruction) -> int:
    """ptc.l, ptc.g, ptc.ga and ptr: ``value`` is the address, ``register`` the size as in a
    general register, bits 7:2."""
    shift = instruction.register >> 2 & 63
    if shift not in PAGE_SIZES:
        raise ReflectedFault(RESERVED_FIELD)
    address = instruction.value & WORD
    _purge_machine(at, address, shift)
    at.guest.translations.purge(at.guest.rr[address >> 61].rid, address, shift)
    return 0


def _purge_machine(at: Emulated, address: int, shift: int) -> None:
    at.cpu.translations.purge(at.cpu.rr[address >> 61].rid, address, shift)


def _purge_all(at: Emulated, instruction: GuestInstruction) -> int:
    """ptc.e: everything of this guest, and nothing of others."""
    at.cpu.translations.purge_regions(at.guest.partition.rids)
    at.guest.translations.purge_regions(range(1 << 24))
    return 0


def _thash(at: Emulated, instruction: GuestInstruction) -> int:
    address = instruction.value & WORD
    return thash(address, at.guest.rr[address >> 61], at.vpd.cr(Cr.PTA))


def _ttag(at: Emulated, instruction: GuestInstruction) -> int:
    address = instruction.value & WORD
    return ttag(address, at.guest.rr[address >> 61])


def _tpa(at: Emulated, instruction: GuestInstruction) -> int:
    address = instruction.value & WORD
    found = at.guest.translations.find(at.guest.rr[address >> 61].rid, address)
    if found is None or not found.entry.p:
        raise ReflectedFault(ILLEGAL_OPERATION)
    return found.output(address)


def _tak(at: Emulated, instruction: GuestInstruction) -> int:
    """The protection key, or 1 where there is no translation."""
    address = instruction.value & WORD
    found = at.guest.translations.find(at.guest.rr[address >> 61].rid, address)
    return 1 if found is None or not found.entry.p else found.key << 8


def _probe(at: Emulated, instruction: GuestInstruction) -> int:
    address = instruction.value & WORD
    found = at.guest.translations.find(at.guest.rr[address >> 61].rid, address)
    if found is None or not found.entry.p:
        return 0
    return int(not instruction.register or found.entry.writable)


def _vmsw(at: Emulated, instruction: GuestInstruction) -> int:
    """A guest's processor has no vmsw."""
    raise ReflectedFault(ILLEGAL_OPERATION)


EMULATORS: dict[InterceptCause, Emulator] = {
    InterceptCause.MOV_TO_AR: _to_ar,
    InterceptCause.MOV_TO_AR_IMM: _to_ar,
    InterceptCause.MOV_FROM_AR: _from_ar,
    InterceptCause.MOV_TO_CR: _to_cr,
    InterceptCause.MOV_FROM_CR: _from_cr,
    InterceptCause.MOV_TO_PSR: _to_psr,
    InterceptCause.MOV_FROM_PSR: _from_psr,
    InterceptCause.ITC_D: _insert,
    InterceptCause.ITC_I: _insert,
    InterceptCause.MOV_TO_RR: _to_rr,
    InterceptCause.MOV_TO_DBR: partial(_to_register, "dbr"),
    InterceptCause.MOV_TO_IBR: partial(_to_register, "ibr"),
    InterceptCause.MOV_TO_PKR: _to_pkr,
    InterceptCause.MOV_TO_PMC: partial(_to_register, "pmc"),
    InterceptCause.MOV_TO_PMD: partial(_to_register, "pmd"),
    InterceptCause.ITR_D: _insert,
    InterceptCause.ITR_I: _insert,
    InterceptCause.MOV_FROM_RR: _from_rr,
    InterceptCause.MOV_FROM_DBR: partial(_from_register, "dbr"),
    InterceptCause.MOV_FROM_IBR: partial(_from_register, "ibr"),
    InterceptCause.MOV_FROM_PKR: partial(_from_register, "pkr"),
    InterceptCause.MOV_FROM_PMC: partial(_from_register, "pmc"),
    InterceptCause.MOV_FROM_CPUID: _from_cpuid,
    InterceptCause.SSM: _mask,
    InterceptCause.RSM: _mask,
    InterceptCause.PTC_L: _purge,
    InterceptCause.PTC_G: _purge,
    InterceptCause.PTC_GA: _purge,
    InterceptCause.PTR_D: _purge,
    InterceptCause.PTR_I: _purge,
    InterceptCause.THASH: _thash,
    InterceptCause.TTAG: _ttag,
    InterceptCause.TPA: _tpa,
    InterceptCause.TAK: _tak,
    InterceptCause.PTC_E: _purge_all,
    InterceptCause.COVER: _cover,
    InterceptCause.RFI: _rfi,
    InterceptCause.BSW_0: _bsw,
    InterceptCause.BSW_1: _bsw,
    InterceptCause.VMSW: _vmsw,
    InterceptCause.PROBE: _probe,
}
"""All 41."""
