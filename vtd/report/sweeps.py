"""The section about a sweep: miss ratios of cache designs, as curves and as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vtd.pictures.canvas import Tone
from vtd.pictures.chart import Series, chart_svg
from vtd.report.section import Section, counted

if TYPE_CHECKING:
    from vtd.sweeps.results import Result

GROUPED = ("policy", "index", "page_size", "tables", "structures", "invalidation")
"""What designs of one heat map have in common."""


def sweep_section(name: str, results: Sequence[Result]) -> Section:
    """The section about results of ``vtd sweep``."""
    rows = [asdict(each) for each in results]
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in rows:
        del row["history"]
        groups.setdefault(tuple(row[each] for each in ("trace", *GROUPED)), []).append(row)
    best = min((each["miss_ratio"] for each in rows), default=0.0)
    traces = dict.fromkeys(each["trace"] for each in rows)
    return Section(
        "sweep",
        "Sweep",
        name,
        f"{counted(len(rows), 'design')}, {counted(len(traces), 'trace')}, "
        f"miss ratio from {best:.4f}",
        Tone.GOOD,
        {
            "charts": [_chart(trace, groups) for trace in traces],
            "maps": [_heat_map(key, found) for key, found in groups.items()],
            "rows": rows,
        },
    )


def _chart(trace: str, groups: dict[tuple[object, ...], list[dict[str, Any]]]) -> str:
    """Of one trace the lowest miss ratio for each number of entries, a line for each group."""
    series = []
    for key, rows in groups.items():
        if key[0] != trace:
            continue
        lowest: dict[int, float] = {}
        for row in sorted(rows, key=lambda each: each["entries"]):
            lowest.setdefault(row["entries"], row["miss_ratio"])
            lowest[row["entries"]] = min(lowest[row["entries"]], row["miss_ratio"])
        series.append(Series(_words(key), tuple(lowest.items())))
    return chart_svg(
        f"Misses of {trace}", "entries of the IOTLB", "miss ratio", series, inline=True
    )


def _heat_map(key: tuple[object, ...], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ratios = {(row["sets"], row["ways"]): row["miss_ratio"] for row in rows}
    ways = sorted({each for _, each in ratios})
    return {
        "trace": key[0],
        "words": _words(key),
        "ways": ways,
        "lines": [
            {"sets": sets, "ratios": [ratios.get((sets, each)) for each in ways]}
            for sets in sorted({each for each, _ in ratios})
        ],
        "most": max(ratios.values()) or 1.0,
    }


def _words(key: tuple[object, ...]) -> str:
    values = dict(zip(GROUPED, key[1:], strict=True))
    index = f", index {values['index']}" if values["index"] else ""
    return (
        f"{values['policy']}, {values['page_size']}, {values['tables']}{index}, structures "
        f"{values['structures']}, invalidation {values['invalidation']}"
    )
