import pytest

np = pytest.importorskip("numpy", reason="needs the batch extra")

from vtd.batch.columns import NO_PASID, REQUESTS, RowKind, new_rows  # noqa: E402


def test_a_row_has_forty_bytes_and_each_column_its_alignment() -> None:
    assert REQUESTS.itemsize == 40
    for name, (kind, offset, *_) in (REQUESTS.fields or {}).items():
        assert offset % kind.itemsize == 0, name


def test_columns_not_given_are_zero_and_without_pasid() -> None:
    rows = new_rows(3, address=[1, 2, 3], access=1)
    assert rows["address"].tolist() == [1, 2, 3]
    assert rows["access"].tolist() == [1, 1, 1]
    assert set(rows["pasid"].tolist()) == {NO_PASID}
    assert set(rows["kind"].tolist()) == {RowKind.DMA}
    assert not rows["time"].any()
    assert not rows["target"].any()


def test_a_column_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no such column: colour"):
        new_rows(1, colour=1)
