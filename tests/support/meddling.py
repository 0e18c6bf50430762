"""Somebody between a unit and its memory: read-only frames, and a hook told of each access."""

from collections.abc import Callable

from pagetables.memory import BusError
from pagetables.observer import Structure
from vtd.unit.observer import Observer
from vtd.unit.unit import RemappingUnit

Hook = Callable[[str, int, int, int], None]
"""Told of an access: ``"read"``, ``"update"`` or ``"write"``, address, size, value."""


class Meddler(Observer):
    """Refuses stores to ``read_only`` frames and tells ``hook`` of everything."""

    def __init__(self) -> None:
        self.read_only: set[int] = set()
        self.hook: Hook | None = None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self._tell("read", address, size, value)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self._tell("update", address, size, new)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        self._tell("write", address, len(data), int.from_bytes(data, "little"))

    def _tell(self, kind: str, address: int, size: int, value: int) -> None:
        if kind != "read" and address >> 12 in self.read_only:
            raise BusError(address, "read-only for this unit")
        if self.hook is not None:
            self.hook(kind, address, size, value)


class Meddling:
    """A world whose units can be meddled with; nobody observes them as long as nobody does."""

    def __init__(self) -> None:
        self._meddler = Meddler()
        self._units: list[RemappingUnit] = []
        self._meddled: list[RemappingUnit] = []

    def join(self, unit: RemappingUnit) -> RemappingUnit:
        """Make a unit one of this world."""
        self._units.append(unit)
        self._meddle()
        return unit

    @property
    def read_only(self) -> frozenset[int]:
        """Frames in which no flag can be set."""
        return frozenset(self._meddler.read_only)

    def make_read_only(self, frame: int) -> None:
        """Let no unit store anything in a frame any more."""
        self._meddler.read_only.add(frame)
        self._meddle()

    @property
    def hook(self) -> Hook | None:
        """Who is told of every access."""
        return self._meddler.hook

    @hook.setter
    def hook(self, hook: Hook | None) -> None:
        self._meddler.hook = hook
        self._meddle()

    def _meddle(self) -> None:
        wanted = self._units if self._meddler.hook or self._meddler.read_only else []
        for unit in self._units:
            if unit in wanted and unit not in self._meddled:
                unit.observe(self._meddler)
                self._meddled.append(unit)
            elif unit in self._meddled and unit not in wanted:
                unit.ignore(self._meddler)
                self._meddled.remove(unit)
