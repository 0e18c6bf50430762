"""PAL virtualization services: what a monitor branches to, with its registers (SDM 11.11).

The entry is at an offset from the base that PAL_VP_INIT_ENV gave. GR24 to GR27 are arguments, GR31
the result. A call that the manual does not define changes nothing and is answered with the reason.
"""

from __future__ import annotations

from enum import IntEnum

from vtd.guest.itanium.environment import Registration
from vtd.guest.itanium.outcomes import Running, Served, ServiceOutcome, Undefined
from vtd.guest.itanium.pal import current_at, leave_current, make_current
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import WORD, Psr, Pta, RegionRegister
from vtd.guest.itanium.translations import REGION_OFFSET

CFLE = 1 << 63


class PalService(IntEnum):
    """Offsets of services (Table 11-120)."""

    RESUME_NORMAL = 0x0000
    RESUME_HANDLER = 0x0400
    SYNC_READ = 0x0800
    SYNC_WRITE = 0x0C00
    SET_PENDING_INTERRUPT = 0x1000
    THASH = 0x1400
    TTAG = 0x1800
    RESTORE = 0x1C00
    SAVE = 0x2000


OFFSETS = frozenset(PalService)
MUST_BE_0 = Psr.of(be=1, i=1, cpl=3, is_=1, ss=1, db=1, tb=1, vm=1)
MUST_BE_1 = Psr.of(dt=1, rt=1, it=1)


def branch(
    cpu: ItaniumProcessor, address: int, gr24: int = 0, gr25: int = 0, gr26: int = 0, gr27: int = 0
) -> ServiceOutcome:
    """A branch to the service at an address, from the monitor."""
    service = _entry(cpu, address)
    vpd = gr25 & REGION_OFFSET
    match service:
        case Undefined():
            return service
        case PalService.THASH:
            return Served(thash(gr25, gr26, gr27))
        case PalService.TTAG:
            return Served(ttag(gr25, gr26))
        case PalService.RESTORE:
            return _restore(cpu, vpd, skip=gr26 & 1)
    current = current_at(cpu, vpd)
    if current is None:
        return Undefined(f"{gr25:#x} is not the current VPD")
    return _on_current(cpu, current, service, gr26)


def _entry(cpu: ItaniumProcessor, address: int) -> PalService | Undefined:
    """The service at an address, if the processor is in a state to call it."""
    environment = cpu.environment
    if environment is None:
        return Undefined("no virtual environment")
    offset = address - environment.vbase
    if offset not in OFFSETS:
        return Undefined(f"{address:#x} is no entry of a service")
    if cpu.psr & MUST_BE_0 or ~cpu.psr & MUST_BE_1:
        return Undefined("PSR.dt, rt and it must be 1, be, i, cpl, is, ss, db, tb and vm 0")
    return PalService(offset)


def _on_current(
    cpu: ItaniumProcessor, current: Registration, service: PalService, gr26: int
) -> ServiceOutcome:
    """The services about the VPD that is current."""
    match service:
        case PalService.SYNC_READ:
            cpu.kept.to_vpd(current)
        case PalService.SYNC_WRITE:
            cpu.kept.from_vpd(current)
        case PalService.SET_PENDING_INTERRUPT:
            cpu.kept.vhpi = current.vpd.read("vhpi")
        case PalService.SAVE:
            if not gr26 & 1:
                cpu.kept.to_vpd(current)
            leave_current(cpu)
        case _:
            return _resume(cpu, current, service, gr26)
    return Served()


def _restore(cpu: ItaniumProcessor, vpd: int, *, skip: int) -> ServiceOutcome:
    current = make_current(cpu, vpd)
    if current is None:
        return Undefined(f"the VPD at {vpd:#x} is unknown, or current, or another one is")
    if not skip:
        cpu.kept.from_vpd(current)
    return Served()


def _resume(
    cpu: ItaniumProcessor, current: Registration, service: PalService, gr26: int
) -> ServiceOutcome:
    """Let the virtual processor run; an interrupt that is unmasked already comes first."""
    if cpu.psr.bn:
        return Undefined("PSR.bn must be 0")
    if (current.vpd.vac, current.vpd.vdc) != (current.vac, current.vdc):
        return Undefined("vac or vdc in the VPD changed since PAL_VP_CREATE or PAL_VP_REGISTER")
    collects = cpu.vpsr.ic
    if service is PalService.RESUME_HANDLER:
        if collects:
            return Undefined("PAL_VPS_RESUME_HANDLER is for vpsr.ic = 0")
        if gr26 & ~CFLE != current.vac:
            return Undefined(f"GR26 has {gr26 & ~CFLE:#x}, the VPD's vac is {int(current.vac):#x}")
    elif not collects and current.optimized:
        return Undefined("PAL_VPS_RESUME_NORMAL is for vpsr.ic = 1")
    cpu.resume()
    return cpu.boundary() or Running()


def thash(address: int, region: int, pta: int) -> int:
    """The address of the hash table entry (SDM volume 2, 4.1.6).

    Short format as the architecture says; the hash of the long format is the implementation's, here
    the page number with the region identifier.
    """
    register, table = RegionRegister(region & ~RegionRegister.RESERVED), Pta(pta & ~Pta.RESERVED)
    page = (address & REGION_OFFSET) >> register.ps
    size = (1 << table.size) - 1
    if table.vf:
        return table.base & ~size | ((page ^ register.rid) << 5) & size
    offset = page << 3 & size
    return (address & ~REGION_OFFSET | table.base & REGION_OFFSET & ~size | offset) & WORD


def ttag(address: int, region: int) -> int:
    """The tag of a long-format entry: here region identifier and page number."""
    register = RegionRegister(region & ~RegionRegister.RESERVED)
    page = (address & REGION_OFFSET) >> register.ps
    return (register.rid << 39 ^ page) & WORD >> 1
