"""Charts show the numbers of the results, in files that need nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

pytest.importorskip("altair", reason="plots need the plots extra")
pytest.importorskip("vl_convert", reason="plots need the plots extra")

from tests.vtd.plots.result_rows import result_row
from vtd.cli import main
from vtd.plots.charts import CHARTS, PlotError, plot, rendered
from vtd.sweeps.results import Result


def result(**fields: Any) -> Result:
    return Result(**result_row(**fields))  # type: ignore[arg-type]


DESIGNS = [
    result(sets=sets, ways=ways, miss_ratio=1 / (sets * ways), requesters=n, trace=f"{n}")
    for n in (2, 8)
    for sets in (1, 2)
    for ways in (1, 2, 4)
]


class Referring(HTMLParser):
    """What a page refers to, outside of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]


def values(spec: Any) -> Iterator[dict[str, Any]]:
    """The rows of data anywhere in a specification."""
    if isinstance(spec, dict):
        for name, each in spec.items():
            yield from each if name == "values" and isinstance(each, list) else values(each)
    elif isinstance(spec, list):
        for each in spec:
            yield from values(each)


def test_curves_and_heat_have_every_design() -> None:
    for name in ("curves", "heat"):
        spec = CHARTS[name](DESIGNS).to_dict()
        points = {(row["sets"], row["ways"], row["what"]): row["ratio"] for row in values(spec)}
        assert points == {(each.sets, each.ways, each.trace): each.miss_ratio for each in DESIGNS}


def test_history_is_reads_by_packet_between_two_times() -> None:
    spec = CHARTS["history"](DESIGNS[:1]).to_dict()
    assert [row["reads"] for row in values(spec)] == [4.0, 0.8, 1.2]
    alone = result(packets=0)
    reads = [row["reads"] for row in values(CHARTS["history"]([alone]).to_dict())]
    assert reads == pytest.approx([40 / 30, 8 / 30, 12 / 30])


def test_tenants_are_those_of_the_traces() -> None:
    mine = [each for each in DESIGNS if each.ways == 4 and each.sets == 1]
    spec = CHARTS["tenants"](mine).to_dict()
    assert [(row["tenants"], row["ratio"]) for row in values(spec)] == [(2, 0.25), (8, 0.25)]


def test_a_chart_that_would_say_nothing_is_left_out_or_refused() -> None:
    one = DESIGNS[:1]
    for name in ("curves", "heat", "tenants"):
        with pytest.raises(PlotError, match=f"{name}: all "):
            plot(one, [name])
    assert len(list(values(plot(one).to_dict()))) == 3
    with pytest.raises(PlotError, match="differ in nothing"):
        plot([result(history={name: [] for name in DESIGNS[0].history})])


def test_files_need_nothing_else() -> None:
    chart = plot(DESIGNS)
    root = ElementTree.fromstring(rendered(chart, ".svg"))
    texts = [each.text for each in root.iter() if each.text]
    assert "Miss ratio by sets and ways" in texts
    assert rendered(chart, ".png").startswith(b"\x89PNG\r\n")
    page = Referring()
    page.feed(rendered(chart, ".html").decode())
    assert {"html", "body", "script"} <= page.tags
    assert page.references == []
    with pytest.raises(PlotError, match=r"\.gif: not one of"):
        rendered(chart, ".gif")


def test_the_command_draws_a_file_or_says_why_not(tmp_path: Path) -> None:
    place = tmp_path / "r.json"
    place.write_text(json.dumps({"results": [result_row(ways=ways) for ways in (1, 2)]}))

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["plot", *arguments])
        assert result.exit_code == code, result.output
        return result.stderr if code else result.stdout

    drawn = tmp_path / "p.svg"
    assert run(str(place), "-o", str(drawn)).startswith(f"{drawn}: 2 designs, ")
    assert drawn.read_bytes().startswith(b"<svg")
    assert ".gif: not one of" in run(str(place), "-o", "p.gif", code=2)
    assert "tenants: all traces" in run(str(place), "-o", str(drawn), "--chart", "tenants", code=2)
    assert "'pie' is none of" in run(str(place), "-o", str(drawn), "--chart", "pie", code=2)
    place.write_text("{}")
    lacking = "no results of vtd sweep: 'results' is missing"
    assert lacking in run(str(place), "-o", str(drawn), code=2)
    place.write_bytes(b"PAR1nonsense")
    assert "no results of vtd sweep" in run(str(place), "-o", str(drawn), code=2)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["p.svg", "r.json"]
