"""The directed fault cases: for each fault reason and mode, one rule that is broken.

VT-d Table 30 without the rows of device-TLBs and page requests. Interrupt faults are in
``test_interrupt_remapping``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from devices.dma import ATOMIC, WRITE
from tests.support.world import (
    FIRST_TABLES,
    HOLE,
    INTERRUPTS,
    LEGACY_MODES,
    SCALABLE_MODES,
    Mode,
    World,
    capabilities,
)
from vtd.layouts.registers import TranslationTableMode
from vtd.unit.requests.faults import FaultReason

FIRST = (Mode.FIRST, Mode.NESTED)
SECOND = (Mode.SECOND, Mode.NESTED)
PASID = 0x45
TOP_TABLE = f"second1 {FIRST_TABLES:#x}"
"""The second-stage entry through which a nested walk reads the top first-stage table."""
LAST_TABLE = f"second1 {FIRST_TABLES + 0x3000:#x}"


@dataclass(frozen=True)
class Case:
    """What has to be wrong for a fault reason."""

    reason: FaultReason
    modes: tuple[Mode, ...]
    name: str
    breaks: Callable[[World], object]
    setup: dict[str, Any] = field(default_factory=dict)
    """How the world is made."""
    root: bool = False
    """The root table pointer is to blame, whatever the mode."""

    @property
    def condition(self) -> str:
        """The row of Table 30: its code, or one of those that share the reason."""
        return ROWS.get((self.reason, self.name), self.reason.condition)

    def world(self, mode: Mode) -> World:
        """The world with its one mistake."""
        world = World(mode, **self.setup)
        self.breaks(world)
        return world


def _root(**fields: int) -> Callable[[World], object]:
    def change(world: World) -> None:
        world.root = world.root.replace(**fields)

    return change


def _change(name: str, **fields: int) -> Callable[[World], object]:
    return lambda world: world.change(name, **fields)


def _set(name: str, bit: int) -> Callable[[World], object]:
    return lambda world: world.set_bits(name, 1 << bit)


def _zero(name: str) -> Callable[[World], object]:
    return lambda world: world.put(name, 0)


def _ask(**fields: Any) -> Callable[[World], object]:
    return lambda world: world.ask(**fields)


def _both(*changes: Callable[[World], object]) -> Callable[[World], object]:
    def change(world: World) -> None:
        for one in changes:
            one(world)

    return change


def _freeze(name: str) -> Callable[[World], object]:
    return lambda world: world.make_read_only(world.places[name][0] >> 12)


R = FaultReason
ALL = SCALABLE_MODES
CASES: tuple[Case, ...] = (
    Case(R.ROOT_READ_ERROR, LEGACY_MODES, "no memory", _root(rta=HOLE)),
    Case(R.ROOT_NOT_PRESENT, LEGACY_MODES, "P=0", _zero("root")),
    Case(R.ROOT_RESERVED, LEGACY_MODES, "bit 1", _set("root", 1)),
    Case(R.ROOT_RESERVED, LEGACY_MODES, "bit 46, at the HAW", _set("root", 46)),
    Case(R.CONTEXT_READ_ERROR, LEGACY_MODES, "no memory", _change("root", ctp=HOLE)),
    Case(R.CONTEXT_NOT_PRESENT, LEGACY_MODES, "P=0", _change("context", p=False)),
    Case(R.CONTEXT_RESERVED, LEGACY_MODES, "bit 4", _set("context", 4)),
    Case(
        R.CONTEXT_RESERVED,
        LEGACY_MODES,
        "a domain-id wider than ND",
        _change("context", did=0x100),
        {"unit": capabilities(nd=2)},
    ),
    Case(R.CONTEXT_INVALID, LEGACY_MODES, "reserved AW", _change("context", aw=7)),
    Case(
        R.CONTEXT_INVALID,
        LEGACY_MODES,
        "AW not in SAGAW",
        _change("context", aw=1),
        {"unit": capabilities(sagaw=4)},
    ),
    Case(R.CONTEXT_INVALID, LEGACY_MODES, "reserved TT", _change("context", tt=3)),
    Case(
        R.CONTEXT_INVALID,
        LEGACY_MODES,
        "TT=01b without DT",
        _change("context", tt=1),
        {"unit": capabilities(dt=0)},
    ),
    Case(
        R.CONTEXT_INVALID,
        LEGACY_MODES,
        "TT=10b without PT",
        _change("context", tt=2),
        {"unit": capabilities(pt=0)},
    ),
    Case(R.CONTEXT_INVALID, (Mode.LEGACY,), "no top table", _change("context", ssptptr=HOLE)),
    Case(R.ADDRESS_BEYOND_WIDTH, (Mode.LEGACY,), "beyond AW", _ask(address=1 << 48)),
    Case(
        R.ADDRESS_BEYOND_WIDTH,
        (Mode.LEGACY,),
        "beyond MGAW",
        _ask(address=1 << 47),
        {"unit": capabilities(mgaw=46)},
    ),
    Case(
        R.ADDRESS_BEYOND_WIDTH,
        (Mode.LEGACY_PASS_THROUGH,),
        "beyond the HAW",
        _ask(address=1 << 46),
    ),
    Case(
        R.WRITE_DENIED,
        (Mode.LEGACY,),
        "W=0 in the page",
        _both(_change("second1", w=False), _ask(access=WRITE)),
    ),
    Case(
        R.WRITE_DENIED,
        (Mode.LEGACY,),
        "atomic, W=0 above",
        _both(_change("second3", w=False), _ask(access=ATOMIC)),
    ),
    Case(
        R.WRITE_DENIED,
        (Mode.LEGACY,),
        "not present",
        _both(_zero("second2"), _ask(access=WRITE)),
    ),
    Case(R.READ_DENIED, (Mode.LEGACY,), "R=0 in the page", _change("second1", r=False)),
    Case(
        R.READ_DENIED,
        (Mode.LEGACY,),
        "atomic, R=0 above",
        _both(_change("second2", r=False), _ask(access=ATOMIC)),
    ),
    Case(R.READ_DENIED, (Mode.LEGACY,), "not present", _zero("second1")),
    Case(
        R.READ_DENIED,
        (Mode.LEGACY,),
        "zero-length, without ZLR",
        _both(_change("second1", r=False), _ask(length=0)),
        {"unit": capabilities(zlr=0)},
    ),
    Case(R.SECOND_STAGE_READ_ERROR, (Mode.LEGACY,), "no table", _change("second2", addr=HOLE)),
    Case(R.SECOND_STAGE_RESERVED, (Mode.LEGACY,), "beyond the HAW", _set("second1", 46)),
    Case(R.SECOND_STAGE_RESERVED, (Mode.LEGACY,), "bit 62", _set("second1", 62)),
    Case(R.SECOND_STAGE_RESERVED, (Mode.LEGACY,), "PS at the top", _set("second4", 7)),
    Case(
        R.SECOND_STAGE_RESERVED,
        (Mode.LEGACY,),
        "SNP without SC",
        _set("second1", 11),
        {"unit": capabilities(sc=0)},
    ),
    Case(R.INTERRUPT_RANGE, (Mode.LEGACY,), "output", _change("second1", addr=INTERRUPTS)),
    # Root table pointer
    Case(R.MODE_INVALID, ALL, "TTM=10b", _root(ttm=TranslationTableMode.RESERVED_2), root=True),
    Case(
        R.MODE_INVALID,
        ALL,
        "TTM=01b without SMTS",
        _root(),
        {"unit": capabilities(smts=0)},
        root=True,
    ),
    Case(
        R.MODE_INVALID,
        ALL,
        "TTM=11b without ADMS",
        _root(ttm=TranslationTableMode.ABORT_DMA),
        {"unit": capabilities(adms=0)},
        root=True,
    ),
    Case(R.MODE_INVALID, LEGACY_MODES, "SSIRWE with TTM=00b", _root(ssirwe=True), root=True),
    Case(R.PASID_IN_LEGACY_MODE, LEGACY_MODES, "PASID", _ask(pasid=PASID), root=True),
    Case(R.ABORT_DMA, ALL, "TTM=11b", _root(ttm=TranslationTableMode.ABORT_DMA), root=True),
    # Scalable mode: structures
    Case(R.SM_ROOT_READ_ERROR, ALL, "no memory", _root(rta=HOLE)),
    Case(R.SM_ROOT_NOT_PRESENT, ALL, "LP=0", _change("root", lp=False)),
    Case(
        R.SM_ROOT_NOT_PRESENT,
        ALL,
        "UP=0",
        _change("root", up=False),
        {"source_id": 0x1F3},
    ),
    Case(R.SM_ROOT_RESERVED, ALL, "lower half", _set("root", 11)),
    Case(R.SM_ROOT_RESERVED, ALL, "upper half", _set("root", 65), {"source_id": 0x1F3}),
    Case(R.SM_CONTEXT_READ_ERROR, ALL, "no memory", _change("root", lctp=HOLE)),
    Case(R.SM_CONTEXT_NOT_PRESENT, ALL, "P=0", _change("context", p=False)),
    Case(R.SM_CONTEXT_RESERVED, ALL, "bit 7", _set("context", 7)),
    Case(
        R.SM_CONTEXT_RESERVED,
        ALL,
        "RID_PASID without RPS",
        _change("context", rid_pasid=1),
        {"unit": capabilities(rps=0)},
    ),
    Case(R.SM_CONTEXT_INVALID, ALL, "PRE without DTE", _change("context", dte=False, pre=True)),
    Case(
        R.SM_CONTEXT_INVALID,
        ALL,
        "RID_PASID beyond the directory",
        _change("context", pdts=0, rid_pasid=0x2000),
    ),
    Case(
        R.SM_CONTEXT_INVALID,
        ALL,
        "EPTR without PASIDE",
        _change("context", eptr=True, paside=False),
        {"unit": capabilities(ptrs=1)},
    ),
    Case(R.PASID_DISABLED, ALL, "PASIDE=0", _change("context", paside=False), {"pasid": PASID}),
    Case(
        R.PASID_BEYOND_DIRECTORY,
        ALL,
        "beyond PDTS",
        _both(_change("context", pdts=0), _ask(pasid=0x2000)),
        {"pasid": PASID},
    ),
    Case(R.PASID_IS_RID_PASID, ALL, "RID_PASID", _ask(pasid=PASID), {"rid_pasid": PASID}),
    Case(R.PASID_TOO_WIDE, ALL, "beyond PSS", _ask(pasid=0x10000), {"pasid": PASID}),
    Case(R.PASID_DIRECTORY_READ_ERROR, ALL, "no memory", _change("context", pasiddirptr=HOLE)),
    Case(R.PASID_DIRECTORY_NOT_PRESENT, ALL, "P=0", _change("directory", p=False)),
    Case(R.PASID_DIRECTORY_RESERVED, ALL, "bit 2", _set("directory", 2)),
    Case(R.PASID_READ_ERROR, ALL, "no memory", _change("directory", smptblptr=HOLE)),
    Case(R.PASID_NOT_PRESENT, ALL, "P=0", _change("pasid", p=False)),
    Case(R.PASID_RESERVED, ALL, "bit 5", _set("pasid", 5)),
    Case(R.PASID_RESERVED, ALL, "bit 511", _set("pasid", 511)),
    Case(R.PASID_INVALID, ALL, "reserved PGTT", _change("pasid", pgtt=7)),
    Case(R.PASID_INVALID, SECOND, "AW", _change("pasid", aw=4)),
    Case(R.PASID_INVALID, FIRST, "FSPM", _change("pasid", fspm=2)),
    Case(
        R.PASID_INVALID,
        FIRST,
        "five levels without FS5LP",
        _change("pasid", fspm=1),
        {"unit": capabilities(fs5lp=0)},
    ),
    Case(
        R.PASID_INVALID,
        (Mode.NESTED,),
        "FSPTPTR beyond AW",
        _change("pasid", fsptptr=1 << 39),
        {"second_levels": 3},
    ),
    Case(R.SUPERVISOR_DISABLED, ALL, "SRE=0", _ask(privileged=True), {"pasid": PASID}),
    Case(R.SUPERVISOR_DISABLED, ALL, "RID_PRIV, SRE=0", _change("context", rid_priv=True)),
    # First stage
    Case(R.FS_READ_ERROR, (Mode.FIRST,), "no table", _change("first2", addr=HOLE)),
    Case(R.FS_READ_ERROR, (Mode.NESTED,), "no table", _change(LAST_TABLE, addr=HOLE)),
    Case(R.FS_TOP_READ_ERROR, (Mode.FIRST,), "no table", _change("pasid", fsptptr=HOLE)),
    Case(R.FS_TOP_READ_ERROR, (Mode.NESTED,), "no table", _change(TOP_TABLE, addr=HOLE)),
    Case(R.FS_NOT_PRESENT, FIRST, "P=0", _change("first1", p=False)),
    Case(R.FS_RESERVED, FIRST, "beyond the HAW", _set("first1", 46)),
    Case(R.FS_RESERVED, FIRST, "PS at the top", _set("first4", 7)),
    Case(
        R.FS_BEYOND_WIDTH,
        (Mode.NESTED,),
        "of a page",
        _change("first1", addr=1 << 40),
        {"second_levels": 3},
    ),
    Case(
        R.FS_BEYOND_WIDTH,
        (Mode.NESTED,),
        "of a table",
        _change("first3", addr=1 << 40),
        {"second_levels": 3},
    ),
    Case(R.FS_TOP_NOT_READABLE, (Mode.NESTED,), "R=0", _change(TOP_TABLE, r=False)),
    Case(R.FS_NOT_READABLE, (Mode.NESTED,), "R=0", _change(LAST_TABLE, r=False)),
    Case(R.FS_NOT_WRITABLE, (Mode.NESTED,), "W=0 for A", _change(LAST_TABLE, w=False)),
    Case(R.FS_NOT_SNOOPED, FIRST, "PWSNP=0", _change("pasid", pwsnp=False)),
    Case(R.FS_UPDATE_ERROR, FIRST, "read-only", _freeze("first1")),
    Case(R.NOT_CANONICAL, FIRST, "48 bits", _ask(address=1 << 47)),
    Case(R.NOT_CANONICAL, FIRST, "57 bits", _ask(address=1 << 56), {"first_levels": 5}),
    Case(R.USER_DENIED, FIRST, "U/S=0 in the page", _change("first1", us=False)),
    Case(R.USER_DENIED, FIRST, "U/S=0 above", _change("first3", us=False)),
    # Second stage
    Case(R.SS_READ_ERROR, SECOND, "no table", _change("second2", addr=HOLE)),
    Case(R.SS_TOP_READ_ERROR, SECOND, "no table", _change("pasid", ssptptr=HOLE)),
    Case(R.SS_NOT_PRESENT, SECOND, "R=W=0", _change("second1", r=False, w=False)),
    Case(
        R.SS_NOT_PRESENT,
        (Mode.SECOND,),
        "no right left of all levels",
        _both(_change("second2", r=False), _change("second1", w=False)),
    ),
    Case(R.SS_RESERVED, SECOND, "beyond the HAW", _set("second1", 46)),
    Case(R.SS_NOT_SNOOPED, SECOND, "PWSNP=0", _change("pasid", ssade=True, pwsnp=False)),
    Case(
        R.SS_UPDATE_ERROR,
        SECOND,
        "read-only",
        _both(_change("pasid", ssade=True), _freeze("second1")),
    ),
    # Requests
    Case(R.SM_ADDRESS_BEYOND_HAW, (Mode.PASS_THROUGH,), "beyond", _ask(address=1 << 46)),
    Case(R.SM_ADDRESS_BEYOND_WIDTH, (Mode.SECOND,), "beyond AW", _ask(address=1 << 48)),
    Case(
        R.SM_ADDRESS_BEYOND_WIDTH,
        (Mode.SECOND,),
        "beyond MGAW",
        _ask(address=1 << 47),
        {"unit": capabilities(mgaw=46)},
    ),
    Case(
        R.SM_WRITE_DENIED,
        SECOND,
        "W=0 in the page",
        _both(_change("second1", w=False), _ask(access=WRITE)),
    ),
    Case(
        R.SM_WRITE_DENIED,
        FIRST,
        "R/W=0 above, atomic",
        _both(_change("first2", rw=False), _ask(access=ATOMIC)),
    ),
    Case(
        R.SM_WRITE_DENIED,
        FIRST,
        "R/W=0, supervisor, WPE=1",
        _both(
            _change("first1", rw=False),
            _change("pasid", sre=True, wpe=True),
            _ask(access=WRITE, privileged=True),
        ),
        {"pasid": PASID},
    ),
    Case(R.SM_READ_DENIED, SECOND, "R=0 in the page", _change("second1", r=False)),
    Case(R.SM_INTERRUPT_RANGE, SECOND, "output", _change("second1", addr=INTERRUPTS)),
    Case(R.SM_INTERRUPT_RANGE, (Mode.FIRST,), "output", _change("first1", addr=INTERRUPTS)),
    Case(
        R.SM_INTERRUPT_RANGE,
        (Mode.PASS_THROUGH,),
        "with PASID",
        _ask(address=INTERRUPTS),
        {"pasid": PASID},
    ),
)

ROWS = {
    (R.CONTEXT_INVALID, "reserved AW"): "LCT.4.1",
    (R.CONTEXT_INVALID, "AW not in SAGAW"): "LCT.4.1",
    (R.CONTEXT_INVALID, "reserved TT"): "LCT.4.2",
    (R.CONTEXT_INVALID, "TT=01b without DT"): "LCT.4.2",
    (R.CONTEXT_INVALID, "TT=10b without PT"): "LCT.4.2",
    (R.CONTEXT_INVALID, "no top table"): "LCT.4.3",
    (R.ADDRESS_BEYOND_WIDTH, "beyond AW"): "LGN.1.1",
    (R.ADDRESS_BEYOND_WIDTH, "beyond MGAW"): "LGN.1.1",
    (R.ADDRESS_BEYOND_WIDTH, "beyond the HAW"): "LGN.1.3",
    (R.MODE_INVALID, "TTM=11b without ADMS"): "RTA.1.1",
    (R.MODE_INVALID, "TTM=10b"): "RTA.1.2",
    (R.MODE_INVALID, "TTM=01b without SMTS"): "RTA.1.3",
    (R.MODE_INVALID, "SSIRWE with TTM=00b"): "RTA.1.4",
    (R.SM_CONTEXT_INVALID, "PRE without DTE"): "SCT.4.1",
    (R.SM_CONTEXT_INVALID, "RID_PASID beyond the directory"): "SCT.4.2",
    (R.SM_CONTEXT_INVALID, "EPTR without PASIDE"): "SCT.4.3",
    (R.PASID_INVALID, "AW"): "SPT.4.1",
    (R.PASID_INVALID, "reserved PGTT"): "SPT.4.2",
    (R.PASID_INVALID, "FSPM"): "SPT.4.3",
    (R.PASID_INVALID, "five levels without FS5LP"): "SPT.4.3",
    (R.PASID_INVALID, "FSPTPTR beyond AW"): "SPT.4.4",
    (R.SM_ADDRESS_BEYOND_HAW, "beyond"): "SGN.4.2",
}
"""Of the cases whose reason stands for several rows."""
