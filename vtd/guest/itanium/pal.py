"""PAL procedures about virtual processors, with their statuses (SDM 11.10.3).

Arguments are registers, results are :class:`PalResult`. Host virtual addresses lead to machine
addresses without their region number. Which status a call out of order gets is this model's choice
where the manual says "completed with error" only; docs/guests.md lists those.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from vtd.guest.bus import Memory, get
from vtd.guest.itanium.environment import ConfigOptions, Registration, VirtualEnvironment
from vtd.guest.itanium.outcomes import PalResult, PalStatus
from vtd.guest.itanium.processor import ItaniumProcessor
from vtd.guest.itanium.registers import WORD
from vtd.guest.itanium.translations import REGION_OFFSET
from vtd.guest.itanium.vpd import PARTS, VPD_ALIGNMENT, VPD_SIZE, Vac, Vdc, Vpd

BUFFER_SIZE = 0x1_0000
"""Bytes of the environment's buffer; the services begin at its base."""
VM_FEATURE, VMSW_FEATURE = 1 << 40, 1 << 54
"""Bits of PAL_PROC_GET_FEATURES."""
OPCODE_INFO, GITC_INFO = 1 << 8, 1 << 10
"""vp_env_info: in the places that config_options has them."""

INVALID = PalResult(PalStatus.INVALID_ARGUMENT)
ERROR = PalResult(PalStatus.ERROR)
UNIMPLEMENTED = PalResult(PalStatus.UNIMPLEMENTED)
OK = PalResult(PalStatus.OK)


class PalProcedure(IntEnum):
    """Numbers of procedures."""

    PROC_GET_FEATURES = 17
    VP_INFO = 50
    VP_CREATE = 265
    VP_ENV_INFO = 266
    VP_EXIT_ENV = 267
    VP_INIT_ENV = 268
    VP_REGISTER = 269
    VP_RESTORE = 270
    VP_SAVE = 271
    VP_TERMINATE = 272


