"""The page of published effects has what its script computes now."""

from __future__ import annotations

import pytest

pytest.importorskip("numba", reason="sweeps need the batch extra")
pytest.importorskip("pyarrow", reason="traces need the batch extra")

from scripts import reproduce


def test_the_measured_window_and_ours_are_as_on_the_page() -> None:
    page = reproduce.PAGE.read_text()
    assert reproduce.window_cliff() in page
    assert reproduce.invalidations() in page


@pytest.mark.slow
def test_the_page_is_what_the_script_writes() -> None:
    assert "".join(reproduce.page()) == reproduce.PAGE.read_text()
