"""A log as a whole: all lines are accounted for, halves find each other, breaks are mended."""

from textwrap import wrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.log_coverage import formats, sample
from vtd.logs.catalogue import linux_core
from vtd.logs.fault import FaultGroups, LoggedFault, RequestKind
from vtd.logs.log import MOST_JOINED, Log, read_log
from vtd.logs.message import Weight

HALF = "DMAR:[DMA Write] Request device [{}] fault addr 9c000000 "
REASON = "DMAR:[fault reason {:02}] text"
FAULT = (
    "DMAR: [DMA Read NO_PASID] Request device [00:0d.2] fault addr 0x1026a4000 "
    "[fault reason 0x51] SM: Present bit in Directory Entry is clear"
)


def read(text: str) -> Log:
    return read_log(text.splitlines())


def weights(log: Log) -> list[str]:
    return [group.weight.value for group in log.messages]


def test_interleaved_halves_find_each_other() -> None:
    lines = [HALF.format("00:01.0"), HALF.format("00:02.0"), REASON.format(5), REASON.format(2)]
    faults = read_log(f"[    1.{n}] {line}" for n, line in enumerate(lines)).faults
    assert [(str(f.source), f.reason) for f in faults] == [
        ("0000:00:01.0", 5),
        ("0000:00:02.0", 2),
    ]
    assert read_log(lines).faults == faults


def test_a_half_whose_rest_was_left_out_does_not_take_the_rest_of_another() -> None:
    lines = [HALF.format("00:01.0"), *["dmar_fault: 3 callbacks suppressed"] * 9]
    lines += [HALF.format("00:02.0"), REASON.format(5)]
    first, second = read_log(lines).faults
    assert (str(first.source), first.missing) == ("0000:00:01.0", ("reason",))
    assert (str(second.source), second.reason) == ("0000:00:02.0", 5)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (HALF.format("00:01.0"), ("reason",)),
        (REASON.format(5), ("device", "address")),
        ("VT-d fault event reported by IOMMU 0:", ("device", "address", "reason")),
    ],
)
def test_what_is_missing_of_a_fault_is_told(text: str, missing: tuple[str, ...]) -> None:
    log = read(f"{text}\nnothing\n")
    assert [fault.missing for fault in log.faults] == [missing]
    assert not log.is_clean


@given(st.integers(1, len(FAULT) - 1), st.sampled_from(["", "> ", ">> ", "  "]))
def test_a_fault_broken_anywhere_is_the_fault(cut: int, quote: str) -> None:
    """By a terminal, which breaks inside words; a mail program breaks at blanks."""
    lines = [f"{quote}[    0.5] {FAULT[:cut]}", quote + FAULT[cut:]]
    (fault,) = read_log(lines).faults
    assert str(fault.source) == "0000:00:0d.2"
    assert fault.missing in ((), ("reason",))
    if cut > FAULT.index("[fault") and fault.reason is not None:
        assert fault.ranges == ((0x1026A4000, 0x1026A5000),)


def test_a_fault_that_a_mail_program_wrapped_is_the_fault() -> None:
    words = FAULT.split()
    for first in range(3, len(words)):
        for second in range(first + 1, len(words)):
            parts = words[:first], words[first:second], words[second:]
            lines = [">> " + " ".join(part) for part in parts]
            (fault,) = read_log([">> [    0.1] DMAR: No ATSR found", *lines]).faults
            assert (fault.reason, fault.ranges) == (0x51, ((0x1026A4000, 0x1026A5000),)), lines


@pytest.mark.parametrize(
    "line",
    [
        "DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr 0x9c000000 / 0x9c001000 "
        "[fault reason 0x05] text",
        "DMAR: [DMA Write] Request device[[00:01.0] fault addr 9c000000 (and others) "
        "[fault reason 05] text",
    ],
)
def test_what_somebody_wrote_between_address_and_reason_does_not_cost_the_reason(line: str) -> None:
    (fault,) = read(line).faults
    assert (fault.reason, fault.ranges) == (5, ((0x9C000000, 0x9C001000),))


def test_a_message_that_was_wrapped_is_known() -> None:
    log = read("[  0.1] DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at\naddress 0!\n")
    assert weights(log) == ["problem"]
    assert "DMAR-U01" in (log.messages[0].meaning or "")


