"""Messages of Linux about domains, reserved regions and mappings (intel iommu.c, the core)."""

from __future__ import annotations

from vtd.logs.catalogue.linux_table import FIRMWARE
from vtd.logs.message import normal, notice, problem

_RMRR = "vtd dmar rmrr tells the regions and who refuses; firmware options that drop the RMRR"

DUMP_END = notice(
    "6.1-",
    r"page table not present at level|PTE not present at level|"
    r"(?:root|context|pasid(?: directory)?|page) table is not present|"
    r"(?:legacy|scalable) mode page table is not present|"
    r"(?:context|root|pasid \w+) (?:table )?entry is not present",
    "the dump after a fault: tables end here, so the address was not mapped at this level",
)
DUMP_ENTRY = normal(
    "6.1-",
    r"Dump \w+ table entries|root entry:|context entry:|scalable mode (?:root|context)|"
    r"pasid (?:dir|table) entry|pte level:|page table entry",
    "the dump after a fault: table entries for its address, from the root on",
)

MESSAGES = (
    problem("3.17-6.1", r"ineligible for IOMMU domain attach due to platform RMRR",
            "reserved memory (an RMRR) of the device is why Linux refuses to hand it to a virtual "
            "machine", _RMRR),
    problem("6.12-", r"Firmware has requested this device have a 1:1|"
            r"not able to establish FW requested direct mapping",
            "reserved memory (an RMRR) of the device has to stay mapped one to one, so Linux "
            "refuses to hand the device to a virtual machine, or could not map it", _RMRR),
    problem("2.6.24-5.4", r"[Mm]apping reserved region failed",
            "the one-to-one mapping of a reserved region failed: the RMRR is malformed (ends "
            "before "
            "it starts) or beyond the address width of the unit", FIRMWARE),
    notice("2.6.24-4.4", r"Failed to create 0-\d+M(?:iB)? identity map",
           "the one-to-one mapping of low memory for the LPC bridge failed; only floppy drives "
           "need it"),
    problem("2.6.32-6.1", r"[Ff]ailed to build identity map|Failed to setup IOMMU pass-through",
            "memory could not be mapped one to one for pass-through", "kernel command line: "
            "iommu="),
    problem("3.17-4.4", r"[Ff]ailed to split IOVA PFN",
            "memory that is to be taken offline could not be taken out of the one-to-one mapping",
            "kernel version"),
    problem("2.6.24-", r"[Rr]eserv(?:e|ing) (?:IOAPIC range|iova(?: for .*)?) failed|"
            r"Failed to reserve (?:IOVA|iommu ranges)|Reserve iova range .* failed",
            "addresses that devices must not use could not be set aside", "kernel version"),
    problem("2.6.24-5.10", r"Allocating (?:%?\w+-page )?iova (?:for .* )?failed",
            "a device has no DMA addresses left: a driver leaks mappings, or asks for too much",
            "the driver of the device; its DMA mask"),
    problem("2.6.24-", r"Allocating domain (?:for .* )?failed|Failed to get a private domain|"
            r"Domain context map (?:for .* )?failed|"
            r"Domain initialization failed|intel_iommu_domain_init|Can't allocate dmar_domain|"
            r"PASID table allocation failed|Setup RID2PASID failed|Can't allocate default pasid",
            "the tables of a device could not be set up; its DMA fails",
            "memory of the machine; the lines before"),
    problem("2.6.24-5.10",
            r"(?:Device|device) (?:\S+ )?(?:request|bounce map): \w+@\w+ dir \d+ --- failed",
            "a buffer could not be mapped for a device; the transfer fails",
            "the driver of the device; the lines before"),
    problem("2.6.32-3.17", r"Driver unmaps unmatched (?:page|sglist)",
            "a driver gave back a buffer that it had not mapped: a bug of the driver",
            "the driver in the trace below; CONFIG_DMA_API_DEBUG"),
    problem("2.6.24-", r"[Nn]o free domain ids",
            "the unit has no domain-id left (CAP.ND): too many devices or virtual machines for it",
            "CAP of the unit: vtd caps"),
    problem("2.6.24-3.17", r"can't find DMAR for device|Unable to map PCI \S+ to iommu",
            "the table puts a device under no unit, so it can't be set up for remapping",
            "vtd dmar scope; " + FIRMWARE),
    problem("2.6.32-6.12", r"iommu (?:agaw|width) \(\w+\) is not sufficient for the mapped address",
            "a guest has memory at addresses above the width of the unit; the device can't be "
            "assigned", "CAP of the unit (MGAW, SAGAW): vtd caps; less memory for the guest"),
    problem("2.6.32-6.12", r"DMA PTE for vPFN .* already set",
            "the kernel mapped an address that was mapped already: a bug of a driver or of the "
            "kernel, or the reserved memory (RMRR) of another device of the group is there",
            "kernel version; the driver of the device; regions at these addresses: vtd dmar rmrr"),
    notice("6.12-6.12", r"Read-only mapping is disallowed",
           "an erratum of the processor forbids read-only pages in a nested parent domain"),
    notice("2.6.24-5.4", r"Setting identity map (?:for device|\[)|"
           r"Ignoring identity map for HW passthrough",
           "reserved memory of a device is mapped one to one"),
    normal("2.6.32-4.4", r"Setting RMRR",
           "reserved memory of devices is mapped one to one; the lines that follow tell which"),
    normal("2.6.32-5.4", r"(?:[Hh]ardware|[Ss]oftware) identity mapping\b|"
           r"uses (?:an |a private )?identity (?:mapping|domain)|[Uu]ses identity mapping",
           "the device is mapped one to one (pass-through)"),
    normal("2.6.32-5.4",
           r"uses (?:a private )?(?:dma domain|non-identity mapping)|[Uu]ses non-identity",
           "the device is translated, not mapped one to one"),
    normal("2.6.24-4.4", r"Prepare 0-16M(?:iB)? unity mapping for LPC|gfx device \S+ 1-1 mapping",
           "low memory, or graphics memory, is mapped one to one for old devices"),
    normal("2.6.24-", r"[Ii]dentity mapping domain (?:is domain|allocated)|"
           r"Mapping reserved region \w+|Set context mapping for|[Ff]ailed get IOVA for PFN|"
           r"Device (?:\S+ )?(?:unmapping|request): |Device .* mapping: .* dir",
           "a message for kernel developers (debugging is on)"),
    DUMP_END,
    DUMP_ENTRY,
)  # fmt: skip
