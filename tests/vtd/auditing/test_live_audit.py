"""Audits of live recordings: Linux 6.1's unaligned ranges are found, and nothing in sound ones."""

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devices.dma import READ, Request
from tests.support.reference_data import name_of, recordings
from tests.vtd.recordings.recorded_machine import FIRST, RecordedMachine, work
from vtd.auditing.audit import Audit
from vtd.auditing.debt import Debt
from vtd.auditing.live_audit import audit_live
from vtd.auditing.log_report import LogReport
from vtd.layouts.descriptors import IotlbInvalidateDescriptor
from vtd.layouts.registers import IotlbGranularity
from vtd.recordings.text_lines import open_lines
from vtd.recordings.values import ScenarioError
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, UNCACHED, CachePolicy
from vtd.unit.observer import CacheName
from vtd.unit.registers.capabilities import PROFILES

PAGE = 0x1000
DATA = 0x40_0000


def audited(path: Path, policy: CachePolicy = AGGRESSIVE) -> LogReport:
    return audit_live(partial(open_lines, path), policy)


@pytest.mark.parametrize("path", recordings(), ids=name_of)
def test_only_the_unaligned_ranges_of_linux_6_1_are_found(path: Path) -> None:
    report = audited(path)
    assert report.uses > 1600
    stale = "stale-first" in path.name
    assert len(report.findings) == (15 if stale else 0)
    debts = [use for _, use, _ in report.findings if isinstance(use, Debt)]
    pages = [debt.owner.address for debt in debts]
    ranges = [*range(0x70004, 0x70007), *range(0x70008, 0x7000B), *range(0x70010, 0x70018), 0x70008]
    assert pages == ([page << 12 for page in ranges] if stale else [])
    assert all(debt.inferred and "p_iotlb_inv" in debt.missing for debt in debts)


def test_the_policy_is_that_of_the_audit() -> None:
    stale = next(path for path in recordings() if "stale-first" in path.name)
    assert len(audited(stale, KEEPS_STALE).findings) == 15
    assert audited(stale, UNCACHED).findings == []


class Unmapping(RecordedMachine):
    """Pages of one function in a row, unmapped by a driver that invalidates what it is told to."""

    def __init__(self, first: int, count: int, first_loaded: int, loaded: int) -> None:
        super().__init__(PROFILES["qemu"], AGGRESSIVE)
        self.driver = self.drivers[0]
        self.driver.start()
        self.domain = self.driver.domain(largest=12)
        self.driver.attach(FIRST, self.domain)
        self.domain.map(first * PAGE, DATA, count * PAGE)
        for page in range(first_loaded, first_loaded + loaded):
            self.request(FIRST, page * PAGE)

    def clear(self, first: int, count: int) -> None:
        """Unmap pages and invalidate nothing."""
        self.domain.tables.unmap(first * PAGE, count * PAGE)

    def invalidate(self, first: int, mask: int) -> None:
        """Invalidate 2^mask pages."""
        descriptor = IotlbInvalidateDescriptor.of(
            g=IotlbGranularity.PAGE_IN_DOMAIN,
            did=self.domain.domain_id,
            am=mask,
            addr=first * PAGE,
        )
        queue = self.driver.queue
        assert queue is not None
        queue.submit(descriptor)

    def findings(self, path: Path) -> list[int | None]:
        report = audited(self.write(path / "made.jsonl.gz"))
        debts = [use for _, use, _ in report.findings if isinstance(use, Debt)]
        return [debt.owner.address for debt in debts if debt.inferred]


def test_a_range_invalidated_aligned_down_leaves_its_end_stale(tmp_path: Path) -> None:
    machine = Unmapping(first=3, count=4, first_loaded=3, loaded=4)
    machine.clear(3, 4)
    machine.invalidate(0, 2)
    for page in range(3, 7):
        machine.request(FIRST, page * PAGE)
    assert machine.findings(tmp_path) == [4 * PAGE, 5 * PAGE, 6 * PAGE]


