"""State as a value: copied both ways, with the objects inside kept."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from vtd.unit.state import Stateful


@dataclass
class Pending:
    """Something that changes and has no state of its own."""

    answers: int = 0


class Inner(Stateful):
    STATE = ("count",)

    def __init__(self) -> None:
        self.count = 0


@dataclass
class Outer(Stateful):
    STATE = "number", "names", "order", "members", "generator", "inner", "pending"

    number: int = 0
    names: dict[str, list[int]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    members: set[int] = field(default_factory=set)
    generator: random.Random = field(default_factory=lambda: random.Random(1))
    inner: Inner = field(default_factory=Inner)
    pending: dict[int, Pending] = field(default_factory=dict)
    fixed: object = None

    def change(self, number: int) -> int:
        """Change everything that can change."""
        self.number += number
        self.names.setdefault(str(number), []).append(number)
        self.order.append(number)
        self.members ^= {number}
        self.inner.count += 1
        self.pending.setdefault(number, Pending()).answers += 1
        return self.generator.randrange(1000)


@given(before=st.lists(st.integers(0, 5)), after=st.lists(st.integers(0, 5)))
def test_restoring_gives_the_same_future_as_often_as_wanted(
    before: list[int], after: list[int]
) -> None:
    outer = Outer()
    for number in before:
        outer.change(number)
    state = outer.snapshot()
    future = [outer.change(number) for number in after]
    end = outer.snapshot()
    for _ in range(2):
        outer.restore(state)
        assert outer.snapshot() == state
        assert [outer.change(number) for number in after] == future
        assert outer.snapshot() == end


def test_objects_inside_stay_the_same_objects() -> None:
    outer = Outer()
    outer.change(1)
    kept = outer.names, outer.order, outer.members, outer.generator, outer.inner
    outer.restore(outer.snapshot())
    now = outer.names, outer.order, outer.members, outer.generator, outer.inner
    assert all(one is other for one, other in zip(kept, now, strict=True))


def test_what_is_not_named_is_left_alone() -> None:
    outer = Outer()
    state = outer.snapshot()
    outer.fixed = "changed"
    outer.restore(state)
    assert outer.fixed == "changed"
