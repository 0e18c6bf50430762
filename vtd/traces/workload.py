"""Workloads: a TOML file that says which devices send what, and the trace that this gives.

``rows`` is how long the trace is, ``seed`` is for turns by chance, each ``[[stream]]`` has a
``kind`` of :data:`vtd.traces.generators.KINDS` and its fields. Streams run beside each other, by
their times.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, get_type_hints

import numpy as np

from vtd.batch.columns import REQUESTS, Requests
from vtd.traces.generators import KINDS, Numbers, Order, Stream
from vtd.traces.rows import TraceError

ROWS_OF_TURNS = 1 << 16
"""Of a stream, made at a time."""
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Workload:
    """What is generated."""

    rows: int
    streams: tuple[Stream, ...]
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Workload:
        """The workload of a TOML file; TraceError names the field that is wrong."""
        try:
            raw = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise TraceError(f"not TOML: {error}") from error
        _no_others(raw, {"rows", "seed", "stream"}, "")
        streams = raw.get("stream")
        if not isinstance(streams, list) or not streams:
            raise TraceError("stream: there is none; write [[stream]]")
        return cls(
            rows=_whole(raw.get("rows", 1_000_000), "rows"),
            streams=tuple(_stream(each, f"stream {n}: ") for n, each in enumerate(streams, 1)),
            seed=_whole(raw.get("seed", 0), "seed"),
        )

    def arrays(self) -> Iterator[Requests]:
        """The trace, in arrays."""
        left = self.rows
        first = np.concatenate([each.mappings() for each in self.streams])
        first = first[np.argsort(first["time"], kind="stable")]
        for rows in itertools.chain([first], self._merged()):
            yield rows[:left]
            left -= len(rows)
            if left <= 0:
                return

    def _merged(self) -> Iterator[Requests]:
        """The rows of all streams by time, those of the same time in the order of the streams."""
        sources = [
            _turns(each, np.random.default_rng([self.seed, number]))
            for number, each in enumerate(self.streams)
        ]
        waiting = [next(each) for each in sources]
        while sources:
            until = min(each["time"][-1] for each in waiting)
            ready = [each[each["time"] <= until] for each in waiting]
            waiting = [each[len(done) :] for each, done in zip(waiting, ready, strict=True)]
            rows = np.concatenate(ready)
            yield rows if len(ready) == 1 else rows[np.argsort(rows["time"], kind="stable")]
            for at in reversed(range(len(sources))):
                if not len(waiting[at]):
                    waiting[at] = next(sources[at], np.empty(0, REQUESTS))
                if not len(waiting[at]):
                    del sources[at], waiting[at]


def _turns(stream: Stream, random: np.random.Generator) -> Iterator[Requests]:
    """The turns of a stream, in arrays that end between two times."""
    done = np.zeros(stream.tenants if stream.order is Order.RANDOM else 0, np.int64)
    some = max(1, ROWS_OF_TURNS // (4 + len(stream.requests(np.zeros(1, np.int64)))))
    for first in range(0, stream.turns, some):
        numbers = np.arange(first, min(first + some, stream.turns))
        if stream.order is Order.RANDOM:
            tenant = random.integers(stream.tenants, size=len(numbers))
            sequence = done[tenant] + _ranks(tenant)
            done += np.bincount(tenant, minlength=stream.tenants)
        else:
            tenant, sequence = numbers % stream.tenants, numbers // stream.tenants
        yield stream.turn_rows(first, tenant, sequence)


def _ranks(values: Numbers) -> Numbers:
    """How many equal values stand before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    return ranks


def _stream(raw: Any, where: str) -> Stream:
    if not isinstance(raw, dict):
        raise TraceError(f"{where}not a table; write [[stream]]")
    kind = KINDS.get(str(raw.get("kind")))
    if kind is None:
        raise TraceError(f"{where}kind: {raw.get('kind')!r} is none of {', '.join(KINDS)}")
    hints = get_type_hints(kind)
    _no_others(raw, {each.name for each in fields(kind)} | {"kind"}, where)
    values = {
        name: _value(value, hints[name], f"{where}{name}")
        for name, value in raw.items()
        if name != "kind"
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise TraceError(f"{where}{error}") from error


def _no_others(raw: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in raw:
        if name not in known:
            raise TraceError(f"{where}{name}: not one of {', '.join(sorted(known))}")


def _value(value: Any, kind: Any, name: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in list(kind):
            raise TraceError(f"{name}: {value!r} is none of {', '.join(kind)}")
        return kind(value)
    if kind is str:
        if not isinstance(value, str):
            raise TraceError(f"{name}: {value!r} is no text")
        return value
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            raise TraceError(f"{name}: {value!r} is no number")
        return float(value)
    return _whole(value, name)


def _whole(value: Any, name: str) -> int:
    """A count or a size, which may be text such as ``2M``."""
    if isinstance(value, str) and value[-1:].upper() in SIZES and value[:-1].isdecimal():
        value = int(value[:-1]) * SIZES[value[-1].upper()]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise TraceError(f"{name}: {value!r} is no number, nor one with K, M or G behind it")
    return value
