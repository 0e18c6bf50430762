"""Exits and exceptions on their way from where they are found to where they take effect."""

from __future__ import annotations

from vtd.guest.x86.exits import (
    ApicAccessQualification,
    ApicAccessType,
    ExitReason,
    VmExit,
)
from vtd.guest.x86.outcomes import CpuException


class ExitSignal(Exception):  # noqa: N818 - it is no error
    """A VM exit on its way to the processor; ``information`` are VMCS fields by name."""

    def __init__(self, reason: ExitReason, qualification: int = 0, **information: int) -> None:
        super().__init__(reason.name)
        self.exit = VmExit(int(reason), qualification)
        self.information = information


class FaultSignal(Exception):  # noqa: N818 - it is no error
    """An exception that an access of the guest causes."""

    def __init__(self, fault: CpuException) -> None:
        super().__init__(f"vector {fault.vector}")
        self.fault = fault


def apic_access_exit(offset: int, kind: ApicAccessType) -> ExitSignal:
    """An APIC-access exit, to be raised."""
    return ExitSignal(ExitReason.APIC_ACCESS, ApicAccessQualification.of(offset=offset, type=kind))
