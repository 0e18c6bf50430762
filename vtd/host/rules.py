"""The rules that passthrough plans are held against, and what hypervisors say about each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a verdict means for the plan."""

    CONTRADICTION = "contradiction"
    """The plan asks for what can't be, whatever the policy."""
    REFUSED = "refused"
    """It would not be safe, or could not work; a policy may allow it all the same."""
    UNKNOWN = "unknown"
    """What is known of the machine does not decide it."""
    NOTE = "note"
    """It works; this is what it rests on or costs."""


class Saying(NamedTuple):
    """What a hypervisor does about a plan that breaks a rule, and where that is written."""

    text: str
    source: str


@dataclass(frozen=True)
class Rule:
    """A rule that plans are held against; section of the specification where there is one."""

    id: str
    title: str
    section: str = ""
    linux: Saying | None = None
    xen: Saying | None = None
    esxi: Saying | None = None

    @property
    def sayings(self) -> dict[str, Saying | None]:
        """By hypervisor; None where no source was found."""
        return {"Linux VFIO": self.linux, "Xen": self.xen, "ESXi": self.esxi}


_KB = "VMware knowledge base 1010789"
_XL = "xl-pci-configuration(5)"
_VFIO = "Documentation/driver-api/vfio.rst"

DEVICE = Rule("HOST-A01", "every device of a plan is there, once, and is no bridge")
UNIT = Rule(
    "HOST-A02",
    "a unit remaps the requests of every assigned device",
    "8.3",
    linux=Saying("no group: only without protection (enable_unsafe_noiommu_mode)", _VFIO),
)
GROUP = Rule(
    "HOST-A03",
    "functions that can't be kept apart have one owner",
    "3.16",
    linux=Saying("the group is not viable while the host uses a member", _VFIO),
    esxi=Saying(
        "no device behind a switch without ACS or a conventional bridge; functions of one slot go "
        "together", _KB,
    ),
)  # fmt: skip
REQUESTER = Rule(
    "HOST-A04", "nobody else sends with the requester id of an assigned device", "3.4.1"
)
PHYSICAL = Rule("HOST-A05", "who has a physical function has power over its virtual functions")
REGION = Rule(
    "HOST-R01",
    "a device with a reserved memory region keeps it",
    "8.4",
    linux=Saying(
        "refused, unless the device is a USB controller or graphics",
        "drivers/iommu/intel/iommu.c: device_rmrr_is_relaxable",
    ),
    xen=Saying("a hole in guest memory; conflicts are fatal under rdm_policy=strict", _XL),
)
HOLE = Rule(
    "HOST-R02",
    "guest memory leaves out the reserved regions that are mapped one to one",
    "8.4",
    xen=Saying("rdm_policy=strict: the guest is not started; relaxed: a warning", _XL),
)
ISOLATION = Rule(
    "HOST-I01",
    "interrupt requests of a guest's devices are checked",
    "5",
    linux=Saying(
        "refused without vfio_iommu_type1.allow_unsafe_interrupts",
        "drivers/vfio/vfio_iommu_type1.c",
    ),
)
CAPABILITY = Rule("HOST-U01", "units can do what the policy asks of them", "11.4.2, 11.4.3")
WIDTH = Rule(
    "HOST-U02",
    "guest addresses fit the address widths of the unit",
    "3.7, 11.4.2",
    linux=Saying(
        "mapping outside the aperture fails",
        "drivers/vfio/vfio_iommu_type1.c: vfio_iommu_iova_dma_valid",
    ),
)
FEATURE = Rule("HOST-D01", "devices can do what the policy asks of them", "4, 7")
MEMORY = Rule(
    "HOST-M01",
    "the host has the memory that its guests have",
    esxi=Saying("the memory of a guest with a device is reserved in full", _KB),
)
REQUESTED = Rule(
    "HOST-M02",
    "memory that is not pinned is asked for by page requests",
    "7",
    linux=Saying("VFIO type 1 pins all that it maps", "drivers/vfio/vfio_iommu_type1.c"),
    esxi=Saying("the memory of a guest with a device is reserved in full", _KB),
)
SHARED = Rule("HOST-M03", "EPT that is the second stage too has what both understand", "3.7")
WINDOW = Rule("HOST-N01", "what was unmapped is reachable until caches have lost it", "6.5.3.6")
TRUST = Rule("HOST-N02", "devices with a device-TLB are trusted with physical addresses", "4.2.5")
MIGRATION = Rule(
    "HOST-N03",
    "a device that writes while its guest moves has its writes recorded",
    "3.7.2",
    linux=Saying(
        "the device's own driver has to support migration", "include/uapi/linux/vfio.h: migration"
    ),
    esxi=Saying("no suspending and no vMotion of a machine with DirectPath I/O", _KB),
)
PEERS = Rule(
    "HOST-N04",
    "a switch port without ACS sends requests to its neighbours, which no unit sees",
    "3.16",
    linux=Saying(
        "each port has a group of its own, with what is below it",
        "drivers/iommu/iommu.c: pci_device_group",
    ),
)

ONE_DEVICE = Rule(
    "HOST-N05",
    "functions of one device are apart only as far as the device itself keeps them apart",
)

RULES = (
    DEVICE, UNIT, GROUP, REQUESTER, PHYSICAL, REGION, HOLE, ISOLATION, CAPABILITY, WIDTH, FEATURE,
    MEMORY, REQUESTED, SHARED, WINDOW, TRUST, MIGRATION, PEERS,
    ONE_DEVICE,
)  # fmt: skip
