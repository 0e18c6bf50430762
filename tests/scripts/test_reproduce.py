"""The page of published effects has what its script computes now."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("numba", reason="sweeps need the batch extra")
pytest.importorskip("pyarrow", reason="traces need the batch extra")

from scripts import hypersio_logs, reproduce


def test_the_measured_window_and_ours_are_as_on_the_page() -> None:
    page = reproduce.PAGE.read_text()
    assert reproduce.window_cliff() in page
    assert reproduce.invalidations() in page


def test_a_log_for_hypersio_has_the_hits_that_it_counts_there(tmp_path: Path) -> None:
    log = tmp_path / "narrow_0.txt"
    log.write_text("".join(hypersio_logs.lines(hypersio_logs.WORKLOADS["narrow"][1])))
    ours = hypersio_logs.hits(log)
    assert [hits for hits, _ in ours] == [one for one, _ in hypersio_logs.COUNTED["narrow"]]
    assert {hits + misses for hits, misses in ours} == {99_999}


@pytest.mark.slow
def test_the_page_is_what_the_script_writes() -> None:
    assert "".join(reproduce.page()) == reproduce.PAGE.read_text()
