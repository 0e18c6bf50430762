"""Rows of results of sweeps, as a file of results has them."""

from __future__ import annotations

HISTORY = {
    "time": [1000, 2000, 3000],
    "requests": [30, 60, 90],
    "packets": [10, 20, 30],
    "lookups": [30, 60, 90],
    "misses": [10, 12, 15],
    "reads": [40, 48, 60],
}


def result_row(**fields: object) -> dict[str, object]:
    """A row with these fields, the others as of a small sweep."""
    row: dict[str, object] = {
        "trace": "t.parquet", "sets": 4, "ways": 2, "entries": 8, "policy": "lru", "index": 0,
        "page_size": "4K", "structures": "off", "tables": "4-level", "invalidation": "trace",
        "requesters": 3, "requests": 90, "lookups": 90, "misses": 15, "miss_ratio": 15 / 90,
        "reads": 60, "reads_per_request": 60 / 90, "packets": 30, "reads_per_packet": 2.0,
        "latency": 35.3, "gigabits": 12.0, "bytes": 4500, "duration": 3000, "removed": 0,
        "history": HISTORY,
    }  # fmt: skip
    return row | fields