@pytest.mark.parametrize(
    ("cleared", "count", "invalidated", "mask"),
    [
        (3, 1, 3, 0),  # the page itself: the others are mapped
        (2, 2, 2, 1),  # an aligned range
        (3, 2, 0, 3),  # covered by the smallest aligned block
        (1, 3, 0, 2),  # begins in the lower half: the block is the smallest that covers it
    ],
)
def test_neighbours_of_a_range_that_is_covered_are_no_finding(
    tmp_path: Path, cleared: int, count: int, invalidated: int, mask: int
) -> None:
    machine = Unmapping(first=cleared, count=9, first_loaded=cleared, loaded=9)
    machine.clear(cleared, count)
    machine.invalidate(invalidated, mask)
    for page in range(cleared, cleared + 9):
        machine.request(FIRST, page * PAGE)
    assert machine.findings(tmp_path) == []


def test_a_range_of_which_nothing_met_a_fault_is_no_finding(tmp_path: Path) -> None:
    machine = Unmapping(first=3, count=4, first_loaded=3, loaded=4)
    machine.invalidate(0, 2)
    for page in range(4, 7):
        machine.request(FIRST, page * PAGE)
    assert machine.findings(tmp_path) == []


def test_a_change_that_a_recording_has_is_judged_by_memory(tmp_path: Path) -> None:
    machine = Unmapping(first=3, count=2, first_loaded=3, loaded=0)
    audit = Audit(machine.units[0])
    machine.request(FIRST, 3 * PAGE)
    machine.clear(3, 1)
    for debt in audit.findings:
        if debt.cache is CacheName.IOTLB:
            machine.recorder.saw(debt.changed.address, debt.changed.size, debt.now or 0)
    machine.request(FIRST, 3 * PAGE)
    path = machine.write(tmp_path / "made.jsonl.gz")
    (finding,) = audited(path).findings
    assert finding.line == len(machine.lines)
    assert isinstance(finding.use, Debt)
    assert finding.use.inferred is None
    assert finding.use.writer == f"line {finding.line - 1}"


def test_a_driver_that_owes_nothing_has_no_finding(tmp_path: Path) -> None:
    machine = RecordedMachine(caches=AGGRESSIVE)
    work(machine)
    report = audited(machine.write(tmp_path / "made.jsonl.gz"))
    assert report.findings == []
    assert report.uses > 10
    assert report.lines == len(machine.lines)


def test_a_broken_line_is_named() -> None:
    lines = list(enumerate([*RecordedMachine().lines, '["d", 0]'], 1))
    with pytest.raises(ScenarioError, match=r"^line \d+: d: 1 values instead of 4"):
        audit_live(lambda: nullcontext(iter(lines)))


def test_a_finding_says_what_it_was_inferred_from() -> None:
    stale = next(path for path in recordings() if "stale-first" in path.name)
    document: Any = json.loads(json.dumps(audited(stale).to_json()))
    first = document["findings"][0]
    assert first["line"] == 335
    assert first["inferred"] == (
        "of pages in a row from 0x70003000 on 0x70003000 has been unmapped, and 4 pages from "
        "0x70000000 on were invalidated"
    )


def test_an_entry_that_was_cleared_unseen_shares_no_domain(tmp_path: Path) -> None:
    machine = RecordedMachine(caches=AGGRESSIVE)
    driver, unit = machine.drivers[1], machine.units[1]
    driver.start()
    for source_id in (0x20, 0x28, 0x30):
        domain = driver.domain(domain_id=7)
        driver.attach(source_id, domain)
        domain.map(0, DATA, PAGE)
        assert unit.admit(Request(source_id, 0, READ)) == DATA
        driver.detach(source_id)
        driver.close(domain)
        driver.domain().map(0, DATA, PAGE)  # takes the frames, so that the next root is another
    assert audited(machine.write(tmp_path / "made.jsonl.gz")).findings == []
