"""What hypothesis draws for page tables: units, addresses, valid, flawed and hostile tables.

A :class:`Scene` is memory with tables in it, made twice from the same data: for the library and
for the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

from pagetables.bits import Implementation
from pagetables.first_stage import EXTENDED_ACCESSED
from pagetables.geometry import Geometry, StageKind, first_stage_geometry, second_stage_geometry
from pagetables.memory import PhysicalMemory
from pagetables.walk import Stage
from tests.support.oracle import Nesting, Tables, Words

FEATURES = ("sslps_1g", "sslps_2m", "fs1gp", "sc", "ssirwe")
INDEXES = (0, 1, 2, 511)
"""Table indexes in use: few, so that addresses meet entries."""
FIRST_FRAME = 0x100
POOL = tuple(range(FIRST_FRAME, FIRST_FRAME + 8))
"""Frames for tables."""
HOLE = 0x900
"""A frame that is not there."""
SECOND_POOL = tuple(range(0x200, 0x208))
GUEST_WIDTH = 39

implementations = st.builds(
    Implementation,
    haw=st.sampled_from([39, 46, 52]),
    features=st.frozensets(st.sampled_from(FEATURES)),
)


class Setup(NamedTuple):
    """Tables as the walk and as the oracle know them."""

    stage: Stage
    tables: Tables


@dataclass
class Scene:
    """Frames with entries by index; some can't be written."""

    frames: dict[int, dict[int, int]] = field(default_factory=dict)
    read_only: frozenset[int] = frozenset()

    def memory(self) -> PhysicalMemory:
        """The scene for the library."""
        memory = PhysicalMemory()
        for frame, entries in self.frames.items():
            memory.add_region(frame << 12, 4096, read_only=frame in self.read_only)
            for index, entry in entries.items():
                memory.load(frame << 12 | index << 3, entry.to_bytes(8, "little"))
        return memory

    def words(self) -> Words:
        """The scene for the oracle."""
        words = {
            frame * 4096 + index * 8: entry
            for frame, entries in self.frames.items()
            for index, entry in entries.items()
        }
        return Words(frozenset(self.frames), words, self.read_only)


def geometry_of(kind: StageKind, levels: int, implementation: Implementation) -> Geometry:
    """The geometry of either stage."""
    make = first_stage_geometry if kind is StageKind.FIRST else second_stage_geometry
    return make(levels, implementation)


@st.composite
def geometries(draw: st.DrawFn, kind: StageKind | None = None) -> Geometry:
    """Any geometry of any unit."""
    kind = draw(st.sampled_from(StageKind)) if kind is None else kind
    levels = draw(st.integers(4 if kind is StageKind.FIRST else 3, 5))
    return geometry_of(kind, levels, draw(implementations))


@st.composite
def setups(
    draw: st.DrawFn,
    kind: StageKind,
    root: int,
    implementation: Implementation | None = None,
) -> Setup:
    """A stage with its top table in frame ``root``, with and without flags."""
    unit = draw(implementations) if implementation is None else implementation
    first = kind is StageKind.FIRST
    levels = draw(st.integers(4 if first else 3, 5))
    geometry = geometry_of(kind, levels, unit)
    flags, extended = draw(st.booleans()), first and draw(st.booleans())
    snooped = draw(st.sampled_from([True, True, True, False]))
    accessed = geometry.accessed | (EXTENDED_ACCESSED if extended else 0)
    return Setup(
        Stage(geometry, root, accessed * flags, geometry.dirty * flags, snooped),
        Tables(kind.value, levels, root << 12, unit.haw, unit.features, flags, extended, snooped),
    )


def addresses(levels: int) -> st.SearchStrategy[int]:
    """Input addresses that use only the :data:`INDEXES`."""
    return st.builds(
        lambda indexes, offset: (
            sum(index << 12 + 9 * level for level, index in enumerate(indexes)) + offset
        ),
        st.lists(st.sampled_from(INDEXES), min_size=levels, max_size=levels),
        st.sampled_from([0, 0x123, 0xFFF]),
    )


@st.composite
def entries(draw: st.DrawFn, targets: tuple[int, ...], tidy: int = 8) -> int:
    """A hostile entry: mostly rights and a target, sometimes any bits, 1 in ``tidy`` odd."""
    rights = draw(st.sampled_from([7, 7, 7, 7, 3, 3, 1, 2, 0]))
    io_rights = draw(st.sampled_from([3, 3, 3, 1, 2, 0])) << 61 if rights & 4 else 0
    entry = draw(st.sampled_from(targets)) << 12 | rights | io_rights
    if draw(st.integers(0, 5)) == 0:
        entry = draw(st.sampled_from([0, 1 << 21, 1 << 30, 1 << 40])) | rights | io_rights | 0x80
    if draw(st.integers(0, 2)) == 0:
        entry |= draw(st.sampled_from([0x80, 0x100, 0x200, 0x20, 0x40, 0x420, 0x368]))
    if draw(st.integers(0, tidy - 1)) == 0:
        entry ^= 1 << draw(st.integers(0, 63))
    return entry


