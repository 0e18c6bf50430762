"""Messages of Linux about remapping units, their faults, caches and queues (dmar.c, iommu.c)."""

from __future__ import annotations

from vtd.logs.catalogue.linux_table import FIRMWARE
from vtd.logs.message import normal, notice, problem

_MEMORY = "memory ran out while remapping was set up; it stays off"
_FREE_MEMORY = "memory of the machine; crash kernels: crashkernel="

QUEUE_ERROR = problem(
    "2.6.32-",
    r"Invalidation Queue Error: Reason|Invalidation Time-?out Error: SID|"
    r"Invalidation Completion Error: SID|QI (?:HEAD|PRIOR): |VT-d detected",
    "the unit stopped at an invalidation: a bad descriptor, or a device that did not answer for "
    "its translation cache (ATS)",
    "the device; lspci -vvv, capability ATS; whether it hangs or was removed",
)
FAULT_STATUS = normal(
    "2.6.32-", r"handling fault status reg", "the unit reports faults; bits of FSTS_REG"
)
FEATURE = notice(
    "6.1-6.12",
    r"IOMMU feature \w+ inconsistent",
    "units differ in a feature; each is used with what it has",
    "CAP and ECAP of each unit in the lines with reg_base_addr: vtd caps",
)

MESSAGES = (
    problem("", r"cap f{16} ecap f{16}",
            "unit unreachable: its registers read as all ones, so no hardware answers at the base "
            "(rule DMAR-K08)", "firmware setup: VT-d; " + FIRMWARE),
    normal("2.6.24-", r"reg_base_addr .* cap .* ecap|IOMMU [0-9a-f]+: ver \d+:\d+ cap",
           "a unit answers; its registers (vtd caps decodes them)"),
    problem("5.4-", r"No supported address widths",
            "the unit has no width of page tables that it supports (CAP.SAGAW), so its devices are "
            "not translated", "CAP of the unit: vtd caps; " + FIRMWARE),
    problem("2.6.32-", r"Cannot get a valid (?:max )?agaw",
            "the unit has no width of page tables that Linux can use (CAP.SAGAW); it is left out",
            "CAP of the unit: vtd caps; " + FIRMWARE),
    problem("2.6.24-",
            r"[Ff]ailed to map dmar|(?:DMAR|IOMMU): [Cc]an't (?:reserve memory|map the region)",
            "the registers of a unit can't be used, for instance because something else uses the "
            "addresses or two units overlap (rule DMAR-U07)", FIRMWARE),
    problem("3.6-", r"Failed to allocate seq_id|[Ee]xceeded \d+ IOMMUs",
            "the machine has more units than this kernel can use", "kernel version and options"),
    problem("2.6.24-", r"[Aa]llocating (?:global iommu|domain id|domain) array failed|"
            r"[Aa]llocat(?:e|ing) root entry.* failed|"
            r"Couldn't create (?:iommu_domain|devinfo|iova|magazine) cache|"
            r"Failed to initialize iommu memory",
            _MEMORY, _FREE_MEMORY),
    problem("2.6.24-", r"DMAR hardware is malfunctioning",
            "a unit did not finish a command in time",
            "power management of the device behind, firmware updates"),
    problem("2.6.24-", r"DMAR: Initialization failed|IOMMU: dmar init failed",
            "setting remapping up failed; it stays off", "earlier lines tell why"),
    problem("2.6.32-", r"IOMMU setup failed, DMAR can not resume",
            "after resume the units could not be set up again; DMA may go astray",
            "firmware and kernel updates"),
    problem("2.6.32-", r"tboot: Failed to (?:initialize|reserve)|VT-d is required for a TXT",
            "a measured launch (TXT) needs remapping, which could not be set up; the kernel stops",
            "earlier lines tell why; " + FIRMWARE),
    problem("2.6.24-",
            r"[Ff]lush IOTLB failed|Unexpected (?:context-cache|iotlb) invalidation type",
            "a unit did not carry an invalidation out as asked",
            "kernel and firmware updates"),
    problem("5.10-6.12", r"Invalid input npages|Invalidate non-aligned address|"
            r"Invalid cache type and granu|User address not aligned|"
            r"Unsupported IOMMU invalidation type|Passdown device IOTLB flush w/o ATS",
            "the kernel, or a guest through it, asked for an invalidation that can't be",
            "kernel version"),
    QUEUE_ERROR,
    normal("6.1-", r"Invalidation .*Error \((?:IQE|ITE|ICE)\) cleared",
           "the kernel cleared the error, and the queue goes on"),
    FAULT_STATUS,
    notice("", r"(?:dmar_fault|iommu\w*|DMAR).*callbacks suppressed|dmar_fault: .*suppressed",
           "more faults happened than the log shows: lines were left out"),
    problem("2.6.24-",
            r"failed to enable fault, ?interrupt|(?:DMAR|IOMMU): [Nn]o free (?:IRQ )?vectors|"
            r"(?:DMAR|IOMMU): [Cc]an't request irq",
            "the unit can't report faults by interrupt, so faults stay unseen",
            "earlier lines; kernel version"),
    normal("2.6.32-",
           r"[Uu]sing (?:Queued|Register based) ?invalidation|using (?:Queued|Register) ",
           "how caches are invalidated"),
    normal("2.6.32-", r"batched IOTLB flush|IOMMU batching disallowed",
           "unmapped pages are invalidated at once: safer and slower"),
    notice("4.4-", r"enabled for dmar\d+ but we are not in kdump mode",
           "remapping was on already when the kernel started (firmware, kexec); Linux starts anew"),
    notice("4.4-", r"Translation already enabled - trying to copy",
           "a kdump kernel finds remapping on and takes over the tables of the kernel before it"),
    problem("4.4-", r"Failed to copy (?:translation tables|context table|IR table)",
            "a kdump kernel could not take over the tables of the kernel before it; devices still "
            "running may fault", "kernel versions of both kernels"),
    notice("4.4-", r"Copied (?:translation tables|IR table)",
           "a kdump or kexec kernel took over the tables of the kernel before it"),
    notice("4.4-6.12", r"Doesn't support (?:hardware pass through|snooping|large page)",
           "the unit lacks a feature (ECAP.PT, SC or CAP.SLLPS); Linux does without it"),
    FEATURE,
    notice("6.3-", r"Cannot alloc PMU for iommu|Cannot find the assigned event for counter|"
           r"number of IOMMU counters .* clipping|PMU counter capability inconsistent|"
           r"Failed to register PMU for iommu",
           "performance counters of the unit are not, or not all, usable; translation is not "
           "concerned"),
    normal("2.6.24-", r"Number of Domains support|(?:TLB|tlb|Tlb) flush request|"
           r"[Hh]ardware doesn't support agaw",
           "a message for kernel developers (debugging is on)"),
    normal("2.6.32-", r"Intel-IOMMU: enabled|IOMMU enabled",
           "DMA remapping was asked for on the command line or by default; whether it works, later "
           "lines tell"),
    notice("2.6.24-", r"Intel-IOMMU: disabled|DMAR: IOMMU disabled",
           "DMA remapping is off: asked for on the command line or by default (intel_iommu=)"),
    notice("2.6.24-", r"[Dd]isable (?:GFX|integrated GPU) device mapping",
           "the graphics device is not translated: asked for on the command line (igfx_off)"),
    normal("2.6.24-", r"Forcing DAC for PCI devices|[Dd]isable supported super page|"
           r"[Ss]calable mode (?:supported|is disallowed)|Enable scalable mode|"
           r"disable extended context table support|intel_iommu=\w+ deprecated",
           "an option of the kernel command line"),
    notice("4.4-4.4", r"enable pre-production PASID support",
           "an option of the kernel command line (pasid28), for processors with an early PASID "
           "capability"),
    notice("6.1-",
           r"Unknown option - '", "an option of intel_iommu= that this kernel does not know"),
    notice("5.4-", r"not forcing on after tboot|No bounce buffer\. This could expose",
           "an option of the command line weakens protection",
           "the options intel_iommu= of the command line"),
    notice("6.1-", r"Forcing Intel-IOMMU to enabled",
           "remapping is on although it was not asked for: a measured launch (TXT) needs it"),
    notice("5.4-", r"force enabled due to platform opt in",
           "the table sets DMA_CTRL_PLATFORM_OPT_IN, so remapping is on for untrusted devices"),
    normal("5.10-", r"Skip IOMMU disabling for graphics",
           "the workaround for graphics of some chipsets is not needed"),
    notice("5.4-", r"Skipping IOMMU quirk for dev|check with your BIOS/Platform vendor about this",
           "an untrusted (external) device shows the identity of a chipset device; its workaround "
           "is not applied", "what is plugged into external ports"),
    notice("2.6.32-", r"Disabling IOMMU for graphics|BIOS has allocated no shadow GTT|"
           r"Forcing write-buffer flush|failed to run vt-d quirk",
           "Linux works around a known fault of this chipset"),
    normal("2.6.24-",
           r"Intel\(R\) Virtualization Technology for Directed I/O", "remapping is in use"),
)  # fmt: skip
