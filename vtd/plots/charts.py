"""Charts of results of sweeps, by altair: SVG, PNG, or an HTML file that needs nothing else.

vl-convert renders them and has the runtime that the HTML file brings along, so that neither a
browser nor a network is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import altair as alt
import vl_convert

from vtd.sweeps.results import Result

Row = dict[str, Any]
WIDTH, HEIGHT = 420, 260
SCALE = 2
"""Pixels of a PNG for each unit."""
COLUMNS = 2
"""Charts beside each other, where designs differ in more than sets and ways."""
OTHERS = ("trace", "policy", "page_size", "tables", "structures", "invalidation", "index")
"""What designs may differ in beside sets and ways."""
MOST_LINES = 8
"""Of a chart with a line for each design: where there are more, some of them, evenly chosen."""
FORMS = (".svg", ".png", ".html")


class PlotError(ValueError):
    """What can't be drawn, and why."""


def varying(found: Sequence[Result]) -> list[str]:
    """In which of OTHERS the results differ."""
    return [name for name in OTHERS if len({getattr(each, name) for each in found}) > 1]


def label(result: Result, names: Iterable[str]) -> str:
    """What sets a result apart, in words."""
    told = {
        "trace": PurePosixPath(result.trace).name,
        "structures": f"structures {result.structures}",
        "shape": f"{result.sets}x{result.ways}",
        "index": f"index {result.index}",
    }
    return ", ".join(told.get(name) or str(getattr(result, name)) for name in names)