@pytest.mark.parametrize(
    "head",
    [
        "[Mi Okt 30 19:12:10 2019] ",
        "[mer. oct.  9 19:12:10 2019] ",
        "Mär 05 12:00:00 pc kernel: ",
        "11月 05 12:00:01 pc kernel: ",
    ],
)
def test_times_in_the_language_of_the_reporter_are_no_part_of_a_message(head: str) -> None:
    log = read(f"{head}DMAR: RMRR base: 0x7a000000 end:\n0x7a00ffff\n{head}usb 1-1: new")
    (group,) = log.messages
    assert [line.text for line in group.lines] == ["DMAR: RMRR base: 0x7a000000 end: 0x7a00ffff"]


@pytest.mark.parametrize("width", [62, 72, 80])
@pytest.mark.parametrize("head", ["[    0.123456] ", "Nov 24 14:00:01 host kernel: "])
def test_no_message_of_linux_is_lost_or_another_one_where_a_mail_program_wraps_it(
    head: str, width: int
) -> None:
    """A firmware bug is told as one too, where only that is left of the first line."""
    bug = (linux_core.FIRMWARE_BUG.weight, linux_core.FIRMWARE_BUG.meaning)

    def meanings(text: str) -> set[tuple[Weight, str | None]]:
        return {
            (group.weight, group.meaning)
            for group in read(text).messages
            if group.weight in (Weight.PROBLEM, Weight.NOTICE)
        }

    for message in (
        lines[0] for lines in (sample(each.text) for each in formats()) if not lines[1:]
    ):
        line = head + message.partition("] ")[2]
        parts = wrap(line, width, break_long_words=False, break_on_hyphens=False)
        wrapped = "".join(f"> {part}\n" for part in [*parts, f"{head}usb 1-1: new"])
        assert meanings(wrapped) - {bug} == meanings(line) - {bug}, wrapped
        assert meanings(line) <= meanings(wrapped), wrapped


@pytest.mark.parametrize(
    "text",
    [
        "qemu: vfio_dma_map(0x1, 0x2000, 0x1000, 0x3) = -{}",
        "EAL: Cannot set up DMA remapping, error {}",
        "ApiError(VfioDmaMap(IommuDmaMap(Error({}))))",
        "The bugcheck was: 0x000000e6 (0x{}, 0x1, 0x2, 0x3).",
        "The bugcheck was: 0x000001{} (0x1, 0x1, 0x2, 0x3).",
    ],
)
def test_a_number_that_tells_what_a_message_means_counts_in_any_order(text: str) -> None:
    numbers = ("58", "59") if "0x000001" in text else ("12", "14", "17", "22", "26")
    lines = [text.format(number) for number in numbers]
    alone = {line: read(line).messages[0].meaning for line in lines}
    assert len(set(alone.values())) > 1
    for order in lines, lines[::-1]:
        groups = read("\n".join(order)).messages
        assert {line.text: one.meaning for one in groups for line in one.lines} == alone


@pytest.mark.parametrize("sign", ["* ", "// kernel: ", "  # "])
def test_what_stands_in_front_of_the_second_half_does_not_cost_the_address(sign: str) -> None:
    lines = [HALF.format("00:01.0"), REASON.format(12)]
    log = read_log([f"{sign}[    1.{number}] {line}" for number, line in enumerate(lines)])
    (fault,) = log.faults
    assert (fault.reason, fault.ranges) == (12, ((0x9C000000, 0x9C001000),))


@pytest.mark.parametrize("head", ["DMAR: ", "dmar: "])
def test_a_name_in_front_of_the_name_is_no_message(head: str) -> None:
    log = read(f"[    1.000001] {head}{HALF.format('00:01.0')}\n           {REASON.format(1)}")
    assert [fault.reason for fault in log.faults] == [1]
    assert log.messages == []


@pytest.mark.parametrize("call", ["dev_warn(dev, ", "pr_err_ratelimited(", "printk(KERN_ERR "])
def test_a_line_of_a_patch_is_no_message(call: str) -> None:
    text = "Device is ineligible for IOMMU domain attach due to platform RMRR requirement."
    assert weights(read(f"vfio-pci 0000:01:00.0: DMAR: {text}")) == ["problem"]
    log = read(f'DMAR: flux\n-\t\t{call}"{text}\\n");\nDMAR: tea')
    assert weights(log) == ["unknown", "unknown"]


