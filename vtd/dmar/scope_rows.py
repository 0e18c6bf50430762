"""What a table says about one function, in the form of ``vtd dmar scope --format json``."""

from __future__ import annotations

from typing import Any

from devices.source_id import Bdf
from vtd.dmar.pci_tree import LAST_SEGMENT, PciTree
from vtd.dmar.records import Atsr, Drhd, Rmrr
from vtd.dmar.scopes import Owner, Scopes

UNDECIDED = "can't tell without the bus tree (--lspci with the buses of bridges: lspci -v or -t)"


def scope_row(scopes: Scopes, bdf: Bdf, pci: PciTree | None) -> dict[str, Any]:
    """The unit of a function, None where it can't be told, its regions, ATS, bridges and alias."""
    owner = scopes.owner(bdf)
    undecided = _undecided(scopes, bdf, owner, pci)
    if undecided:
        owner = None
    sidp, atsr, satc = (
        scopes.properties(bdf), scopes.root_port_ats(bdf), scopes.translation_cache(bdf),
    )  # fmt: skip
    regions = [f"0x{each.base:x}-0x{each.limit:x}" for each in scopes.regions(bdf)]
    device = scopes.device(bdf)
    answer: dict[str, Any] = {
        "device": str(bdf),
        "unit": f"0x{owner.unit.register_base:x}" if owner else None,
        "reason": owner.reason.value if owner else undecided or _nobody(scopes, bdf),
        "entry": str(owner.entry) if owner and owner.entry else None,
        "regions": UNDECIDED if not regions and scopes.undecided(bdf, Rmrr) else regions,
        "bridges": [str(bridge) for bridge in scopes.bridges_above(bdf)],
        "alias": _alias(bdf, pci),
        "atsr": f"at 0x{atsr.offset:x}" if atsr else _no_atsr(scopes, bdf),
        "satc": f"at 0x{satc.offset:x}, flags 0x{int(satc.flags):x}" if satc else None,
        "sidp": {name: bool(value) for name, value in sidp.fields().items()} if sidp else None,
    }
    return answer if device == bdf else {**answer, "counts_as": str(device)}


def _undecided(scopes: Scopes, bdf: Bdf, owner: Owner | None, pci: PciTree | None) -> str | None:
    """Why the unit of a function can't be told; None if it can."""
    if owner is not None and owner.entry is not None:
        return None
    if scopes.undecided(bdf, Drhd):
        return UNDECIDED
    maybe = pci.possible_physical_function(bdf) if pci else None
    if maybe is None:
        return None
    other = scopes.owner(maybe)
    if other is not None and owner is not None and other.unit is owner.unit:
        return None
    return (
        f"can't tell: it may be a virtual function of {maybe}, whose capabilities are not shown "
        "(run lspci -vv as root)"
    )


def _no_atsr(scopes: Scopes, bdf: Bdf) -> str | None:
    segment = scopes.device(bdf).segment
    listed = any(each.segment == segment for each in scopes.table.all(Atsr))
    return UNDECIDED if listed and scopes.hidden(bdf) else None


def _nobody(scopes: Scopes, bdf: Bdf) -> str:
    segment = scopes.device(bdf).segment
    if segment > LAST_SEGMENT:
        return f"domain {segment:x} is behind a VMD controller; which one is not known"
    if not scopes.table.segment_units(segment):
        return f"no unit covers it: segment {segment} has no DRHD"
    return "no unit covers it"


def _alias(bdf: Bdf, pci: PciTree | None) -> str | None:
    if pci is None:
        return None if bdf.source_id.bus == 0 else "not known: needs the PCI tree (--lspci)"
    if pci.may_be_below_a_bridge(bdf):
        return "not known: the listing has no buses of bridges (lspci -v or -t)"
    alias, unknown = pci.alias(bdf), pci.alias_unknown(bdf)
    if unknown:
        return f"not known: the listing has no capabilities of {unknown} (run lspci -vv as root)"
    return str(alias) if alias else _quirk_alias(bdf, pci)


def _quirk_alias(bdf: Bdf, pci: PciTree) -> str | None:
    """The id that a device may send with beside its own; how many, where there are several."""
    ids = pci.quirk_aliases(bdf)
    if len(ids) < 2:
        return str(*ids) or None
    return f"any of {len(ids)} ids of its bus"
