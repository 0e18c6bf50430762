"""Designs as they are written, the passes that give them, and their costs."""

from __future__ import annotations

import pytest

pytest.importorskip("numba", reason="sweeps need the batch extra")

from vtd.sweeps.costs import Costs, parse_costs
from vtd.sweeps.designs import Invalidating, Space, parse_shapes, shape_text
from vtd.sweeps.profiles import PUBLISHED
from vtd.unit.caching.cache import OFF, Replacement, Shape


def test_ranges_of_sets_double_and_ranges_of_ways_count() -> None:
    shapes = parse_shapes("sets=16..128 ways=1..3,8 policy=lru,random")
    assert {shape.sets for shape in shapes} == {16, 32, 64, 128}
    assert {shape.ways for shape in shapes} == {1, 2, 3, 8}
    assert len(shapes) == 4 * 4 * 2
    assert parse_shapes("off") == (OFF,)
    assert parse_shapes("ways=4 index=9") == (Shape(4, index=9),)
    assert shape_text(Shape(4, 2, Replacement.FIFO, index=9)) == "2^9x4 fifo"


def test_the_ways_of_lru_are_one_pass_and_those_of_others_are_not() -> None:
    space = Space(parse_shapes("sets=1..2 ways=1..8 policy=lru,fifo"), tables=("4-level", "nested"))
    passes = space.passes()
    assert len(list(space.designs())) == 64
    assert len(passes) == 2 + 16
    assert passes[0].ways == tuple(range(1, 9))
    more = Space(parse_shapes("ways=1..8"), invalidation=tuple(Invalidating))
    assert len(more.passes()) == len(Invalidating)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sets=4", "ways= is missing"),
        ("ways=4 colour=3", "'colour=3': not one of sets="),
        ("ways=x", "ways=x: not a number"),
        ("ways=8..4", "ways=8..4: not in 1..1048576, the lower one first"),
        ("ways=0", "ways=0: not in"),
        ("ways=1..4 policy=old", "policy=old: not one of lru, fifo, random"),
        ("ways=4096 sets=4096", "4096x4096 lru: more than 1048576 entries"),
        ("ways=1,²", "ways=1,²: not a number"),
    ],
)
def test_what_is_no_shape_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_shapes(text)
    assert said in str(error.value)


def test_a_full_nested_walk_on_the_other_side_of_the_link_costs_what_hypersio_says() -> None:
    costs = parse_costs("outside=900,hit=0")
    assert costs.latency(1, 1, 24, structures=False) == 2100  # 900 + 24 reads of 50 ns
    assert parse_costs("") == Costs()


def test_walks_at_a_time_and_the_link_bound_what_gets_through() -> None:
    assert Costs(read=50).gigabits(1500, 1, 4, structures=False) == 60
    assert Costs(read=50, walks=8).gigabits(1500, 1, 4, structures=False) == 480
    assert Costs(read=50, walks=8, link=200).gigabits(1500, 1, 4, structures=False) == 200
    assert Costs().gigabits(1500, 0, 0, structures=True) is None


@pytest.mark.parametrize("text", ["read", "read=x", "speed=3", "walks=0", "hit=-1", "read=inf"])
def test_what_is_no_cost_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=text.partition("=")[0]):
        parse_costs(text)


def test_every_profile_has_a_source_and_says_how_sure_it_is() -> None:
    for profile in PUBLISHED.values():
        assert profile.source
        assert profile.standing
        assert profile.iotlb.ways
