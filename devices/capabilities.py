"""Layouts of the PCI capability structures, and how each is placed into a configuration space.

PCI Express Base Specification, chapter 7, and the SR-IOV and ATS parts of it. Placing a capability
returns its registers; what a device does when they are written is the business of the module that
owns the feature. Power management, slots and links are left out, and so is
the reporting of errors: their registers are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from devices.config_space import RO, RW1C, ConfigRegister, ConfigSpace
from pagetables.bits import BitRecord, Bits


class CapabilityId(IntEnum):
    """Capabilities below 100h."""

    MSI = 0x05
    VENDOR = 0x09
    PCI_EXPRESS = 0x10
    MSIX = 0x11


class ExtendedCapabilityId(IntEnum):
    """Capabilities from 100h on."""

    AER = 0x0001
    ACS = 0x000D
    ARI = 0x000E
    ATS = 0x000F
    SRIOV = 0x0010
    PRI = 0x0013
    PASID = 0x001B


class PortType(IntEnum):
    """Device/port type of the PCI Express capability."""

    ENDPOINT = 0
    LEGACY_ENDPOINT = 1
    ROOT_PORT = 4
    UPSTREAM_PORT = 5
    DOWNSTREAM_PORT = 6
    PCIE_TO_PCI_BRIDGE = 7
    PCI_TO_PCIE_BRIDGE = 8
    ROOT_COMPLEX_ENDPOINT = 9
    ROOT_COMPLEX_EVENT_COLLECTOR = 10


class PcieFlags(BitRecord, width=16):
    """PCI Express capabilities, +2."""

    version = Bits(3, 0, access=RO)
    port_type = Bits(7, 4, access=RO)
    slot = Bits(8, access=RO)
    interrupt_message = Bits(13, 9, access=RO)


class DeviceCapabilities(BitRecord, width=32):
    """Device capabilities, +4."""

    max_payload = Bits(2, 0, access=RO)
    phantom_functions = Bits(4, 3, access=RO)  # how many of the highest function number bits
    extended_tag = Bits(5, access=RO)
    role_based_error_reporting = Bits(15, access=RO)
    flr = Bits(28, access=RO)


class DeviceControl(BitRecord, width=16):
    """Device control, +8."""

    error_reporting = Bits(3, 0)
    relaxed_ordering = Bits(4)
    max_payload = Bits(7, 5)
    extended_tag = Bits(8)
    phantom_functions = Bits(9)
    no_snoop = Bits(11)
    max_read_request = Bits(14, 12)
    initiate_flr = Bits(15)


class DeviceStatus(BitRecord, width=16):
    """Device status, +0Ah."""

    errors = Bits(3, 0, access=RW1C)
    transactions_pending = Bits(5, access=RO)


class DeviceCapabilities2(BitRecord, width=32):
    """Device capabilities 2, +24h."""

    ari_forwarding = Bits(5, access=RO)
    atomic_routing = Bits(6, access=RO)
    atomic_completer_32 = Bits(7, access=RO)
    atomic_completer_64 = Bits(8, access=RO)
    cas_completer_128 = Bits(9, access=RO)
    end_end_prefix = Bits(21, access=RO)
    max_prefixes = Bits(23, 22, access=RO)


class DeviceControl2(BitRecord, width=16):
    """Device control 2, +28h."""

    ari_forwarding = Bits(5)
    atomic_requester = Bits(6)
    atomic_egress_blocking = Bits(7)


class UncorrectableErrors(BitRecord, width=32):
    """Advanced error reporting: uncorrectable errors that there were, +4."""

    errors = Bits(26, 4, access=RW1C)


class UncorrectableErrorOptions(BitRecord, width=32):
    """Which of them are masked, +8, and which are fatal, +0Ch."""

    errors = Bits(26, 4)


class CorrectableErrors(BitRecord, width=32):
    """Correctable errors that there were, +10h."""

    errors = Bits(15, 0, access=RW1C)


class CorrectableErrorMask(BitRecord, width=32):
    """Which of them are masked, +14h."""

    errors = Bits(15, 0)


class AcsCapabilities(BitRecord, width=16):
    """Access control services capability, +4."""

    sv = Bits(0, access=RO)  # source validation
    tb = Bits(1, access=RO)  # translation blocking
    rr = Bits(2, access=RO)  # peer-to-peer request redirect
    cr = Bits(3, access=RO)  # peer-to-peer completion redirect
    uf = Bits(4, access=RO)  # upstream forwarding
    ec = Bits(5, access=RO)  # peer-to-peer egress control
    dt = Bits(6, access=RO)  # direct translated peer-to-peer
    egress_vector_size = Bits(15, 8, access=RO)


class AcsControl(BitRecord, width=16):
    """Access control services control, +6: the capability's bits, enabled."""

    sv = Bits(0)
    tb = Bits(1)
    rr = Bits(2)
    cr = Bits(3)
    uf = Bits(4)
    ec = Bits(5)
    dt = Bits(6)


