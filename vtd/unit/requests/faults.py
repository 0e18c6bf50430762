"""Fault reasons of DMA and interrupt remapping, with what each means for the request.

VT-d 7.1.3 (Table 30) and 5.1.4.1 (Table 15). The members carry the numbers recorded in FRCD_REG.FR;
conditions that share a number share a member. :mod:`vtd.unit.reporting.fault_recording` has what
is recorded where.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Self


class Answer(Enum):
    """How a translation or translated request ends when a fault condition is met."""

    UR = "unsupported request"
    CA = "completer abort"
    NO_PERMISSION = "success without any permission, not recorded"
    REDUCED = "success with the permissions that exist, not recorded"
    RECORDED = "success without any permission, recorded"


UR, CA, NO_PERMISSION, REDUCED, RECORDED = Answer


class FaultReason(IntEnum):
    """A fault reason code; untranslated requests that meet it are blocked (UR)."""

    condition: str
    """Condition codes of Table 30, such as ``LRT.1``; empty for interrupt requests."""
    text: str
    qualified: bool
    """Whether FPD of a structure on the way suppresses the record."""
    ats: Answer
    """Outcome of a translation request."""
    translated: Answer
    """Outcome of a translated request: UR or CA."""

    def __new__(
        cls,
        code: int,
        condition: str,
        text: str,
        qualified: bool = True,
        ats: Answer = Answer.UR,
        translated: Answer = Answer.UR,
    ) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.condition = condition
        member.text = text
        member.qualified = qualified
        member.ats = ats
        member.translated = translated
        return member

    # Legacy mode
    ROOT_NOT_PRESENT = 0x01, "LRT.2", "root entry not present", False
    CONTEXT_NOT_PRESENT = 0x02, "LCT.2", "context entry not present"
    CONTEXT_INVALID = 0x03, "LCT.4", "context entry invalid or its top table unreadable", True, CA
    ADDRESS_BEYOND_WIDTH = 0x04, "LGN.1", "address beyond the width", True, NO_PERMISSION
    WRITE_DENIED = 0x05, "LGN.2", "no write permission", True, REDUCED
    READ_DENIED = 0x06, "LGN.3", "no read permission", True, REDUCED
    SECOND_STAGE_READ_ERROR = 0x07, "LSS.1", "reading a second-stage entry failed", True, CA
    ROOT_READ_ERROR = 0x08, "LRT.1", "reading the root entry failed", False, CA
    CONTEXT_READ_ERROR = 0x09, "LCT.1", "reading the context entry failed", False, CA
    ROOT_RESERVED = 0x0A, "LRT.3", "reserved bits set in the root entry", False, CA
    CONTEXT_RESERVED = 0x0B, "LCT.3", "reserved bits set in the context entry", True, CA
    SECOND_STAGE_RESERVED = 0x0C, "LSS.2", "reserved bits set in a second-stage entry", True, CA
    REQUEST_TYPE_BLOCKED = 0x0D, "LCT.5", "translation and translated requests are blocked"
    INTERRUPT_RANGE = 0x0E, "LGN.4", "output in the interrupt address range", True, CA

    # Interrupt requests
    IR_RESERVED_REQUEST = 0x20, "", "reserved field set in an interrupt request", False
    IR_INDEX_BEYOND_TABLE = 0x21, "", "interrupt_index beyond the table", False
    IR_NOT_PRESENT = 0x22, "", "interrupt-remapping entry not present"
    IR_READ_ERROR = 0x23, "", "reading the interrupt-remapping entry failed", False
    IR_RESERVED_ENTRY = 0x24, "", "reserved field set in the interrupt-remapping entry"
    IR_COMPATIBILITY_BLOCKED = 0x25, "", "compatibility-format interrupt blocked", False
    IR_SOURCE_REJECTED = 0x26, "", "source-id verification failed"
    IR_DESCRIPTOR_ERROR = 0x27, "", "accessing the posted-interrupt descriptor failed"
    IR_DESCRIPTOR_RESERVED = 0x28, "", "reserved bits set in the posted-interrupt descriptor"
    IR_NOT_AN_INTERRUPT = 0x29, "", "access to the interrupt range that is no interrupt", False
    IR_EXTENDED_MODE_REQUIRED = 0x2A, "", "extended interrupt mode is required", False
    IR_REMAPPING_REQUIRED = 0x2B, "", "interrupt while remapping, which is required, is off", False

    # Root table register, any mode
    MODE_INVALID = 0x30, "RTA.1", "invalid translation table mode", False, CA
    PASID_IN_LEGACY_MODE = 0x31, "RTA.2", "request with PASID in legacy mode", False
    PAGE_REQUEST_IN_LEGACY_MODE = 0x32, "RTA.3", "page request in legacy mode", False
    ABORT_DMA = 0x33, "RTA.4", "abort-DMA mode", False
    EXECUTE_REQUESTED = 0x34, "RTA.5", "execute requested", False

    # Scalable mode
    SM_ROOT_READ_ERROR = 0x38, "SRT.1", "reading the root entry failed", False, CA
    SM_ROOT_NOT_PRESENT = 0x39, "SRT.2", "root entry not present", False
    SM_ROOT_RESERVED = 0x3A, "SRT.3", "reserved bits set in the root entry", False, CA
    SM_CONTEXT_READ_ERROR = 0x40, "SCT.1", "reading the context entry failed", False, CA
    SM_CONTEXT_NOT_PRESENT = 0x41, "SCT.2", "context entry not present"
    SM_CONTEXT_RESERVED = 0x42, "SCT.3", "reserved bits set in the context entry", True, CA
    SM_CONTEXT_INVALID = 0x43, "SCT.4", "context entry invalid", True, CA
    DEVICE_TLB_DISABLED = 0x44, "SCT.5", "translation and translated requests are not enabled"
    PASID_DISABLED = 0x45, "SCT.6", "requests with PASID are not enabled"
    PASID_BEYOND_DIRECTORY = 0x46, "SCT.7", "PASID beyond the directory"
    PAGE_REQUEST_DISABLED = 0x47, "SCT.8", "page requests are not enabled"
    PASID_IS_RID_PASID = 0x48, "SCT.9", "PASID of the request is RID_PASID"
    TRANSLATED_PASID_DISABLED = 0x49, "SCT.10", "translated requests with PASID are not enabled"
    PASID_DIRECTORY_READ_ERROR = (
        0x50,
        "SPD.1",
        "reading the PASID directory entry failed",
        False,
        CA,
        CA,
    )
    PASID_DIRECTORY_NOT_PRESENT = (
        0x51,
        "SPD.2",
        "PASID directory entry not present",
        True,
        NO_PERMISSION,
    )
    PASID_DIRECTORY_RESERVED = (
        0x52,
        "SPD.3",
        "reserved bits set in the PASID directory entry",
        True,
        CA,
        CA,
    )
    PASID_READ_ERROR = 0x58, "SPT.1", "reading the PASID table entry failed", False, CA, CA
    PASID_NOT_PRESENT = 0x59, "SPT.2", "PASID table entry not present", True, NO_PERMISSION
    PASID_RESERVED = 0x5A, "SPT.3", "reserved bits set in the PASID table entry", True, CA, CA
    PASID_INVALID = 0x5B, "SPT.4", "PASID table entry invalid", True, CA, CA
    EXECUTE_UNSUPPORTED = 0x5C, "SPT.5", "execute requested, unsupported", True, NO_PERMISSION
    SUPERVISOR_DISABLED = 0x5D, "SPT.6", "supervisor requests are not enabled", True, NO_PERMISSION
    HPT_BEYOND_SIZE = 0x60, "SPT.9", "translated address beyond the host permission table"
    FS_READ_ERROR = 0x70, "SFS.1", "reading a first-stage entry failed", True, NO_PERMISSION
    FS_NOT_PRESENT = 0x71, "SFS.2", "first-stage entry not present", True, NO_PERMISSION
    FS_RESERVED = 0x72, "SFS.3", "reserved bits set in a first-stage entry", True, NO_PERMISSION
    FS_TOP_READ_ERROR = (
        0x73,
        "SFS.4",
        "reading the top first-stage entry failed",
        True,
        NO_PERMISSION,
    )
    FS_BEYOND_WIDTH = 0x74, "SFS.5", "address in a first-stage entry too wide", True, NO_PERMISSION
    FS_TOP_NOT_READABLE = 0x75, "SFS.6", "top first-stage table unreadable", True, NO_PERMISSION
    FS_NOT_READABLE = 0x76, "SFS.7", "first-stage table unreadable", True, NO_PERMISSION
    FS_NOT_WRITABLE = 0x77, "SFS.8", "first-stage table not writable", True, NO_PERMISSION
    SS_READ_ERROR = 0x78, "SSS.1", "reading a second-stage entry failed", True, CA
    SS_NOT_PRESENT = 0x79, "SSS.2", "no permission in the second stage", True, NO_PERMISSION
    SS_RESERVED = 0x7A, "SSS.3", "reserved bits set in a second-stage entry", True, CA
    SS_TOP_READ_ERROR = 0x7B, "SSS.4", "reading the top second-stage entry failed", True, CA
    SS_NOT_SNOOPED = 0x7C, "SSS.5", "second-stage flag update on an unsnooped walk", True, CA
    SS_UPDATE_ERROR = 0x7D, "SSS.6", "second-stage flag update failed", True, CA
    NOT_CANONICAL = 0x80, "SGN.1", "address not canonical", True, NO_PERMISSION
    USER_DENIED = 0x81, "SGN.2", "no user permission", True, NO_PERMISSION
    SM_ADDRESS_BEYOND_HAW = 0x83, "SGN.4", "address beyond the host width", True, NO_PERMISSION
    SM_ADDRESS_BEYOND_WIDTH = 0x84, "SGN.5", "address beyond the width", True, NO_PERMISSION
    SM_WRITE_DENIED = 0x85, "SGN.6", "no write permission", True, REDUCED
    SM_READ_DENIED = 0x86, "SGN.7", "no read permission", True, REDUCED
    SM_INTERRUPT_RANGE = 0x87, "SGN.8", "output in the interrupt address range", True, CA
    PASID_TOO_WIDE = 0x89, "SGN.10", "PASID wider than supported"
    FS_NOT_SNOOPED = (
        0x90,
        "SFS.9",
        "first-stage flag update on an unsnooped walk",
        True,
        NO_PERMISSION,
    )
    FS_UPDATE_ERROR = 0x91, "SFS.10", "first-stage flag update failed", True, RECORDED
    HPT_READ_ERROR = 0xA0, "HPT.1", "reading a host permission entry failed", True, UR, CA
    HPT_RESERVED = 0xA1, "HPT.2", "reserved bits set in a host permission entry", True, UR, CA
    HPT_TOP_READ_ERROR = 0xA2, "HPT.3", "reading the top host permission entry failed", True, UR, CA
    HPT_NO_PERMISSION = 0xA3, "HPT.4", "no host permission for a zero-length read"
    HPT_WRITE_DENIED = 0xA4, "HPT.5", "write denied by the host permission table"
    HPT_READ_DENIED = 0xA5, "HPT.6", "read denied by the host permission table"


class TranslationFault(Exception):  # noqa: N818 - the specification's word
    """A request met a fault condition; raised where found, caught once by the unit."""

    if TYPE_CHECKING:  # made by Exception itself, which is several times as fast

        def __init__(self, reason: FaultReason, fpd: bool = False, /) -> None: ...

    @property
    def reason(self) -> FaultReason:
        """The condition, by the code that a fault record has."""
        reason: FaultReason = self.args[0]
        return reason

    @property
    def fpd(self) -> bool:
        """Fault processing disable, of a structure on the way (7.1.1)."""
        return len(self.args) > 1 and self.args[1]

    def __str__(self) -> str:
        return f"fault {self.reason:#04x}: {self.reason.text}"

    @property
    def recorded(self) -> bool:
        """Whether fault processing is not disabled for this fault (7.1.1)."""
        return not (self.fpd and self.reason.qualified)
