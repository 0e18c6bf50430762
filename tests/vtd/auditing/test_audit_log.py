"""Logs of the three kinds: what they show is found, what is wrong in them is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.reference_data import CAPTURES, capture_folders
from vtd.auditing.audit_log import audit_log
from vtd.auditing.debt import Debt
from vtd.auditing.lint import lint_log
from vtd.auditing.log_lines import AuditLogError
from vtd.layouts.descriptors import DeviceTlbInvalidateDescriptor
from vtd.layouts.entries import TranslationType
from vtd.layouts.registers import ExtendedCapability
from vtd.unit.observer import CacheName

HEAD: dict[str, Any] = {
    "unit": {
        "version": "0x10",
        "cap": "0x80d2008c222f0606",
        "ecap": "0xf00f4a",
        "host_address_width": 48,
    },
    "memory": [["0x0", "0x100000"]],
    "devices": {"nic": {"source_id": "0x10"}},
}


def store(address: int, *words: int) -> dict[str, Any]:
    data = b"".join(word.to_bytes(8, "little") for word in words)
    return {"op": "mem_write", "addr": hex(address), "hex": data.hex()}


SETUP = [
    store(0x1000, 0x2001, 0),
    store(0x2100, 0x10001, 7 << 8 | 2),
    store(0x10000, 0x11003),
    store(0x11000, 0x12003),
    store(0x12000, 0x13003),
    store(0x13000, 0x80003),
    {"op": "reg_write", "offset": "0x20", "size": 8, "value": "0x1000"},
    {"op": "reg_write", "offset": "0x18", "size": 4, "value": "0x40000000"},
    {"op": "reg_write", "offset": "0x18", "size": 4, "value": "0x80000000"},
]
DMA = {"op": "dma_write", "device": "nic", "iova": "0x10", "hex": "00"}
CHANGE = store(0x13000, 0x90003)
PAGE_INVALIDATION = {"op": "invalidate", "descriptor": hex(2 | 3 << 4 | 7 << 16)}

TRACE = """\
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x80003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x80000 mask 0xfff
{between}
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x90003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x90000 mask 0xfff
"""


def lines(*steps: Any) -> list[str]:
    return [json.dumps(step) for step in (HEAD, *SETUP, *steps)]


def test_a_platform_log_names_the_lines_of_write_and_use() -> None:
    report = audit_log(lines(DMA, CHANGE, DMA))
    (finding,) = report.findings
    assert (report.kind, report.lines, finding.line) == ("platform log", 13, 13)
    assert isinstance(finding.use, Debt)
    assert finding.use.writer == "line 12"
    assert report.to_json()["findings"][0]["missing"].startswith("page-selective iotlb_inv")


@pytest.mark.parametrize("is_off", [True, False])
def test_tables_of_before_are_looked_at_while_they_are_in_use(is_off: bool) -> None:
    """Memory of tables may be used anew once translation is off, until they are set again."""
    off = {"op": "reg_write", "offset": "0x18", "size": 4, "value": "0x0"}
    found = lint_log(lines(*[off] * is_off, store(0x1000, 0xFFFF_FFFF_FFFF_FFFF)))
    assert bool(found) is not is_off


def test_invalidations_that_met_nothing_are_counted_where_memory_is_known() -> None:
    report = audit_log(lines(DMA, PAGE_INVALIDATION, CHANGE, PAGE_INVALIDATION, DMA))
    assert (report.descriptors, report.wasteful) == (2, 1)


@pytest.mark.parametrize(
    ("flushed", "invalidated", "title"),
    [(True, False, "missing"), (False, True, "unflushed"), (True, True, None)],
)
def test_stores_that_wait_in_cache_lines_have_writers_too(
    flushed: bool, invalidated: bool, title: str | None
) -> None:
    """3.10: the unit sees them after the flush; who made them is known before."""
    steps: list[dict[str, Any]] = [{**HEAD, "stores_wait": True}]
    paid = [PAGE_INVALIDATION] * invalidated
    for step in (*SETUP, DMA, CHANGE, *paid, DMA):
        steps.append(step)
        if step["op"] == "mem_write" and (flushed or step is not CHANGE):
            steps.append({"op": "mem_flush", "addr": step["addr"], "length": 64})
    uses = [finding.use for finding in audit_log(map(json.dumps, steps)).findings]
    assert [use.title for use in uses] == ([title] if title else [])
    assert {getattr(use, "writer", None) for use in uses} <= {f"line {steps.index(CHANGE) + 1}"}


def test_a_device_that_writes_to_tables_changes_them() -> None:
    """What is found to be as it was read is looked at again after the store of anybody."""
    tables = store(0x13008, 0x13003)
    itself = {**DMA, "iova": "0x1000", "hex": (0x90003).to_bytes(8, "little").hex()}
    (finding,) = audit_log(lines(tables, DMA, DMA, itself, DMA)).findings
    assert finding.line == 15


@pytest.mark.parametrize("given", [(0, 1), (0,), (1,), ()])
def test_units_that_share_tables_owe_an_invalidation_each(given: tuple[int, ...]) -> None:
    """6.10. The head lists ``units``; devices and what software does to a unit name theirs."""
    devices = {f"nic{unit}": {"source_id": "0x10", "unit": unit} for unit in range(2)}
    head = {**HEAD, "units": [HEAD["unit"]] * 2, "devices": devices}
    setup = [
        {**step, "unit": unit} if step["op"] == "reg_write" else step
        for unit in range(2)
        for step in SETUP
    ]
    uses = [{**DMA, "device": name} for name in devices]
    paid = [{**PAGE_INVALIDATION, "unit": unit} for unit in given]
    steps = [head, *setup, *uses, CHANGE, *paid, *uses]
    report = audit_log(map(json.dumps, steps))
    assert {finding.unit for finding in report.findings} == {0, 1} - set(given)
    lint_log(map(json.dumps, steps))


def test_a_unit_that_is_not_there_is_named() -> None:
    with pytest.raises(AuditLogError, match="line 12: unit: 1 is not one of 1 units"):
        audit_log(lines(DMA, {**PAGE_INVALIDATION, "unit": 1}))


def test_a_descriptor_counts_as_the_invalidation_it_is() -> None:
    assert not audit_log(lines(DMA, CHANGE, PAGE_INVALIDATION, DMA)).findings


@pytest.mark.parametrize("told", [False, True])
def test_a_device_tlb_that_was_forgotten_is_found_in_a_log(told: bool) -> None:
    """Table 28: the page goes, its iotlb_inv is given, and the device goes on or is told."""
    unit = {**HEAD["unit"], "ecap": hex(0xF00F4A | ExtendedCapability.of(dt=True))}
    device = {"device": "nic", "iova": "0x0", "count": 1, "no_write": False}
    everything = DeviceTlbInvalidateDescriptor.of(sid=0x10, s=True, addr=0x7FFF_FFFF_FFFF_F000)
    steps: list[dict[str, Any]] = [
        {**HEAD, "unit": unit},
        *SETUP,
        store(0x2100, 0x10001 | TranslationType.DEVICE_TLB << 2),
        {"op": "ats_translate", **device},
        store(0x13000, 0),
        PAGE_INVALIDATION,
        {"op": "invalidate", "descriptor": hex(everything)}
        if told
        else {"op": "translated_write", "device": "nic", "address": "0x80000", "hex": "78"},
    ]
    findings = audit_log(map(json.dumps, steps)).findings
    missing = [finding.use.missing for finding in findings if isinstance(finding.use, Debt)]
    assert missing == ([] if told else ["dev_tlb_inv of 00:02.0, address 0x0"])
    assert len(findings) == len(missing)


def test_an_invalidation_before_the_write_comes_too_early() -> None:
    """A unit may look the page up again at once, whether or not a device has asked (6.2.2.1)."""
    for early in ((DMA, PAGE_INVALIDATION), (DMA, PAGE_INVALIDATION, DMA)):
        assert audit_log(lines(*early, CHANGE, DMA)).findings
        assert not audit_log(lines(*early, CHANGE, PAGE_INVALIDATION, DMA)).findings


def test_a_trace_shows_an_entry_that_changed_without_an_invalidation() -> None:
    (finding,) = audit_log(TRACE.format(between="").splitlines()).findings
    assert finding.line == 5
    assert isinstance(finding.use, Debt)
    assert finding.use.cache is CacheName.IOTLB


@pytest.mark.parametrize(
    "high, low, covered",
    [(0x5000, 2 | 3 << 4 | 7 << 16, True), (0x6000, 2 | 3 << 4 | 7 << 16, False)],
)
def test_a_trace_shows_the_descriptors_of_the_queue(high: int, low: int, covered: bool) -> None:
    between = f"vtd_inv_desc invalidate desc type iotlb high {high:#x} low {low:#x}"
    assert bool(audit_log(TRACE.format(between=between).splitlines()).findings) is not covered


ABSENT, FIRST, SECOND = 0, 0x40090_00000000_00300001, 0x40090_00000000_00310001
FORGET = "vtd_inv_desc invalidate desc type iec high 0x0 low 0x200000014"


def interrupt(entry: int) -> str:
    """QEMU prints the upper half of entry 2 as the lower one, and the lower as the upper."""
    upper, lower = entry >> 64, entry & (1 << 64) - 1
    return f"vtd_ir_irte_get index 2 low {upper:#x} high {lower:#x}"


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        ((interrupt(FIRST), interrupt(SECOND)), [2]),
        ((interrupt(FIRST), FORGET, interrupt(SECOND)), []),
        ((interrupt(FIRST), FORGET.replace("0x2", "0x3"), interrupt(SECOND)), [3]),
        ((interrupt(ABSENT), interrupt(FIRST)), []),
        ((interrupt(FIRST), interrupt(ABSENT), interrupt(SECOND)), [2]),
    ],
)
def test_a_trace_shows_interrupt_entries_that_changed_without_an_invalidation(
    trace: tuple[str, ...], found: list[int]
) -> None:
    """One that was not present needs none: CM = 0, nothing keeps it (6.1)."""
    findings = audit_log(trace).findings
    assert [finding.line for finding in findings] == found
    for finding in findings:
        assert isinstance(finding.use, Debt)
        assert finding.use.cache is CacheName.INTERRUPT
        assert f"changed from {FIRST:#x}" in str(finding.use)


def test_a_unit_with_caching_mode_keeps_interrupt_entries_that_are_not_present() -> None:
    events = [["r", 8, 8, 0x80D2008C222F0606 | 1 << 7], ["msi", 0, 0, 0, 0, [2, 0, 0], 1]]
    events.append(["msi", 0, 0, 0, 0, [2, 0x300001, 0x40090], 1])
    assert [finding.line for finding in audit_log(map(json.dumps, events)).findings] == [3]


@pytest.mark.parametrize("folder", capture_folders(), ids=lambda folder: folder.name)
def test_the_captures_have_no_findings(folder: Path) -> None:
    with gzip.open(folder / "events.jsonl.gz", "rt") as log:
        report = audit_log(log)
    assert report.uses > 100
    assert report.descriptors > 50
    assert report.wasteful is None
    assert [str(finding.use) for finding in report.findings] == []


def test_a_capture_without_its_invalidations_has_findings() -> None:
    for name in ("legacy39-lazy", "sm-first-stage"):
        path = CAPTURES / name / "events.jsonl.gz"
        with gzip.open(path, "rt") as log:
            kept = [line for line in log if json.loads(line)[0] != "iq"]
        assert audit_log(kept).findings


@pytest.mark.parametrize(
    "log, problem",
    [
        (["hello"], "line 1: neither"),
        (["{"], "line 1: not JSON"),
        (["{}"], "line 1: 'unit' is missing"),
        (["[]"], "line 1: not an array"),
        (['["w", 1, 2, 3]', "[3]"], "line 2: not an array"),
        ([*lines(), '{"op": "dma_read"}'], "line 11: 'device' is missing"),
        ([*lines(), "17"], "line 11: "),
        (
            [*lines(), '{"op": "invalidate", "descriptor": -5}'],
            "line 11: descriptor: -5 is no number",
        ),
    ],
)
def test_a_line_that_is_wrong_is_named(log: list[str], problem: str) -> None:
    with pytest.raises(AuditLogError) as error:
        audit_log(log)
    assert str(error.value).startswith(problem)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(lines(DMA, CHANGE, PAGE_INVALIDATION)),
            st.builds(
                lambda name, fields: json.dumps([name, *fields]),
                st.sampled_from(["w", "iq", "iotlb", "dma", "msi"]),
                st.lists(
                    st.one_of(st.integers(), st.text(max_size=4), st.lists(st.integers())),
                    max_size=6,
                ),
            ),
        ),
        max_size=6,
    )
)
def test_any_text_is_audited_or_refused(log: list[str]) -> None:
    try:
        audit_log(log)
    except AuditLogError as error:
        assert error.line >= 1
