"""What people report, in logs written for these tests: the answer that vtd explain has to give."""

from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from vtd.commands.explain import explain
from vtd.dmar.description import build

app = typer.Typer()
app.command()(explain)


class Report(NamedTuple):
    """A log, the exit code, words that the answer has and words that it must not have."""

    log: str
    code: int
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


REPORTS = {
    "chipset erratum": Report(
        "[    0.1] DMAR-IR: This system BIOS has enabled interrupt remapping\n"
        "               on a chipset that contains an erratum making that\n"
        "               feature unstable.  To maintain system stability\n"
        "               interrupt remapping is being disabled.  Please\n"
        "               contact your BIOS vendor for an update\n",
        1, ("problem  line 1:", "(5 lines)", "5520", "firmware updates"), ("unknown  ",),
    ),
    "features of units differ": Report(
        "DMAR: IOMMU feature pgsel_inv inconsistent\n"
        "pci 0000:00:02.0: DMAR: Skip IOMMU disabling for graphics\n",
        0, ("notice   line 1", "each is used with what it has", "normal   line 2"),
        ("does without",),
    ),
    "reserved region refused by an old kernel": Report(
        "[  1.1] vfio-pci 0000:0b:00.0: Device is ineligible for IOMMU domain attach due to "
        "platform RMRR requirement.  Contact your platform vendor.\n",
        1, ("problem  line 1", "0000:0b:00.0", "RMRR", "vtd dmar rmrr"), ("no line about",),
    ),
    "reserved region refused by a new kernel": Report(
        "[  1.1] vfio-pci 0000:0b:00.0: Firmware has requested this device have a 1:1 IOMMU "
        "mapping, rejecting configuring the device without a 1:1 mapping. Contact your vendor.\n",
        1, ("problem  line 1", "0000:0b:00.0", "vtd dmar rmrr"),
    ),
    "reserved region that can't be mapped": Report(
        "DMAR: Setting RMRR:\nDMAR: Mapping reserved region failed\n"
        "DMAR: Mapping reserved region failed\n"
        "DMAR: Failed to create 0-16MiB identity map - floppy might not work\n",
        1, ("problem  line 2", "(2 lines)", "malformed", "vtd dmar validate", "notice   line 4"),
    ),
    "table refused": Report(
        "Intel-IOMMU: enabled\ndmar: parse DMAR table failure.\n",
        1, ("problem  line 2", "stay off", "normal   line 1", "asked for"), ("unknown  ",),
    ),
    "old kernel": Report(
        "Aug 28 15:06:23 a kernel: Intel-IOMMU: enabled\n"
        "Aug 28 15:06:23 a kernel: dmar: IOMMU 0: reg_base_addr fbffe000 ver 1:0 cap c90780106f0462"
        " ecap f020fe\n"
        "Aug 28 15:06:23 a kernel: IOMMU 0xfbffe000: using Queued invalidation\n"
        "Aug 28 15:06:23 a kernel: IOMMU: hardware identity mapping for device 0000:00:00.0\n"
        "Aug 28 15:06:23 a kernel: IOMMU: Setting RMRR:\n"
        "Aug 28 15:06:23 a kernel: IOMMU: Setting identity map for device 0000:00:1d.0 "
        "[0xbf7ed000 - 0xbf7fffff]\n"
        "Aug 28 15:06:23 a kernel: IOMMU: Setting identity map for device 0000:00:1d.7 "
        "[0xbf7fc000 - 0xbf7fdfff]\n"
        "Aug 28 15:06:23 a kernel: PCI-DMA: Intel(R) Virtualization Technology for Directed I/O\n",
        0, ("0 problem", "0 unknown", "remapping is in use", "one to one", "0000:00:1d.0",
            "line 7: IOMMU: Setting identity map for device 0000:00:1d.7"), ("unknown  ",),
    ),
    "time-out without a source-id": Report(
        "DMAR: VT-d detected Invalidation Time-out Error: SID 0\n"
        "DMAR: QI HEAD: Invalidation Wait qw0 = 0x200000025, qw1 = 0x1000e1ac\n"
        "DMAR: QI PRIOR: Device-TLB Invalidation qw0 = 0x5300530000000003, qw1 = 0x7ffffffff001\n"
        "DMAR: Invalidation Time-out Error (ITE) cleared\n",
        1, ("the device is 0000:53:00.0", "lspci -vvv -s 0000:53:00.0"), ("unknown  ", "00:00.0"),
    ),
    "no PASID, no process": Report(
        "DMAR: [DMA Read NO_PASID] Request device [00:0d.2] fault addr 0x1000 "
        "[fault reason 0x51] x\n"
        "DMAR: Dump dmar1 table entries for IOVA 0x1000\n"
        "DMAR: pasid dir entry: 0x0000000101b4e001\n"
        "DMAR: pasid table entry[0]: 0x0000000000000109\n",
        1, ("RID_PASID", "the dump contradicts it", "missing flush"), ("process", "never bound"),
    ),
    "Xen": Report(
        "(XEN)  0000000000100000 - 0000000080000000 (usable)\n"
        '(XEN) [VT-D]  RMRR address range 7a000000..7a00ffff not in reserved memory; need "x"?\n'
        "(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 7a001000, "
        "iommu reg = ffff82c00021d000\n"
        "(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set\n"
        "(XEN) [VT-D]INTR-REMAP: Request device [0000:f0:1f.0] fault index 0\n"
        "(XEN) [VT-D]INTR-REMAP: reason 22 - Present field in the IRTE entry is clear\n",
        1, ("reason: 0x06", "reason: 0x22", "inside the RMRR 0x7a000000-0x7a00ffff",
            "problem  line 2", "printed by: Xen", "DMAR-K01"), ("reason: 0x16",),
    ),
    "seL4": Report(
        "IOMMU: DMA write page fault from 0xa0 (bus: 0x0/dev: 0x14/fun: 0x0) on address "
        "0x0:dc2f9000 with reason code 0x5\n",
        1, ("0000:00:14.0: DMA write blocked once", "0xdc2f9000", "0x05 no write permission"),
    ),
    "quoted and wrapped": Report(
        ">> [    0.5] DMAR: [DMA Read NO_PASID] Request device [00:0d.2] fault\n"
        ">> addr 0x1026a4000 [fault reason 0x51] SM: Present bit in Directory Entry is\n>> clear\n",
        1, ("0000:00:0d.2: DMA read", "0x1026a4000", "0x51"), ("unknown  ", "missing"),
    ),
    "numbers replaced by the one who asks": Report(
        "DMAR: [DMA Write] Request Device [  :  :  .  ] fault addr\n"
        "DMAR: [fault reason 05] PTE Write access is not set\n"
        "DMAR: [DMA Read] Request device [06:00.0] fault addr ffxxxxxx [fault reason 06] y\n",
        1, ("unknown device: DMA write", "the device and the address", "0x05 no write permission",
            "0000:06:00.0: DMA read", "does not tell the address", "0x06 no read"),
        ("unknown  ", "0x0-0xfff", "null pointer"),
    ),
    "group not viable": Report(
        "qemu: -device vfio-pci,host=1: vfio 0000:c6:00.0: group 10 is not viable\n"
        "Please ensure all devices within the iommu_group are bound to their vfio bus driver.\n",
        1, ("problem  line 1", "(2 lines)", "vtd groups"), ("unknown  ",),
    ),
    "virt-host-validate": Report(
        "  QEMU: Checking if IOMMU is enabled by kernel       : PASS\n"
        "  QEMU: Checking for device assignment IOMMU support : WARN (No ACPI DMAR table found)\n",
        1, ("problem  line 2", "no DMAR table", "normal   line 1"), ("unknown  ",),
    ),
    "patched kernel": Report(
        "DMAR: Intel-IOMMU: assuming all RMRRs are relaxable. This can lead to instability\n",
        0, ("notice   line 1", "vtd dmar rmrr"),
    ),
    "x2APIC without remapping": Report(
        "x2apic: IRQ remapping doesn't support X2APIC mode\n", 0, ("or not at all",),
        ("interrupts are remapped in xAPIC mode: ",),
    ),
    "Xen without an IOMMU": Report(
        "(XEN) Not enabling x2APIC: depends on iommu_supports_eim.\n"
        "(XEN) IVHD Error: no information for IO-APIC 0x82\n"
        "(XEN) I/O virtualisation disabled\n"
        "libxl__device_pci_add: PCI device 0000:00:19.0 cannot be assigned - no IOMMU?\n",
        1, ("Xen uses no IOMMU, so no device", "Xen's tools refused", "3 problem, 1 notice"),
        ("unknown  ",),
    ),
    "Genode lost faults": Report(
        "[init -> platform_drv] Error: Fault recording overflow\n"
        "[init -> platform_drv] Error: Faults records for drhd1\n"
        "[init -> platform_drv] Warning: Performed IOTLB invalidation with different granularity\n",
        0, ("some were lost", "1 notice, 2 normal, 0 unknown"),
    ),
    "SVA refused": Report(
        "idxd 0000:f2:01.0: Unable to turn on SVA feature.\n", 0, ("notice   line 1", "PASIDs"),
    ),
    "times since the last line": Report(
        "[  +0.000011] DMAR: [DMA Read] Request device [00:02.0] fault addr 1000\n"
        "[<    0.000021>] DMAR: [fault reason 06] PTE Read access is not set\n",
        1, ("0000:00:02.0: DMA read", "0x06 no read"), ("missing", "+0.0", "0.000021"),
    ),
    "DPDK without a group": Report(
        "EAL: cannot add vfio group to container, error 22 (Invalid argument)\n",
        1, ("problem  line 1", "refused to translate"),
    ),
    "OpenBSD": Report(
        "acpi0: tables DSDT FACP APIC DMAR\nacpidmar0 at acpi0: DRHD 0xfed90000 haw 39\n"
        "acpidmar0: ver 1:0 cap d2008c40660462 ecap f050da\n",
        0, ("3 normal, 0 unknown",),
    ),
    "OpenBSD ignores a region": Report(
        "RMRR: segment:0000 range:00000000bf458000-00000000bf45700f\n  buggy BIOS\n",
        1, ("problem  line 2", "DMAR-R01", "normal   line 1", "0 unknown"),
    ),
    "Xen could not map": Report(
        "(XEN) [VT-D]d1:PCI: map 0000:00:1f.2\n(XEN) [VT-D]d1:PCI: map 0000:00:1f.2 failed\n",
        1, ("problem  line 2", "normal   line 1"),
    ),
    "ids of I/O APICs disagree": Report(
        "DMAR-IR: IOAPIC id 2 under DRHD base  0xfed91000 IOMMU 1\n"
        "DMAR-IR: [Firmware Bug]: ioapic 0 has no mapping iommu, interrupt remapping will be off\n",
        1, ("the machine has I/O APIC 0, the table lists 2", "MADT and DMAR disagree"),
    ),
    "half of a fault": Report(
        "DMAR:[DMA Write] Request device [00:01.0] fault addr 1000 \n",
        1, ("missing: the log does not tell the reason",),
    ),
    "only unknown lines": Report(
        "DMAR: flux compensator\n", 1, ("unknown  line 1: DMAR: flux compensator", "1 unknown"),
    ),
    "I/O APIC without a table": Report(
        "DMAR-IR: IOAPIC id 2 under DRHD base  0xfed91000 IOMMU 1\n"
        "DMAR: INTR-REMAP: Request device [[f0:1f.0] fault index 0\n"
        "       INTR-REMAP:[fault reason 37] Blocked a compatibility format interrupt request\n",
        1, ("probably an I/O APIC or HPET; the log has I/O APIC 2 under the unit 0xfed91000",),
        ("made this id up",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_reports_are_answered(name: str) -> None:
    report = REPORTS[name]
    result = CliRunner().invoke(app, [], input=report.log)
    assert result.exit_code == report.code, result.output
    for words in report.has:
        assert words in result.stdout
    for words in report.lacks:
        assert words not in result.stdout


IO_APIC = """
[[structure]]
type = "DRHD"
flags = ["include_pci_all"]
register_base = 0xfed91000
[[structure.scope]]
type = "ioapic"
enumeration_id = 2
start_bus = 0xf0
path = ["1f.0"]
[[structure]]
type = "RMRR"
base = 0x7a000000
limit = 0x7a00ffff
[[structure.scope]]
type = "pci_endpoint"
path = ["1c.0", "00.0"]
"""
UNPRIVILEGED = """\
00:01.0 PCI bridge: Root Port
\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0
\tCapabilities: <access denied>
01:00.0 Ethernet controller: Card
\tCapabilities: <access denied>
"""


def run(tmp_path: Path, log: str, *arguments: str) -> str:
    (tmp_path / "dmar").write_bytes(build(IO_APIC).pack())
    (tmp_path / "lspci").write_text(UNPRIVILEGED)
    (tmp_path / "map").write_text("7a000000-7a00ffff : Reserved\n")
    paths = [str(tmp_path / each) if (tmp_path / each).exists() else each for each in arguments]
    result = CliRunner().invoke(app, paths, input=log)
    assert result.exit_code == 1, result.output
    return result.stdout


def test_an_interrupt_of_the_io_apic_of_the_table(tmp_path: Path) -> None:
    log = "DMAR: [INTR-REMAP] Request device [f0:1f.0] fault index 0 [fault reason 37] x\n"
    output = run(tmp_path, log, "--dmar", "dmar", "--lspci", "lspci")
    assert "0000:f0:1f.0 (I/O APIC 2): interrupt blocked once" in output
    assert "source: the I/O APIC 2, listed under the unit 0xfed91000" in output
    assert "harmless once" in output
    assert "made this id up" not in output


def test_an_unprivileged_listing_gives_no_alias(tmp_path: Path) -> None:
    log = "DMAR: [DMA Write] Request device [00:01.0] fault addr 1000 [fault reason 05] x\n"
    output = run(tmp_path, log, "--lspci", "lspci")
    assert "alias: not known: the listing shows no capabilities (run lspci as root)" in output
    assert "carry this id" not in output


def test_a_bridge_that_may_have_made_the_id_up_is_named(tmp_path: Path) -> None:
    (tmp_path / "tree").write_text(
        "-[0000:00]-+-00.0  Host\n"
        "           \\-13.0-[01-02]----00.0-[02]--+-04.0  Acme SCSI\n"
        "                                        \\-05.0  Acme SCSI\n"
    )
    log = "DMAR: [DMA Read] Request device [02:00.0] fault addr 1000 [fault reason 06] text\n"
    said = run(tmp_path, log, "--lspci", "tree")
    assert "0000:01:00.0 may be a bridge to PCI" in said
    assert "requests of 0000:02:04.0, 0000:02:05.0" in said


def test_without_the_bus_tree_it_is_said_that_it_can_not_be_told(tmp_path: Path) -> None:
    log = "DMAR: [DMA Read] Request device [01:00.0] fault addr 7a000000 [fault reason 06] x\n"
    output = run(tmp_path, log, "--dmar", "dmar", "--memory-map", "map")
    assert "of a device that can't be told without the bus tree" in output
    assert "of another device" not in output
    assert "does not reserve" not in output
