"""The bench of served registers measures what it says, with a server in a process of its own."""

from __future__ import annotations

import re

import pytest

from scripts import bench_live
from vtd.live import messages as m


def test_times_and_their_ratio_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    bench_live.main(["--count", "50"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:15].strip() for line in lines] == [
        "register read",
        "register write",
    ]
    for line in lines:
        served, bare, ratio = map(float, re.findall(r"[\d.]+", line))
        least, most = (served - 0.05) / (bare + 0.05), (served + 0.05) / (bare - 0.05)
        assert least - 0.005 <= ratio <= most + 0.005  # all three are rounded


def test_the_answers_of_both_have_the_size_that_is_expected() -> None:
    machine = bench_live.served_machine()
    session = machine.connect(machine.endpoints[0])
    version = m.Version.build({"major": 0, "minor": 0, "data": b""})
    session.receive(m.message(0, m.Command.VERSION, 0, version))
    for request, size in bench_live.ANSWERS.items():
        assert len(session.receive(request)) == size