class AriCapabilities(BitRecord, width=16):
    """Alternative routing-id capability, +4."""

    mfvc = Bits(0, access=RO)
    acs = Bits(1, access=RO)
    next_function = Bits(15, 8, access=RO)


class AriControl(BitRecord, width=16):
    """Alternative routing-id control, +6."""

    mfvc = Bits(0)
    acs = Bits(1)
    function_group = Bits(6, 4)


class AtsCapabilities(BitRecord, width=16):
    """Address translation services capability, +4."""

    queue_depth = Bits(4, 0, access=RO)  # invalidations the device accepts, 0 means 32
    page_aligned = Bits(5, access=RO)
    global_invalidate = Bits(6, access=RO)
    relaxed_ordering = Bits(7, access=RO)


class AtsControl(BitRecord, width=16):
    """Address translation services control, +6."""

    stu = Bits(4, 0)  # smallest translation unit: 2^(STU+12) bytes
    enable = Bits(15)


class PriControl(BitRecord, width=16):
    """Page request control, +4."""

    enable = Bits(0)
    reset = Bits(1)


class PriStatus(BitRecord, width=16):
    """Page request status, +6."""

    rf = Bits(0, access=RW1C)  # response failure
    uprgi = Bits(1, access=RW1C)  # unexpected page request group index
    stopped = Bits(8, access=RO)
    pasid_required = Bits(15, access=RO)  # responses have to carry the PASID


class PriCapacity(BitRecord, width=32):
    """Outstanding page requests the device can have, +8."""

    capacity = Bits(31, 0, access=RO)


class PriAllocation(BitRecord, width=32):
    """Outstanding page requests software allows, +0Ch."""

    allocation = Bits(31, 0)


class PasidCapabilities(BitRecord, width=16):
    """PASID capability, +4."""

    execute = Bits(1, access=RO)
    privileged = Bits(2, access=RO)
    translated = Bits(3, access=RO)  # translated requests can carry the PASID
    width = Bits(12, 8, access=RO)


class PasidControl(BitRecord, width=16):
    """PASID control, +6."""

    enable = Bits(0)
    execute = Bits(1)
    privileged = Bits(2)
    translated = Bits(3)


_ROLE_BASED_ERRORS = DeviceCapabilities.of(role_based_error_reporting=1)
_NO_CAPABILITIES2 = DeviceCapabilities2()
_ALL_OF_ATS = AtsCapabilities.of(page_aligned=1, global_invalidate=1)


@dataclass(frozen=True, slots=True)
class PciExpress:
    """Registers of a PCI Express capability."""

    flags: ConfigRegister[PcieFlags]
    capabilities: ConfigRegister[DeviceCapabilities]
    control: ConfigRegister[DeviceControl]
    status: ConfigRegister[DeviceStatus]
    control2: ConfigRegister[DeviceControl2]

    @property
    def port_type(self) -> int:
        """A :class:`PortType`."""
        return self.flags.value.port_type


@dataclass(frozen=True, slots=True)
class Acs:
    """Registers of an ACS capability."""

    capabilities: ConfigRegister[AcsCapabilities]
    control: ConfigRegister[AcsControl]


@dataclass(frozen=True, slots=True)
class Ats:
    """Registers of an ATS capability."""

    capabilities: ConfigRegister[AtsCapabilities]
    control: ConfigRegister[AtsControl]


@dataclass(frozen=True, slots=True)
class Pri:
    """Registers of a PRI capability."""

    control: ConfigRegister[PriControl]
    status: ConfigRegister[PriStatus]
    allocation: ConfigRegister[PriAllocation]