def curves(found: Sequence[Result]) -> Any:
    """Miss ratio over ways, a line for each number of sets."""
    if len({each.ways for each in found}) < 2:
        raise PlotError("curves: all designs have the same ways")
    names = varying(found)
    rows = [
        {"sets": each.sets, "ways": each.ways, "ratio": each.miss_ratio, "what": label(each, names)}
        for each in found
    ]
    title = "Miss ratio by ways"
    chart = _chart(rows, title)
    return _apart(
        title,
        chart.mark_line(point=True).encode(
            x=alt.X("ways:Q", title="ways", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("ratio:Q", title="IOTLB misses by lookups", axis=alt.Axis(format="%")),
            color=alt.Color("sets:O", title="sets", scale=alt.Scale(scheme="viridis")),
            tooltip=["sets:O", "ways:Q", alt.Tooltip("ratio:Q", format=".2%"), "what:N"],
        ),
        names,
    )


def heat(found: Sequence[Result]) -> Any:
    """Miss ratio as colour, over sets and ways."""
    if len({(each.sets, each.ways) for each in found}) < 2:
        raise PlotError("heat: all designs have the same sets and ways")
    names = varying(found)
    rows = [
        {"sets": each.sets, "ways": each.ways, "ratio": each.miss_ratio, "what": label(each, names)}
        for each in found
    ]
    title = "Miss ratio by sets and ways"
    chart = _chart(rows, title)
    return _apart(
        title,
        chart.mark_rect().encode(
            x=alt.X("ways:O", title="ways", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("sets:O", title="sets", sort="descending"),
            color=alt.Color(
                "ratio:Q",
                title="miss ratio",
                scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(format="%"),
            ),
            tooltip=["sets:O", "ways:O", alt.Tooltip("ratio:Q", format=".2%"), "what:N"],
        ),
        names,
    )


def history(found: Sequence[Result]) -> Any:
    """Table entries read for each packet, or request where there are none, in stretches of time."""
    packets = all(each.packets for each in found)
    names = [*_shape(found), *varying(found)]
    rows = [
        {"time": time / 1e6, "reads": reads, "what": label(each, names) or "all"}
        for each in found[:: -(-len(found) // MOST_LINES)]
        for time, reads in _stretches(each, "packets" if packets else "requests")
    ]
    if not rows:
        raise PlotError("history: nothing happened")
    unit = "packet" if packets else "request"
    chart = _chart(rows, f"Table reads of a {unit} over time")
    return chart.mark_line().encode(
        x=alt.X("time:Q", title="time in ms"),
        y=alt.Y("reads:Q", title=f"entries read by {unit}"),
        color=alt.Color("what:N", title=None) if len(found) > 1 else alt.value("#31688e"),
        tooltip=[
            alt.Tooltip("time:Q", format=".3f"),
            alt.Tooltip("reads:Q", format=".3f"),
            "what:N",
        ],
    )


def tenants(found: Sequence[Result]) -> Any:
    """Miss ratio over the number of requesters, of several traces."""
    if not _differ(found, "requesters"):
        raise PlotError("tenants: all traces have as many requesters")
    names = [*_shape(found), *(name for name in varying(found) if name != "trace")]
    rows = [
        {"tenants": each.requesters, "ratio": each.miss_ratio, "what": label(each, names) or "all"}
        for each in found
    ]
    chart = _chart(rows, "Miss ratio by requesters")
    return chart.mark_line(point=True).encode(
        x=alt.X("tenants:Q", title="requesters", scale=alt.Scale(type="log", base=2)),
        y=alt.Y("ratio:Q", title="IOTLB misses by lookups", axis=alt.Axis(format="%")),
        color=alt.Color("what:N", title=None),
        tooltip=["tenants:Q", alt.Tooltip("ratio:Q", format=".2%"), "what:N"],
    )


CHARTS: dict[str, Callable[[Sequence[Result]], Any]] = {
    "curves": curves,
    "heat": heat,
    "history": history,
    "tenants": tenants,
}


def plot(found: Sequence[Result], names: Sequence[str] | None = None) -> Any:
    """The charts with these names one below the other; without names, all that say something.

    PlotError for a chart that the results can't give.
    """
    drawn = []
    for name in CHARTS if names is None else names:
        try:
            drawn.append(CHARTS[name](found))
        except PlotError:
            if names is not None:
                raise
    if not drawn:
        raise PlotError("the designs differ in nothing that a chart shows")
    chart = drawn[0] if len(drawn) == 1 else alt.vconcat(*drawn).resolve_scale(color="independent")
    return chart.configure_view(stroke=None)


def rendered(chart: Any, form: str) -> bytes:
    """The chart as ``.svg``, ``.png`` or ``.html``."""
    spec = chart.to_json(indent=None)
    match form:
        case ".svg":
            drawing: str = vl_convert.vegalite_to_svg(spec)
            return drawing.encode()
        case ".png":
            image: bytes = vl_convert.vegalite_to_png(spec, scale=SCALE)
            return image
        case ".html":
            page: str = vl_convert.vegalite_to_html(spec, bundle=True)
            return page.encode()
    raise PlotError(f"{form or 'no suffix'}: not one of {', '.join(FORMS)}")


def _chart(rows: list[Row], title: str) -> Any:
    data = alt.Data(values=rows)
    return alt.Chart(data, title=title, width=WIDTH, height=HEIGHT)


def _apart(title: str, chart: Any, names: Sequence[str]) -> Any:
    """One chart for each way in which designs differ beside sets and ways."""
    if not names:
        return chart
    facet = alt.Facet("what:N", title=None)
    return chart.properties(title="").facet(facet=facet, columns=COLUMNS, title=title)


def _shape(found: Sequence[Result]) -> list[str]:
    return ["shape"] if _differ(found, "sets") or _differ(found, "ways") else []


def _differ(found: Sequence[Result], name: str) -> bool:
    return len({getattr(each, name) for each in found}) > 1


def _stretches(result: Result, unit: str) -> Iterator[tuple[int, float]]:
    """Reads by packet or request between two times, at the later one."""
    told = result.history
    before = reads_before = 0
    for time, count, reads in zip(told["time"], told[unit], told["reads"], strict=True):
        if count > before:
            yield time, (reads - reads_before) / (count - before)
            before, reads_before = count, reads
