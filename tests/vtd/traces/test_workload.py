"""Generated traces: what each kind of device sends, and who may be told nonsense."""

from __future__ import annotations

from collections import Counter

import pytest

np = pytest.importorskip("numpy", reason="traces need the batch extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from vtd.batch.columns import Requests, RowKind  # noqa: E402
from vtd.traces.rows import TraceError, checked  # noqa: E402
from vtd.traces.workload import Workload  # noqa: E402

DMA, INVALIDATE, MAP, UNMAP, MARKER = RowKind


def generated(text: str) -> Requests:
    rows: Requests = np.concatenate(list(checked(Workload.parse(text).arrays())))
    return rows


def stream(rows: int = 2000, **fields: object) -> str:
    told = "".join(f"{name} = {value!r}\n".replace("'", '"') for name, value in fields.items())
    return f"rows = {rows}\n[[stream]]\n{told}"


def test_a_packet_is_a_descriptor_its_data_and_a_completion() -> None:
    rows = generated(stream(kind="nic", ring=4, mtu=9000, direction="rx"))
    requests = rows[rows["kind"] == DMA]
    assert requests["length"][:6].tolist() == [16, 9000, 16, 16, 9000, 16]
    assert requests["access"][:3].tolist() == [1, 2, 2]
    assert requests["address"][0] == requests["address"][12]  # the ring has 4 descriptors
    assert len(set(requests["address"][1:13:3].tolist())) == 4
    period = np.diff(rows["time"][rows["kind"] == MARKER].astype(int))
    assert set(period.tolist()) <= {723, 724}  # 9042 bytes at 100 Gb/s


def test_a_command_reads_entry_and_list_and_moves_its_pages() -> None:
    rows = generated(stream(kind="nvme", block="16K", direction="tx"))
    first = rows[np.flatnonzero(rows["kind"] == MARKER)[0] + 1 :][:7]
    assert first["length"].tolist() == [64, 24, 4096, 4096, 4096, 4096, 16]
    assert first["access"].tolist() == [1, 1, 1, 1, 1, 1, 2]
    assert np.diff(first["address"][2:6].astype(int)).tolist() == [4096] * 3


STREAMS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["nic", "nvme"])},
    optional={
        "functions": st.integers(1, 5),
        "pasids": st.integers(0, 3),
        "order": st.sampled_from(["round-robin", "random"]),
        "buffers": st.sampled_from(["ring", "fresh", "scattered"]),
        "invalidation": st.sampled_from(["none", "strict", "deferred"]),
        "page_size": st.sampled_from([4096, "2M"]),
        "spread": st.integers(1, 50),
    },
)


@settings(max_examples=20)
@given(STREAMS)
def test_every_request_meets_what_software_has_mapped_and_not_taken_back(
    fields: dict[str, object],
) -> None:
    mapped: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for row in generated(stream(600, **fields)).tolist():
        _, start, _, length, pasid, source_id, kind, *_ = row
        ranges = mapped.setdefault((source_id, pasid), set())
        end = start + length
        if kind == MAP:
            assert not any(start < high and low < end for low, high in ranges)
            ranges.add((start, end))
        elif kind == UNMAP:
            ranges.remove((start, end))
        elif kind == DMA:
            assert any(low <= start and end <= high for low, high in ranges)


def test_deferred_invalidation_comes_after_256_unmaps_and_is_of_all_the_domain() -> None:
    rows = generated(stream(5000, kind="nic", functions=2, invalidation="deferred"))
    mine = rows[rows["source_id"] == 256]
    kinds = mine["kind"].tolist()
    unmaps = np.cumsum(mine["kind"] == UNMAP)[[n for n, k in enumerate(kinds) if k == INVALIDATE]]
    assert unmaps.tolist() == [256]
    assert mine["length"][mine["kind"] == INVALIDATE].tolist() == [0]


def test_streams_run_beside_each_other_and_end() -> None:
    text = "rows = 500\n" + "".join(
        f'[[stream]]\nkind = "sequential"\nat = "0{n}:00.0"\ninterval = {n}\nturns = {100 * n}\n'
        for n in (1, 2)
    )
    rows = generated(text)
    requests = rows[rows["kind"] == DMA]
    assert Counter(requests["source_id"].tolist()) == {0x100: 100, 0x200: 149}
    assert len(rows) == 500


def test_random_requests_stay_in_their_window_and_reach_all_of_it() -> None:
    rows = generated(stream(4000, kind="random", size="64K", length=64))
    addresses = rows["address"][rows["kind"] == DMA].astype(int)
    pages = np.unique(addresses >> 12)
    assert len(pages) == 16
    assert np.ptp(pages) == 15


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "stream: there is none; write [[stream]]"),
        ("rows = [", "not TOML"),
        ("stream = 3", "stream: there is none"),
        ("rows = -1\n[[stream]]\nkind='nic'", "rows: -1 is no number"),
        ("colour = 1\n[[stream]]\nkind='nic'", "colour: not one of rows, seed, stream"),
        ("[[stream]]\nkind='bus'", "stream 1: kind: 'bus' is none of sequential, random, nic"),
        ("[[stream]]\nkind='nic'\nwheels=3", "stream 1: wheels: not one of"),
        ("[[stream]]\nkind='nic'\nmtu='1Q'", "stream 1: mtu: '1Q' is no number"),
        ("[[stream]]\nkind='nic'\nbuffers='sea'", "stream 1: buffers: 'sea' is none of ring"),
        ("[[stream]]\nkind='nic'\npage_size=5000", "stream 1: page_size: 5000 is no page size"),
        ("[[stream]]\nkind='nic'\nat='x'", "stream 1: "),
        ("[[stream]]\nkind='nic'\nfunctions=0", "stream 1: functions: 0 is too small"),
        ("[[stream]]\nkind='nic'\nring=0", "stream 1: ring: 0 is too small"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(TraceError) as error:
        Workload.parse(text)
    assert str(error.value).startswith(said)
