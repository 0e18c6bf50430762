"""All that a planner can say of a plan: each reason by name, with its rule and its words."""

from __future__ import annotations

from typing import NamedTuple

from vtd.host import rules
from vtd.host.rules import Kind, Rule


class Reason(NamedTuple):
    """Why a rule speaks. ``text`` is a format string; verdicts fill it in."""

    name: str
    rule: Rule
    kind: Kind
    text: str

    @property
    def stops(self) -> bool:
        """Whether a plan does not work for this reason."""
        return self.kind in (Kind.CONTRADICTION, Kind.REFUSED)


IMPOSSIBLE, REFUSED, UNKNOWN, NOTE = Kind.CONTRADICTION, Kind.REFUSED, Kind.UNKNOWN, Kind.NOTE

NO_DEVICE = Reason("no-device", rules.DEVICE, IMPOSSIBLE, "there is no {name}")
BRIDGE = Reason(
    "bridge", rules.DEVICE, IMPOSSIBLE, "{bdf} is a bridge: it stays with the host"
)  # fmt: skip
GIVEN = Reason("given", rules.DEVICE, IMPOSSIBLE, "{bdf} is given to {guest} already")
TWICE = Reason(
    "twice", rules.DEVICE, NOTE, "{guest} has {name} already, the same function: its policy counts"
)
NO_UNIT = Reason("no-unit", rules.UNIT, REFUSED, "{bdf}: no unit covers it")
UNIT_OPEN = Reason(
    "unit-open", rules.UNIT, UNKNOWN, "{bdf}: its unit depends on bridges that are not known"
)
GROUP = Reason("group", rules.GROUP, IMPOSSIBLE, "in one group with {others}: {why}")
GROUP_OPEN = Reason("group-open", rules.GROUP, UNKNOWN, "in one group with {others}: {why}")
UNPLACED = Reason(
    "group-behind-unknown", rules.GROUP, UNKNOWN,
    "it is below a bridge that is not known, perhaps together with others",
)  # fmt: skip
OVERRIDE = Reason(
    "override", rules.GROUP, NOTE,
    "the ACS override hides that requests between it and {others} may bypass the unit",
)  # fmt: skip
QUEUES = Reason(
    "queues", rules.REQUESTER, IMPOSSIBLE,
    "a queue of {bdf}, as {name} of {guest}: all queues of a function have its requester id, so a "
    "unit gives them one address space",
)  # fmt: skip
PHYSICAL = Reason(
    "physical-function", rules.PHYSICAL, REFUSED,
    "its physical function {name} is given to {guest}",
)  # fmt: skip
REGION = Reason("region", rules.REGION, REFUSED, "needs the reserved region {ranges}")
REGION_OPEN = Reason(
    "region-open", rules.REGION, UNKNOWN, "region {ranges}: its class is not known"
)
REGION_LEFT_OUT = Reason(
    "region-left-out", rules.REGION, NOTE, "its region {ranges} is left out: for early boot only"
)
REGION_MAPPED = Reason(
    "region-mapped", rules.REGION, NOTE, "it can write to {range}, which firmware uses too"
)
MEMORY_OVER_REGION = Reason(
    "memory-over-region", rules.HOLE, IMPOSSIBLE, "memory of {guest} lies over the region {range}"
)
NO_INTERRUPT_REMAPPING = Reason(
    "no-interrupt-remapping", rules.ISOLATION, REFUSED,
    "its unit has no interrupt remapping: it can raise any interrupt of the host",
)  # fmt: skip
UNSAFE = Reason(
    "unsafe-interrupts", rules.ISOLATION, NOTE,
    "its writes to FEEx_xxxxh raise any interrupt of the host",
)  # fmt: skip
UNIT_REGISTERS = Reason(
    "unit-registers-open", rules.CAPABILITY, UNKNOWN,
    "the registers of its unit at {base:#x} are not known",
)  # fmt: skip
NO_SCALABLE_SECOND = Reason(
    "no-second-stage-beside-others", rules.CAPABILITY, IMPOSSIBLE,
    "in scalable mode, which others want, its unit has no second stage (SSTS)",
)  # fmt: skip
NO_TABLES = Reason(
    "no-second-stage", rules.CAPABILITY, IMPOSSIBLE,
    "its unit has no second-stage tables (SAGAW)",
)  # fmt: skip
ONE_NESTED = Reason(
    "nested-without-owner", rules.CAPABILITY, IMPOSSIBLE,
    "stage nested and viommu nested go together: {guest} owns the first stage",
)  # fmt: skip


def _lacks(name: str, what: str) -> Reason:
    """The unit has no flag for something that a policy asks for."""
    text = f"{what}: its unit has no {{flags}}"
    return Reason(name, rules.CAPABILITY, IMPOSSIBLE, text)


