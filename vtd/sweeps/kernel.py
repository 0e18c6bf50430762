"""Compiled: IOTLB and paging-structure caches of many sizes at once, without tables or memory.

A cache is arrays of numbers and owners, ``ways`` places a set, the newest first. What was
invalidated leaves a hole in its place, which the next entry that comes to the front fills. So,
under LRU, the first w places of a set are at any time what a cache of w ways has: an access that
finds its page at depth d is a hit for all sizes above d and a miss for the others, with
invalidations or without (stack distances; Mattson et al. 1970, with holes for what is removed).
FIFO and random replacement have no such order, and one size is simulated at a time.

The paging-structure cache of each size sees the misses of that size only. It is asked as the unit
asks its own (6.2.5): for the table that the lowest levels are in, then upwards; a walk reads what
is below, and keeps each table that it reached. A scalar unit of these shapes counts the same, which
``tests/vtd/sweeps`` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit

HOLE = np.uint32(0xFFFF_FFFF)
"""Owner of a place without an entry."""
LRU, FIFO, RANDOM = range(3)
IGNORE, AS_TRACED, STRICT, STRICT_LEAVES, DEFERRED = range(5)
"""What invalidates: nothing; rows that say so; each unmap, with or without paging structures; the
256th unmap of a domain, or the first event of it 10 ms after an unmap."""
FLUSH_AFTER = 256
FLUSH_TIME = 10_000_000
"""Nanoseconds; both are those of Linux's flush queue."""
DMA, INVALIDATE, UNMAP, MARKER = 0, 1, 3, 4
TOP = 6
"""Places of the histogram of reads of a walk: up to 5 levels."""
REQUESTS, LOOKUPS, BYTES, MARKERS, REMOVED, RANDOM_STATE, SHARED = range(7)
"""Counters that all sizes share."""

U64 = np.uint64
PAGE_SHIFT = 12
INDEX_BITS = 9


class Cache(NamedTuple):
    """The places of several caches of one shape: all their sets, one after the other."""

    pages: Any
    owners: Any
    counts: Any
    """Places of each set that were taken so far."""
    holes: Any
    """How many of them are free again."""
    sets: int
    """Of one cache."""
    ways: int
    left_out: int
    """Low bits of a number that its set does not depend on."""
    policy: int


