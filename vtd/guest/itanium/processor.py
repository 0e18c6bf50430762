"""A logical processor of Itanium with PSR.vm, and the guest that runs on it (SDM volume 2, 3.4).

Nothing is decoded: an instruction of the guest is a call that says what it does. It is executed on
the VPD, passed through, or intercepted, as :mod:`vtd.guest.itanium.optimizations` decides. An
instruction counts as a bundle of its own. Left out: everything that virtualization does not change.
"""

from __future__ import annotations

from vtd.guest.bus import get, put
from vtd.guest.itanium.causes import (
    DATA_ACCESS_RIGHTS_VECTOR,
    DATA_TLB_VECTOR,
    GENERAL_EXCEPTION_VECTOR,
    UNPRIVILEGED,
    VIRTUAL_EXTERNAL_INTERRUPT_VECTOR,
    VIRTUALIZATION_VECTOR,
    InterceptCause,
)
from vtd.guest.itanium.interrupts import unmasked
from vtd.guest.itanium.optimizations import carry_out, unvirtualized
from vtd.guest.itanium.outcomes import (
    Executed,
    GuestFault,
    GuestInstruction,
    GuestOutcome,
    Intercept,
    NotRunning,
    PassedThrough,
    VirtualInterrupt,
)
from vtd.guest.itanium.registers import Cr, Tpr
from vtd.guest.itanium.state import ItaniumState

BUNDLE = 16
"""Bytes from one instruction to the next."""
VA_BITS = 51
"""Bits of a virtual address that are implemented, besides the region; one less with PSR.vm."""


PRIVILEGED = GuestFault("privileged operation", GENERAL_EXCEPTION_VECTOR, 0)


class ItaniumProcessor(ItaniumState):
    """One logical processor."""

    # The guest's program

    def execute(self, instruction: GuestInstruction) -> GuestOutcome:
        """An instruction of table 3-10 of the guest, or vmsw of anybody."""
        if instruction.cause is InterceptCause.VMSW:
            return self._vmsw(instruction)
        current = self.current
        if current is None or not self.psr.vm:
            return NotRunning()
        outcome: Executed | PassedThrough | GuestFault | None
        if not self.psr.cpl:
            outcome = carry_out(self, current, instruction)
        elif instruction.cause in UNPRIVILEGED:
            outcome = unvirtualized(self, instruction)
        else:
            outcome = PRIVILEGED
        if outcome is None:
            return self._intercept(instruction)
        if isinstance(outcome, GuestFault):
            return self.fault(outcome.name, outcome.vector)
        return self._complete(outcome)

    def _vmsw(self, instruction: GuestInstruction) -> GuestOutcome:
        """vmsw.0 and vmsw.1: ``value`` is the bit, ``register`` the access rights of its page."""
        if not self.features.vmsw:
            return self.fault("illegal operation", GENERAL_EXCEPTION_VECTOR)
        if self.psr.cpl:
            return self.fault("privileged operation", GENERAL_EXCEPTION_VECTOR)
        disabled = self.current is not None and self.current.vdc.d_vmsw
        if disabled or not self.psr.it or instruction.register != 7:
            return self._intercept(instruction)
        self.psr = self.psr.replace(vm=instruction.value & 1)
        self.ip += BUNDLE
        return Executed()

    def boundary(self) -> VirtualInterrupt | None:
        """Between two instructions: the interrupt that the virtual processor would take (a_int)."""
        current = self.current
        if current is None or not self.psr.vm or not current.vac.a_int:
            return None
        tpr = Tpr(self.field("vcr", Cr.TPR) & ~Tpr.RESERVED)
        if not unmasked(self.kept.vhpi, self.vpsr, tpr):
            return None
        self._interrupted()
        return VirtualInterrupt(current.host_iva + VIRTUAL_EXTERNAL_INTERRUPT_VECTOR)

    def _complete(self, outcome: Executed | PassedThrough) -> GuestOutcome:
        self.ip += BUNDLE
        interrupt = self.boundary()
        return outcome if interrupt is None else interrupt._replace(value=outcome.value)

    def load(self, address: int, size: int = 8) -> bytes | GuestFault | NotRunning:
        """Read bytes, within a page, at a virtual address."""
        machine = self._translate(address, write=False)
        return get(self.memory, machine, size) if isinstance(machine, int) else machine

    def store(self, address: int, data: bytes) -> Executed | GuestFault | NotRunning:
        """Write bytes, within a page, at a virtual address."""
        machine = self._translate(address, write=True)
        if not isinstance(machine, int):
            return machine
        put(self.memory, machine, data)
        return Executed()

    def _translate(self, address: int, *, write: bool) -> int | GuestFault | NotRunning:
        if not self.psr.vm:
            return NotRunning()
        top = address >> VA_BITS - 2 & (1 << 61 - VA_BITS + 2) - 1  # with PSR.vm one bit less
        if top not in (0, (1 << 61 - VA_BITS + 2) - 1):
            return self.fault("unimplemented data address", GENERAL_EXCEPTION_VECTOR)
        region = self.rr[address >> 61 & 7]
        found = self.translations.find(region.rid, address)
        if found is None or not found.entry.p:
            return self.fault("data TLB", DATA_TLB_VECTOR)
        if write and not found.entry.writable:
            return self.fault("data access rights", DATA_ACCESS_RIGHTS_VECTOR)
        return found.output(address)

    # What ends the guest's run

    def _intercept(self, instruction: GuestInstruction) -> Intercept:
        """A virtualization intercept: to the handler of its own, or the host's vector (11.7.3)."""
        self._interrupted()
        current, environment = self.current, self.environment
        address = self.iva + VIRTUALIZATION_VECTOR
        if current is not None:
            address = current.opt_handler or current.host_iva + VIRTUALIZATION_VECTOR
        told = environment is not None and environment.options.cause
        cause = int(instruction.cause) if told else 0
        return Intercept(instruction.cause, instruction, address, cause, instruction.opcode)

    def fault(self, name: str, vector: int) -> GuestFault:
        """An ordinary fault of the guest, or of whoever runs."""
        self._interrupted()
        iva = self.iva if self.current is None else self.current.host_iva
        return GuestFault(name, vector, iva + vector)

    def leave(self) -> None:
        """An interruption of the host's own: the guest stops, the monitor runs."""
        self._interrupted()

    def _interrupted(self) -> None:
        """Collect the state at an interruption; PSR.vm becomes 0."""
        self.ipsr, self.iip = self.psr, self.ip
        self.psr = self.psr.replace(vm=0, ic=0, i=0, bn=0, cpl=0)

    def resume(self) -> None:
        """rfi with IPSR.vm = 1: the guest runs at IIP."""
        self.psr = self.ipsr.replace(vm=1)
        self.ip = self.iip