@st.composite
def hostile_frames(
    draw: st.DrawFn, pool: tuple[int, ...], targets: tuple[int, ...]
) -> dict[int, dict[int, int]]:
    """Tables full of entries that point anywhere, also to themselves."""
    return {frame: {index: draw(entries(targets)) for index in INDEXES} for frame in pool}


@st.composite
def hostile_scenes(draw: st.DrawFn) -> Scene:
    """One stage whose tables come from an enemy."""
    frames = draw(hostile_frames(POOL, (*POOL, *POOL, HOLE)))
    return Scene(frames, draw(st.frozensets(st.sampled_from(POOL), max_size=2)))


class Flaw(NamedTuple):
    """One rule to break: at which level, and how the entry changes."""

    level: int
    clear: int
    set: int


class Path(NamedTuple):
    """A scene with exactly one way through the tables."""

    scene: Scene
    setup: Setup
    address: int
    physical: int


@st.composite
def valid_paths(draw: st.DrawFn, kind: StageKind | None = None) -> Path:
    """Tables that map one page, of any size, by all the rules."""
    kind = draw(st.sampled_from(StageKind)) if kind is None else kind
    setup = draw(setups(kind, POOL[0]))
    setup = Setup(replace(setup.stage, snooped=True), replace(setup.tables, snooped=True))
    return _path(draw, setup, Flaw(0, 0, 0))


@st.composite
def flawed_paths(draw: st.DrawFn) -> tuple[Path, Flaw]:
    """The same with one entry changed against one rule, or by ignored bits."""
    setup = draw(setups(draw(st.sampled_from(StageKind)), POOL[0]))
    flaw = Flaw(
        draw(st.integers(1, setup.tables.levels)),
        draw(st.sampled_from([0, 0, 1, 2, 3, 7, 3 << 61])),
        draw(st.sampled_from([0, *(1 << number for number in range(64))])),
    )
    return _path(draw, setup, flaw), flaw


def _path(draw: st.DrawFn, setup: Setup, flaw: Flaw) -> Path:
    geometry, tables = setup.stage.geometry, setup.tables
    shifts = [
        level.shift
        for level in geometry.levels
        if level.leaf and (level.shift == 12 or not level.leaf & level.page_reserved)
    ]
    last = draw(st.sampled_from(shifts))
    address = draw(st.integers(0, (1 << geometry.width) - 1))
    page = draw(st.integers(0, (1 << 39 - last) - 1)) << last
    frames: dict[int, dict[int, int]] = {}
    for number, level in zip(range(tables.levels, 0, -1), geometry.levels, strict=True):
        table = POOL[tables.levels - number]
        done = level.shift == last
        entry = page if done else POOL[tables.levels - number + 1] << 12
        entry |= geometry.rights | (level.leaf if done and level.shift > 12 else 0)
        if number == flaw.level:
            entry = entry & ~flaw.clear | flaw.set
        frames[table] = {address >> level.shift & 511: entry}
        if done:
            break
    offset = (1 << last) - 1
    return Path(Scene(frames), setup, address, page | address & offset)


class NestedScene(NamedTuple):
    """Hostile first-stage tables in guest memory, behind second-stage tables that mostly work."""

    scene: Scene
    first: Setup
    second: Setup
    nesting: Nesting


@st.composite
def nested_scenes(draw: st.DrawFn) -> NestedScene:
    """Guest frames are the numbers of :data:`POOL`; each may be anywhere in the host's pool."""
    unit = draw(implementations)
    first = draw(setups(StageKind.FIRST, draw(st.sampled_from(POOL)), unit))
    second = draw(setups(StageKind.SECOND, SECOND_POOL[0], unit))
    levels = second.tables.levels
    read, write = second.stage.geometry.read, second.stage.geometry.write
    both = read | write
    frames = draw(hostile_frames(POOL, (*POOL, *POOL, HOLE, 1 << GUEST_WIDTH - 12)))
    for table, below in pairwise(SECOND_POOL[:levels]):
        frames[table] = {0: below << 12 | both}
    hosts = draw(st.permutations((*POOL, SECOND_POOL[levels - 1])))
    rights = st.sampled_from([both, both, both, both, both, read, write, 0])
    frames[SECOND_POOL[levels - 1]] = {
        guest: host << 12 | draw(rights) for guest, host in zip(POOL, hosts, strict=False)
    }
    flaw = draw(st.sampled_from([*[None] * 10, *SECOND_POOL[:levels]]))
    if flaw is not None:
        index = draw(st.sampled_from(sorted(frames[flaw])))
        frames[flaw][index] ^= 1 << draw(st.integers(0, 63))
    read_only = draw(st.frozensets(st.sampled_from(POOL + SECOND_POOL[:levels]), max_size=2))
    return NestedScene(
        Scene(frames, read_only),
        first,
        second,
        Nesting(second.tables, GUEST_WIDTH),
    )