@pytest.mark.parametrize(
    "line",
    [
        "root@pve:~# dmesg | grep -e DMAR -e IOMMU",
        "[root@host ~]# journalctl -k | grep -i dmar",
        "sh-5.1# dmesg | grep -i dmar",
        "$ sudo dmesg | grep 'IO_PAGE_FAULT\\|group is not viable'",
        "dmesg | egrep -i 'dmar|iommu|no iommu_group found'",
        "+ modprobe vfio_iommu_type1",
        "user@nas:~> for g in /sys/kernel/iommu_groups/*; do",
        '>   echo "IOMMU Group ${g##*/}:"',
        'echo "options vfio_iommu_type1 allow_unsafe_interrupts=1" > /etc/modprobe.d/unsafe.conf',
        "options vfio_iommu_type1 allow_unsafe_interrupts=1",
        "BOOT_IMAGE=/boot/vmlinuz-6.8.12-pve root=/dev/mapper/pve-root ro intel_iommu=on iommu=pt",
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"',
        "vfio_iommu_type1       49152  0",
        "vfio                   69632  13 vfio_pci_core,vfio_iommu_type1,vfio_pci",
        "CONFIG_INTEL_IOMMU_DEFAULT_ON is not set",
        "lrwxrwxrwx 1 root root 0 Jan  2 03:04 /sys/class/iommu/dmar0 -> ../../virtual/iommu/dmar0",
        "  24:          0          0  DMAR-MSI   0-edge      dmar0",
        "<iommu model='intel'>",
        "IOMMU dmar0: Root Table Address: 0x105a82000",
        "Remapped Interrupt supported on IOMMU: dmar0",
    ],
)
def test_what_somebody_typed_or_set_is_no_message(line: str) -> None:
    assert weights(read(line)) == ["normal"]


def test_what_is_said_of_a_command_or_file_is_a_message() -> None:
    viable = "[    1.234567] vfio 0000:02:00.0: group 16 is not viable"
    assert weights(read(f"$ dmesg | grep vfio {viable}")) == ["problem"]
    assert weights(read("cat: can't read /sys/class/iommu/dmar0")) == ["unknown"]
    fault = f"$ dmesg | grep DMAR {HALF.format('00:01.0')} {REASON.format(5)}"
    assert [one.reason for one in read(fault).faults] == [5]


@pytest.mark.parametrize(
    "below",
    [
        "# /sbin/lspci -nn | grep IOMMU",
        "00:02.0 VGA compatible controller [0300]: Intel Device with VT-d [8086:0102]",
        "> dmar flux, said the one who asks",
        "libxl: error: libxl_pci.c:415: Looks like pciback driver not loaded",
        "nvme_pcie.c: 548:nvme_pcie_ctrlr_allocate_bars: ERROR: flux",
        "EAL: capacitor of the flux",
    ],
)
def test_what_was_posted_below_a_message_is_no_part_of_it(below: str) -> None:
    head = "[ 1692.021416] dmar: DRHD: handling fault status reg 2"
    log = read(f"{head}\n{below}\n")
    assert log.messages[0].lines[0].text == head.split("] ")[1]


def test_a_message_takes_no_more_lines_than_a_mail_breaks_it_into() -> None:
    log = read("[    0.123456] DMAR: Host address width 39\n" + "VT-d is a nice thing\n" * 9)
    assert sum(len(group.lines) for group in log.messages) > 9 - MOST_JOINED


def test_a_fault_cut_before_its_address_is_a_problem() -> None:
    log = read("# DMAR: [INTR-REMAP] Request device [f0:1f.0] fault\n# I turned it off")
    assert weights(log) == ["problem"]


def test_lines_left_out_are_no_rest() -> None:
    text = "[    1.000001] DMAR-IR: Enabled IRQ remapping in x2apic mode"
    (group,) = read(f"{text}\n[...]\n[    1.000002] usb").messages
    assert [line.text for line in group.lines] == ["DMAR-IR: Enabled IRQ remapping in x2apic mode"]


def test_a_fault_is_no_rest_of_the_line_above() -> None:
    fault = "DMAR: [DMA Read] Request device [00:02.0] fault addr 9c000000 [fault reason 06] text"
    log = read(f"What does the IOMMU want from me?\n{fault}")
    assert log.faults[0].lines == (2, 2)
    assert weights(log) == ["unknown"]


def test_a_line_without_time_is_no_rest_of_a_line_without_time() -> None:
    log = read("DMAR: flux\nDMAR: Host address width 39\n" * 2)
    assert weights(log) == ["normal", "unknown"]


