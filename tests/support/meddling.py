"""Somebody between a unit and its memory: read-only frames, and a hook told of each access."""

from collections.abc import Callable

from pagetables.memory import PhysicalMemory
from pagetables.observer import Structure
from vtd.unit.observer import Observer
from vtd.unit.unit import RemappingUnit

Hook = Callable[[str, int, int, int], None]
"""Told of an access: ``"read"``, ``"update"`` or ``"write"``, address, size, value."""


class Meddler(Observer):
    """Tells ``hook`` of everything."""

    def __init__(self) -> None:
        self.hook: Hook | None = None

    def read(self, structure: Structure, address: int, size: int, value: int) -> None:
        self._tell("read", address, size, value)

    def update(self, structure: Structure, address: int, size: int, old: int, new: int) -> None:
        self._tell("update", address, size, new)

    def write(self, structure: Structure, address: int, data: bytes) -> None:
        self._tell("write", address, len(data), int.from_bytes(data, "little"))

    def _tell(self, kind: str, address: int, size: int, value: int) -> None:
        if self.hook is not None:
            self.hook(kind, address, size, value)


class Meddling:
    """A world whose units can be meddled with; nobody observes them as long as nobody does."""

    memory: PhysicalMemory

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
        regions = [region for region in self.memory.regions if region.read_only]
        return frozenset(
            frame for each in regions for frame in range(each.start >> 12, each.end >> 12)
        )

    def make_read_only(self, frame: int) -> None:
        """Turn a frame into memory that only a loader can change."""
        memory, start, end = self.memory, frame << 12, frame + 1 << 12
        (region,) = (each for each in memory.regions if each.start <= start < each.end)
        if region.read_only:
            return
        data = memory.read(region.start, region.end - region.start)
        memory.remove_region(region.start)
        for low, high in ((region.start, start), (start, end), (end, region.end)):
            if low < high:
                memory.add_region(low, high - low, read_only=low == start and high == end)
        for offset in range(0, len(data), 4096):
            page = data[offset : offset + 4096]
            if any(page):
                memory.load(region.start + offset, page)

    @property
    def hook(self) -> Hook | None:
        """Who is told of every access."""
        return self._meddler.hook

    @hook.setter
    def hook(self, hook: Hook | None) -> None:
        self._meddler.hook = hook
        self._meddle()

    def _meddle(self) -> None:
        wanted = self._units if self._meddler.hook else []
        for unit in self._units:
            if unit in wanted and unit not in self._meddled:
                unit.observe(self._meddler)
                self._meddled.append(unit)
            elif unit in self._meddled and unit not in wanted:
                unit.ignore(self._meddler)
                self._meddled.remove(unit)
