"""Messages of Linux's IOMMU core, and of other code that says something about remapping."""

from __future__ import annotations

from vtd.logs.catalogue.linux_table import FIRMWARE
from vtd.logs.message import normal, notice, problem

FIRMWARE_BUG = problem(
    "3.6-",
    r"(?:BIOS is broken|\[Firmware (?:Bug|Warn)\]).*(?:DMAR|IOMMU|iommu|VT-d|RMRR)|"
    r"(?:DMAR|IOMMU|DRHD).*(?:BIOS is broken|\[Firmware (?:Bug|Warn)\])",
    "Linux found something wrong in the table, named in the line",
    FIRMWARE,
)
"""What Linux says of firmware and no other message explains."""

MESSAGES = (
    normal("3.17-", r"(?:Add|Remov)(?:ing|ed) (?:to|from|device \S+ (?:to|from)) (?:iommu )?group",
           "an isolation group of devices"),
    normal("", r"\bIOMMU [Gg]roup \d+(?::? +(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] |:?$)",
           "an isolation group, as scripts list them (vtd groups reads them)"),
    problem("5.4-", r"Failed to add (?:to iommu group|device \S+ to group)",
            "a device could not be put into an isolation group, so it is not translated",
            "the lines before; kernel version"),
    notice("", r"PCIe ACS overrides enabled",
           "this kernel is patched, and was told to form isolation groups as if ports kept devices "
           "apart (pcie_acs_override); DMA between devices of different groups may pass no unit",
           "vtd groups tells which groups there are without it"),
    normal("", r"Intel (?:SPT )?PCH root port ACS workaround enabled",
           "Linux keeps devices below a root port of the chipset apart by registers of Intel's "
           "own"),
    notice("", r"Default domain type: [Pp]assthrough",
           "devices are mapped one to one by default: no protection from their DMA",
           "iommu=nopt, or iommu.passthrough=0"),
    normal("5.4-", r"Default domain type: |DMA domain TLB invalidation policy: ",
           "how devices are translated by default"),
    notice("5.4-", r"Memory encryption detected - Disabling default IOMMU Passthrough",
           "encrypted memory does not go with one-to-one mapping, so devices are translated"),
    notice("5.4-", r"[Ff]alling back to IOMMU_DOMAIN_DMA|in the same iommu group requires type|"
           r"requesting conflicting def_domain_type|Cannot change default domain|"
           r"Device is still bound to driver|Device cannot be in \S+ domain|"
           r"Group not assigned to default domain",
           "devices of one group need one kind of domain; what was asked for is not possible"),
    problem("6.12-", r"Device is not trusted, but driver is overriding group",
            "an untrusted device would get a domain that does not protect; it is refused",
            "what is plugged into external ports; its driver"),
    problem("6.1-", r"iommu driver failed to attach (?:the|a) \w+|late IOMMU probe at driver bind|"
            r"Multiple IOMMU drivers present|Unsupported alignment constraint",
            "the IOMMU driver and the core disagree: a bug of the kernel", "kernel version"),
    problem("5.4-", r"iommu: unaligned: iova|IOMMU: unaligned|unaligned: iova 0x",
            "a driver asked for a mapping that is not aligned to pages: a bug of the driver",
            "the driver in the trace below"),
    normal("5.4-",
           r"(?:iommu|IOMMU): (?:map|mapping|unmap this|unmapped|Releasing group|Allocated "
           r"group)\b|(?:Releasing|Allocated) group \d+|(?:map|mapping|unmap this|unmapped): iova",
           "a message for kernel developers (debugging is on)"),
    problem("5.4-", r"iova flush queue initialization failed|Couldn't register cpuhp handler|"
            r"Couldn't create (?:iova|iommu\w*) (?:cache|domain)",
            "memory ran out while remapping was set up", "memory of the machine"),
    problem("5.10-",
            r"specified DMA range outside IOMMU capability|Incompatible range for DMA domain|"
            r"DMA bounce buffers are inactive, unable to map unaligned|"
            r"Failed to set up IOMMU for device",
            "a device can't be translated as it needs to be; it keeps DMA without remapping, or "
            "its transfers fail", "the driver of the device; its DMA mask"),
    normal("6.12-", r"Using \d+-bit DMA addresses", "a device uses DMA addresses above 4 GiB"),
    notice("7.2-", r"DMA-aliased sibling may be prematurely unblocked",
           "functions share a requester id, and one was reset while another is in use"),
    notice("", r"PCI-DMA: Using software bounce buffering|PCI-DMA: Using soft(?:ware )?TLB",
           "DMA goes through bounce buffers: no remapping unit translates it",
           "intel_iommu=on, and whether firmware has VT-d on"),
    notice("", r"PCI-DMA: (?:Disabling (?:IOMMU|AGP)|More than 4GB|[Uu]sing GART|Reserving|Out of)",
           "what another maker's unit of old (GART) does; it is not VT-d"),
    problem("", r"Event logged \[\w*FAULT|\bIO_PAGE_FAULT\b",
            "a fault that an AMD I/O MMU reports; its numbers are not read here",
            "the device that the line names; its driver"),
    problem("", r"IVHD Error|AMD-Vi: (?:Error|Unable)",
            "an AMD I/O MMU could not be set up; what it says is not read here",
            "firmware setup: IOMMU; firmware updates"),
    notice("", r"AMD-Vi|AMD IOMMU|\bIVRS\b|arm-smmu|SMMU",
           "an IOMMU of another maker than Intel; what it says is not read here"),
    normal("",
           r"[Cc]ommand line: .*(?:iommu|intremap)", "the kernel command line: what was asked for"),
    normal("", r"Using iommu (?:dma|direct) mapping", "how a device is translated"),
    problem("", r"[Nn]o interrupt remapping (?:support|for PCI passthrough)|"
            r"allow_unsafe_(?:interrupts|assigned)",
            "the device can't be assigned: interrupts are not remapped, so it could raise any "
            "interrupt", "earlier lines about interrupt remapping; " + FIRMWARE),
    problem("", r"dma_map\(.*\) = -22\b",
            "QEMU could not map memory, or a BAR, of a guest: mostly its address is above the "
            "width of the unit, or in a reserved region",
            "CAP of the unit (MGAW, SAGAW): vtd caps; QEMU's host-phys-bits-limit, or fewer "
            "address bits for the guest; a refused BAR costs only DMA between devices"),
    notice("", r"annot set up DMA mapping, error \d+, ignored",
           "SPDK could not map memory for its devices and goes on: it is mapped already (17), or "
           "no device is there to map it for (22)",
           "an I/O error or a fault later; the address in the line before"),
    problem("", r"dma_map\(.*\) = -12\b|annot set up DMA (?:re)?mapping, error 12\b|"
            r"\bIommuDmaMap\(Error\(12\)|memory map into iommu table: .*\(os error 12\)",
            "memory could not be mapped for a device: the process may not lock that much",
            "locked memory (ulimit -l, RLIMIT_MEMLOCK) of the process"),
    problem("", r"\bIommuDmaMap\(Error\(14\)|failed to map an IOVA range .*\(os error 14\)|"
            r"memory map into iommu table: .*\(os error 14\)",
            "memory or a window (BAR) could not be mapped for a device: the kernel can't pin what "
            "is there, mostly the window of a device",
            "whether the virtual machine maps windows of devices to one another (p2p), and does "
            "without; kernel version"),
    problem("", r"\bIommuDmaMap\(Error\(17\)|memory map into iommu table: .*\(os error 17\)",
            "memory or a window (BAR) could not be mapped for a device: something is mapped there "
            "already, like the window of another device",
            "the addresses the virtual machine gives to the windows of its devices"),
    problem("", r"Failed to set iommu for container|failed to setup container for group|"
            r"[Ff]ailed to attach ioas|VFIO_(?:MAP|DMA_MAP|IOMMU_MAP)\w*.*failed|"
            r"dma_map\(.*\) = -|DMA remapping failed, error|"
            r"annot add (?:VFIO|vfio) group to container|"
            r"annot set up DMA (?:re)?mapping, error|failed to select IOMMU type|"
            r"\bIommuDmaMap\(Error\(|failed to map an IOVA range to the IOAS|"
            r"memory map into iommu table|add vfio group into vfio container|"
            r"\b(?:GroupSetContainer|ContainerSetIOMMU)\b|VfioType1V2\b",
            "the kernel refused to translate the device for a guest: a reserved region, no "
            "interrupt remapping, or too little locked memory", "the kernel log of that moment"),
    problem("", r"/sys/firmware/acpi/tables/DMAR\b.*(?:No such file|ENOENT)",
            "the kernel has no DMAR table, so it uses no unit; inside a container or a virtual "
            "machine it can't see that of the host", "firmware setup: VT-d"),
    problem("", r"/sys/(?:kernel/iommu_groups|class/iommu)\b.*(?:No such file|ENOENT)",
            "Linux has no isolation groups: it uses no unit, or a script asked for one that "
            "isn't there",
            "intel_iommu=on; firmware setup: VT-d; earlier lines of the kernel log about it"),
    problem("", r"open(?:ing)? '?/dev/vfio/\d+\b.*(?:No such file|ENOENT)",
            "no device of that isolation group is bound to vfio-pci, or the kernel uses no IOMMU",
            "lspci -nnk: the driver in use; vtd groups"),
    problem("", r"open(?:ing)? '?/dev/vfio/vfio\b.*(?:No such file|ENOENT)",
            "the modules that hand devices over are not loaded",
            "modprobe vfio-pci, vfio_iommu_type1"),
    problem("", r"open(?:ing)? '?/dev/vfio/\w+\b.*(?:Permission denied|EACCES|not permitted)",
            "the program may not open the device's isolation group",
            "owner and mode of /dev/vfio; the container's or libvirt's list of devices"),
    problem("", r"open(?:ing)? '?/dev/vfio/\d+\b.*(?:busy|EBUSY)",
            "another program has the devices of that isolation group",
            "which virtual machine or program runs: fuser -v /dev/vfio"),
    problem("", r"group \d+ used in multiple address spaces",
            "QEMU hands no two devices of one isolation group to a guest that has an I/O MMU of "
            "its own: they would have to have one address space",
            "one of the devices less (vtd groups), or the guest without its own I/O MMU"),
    problem("", r"error getting device from group \d+",
            "the kernel did not give QEMU the device of its isolation group: it is not bound to "
            "vfio-pci, not viable, or unknown there",
            "lspci -nnk: the driver in use; vtd groups"),
    problem("", r"within the iommu_group are bound|group (?:\d+ )?is not viable|"
            r"\bgroup is inviable|\bGroupViable\b",
            "the device was not handed over: it shares its isolation group with others that still "
            "have drivers of the host",
            "what is in the group, and which port lacks access control (ACS): vtd groups"),
    problem("", r"Checking .*IOMMU.*: +(?:WARN|FAIL).*(?:No ACPI DMAR table|disabled in BIOS)",
            "virt-host-validate found no DMAR table, so no device can be handed over; inside a "
            "container it can't see the tables of the host", "firmware setup: VT-d"),
    problem("", r"cannot prepare PCI pass-through, IOMMU not present|No IOMMU detected, please|"
            r"no iommu_group found|missing group for address: |has no iommuGroup available|"
            r"host doesn't support passthrough of host PCI devices|"
            r"VFIO device assignment is currently not supported on this",
            "no device can be handed over: the kernel uses no IOMMU",
            "intel_iommu=on; firmware setup: VT-d; earlier lines of the kernel log about it"),
    problem("", r"Checking .*IOMMU.*: +(?:WARN|FAIL)",
            "virt-host-validate found that the kernel uses no IOMMU", "intel_iommu=on"),
    problem("", r"✘ IOMMU(?: device protection disabled|: )|» IOMMU device protection is disabled",
            "fwupd found that the kernel uses no IOMMU",
            "intel_iommu=on; firmware setup: VT-d"),
    normal("", r"✔ (?:IOMMU(?: device protection enabled|: )|Pre-boot DMA protection: )",
           "fwupd found what it looked for"),
    notice("", r"✘ Pre-boot DMA protection: ",
           "the table leaves DMA_CTRL_PLATFORM_OPT_IN clear: the firmware does not say that it "
           "keeps devices to reserved memory before the system starts",
           "flags of the table: vtd dmar show; firmware setup: DMA protection"),
    normal("", r"Checking .*IOMMU.*: +PASS", "virt-host-validate found what it looked for"),
    notice("", r"assuming all RMRRs are relaxable",
           "this kernel is patched, and was told to hand devices with reserved memory (RMRR) to "
           "virtual machines; firmware may go on using that memory",
           "vtd dmar rmrr tells which devices and regions"),
    notice("", r"[Uu]nable to turn on (?:user )?SVA feature|[Uu]ser SVA .*fail|"
           r"failed to enable SVA feature",
           "the device can't share the memory of processes: PASIDs or page requests are off for "
           "it, here or in its unit", "scalable mode: intel_iommu=on,sm_on; ECAP: vtd caps"),
    problem("", r"[Ii]ncorrect checksum in table \[DMAR\]",
            "the checksum of the table is wrong (rule DMAR-H05)", FIRMWARE),
    notice("", r"No in-kernel DMA with PASID",
           "drivers of the kernel can't use PASIDs of the device; processes may"),
    problem("", r"\bqi_(?:submit_sync|flush_dev_iotlb\w*)\+0x",
            "a processor was waiting for an invalidation when the kernel printed this trace: "
            "mostly a device with a translation cache (ATS) does not answer, being removed or hung",
            "what was removed, reset or powered off just before; devices with ATS: lspci -vvv; "
            "kernel version"),
    problem("", r"WARNING: .*\bwarn_invalid_dmar\b",
            "the kernel prints a trace because the table names a unit that isn't there: address 0 "
            "(rule DMAR-U01), or registers that read as all ones (K08); a message before it tells "
            "the address, and RBX of the trace may", FIRMWARE),
    problem("", r"WARNING: .*\b(?:\w+-)?(?:iommu|iova|pasid|svm)\.c:\d+ "
            r"(?!\S*(?:quirk_|tylersburg|rmrr|identity_map))",
            "the kernel came to what its code for the I/O MMU takes for impossible: a bug of the "
            "kernel, or of the driver in the trace",
            "a message before it, if there is one; the trace below; kernel version"),
    notice("", r"(?:WARNING|BUG): .*(?:dmar|iommu|remapping|intel-svm)\S*\.c:\d+",
           "the kernel prints a trace; a message before it, if there is one, tells why"),
    normal("", r"[\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+|RIP: \w+:|Modules linked in: |"
           r"\[(?:iommu|dmar)\S*\]$",
           "a line of a trace"),
    notice("", r"DMAR active, disabling use of stolen memory|VT-d active for gfx access|"
           r"\[drm\] (?:VT-d enabled|Disabling (?:ppGTT for VT-d|framebuffer compression .* with "
           r"VT-d)|Applying \w+ quirks for intel_iommu|"
           r"Flushing DMA requests before IOMMU unmaps)",
           "the graphics driver works around VT-d being on for its device"),
    problem("", r"nouveau .*IOMMU (?:mapping failure|space is full)",
            "the graphics driver can't map its memory: its range of addresses or the machine's "
            "memory is used up", "the lines before; what else the device runs"),
    notice("", r"vfio-noiommu (?:device opened|group)",
           "a program has a device without any remapping: its DMA reaches all of memory",
           "whether VT-d is on; enable_unsafe_noiommu_mode of the module vfio"),
    problem("", r"[Dd]evice is not IOMMU cache coherent capable",
            "vDPA can't give a device to a guest: its unit does not keep DMA coherent (ECAP.SC)",
            "vtd caps; the error that follows"),
    problem("7.2-", r"failed to stop IOMMU for a PCI reset",
            "a device was not reset, as its DMA could not be blocked before",
            "the error number; who holds the device"),
    normal("", r"[Ff]ound \d+ (?:IOMMU|DMAR)|IOMMU performance counters", "units were found"),
    FIRMWARE_BUG,
    normal("", r"loaded .*iommu|iommu.*(?:registered|loaded)$", "a driver was loaded"),
)  # fmt: skip
