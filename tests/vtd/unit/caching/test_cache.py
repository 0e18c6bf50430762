"""A cache of any shape: room, replacement, counters."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtd.unit.caching.cache import OFF, UNBOUNDED, Cache, Replacement, Shape

STEPS = ["find", "use", "put", "peek", "drop", "remove", "clear"]
steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), max_size=60)


def make_room(entries: OrderedDict[int, str], cache: Cache[int, str]) -> None:
    """Take out of a full set of the model what the cache has given up."""
    if cache.shape.replacement is Replacement.RANDOM:
        entries.pop(next(k for k in entries if cache.peek(k) is None))
    else:
        entries.popitem(last=False)


@given(steps, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.sampled_from(Replacement))
def test_sets_hold_as_many_entries_as_they_have_ways(
    program: list[tuple[str, int]], sets: int, ways: int, index: int, replacement: Replacement
) -> None:
    cache: Cache[int, str] = Cache(Shape(ways, sets, replacement, index=index), int)
    model: list[OrderedDict[int, str]] = [OrderedDict() for _ in range(sets)]
    hits = misses = insertions = evictions = invalidated = 0
    for number, (step, key) in enumerate(program):
        entries = model[(key >> index) % sets]
        match step:
            case "find" | "use":
                assert getattr(cache, step)(key) == entries.get(key)
                hits += key in entries
                misses += key not in entries and step == "find"
                if key in entries and replacement is Replacement.LRU:
                    entries.move_to_end(key)
            case "peek":
                assert cache.peek(key) == entries.get(key)
            case "put":
                full = len(entries) == ways and key not in entries
                cache.put(key, str(number))
                if full:
                    make_room(entries, cache)
                evictions += full
                insertions += 1
                entries[key] = str(number)
                entries.move_to_end(key)
            case "drop":
                cache.drop(key)
                invalidated += entries.pop(key, None) is not None
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
        cache: Cache[int, int] = Cache(Shape(4, 1, Replacement.RANDOM, seed), int)
        for key in range(50):
            cache.put(key, key)
        return [key for key, _ in cache]

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)


def test_a_cache_that_is_off_keeps_nothing_and_an_unbounded_one_everything() -> None:
    for shape, kept in ((OFF, 0), (UNBOUNDED, 1000)):
        cache: Cache[int, int] = Cache(shape, int)
        for key in range(1000):
            cache.put(key, key)
        assert len(cache) == kept
        assert cache.counters.evictions == 0


def test_one_of_several_keys_of_a_lookup_is_no_miss() -> None:
    cache: Cache[int, str] = Cache(UNBOUNDED, int)
    cache.put(2, "two")
    assert cache.use(1) is None
    assert cache.use(2) == "two"
    assert (cache.counters.hits, cache.counters.misses) == (1, 0)
    assert cache.find(1) is None
    assert (cache.counters.hits, cache.counters.misses) == (1, 1)


@pytest.mark.parametrize("way", ["find", "use"])
@pytest.mark.parametrize(
    ("replacement", "left"), [(Replacement.LRU, [1, 3]), (Replacement.FIFO, [2, 3])]
)
def test_an_entry_that_is_used_stays_longer_where_the_oldest_use_goes_first(
    replacement: Replacement, left: list[int], way: str
) -> None:
    cache: Cache[int, str] = Cache(Shape(ways=2, replacement=replacement), int)
    for key in (1, 2):
        cache.put(key, "entry")
    assert getattr(cache, way)(1) == "entry"
    cache.put(3, "entry")
    assert sorted(key for key, _ in cache) == left


@pytest.mark.parametrize(("ways", "sets", "index"), [(-1, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_a_shape_that_can_not_be_is_refused(ways: int, sets: int, index: int) -> None:
    with pytest.raises(ValueError, match="cache shape"):
        Shape(ways, sets, index=index)


def test_lookups_are_hits_and_misses() -> None:
    cache: Cache[int, int] = Cache(UNBOUNDED, int)
    cache.put(1, 1)
    for key in (1, 2, 1):
        cache.find(key)
    assert cache.counters.lookups == 3


@given(st.integers(0, 1 << 52), st.integers(1, 4), st.integers(1, 8), st.integers(0, 9))
def test_neighbours_are_spread_over_the_sets_and_distant_entries_meet(
    first: int, ways: int, sets: int, index: int
) -> None:
    shape, step = Shape(ways, sets, index=index), 1 << index
    fits: Cache[int, int] = Cache(shape, int)
    for place in range(sets * ways):
        fits.put(first + place * step, place)
    assert (len(fits), fits.counters.evictions) == (sets * ways, 0)
    meets: Cache[int, int] = Cache(shape, int)
    for place in range(sets * ways):
        meets.put(first + place * sets * step, place)
    assert [place for _, place in meets] == list(range(sets * ways))[-ways:]


@given(
    st.lists(st.integers(0, 11), max_size=20),
    st.lists(st.integers(0, 11), max_size=20),
    st.builds(
        Shape,
        ways=st.sampled_from([None, 1, 2]),
        sets=st.integers(1, 2),
        replacement=st.sampled_from(Replacement),
    ),
)
def test_a_restored_cache_goes_on_as_before(
    before: list[int], after: list[int], shape: Shape
) -> None:
    cache: Cache[int, int] = Cache(shape, int)

    def use(keys: list[int]) -> list[tuple[int | None, list[tuple[int, int]]]]:
        seen = []
        for key in keys:
            seen.append((cache.find(key), list(cache)))
            cache.put(key, key)
        return seen

    use(before)
    state = cache.snapshot()
    future, end = use(after), cache.snapshot()
    for _ in range(2):
        cache.restore(state)
        assert cache.snapshot() == state
        assert use(after) == future
        assert cache.snapshot() == end


def test_what_is_derived_from_entries_goes_as_soon_as_one_of_them_is_another() -> None:
    derived: dict[int, int] = {}
    cache = Cache[int, int](UNBOUNDED, int, derived)
    cache.put(1, 10)
    saved = cache.snapshot()

    def changes(change: Callable[[], object]) -> bool:
        derived[0] = 0
        change()
        return not derived

    assert not changes(lambda: cache.put(2, 20))
    assert changes(lambda: cache.put(2, 21))
    assert changes(lambda: cache.restore(saved))


def test_the_state_of_a_cache_of_more_sets_is_refused() -> None:
    saved = Cache[int, int](Shape(ways=1, sets=2), int).snapshot()
    with pytest.raises(ValueError, match="zip"):
        Cache[int, int](Shape(ways=1, sets=1), int).restore(saved)
