"""A cache of any shape: room, replacement, counters."""

import subprocess
import sys
import zlib
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.unit.caching.cache import OFF, UNBOUNDED, Cache, Replacement, Shape

steps = st.lists(
    st.tuples(st.sampled_from(["find", "put", "peek", "remove", "clear"]), st.integers(0, 11)),
    max_size=60,
)


@given(steps, st.integers(1, 3), st.integers(1, 3), st.sampled_from(Replacement))
def test_sets_hold_as_many_entries_as_they_have_ways(
    program: list[tuple[str, int]], sets: int, ways: int, replacement: Replacement
) -> None:
    cache: Cache[int, str] = Cache(Shape(ways, sets, replacement))
    model: list[OrderedDict[int, str]] = [OrderedDict() for _ in range(sets)]
    hits = misses = insertions = evictions = invalidated = 0
    for number, (step, key) in enumerate(program):
        entries = model[zlib.crc32(str(key).encode()) % sets]
        match step:
            case "find":
                assert cache.find(key) == entries.get(key)
                hits += key in entries
                misses += key not in entries
                if key in entries and replacement is Replacement.LRU:
                    entries.move_to_end(key)
            case "peek":
                assert cache.peek(key) == entries.get(key)
            case "put":
                full = len(entries) == ways and key not in entries
                cache.put(key, str(number))
                if full and replacement is Replacement.RANDOM:
                    entries.pop(next(k for k in entries if cache.peek(k) is None))
                elif full:
                    entries.popitem(last=False)
                evictions += full
                insertions += 1
                entries[key] = str(number)
            case "remove":
                gone = cache.remove(lambda k, _, key=key: k % 3 == key % 3)  # type: ignore[misc]
                for entries in model:
                    for k in [k for k in entries if k % 3 == key % 3]:
                        del entries[k]
                        invalidated += 1
                        gone -= 1
                assert gone == 0
            case _:
                invalidated += cache.clear()
                for entries in model:
                    entries.clear()
        assert dict(cache) == {k: v for entries in model for k, v in entries.items()}
        assert len(cache) == sum(map(len, model))
    counters = cache.counters
    assert (counters.hits, counters.misses) == (hits, misses)
    assert (counters.insertions, counters.evictions) == (insertions, evictions)
    assert counters.invalidated == invalidated


def test_random_replacement_is_the_same_for_the_same_seed() -> None:
    def kept(seed: int) -> list[int]:
        cache: Cache[int, int] = Cache(Shape(4, 1, Replacement.RANDOM, seed))
        for key in range(50):
            cache.put(key, key)
        return [key for key, _ in cache]

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)


def test_a_cache_that_is_off_keeps_nothing_and_an_unbounded_one_everything() -> None:
    for shape, kept in ((OFF, 0), (UNBOUNDED, 1000)):
        cache: Cache[int, int] = Cache(shape)
        for key in range(1000):
            cache.put(key, key)
        assert len(cache) == kept
        assert cache.counters.evictions == 0


def test_the_first_key_that_is_known_is_found_and_counted_once() -> None:
    cache: Cache[int, str] = Cache(UNBOUNDED)
    cache.put(2, "two")
    cache.put(3, "three")
    assert cache.find(1, 2, 3) == "two"
    assert cache.find(4, 5) is None
    assert (cache.counters.hits, cache.counters.misses) == (1, 1)


@pytest.mark.parametrize(("ways", "sets"), [(-1, 1), (1, 0)])
def test_a_shape_that_can_not_be_is_refused(ways: int, sets: int) -> None:
    with pytest.raises(ValueError, match="cache shape"):
        Shape(ways, sets)


def test_lookups_are_hits_and_misses() -> None:
    cache: Cache[int, int] = Cache(UNBOUNDED)
    cache.put(1, 1)
    for key in (1, 2, 1):
        cache.find(key)
    assert cache.counters.lookups == 3


def test_the_set_of_a_key_is_the_same_in_every_process() -> None:
    program = (
        "from vtd.unit.caching.cache import Cache, Shape\n"
        "cache = Cache(Shape(2, 4))\n"
        "for page in range(40): cache.put(((0x108, None, False), 12, page), page)\n"
        "print([page for _, page in cache])"
    )
    root = Path(__file__).resolve().parents[2]
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, cwd=root
        ).stdout
        for _ in range(3)
    }
    assert len(runs) == 1