NO_POSTING = _lacks("no-posted-interrupts", "posted interrupts")
NO_FIRST = _lacks("no-first-stage", "first-stage translation")
NO_NESTING = _lacks("no-nesting", "nested translation")
NO_DEVICE_TLBS = _lacks("no-device-tlbs", "device-TLBs")
NO_REQUESTS = _lacks("no-page-requests", "page requests")
NO_PASIDS = _lacks("no-pasids", "PASIDs")
NO_DIRTY = _lacks("no-dirty-flags", "dirty flags of the second stage")
NO_2M = _lacks("no-2m-pages", "2 MiB pages")
NO_1G = _lacks("no-1g-pages", "1 GiB pages")
NO_FIRST_1G = _lacks("no-1g-pages-of-first-stage", "1 GiB pages")
WIDTH = Reason(
    "address-width", rules.WIDTH, IMPOSSIBLE,
    "memory of {guest} reaches {end:#x}: its unit translates {width} bits",
)  # fmt: skip
FEATURES_OPEN = Reason(
    "device-features-open", rules.FEATURE, UNKNOWN, "whether it has {names} is not known"
)
WITHOUT = {
    name: Reason(
        f"device-without-{name.replace('_', '-')}", rules.FEATURE, IMPOSSIBLE,
        f"it has no {name} capability",
    )
    for name in ("ats", "page_requests", "pasid")
}  # fmt: skip
"""By what a policy asks of devices."""
TRUSTED = Reason(
    "trusted", rules.TRUST, NOTE, "it sends translated addresses, which no table checks"
)
HOST_MEMORY = Reason(
    "host-memory", rules.MEMORY, IMPOSSIBLE,
    "guests with devices have {needed:#x} bytes, the host {there:#x}",
)  # fmt: skip
TABLE_ROOM = Reason(
    "room-for-tables", rules.MEMORY, IMPOSSIBLE,
    "the first stage of {guest} needs {needed:#x} bytes of its memory",
)  # fmt: skip
UNASKED = Reason(
    "not-pinned", rules.REQUESTED, REFUSED,
    "memory that is not pinned, and no page requests: DMA to it faults",
)  # fmt: skip
NESTED_REQUESTS = Reason(
    "not-pinned-nested", rules.REQUESTED, IMPOSSIBLE,
    "{guest} owns the first stage: its host can't answer for that",
)  # fmt: skip
REQUESTS_WITHOUT_ATS = Reason(
    "page-requests-without-ats", rules.REQUESTED, IMPOSSIBLE,
    "page requests come from devices that translate for themselves (ats)",
)  # fmt: skip
SHARED_FIRST = Reason(
    "shared-first-stage", rules.SHARED, IMPOSSIBLE,
    "EPT has the format of a second stage, not of a first",
)  # fmt: skip
SHARED_SHADOW = Reason(
    "shared-shadow", rules.SHARED, IMPOSSIBLE,
    "a shadow of what {guest} maps for its devices is no map of its memory",
)  # fmt: skip
SHARED_UNSNOOPED = Reason(
    "shared-unsnooped", rules.SHARED, REFUSED,
    "its unit does not snoop tables ({flag} = 0): the processor writes EPT without flushing",
)  # fmt: skip
DEFERRED = Reason(
    "deferred", rules.WINDOW, NOTE, "reaches unmapped pages until the next global invalidation"
)
TRACKED_TLB = Reason(
    "tracked-device-tlb", rules.MIGRATION, NOTE,
    "its device-TLB is invalidated in every round: it holds pages as dirty already",
)  # fmt: skip
PEERS = Reason(
    "peers", rules.PEERS, NOTE, "{port} has no ACS: it can write to the registers of {others}"
)
ONE_DEVICE = Reason(
    "one-device", rules.ONE_DEVICE, NOTE, "{name} of {guest} is part of the same device"
)

REASONS = (
    NO_DEVICE, BRIDGE, GIVEN, TWICE, NO_UNIT, UNIT_OPEN, GROUP, GROUP_OPEN, UNPLACED, OVERRIDE,
    QUEUES, PHYSICAL, REGION, REGION_OPEN, REGION_LEFT_OUT, REGION_MAPPED, MEMORY_OVER_REGION,
    NO_INTERRUPT_REMAPPING, UNSAFE, UNIT_REGISTERS, NO_SCALABLE_SECOND, NO_TABLES, ONE_NESTED,
    NO_POSTING, NO_FIRST, NO_NESTING, NO_DEVICE_TLBS, NO_REQUESTS, NO_PASIDS, NO_DIRTY, NO_2M,
    NO_1G, NO_FIRST_1G, WIDTH, FEATURES_OPEN, *WITHOUT.values(), TRUSTED, HOST_MEMORY, TABLE_ROOM,
    UNASKED, NESTED_REQUESTS, REQUESTS_WITHOUT_ATS, SHARED_FIRST, SHARED_SHADOW, SHARED_UNSNOOPED,
    DEFERRED, TRACKED_TLB, PEERS, ONE_DEVICE,
)  # fmt: skip
REFUSALS = tuple(each for each in REASONS if each.stops)
"""Those for which a plan does not work."""
