"""Logs, JSON lines, CSV and recordings become rows; a line that is wrong is named."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="traces need the batch extra")
pytest.importorskip("numpy", reason="traces need the batch extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from vtd.batch.columns import ONLY_LEAVES, REQUESTS, RowKind
from vtd.traces.reading import FORMS, Reading, read_trace
from vtd.traces.rows import TraceError, TraceRow, in_arrays, parse_source
from vtd.traces.text import json_lines

ROOT = Path(__file__).parents[3]
DMA, INVALIDATE, MAP, UNMAP, MARKER = RowKind

QEMU = """\
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x80003 domain 0x7
vtd_dmar_translate dev 00:02.00 iova 0x5000 -> gpa 0x80000 mask 0xfff
vtd_dmar_translate dev 00:03.00 iova 0x9000 -> gpa 0x9000 mask 0xfff
vtd_inv_desc invalidate desc type iotlb high 0x5040 low 0x70032
vtd_inv_desc invalidate desc type wait high 0x0 low 0x5
vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0x6000 slpte 0x90003 domain 0x7
"""
HYPERSIO = """\
1@1600000000.000001:vtd_iotlb_page_update sid 0x18 iova 0xffe00000 slpte 0x1400003 level 0x2 domain 0x1
1@1600000000.000003:vtd_iotlb_page_hit sid 0x18 iova 0xffe01000 pmask 0xffe00000 slpte 0x1400003 domain 0x1
"""  # noqa: E501
FTRACE = """\
# tracer: nop
          <idle>-0     [001] d..1.    10.000001: dma_map_page: 0000:00:1f.2 dir=TO_DEVICE dma_addr=fffff000 size=512 phys_addr=1000 attrs=
          <idle>-0     [001] d..1.    10.000002: map: IOMMU: iova=0x00000000fffff000 - 0x00000000100000000 paddr=0x0000000000001000 size=4096
          <idle>-0     [001] d..1.    10.000004: dma_map_sg: 0000:00:1f.2 dir=FROM_DEVICE dma_addrs={0xff000,0xfe000} sizes={0x1000,0x800} phys_addrs={0x2000,0x9000} attrs=
          <idle>-0     [001] d..1.    10.000005: dma_unmap_sg: 0000:00:1f.2 dir=FROM_DEVICE phys_addrs={0x2000,0x9000} attrs=
          <idle>-0     [001] d..1.    10.000006: dma_unmap_page: 0000:00:1f.2 dir=TO_DEVICE dma_addr=fffff000 size=512 attrs=
          <idle>-0     [001] d..1.    10.000007: dma_map_page: usb1 dir=TO_DEVICE dma_addr=1 size=2 phys_addr=3 attrs=
"""  # noqa: E501
PERF = """\
kworker 77 [000] 5.000000100: iommu:map: IOMMU: iova=0x00000000fffff000 paddr=0x0000000000002000 size=8192
kworker 77 [000] 5.000000300: iommu:unmap: IOMMU: iova=0x00000000fffff000 size=8192 unmapped_size=8192
"""  # noqa: E501
BOTH = """\
 dd-1 [000] d..1. 5.000001: map: IOMMU: iova=0x00000000fffc0000 - 0x00000000fffc8000 paddr=0x0000000000010000 size=32768
 dd-1 [000] d..1. 5.000002: dma_map_phys: 0000:00:05.0 dir=TO_DEVICE dma_addr=fffc0200 size=32000 phys_addr=10200 attrs=
 dd-1 [000] d..1. 5.000003: map: IOMMU: iova=0x00000000fffb0000 - 0x00000000fffb4000 paddr=0x0000000000020000 size=16384
 dd-1 [000] d..1. 5.000004: map: IOMMU: iova=0x00000000fffb4000 - 0x00000000fffb8000 paddr=0x0000000000040000 size=16384
 dd-1 [000] d..1. 5.000005: unmap: IOMMU: iova=0x00000000fffc0000 - 0x00000000fffc8000 size=32768 unmapped_size=32768
 dd-1 [000] d..1. 5.000006: dma_unmap_phys: 0000:00:05.0 dir=TO_DEVICE dma_addr=fffc0200 size=32000 attrs=
 dd-1 [000] d..1. 5.000007: unmap: IOMMU: iova=0x00000000fffb0000 - 0x00000000fffb8000 size=32768 unmapped_size=32768
 dd-1 [000] d..1. 5.000008: map: IOMMU: iova=0x00000000fffb0000 - 0x00000000fffb4000 paddr=0x0000000000060000 size=16384
 dd-1 [000] d..1. 5.000009: map: IOMMU: iova=0x00000000fffb4000 - 0x00000000fffb5000 paddr=0x0000000000080000 size=4096
 dd-1 [000] d..1. 5.000010: dma_alloc: 0000:00:05.0 dma_addr=fffb0000 size=20480 virt_addr=ff flags=GFP_KERNEL attrs=
 dd-1 [000] d..1. 5.000011: dma_free: 0000:00:05.0 dma_addr=fffb0000 size=20480 virt_addr=ff attrs=
 dd-1 [000] d..1. 5.000012: unmap: IOMMU: iova=0x00000000fffb0000 - 0x00000000fffb5000 size=20480 unmapped_size=20480