@pytest.mark.parametrize("line", ["DMAR: flux", "VT-d: tea", HALF.format("00:01.0")])
def test_a_line_that_begins_a_message_is_no_rest_of_another(line: str) -> None:
    """As where one pasted log begins behind another."""
    head = "[    0.123456] DMAR: Host address width 39"
    log = read(f"{head}\n{line}\n")
    assert [fault.lines for fault in log.faults] == ([(2, 2)] if line.startswith("DMAR:[") else [])
    assert weights(log) == (["normal"] if log.faults else ["normal", "unknown"])


def test_what_stands_below_a_problem_does_not_make_it_less() -> None:
    line = "[    0.123456] DMAR: DRHD: handling fault status reg 2"
    bad = "[    0.123457] DMAR: Mapping reserved region failed"
    log = read(f"{line}\n{bad}\nremapping is enabled, said my friend\n")
    assert weights(log) == ["problem", "normal"]


def test_several_lines_of_one_message_are_one() -> None:
    log = read(
        "[    0.14] DMAR-IR: This system BIOS has enabled interrupt remapping\n"
        "               on a chipset that contains an erratum making that\n"
        "               feature unstable.  To maintain system stability\n"
        "               interrupt remapping is being disabled.  Please\n"
        "               contact your BIOS vendor for an update\n"
        "[    0.15] APIC: Switched APIC routing to: physical flat\n"
    )
    assert weights(log) == ["problem"]
    assert [line.line for line in log.messages[0].lines] == [1, 2, 3, 4, 5]
    assert "erratum" in (log.messages[0].meaning or "")


def test_unknown_lines_are_counted_and_never_clean_alone() -> None:
    log = read(
        "DMAR: flux compensator at 0xfe88\nDMAR: flux compensator at 0xc1\nVT-d: tea\nusb: x\n"
    )
    assert [(g.weight, len(g.lines)) for g in log.messages] == [
        (Weight.UNKNOWN, 2),
        (Weight.UNKNOWN, 1),
    ]
    assert not log.is_clean
    assert read("DMAR: flux compensator\nDMAR: Host address width 39\n").is_clean
    assert read("nothing\n").is_clean


def test_a_fault_in_no_known_form_is_a_problem() -> None:
    """What nobody understood may not pass for clean because of the lines beside it."""
    log = read("DMAR: Host address width 39\nDMAR: 00:02.0 wrote, fault addr 0x1000\n")
    assert weights(log) == ["problem", "normal"]
    assert not log.is_clean


def test_a_fault_behind_other_messages_of_a_line_is_read() -> None:
    """As a web page puts them together."""
    line = "aic7xxx 0000:05:02.1: enabling device (0000 -> 0003) DMAR: DRHD: handling fault status "
    line += "reg 3 DMAR: [DMA read NO PASID] Request device [05:00.0] fault addr 0x12174000 "
    (fault,) = read(f"{line}[Fault reason 0x02] Present bit in context entry is clear\n").faults
    assert (str(fault.source), fault.reason) == ("0000:05:00.0", 2)


def test_other_firmware_bugs_are_none_of_ours() -> None:
    assert read("[Firmware Bug]: TSC doesn't count\nahci: can't request irq 5\n").messages == []


@pytest.mark.parametrize("between", [[], ["usb 1-1: new device"] * 3])
def test_a_stop_of_the_queue_names_the_device_of_its_descriptor(between: list[str]) -> None:
    lines = [
        "DMAR: VT-d detected Invalidation Time-out Error: SID 0",
        *between,
        "DMAR: QI HEAD: Invalidation Wait qw0 = 0x200000025, qw1 = 0x1000",
        "DMAR: QI PRIOR: Device-TLB Invalidation qw0 = 0x1800000003, qw1 = 0x7ffffffffffff001",
    ]
    log = read_log(lines)
    assert weights(log) == ["problem"]
    meaning = log.messages[0].meaning or ""
    assert "device-TLB invalidation for 0000:00:03.0; the device is 0000:00:03.0" in meaning
    assert len(log.messages[0].lines) == 3


def test_the_register_names_a_device_only_where_it_is_not_0() -> None:
    named = read("DMAR: VT-d detected Invalidation Completion Error: SID 18").messages[0]
    assert "the device is 0000:00:03.0" in (named.meaning or "")
    none = read("DMAR: VT-d detected Invalidation Time-out Error: SID 0").messages[0]
    assert "0000:" not in (none.meaning or "")


