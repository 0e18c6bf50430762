"""Virtualization intercepts: causes, vectors, the opcode that is handed over (SDM 11.7.3)."""

from __future__ import annotations

from enum import IntEnum

from pagetables.bits import BitRecord, Bits


class InterceptCause(IntEnum):
    """GR24 of an intercept (Table 11-22)."""

    MOV_TO_AR = 1
    MOV_TO_AR_IMM = 2
    MOV_FROM_AR = 3
    MOV_TO_CR = 4
    MOV_FROM_CR = 5
    MOV_TO_PSR = 6
    MOV_FROM_PSR = 7
    ITC_D = 8
    ITC_I = 9
    MOV_TO_RR = 10
    MOV_TO_DBR = 11
    MOV_TO_IBR = 12
    MOV_TO_PKR = 13
    MOV_TO_PMC = 14
    MOV_TO_PMD = 15
    ITR_D = 16
    ITR_I = 17
    MOV_FROM_RR = 18
    MOV_FROM_DBR = 19
    MOV_FROM_IBR = 20
    MOV_FROM_PKR = 21
    MOV_FROM_PMC = 22
    MOV_FROM_CPUID = 23
    SSM = 24
    RSM = 25
    PTC_L = 26
    PTC_G = 27
    PTC_GA = 28
    PTR_D = 29
    PTR_I = 30
    THASH = 31
    TTAG = 32
    TPA = 33
    TAK = 34
    PTC_E = 35
    COVER = 36
    RFI = 37
    BSW_0 = 38
    BSW_1 = 39
    VMSW = 40
    PROBE = 41


UNPRIVILEGED = frozenset(
    {
        InterceptCause.MOV_TO_AR,
        InterceptCause.MOV_TO_AR_IMM,
        InterceptCause.MOV_FROM_AR,
        InterceptCause.MOV_FROM_CPUID,
        InterceptCause.THASH,
        InterceptCause.TTAG,
        InterceptCause.COVER,
        InterceptCause.PROBE,
    }
)
"""Instructions that every privilege level may execute; the others fault above level 0."""

EXTERNAL_INTERRUPT_VECTOR = 0x3000
VIRTUAL_EXTERNAL_INTERRUPT_VECTOR = 0x3400
DATA_TLB_VECTOR = 0x0800
DATA_ACCESS_RIGHTS_VECTOR = 0x5300
GENERAL_EXCEPTION_VECTOR = 0x5400
VIRTUALIZATION_VECTOR = 0x6100
"""Offsets in an interruption vector table."""


class Opcode(BitRecord, width=41):
    """The 41 bits of an instruction, as GR25 has them."""

    qp = Bits(5, 0)
    r1 = Bits(12, 6)
    r2 = Bits(19, 13)
    r3 = Bits(26, 20)
    x = Bits(30, 27)
    i2 = Bits(32, 31)
    x3 = Bits(35, 33)
    i = Bits(36)
    op = Bits(40, 37)

    @property
    def mask(self) -> int:
        """The immediate of ssm and rsm: i, i2 and 26:6."""
        return int(self.i) << 23 | int(self.i2) << 21 | self >> 6 & 0x1F_FFFF