"""  # noqa: E501
"""In a kernel's order: a dma event behind what its buffer maps and unmaps, but dma_free before.
The second buffer has none, as since Linux 6.17 what an NVMe disk transfers in pieces."""
BLKPARSE = """\
  8,0    3        1     0.000000000   697  G   W 223490 + 8 [kjournald]
  8,0    3        2     0.000001000   697  D   W 223490 + 8 [kjournald]
  8,0    3        3     0.000002000   697  D   R 100 + 16 [kjournald]
  8,0    3        4     0.000009000     0  C   W 223490 + 8 [0]
  8,0    3        5     0.000010000   697  D  WS 7 + 8 [kjournald]
  8,0    3        6     0.000011000   697  D  FN 0 + 0 [kjournald]
"""
BLOCK_EVENTS = """\
fio 9 [001] 7.000000: block:block_rq_issue: 259,0 R 4096 () 800 + 8 none,0,0 [fio]
fio 9 [001] 7.000002: block:block_rq_complete: 259,0 R () 800 + 8 none,0,0 [0]
"""


def rows_of(text: str | bytes, how: Reading = Reading()) -> list[TraceRow]:  # noqa: B008
    data = text if isinstance(text, bytes) else text.encode()
    stream = io.BufferedReader(io.BytesIO(data))
    return [TraceRow(*row) for array in read_trace("-", how, stream) for row in array.tolist()]


def test_qemu_lines_are_requests_once_and_invalidations_of_who_is_in_the_domain() -> None:
    assert rows_of(QEMU) == [
        TraceRow(0, 0x5000, 0x80000, 1, source_id=0x10),
        TraceRow(2, 0x9000, 0x9000, 1, source_id=0x18),
        TraceRow(3, 0x5000, 0, 0x1000, source_id=0x10, kind=INVALIDATE, access=0,
                 attributes=ONLY_LEAVES),
        TraceRow(5, 0x6000, 0x90000, 1, source_id=0x10),
    ]  # fmt: skip


SEEN = """\
vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x5000 slpte 0x80003 domain 0x7
vtd_iotlb_page_update IOTLB page update sid 0x18 iova 0x6000 slpte 0x90003 domain 0x8
"""


@pytest.mark.parametrize(
    ("lines", "removed"),
    [
        ("vtd_inv_desc_iotlb_pages domain 0x7 addr 0x5123 mask 0x1", [(0x5000, 0x2000, 0x10)]),
        ("vtd_inv_desc_iotlb_domain iotlb invalidate domain 0x8", [(0, 0, 0x18)]),
        ("vtd_inv_desc_iotlb_global iotlb invalidate global", [(0, 0, 0x10), (0, 0, 0x18)]),
        ("vtd_inv_desc_iotlb_domain iotlb invalidate domain 0x9", []),
        ("vtd_inv_desc invalidate desc type iotlb high 0x0 low 0x12", [(0, 0, 0x10), (0, 0, 0x18)]),
        ("vtd_inv_desc invalidate desc type iotlb high 0x0 low 0x80022", [(0, 0, 0x18)]),
        ("vtd_inv_desc invalidate desc type iotlb high 0x0 low 0x80002", []),
        ("vtd_inv_desc invalidate desc type p-iotlb high 0x0 low 0x80026", [(0, 0, 0x18)]),
        (
            "vtd_inv_desc invalidate desc type p-iotlb high 0x5001 low 0x500070036",
            [(0x5000, 0x2000, 0x10)],
        ),
        ("vtd_inv_desc invalidate desc type p-iotlb high 0x0 low 0x80016", []),
        (
            "vtd_inv_desc invalidate desc type iotlb high 0x0 low 0x80022\n"
            "vtd_inv_desc_iotlb_domain iotlb invalidate domain 0x8",
            [(0, 0, 0x18)],
        ),
        pytest.param(
            "vtd_inv_desc invalidate desc type iotlb high 0x0 low 0x80022\n"
            "vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x8\n"
            "vtd_reg_write addr 0xf8 size 0x8 value 0x9000000000000000\n"
            "vtd_inv_desc_iotlb_global iotlb invalidate global",
            [(0, 0, 0x18), (0, 0, 0x10), (0, 0, 0x18)],
            id="by a descriptor, then by IOTLB_REG",
        ),
    ],
)
def test_an_invalidation_of_qemu_concerns_who_was_seen_in_its_domain(
    lines: str, removed: list[tuple[int, int, int]]
) -> None:
    """The line behind a descriptor that takes it apart tells of no second one."""
    rows = rows_of(f"{SEEN}a line of something else\n{lines}\n")
    assert [row.kind for row in rows[:2]] == [DMA, DMA]
    assert all(row.kind == INVALIDATE and not row.attributes for row in rows[2:])
    assert [(row.address, row.length, row.source_id) for row in rows[2:]] == removed


def test_hypersio_logs_have_levels_masks_and_times() -> None:
    assert rows_of(HYPERSIO) == [
        TraceRow(0, 0xFFE0_0000, 0x140_0000, 1, source_id=0x18),
        TraceRow(2000, 0xFFE0_1000, 0x140_0000, 1, source_id=0x18),
    ]


def test_times_of_qemu_are_those_of_its_log_in_either_form() -> None:
    stamps = ("1600000000.000001:", "1600000001.500001:")
    older = "".join(
        f"77@{stamp}{line}\n" for stamp, line in zip(stamps, SEEN.splitlines(), strict=True)
    )
    stamps = ("2026-11-29T23:59:59.999999Z ", "2026-11-30T00:00:01.499999Z ")
    newer = "".join(
        f"{stamp}{line}\n" for stamp, line in zip(stamps, SEEN.splitlines(), strict=True)
    )
    assert rows_of(newer) == rows_of(older)
    assert [row.time for row in rows_of(newer)] == [0, 1_500_000_000]


def test_a_log_may_begin_with_any_number_of_other_lines() -> None:
    firmware = "vtd_reg_write_gcmd status 0x0 val 0x0\n"
    assert rows_of(firmware * 10_000 + QEMU)[0] == TraceRow(
        10_000, 0x5000, 0x80000, 1, source_id=16
    )
    other = "          <idle>-0     [001] d..2.    10.000001: sched_wakeup: comm=a pid=1 prio=1\n"
    assert rows_of(other * 10_000 + FTRACE) == rows_of(FTRACE)
    assert rows_of(other * 10_000 + BLKPARSE) == rows_of(BLKPARSE)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2026-11-29T11:15:54.279819Z vtd_context_cache_reset \n", "qemu"),
        (BLKPARSE.splitlines()[-1], "block"),
        ("time,source_id,address,length\n", "csv"),
    ],
)
def test_a_log_without_a_request_is_an_error_that_says_what_would_be_one(
    text: str, form: str
) -> None:
    with pytest.raises(TraceError, match=re.escape(f"no row in it: {FORMS[form]}")):
        rows_of(text)


def test_a_date_that_is_none_is_named_with_its_line() -> None:
    line = "2026-13-29T11:15:54.279819Z vtd_context_cache_reset"
    with pytest.raises(TraceError, match="line 2, column time: month must be in"):
        rows_of(f"{SEEN.splitlines()[0]}\n{line}\n")


def test_dma_events_of_linux_name_device_buffer_and_direction() -> None:
    disk = parse_source("0000:00:1f.2")
    assert [
        (row.time, row.kind, row.address, row.length, row.access) for row in rows_of(FTRACE)
    ] == [
        (0, MAP, 0xFFFFF000, 512, 3),
        (0, DMA, 0xFFFFF000, 512, 1),
        (3000, MAP, 0xFF000, 0x1000, 3),
        (3000, DMA, 0xFF000, 0x1000, 2),
        (3000, MAP, 0xFE000, 0x800, 3),
        (3000, DMA, 0xFE000, 0x800, 2),
        (4000, UNMAP, 0xFF000, 0x1000, 0),
        (4000, UNMAP, 0xFE000, 0x800, 0),
        (5000, UNMAP, 0xFFFFF000, 512, 0),
    ]
    assert {row.source_id for row in rows_of(FTRACE)} == {disk}


def test_iommu_events_need_a_source() -> None:
    with pytest.raises(TraceError, match="line 1, column source_id: iommu:map names no device"):
        rows_of(PERF)
    assert [(row.time, row.kind, row.source_id) for row in rows_of(PERF, Reading(source=8))] == [
        (0, MAP, 8), (0, DMA, 8), (200, UNMAP, 8),
    ]  # fmt: skip


def test_an_iommu_event_that_a_dma_event_tells_better_is_told_once() -> None:
    with pytest.raises(TraceError, match="line 3, column source_id: iommu:map names no device"):
        rows_of(BOTH)
    disk, other = parse_source("0000:00:05.0"), 8
    assert [
        (row.time // 1000, row.kind, row.address, row.length, row.source_id)
        for row in rows_of(BOTH, Reading(source=other))
    ] == [
        (1, MAP, 0xFFFC_0200, 32000, disk), (1, DMA, 0xFFFC_0200, 32000, disk),
        (2, MAP, 0xFFFB_0000, 0x4000, other), (2, DMA, 0xFFFB_0000, 0x4000, other),
        (3, MAP, 0xFFFB_4000, 0x4000, other), (3, DMA, 0xFFFB_4000, 0x4000, other),
        (5, UNMAP, 0xFFFC_0200, 32000, disk),
        (6, UNMAP, 0xFFFB_0000, 0x8000, other),
        (9, MAP, 0xFFFB_0000, 20480, disk),
        (10, UNMAP, 0xFFFB_0000, 20480, disk),
    ]  # fmt: skip


def test_an_iommu_event_is_not_claimed_by_a_later_buffer_at_its_address() -> None:
    """An address that is unmapped in between is another buffer's."""
    lines = BOTH.splitlines()
    later = [lines[2], lines[6], lines[7], lines[9]]  # the second buffer's, then the coherent one's
    rows = rows_of("\n".join(later), Reading(source=8))
    assert [(row.kind, row.source_id) for row in rows] == [
        (MAP, 8), (DMA, 8), (UNMAP, 8), (MAP, parse_source("0000:00:05.0")),
    ]  # fmt: skip