@pytest.mark.parametrize("read_as_ones", ["Queue Error: Reason f", "Time-out Error: SID ffff"])
def test_what_is_read_from_a_unit_that_does_not_answer_names_no_device(read_as_ones: str) -> None:
    log = read(
        f"DMAR: VT-d detected Invalidation {read_as_ones}\n"
        "DMAR: QI HEAD: Device-TLB Invalidation qw0 = 0x1800000003, qw1 = 0x1\n"
    )
    assert weights(log) == ["problem"]
    assert "unit unreachable" in (log.messages[0].meaning or "")
    assert "0000:" not in f"{log.messages[0].meaning} {log.messages[0].look_at}"


def test_a_descriptor_of_any_kind_is_named() -> None:
    kinds = {
        0x1: "context-cache", 0x12: "IOTLB", 0x14: "interrupt-entry", 0x5: "wait",
        0x6: "PASID-based",
        0x7: "PASID-cache", 0x8: "device-TLB invalidation for 0000:00:00.0", 0x9: "page group",
        0xA: "host-permission", 0xF: "no known type",
    }  # fmt: skip
    for low, words in kinds.items():
        text = f"DMAR: VT-d detected invalid descriptor: qw0 = {low:x}, qw1 = 0"
        assert words in (read(text).messages[0].meaning or "")


DUMP = """\
DMAR: Dump dmar1 table entries for IOVA 0x1026a4000
DMAR: scalable mode root entry: hi 0x0000000102448001, low 0x0000000101b3e001
DMAR: context entry: hi 0x0000000000000000, low 0x0000000101b4d401
DMAR: pasid dir entry: {:#018x}
DMAR: pasid table entry[0]: 0x0000000000000109
DMAR: pte level: 4, pte value: 0x0000000000000000
DMAR: page table not present at level 3
"""


def test_a_dump_tells_the_level_and_what_it_contradicts() -> None:
    log = read(f"{FAULT}\n{DUMP.format(0x101B4E001)}")
    assert log.faults[0].levels == (3,)
    assert "pasid dir entry 0x101b4e001 is present" in log.faults[0].contradictions[0]
    assert "unknown" not in weights(log)
    agreed = read(f"{FAULT}\n{DUMP.format(0)}")
    assert agreed.faults[0].contradictions == ()


XEN_DUMP = """\
(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 7a00003000
(XEN) [VT-D]DMAR: reason {:02x} - text
(XEN) print_vtd_entries: iommu #0 dev 0000:00:02.0 gmfn 7a00003
(XEN)     root_entry[00] = 46e129001
(XEN)     context[10] = 2_46e128001
(XEN)     l4 = ffff83046e128000
(XEN)     l4[000] = 46e11b003
(XEN)     l3_index = 1e8
(XEN)     l3[1e8] = 0
(XEN)     l3[1e8] not present
"""


def test_the_dump_of_xen_tells_the_same() -> None:
    log = read(XEN_DUMP.format(6))
    assert log.faults[0].levels == (3,)
    assert log.faults[0].contradictions == ()
    assert [(group.weight.value, len(group.lines)) for group in log.messages] == [("normal", 8)]
    contradicted = read(XEN_DUMP.format(2)).faults[0].contradictions
    assert "context entry 0x46e128001 is present" in contradicted[0]


def test_all_ones_are_one_unit_that_can_not_be_reached() -> None:
    ones = "f" * 16
    log = read(f"DMAR: dmar0: reg_base_addr fed90000 ver 15:15 cap {ones} ecap {ones}\n")
    assert weights(log) == ["problem"]
    assert "unit unreachable" in (log.messages[0].meaning or "")
    healthy = read("DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap f0505e\n")
    assert weights(healthy) == ["normal"]


def test_a_feature_that_differs_is_a_notice_and_says_whether_it_is_used() -> None:
    log = read("DMAR: IOMMU feature nwfs inconsistent\nDMAR: IOMMU feature smts inconsistent\n")
    assert weights(log) == ["notice", "notice"]
    meanings = [group.meaning or "" for group in log.messages]
    assert "each is used with what it has" in meanings[0]
    assert "smts" in meanings[1]
    assert "only where all units have it" in meanings[1]
    assert log.is_clean


def test_bits_of_the_fault_status_are_named() -> None:
    log = read("DMAR: DRHD: handling fault status reg 43")
    assert log.messages[0].meaning == (
        "the unit reports: records overflowed, faults were lost; a fault record is pending; "
        "an invalidation timed out"
    )


