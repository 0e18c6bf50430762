"""Kernel logs: every format of a fault gives the same fault, repeats fold, lines have a meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.source_id import Bdf
from vtd.inspection.fault_causes import CAUSES
from vtd.inspection.kernel_log import LoggedFault, RequestKind, fold, parse_log
from vtd.inspection.kernel_log_messages import MESSAGES, meaning_of
from vtd.unit.requests.faults import FaultReason

READ, WRITE, INTERRUPT = RequestKind.READ, RequestKind.WRITE, RequestKind.INTERRUPT

FORMATS = [
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
]
PREFIXES = [
    "", "[    0.361089] ", "<3>[12345.678901] ", "Nov 24 14:00:01 host kernel: ",
    "Nov 24 14:00:01 host kernel: [   12.345678] ", "kernel: ",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_format_gives_the_same_fault(text: str, prefix: str) -> None:
    faults, lines = parse_log("\n".join(prefix + line for line in text.splitlines()))
    assert faults == [LoggedFault(1, READ, Bdf.parse("00:02.0"), 0x9C000000, 0x0C, None)]
    assert lines == []


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
    ],
)  # fmt: skip
def test_writes_interrupts_and_pasids(
    text: str, kind: RequestKind, source: str, target: int, reason: int, pasid: int | None
) -> None:
    faults, _ = parse_log(text)
    assert faults == [LoggedFault(1, kind, Bdf.parse(source), target, reason, pasid)]


def test_repeats_fold_into_ranges_of_pages() -> None:
    template = "DMAR: [DMA Read] Request device [00:02.0] fault addr {:x} [fault reason 06] x"
    addresses = [0x2000, 0x1FF8, 0x3000, 0x2000, 0x8000]
    text = "\n".join(template.format(address) for address in addresses)
    (folded,) = fold(parse_log(text)[0])
    assert (folded.count, folded.lines) == (5, (1, 5))
    assert folded.ranges == ((0x1000, 0x4000), (0x8000, 0x9000))


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_ranges_hold_exactly_the_pages_of_the_faults(addresses: list[int]) -> None:
    source = Bdf.parse("00:02.0")
    faults = [LoggedFault(1, READ, source, address, 6, None) for address in addresses]
    (folded,) = fold(faults)
    pages = {page for start, end in folded.ranges for page in range(start >> 12, end >> 12)}
    assert pages == {address >> 12 for address in addresses}
    assert all(
        before[1] < after[0]
        for before, after in zip(folded.ranges, folded.ranges[1:], strict=False)
    )


def test_faults_fold_by_device_kind_reason_and_pasid() -> None:
    source, other = Bdf.parse("00:02.0"), Bdf.parse("00:03.0")
    faults = [
        LoggedFault(1, READ, source, 0, 6, None),
        LoggedFault(2, WRITE, source, 0, 5, None),
        LoggedFault(3, READ, other, 0, 6, None),
        LoggedFault(4, READ, source, 0, 6, 1),
        LoggedFault(5, READ, source, 0x5000, 6, None),
    ]
    assert [each.count for each in fold(faults)] == [2, 1, 1, 1]


def test_the_dump_after_a_fault_tells_the_level() -> None:
    text = FORMATS[-1] + (
        "\nDMAR: Dump dmar0 table entries for IOVA 0x9c000000"
        "\nDMAR: pte level: 4, pte value: 0x0000000000000000"
        "\nDMAR: page table not present at level 3"
    )
    faults, lines = parse_log(text)
    assert [fault.level for fault in faults] == [3]
    assert [meaning_of(line.text) is None for line in lines] == [False, False, False]
    assert fold(faults)[0].levels == (3,)


LINES = {
    "DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at address 0!": "DMAR-U01",
    "DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at address fed90000 returns all "
    "ones!": "DMAR-K08",
    "DMAR: [Firmware Bug]: No firmware reserved region can cover this RMRR [0x0000-0x0fff], "
    "contact BIOS vendor for fixes": "DMAR-K01",
    "DMAR: [Firmware Bug]: Your BIOS is broken; bad RMRR [0x00000000-0x00000000]": "DMAR-R01",
    "DMAR: ANDD object name is not NUL-terminated": "DMAR-N01",
    "DMAR: No IOMMU scope found for ANDD enumeration ID 1 (\\_SB.PCI0.I2C0)": "DMAR-N05",
    "DMAR: IOMMU feature sc_support inconsistent": "differ in a feature",
    "DMAR-IR: x2apic is disabled because BIOS sets x2apic opt out bit.": "X2APIC_OPT_OUT",
    "x2apic: IRQ remapping doesn't support X2APIC mode": "xAPIC mode",
    "ioapic 8 has no mapping iommu, interrupt remapping will be disabled": "DMAR-U13",
    "DMAR: DRHD: handling fault status reg 3": "records overflowed, faults were lost; a fault",
    "dmar_fault: 8 callbacks suppressed": "lines were left out",
    "DMAR: VT-d detected Invalidation Time-out Error: SID 0": "did not answer",
    "DMAR: Host address width 39": "address bits",
}


@pytest.mark.parametrize("text", LINES)
def test_lines_have_a_meaning(text: str) -> None:
    _, (line,) = parse_log(f"[    0.1] {text}")
    assert line.text == text
    message = meaning_of(line.text)
    assert message is not None
    assert LINES[text] in message.meaning


def test_problems_say_what_to_look_at() -> None:
    for message in MESSAGES:
        assert message.meaning
        assert bool(message.look_at) or message.weight != "problem"


def test_every_fault_reason_is_explained() -> None:
    assert set(CAUSES) == set(map(int, FaultReason))
    assert all(cause.where and cause.likely and cause.look_at for cause in CAUSES.values())


@given(st.lists(st.sampled_from([*FORMATS, *LINES, "noise", "DMAR:", "[fault reason 6]"])))
def test_lines_of_any_order_are_read(texts: list[str]) -> None:
    faults, _ = parse_log("\n".join(texts))
    assert len(faults) == sum(text in FORMATS for text in texts)


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    faults, lines = parse_log(text)
    assert not faults
    assert all(meaning_of(line.text) is None or line.text for line in lines)