def test_block_requests_get_addresses_as_linux_gives_them() -> None:
    rows = rows_of(BLKPARSE)
    assert [(row.time, row.kind, row.address, row.length) for row in rows] == [
        (0, MAP, 0xFFFF_F000, 4096), (0, MARKER, 223490, 0), (0, DMA, 0xFFFF_F000, 4096),
        (1000, MAP, 0xFFFF_C000, 8192), (1000, MARKER, 100, 0), (1000, DMA, 0xFFFF_C000, 8192),
        (8000, UNMAP, 0xFFFF_F000, 4096),
        (9000, MAP, 0xFFFF_F000, 4096), (9000, MARKER, 7, 0), (9000, DMA, 0xFFFF_F000, 4096),
    ]  # fmt: skip
    assert [row.access for row in rows if row.kind == DMA] == [1, 2, 1]
    assert [row.kind for row in rows_of(BLOCK_EVENTS)] == [MAP, MARKER, DMA, UNMAP]


def test_rows_of_json_lines_and_csv_come_back() -> None:
    rows = [*rows_of(FTRACE), TraceRow(9000, 1, 2, 3, 4, 5, DMA, 2 | 16, 1)]
    text = "".join(json_lines(in_arrays(rows)))
    assert rows_of(text) == rows == rows_of(gzip.compress(text.encode()))
    table = [
        "time,source,address,length,access",
        "7,0000:00:02.0,0x1000,64,write",
        "8,00:02.0,16,1,1",
    ]
    assert rows_of("\n".join(table)) == [
        TraceRow(7, 0x1000, 0, 64, source_id=0x10, access=2),
        TraceRow(8, 16, 0, 1, source_id=0x10),
    ]