def test_repeats_fold_into_ranges_of_pages() -> None:
    template = "DMAR: [DMA Read] Request device [00:02.0] fault addr {:x} [fault reason 06] x"
    addresses = [0x2000, 0x1FF8, 0x3000, 0x2000, 0x8000]
    (folded,) = read_log(template.format(address) for address in addresses).faults
    assert (folded.count, folded.lines) == (5, (1, 5))
    assert folded.ranges == ((0x1000, 0x4000), (0x8000, 0x9000))


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20))
def test_ranges_hold_exactly_the_pages_of_the_faults(addresses: list[int]) -> None:
    kind = RequestKind.READ
    groups = FaultGroups()
    for address in addresses:
        groups.add(LoggedFault(1, kind, None, address, 6))
    (folded,) = groups.folded()
    pages = {page for start, end in folded.ranges for page in range(start >> 12, end >> 12)}
    assert pages == {address >> 12 for address in addresses}
    assert all(a[1] < b[0] for a, b in zip(folded.ranges, folded.ranges[1:], strict=False))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["DMA Read", "DMA Write"]),
            st.sampled_from(["00:02.0", "00:03.0"]),
            st.integers(0, 0xFFFF),
            st.sampled_from([5, 6]),
        )
    )
)
def test_repeats_count_as_the_same_faults_read_one_by_one(
    faults: list[tuple[str, str, int, int]],
) -> None:
    """The short way for repeats gives what the long way does, which two lines take."""
    one = [
        f"DMAR: [{kind}] Request device [{device}] fault addr {address:x} "
        f"[fault reason {reason:02}]"
        for kind, device, address, reason in faults
    ]
    two = [line.replace(" [fault reason", " \nDMAR:[fault reason") for line in one]
    long = read("\n".join(two)).faults
    short = read_log(one).faults
    assert [(f.source, f.kind, f.reason, f.count, f.ranges) for f in short] == [
        (f.source, f.kind, f.reason, f.count, f.ranges) for f in long
    ]


@pytest.mark.parametrize("between", ["", " ", " [    1.000002] ", "\n"])
def test_several_faults_in_one_line_are_all_read(between: str) -> None:
    log = read("[    1.000001] " + between.join([FAULT, FAULT, HALF.format("00:01.0")]))
    assert [(str(f.source), f.count) for f in log.faults] == [
        ("0000:00:0d.2", 2),
        ("0000:00:01.0", 1),
    ]
    assert "unknown" not in weights(log)


def test_a_line_of_any_length_is_read() -> None:
    text = "x" * 5000 + f" [    1.000001] {FAULT}" + "y" * 5000
    assert [fault.count for fault in read(text).faults] == [1]


LINES = [
    FAULT, HALF.format("00:01.0"), REASON.format(5), *DUMP.splitlines(), "usb 1-1: new device", "",
    "DMAR: DRHD: handling fault status reg 2", "DMAR: QI HEAD: x qw0 = 0x25, qw1 = 0x1",
    "(XEN) [VT-D]DMAR: reason 02 - text", "Fault Reason: 0x22 Fault Info: 19000000000 Type 0",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES)), st.sampled_from(["", "> ", "[    1.0] "]))
def test_no_fault_is_lost_in_any_order_of_lines(lines: list[str], prefix: str) -> None:
    log = read_log([prefix + line for line in lines])
    whole = sum(line == FAULT for line in lines)
    counted = sum(f.count for f in log.faults if f.reason == 0x51 and f.source is not None)
    assert counted == whole


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    log = read_log(text.splitlines())
    assert all(group.lines for group in log.messages)


@pytest.mark.parametrize(
    "escape", ["\x1b", "^[", "ESC", "#033", "\\033", "\\33", "\\x1b", "\\u001b", "\\e", "\u241b"]
)
def test_colours_are_no_part_of_a_message_however_they_are_written(escape: str) -> None:
    words = "No ACPI DMAR table found, IOMMU either disabled in BIOS or not supported by this one"
    head = "  QEMU: Checking for device assignment IOMMU support     : "
    log = read(f"{head}{escape}[33mWARN{escape}[0m ({words})\n")
    (group,) = log.messages
    assert "found no DMAR table" in (group.meaning or "")
    assert group.lines[0].text == f"{head.strip()} WARN ({words})"
