"""The tables of messages: they cover Linux of every age, and say what the page says."""

import re
from collections import defaultdict

import pytest

from scripts.log_coverage import VERSIONS, Format, Outcome, formats, outcome, sample
from vtd.logs.catalogue import MESSAGES
from vtd.logs.causes import CAUSES, PASID_STRUCTURE_REASONS, cause_of
from vtd.logs.fault_forms import read_fault
from vtd.logs.log import CATALOGUE, read_log
from vtd.logs.message import Weight
from vtd.unit.requests.faults import FaultReason

MOST_UNKNOWN = 0.02


@pytest.fixture(scope="module")
def outcomes() -> list[tuple[Format, Outcome]]:
    return [(each, outcome(sample(each.text))) for each in formats()]


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_every_version_are_read(
    version: str, outcomes: list[tuple[Format, Outcome]]
) -> None:
    results = [result for each, result in outcomes if version in each.versions]
    assert len(results) > 40
    assert Outcome.DROPPED not in results
    assert results.count(Outcome.UNKNOWN) < MOST_UNKNOWN * len(results)


def test_the_forms_of_faults_are_faults(outcomes: list[tuple[Format, Outcome]]) -> None:
    assert {each.text for each, result in outcomes if result is Outcome.FAULT} == {
        each.text for each, _ in outcomes if "Request device" in each.text
    }


def test_versions_of_messages_are_those_of_the_formats() -> None:
    seen: dict[str, set[int]] = defaultdict(set)
    for each in formats():
        for line in sample(each.text):
            message = CATALOGUE.find(line) if read_fault(line, 1) is None else None
            if message is not None:
                seen[message.pattern] |= {VERSIONS.index(version) for version in each.versions}
    for message in MESSAGES:
        if message.system == "Linux" and message.since and message.pattern in seen:
            first, last = min(seen[message.pattern]), max(seen[message.pattern])
            until = "" if last == len(VERSIONS) - 1 else VERSIONS[last]
            assert (message.since, message.until) == (VERSIONS[first], until), message.pattern


def test_problems_say_what_to_look_at() -> None:
    for message in MESSAGES:
        assert message.meaning
        assert message.weight is not Weight.UNKNOWN
        assert bool(message.look_at) or message.weight is not Weight.PROBLEM
        re.compile(message.pattern)


def test_every_fault_reason_is_explained() -> None:
    assert set(CAUSES) == set(map(int, FaultReason))
    assert all(cause.where and cause.likely and cause.look_at for cause in CAUSES.values())


def test_without_pasid_no_process_is_blamed() -> None:
    for reason in PASID_STRUCTURE_REASONS:
        without, bound = cause_of(reason, None), cause_of(reason, 5)
        assert without is not None
        assert bound is not None
        assert "RID_PASID" in without.where
        assert not any("process" in text or "bound" in text for text in without.likely)
        assert bound == CAUSES[reason]


