"""Where the addresses of devices are, and where they lead: clusters, holes, memory in common.

Made of the ranges of :mod:`vtd.inspection.reach`. Sources whose requests go through the same tables
share one address space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vtd.inspection.reach import Reach, ReachedRange
from vtd.rows import Hex

SMALL_HOLE = 16 << 20
"""Bytes of a hole that does not part clusters."""
MOST_CLUSTERS = 64


@dataclass(frozen=True)
class Cluster:
    """Ranges near to each other."""

    start: Hex
    end: Hex
    mapped: int
    """Bytes."""
    ranges: int
    holes: int
    largest_hole: int
    """Bytes."""


@dataclass(frozen=True)
class SharedMemory:
    """Physical memory that several address spaces lead to, by their numbers from 0."""

    start: Hex
    end: Hex
    spaces: tuple[int, ...]


@dataclass(frozen=True)
class AddressSpace:
    """Sources behind the same tables, and their ranges in ascending order."""

    reaches: tuple[Reach, ...]
    ranges: tuple[ReachedRange, ...]

    def clusters(self) -> list[Cluster]:
        """The ranges, parted at the largest holes."""
        return clusters(self.ranges)


def address_spaces(reaches: Sequence[Reach]) -> list[AddressSpace]:
    """The address spaces of sources that have tables, in the order of their first source."""
    found: dict[object, list[Reach]] = {}
    for reach in reaches:
        target = reach.source.target
        if target is None or not (target.first or target.second):
            continue
        stages = tuple(
            stage and (stage.root, len(stage.geometry.levels))
            for stage in (target.first, target.second)
        )
        found.setdefault(stages, []).append(reach)
    return [
        AddressSpace(tuple(alike), tuple(sorted(alike[0].ranges(), key=lambda each: each.address)))
        for alike in found.values()
    ]


def clusters(ranges: Sequence[ReachedRange]) -> list[Cluster]:
    """Ranges in ascending order as at most :data:`MOST_CLUSTERS`."""
    if not ranges:
        return []
    holes = [
        (after.address - before.address - before.length, number)
        for number, (before, after) in enumerate(pairwise(ranges), 1)
    ]
    large = sorted((each for each in holes if each[0] > SMALL_HOLE), reverse=True)
    cuts = sorted(number for _, number in large[: MOST_CLUSTERS - 1])
    parts = pairwise((0, *cuts, len(ranges)))
    return [_cluster(ranges[start:end], holes[start : end - 1]) for start, end in parts]


def _cluster(ranges: Sequence[ReachedRange], holes: Sequence[tuple[int, int]]) -> Cluster:
    sizes = [size for size, _ in holes if size > 0]
    last = ranges[-1]
    return Cluster(
        Hex(ranges[0].address),
        Hex(last.address + last.length),
        sum(each.length for each in ranges),
        len(ranges),
        len(sizes),
        max(sizes, default=0),
    )


def shared_memory(spaces: Sequence[AddressSpace]) -> Iterator[SharedMemory]:
    """Physical memory that more than one address space leads to, in ascending order."""
    edges: list[tuple[int, int, int]] = []
    for number, space in enumerate(spaces):
        for each in space.ranges:
            edges.append((each.physical, 1, number))
            edges.append((each.physical + each.length, -1, number))
    edges.sort()
    inside: dict[int, int] = {}
    run: SharedMemory | None = None
    for (position, change, number), (following, _, _) in pairwise([*edges, (1 << 64, 0, 0)]):
        inside[number] = inside.get(number, 0) + change
        if not inside[number]:
            del inside[number]
        if following == position or len(inside) < 2:
            continue
        here = SharedMemory(Hex(position), Hex(following), tuple(sorted(inside)))
        if run is not None and run.end == here.start and run.spaces == here.spaces:
            run = SharedMemory(run.start, here.end, run.spaces)
            continue
        if run is not None:
            yield run
        run = here
    if run is not None:
        yield run
