"""Parquet traces: what is written comes back, and what is wrong is named by row and column."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy", reason="traces need the batch extra")
pa = pytest.importorskip("pyarrow", reason="traces need the batch extra")
pytest.importorskip("fsspec", reason="traces need the batch extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from pyarrow import parquet as pq  # noqa: E402

from vtd.batch.columns import NO_PASID, REQUESTS, RowKind, new_rows  # noqa: E402
from vtd.traces import parquet  # noqa: E402
from vtd.traces.rows import (  # noqa: E402
    CHECKED_AT_ONCE,
    TraceError,
    TraceRow,
    checked,
    in_arrays,
)

U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
PASIDS = st.just(NO_PASID) | st.integers(0, (1 << 20) - 1)
ROWS = st.builds(
    TraceRow, U64, st.integers(0, (1 << 64) - (1 << 32)), U64, U32, PASIDS, U32,
    st.sampled_from(RowKind), st.integers(1, 3), st.integers(0, 7),
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(ROWS, max_size=40), st.integers(1, 50))
def test_what_is_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[TraceRow], size: int
) -> None:
    rows.sort(key=lambda row: row.time)
    place = str(tmp_path_factory.mktemp("t") / "trace.parquet")
    assert parquet.write(place, in_arrays(rows, 7)) == len(rows) == sum(parquet.group_sizes(place))
    read = [tuple(row.tolist()) for array in parquet.read(place, size) for row in array]
    assert read == [tuple(map(int, row)) for row in rows]


def test_addresses_are_stored_as_differences_and_the_rest_as_numbers_of_values(
    tmp_path: Path,
) -> None:
    place = tmp_path / "trace.parquet"
    parquet.write(str(place), [new_rows(5000, address=np.arange(5000) * 4096, access=1)])
    columns = pq.ParquetFile(place).metadata.row_group(0)
    for at in range(columns.num_columns):
        column = columns.column(at)
        differences = column.path_in_schema in parquet.DIFFERENCES
        assert ("DELTA_BINARY_PACKED" in column.encodings) is differences
        assert column.compression == "ZSTD"


@pytest.mark.parametrize("at", [CHECKED_AT_ONCE - 1, CHECKED_AT_ONCE, 2 * CHECKED_AT_ONCE + 3])
def test_a_wrong_row_is_found_wherever_it_is(at: int) -> None:
    for column, value in (("time", 0), ("kind", 9), ("attributes", 8)):
        rows = new_rows(3 * CHECKED_AT_ONCE, time=5, access=1)
        rows[column][at] = value
        with pytest.raises(TraceError, match=f"row {at + 100}, column {column}: {value}"):
            list(checked([rows[:10], rows[10:]], 100))


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 30))
def test_parts_are_the_file_and_are_as_large_as_wanted(
    tmp_path_factory: pytest.TempPathFactory, rows: int, group: int, least: int
) -> None:
    place = str(tmp_path_factory.mktemp("t") / "trace.parquet")
    columns = {name: np.arange(rows) for name in parquet.REQUIRED}
    pq.write_table(pa.table(columns), place, row_group_size=group)
    parts = parquet.parts_of(place, least)
    read = [
        [int(time) for columns in parquet.read_columns(place, part) for time in columns["time"]]
        for part in parts
    ]
    assert [time for each in read for time in each] == list(range(rows))
    assert [part.first for part in parts] == list(accumulate(map(len, read), initial=0))[:-1]
    assert all(least <= len(each) < least + group for each in read[:-1])


def test_what_is_wrong_in_a_part_has_the_row_of_the_file(tmp_path: Path) -> None:
    place = str(tmp_path / "t")
    columns = {name: [1, 2, 3, 4] for name in parquet.REQUIRED}
    pq.write_table(pa.table(columns | {"length": [1, 1, 1, -1]}), place, row_group_size=2)
    (part,) = parquet.parts_of(place, 2)[1:]
    with pytest.raises(TraceError, match="row 3, column length: -1"):
        list(parquet.read_columns(place, part))
    pq.write_table(pa.table(columns | {"pasid": [0, 0, 0, -2]}), place, row_group_size=2)
    with pytest.raises(TraceError, match="row 3, column pasid"):
        list(parquet.read_columns(place, part))


def file_of(place: Path, **columns: Any) -> str:
    told = {"time": [1, 2, 3], "source_id": [8] * 3, "address": [0] * 3, "length": [4] * 3}
    pq.write_table(pa.table(told | columns), place)
    return str(place)


def test_columns_of_other_integer_types_are_read_and_missing_ones_have_defaults(
    tmp_path: Path,
) -> None:
    (rows,) = parquet.read(file_of(tmp_path / "t", length=pa.array([1, 2, 3], pa.int16())))
    assert rows["length"].tolist() == [1, 2, 3]
    assert rows["access"].tolist() == [1, 1, 1]
    assert set(rows["pasid"].tolist()) == {NO_PASID}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"time": [1, 5, 4]}, "row 2, column time: 4 is less than 5, the row before"),
        ({"length": [1.5, 2, 3]}, "row 0, column length: of type double, not uint32"),
        ({"address": ["0x1", "", ""]}, "row 0, column address: of type string, not uint64"),
        ({"length": [1, 2, -3]}, "row 2, column length: -3 is no uint32"),
        ({"pasid": [0, 1 << 20, 0]}, "row 1, column pasid: 1048576: above 0xfffff"),
        ({"kind": [0, 1, 9]}, "row 2, column kind: 9: not one of 0 to 4"),
        ({"access": [1, 0, 0]}, "row 1, column access: 0: no access of a request"),
        ({"attributes": [0, 8, 0]}, "row 1, column attributes: 8: bits that mean nothing"),
        ({"address": [0, (1 << 64) - 1, 0]}, "row 1, column length: 4: beyond the end"),
        ({"source_id": pa.array([1, None, 2])}, "row 1, column source_id: no value"),
    ],
)
def test_what_is_wrong_is_named_by_row_and_column(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    if "address" in columns and isinstance(columns["address"][1], int):
        columns = {"address": pa.array(columns["address"], pa.uint64())}
    with pytest.raises(TraceError) as error:
        list(parquet.read(file_of(tmp_path / "t", **columns)))
    assert str(error.value).startswith(said)


def test_a_column_that_is_needed_and_a_file_that_is_cut_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": [1]}), tmp_path / "t")
    with pytest.raises(TraceError, match="column source_id: missing"):
        list(parquet.read(str(tmp_path / "t")))
    whole = Path(file_of(tmp_path / "whole")).read_bytes()
    for length in (0, 3, 40, len(whole) - 5):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(TraceError, match="no Parquet file, or only a part of one"):
            list(parquet.read(str(tmp_path / "cut")))


def test_a_file_that_is_damaged_inside_has_the_row(tmp_path: Path) -> None:
    place = tmp_path / "t"
    columns = {name: np.arange(4000) for name in parquet.REQUIRED}
    pq.write_table(pa.table(columns), place, row_group_size=2000, compression="zstd")
    column = pq.ParquetFile(place).metadata.row_group(1).column(0)
    data = bytearray(place.read_bytes())
    at = column.dictionary_page_offset
    data[at : at + column.total_compressed_size] = bytes(column.total_compressed_size)
    place.write_bytes(data)
    with pytest.raises(TraceError, match="damaged from row 2000 on: "):
        list(parquet.read(str(place)))


def test_a_trace_that_goes_wrong_half_way_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path,
) -> None:
    place = tmp_path / "trace.parquet"
    parquet.write(str(place), [new_rows(3, access=1)])
    before = place.read_bytes()
    unsorted = [new_rows(2, access=1, time=5), new_rows(2, access=1, time=4)]
    with pytest.raises(TraceError, match="row 2, column time"):
        parquet.write(str(place), unsorted)
    assert place.read_bytes() == before
    assert list(tmp_path.iterdir()) == [place]


def test_addresses_of_fsspec_are_written_whole_or_not_at_all() -> None:
    place = "memory://vtd-test/trace.parquet"
    assert parquet.write(place, [new_rows(3, access=1, address=9)]) == 3
    assert [len(rows) for rows in parquet.read(place)] == [3]
    other = "memory://vtd-test/other.parquet"
    with pytest.raises(TraceError):
        parquet.write(other, [new_rows(1, time=5, access=1), new_rows(1, access=1)])
    with pytest.raises(OSError, match="other"):
        list(parquet.read(other))


def test_the_columns_of_a_file_are_those_of_a_request() -> None:
    assert tuple(parquet.SCHEMA.names) == REQUESTS.names