@dataclass(frozen=True, slots=True)
class Pasid:
    """Registers of a PASID capability."""

    capabilities: ConfigRegister[PasidCapabilities]
    control: ConfigRegister[PasidControl]


def add_pci_express(
    config: ConfigSpace,
    port_type: PortType,
    *,
    capabilities: DeviceCapabilities = _ROLE_BASED_ERRORS,
    capabilities2: DeviceCapabilities2 = _NO_CAPABILITIES2,
    offset: int | None = None,
) -> PciExpress:
    """A PCI Express capability, version 2."""
    at = config.add_capability(CapabilityId.PCI_EXPRESS, 0x3C, offset)
    config.add(at + 0x24, capabilities2)
    return PciExpress(
        flags=config.add(at + 2, PcieFlags.of(version=2, port_type=port_type)),
        capabilities=config.add(at + 4, capabilities),
        control=config.add(at + 8, DeviceControl.of(relaxed_ordering=1, no_snoop=1)),
        status=config.add(at + 0xA, DeviceStatus()),
        control2=config.add(at + 0x28, DeviceControl2()),
    )


def add_aer(config: ConfigSpace, offset: int | None = None) -> None:
    """An advanced error reporting capability of a function that records no errors."""
    at = config.add_extended_capability(ExtendedCapabilityId.AER, 0x48, offset)
    config.add(at + 0x04, UncorrectableErrors())
    config.add(at + 0x08, UncorrectableErrorOptions())
    config.add(at + 0x0C, UncorrectableErrorOptions(0x0046_2030))
    config.add(at + 0x10, CorrectableErrors())
    config.add(at + 0x14, CorrectableErrorMask(0x2000))


def add_acs(config: ConfigSpace, capabilities: AcsCapabilities, offset: int | None = None) -> Acs:
    """An ACS capability; only what it can do can be enabled."""
    at = config.add_extended_capability(ExtendedCapabilityId.ACS, 8, offset)
    return Acs(
        capabilities=config.add(at + 4, capabilities),
        control=config.add(at + 6, AcsControl(), writable=capabilities & 0x7F, routing=True),
    )


def add_ari(config: ConfigSpace, next_function: int = 0, offset: int | None = None) -> None:
    """An ARI capability."""
    at = config.add_extended_capability(ExtendedCapabilityId.ARI, 8, offset)
    config.add(at + 4, AriCapabilities.of(next_function=next_function))
    config.add(at + 6, AriControl())


def add_ats(
    config: ConfigSpace, capabilities: AtsCapabilities = _ALL_OF_ATS, offset: int | None = None
) -> Ats:
    """An ATS capability; by default 32 invalidations, page aligned requests, global invalidate."""
    at = config.add_extended_capability(ExtendedCapabilityId.ATS, 8, offset)
    return Ats(
        capabilities=config.add(at + 4, capabilities),
        control=config.add(at + 6, AtsControl()),
    )


def add_pri(
    config: ConfigSpace,
    capacity: int = 32,
    *,
    pasid_required: bool = True,
    offset: int | None = None,
) -> Pri:
    """A page request capability for ``capacity`` outstanding requests."""
    at = config.add_extended_capability(ExtendedCapabilityId.PRI, 0x10, offset)
    config.add(at + 8, PriCapacity(capacity))
    return Pri(
        control=config.add(at + 4, PriControl()),
        status=config.add(at + 6, PriStatus.of(stopped=1, pasid_required=pasid_required)),
        allocation=config.add(at + 0xC, PriAllocation()),
    )


def add_pasid(
    config: ConfigSpace,
    width: int = 20,
    *,
    execute: bool = False,
    privileged: bool = True,
    translated: bool = False,
    offset: int | None = None,
) -> Pasid:
    """A PASID capability for PASIDs of ``width`` bits."""
    at = config.add_extended_capability(ExtendedCapabilityId.PASID, 8, offset)
    capabilities = PasidCapabilities.of(
        width=width, execute=execute, privileged=privileged, translated=translated
    )
    return Pasid(
        capabilities=config.add(at + 4, capabilities),
        control=config.add(at + 6, PasidControl(), writable=1 | capabilities & 0b1110),
    )