F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiled when it is first called, and kept in the cache of numba for the next process."""
    kernel: F = njit(cache=True, nogil=True)(function)
    return kernel


@compiled
def intern(source_id: Any, pasid: Any, keys: Any, values: Any, count: Any, owners: Any) -> Any:
    """Numbers for pairs of source and PASID, from 0 on, in the order of their coming.

    ``keys`` and ``values`` are a hash table of a power of two of places, key 0 for an empty one.
    Returns how many pairs there are, or less than 0, the number of rows done less one, where the
    table has to grow first.
    """
    mask = len(keys) - 1
    last_key, last_value = U64(0), np.uint32(0)
    for i in range(len(source_id)):
        key = (U64(source_id[i]) << U64(32) | U64(pasid[i])) + U64(1)
        if key != last_key:
            if 2 * count > mask:
                return -1 - i
            at = np.int64((key * U64(0x9E3779B97F4A7C15)) >> U64(20)) & mask
            while keys[at] != 0 and keys[at] != key:
                at = at + 1 & mask
            if keys[at] == 0:
                keys[at] = key
                values[at] = count
                count += 1
            last_key, last_value = key, values[at]
        owners[i] = last_value
    return count


@compiled
def set_of(cache: Cache, number: Any) -> Any:
    """The set of a number, in the first of the caches."""
    return np.int64((number >> U64(cache.left_out)) % U64(cache.sets))


@compiled
def find(cache: Cache, at: Any, page: Any, owner: Any) -> int:
    """The depth of an entry in set ``at``, -1 for none."""
    base = at * cache.ways
    for depth in range(cache.counts[at]):
        if cache.pages[base + depth] == page and cache.owners[base + depth] == owner:
            return depth
    return -1


@compiled
def push(cache: Cache, at: Any, end: Any, page: Any, owner: Any) -> None:
    """Put an entry in front; those before place ``end`` move back by one, onto it."""
    base = at * cache.ways
    for place in range(base + end, base, -1):
        cache.pages[place] = cache.pages[place - 1]
        cache.owners[place] = cache.owners[place - 1]
    cache.pages[base] = page
    cache.owners[base] = owner


@compiled
def hole_before(cache: Cache, at: Any, end: Any) -> Any:
    """The first hole of a set before place ``end``, or ``end``."""
    base = at * cache.ways
    for depth in range(end):
        if cache.owners[base + depth] == HOLE:
            return depth
    return end


@compiled
def refresh(cache: Cache, at: Any, depth: Any) -> None:
    """An entry is used (LRU): to the front; where that fills a hole, it leaves another."""
    place = at * cache.ways + depth
    page, owner = cache.pages[place], cache.owners[place]
    end = depth
    if cache.holes[at]:
        end = hole_before(cache, at, depth)
        if end < depth:
            cache.owners[place] = HOLE
    push(cache, at, end, page, owner)


@compiled
def insert(cache: Cache, at: Any, page: Any, owner: Any, state: Any) -> None:
    """An entry comes to a set: into a hole or a free place, or in place of another one."""
    count = cache.counts[at]
    end = count
    if cache.holes[at]:
        end = hole_before(cache, at, count)
        if end < count:
            cache.holes[at] -= 1
    if end == count:
        if count < cache.ways:
            cache.counts[at] += 1
        elif cache.policy == RANDOM:
            end = np.int64(chance(state) % U64(cache.ways))
        else:
            end = cache.ways - 1
    push(cache, at, end, page, owner)


@compiled
def chance(state: Any) -> Any:
    """The next number of a sequence without order (xorshift)."""
    value = state[RANDOM_STATE]
    value ^= value << U64(13)
    value ^= value >> U64(7)
    value ^= value << U64(17)
    state[RANDOM_STATE] = value
    return value >> U64(11)


@compiled
def drop(cache: Cache, at: Any, page: Any, owner: Any) -> int:
    """Remove an entry of a set; how many there were."""
    depth = find(cache, at, page, owner)
    if depth < 0:
        return 0
    cache.owners[at * cache.ways + depth] = HOLE
    cache.holes[at] += 1
    return 1


@compiled
def run(  # noqa: PLR0912, PLR0915 - one loop, without calls where nothing is missed
    times: Any,
    addresses: Any,
    lengths: Any,
    kinds: Any,
    attributes: Any,
    requesters: Any,
    mode: int,
    page_shift: int,
    levels: int,
    iotlb: Cache,
    ways: Any,
    structures: Cache,
    state: Any,
    depths: Any,
    walks: Any,
    cold: Any,
    pending: Any,
    since: Any,
) -> None:
    """Carry out rows; :class:`vtd.sweeps.simulation.Simulation` says what the arrays hold."""
    deepest = (page_shift - PAGE_SHIFT) // INDEX_BITS
    for i in range(len(kinds)):
        kind, owner = kinds[i], requesters[i]
        if mode == DEFERRED and pending[owner] and times[i] - since[owner] >= U64(FLUSH_TIME):
            remove_all(iotlb, structures, len(ways), owner, state)
            pending[owner] = 0
        if kind == DMA:
            state[REQUESTS] += U64(1)
            state[BYTES] += U64(lengths[i])
            page = addresses[i] >> U64(PAGE_SHIFT)
            last = (addresses[i] + U64(max(lengths[i], 1)) - U64(1)) >> U64(PAGE_SHIFT)
            while True:
                number = page >> U64(page_shift - PAGE_SHIFT)
                at = set_of(iotlb, number)
                depth = find(iotlb, at, number, owner)
                state[LOOKUPS] += U64(1)
                if depth < 0:
                    depth = iotlb.ways
                    insert(iotlb, at, number, owner, state)
                elif depth and iotlb.policy == LRU:
                    refresh(iotlb, at, depth)
                depths[depth] += 1
                size = 0
                while size < len(ways) and ways[size] <= depth:
                    level = levels
                    if structures.ways:
                        level = walk(structures, size, page, owner, deepest, levels, state)
                    walks[size, level - deepest] += 1
                    cold[size] += level == levels
                    size += 1
                if page == last:
                    break
                page += U64(1)
        elif kind == MARKER:
            state[MARKERS] += U64(1)
        elif kind == INVALIDATE and mode == AS_TRACED:
            if lengths[i] == 0:
                remove_all(iotlb, structures, len(ways), owner, state)
            else:
                first, last = addresses[i], addresses[i] + U64(lengths[i]) - U64(1)
                remove_pages(iotlb, owner, first >> U64(page_shift), last >> U64(page_shift), state)
                if attributes[i] & 1 == 0:
                    remove_tables(structures, len(ways), owner, first, last)
        elif kind == UNMAP:
            if mode in (STRICT, STRICT_LEAVES):
                first, last = addresses[i], addresses[i] + U64(max(lengths[i], 1)) - U64(1)
                remove_pages(iotlb, owner, first >> U64(page_shift), last >> U64(page_shift), state)
                if mode == STRICT:
                    remove_tables(structures, len(ways), owner, first, last)
            elif mode == DEFERRED:
                if pending[owner] == 0:
                    since[owner] = times[i]
                pending[owner] += 1
                if pending[owner] >= FLUSH_AFTER:
                    remove_all(iotlb, structures, len(ways), owner, state)
                    pending[owner] = 0


@compiled
def walk(
    cache: Cache, size: Any, page: Any, owner: Any, deepest: Any, levels: Any, state: Any
) -> Any:
    """The level of the deepest table that was cached, ``levels`` for none; the rest is kept now.

    A table of level n is found by the address bits that stand above n indexes and the offset.
    """
    level = deepest + 1
    while level < levels:
        tag = page >> U64(level * INDEX_BITS)
        at = size * cache.sets + set_of(cache, tag)
        depth = find(cache, at, tag << U64(3) | U64(level), owner)
        if depth >= 0:
            if depth and cache.policy == LRU:
                refresh(cache, at, depth)
            break
        level += 1
    for above in range(level - 1, deepest, -1):
        tag = page >> U64(above * INDEX_BITS)
        at = size * cache.sets + set_of(cache, tag)
        insert(cache, at, tag << U64(3) | U64(above), owner, state)
    return level


@compiled
def remove_pages(cache: Cache, owner: Any, first: Any, last: Any, state: Any) -> None:
    """Invalidate an owner's pages with numbers from first to last."""
    if last - first < U64(cache.sets):
        number = first
        while True:
            state[REMOVED] += U64(drop(cache, set_of(cache, number), number, owner))
            if number == last:
                return
            number += U64(1)
    for at in range(cache.sets):
        for place in range(at * cache.ways, at * cache.ways + cache.counts[at]):
            number = cache.pages[place]
            if cache.owners[place] == owner and first <= number <= last:
                cache.owners[place] = HOLE
                cache.holes[at] += 1
                state[REMOVED] += U64(1)


@compiled
def remove_tables(cache: Cache, sizes: Any, owner: Any, first: Any, last: Any) -> None:
    """Invalidate an owner's tables that translate any address from first to last (Table 23)."""
    if cache.ways == 0:
        return
    for at in range(sizes * cache.sets):
        for place in range(at * cache.ways, at * cache.ways + cache.counts[at]):
            if cache.owners[place] == owner:
                tag = cache.pages[place]
                shift = U64(PAGE_SHIFT) + (tag & U64(7)) * U64(INDEX_BITS)
                if first >> shift <= tag >> U64(3) and tag >> U64(3) <= last >> shift:
                    cache.owners[place] = HOLE
                    cache.holes[at] += 1


@compiled
def remove_all(iotlb: Cache, structures: Cache, sizes: Any, owner: Any, state: Any) -> None:
    """Invalidate all that an owner's domain has."""
    end = U64(0xFFFF_FFFF_FFFF_FFFF)
    remove_pages(iotlb, owner, U64(0), end, state)
    remove_tables(structures, sizes, owner, U64(0), end)