LINES = {
    "DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at address 0!": "DMAR-U01",
    "DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at address fed90000 returns all "
    "ones!": "DMAR-K08",
    "DMAR: [Firmware Bug]: No firmware reserved region can cover this RMRR [0x0000-0x0fff], "
    "contact BIOS vendor for fixes": "DMAR-K01",
    "DMAR: [Firmware Bug]: Your BIOS is broken; bad RMRR [0x00000000-0x00000000]": "DMAR-R01",
    "DMAR: ANDD object name is not NUL-terminated": "DMAR-N01",
    "DMAR: No IOMMU scope found for ANDD enumeration ID 1 (\\_SB.PCI0.I2C0)": "DMAR-N05",
    "DMAR-IR: x2apic is disabled because BIOS sets x2apic opt out bit.": "X2APIC_OPT_OUT",
    "x2apic: IRQ remapping doesn't support X2APIC mode": "xAPIC mode",
    "ioapic 8 has no mapping iommu, interrupt remapping will be disabled": "DMAR-U13",
    "dmar_fault: 8 callbacks suppressed": "lines were left out",
    "DMAR: VT-d detected Invalidation Time-out Error: SID 0": "an invalidation timed out",
    "DMAR: Host address width 39": "address bits",
    "vfio-pci 0000:0b:00.0: Device is ineligible for IOMMU domain attach due to platform RMRR "
    "requirement.  Contact your platform vendor.": "RMRR",
    "vfio-pci 0000:0b:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting "
    "configuring the device without a 1:1 mapping. Contact your platform vendor.": "RMRR",
    "dmar: parse DMAR table failure.": "refused the table",
    "Intel-IOMMU: enabled": "asked for",
    "IOMMU: Setting identity map for device 0000:00:1d.0 [0xbf7ed000 - 0xbf7fffff]": "one to one",
    "PCI-DMA: Intel(R) Virtualization Technology for Directed I/O": "in use",
    "DMAR: Translation already enabled - trying to copy translation structures": "kdump",
    '(XEN) [VT-D]  RMRR address range 8d800000..8fffffff not in reserved memory; need "x"?': "K01",
    "DMAR0: Invalidation timed out": "did not answer",
    "vfio 0000:02:00.0: group 16 is not viable": "isolation group",
    "AMD-Vi: Event logged [IO_PAGE_FAULT device=0b:00.0 domain=0x000f]": "AMD",
    "Enabled x2apic and interrupt-remapping": "interrupt remapping is on",
    "iommu: Failed to allocate default IOMMU domain of type 4; falling back to IOMMU_DOMAIN_DMA": (
        "one kind of domain"
    ),
    "Arg1: 0000000000000026, IOMMU detected DMA violation.": "a unit blocked DMA",
    "The bugcheck was: 0x000000e6 (0x0000000000000026, 0xffffa08d3f0a8060, 0x00000000fed20000, "
    "0x0000000000000006).": "a unit blocked DMA",
    "The bugcheck was: 0x000000e6 (0x0000000000000007, 0xffffa08d3f0a8060, 0x0, 0x0).": (
        "all others are findings of Driver Verifier"
    ),
    "DRIVER_VERIFIER_DMA_VIOLATION (e6)": "parameter 1 tells which",
    "ILLEGAL_IOMMU_PAGE_FAULT (158)": "not in use",
    "HAL_ILLEGAL_IOMMU_PAGE_FAULT (159)": "was being freed",
    "The bugcheck was: 0x00000159 (0x3000, 0x0, 0x12, 0x0).": "was being freed",
    "HAL_IOMMU_INTERNAL_ERROR (1d9)": "unmap in",
    "Arg1: 0000000000000026, IOMMU erkannte DMA-Verletzung.": "a unit blocked DMA",
    "Arg1: 0000000000000026 hat IOMMU einen DMA-Verstoß erkannt.": "a unit blocked DMA",
    "Arg1: 0000000000000026、IOMMU によって DMA 違反が検出されました。": "a unit blocked DMA",
    "[1][cpu=0][sev=2]:Assertion failed in file boot/dmar_parse.c,line 91 : fatal error": "ACRN",
    "[1us][cpu=0][(null)][sev=2][seq=3]:Assertion failed in file x86/vtd.c,line 9 : fatal error": (
        "command in time"
    ),
    "[1us][cpu=0][vm0][sev=2][seq=3]:no dmar unit found for device:0x1:0.0": "no unit of the table",
    "[1us][cpu=0][vm0][sev=2][seq=3]:dmar doesn't support addr width 48": "address width",
    "[1us][cpu=0][vm0][sev=2][seq=3]:dmar_register_hrhd: dmar uint doesn't support 1GB page!": (
        "page size"
    ),
    "[1us][cpu=0][vm0][sev=2][seq=3]:iommu: already present for 0:2.0": "still in a domain",
    "[1us][cpu=0][vm0][sev=2][seq=3]:iommu: fail to invalidate IOTLB!, 0x0": "old translations",
    "[1us][cpu=0][vm0][sev=6][seq=3]:iommu: ignore dmar_uint @0xfed90000": "leaves out",
    "[1us][cpu=0][vm0][sev=6][seq=3]:dmar_fault_handler: record[0] @0x200:  0x9c000, 0xc0": "reads",
    "qemu: -device vfio-pci,host=0b:00.0: vfio 0000:0b:00.0: no iommu_group found: No such file": (
        "uses no IOMMU"
    ),
    "WARNING: CPU: 0 PID: 0 at drivers/iommu/dmar.c:848 warn_invalid_dmar.part.10+0x5c/0x70": (
        "isn't there"
    ),
    "ApiError(VmBoot(DeviceManager(VfioDmaMap(IommuDmaMap(Error(14))))))": "can't pin",
    "ApiError(VmBoot(DeviceManager(VfioDmaMap(IommuDmaMap(Error(22))))))": "refused to translate",
    "error: 500: VfioMapRegion(DmaMap(IommuDmaMap(Error(17)))): unknown": "mapped there already",
    "Failed to DMA map: failed to map an IOVA range to the IOAS: Bad (os error 14)": "can't pin",
    "✘ IOMMU:                         Not found": "uses no IOMMU",
    "✔ IOMMU:                         Enabled": "looked for",
    "✘ Pre-boot DMA protection:       Disabled": "DMA_CTRL_PLATFORM_OPT_IN",
    "(XEN) iommu 1: nr_pt_levels = 4.": "command V",
    "(XEN)   Interrupt Remapping: supported and enabled.": "command V",
    "[ERROR]  VT-d PMR HOB not found, not enabling DMA protection": "coreboot",
    "[init -> drivers -> acpi_drv] Found DMAR": "Genode",
    "dmar0: Fault Overflow": "some were lost",
    "(XEN) BIOS did not enable IGD for VT properly, crash Xen for security purpose": "graphics",
    "EAL: 0000:0b:00.0 VFIO group is not viable! Not all devices in IOMMU group bound to VFIO": (
        "isolation group"
    ),
    "EAL: Cannot set up DMA remapping, error 12 (Cannot allocate memory)": "lock",
    "EAL:   cannot set up DMA remapping, error 14 (Bad address)": "refused to translate",
    "EAL:   0000:81:00.0 failed to select IOMMU type": "refused to translate",
    "TASK ERROR: cannot prepare PCI pass-through, IOMMU not present": "no IOMMU",
    "unsupported configuration: host doesn't support passthrough of host PCI devices": "no IOMMU",
    "cpu0:33)WARNING: IOMMUIntel: 2777: IOMMU context entry dump for 0000:06:00.0 Ctx-Hi = 0x0": (
        "was blocked"
    ),
    "qemu: vfio_container_dma_map(0x55, 0x380000000000, 0x1000, 0x7f) = -22 (Invalid argument)": (
        "above the width"
    ),
    "qemu: vfio_dma_map(0x55e0, 0xc0000, 0x18000, 0x7f00) = -12 (Cannot allocate memory)": "lock",
    "qemu: vfio_container_dma_map(0x55e0, 0x8000000000, 0x10000, 0xff) = -14 (Bad address)": (
        "refused to translate"
    ),
    " qi_flush_dev_iotlb+0xb1/0xd0": "does not answer",
    "RIP: 0010:qi_submit_sync+0x2c0/0x490": "does not answer",
    "RIP: 0010:__domain_mapping drivers/iommu/intel/iommu.c:1679 [inline]": "a trace",
    "2026-11-29T11:15:54.283036Z vtd_switch_address_space Device 00:00.0 switching address space "
    "(iommu enabled=0)": "vtd audit",
    "77@1600000000.000001:vtd_iotlb_page_hit IOTLB page hit sid 0x28 iova 0xfffff000": "vtd audit",
    "vtd_warn_ir_vector interrupt remapping: irte[0] vector 33 mismatch": "should not do",
    "idxd 0000:6a:01.0: No in-kernel DMA with PASID.": "PASIDs",
    "idxd 0000:6a:01.0: failed to enable SVA feature, turn off SVA mode": "PASIDs",
    "i915 0000:00:02.0: [drm] Disabling ppGTT for VT-d support": "works around",
    "i915 0000:00:02.0: [drm] Applying Ironlake quirks for intel_iommu": "works around",
    "i915 0000:00:02.0: [drm] Flushing DMA requests before IOMMU unmaps; performance may": (
        "works around"
    ),
    "xe 0000:00:02.0: [drm] VT-d enabled": "works around",
    "nouveau 0000:01:00.0: imem: IOMMU mapping failure: -12": "can't map",
    "nouveau 0000:01:00.0: imem: IOMMU space is full!": "can't map",
    "vfio-pci 0000:01:00.0: vfio-noiommu device opened by user (qemu:77)": "without any",
    "vfio-pci 0000:01:00.0: Adding kernel taint for vfio-noiommu group on device": "without any",
    "Failed to allocate domain, device is not IOMMU cache coherent capable": "coherent",
    "nvme 0000:01:00.0: failed to stop IOMMU for a PCI reset: -16": "not reset",
    "dmar3: programming irte[1] rid 0xf0ff high 0x4f0ff low 0x390001": "FreeBSD",
    "em0: dmar3 pci0:1:0:0 rid 100 domain 2 mgaw 48 agaw 48 re-mapped": "FreeBSD",
    "dmar3 ctx pci0:29:0 RMRR [0x7b7d5000, 0x7b7e4fff]": "FreeBSD",
    "pci0:29:0 BIOS bug: dmar3 RMRR region (7b7d5000, 7b7d5000) corrected": "DMAR-R01",
    "dmar_identify: corrupted DMAR table, l 0": "malformed",
    "dmar1: enabling translation failed, error 5": "not translated",
    "dmar1: unable to alloc register window at 0xfed91000: error 6": "DMAR-U07",
    "dmar0 no dev found for RMRR [0x7b7d5000, 0x7b7e4fff] rid 0xe8 scope path [0, (29, 0)]": (
        "not there"
    ),
    "pci 0000:01:00.1: DMAR: Software identity mapping": "one to one",
    "(XEN) [VT-D]dmar.c:615:   RMRR region: base_addr 7d000000 end_addr 7f7fffff": "Xen found",
    "(XEN) [VT-D]dmar.c:596:   Ignore the RMRR (78907000, 78986fff) due to": "not there",
    "alloc irq_2_iommu on node -1": "interrupt",
    "panic: vtd_add_device: device 100 is not in scope for any DMA remapping unit": "no unit",
    "panic: vtd_add_device: device 100 is already owned by domain 1": "domain named",
    "panic: vtd_init: invalid caching mode": "a virtual machine emulates",
    "panic: vtd_create_domain: no dma remapping hardware available": "there is no unit",
    "acpidmar0 at acpi0: hardware width: 39, intr_remap:1 x2apic_opt_out:0": "OpenBSD found",
    "acpidmar0 at acpi0: hardware width: 39, intr_remap:1 x2apic_opt_out:1": "X2APIC_OPT_OUT",
    "DRHD: segment:0000 base:00000000fed91000 flags:01": "OpenBSD found",
    "RMRR: segment:0000 range:000000004b000000-000000004f7fffff": "OpenBSD found",
    "iommu init failed": "OpenBSD could not",
    "0:31:2: no iommu found": "OpenBSD could not",
    "no domain: 0:31:2": "OpenBSD could not",
    "did:1.ffff map ident: 0000000047800000 0000000050000000": "OpenBSD found",
    "dmar: 0000:00:1f.0 mapping ISA": "OpenBSD found",
    "The chipset on the system does not do DMA remapping, without which SR-IOV cannot be "
    "supported.": "no unit that remaps",
    "Ensure that the system has chipset support for SR-IOV and that I/O virtualization is enabled "
    "in the BIOS.": "no unit that remaps",
    "{To use SR-IOV on this computer, the BIOS must be updated because it contains incorrect "
    "information describing the hardware capabilities.": "tables",
    "SR-IOV cannot be used on this system as it has been configured to disable the use of I/O "
    "remapping hardware.": "boot configuration",
    "This system has a security vulnerability in the system I/O remapping hardware.": "errors",
    "SR-IOV cannot be used on this system as the PCI Express hardware does not support Access "
    "Control Services (ACS) at any root port.": "among them",
    "qemu-system-x86_64: We need to set caching-mode=on for intel-iommu to enable device "
    "assignment.": "as it is configured",
    "qemu-system-x86_64: -device vfio-pci: device 01.00.0 requires caching mode": (
        "as it is configured"
    ),
    "qemu-system-x86_64: -device intel-iommu: Intel Interrupt Remapping cannot work with "
    "kernel-irqchip=on, please use 'split|off'.": "can't remap interrupts",
    "qemu-system-x86_64: eim=on requires support on the KVM side(X2APIC_API, first shipped in "
    "v4.7)": "can't remap interrupts",
    "qemu-system-x86_64: Supported values for aw-bits are: 39, 48": "address width",
    "error: unsupported configuration: IOMMU interrupt remapping requires split I/O APIC (ioapic "
    "driver='qemu')": "can't remap interrupts",
    "EAL: Expecting 'PA' IOVA mode but current mode is 'VA', not initializing": "of a kind",
    "EAL: FATAL: Cannot use IOVA as 'VA' since physical addresses are not available": "of a kind",
    "EAL: wrong dma mask size 48 (Max: 39)": "above what a device",
    "EAL: alloc_pages_on_heap(): couldn't allocate memory due to IOVA exceeding limits of current "
    "DMA mask": "above what a device",
    "EAL:   IOMMU type 1 (Type 1) is supported": "DPDK looks",
    "EAL:   IOMMU type 7 (sPAPR) is not supported": "DPDK looks",
    "[DEBUG]  ACPI:    * DMAR": "coreboot",
    "Kernel DMA Protection\tOff": "DMA_CTRL_PLATFORM_OPT_IN",
    "Kernel DMA Protection\tOn": "keeps devices",
    "Kernel-DMA-Schutz\tAus": "DMA_CTRL_PLATFORM_OPT_IN",
    "Kernel-DMA-Schutz\tEin": "keeps devices",
    "Защита DMA ядра\tВыкл": "DMA_CTRL_PLATFORM_OPT_IN",  # noqa: RUF001
    "カーネル DMA 保護\tオフ": "DMA_CTRL_PLATFORM_OPT_IN",
    "WARNING: CPU: 0 PID: 1 at drivers/iommu/intel-iommu.c:602 domain_get_iommu+0x45/0x50": "a bug",
    "WARNING: at drivers/pci/intel-iommu.c:3911 quirk_ioat_snb+0x8e/0xf4()": "tells why",
    "WARNING: CPU: 0 PID: 1 at drivers/iommu/intel_irq_remapping.c:506 intel_enable+0x1/0x2": (
        "tells why"
    ),
    "i915 0000:00:02.0: [drm] Disabling framebuffer compression (FBC) to prevent screen flicker "
    "with VT-d enabled": "works around",
    "fatal; pci passthrough not supported on this system (no VT-d or amdvi)": "vm-bhyve",
    "  DMAR: Length=120, Revision=1, Checksum=30,": "FreeBSD",
    "IOMMU 0x0: 8-bit domain IDs supported": "seL4",
    "IOMMU: Using 4 page-table levels (max. supported: 4)": "seL4",
    "IOMMU: Create VTD context table for PCI bus 0x0 (pptr=0xffffff8215c09000)": "seL4",
    "ACPI: IOMMU host address width: 39": "seL4",
    "ACPI: too many IOMMUs, disabling IOMMU support": "leaves VT-d off",
    "EAL: Unexpected size 0 of DMA remapping cleared instead of 2097152": "could not undo",
    "EAL:   0000:08:00.0 DMA remapping failed, error 22 (Invalid argument)": "refused to translate",
    "handler PCIDeviceClaimReconcile: missing group for address: 0000:03:00.0": "uses no IOMMU",
    "denied the request: pcidevice main11-000001000 has no iommuGroup available": "uses no IOMMU",
    "vfio 0000:3d:00.0: Failed to set vIOMMU: aw-bits 48 > host aw-bits 39": "more address bits",
    "vfio 0000:02:00.0: Failed to set vIOMMU: Need IOMMUFD backend when x-flts=on": "first-stage",
    "Failed to set vIOMMU: Host device downstream to a PCI bridge is unsupported when x-flts=on": (
        "first-stage"
    ),
    "Failed to set vIOMMU: Device assignment is not allowed without enabling caching-mode=on for "
    "Intel IOMMU.": "as it is configured",
    "vfio 0000:75:00.1: Failed to set vIOMMU: flux": "as the line says",
    "vfio: IOMMU_IOAS_MAP failed: Bad address, PCI BAR?": "between devices",
    "qemu-system-x86_64: vtd_irte_get: detected non-present IRTE (index=3, high=0x0, low=0x0)": (
        "refused an interrupt"
    ),
    "qemu-system-x86_64: vtd_interrupt_remap_msi: MSI address low 32 bit invalid: 0x0": (
        "refused an interrupt"
    ),
    "qemu-system-x86_64: vtd_process_wait_desc: invalid wait desc: hi=0, lo=5 (unknown type)": (
        "refused a descriptor"
    ),
    "qemu-system-x86_64: vtd_flux: invalid capacitor": "should not do",
    "memory.c: 801:_vfio_iommu_map_dma: *NOTICE*: Cannot set up DMA mapping, error 17, ignored": (
        "goes on"
    ),
    "vfio: 12: *ERROR*: Cannot set up DMA mapping, error 22 (Invalid argument)": "refused",
    "Cannot clear DMA mapping for IOVA 7f00 - it's not mapped": "could not undo",
    "DMAR: pkvm: IOMMU initialized!": "taken the units over",
    "DMAR: pkvm: pkvm_domain_map: domain map[iov_pfn: 0, pfn: 0, nr_pages: 4] failed (err=-22)": (
        "not all the host's"
    ),
    "[pkvm] pkvm_host_use_dma: invalid memory range [0x2a1b9c000, 0x2a1b9d000), state check": (
        "not all the host's"
    ),
    "DMAR: pkvm: iommu3: CAP.RWBF=1 is not supported!": "can't use a unit",
    "DMAR: pkvm: iommu3 ignored, but pKVM needs iommu to be enabled!": "can't use a unit",
    "DMAR: pkvm: pkvm_alloc_domain: flux for device[0:1f.3] (err=-1)": "could not do",
    "cat: /sys/firmware/acpi/tables/DMAR: No such file or directory": "no DMAR table",
    'access("/sys/firmware/acpi/tables/DMAR", F_OK) = -1 ENOENT (No such file)': "no DMAR table",
    "ls: cannot access '/sys/kernel/iommu_groups/*/devices/*': No such file or directory": (
        "no isolation groups"
    ),
    "qemu: vfio 0000:00:02.0: failed to open /dev/vfio/1: No such file or directory": (
        "bound to vfio-pci"
    ),
    "failed to open /dev/vfio/vfio container: No such file or directory (os error 2)": "modules",
    "vfio: error opening /dev/vfio/12: Permission denied": "may not open",
    "Could not open '/dev/vfio/1': Permission denied": "may not open",
    "failed to open /dev/vfio/17: Device or resource busy": "another program",
    "EAL: using IOMMU type 1 (Type 1)": "looks for what the kernel has",
    "VmBoot(DeviceManager(VfioDmaMap(DmaMap(IommuDmaMap(Error(12))))))": "lock that much",
    "failed to add guest memory map into iommu table: File exists (os error 17)": "already",
    "failed to add guest memory map into iommu table: Bad address (os error 14)": "can't pin",
    "failed to add guest memory map into iommu table: Cannot allocate memory (os error 12)": (
        "lock that much"
    ),
    "failed to add guest memory map into iommu table: flux (os error 1)": "refused",
    "failed to remove guest memory map from iommu table: Invalid argument (os error 22)": (
        "could not undo"
    ),
    "VfioCreate(GroupViable)": "others that still",
    "cloud-hypervisor: 1.2s: ERROR:pci: group is inviable": "others that still",
    "failed to add vfio group into vfio container: Invalid argument (os error 22)": "refused",
    "failed to set container's IOMMU driver type as VfioType1V2: flux (os error 1)": "refused",
    "cloud-hypervisor: 763.97s: ERROR:pci/src/vfio.rs:651 -- failed to remove all guest memory "
    "regions from iommu table": "could not undo",
    "QMP command failed: vfio 0000:01:00.1: group 1 used in multiple address spaces": "one address",
    "error: argument unsupported: VFIO device assignment is currently not supported on this": (
        "uses no IOMMU"
    ),
    "Warning: PCIe ACS overrides enabled; This may allow non-IOMMU protected peer-to-peer DMA": (
        "pcie_acs_override"
    ),
    "pcieport 0000:00:1c.0: Intel SPT PCH root port ACS workaround enabled": "of Intel's own",
    "qemu: vfio 0000:03:00.0: error getting device from group 17: No such device": "vfio-pci",
    "IOMMU virtualization is not allowed with VGPU. To power on": "ESXi",
    "0x00000000bdea8000 0x00000000bdeb6fff direct-relaxable": "RMRR",
    "iommu_groups/4/reserved_regions:0x000000007b000000 0x000000007f7fffff direct": "RMRR",
    "✘ IOMMU device protection disabled": "uses no IOMMU",
    "✔ IOMMU device protection enabled": "looked for",
    "(XEN) Interrupt remapping disabled": "interrupt remapping is off",
    "(XEN) d1: assign (0000:02:00.0) failed (-16)": "hand a device",
    "(XEN) d1: deassign (0000:02:00.0) failed (-22)": "take it back",
    "IOMMU group 13": "isolation group",
    "IOMMU Group 10 00:1f.0 ISA bridge [0601]: Intel Corporation": "isolation group",
    "0x453bc789bc08:[0x420019311797]VVTDLogDMARFault@vmkernel#nover+0x7b stack: 0x0": "ESXi",
}


@pytest.mark.parametrize("text", LINES)
def test_lines_have_a_meaning(text: str) -> None:
    (group,) = read_log([f"[    0.1] {text}"]).messages
    assert LINES[text] in (group.meaning or "")
    assert group.weight is not Weight.UNKNOWN
