"""Every form in which a system prints a fault gives the same fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf, SourceId
from vtd.logs.fault import FoldedFaults, RequestKind
from vtd.logs.fault_forms import FORMS, Role, read_fault
from vtd.logs.log import read_log

READ, WRITE, INTERRUPT = RequestKind.READ, RequestKind.WRITE, RequestKind.INTERRUPT
LINUX = [
    # 2.6.30 to 4.x: two lines, decimal reason
    "DMAR:[DMA Read] Request device [00:02.0] fault addr 9c000000 \n"
    "DMAR:[fault reason 12] non-zero reserved fields in PTE",
    "dmar: DMAR:[DMA Read] Request device [00:02.0] fault addr 9c000000 \n"
    "dmar: DMAR:[fault reason 12] non-zero reserved fields in PTE",
    # to 4.19
    "DMAR: [DMA Read] Request device [00:02.0] fault addr 9c000000 [fault reason 12] text",
    # 4.20 to 5.13
    "DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 9c000000 "
    "[fault reason 12] non-zero reserved fields in PTE",
    # 5.14, and from 5.15 on
    "DMAR: [DMA Read NO_PASID] Request device [0x00:0x02.0] fault addr 0x9c000000 "
    "[fault reason 0x0c] non-zero reserved fields in PTE",
    "DMAR: [DMA Read NO_PASID] Request device [00:02.0] fault addr 0x9c000000 "
    "[fault reason 0x0c] non-zero reserved fields in PTE",
    "DMAR: [DMA Read NO_PASID] Request device [0000:00:02.0] fault addr 0x9c000000 "
    "[fault reason 0x0c] non-zero reserved fields in PTE",
    # typed from a screen
    "DMAR: [DMA read NO PASID] Request device [00:02.0] fault addr 0x9c000000 "
    "[Fault reason 0x0C] non-zero reserved fields in PTE",
    "dmar: [dma read] request device [00:02.0] fault addr 9C000000\n"
    "dmar: [fault reason 12] non-zero reserved fields in pte",
]
PREFIXES = [
    "", "[    0.361089] ", "<3>[12345.678901] ", "Nov 24 14:00:01 host kernel: ",
    "Nov 24 14:00:01 host kernel: [   12.345678] ", "kernel: ", "2026-11-24T14:00:01+0100 host ",
    "kern  :err   : [    0.361089] ", "[    0.361089][    T0] ", "[Tue Nov 24 14:00:01 2026] ",
    "> ", ">> > [    0.361089] ", "    ", "\x1b[31m", "3,401,361089,-;", "14:00:01 kernel: ",
]  # fmt: skip
OTHERS = {
    "Xen": (
        "(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 9c000000\n"
        "(XEN) [VT-D]DMAR: reason 0c - non-zero reserved fields in PTE",
        "(XEN) [    9.1] [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 9c000000, "
        "iommu reg = ffff82c3fff57000\n(XEN) [    9.1] [VT-D]DMAR: reason 0c - text",
        "(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 9c000000 on iommu:1\n"
        "(XEN) [VT-D]DMAR: reason 0c - text",
        "(XEN) [VT-D]iommu.c:676: iommu_fault:DMA Read: 0:2.0 addr 9c000000 REASON c iommu->reg = "
        "ffff828bfff54000",
        "(XEN) [VT-D]DMAR:[DMA Read]\nRequest device [0000:00:02.0] fault addr 9c000000, iommu reg "
        "=\nffff82c3fff57000\n(XEN) [VT-D]DMAR: reason 0c -\nnon-zero reserved fields in PTE",
        "(XEN) [VT-D]iommu.c:735: iommu_page_fault: DMAR:[DMA Read] Request device [00:02.0] "
        "fault addr 9c000000, iommu reg = ffff82c3fff57000\n"
        "(XEN) DMAR:[fault reason 0ch] non-zero reserved fields in PTE",
    ),
    "FreeBSD": (
        "DMAR1: vgapci0: pci0:2:0 sid 10 fault acc 1 adt 0x0 reason 0xc addr 9c000000",
        "DMAR1: <unknown dev>:pci0:2:0 sid 10 fault acc 1 adt 0x0 reason 0xc addr 9c000000",
    ),
    "OpenBSD": ("fri0: dmar: 00:02.0 read error at 9c000000 fr:12 [reserved] iommu:0 [mapped]",),
    "macOS": (
        "2026-11-24 14:00:01.12345-0700 kernel: vtd[0] fault: device 0:2:0 reason 0xc R:0x9c000000",
        "panic(cpu 0 caller 0xffffff7f8c): vtd[1] fault: device 0:2:0 reason 0xc R:0x9c000000",
    ),
    "Fuchsia": (
        "[00012.345] 0:0> iommu_impl.cc:581: IOMMU Fault: access R, PASID (-) 0x00, reason 0xc, "
        "source 00:02.0, info: 9c000000",
    ),
    "seL4": (
        "IOMMU: DMA read page fault from 0x10 (bus: 0x0/dev: 0x2/fun: 0x0) on address "
        "0x0:9c000000 with reason code 0xc",
    ),
    "Genode": (
        "[init -> drivers -> platform_drv] Error: Fault: hi=0xc000000c00000010, reason=0xc, "
        "type=0x1, AT=0x0, EXE=0x0, PRIV=0x0, PP=0x0, Source=0x10, info=0x9c000",
    ),
    "ACRN": ("Read/Atomic, Reason: 0xc, SID: 0.2.0 @0x9c000000",),
    "edk2": (
        "  FRCD_REG[0] - 0xC000000C00000010 000000009C000000\n"
        "    Fault Info - 0x000000009C000000\n    Source - B00 D02 F00\n"
        "    Type - 1 (read)\n    Reason - C (Refer to VTd Spec, Appendix A)",
    ),
    "XMHF": (
        "    DRHD Fault Recording Register[0]: frr_vaddr:0xFED90200, low64:0x9C000000, "
        "high64:0xC000000C00000010",
    ),
    "ESXi": (
        "2026-11-24T14:00:01Z cpu1:2)IOMMUIntel: 2351: DMAR Fault IOMMU Unit #1: R/W=R, Device "
        "0000:00:02.0 Faulting addr = 0x9c000000 Fault Reason = 0x0c -> reserved",
    ),
    "QEMU": ("812@1764000000.123:vtd_dmar_fault sid 0x10 fault 12 addr 0x9c000000 write 0",),
    "Jailhouse": (
        "VT-d fault event reported by IOMMU 0:\n"
        " Source Identifier (bus:dev.func): 00:02.0\n"
        " Fault Reason: 0xc Fault Info: 9c000 Type 1",
    ),
}


def read(text: str) -> FoldedFaults:
    (fault,) = read_log(text.splitlines()).faults
    return fault


def facts(fault: FoldedFaults) -> tuple[object, ...]:
    return fault.kind, str(fault.source), fault.reason, fault.pasid, fault.ranges


EXPECTED = READ, "0000:00:02.0", 0x0C, None, ((0x9C000000, 0x9C001000),)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("text", LINUX)
def test_every_form_of_linux_gives_the_same_fault(text: str, prefix: str) -> None:
    log = read_log([prefix + line for line in text.splitlines()])
    assert list(map(facts, log.faults)) == [EXPECTED]
    assert log.messages == []


@pytest.mark.parametrize(
    ("system", "text"), [(system, text) for system, texts in OTHERS.items() for text in texts]
)
def test_every_form_of_other_systems_gives_the_same_fault(system: str, text: str) -> None:
    log = read_log(text.splitlines())
    assert list(map(facts, log.faults)) == [EXPECTED]
    assert log.faults[0].system == system
    assert {group.weight.value for group in log.messages} <= {"normal"}


def test_forms_without_a_direction_or_reason_say_so() -> None:
    nova = read("DMAR:0xffffff81 FRR:0 FR:0xc BDF:0:2:0 FI:0x9c000000")
    assert facts(nova) == (RequestKind.UNKNOWN, *EXPECTED[1:])
    lines = [
        "@BlueScreen: IOMMU Fault detected for 0000:00:02.0 (vmgfx0/x) IOaddr: 0x9c000000 Mask: 6",
        "(vmx) PCI passthru device 0000:00:02.0 caused an IOMMU fault type 4 at address 0x9c000000",
        "qemu-system-x86_64: vtd_iommu_translate: detected translation failure (dev=00:02:00, "
        "iova=0x9c000000)",
    ]
    for line in lines:
        fault = read(line)
        assert facts(fault) == (RequestKind.UNKNOWN, EXPECTED[1], None, None, EXPECTED[4])
        assert fault.missing == ("reason",)
    fault = read("IOMMU Fault detected for (vmgp3/x) Reason: 0x6 (PTE not set to allow Read.)")
    assert (fault.kind, fault.source, fault.reason) == (READ, None, 6)
    assert fault.missing == ("device", "address")
    fault = read(
        "WARNING: generated a fault event when translating DMA read\n"
        "\t on address 0x9c000000 for PCI(0, 2, 0), the reason is:\n\t Reserved bits"
    )
    assert facts(fault) == (READ, EXPECTED[1], None, None, EXPECTED[4])


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "reason", "pasid"),
    [
        (
            "DMAR: [DMA Write PASID 0x1] Request device [00:02.0] fault addr 0x7f0000000000 "
            "[fault reason 0x71] SM: Present bit in first-level paging entry is clear",
            WRITE, "00:02.0", 0x7F0000000000, 0x71, 1,
        ),
        (
            "DMAR: [DMA Write] Request device [03:00.1] PASID 14 fault addr fffff000 "
            "[fault reason 05] PTE Write access is not set",
            WRITE, "03:00.1", 0xFFFFF000, 5, 0x14,
        ),
        (
            "DMAR: [INTR-REMAP] Request device [f0:1f.7] fault index 0x1a [fault reason 0x26] text",
            INTERRUPT, "f0:1f.7", 0x1A, 0x26, None,
        ),
        (
            "DMAR: [INTR-REMAP] Request device [f0:1f.7] fault index 1a [fault reason 38] text",
            INTERRUPT, "f0:1f.7", 0x1A, 0x26, None,
        ),
        (
            "INTR-REMAP: Request device [[f0:1f.7] fault index 1a\nINTR-REMAP:[fault reason 38] x",
            INTERRUPT, "f0:1f.7", 0x1A, 0x26, None,
        ),
        (  # Xen's reasons are hexadecimal
            "(XEN) [VT-D]INTR-REMAP: Request device [0000:f0:1f.7] fault index 1a\n"
            "(XEN) [VT-D]INTR-REMAP: reason 26 - text",
            INTERRUPT, "f0:1f.7", 0x1A, 0x26, None,
        ),
        (  # 2.6.24 knows no interrupt faults: the index is in bits 63:48
            "DMAR:[DMA Write] Request device [f0:1f.7] fault addr 1a000000000000 \n"
            "DMAR:[fault reason 38] Unknown",
            INTERRUPT, "f0:1f.7", 0x1A, 0x26, None,
        ),
        (
            "VT-d fault event reported by IOMMU 3:\n> Source Identifier (bus:dev.func): f0:1f.7\n"
            " Fault Reason: 0x26 Fault Info: 1a000000000 Type 0",
            INTERRUPT, "f0:1f.7", 0x1A, 0x26, None,
        ),
    ],
)  # fmt: skip
def test_writes_interrupts_and_pasids(
    text: str, kind: RequestKind, source: str, target: int, reason: int, pasid: int | None
) -> None:
    fault = read(text)
    assert (fault.kind, fault.source) == (kind, Bdf.parse(source))
    assert (fault.reason, fault.pasid) == (reason, pasid)
    start, end = fault.ranges[0]
    assert start <= target < end


@given(
    st.integers(0, 0xFFFF), st.integers(0, (1 << 52) - 1), st.integers(0, 0x1F), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_words_of_a_fault_record_give_what_was_recorded(
    source_id: int, page: int, reason: int, is_read: bool, is_recorded: bool
) -> None:
    high = is_recorded << 63 | is_read << 62 | reason << 32 | source_id
    reading = read_fault(f"FRCD_REG[1] - 0x{high:016x} {page << 12:016x}", 7)
    assert reading is not None
    if not is_recorded:
        assert reading.fault is None
        return
    fault = reading.fault
    assert fault is not None
    assert (fault.source, fault.target) == (Bdf(0, SourceId(source_id)), page << 12)
    assert (fault.kind, fault.reason) == (READ if is_read else WRITE, reason)


def test_every_form_says_where_it_was_read() -> None:
    assert all(form.origin and form.words for form in FORMS)
    assert {form.role for form in FORMS} == set(Role)
