"""Exit reasons, exit qualifications and VM-instruction errors (SDM appendix C, 27.2.1, 30.4)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from pagetables.bits import BitRecord, Bits

ENTRY_FAILURE = 1 << 31
"""Bit 31 of the exit reason: the VM entry failed."""


class ExitReason(IntEnum):
    """Basic exit reasons."""

    EXCEPTION_OR_NMI = 0
    EXTERNAL_INTERRUPT = 1
    TRIPLE_FAULT = 2
    INIT = 3
    SIPI = 4
    IO_SMI = 5
    OTHER_SMI = 6
    INTERRUPT_WINDOW = 7
    NMI_WINDOW = 8
    TASK_SWITCH = 9
    CPUID = 10
    GETSEC = 11
    HLT = 12
    INVD = 13
    INVLPG = 14
    RDPMC = 15
    RDTSC = 16
    RSM = 17
    VMCALL = 18
    VMCLEAR = 19
    VMLAUNCH = 20
    VMPTRLD = 21
    VMPTRST = 22
    VMREAD = 23
    VMRESUME = 24
    VMWRITE = 25
    VMXOFF = 26
    VMXON = 27
    CR_ACCESS = 28
    DR_ACCESS = 29
    IO = 30
    RDMSR = 31
    WRMSR = 32
    INVALID_GUEST_STATE = 33
    MSR_LOADING = 34
    MWAIT = 36
    MONITOR_TRAP_FLAG = 37
    MONITOR = 39
    PAUSE = 40
    MACHINE_CHECK_AT_ENTRY = 41
    TPR_BELOW_THRESHOLD = 43
    APIC_ACCESS = 44
    VIRTUALIZED_EOI = 45
    GDTR_OR_IDTR = 46
    LDTR_OR_TR = 47
    EPT_VIOLATION = 48
    EPT_MISCONFIGURATION = 49
    INVEPT = 50
    RDTSCP = 51
    PREEMPTION_TIMER = 52
    INVVPID = 53
    WBINVD = 54
    XSETBV = 55
    APIC_WRITE = 56
    RDRAND = 57
    INVPCID = 58
    VMFUNC = 59
    ENCLS = 60
    RDSEED = 61
    PML_FULL = 62
    XSAVES = 63
    XRSTORS = 64
    PCONFIG = 65
    SPP = 66
    UMWAIT = 67
    TPAUSE = 68
    LOADIWKEY = 69
    ENCLV = 70
    ENQCMD_PASID = 72
    ENQCMDS_PASID = 73
    BUS_LOCK = 74
    NOTIFY = 75
    SEAMCALL = 76
    TDCALL = 77
    RDMSRLIST = 78
    WRMSRLIST = 79
    URDMSR = 80
    UWRMSR = 81
    RDMSR_IMMEDIATE = 84
    WRMSRNS_IMMEDIATE = 85


class EptQualification(BitRecord, width=64):
    """Exit qualification of an EPT violation (27.2.1, Table 27-7)."""

    read = Bits(0, as_=bool)
    write = Bits(1, as_=bool)
    fetch = Bits(2, as_=bool)
    readable = Bits(3, as_=bool)  # AND over the levels, 0 where an entry is not present
    writable = Bits(4, as_=bool)
    executable = Bits(5, as_=bool)
    user_executable = Bits(6, as_=bool)  # with mode-based execute
    linear_valid = Bits(7, as_=bool)
    final = Bits(8, as_=bool)  # 0: access to a guest paging structure
    user_linear = Bits(9, as_=bool)  # 11:9 are advanced information
    writable_linear = Bits(10, as_=bool)
    execute_disable_linear = Bits(11, as_=bool)
    nmi_unblocking = Bits(12, as_=bool)
    shadow_stack = Bits(13, as_=bool)
    supervisor_shadow_stack = Bits(14, as_=bool)


class ApicAccessType(IntEnum):
    """What an access to the APIC-access page was (Table 27-6)."""

    LINEAR_READ = 0
    LINEAR_WRITE = 1
    LINEAR_FETCH = 2
    LINEAR_EVENT = 3
    PHYSICAL_EVENT = 10
    PHYSICAL_OTHER = 15


class ApicAccessQualification(BitRecord, width=64):
    """Exit qualification of an APIC access (Table 27-6)."""

    offset = Bits(11, 0)
    type = Bits(15, 12)


ERRORS = {
    1: "VMCALL executed in VMX root operation",
    2: "VMCLEAR with an invalid physical address",
    3: "VMCLEAR with the VMXON pointer",
    4: "VMLAUNCH with a VMCS that is not clear",
    5: "VMRESUME with a VMCS that is not launched",
    6: "VMRESUME after VMXOFF",
    7: "VM entry with invalid control fields",
    8: "VM entry with invalid host-state fields",
    9: "VMPTRLD with an invalid physical address",
    10: "VMPTRLD with the VMXON pointer",
    11: "VMPTRLD with another VMCS revision identifier",
    12: "VMREAD or VMWRITE of an unsupported field",
    13: "VMWRITE to a read-only field",
    15: "VMXON executed in VMX root operation",
    16: "VM entry with an invalid executive-VMCS pointer",
    17: "VM entry with an executive VMCS that is not launched",
    18: "VM entry with an executive-VMCS pointer that is not the VMXON pointer",
    19: "VMCALL with a VMCS that is not clear",
    20: "VMCALL with invalid VM-exit control fields",
    22: "VMCALL with an incorrect MSEG revision identifier",
    23: "VMXOFF under dual-monitor treatment",
    24: "VMCALL with invalid SMM-monitor features",
    25: "VM entry with invalid execution controls in the executive VMCS",
    26: "VM entry with events blocked by MOV SS",
    28: "invalid operand to INVEPT or INVVPID",
}
"""VM-instruction errors."""


class Abort(IntEnum):
    """VMX-abort indicators (27.7)."""

    GUEST_MSR_SAVE = 1
    HOST_PDPTES = 2
    CORRUPTED_VMCS = 3
    HOST_MSR_LOAD = 4
    MACHINE_CHECK = 5
    WIDE_GUEST_TO_NARROW_HOST = 6


class VmExit(NamedTuple):
    """A VM exit, as the VMCS tells of it."""

    reason: int
    """The whole exit-reason word."""
    qualification: int = 0

    @property
    def basic(self) -> int:
        """Bits 15:0 of the reason."""
        return self.reason & 0xFFFF

    def __str__(self) -> str:
        name = (
            ExitReason(self.basic).name.replace("_", " ")
            if self.basic in ExitReason._value2member_map_
            else "unknown reason"
        )
        failed = "entry failed: " if self.reason & ENTRY_FAILURE else ""
        return f"exit {self.basic} ({failed}{name}), qualification {self.qualification:#x}"