class Pal:
    """The firmware of a machine: one virtual environment, which its processors enter."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.environment: VirtualEnvironment | None = None
        self._procedures: dict[int, Callable[[ItaniumProcessor, int, int, int], PalResult]] = {
            PalProcedure.VP_CREATE: self._create,
            PalProcedure.VP_ENV_INFO: self._env_info,
            PalProcedure.VP_EXIT_ENV: self._exit_env,
            PalProcedure.VP_INIT_ENV: self._init_env,
            PalProcedure.VP_REGISTER: self._register,
            PalProcedure.VP_RESTORE: self._restore,
            PalProcedure.VP_SAVE: self._save,
            PalProcedure.VP_TERMINATE: self._terminate,
        }

    def call(
        self, cpu: ItaniumProcessor, index: int, a1: int = 0, a2: int = 0, a3: int = 0
    ) -> PalResult:
        """A procedure by its number, on one processor."""
        features = cpu.features
        if index == PalProcedure.PROC_GET_FEATURES:
            bits = (VM_FEATURE if features.vm else 0) | (VMSW_FEATURE if features.vmsw else 0)
            return OK._replace(r9=bits, r10=bits, r11=bits)
        # PAL_VP_INFO is for guests: a physical processor never has it.
        procedure = self._procedures.get(index) if features.vm else None
        if procedure is None:
            return UNIMPLEMENTED
        return procedure(cpu, a1 & WORD, a2 & WORD, a3 & WORD)

    def _env_info(self, cpu: ItaniumProcessor, a1: int, a2: int, a3: int) -> PalResult:
        if a1 or a2 or a3:
            return INVALID
        info = OPCODE_INFO | (GITC_INFO if cpu.features.gitc else 0)
        return OK._replace(r9=BUFFER_SIZE, r10=info)

    def _init_env(self, cpu: ItaniumProcessor, config: int, pbase: int, vbase: int) -> PalResult:
        options = ConfigOptions(config)
        if config & ConfigOptions.RESERVED or not options.opcode:
            return INVALID
        if options.gitc and not cpu.features.gitc:
            return INVALID
        if (pbase | vbase) & 0xFFF:
            return INVALID
        environment = self.environment
        if cpu.environment is not None or options.initialize == (environment is not None):
            return ERROR  # it is in one, or it is not the first that initializes
        if environment is None:
            environment = VirtualEnvironment(pbase, vbase, options)
        elif (pbase, vbase) != (environment.pbase, environment.vbase) or (
            options != environment.options.replace(initialize=0)
        ):
            return INVALID
        self.environment = cpu.environment = environment
        environment.members.add(cpu.number)
        return OK._replace(r9=vbase)

    def _exit_env(self, cpu: ItaniumProcessor, iva: int, a2: int, a3: int) -> PalResult:
        if a2 or a3:
            return INVALID
        environment = cpu.environment
        if environment is None or cpu.current is not None:
            return ERROR
        environment.members.discard(cpu.number)
        cpu.environment = None
        cpu.iva = iva or cpu.iva
        if not environment.members:
            self.environment = None
        return OK

    def _create(self, cpu: ItaniumProcessor, vpd: int, iva: int, handler: int) -> PalResult:
        environment, address = cpu.environment, vpd & REGION_OFFSET
        if environment is None or address in environment.registered:
            return ERROR
        if any(
            get(self.memory, address + part.offset, part.size).strip(b"\0")
            for part in PARTS.values()
            if part.reserved
        ):
            return INVALID
        return self._attach(environment, address, iva, handler)

    def _register(self, cpu: ItaniumProcessor, vpd: int, iva: int, handler: int) -> PalResult:
        environment, address = cpu.environment, vpd & REGION_OFFSET
        if environment is None or address in environment.current:
            return ERROR
        return self._attach(environment, address, iva, handler)

    def _attach(
        self, environment: VirtualEnvironment, address: int, iva: int, handler: int
    ) -> PalResult:
        """Take in a VPD whose vac, vdc and virt_env_vaddr make sense."""
        vpd = Vpd(self.memory, address)
        vac, vdc = vpd.vac, vpd.vdc
        if (
            address % VPD_ALIGNMENT
            or address + VPD_SIZE > 1 << 61
            or vac & Vac.RESERVED
            or vdc & Vdc.RESERVED
            or (vac.a_int and vdc.d_extint)
            or vpd.read("virt_env_vaddr") != environment.vbase
        ):
            return INVALID
        environment.registered[address] = Registration(vpd, vac, vdc, iva, handler)
        return OK

    def _restore(self, cpu: ItaniumProcessor, vpd: int, a2: int, a3: int) -> PalResult:
        """The second argument is named by headers only, so nothing is made of it."""
        current = make_current(cpu, vpd & REGION_OFFSET)
        if current is None:
            return ERROR
        cpu.kept.from_vpd(current)
        return OK

    def _save(self, cpu: ItaniumProcessor, vpd: int, a2: int, a3: int) -> PalResult:
        current = current_at(cpu, vpd & REGION_OFFSET)
        if current is None:
            return ERROR
        cpu.kept.to_vpd(current)
        leave_current(cpu)
        return OK

    def _terminate(self, cpu: ItaniumProcessor, vpd: int, iva: int, a3: int) -> PalResult:
        if a3:
            return INVALID
        environment, address = cpu.environment, vpd & REGION_OFFSET
        if environment is None or address not in environment.registered:
            return ERROR
        if environment.current.get(address, cpu.number) != cpu.number:
            return ERROR
        if current_at(cpu, address) is not None:
            leave_current(cpu)
        del environment.registered[address]
        cpu.iva = iva or cpu.iva
        return OK


def current_at(cpu: ItaniumProcessor, address: int) -> Registration | None:
    """The virtual processor whose VPD is at an address, if it is current on this processor."""
    current = cpu.current
    return current if current is not None and current.vpd.address == address else None


def make_current(cpu: ItaniumProcessor, address: int) -> Registration | None:
    """Make a registered VPD current, if none is and it is current nowhere, and its host's IVT."""
    environment = cpu.environment
    if environment is None or cpu.current is not None or address in environment.current:
        return None
    registration = environment.registered.get(address)
    if registration is None:
        return None
    environment.current[address] = cpu.number
    cpu.current, cpu.iva = registration, registration.host_iva
    cpu.kept.vhpi = registration.vpd.read("vhpi")
    return registration


def leave_current(cpu: ItaniumProcessor) -> None:
    """No VPD is current any more; interruptions still go to its host's IVT."""
    if cpu.current is not None and cpu.environment is not None:
        cpu.environment.current.pop(cpu.current.vpd.address, None)
    cpu.current = None
