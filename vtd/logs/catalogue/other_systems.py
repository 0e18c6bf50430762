"""Messages of Xen, FreeBSD, ESXi, Windows, seL4 and firmware about remapping, apart from faults.

Read in xen/drivers/passthrough/vtd (3.4 to 4.17 and later reports), sys/x86/iommu of FreeBSD,
hypervisor/arch/x86/vtd.c of ACRN and of Jailhouse, VTdDxe of edk2-platforms, articles of Broadcom
and Microsoft. How these systems print faults is in :mod:`vtd.logs.fault_forms`.
"""

from __future__ import annotations

from vtd.logs.catalogue.linux_table import FIRMWARE
from vtd.logs.message import Message, normal, notice, problem

XEN_DUMP = normal(
    "",
    r"print_vtd_entries|\b(?:root_entry|context|ctxt_entry|l\d)\[\w+\] (?:= |not present)|"
    r"\bl\d_index = |\b(?:l\d|root_entry|context) = [0-9a-f]{16}\b|iommu->root_maddr",
    "Xen's dump after a fault: table entries for its address, from the root on",
)._replace(system="Xen")
_XEN = (
    problem("", r"RMRR (?:address range|\[).* not in reserved memory",
            "the memory map does not reserve the region (rule DMAR-K01), so Xen may give its "
            "memory to others and not map it; faults of its devices in that range come from this",
            "iommu_inclusive_mapping=1 (dom0-iommu=map-inclusive); " + FIRMWARE),
    problem("", r"RMRR .*is incorrect!|Overlapping RMRRs|Invalid RMRR Range|"
            r"Invalid pfn in RMRR range|RMRR range .* exceeds|Could not register RMM?R range|"
            r"Segments are not equal for RMRR",
            "a reserved region is malformed, or collides with another (rules DMAR-R01 to R05)",
            FIRMWARE),
    problem("", r"RMRR (?:quarantine )?mapping failed|[Cc]annot (?:un)?map reserved region|"
            r"error -?\d+ unmapping|\bcontext mapping failed|mapping reserved region failed",
            "a reserved region or a device could not be set up in a domain", "the lines around"),
    problem("", r"to assign \S+ with shared RMRR",
            "the device shares reserved memory with others, so handing it to a guest lets the "
            "guest touch theirs", "vtd dmar rmrr; rdm_policy of the guest"),
    notice("", r"Ignore (?:the )?(?:RMRR|DRHD)|Non-existent device",
           "the table names a device that is not there; the entry is ignored",
           "vtd dmar validate --lspci"),
    problem("", r"Failed to parse ACPI DMAR|Invalid ACPI DMAR entry length|Invalid device scope|"
            r"Zero: Invalid DMAR width|Unknown scope type|Only one INCLUDE_ALL|Only one ALL_PORTS",
            "the table is malformed; Xen leaves VT-d off or ignores the structure", FIRMWARE),
    problem("", r"Disabling IOMMU due to Intel|chipset errat(?:a|um)",
            "an erratum of this chipset makes remapping unstable, so Xen leaves it off",
            "firmware updates"),
    problem("", r"ioapic_to_iommu: .* NULL|There is not a DRHD for IOAPIC|"
            r"Didn't find the bdf for",
            "an I/O APIC or HPET is listed by no unit (rules DMAR-U13, U14), so interrupts can't "
            "be remapped", FIRMWARE),
    problem("", r"Compatibility Format Interrupts permitted|"
            r"Platform firmware does not support interrupt remapping|"
            r"Interrupt [Rr]emapping (?:not enabled|disabled)|"
            r"[Ff]ailed to enable (?:Queued Invalidation|Interrupt Remapping)|"
            r"Queued invalidation is not enabled on IOMMU",
            "interrupt remapping is off, so assigned devices can raise any interrupt",
            "earlier lines tell why; " + FIRMWARE),
    problem("", r"IOMMU#\d+: .* (?:taking too long|took)|"
            r"no QI slot available|wait_desc timeout",
            "an invalidation took too long: a device did not answer for its translation cache "
            "(ATS), or the unit hangs", "the devices with ATS; power management"),
    problem("", r"(?:IOMMU: (?:no free domain id|flush IOTLB failed|unsupported|can't request irq|"
            r"no irq available|set root entry failed|interrupt setup failed))|"
            r"unsupported sagaw|Unhandled bits in SAGAW|No available invalidation interface|"
            r"flush all failed|Set iommu interrupt affinity error|no device found, something must|"
            r"Cannot allocate memory for (?:ir_ctrl|qi_ctrl)|intremap index .* larger than|"
            r"IO-APIC index .* (?:invalid|empty entry)|unexpected context entry|"
            r"(?:map|unmap) [0-9a-f:.]+ failed|"
            r"cannot disable Queued Invalidation|no upstream bridge for|\[VT-D\].*unknown\(\d+\): ",
            "Xen could not set something up, named in the line", "Xen version; " + FIRMWARE),
    problem("", r"\bd\d+: (?:de)?assign \(\S+\) (?:to \S+ )?failed",
            "Xen could not hand a device to a domain, or take it back; the number is -ERRNO: 16 is "
            "in use, 1 and 95 that a rule forbids it, 19 no such device",
            "the lines before; xl dmesg; regions of the device: vtd dmar rmrr"),
    problem("", r"I/O virtualisation disabled",
            "Xen uses no IOMMU, so no device can be handed over safely",
            "earlier lines tell why; firmware setup: VT-d; iommu= of the command line"),
    problem("", r"cannot be assigned - no IOMMU|not assignable without IOMMU",
            "Xen's tools refused to hand the device over: Xen uses no IOMMU",
            "xl dmesg: lines with VT-d and I/O virtualisation; firmware setup: VT-d"),
    problem("", r"BIOS did not enable IGD for VT",
            "firmware did not set graphics up for VT-d: Xen leaves the unit of graphics off or, "
            "where the IOMMU is required, stops",
            "firmware setup: VT-d and graphics memory; iommu=no-igfx of the command line (Xen "
            "before 4.10 stops with it too)"),
    notice("", r"Not enabling x2APIC: depends on",
           "x2APIC stays off: a unit can't remap its interrupts (ECAP.EIM), or none is in use"),
    notice("", r"It's \w+ to assign|reassignment may cause|disabling IGD VT-d|disabling ISOCH VT-d|"
           r"Ignore unknown DMAR structure|Inconsistency between chipset registers|"
           r"Cannot access VTISOCHCTRL|failed to disable idle handshake|"
           r"Disabled protected memory registers|No RMRR|Could not map .* for",
           "Xen works around or leaves out something, named in the line"),
    normal("", r"\[VT-D\]\s*(?:\w+\.c:\d+:\s*)?(?:found ACPI_DMAR|dmaru->address|endpoint:|"
           r"bridge:|IOAPIC:|MSI HPET:|flags:|RMRR: \[|RMRR region|atsru->all_ports|rhsau->address|"
           r"drhd->address|cap = |Host address width|iommu_enable_translation|DMAR_TABLE|QI: using|"
           r"Interrupt Remapping|Adding RMRR)|\[VT-D\]iommu\.c:\d+: *(?:drhd|cap)|"
           r"\[VT-D\].*d\d+:(?:PCIe?|Hostbridge): (?:map|unmap|skip)|"
           r"\[VT-D\]d\[?\w+\]?:(?:PCIe?|Hostbridge): |:(?:PCIe?|Hostbridge): (?:map|unmap|skip) ",
           "what Xen found in the table, or set up for a device"),
    normal("", r"Intel VT-d (?:iommu \d+ supported|Snoop|Dom0|Queued|Interrupt|Posted|Shared)|"
           r"I/O virtualisation enabled|Dom0 mode: |Interrupt remapping enabled|"
           r"[Mm]asked (?:VT-d error|UR) signaling",
           "what Xen uses of the units"),
    normal("", r"\[V: dump iommu info\]|iommu \w+: nr_pt_levels = \d|"
           r"(?:Queued Invalidation|Interrupt (?:Remapping|Posting)): (?:not )?supported|"
           r"Interrupt remapping table \(nr_entry=",
           "Xen's console command V: what the units can do, and their interrupt-remapping entries"),
    notice("", r"iommu_fault_status: |iommu_page_fault: iommu->reg",
           "the unit reports faults, or an error of its queue"),
    XEN_DUMP,
)  # fmt: skip
_FREEBSD = (
    problem(
        "",
        r"dmar_\w+: corrupted DMAR table|dmar_identify: cannot (?:find|create)|"
        r"dmar_find_nonpci: id \d+ type \d+ path length",
        "the table is malformed; FreeBSD leaves out the structure or what follows it",
        FIRMWARE,
    ),
    problem(
        "",
        r"BIOS bug: dmar\d+ RMRR region .* corrected|failed to map RMRR region",
        "a reserved region is malformed, or collides with another (rules DMAR-R01 to R05); "
        "corrected: FreeBSD maps 128 KiB from its start",
        FIRMWARE,
    ),
    problem(
        "",
        r"dmar\d+: (?:unable to alloc|cannot allocate) register window",
        "the registers of a unit can't be used, for instance because something else uses the "
        "addresses (rule DMAR-U07); its devices are not translated",
        FIRMWARE,
    ),
    problem(
        "",
        r"dmar\d+: (?:enabling translation failed|cannot (?:allocate|setup|map) \w+ interrupt|"
        r"Failed to disable protected regions)",
        "a unit could not be set up, so its devices are not translated, or not as wanted",
        "the lines before; firmware setup: VT-d; FreeBSD version",
    ),
    notice(
        "",
        r"dmar\d+ no dev found for RMRR",
        "the scope of a reserved region names a device that is not there, perhaps switched off in "
        "firmware setup",
        "vtd dmar validate --lspci",
    ),
    normal(
        "",
        r"DMAR: (?:Found table at|Length=\d+, Revision=\d+, Checksum=)|DMAR HAW=\d+ flags=|"
        r"matched dmar\d+ by |dmar\d+ .*(?:re|id)-mapped|"
        r"dmar\d+: enabled translation|dmar\d+ ctx pci\S+ RMRR \[|dmar\d+: programming irte\[",
        "FreeBSD sets up units, devices and interrupts",
    ),
    problem(
        "",
        r"DMAR\d+: (?:Invalidation timed out|Invalidation completion error|"
        r"Invalidation queue error)",
        "the unit stopped at an invalidation: a bad descriptor, or a device that did not "
        "answer for its translation cache (ATS)",
        "devices with ATS; pciconf -lc",
    ),
    notice(
        "",
        r"(?:DMAR|dmar)\d+: (?:Fault Overflow|Advanced (?:pending fault|fault overflow))|"
        r"DMAR\d+: .*overflow",
        "faults came faster than they were read, and some were lost",
    ),
    notice(
        "",
        r"DMAR: Queued invalidation disabled|x2APIC available but disabled by DMAR table|"
        r"dmar\d+: .*(?:disabled|not supported)",
        "a feature of the unit is not used",
    ),
    normal(
        "",
        r"dmar\d+: <DMA remap>|dmar\d+: (?:regs@|ver |cap|ecap|Ver|ND )|"
        r"dmar\d+: .*(?:iomem|irq)",
        "a unit answers; its registers",
    ),
)
_BHYVE = (
    problem(
        "",
        r"pci passthrough not supported on this system \(no VT-d",
        "vm-bhyve found no DMAR table, so it hands over no device",
        "firmware setup: VT-d; acpidump -t as root",
    ),
    problem(
        "",
        r"vtd_add_device: device \w+ is not in scope",
        "FreeBSD stopped handing a device to bhyve: no unit of the table holds it (bus, device and "
        "function are the number in hexadecimal)",
        "vtd dmar scope; " + FIRMWARE,
    ),
    problem(
        "",
        r"vtd_add_device: device \w+ is already owned",
        "FreeBSD stopped handing a device to bhyve: it is still in the domain named",
        "what else uses the device; FreeBSD version",
    ),
    problem(
        "",
        r"vtd_init: invalid caching mode",
        "FreeBSD stopped: bhyve takes no unit that a virtual machine emulates (CAP.CM)",
        "leaving the virtual IOMMU out of that machine",
    ),
    problem(
        "",
        r"vtd_(?:create_domain|max_domains): ",
        "FreeBSD stopped setting up a domain for bhyve: there is no unit, or none with the address "
        "widths or domain-ids that it needs",
        "CAP of the units: vtd caps; firmware setup: VT-d",
    ),
)
_OPENBSD = (
    problem(
        "",
        r"iommu init failed|no iommu found|no domain: |no domain here|"
        r"iommu\d+: (?:can't allocate|domain \w+: failed|completion wait|missing completion)|"
        r"(?:reserve ISA IOVA region|rmrr extent reserve) failed",
        "OpenBSD could not set up a unit, or a device under one; the line names it",
        "vtd dmar scope; " + FIRMWARE,
    ),
    problem(
        "",
        r"^\s*buggy BIOS$",
        "a reserved region ends before it starts (rule DMAR-R01); OpenBSD ignores it",
        FIRMWARE,
    ),
    normal(
        "",
        r"(?:DRHD|RMRR|ATSR): segment:\w+ |: hardware width: \d+, intr_remap:\d x2apic_opt_out:0|"
        r"\biommu:\d+ did:\w+$|\bmap ident: |dmar: \S+ mapping ISA",
        "what OpenBSD found in the table, or set up for a device",
    ),
    normal(
        "",
        r"acpidmar\d+ at acpi\d+|acpi\d+: tables .*\bDMAR\b|acpidmar\d+: (?:ver|cap|register)",
        "the table is there, and a unit answers; its registers",
    ),
)
_ESXI = (
    problem(
        "",
        r"did not complete processing of a queued invalidation wait",
        "the unit did not finish an invalidation; ESXi names a hardware erratum with a "
        "firmware workaround",
        "firmware and ESXi updates",
    ),
    problem(
        "",
        r"VTDIommuFaultHandler|IOMMUProcessFaults",
        "ESXi stopped because of a DMA fault; the message with the device stands above the trace",
        "driver and firmware of the device",
    ),
    problem(
        "",
        r"\]VVTD\w+@vmkernel",
        "ESXi stopped in its emulated VT-d unit, on behalf of a guest that has one",
        "ESXi updates; leaving the virtual IOMMU out of that machine",
    ),
    problem(
        "",
        r"IOMMU context entry dump for",
        "ESXi's dump after a fault: the context entry of the device that was blocked",
        "the fault beside it; driver and firmware of the device",
    ),
    problem(
        "",
        r"IOMMU virtualization is not allowed with VGPU",
        "ESXi starts no machine that has both an I/O MMU of its own and a shared graphics device",
        "the virtual IOMMU of that machine; ESXi updates",
    ),
    notice("", r"(?:IOMMUIntel|VTD|VVTD)\w*: ", "a message of ESXi about VT-d"),
)
_PROTECTION = (
    "Kernel DMA Protection|Kernel-DMA-Schutz|Protection DMA du noyau|Protección de DMA del? kernel|"
    "Protezione DMA (?:del )?kernel|Proteção de DMA do Kernel|Защита DMA ядра|カーネル DMA 保護|"
    "内核 DMA 保护|核心 DMA 保護"
)
"""How msinfo32 names it, in languages of Windows."""
_WINDOWS = (
    problem(
        "",
        r"IOMMU detected DMA violation|Arg1: 0*26\b.*IOMMU|[Bb]ug[Cc]heck was: 0x0*e6 \(0x0*26,",
        "Windows stopped because a unit blocked DMA of a device: parameter 2 leads to the device, "
        "parameter 3 is mostly the address, parameter 4 is of the hardware",
        "in the debugger !devstack on parameter 2; driver and firmware of that device",
    ),
    problem(
        "",
        r"DRIVER_VERIFIER_DMA_VIOLATION|[Bb]ug[Cc]heck was: 0x0*e6\b",
        "Windows stopped because of wrong DMA; parameter 1 tells which: 26 is DMA that a unit "
        "blocked, all others are findings of Driver Verifier about a driver, without a unit",
        "parameter 1; the driver that the dump names",
    ),
    problem(
        "",
        r"HAL_ILLEGAL_IOMMU_PAGE_FAULT|[Bb]ug[Cc]heck was: 0x0*159\b",
        "Windows stopped because a device asked for pages of an address space that was being "
        "freed: its driver had left requests of it open",
        "driver of the device; if parameter 1 is 3xxx, parameter 3 is the PASID",
    ),
    problem(
        "",
        r"ILLEGAL_IOMMU_PAGE_FAULT|[Bb]ug[Cc]heck was: 0x0*158\b",
        "Windows stopped because a device asked for pages of an address space that is not in use "
        "(parameter 1), or no longer",
        "driver of the device",
    ),
    problem(
        "",
        r"chipset on the system does not do (?:DMA|interrupt) remapping|"
        r"chipset support for SR-IOV and that I/O virtualization is enabled",
        "Hyper-V finds no unit that remaps DMA or interrupts, so it hands over no (virtual) "
        "functions",
        "firmware setup: VT-d; vtd dmar validate",
    ),
    problem(
        "",
        r"incorrect information describing the hardware capabilities",
        "Hyper-V refuses what the firmware's tables say of the units",
        FIRMWARE,
    ),
    problem(
        "",
        r"configured to disable the use of I/O remapping hardware",
        "Windows' boot configuration switches the units off for Hyper-V",
        "bcdedit: hypervisoriommupolicy",
    ),
    problem(
        "",
        r"security vulnerability in the system I/O remapping hardware|"
        r"does not support Access Control Services \(ACS\) at any root port",
        "Hyper-V hands over no (virtual) functions: what the chipset does with their errors, or "
        "among them, would not keep them apart",
        "firmware updates; vtd groups",
    ),
    problem(
        "",
        r"HAL_IOMMU_INTERNAL_ERROR|[Bb]ug[Cc]heck was: 0x0*1d9\b",
        "Windows stopped because it could not delete (parameter 1 is 0), unmap in (1) or take a "
        "device out of (2) a domain of a unit",
        "Windows and firmware updates; parameter 2 is the status",
    ),
    notice(
        "",
        rf"(?:{_PROTECTION}):?\s+(?:Off|Aus|Désact|Desact|Disatt|Выкл|オフ|关|關)",
        "Windows does not keep devices that are plugged in out of memory: the table lacks "
        "DMA_CTRL_PLATFORM_OPT_IN, or remapping is off",
        "flags of the table: vtd dmar show; firmware setup: VT-d, DMA protection",
    ),
    normal(
        "",
        rf"(?:{_PROTECTION}):?\s+(?:On|Ein|Activ|Attiv|Вкл|オン|开|開|启|啟)",
        "Windows keeps devices to memory of their drivers",
    ),
)
_ACRN = (
    problem(
        "",
        r"Assertion failed in file \S*vtd\.c\b|DMAR OP Timeout",
        "ACRN stopped in its code for the units: one did not carry out a command in time, or lacks "
        "what ACRN needs",
        "CAP and ECAP of the unit (vtd caps), also of one that a virtual machine emulates; that "
        "line of ACRN's source",
    ),
    problem(
        "",
        r"Assertion failed in file \S*dmar\w*\.c\b|dmar count\(\d+\) beyond the limitation|"
        r"can't find dmar info",
        "ACRN stopped in its code for the table: it does not take what is there",
        "vtd dmar validate; a table with more structures or scope entries than ACRN was built for",
    ),
    problem(
        "",
        r"no dmar unit found for (?:device|ioapic)",
        "no unit of the table holds the device, so ACRN does not hand it over",
        "vtd dmar show; ACRN's configuration for this board",
    ),
    problem(
        "",
        r"dmar uint doesn't support (?:2M|1G)B page|dmar doesn't support addr width",
        "the unit lacks a page size or an address width that ACRN's page tables use",
        "CAP of the unit: vtd caps",
    ),
    problem(
        "",
        r"fail to invalidate IOTLB!",
        "a unit did not invalidate what ACRN asked for: devices may go on with old translations",
        "faults in the log; CAP and ECAP of the unit: vtd caps",
    ),
    problem(
        "",
        r"iommu: \w+: domain id mismatch|context entry@0x[0-9a-f]+ \(Lower:|"
        r"iommu: already present for [0-9a-f]+:[0-9a-f]+\.",
        "a step in handing a device over failed: it is still in a domain, or not in the one named",
        "which virtual machines ACRN is told to give the device to",
    ),
    notice(
        "",
        r"dmar uint doesn't support snoop control|iommu: (?:ignore dmar_uint|device is ignored)",
        "what the unit can't do, or what ACRN's configuration leaves out of remapping",
    ),
    normal(
        "",
        r"iommu: (?:enable dmar uint|create domain|Register dmar uint)|"
        r"dmar_fault_handler: (?:irq = \d|record\[\d+\] @)|alloc irq#\d+ vector#\d+ for dmar_uint",
        "ACRN sets up units and domains, or reads a fault record",
    ),
)
_GENODE = (
    normal(
        "",
        r"Found DMAR$|\d+ bit DMA physical addressable|DMA remapping (?:structure type=|0x)",
        "Genode's ACPI driver reads the table",
    ),
)
_SEL4 = (
    problem(
        "",
        r"disabling IOMMU support|IOMMU: mismatch of supported number of PT levels",
        "seL4 leaves VT-d off: the table or the units are not what it was built for",
        "MAX_NUM_DRHU of its configuration; SAGAW of the units: vtd caps; vtd dmar validate",
    ),
    normal(
        "",
        r"ACPI: (?:DMAR [pv]addr|IOMMU host address width|\d+ IOMMUs detected)|"
        r"IOMMU 0x[0-9a-f]+: (?:\d+-bit domain IDs supported|enabling)|"
        r"IOMMU: (?:Using \d+ page-table levels|Create VTD context table)",
        "seL4 reads the table and sets up its units",
    ),
)
_HYPERVISORS = (
    problem(
        "",
        r"aw-bits \d+ > host aw-bits",
        "the emulated unit of the guest has more address bits than the unit of the host, so QEMU "
        "does not hand the device over",
        "-device intel-iommu,aw-bits=39 (libvirt: aw_bits='39'); CAP of the host's unit: vtd caps",
    ),
    problem(
        "",
        r"Need IOMMUFD backend when x-flts|Host IOMMU doesn't support nested translation|"
        r"(?:Stage-1|First stage) 1GB \w+ page is unsupported by host|"
        r"(?:in|un)compatible with (?:guest )?(?:stage-1|first stage) translation|"
        r"PASID bits size \d+ > host IOMMU|"
        r"Host device (?:under|downstream to a) PCI bridge is unsupported",
        "QEMU can't give the guest first-stage tables of its own for the device (x-flts=on): the "
        "host's unit, the way to it, or the place of the device does not allow it",
        "ECAP (NEST, FSTS, PSS) and CAP (FS1GP) of the host's unit: vtd caps; iommufd; x-flts=off",
    ),
    problem(
        "",
        r"need to set caching-mode=on|without enabling caching-mode=on|requires caching mode|"
        r"requires device IOTLB mode",
        "QEMU hands no device to a guest behind its emulated unit as it is configured",
        "-device intel-iommu,caching-mode=on (device-iotlb=on)",
    ),
    problem(
        "",
        r"Interrupt Remapping cannot work with kernel-irqchip=on|"
        r"eim=on requires support on the KVM|eim=on cannot be selected without|"
        r"requires split I/O APIC|"
        r"eim requires interrupt remapping",
        "QEMU's emulated unit can't remap interrupts as it is configured, so the machine does not "
        "start",
        "kernel-irqchip=split, intremap=on (libvirt: <ioapic driver='qemu'/>, intremap='on')",
    ),
    problem(
        "",
        r"Supported values for aw-bits",
        "QEMU's emulated unit has no such address width, so the machine does not start",
        "aw-bits=39 or 48",
    ),
    problem(
        "",
        r"Expecting '[PV]A' IOVA mode but|Cannot use IOVA as '[PV]A'",
        "DPDK leaves out a device, or does not start: drivers need addresses of a kind that this "
        "machine does not offer",
        "--iova-mode; physical addresses need root, virtual ones a unit that is in use",
    ),
    problem(
        "",
        r"wrong dma mask size|IOVA exceeding limits of current DMA mask",
        "DPDK's memory is at addresses above what a device or its unit reaches",
        "CAP of the unit (MGAW, SAGAW): vtd caps; --iova-mode=pa",
    ),
    notice(
        "",
        r"Unexpected size \w+ of DMA remapping cleared|Cannot clear DMA (?:re)?mapping|"
        r"Cannot unmap DMA memory, error|"
        r"[Ff]ailed to remove (?:all )?guest memory \w+ from iommu table|\bIommuDmaUnmap\b",
        "a program (DPDK, SPDK, Cloud Hypervisor) could not undo a mapping as it had made it, "
        "mostly as it is gone already",
        "the order in which the program frees memory and devices; its version",
    ),
    problem(
        "",
        r"Failed to set vIOMMU: |IOMMU device: '\w+' is only supported with|"
        r"error opening /dev/iommu",
        "QEMU or libvirt can't hand the device over, or make the unit of the guest, as the line "
        "says",
        "what the line says; kernel version for /dev/iommu (6.2)",
    ),
    notice(
        "",
        r"IOMMU_IOAS_MAP failed: Bad address, PCI BAR",
        "the window (BAR) of a device was not mapped for the others; DMA between devices is lost",
    ),
    notice("", r"IOMMU type \d+ \([^)]*\) is not supported", "DPDK looks for what the kernel has"),
    normal(
        "",
        r"IOMMU type \d+ \([^)]*\) is supported|EAL: +[Uu]sing IOMMU type",
        "DPDK looks for what the kernel has",
    ),
    normal("", r"Faults records for drhd", "the fault records that follow are of this unit"),
    notice(
        "",
        r"Fault recording overflow",
        "faults came faster than they were read, and some were lost",
    ),
    normal(
        "",
        r"Performed IOTLB invalidation with different granularity",
        "the unit invalidated more than it was asked to, as it may",
    ),
    notice(
        "",
        r"(?:^|[\s:])vtd_warn_\w+ ",
        "QEMU's trace: its unit met what software should not do, as the line says",
    ),
    normal(
        "",
        r"(?:^|[\s:])vtd_\w+ ",
        "QEMU's trace of its unit, which vtd audit and vtd trace read",
    ),
    normal(
        "",
        r"vtd_iommu_translate|vtd_iova_to_\w+: detected",
        "QEMU's emulated unit tells more about the fault beside it",
    ),
    problem(
        "",
        r"vtd_(?:irte_get|remap_irq_get|interrupt_remap_\w+): ",
        "QEMU's emulated unit refused an interrupt of the guest: its entry of the table is missing "
        "or wrong, or the request is none that the unit remaps",
        "entry and message of the line: vtd msi, vtd irte; the guest's driver; QEMU version",
    ),
    problem(
        "",
        r"vtd_(?:process|handle|fetch|get|inv)_?\w*(?:inv|wait|iotlb|desc)\w*: ",
        "QEMU's emulated unit refused a descriptor of the guest's invalidation queue, and the "
        "queue stops",
        "the words of the line, what the guest's driver wrote; QEMU version",
    ),
    normal("", r"\bpkvm: IOMMU initialized", "protected KVM has taken the units over"),
    problem(
        "",
        r"\bpkvm_domain_map: |\bpkvm_host_use_dma: ",
        "protected KVM refused to map memory for a device: the pages are not all the host's to "
        "give, like those of a protected guest, or are no memory; DMA there will be blocked",
        "which driver or guest the memory is of; an RMRR at the address: vtd dmar rmrr",
    ),
    problem(
        "",
        r"\bpkvm: iommu\d+(?:: | ignored)|\bpkvm: (?:Failed to initialize|IOMMU initialize failed)",
        "protected KVM can't use a unit as it is, or as firmware left it",
        "CAP (RWBF, SAGAW) and ECAP (QI) of the unit: vtd caps; kernel version",
    ),
    problem(
        "",
        r"\bpkvm: ",
        "protected KVM could not do what Linux asked of it for a device, as the line says",
        "lines with [pkvm] before it; kernel version",
    ),
    problem(
        "",
        r"\bqemu[\w./-]*: vtd_\w+: ",
        "QEMU's emulated unit met what its guest should not do, as the line says",
        "the guest's driver; QEMU version",
    ),
    notice(
        "",
        r"Primary (?:Fault Overflow|Pending Fault)|Advanced (?:Fault Overflow|Pending "
        r"Fault)|Page Request Overflow|Invalidation (?:Queue|Completion|Time-out) Error$",
        "a bit of FSTS_REG: faults, or an error of the queue",
    ),
    normal("", r"DMAR:0x[0-9a-f]+ (?:FSTS|GSTS)", "NOVA prints registers of the unit"),
)
_FIRMWARE = (
    normal("", r"ACPI: +\* DMAR$", "coreboot makes the table"),
    notice(
        "",
        r"VT-d PMR HOB not found|not enabling DMA protection",
        "coreboot leaves memory open to devices until the system starts: the firmware package "
        "(FSP) told no protected region",
        "version of the FSP; the option for early DMA protection",
    ),
    problem(
        "",
        r"VTD_ENGINE .*(?:ERROR|error)|VT-?d.*(?:[Tt]imeout|TIMEOUT)",
        "firmware met an error of a unit",
        "firmware updates",
    ),
    normal(
        "",
        r"FRCD_REG|Fault Info - 0x|Fault Bit - \d|Reason - \w+ \(Refer to VTd|"
        r"Type - \d \((?:read|write)\)|Source - B[0-9a-f]{2} D|\b(?:VER|CAP|ECAP|GSTS|GCMD|RTADDR|"
        r"CCMD|FSTS|FECTL|FEDATA|"
        r"FEADDR|FEUADDR|IVA|IOTLB|PMEN|PLMBASE|PLMLIMIT|PHMBASE|PHMLIMIT|IQH|IQT|IQA|IRTA|"
        r"PQH|PQT|PQA|PRS)_REG +- 0x|DumpVtdRegs|VTdDxe|VTdPmr|"
        r"VTd Engine|VtdUnit|VTD_BASE",
        "firmware prints the registers of a unit, or what it sets up",
    ),
)

MESSAGES: tuple[Message, ...] = (
    *(message._replace(system="Xen") for message in _XEN),
    *(message._replace(system="FreeBSD") for message in _FREEBSD),
    *(message._replace(system="FreeBSD") for message in _BHYVE),
    *(message._replace(system="OpenBSD") for message in _OPENBSD),
    *(message._replace(system="ESXi") for message in _ESXI),
    *(message._replace(system="Windows") for message in _WINDOWS),
    *(message._replace(system="ACRN") for message in _ACRN),
    *(message._replace(system="Genode") for message in _GENODE),
    *(message._replace(system="seL4") for message in _SEL4),
    *(message._replace(system="hypervisors") for message in _HYPERVISORS),
    *(message._replace(system="firmware") for message in _FIRMWARE),
)
