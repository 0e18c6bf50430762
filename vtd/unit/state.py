"""State as a value: what a unit is made of says which of its attributes change.

A class names them in ``STATE``; everything else it has is fixed at construction. Saved values share
nothing that changes with the object they were taken from, so one can be restored many times.
Objects inside stay the same objects, as ports and totals refer to them.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import Any, ClassVar, Self

State = tuple[Any, ...]
"""The values of the attributes that ``STATE`` names, in that order."""


class Stateful:
    """An object whose state can be taken and put back."""

    STATE: ClassVar[tuple[str, ...]]

    def snapshot(self) -> State:
        """The state as a value."""
        return tuple(_take(getattr(self, name)) for name in self.STATE)

    def restore(self, state: State) -> None:
        """Become what the object was that ``state`` was taken from."""
        for name, saved in zip(self.STATE, state, strict=True):
            self._put(name, saved)

    def _put(self, name: str, saved: Any) -> None:
        match getattr(self, name):
            case Stateful() as inner:
                inner.restore(saved)
            case dict() | set() as collection:
                collection.clear()
                collection.update(_take(saved))
            case list() as items:
                items[:] = _take(saved)
            case random.Random() as generator:
                generator.setstate(saved)
            case _:
                setattr(self, name, saved)


class Remade(Stateful):
    """An object that is pickled as what it was made of and its state, and made again from both.

    Whoever it was told to report to is no part of either.
    """

    made_of: tuple[Any, ...]
    """The arguments of the constructor."""

    def remade(self, *made_of: Any) -> Self:
        """Another object in the same state, made of these arguments."""
        other = type(self)(*made_of)
        other.restore(self.snapshot())
        return other

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...], State]:
        return type(self), self.made_of, self.snapshot()

    def __setstate__(self, state: State) -> None:
        self.restore(state)


def _take(value: Any) -> Any:
    """A copy of what can change; what can't is its own copy."""
    taken = value
    match value:
        case Stateful():
            taken = value.snapshot()
        case dict():
            taken = {key: _take(item) for key, item in value.items()}
        case list():
            taken = [_take(item) for item in value]
        case set():
            taken = set(value)
        case random.Random():
            taken = value.getstate()
        case _ if dataclasses.is_dataclass(value):
            taken = copy.copy(value)
    return taken