def test_a_live_recording_has_requests_and_what_was_invalidated() -> None:
    place = str(ROOT / "tests" / "recordings" / "k7-rec-legacy48.jsonl.gz")
    rows = [row for array in read_trace(place) for row in array]
    assert sum(row["kind"] == DMA for row in rows) == 1861  # lines "d" of the recording
    assert sum(row["kind"] == INVALIDATE and row["length"] > 0 for row in rows) > 100


def test_unsorted_lines_are_named_unless_they_are_to_be_sorted() -> None:
    text = '{"time": 5, "address": 1}\n{"time": 4, "address": 2}\n'
    with pytest.raises(TraceError, match="row 1, column time: 4 is less than 5"):
        rows_of(text)
    assert [row.time for row in rows_of(text, Reading(sort=True))] == [4, 5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("hello\nworld\n", "line 1: none of parquet"),
        ('{"time": 1}\n', "line 1, column address: missing"),
        ('{"address": 1}\n[]\n', "line 2: not an object"),
        ('{"address": 1}\n{"addr\n', "line 2: not JSON"),
        ('{"address": "x"}\n', "line 1, column address: 'x' is no number"),
        ('{"address": 1.5}\n', "line 1, column address: 1.5 is no number"),
        ('{"address": 1, "kind": "fly"}\n', "line 1, column kind: 'fly' is no number"),
        ('{"address": 1, "source": "00:99.0"}\n', "line 1, column source"),
        ('{"address": 1, "length": 4294967296}\n', "row 0, column length: 4294967296 does not fit"),
        ("time,address\n1,2\n3,zz\n", "line 3, column address: 'zz' is no number"),
        (QEMU.replace("00:03.00", "00:03.09"), "line 3, column source_id"),
        (HYPERSIO.replace(".000003", ".000000"), "line 2, column time: before the first line"),
        (gzip.compress(b'{"address": 1}\n' * 900, mtime=0)[:60], "not all of a gzip file"),
    ],
)
def test_what_is_wrong_is_named_by_line(text: str | bytes, said: str) -> None:
    with pytest.raises(TraceError) as error:
        rows_of(text)
    assert str(error.value).startswith(said)


def test_the_columns_of_a_row_are_those_of_an_array() -> None:
    assert TraceRow._fields == REQUESTS.names


DAMAGE = [b"", b"9" * 30, b"-", b"\0", b"\xff", b"{", b",", b"f" * 20]
SAMPLES = [
    QEMU,
    HYPERSIO,
    FTRACE,
    PERF,
    BOTH,
    BLKPARSE,
    BLOCK_EVENTS,
    '{"address": 1, "length": 2}\n',
]


@settings(max_examples=150)
@given(st.data())
def test_a_log_with_damage_gives_rows_or_one_line(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SAMPLES)).encode()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        put = data.draw(
            st.sampled_from([b"", b"9" * 30, b"-", b"\0", b"\xff", b"{", b",", b"f" * 20])
        )
        text = text[:at] + put + text[at + data.draw(st.integers(0, 5)) :]
    try:
        rows_of(text, Reading(source=8, form=data.draw(st.sampled_from([None, "csv", "jsonl"]))))
    except TraceError as error:
        assert "\n" not in str(error)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(TraceError, match="line 1: longer than 1 MiB"):
        rows_of(bytes(3 << 20))
