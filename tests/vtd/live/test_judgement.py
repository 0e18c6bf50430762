"""What a boot shows: each way of going wrong is a finding, and nothing else is."""

import pytest

from vtd.live.boot import Blocked, Outcome, Verdict
from vtd.live.judgement import MOST, fault_lines, findings

EDU, DISK = 0x30, 0x28
FAULT = (
    "[   12.5] DMAR: [DMA Read NO_PASID] Request device [00:06.0] fault addr 0x60001000 "
    "[fault reason 0x06] PTE Read access is not set\n"
)
INTERRUPT = (
    "[   12.6] DMAR: [INTR-REMAP] Request device [0000:00:06.0] fault index 0x7fff "
    "[fault reason 0x22] Present field in the IRTE entry is clear\n"
)


def outcome(**changes: object) -> Outcome:
    """A boot that went well: one fault was provoked and reported."""
    made = Outcome(
        verdicts=[Verdict("units", "ok"), Verdict("vfio unmapped", "ok")],
        console=FAULT + INTERRUPT,
        blocked=[Blocked(EDU, 0x60001000, 6, False), Blocked(EDU, 0, 0x22, True)],
        ended=True,
        devices={EDU: "edu", DISK: "nvme"},
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_boot_that_went_well_has_no_finding() -> None:
    assert list(findings(outcome())) == []
    lines = list(fault_lines(outcome()))
    assert [line.recorded for line in lines] == outcome().blocked
    assert lines[0].line.startswith("DMAR: [DMA Read NO_PASID]")


XEN = (
    "(XEN) I/O virtualisation enabled\n"
    "(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:06.0] fault addr 60001000\n"
    "(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set\n"
)


def test_xen_tells_of_a_fault_on_two_lines() -> None:
    made = outcome(console=XEN, blocked=outcome().blocked[:1])
    assert [line.recorded for line in fault_lines(made)] == made.blocked
    assert list(findings(made)) == []
    made.blocked = []
    (told,) = findings(made)
    assert told.startswith("the unit did not block what the kernel reports: (XEN) [VT-D]DMAR:[DMA")


STALE = "IOTLB entry used after its page changed: missing iotlb_inv"


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"ended": False, "why": "killed"}, "the guest did not come to its end: killed"),
        ({"ended": False}, "the guest did not come to its end"),
        ({"verdicts": [Verdict("nvme", "FAILED", "differs")]}, "check nvme: differs"),
        ({"audited": [STALE]}, STALE),
        ({"console": FAULT + "(XEN) I/O virtualisation disabled\n"}, "Xen does not use the units"),
        ({"console": FAULT + "[ 1.0] WARNING: CPU: 0 at x\n"}, "kernel: WARNING: CPU: 0 at x"),
        ({"console": FAULT + "[ 1.0] BUG: unable to handle\n"}, "kernel: BUG: unable to handle"),
        (
            {"console": FAULT + "[ 1.0] Kernel panic - not syncing\n"},
            "kernel: Kernel panic - not syncing",
        ),
        (
            {"blocked": [*outcome().blocked, Blocked(DISK, 0x1000, 5, False)]},
            "fault 05h of 00:05.0, address 0x1000",
        ),
        (
            {"blocked": [*outcome().blocked, Blocked(DISK, 0, 0x26, True)]},
            "fault 26h of 00:05.0, interrupt 0x0",
        ),
        (
            {"blocked": [Blocked(EDU, 0x60001000, 5, False), Blocked(EDU, 0, 0x22, True)]},
            f"the unit did not block what the kernel reports: {FAULT[FAULT.index('DMAR') : -1]}",
        ),
        (
            {"blocked": [Blocked(EDU, 0x60000000, 6, False), Blocked(EDU, 0, 0x22, True)]},
            f"the unit did not block what the kernel reports: {FAULT[FAULT.index('DMAR') : -1]}",
        ),
        (
            {"blocked": [Blocked(0x38, 0x60001000, 6, False), Blocked(EDU, 0, 0x22, True)]},
            f"the unit did not block what the kernel reports: {FAULT[FAULT.index('DMAR') : -1]}",
        ),
        (
            {"console": ""},
            "the kernel reports none of the faults that the checks provoked",
        ),
    ],
)
def test_each_way_of_going_wrong_is_one_finding(changes: dict[str, object], finding: str) -> None:
    found = [each for each in findings(outcome(**changes)) if "00:07.0" not in each]
    assert finding in found
    assert len(found) <= 2


def test_a_panic_that_was_asked_for_is_none() -> None:
    console = FAULT + "[ 1.0] Kernel panic - not syncing: sysrq triggered crash\n"
    assert list(findings(outcome(console=console))) == []


def test_an_address_is_recorded_without_the_bits_above_the_largest_width() -> None:
    console = FAULT.replace("0x60001000", "0x7ffffffff000").replace("0x06", "0x04")
    blocked = [Blocked(EDU, 0xFFFF_7FFF_FFFF_F000, 4, False)]
    assert list(findings(outcome(console=console, blocked=blocked))) == []


def test_many_findings_of_a_kind_are_counted() -> None:
    blocked = [*outcome().blocked, *(Blocked(DISK, page << 12, 5, False) for page in range(30))]
    found = list(findings(outcome(blocked=blocked)))
    assert len(found) == MOST + 1
    assert found[-1] == "and 10 more like these"
