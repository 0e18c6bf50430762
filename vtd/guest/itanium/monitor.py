"""A small monitor: creates virtual processors, switches between them, serves their intercepts.

It does with PAL what the public monitors do: the environment once, PAL_VP_CREATE for each virtual
processor, the services RESTORE and SAVE at switches, SYNC_READ and SYNC_WRITE around emulation,
SET_PENDING_INTERRUPT after a change of vhpi. ``leave_out`` names services that it forgets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from vtd.guest.bus import put
from vtd.guest.itanium.causes import (
    DATA_TLB_VECTOR,
    EXTERNAL_INTERRUPT_VECTOR,
    GENERAL_EXCEPTION_VECTOR,
)
from vtd.guest.itanium.emulation import ReflectedFault, emulate
from vtd.guest.itanium.interrupts import VECTORS, vhpi_of
from vtd.guest.itanium.outcomes import (
    Executed,
    GuestFault,
    GuestInstruction,
    Intercept,
    NotRunning,
    PalResult,
    PalStatus,
    PassedThrough,
    ServiceOutcome,
    VirtualInterrupt,
)
from vtd.guest.itanium.pal import Pal, PalProcedure
from vtd.guest.itanium.partition import Partition
from vtd.guest.itanium.processor import BUNDLE, ItaniumProcessor
from vtd.guest.itanium.registers import KEPT_BY_INTERRUPTION, Cpuid3, Cr, KeyRegister, Psr
from vtd.guest.itanium.services import PalService, branch
from vtd.guest.itanium.virtual_processor import VirtualProcessor
from vtd.guest.itanium.vpd import VPD_SIZE, Vac, Vdc, Vpd

OPTIONS = 1 << 8 | 1 << 9
"""config_options: opcode and cause."""
INITIALIZE = 1
D_VMSW = Vdc.d_vmsw.mask
"""What public monitors disable: guests that leave by vmsw."""
ISR_CODES = {
    "illegal operation": 0x00,
    "privileged operation": 0x10,
    "unimplemented data address": 0x50,
}
RUNNING_PSR = Psr.of(ic=1, i=1, dt=1, si=1, rt=1, it=1, bn=1)
"""PSR of the processor while a guest runs; vm and cpl are added."""


class MonitorError(Exception):
    """PAL refused what the monitor asked for."""


class Monitor:
    """A monitor on one logical processor; ``buffer`` is the environment's memory."""

    def __init__(
        self,
        pal: Pal,
        cpu: ItaniumProcessor,
        *,
        buffer: int,
        host_iva: int,
        options: int = OPTIONS,
        leave_out: Collection[PalService] = (),
    ) -> None:
        self.pal = pal
        self.cpu = cpu
        self.host_iva = host_iva
        self.leave_out = frozenset(leave_out)
        self.current: VirtualProcessor | None = None
        self._pal(PalProcedure.VP_ENV_INFO)
        first = INITIALIZE if pal.environment is None else 0
        entered = self._pal(PalProcedure.VP_INIT_ENV, options | first, buffer, buffer)
        self.buffer, self.vsa_base = buffer, entered.r9

    def _pal(self, procedure: PalProcedure, *arguments: int) -> PalResult:
        result = self.pal.call(self.cpu, procedure, *arguments)
        if result.status is not PalStatus.OK:
            raise MonitorError(f"PAL_{procedure.name}: status {int(result.status)}")
        return result

    def _service(self, service: PalService, *registers: int) -> ServiceOutcome | None:
        if service in self.leave_out:
            return None
        return branch(self.cpu, self.vsa_base + service, 0, *registers)

    # Virtual processors

    def create(
        self, address: int, partition: Partition, *, vac: int = 0, vdc: int = D_VMSW
    ) -> VirtualProcessor:
        """A virtual processor whose VPD is at ``address``; MonitorError if PAL refuses it."""
        put(self.cpu.memory, address, bytes(VPD_SIZE))
        vpd = Vpd(self.cpu.memory, address)
        vpd.write("vac", Vac(vac))
        vpd.write("vdc", Vdc(vdc))
        vpd.write("virt_env_vaddr", self.buffer)
        for number, value in enumerate(self.cpu.features.cpuid):
            vpd.write("vcpuid", value, number)
        vpd.write("vcpuid", Cpuid3(vpd.read("vcpuid", 3)).replace(number=4), 3)
        vpd.vpsr = Psr.of(ic=1, dt=1, rt=1, it=1, bn=1)
        self._pal(PalProcedure.VP_CREATE, address, self.host_iva, 0)
        return VirtualProcessor(vpd, partition, itc_offset=partition.itc_offset)

    def switch_to(self, guest: VirtualProcessor) -> None:
        """Let another virtual processor run."""
        if guest is self.current:
            return
        self.stop()
        cpu, address = self.cpu, guest.vpd.address
        cpu.psr = cpu.psr.replace(bn=0, i=0)
        branch(cpu, self.vsa_base + PalService.RESTORE, 0, address, 1)
        cpu.rr = [guest.partition.region(each) or each for each in guest.rr]
        cpu.pkr = {
            number: guest.partition.key(value) or KeyRegister(0)
            for (file, number), value in guest.registers.items()
            if file == "pkr"
        }
        cpu.ito, cpu.iip = guest.itc_offset, guest.ip
        cpu.bank = list(guest.bank)
        self.current = guest
        self._continue(guest)

    def stop(self) -> None:
        """No virtual processor runs."""
        guest = self.current
        if guest is None:
            return
        cpu, address = self.cpu, guest.vpd.address
        if cpu.psr.vm:
            cpu.leave()
        self._service(PalService.SYNC_READ, address)
        branch(cpu, self.vsa_base + PalService.SAVE, 0, address, 1)
        guest.ip, guest.bank = cpu.iip, list(cpu.bank)
        self.current = None

    def close(self, guests: Iterable[VirtualProcessor] = ()) -> None:
        """Terminate virtual processors and leave the environment."""
        self.stop()
        for guest in guests:
            self._pal(PalProcedure.VP_TERMINATE, guest.vpd.address, 0)
        self._pal(PalProcedure.VP_EXIT_ENV, 0)

    # The guest's program

    def run(self, instruction: GuestInstruction) -> int:
        """An instruction of the virtual processor that runs, served if need be; its result."""
        outcome = self.cpu.execute(instruction)
        guest = self.current
        if guest is None or isinstance(outcome, NotRunning):
            return 0
        if isinstance(outcome, Executed | PassedThrough):
            return outcome.value
        self._service(PalService.SYNC_READ, guest.vpd.address)
        value = 0
        match outcome:
            case Intercept():
                guest.intercepts[outcome.cause] += 1
                value = self._serve(guest, outcome.instruction)
            case VirtualInterrupt():
                value = outcome.value
            case GuestFault():
                self._reflect(guest, outcome.vector, ISR_CODES.get(outcome.name, 0))
        self._continue(guest)
        return value

    def _serve(self, guest: VirtualProcessor, instruction: GuestInstruction) -> int:
        before = self.cpu.iip
        self.cpu.iip += BUNDLE
        try:
            return emulate(self.cpu, guest, instruction)
        except ReflectedFault as fault:
            self.cpu.iip = before
            self._reflect(guest, GENERAL_EXCEPTION_VECTOR, fault.code)
            return 0

    def load(self, address: int, size: int = 8) -> bytes | None:
        """Read memory as the guest does; None if it gets a fault."""
        for _ in range(2):
            result = self.cpu.load(address, size)
            if isinstance(result, bytes):
                return result
            if not self._resolve(result, address):
                break
        return None

    def store(self, address: int, data: bytes) -> bool:
        """Write memory as the guest does; False if it gets a fault."""
        for _ in range(2):
            result = self.cpu.store(address, data)
            if isinstance(result, Executed):
                return True
            if not self._resolve(result, address):
                break
        return False

    def _resolve(self, fault: GuestFault | NotRunning, address: int) -> bool:
        """Insert what a missing translation of the machine should be; False if it is a fault."""
        guest = self.current
        if guest is None or isinstance(fault, NotRunning):
            return False
        self._service(PalService.SYNC_READ, guest.vpd.address)
        found = guest.translations.find(guest.rr[address >> 61 & 7].rid, address)
        resolved = False
        if fault.vector == DATA_TLB_VECTOR and found is not None and found.entry.p:
            machine = guest.partition.machine(found.output(address) & ~0xFFF)
            if machine is not None:
                rid = self.cpu.rr[address >> 61 & 7].rid
                entry = found.entry.replace(ppn=machine)
                self.cpu.translations.insert(rid, address, 12, entry, found.key)
                resolved = True
        if not resolved:
            guest.vpd.set_cr(Cr.IFA, address)
            self._reflect(guest, fault.vector, ISR_CODES.get(fault.name, 0))
        self._continue(guest)
        return resolved

    def fault(self, vector: int) -> None:
        """An interruption of the guest's own, such as a break: its handler runs."""
        guest = self.current
        if guest is not None and self.cpu.psr.vm:
            self.cpu.leave()
            self._service(PalService.SYNC_READ, guest.vpd.address)
            self._reflect(guest, vector, 0)
            self._continue(guest)

    def interrupt(self, guest: VirtualProcessor, vector: int) -> None:
        """An external interrupt for a virtual processor, whether it runs or not."""
        if vector not in VECTORS:
            return
        if guest is not self.current:
            guest.set_pending(vector, pending=True)
            return
        if self.cpu.psr.vm:
            self.cpu.leave()
        self._service(PalService.SYNC_READ, guest.vpd.address)
        guest.set_pending(vector, pending=True)
        self._continue(guest)

    def _reflect(self, guest: VirtualProcessor, vector: int, isr: int) -> None:
        """Deliver an interruption to the guest: its control registers, its PSR, its vector."""
        vpd = guest.vpd
        before = vpd.vpsr
        if before.ic:
            vpd.set_cr(Cr.IPSR, before)
            vpd.set_cr(Cr.IIP, self.cpu.iip)
            vpd.set_cr(Cr.IFS, 0)
        vpd.set_cr(Cr.ISR, isr)
        after = vpd.switch_bank(self.cpu.bank, 0, before) & KEPT_BY_INTERRUPTION
        vpd.vpsr = after
        self.cpu.iip = (vpd.cr(Cr.IVA) & ~0x7FFF) + vector & (1 << 64) - 1

    def _continue(self, guest: VirtualProcessor) -> None:
        """Tell the processor what changed, deliver what is unmasked, and let the guest run."""
        vpd = guest.vpd
        if guest.recognized(vpd.vpsr) is not None:
            self._reflect(guest, EXTERNAL_INTERRUPT_VECTOR, 0)
        vpd.write("vhpi", vhpi_of(guest.deliverable()))
        self._service(PalService.SYNC_WRITE, vpd.address)
        if vpd.vac.a_int:
            self._service(PalService.SET_PENDING_INTERRUPT, vpd.address)
        psr = vpd.vpsr
        self.cpu.ipsr = RUNNING_PSR.replace(cpl=psr.cpl)
        collects = psr.ic or not (vpd.vac or vpd.vdc)
        service = PalService.RESUME_NORMAL if collects else PalService.RESUME_HANDLER
        branch(self.cpu, self.vsa_base + service, 0, vpd.address, int(vpd.vac))
