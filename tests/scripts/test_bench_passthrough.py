"""The large plan is one that works, and every request of it is carried out."""

from __future__ import annotations

import pytest

from scripts import bench_passthrough


def test_a_smaller_one_works_and_isolates(capsys: pytest.CaptureFixture[str]) -> None:
    bench_passthrough.measure(guests=3, requests=60)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("3 guests, 12 virtual functions: works, planned in ")
    assert second.startswith("isolated: True; 60 requests in ")
