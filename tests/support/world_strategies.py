"""What hypothesis draws for whole translations: valid, flawed and hostile worlds, and requests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from devices.dma import ATOMIC, READ, WRITE
from tests.support.directed_faults import Case
from tests.support.world import (
    DIRECTORY,
    EVERYTHING,
    HOLE,
    HOST,
    INTERRUPTS,
    PAGE,
    PASID_TABLE,
    SCALABLE_MODES,
    SECOND_TABLES,
    Mode,
    World,
    capabilities,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.registers.capabilities import Capabilities

ADDRESSES = (
    HOST,
    HOST | PAGE,
    HOLE,
    INTERRUPTS,
    SECOND_TABLES,
    DIRECTORY,
    PASID_TABLE,
    1 << 38,
    1 << 45,
    1 << 51,
)
OPTIONAL = (
    "zlr", "sc", "dt", "pt", "rps", "rprivs", "fs5lp", "fs1gp", "eafs", "ssads", "smpwcs", "mts",
    "srs", "prs", "pasid", "nest", "fsts", "ssts", "ssirws", "smts",
)  # fmt: skip
PASIDS = (0x45, 0x45, 0x45, 0x1FC0, 0xFFFF)


@st.composite
def units(draw: st.DrawFn) -> Capabilities:
    """A unit that may lack something."""
    changes: dict[str, int] = {}
    if draw(st.booleans()):
        changes["mgaw"] = draw(st.sampled_from([38, 45, 47, 56]))
    if draw(st.integers(0, 3)) == 0:
        changes["sagaw"] = draw(st.sampled_from([2, 4, 8, 12]))
        changes["sslps"] = draw(st.sampled_from([0, 1]))
    for name in draw(st.lists(st.sampled_from(OPTIONAL), max_size=2)):
        changes[name] = 0
    if draw(st.integers(0, 7)) == 0:
        changes["nd"] = 0
    assert changes.keys() <= EVERYTHING.keys()
    return capabilities(haw=draw(st.sampled_from([39, 46, 52])), **changes)


@st.composite
def valid_worlds(
    draw: st.DrawFn,
    /,
    mode: Mode,
    unit: Capabilities | None = None,
    *,
    small: bool = False,
    **fixed: Any,
) -> World:
    """Any depth, page size and place of the structures; the request succeeds on a full unit.

    ``small``: 4 KiB pages only. ``fixed``: arguments of :class:`World` that are not drawn.
    """
    sizes = st.just(12) if small else st.sampled_from([12, 12, 21, 30])
    scalable = mode in SCALABLE_MODES
    rid_pasid = draw(st.sampled_from([0, 0, 0x81])) if scalable else 0
    if unit is not None and "rps" not in unit.features:
        rid_pasid = 0
    arguments: dict[str, Any] = {
        "unit": capabilities() if unit is None else unit,
        "source_id": draw(st.sampled_from([0x0000, 0x0108, 0xFFFF, 0x1080])),
        "pasid": draw(st.sampled_from([None, *PASIDS])) if scalable else None,
        "rid_pasid": rid_pasid,
        "first_levels": draw(st.sampled_from([4, 5])),
        "second_levels": draw(st.sampled_from([3, 4, 5])),
        "first_size": draw(sizes),
        "second_size": draw(sizes),
        "guest": draw(st.sampled_from([0x4000_0000, 0x7_C000_0000, 0x3F_C000_0000])),
        "high": draw(st.sampled_from([0, 0x2A, 0x1FFFF, 0x3_FFFF_FFFF, 0x3_FFFE_0000])),
    }
    world = World(mode, **{**arguments, **fixed})
    if scalable:
        flags = {
            "ssade": "ssads", "eafe": "eafs", "wpe": "fsts", "sre": "srs", "pgsnp": "sc",
        }  # fmt: skip
        for name, feature in flags.items():
            if draw(st.booleans()) and feature in world.unit.features:
                world.change("pasid", **{name: True})
    world.ask(
        access=draw(st.sampled_from([READ, READ, WRITE, ATOMIC])),
        privileged=world.pasid is not None and draw(st.integers(0, 3)) == 0,
    )
    if world.request.access == READ:
        world.ask(length=draw(st.sampled_from([4, 4, 0])))
    return world


@st.composite
def worlds_for(draw: st.DrawFn, mode: Mode, case: Case, *, fpd: bool) -> World:
    """Any world in which the rule of ``case`` is broken; other rules may be met first."""
    world = draw(valid_worlds(mode, **case.setup))
    try:
        case.breaks(world)
    except KeyError:  # no such table under a large page, or that high
        fixed = {"first_levels": 4, "second_levels": 4, **case.setup}
        world = draw(valid_worlds(mode, small=True, **fixed))
        case.breaks(world)
    if fpd:
        world.set_bits("context", 2)
    return world


@st.composite
def flawed_worlds(draw: st.DrawFn, mode: Mode) -> World:
    """A world in which up to two things are wrong, anywhere from the root pointer to a page."""
    world = draw(valid_worlds(mode, draw(units())))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2]))):
        draw(flaws(world))
    if draw(st.integers(0, 3)) == 0:
        world.set_bits("context", 2)  # FPD
    return world


@st.composite
def flaws(draw: st.DrawFn, world: World) -> None:
    """Break something of the world."""
    kind = draw(st.sampled_from(["field"] * 6 + ["bit"] * 3 + ["request"] * 3 + ["frame", "root"]))
    if kind == "root":
        change_root(draw, world)
        return
    if kind == "request":
        change_request(draw, world)
        return
    name = draw(st.sampled_from(sorted(world.places)))
    address, record = world.places[name]
    if kind == "frame":
        world.make_read_only(address >> 12)
    elif kind == "bit":
        number = draw(st.integers(0, record.WIDTH - 1))
        world.put(name, world.get(name) ^ 1 << number)
    else:
        field = draw(st.sampled_from(sorted(record.FIELDS)))
        bits = record.FIELDS[field]
        value = world.get(name) & ~bits.mask
        if bits.max > 0xFFFF_FFFF:
            pointer = draw(st.sampled_from(ADDRESSES)) >> bits.shift
            world.put(name, value | pointer << bits.low & bits.mask)
        else:
            number = draw(st.sampled_from([0, 0, 1, bits.max, draw(st.integers(0, bits.max))]))
            world.put(name, value | min(number, bits.max) << bits.low)


def change_root(draw: st.DrawFn, world: World) -> None:
    """The root table pointer register."""
    what: dict[str, Any] = draw(
        st.sampled_from(
            [{"rta": HOLE}, {"ssirwe": True}, *({"ttm": ttm} for ttm in TranslationTableMode)]
        )
    )
    if "ssirwe" in what and "ssirws" not in world.unit.features:
        return
    world.root = world.root.replace(**what)


def change_request(draw: st.DrawFn, world: World) -> None:
    """Another address, PASID or privilege."""
    match draw(st.sampled_from(["address", "pasid", "bit", "privilege"])):
        case "address":
            address = draw(st.sampled_from(ADDRESSES))
            world.ask(address=address if address not in (HOST,) else HOST | PAGE)
        case "bit":
            world.ask(address=world.request.address ^ 1 << draw(st.integers(12, 63)))
        case "pasid":
            world.ask(pasid=draw(st.sampled_from([0, 1, 0x81, 0x2000, 0x10000, 0xFFFFF])))
        case _:
            world.ask(pasid=world.request.pasid or 0x45, privileged=True)


@st.composite
def hostile_worlds(draw: st.DrawFn) -> World:
    """Structures of random bits, with a few of them set so that some requests get further."""
    world = draw(valid_worlds(draw(st.sampled_from(Mode)), draw(units())))
    names = draw(st.lists(st.sampled_from(sorted(world.places)), min_size=1, max_size=3))
    for name in names:
        _, record = world.places[name]
        mask = draw(st.sampled_from([0, 1, 3, 7, 0xFFF]))
        number = draw(st.integers(0, (1 << record.WIDTH) - 1))
        world.put(name, number & ~mask | world.get(name) & mask)
    return world
