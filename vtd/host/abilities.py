"""Rules about what units, devices and the host's memory can do of what a policy asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pagetables.geometry import first_stage_geometry
from vtd.host import ownership, verdicts
from vtd.host.costs import counted_entries
from vtd.host.ownership import Assigned
from vtd.host.plan import (
    PAGE,
    Backing,
    Guest,
    Interrupts,
    Invalidation,
    Plan,
    Policy,
    Stage,
    Viommu,
)
from vtd.host.surroundings import FEATURES, Surroundings
from vtd.host.verdicts import Kind, Verdict, set_policy
from vtd.machine.reading import Where
from vtd.unit.registers.capabilities import Capabilities


class Need(NamedTuple):
    """What a policy needs of a unit: the mnemonics of its flags, and what to do without."""

    asked: Callable[[Policy], bool]
    what: str
    flags: tuple[str, ...]
    instead: dict[str, Any]


NEEDS = (
    Need(lambda p: p.interrupts is Interrupts.POSTED, "posted interrupts", ("ir", "pi"),
         {"interrupts": Interrupts.REMAPPED}),
    Need(lambda p: p.stage is Stage.FIRST, "first-stage translation", ("smts", "fsts"),
         {"stage": Stage.SECOND}),
    Need(lambda p: p.stage is Stage.NESTED, "nested translation", ("smts", "nest", "fsts", "ssts"),
         {"stage": Stage.SECOND}),
    Need(lambda p: p.ats, "device-TLBs", ("dt",), {"ats": False, "page_requests": False}),
    Need(lambda p: p.page_requests, "page requests", ("prs", "dt"), {"page_requests": False}),
    Need(lambda p: p.pasid, "PASIDs", ("smts", "pasid"), {"pasid": False}),
    Need(lambda p: p.dirty_tracking, "dirty flags of the second stage", ("smts", "ssads"),
         {"dirty_tracking": False}),
    Need(lambda p: p.page_size == 21 and p.stage is not Stage.FIRST, "2 MiB pages", ("sslps_2m",),
         {"page_size": 12}),
    Need(lambda p: p.page_size == 30 and p.stage is not Stage.FIRST, "1 GiB pages", ("sslps_1g",),
         {"page_size": 21}),
    Need(lambda p: p.page_size == 30 and p.stage is Stage.FIRST, "1 GiB pages", ("fs1gp",),
         {"page_size": 21}),
)  # fmt: skip
"""What policies ask of units (11.4.2, 11.4.3)."""


def unit_capabilities(devices: list[Assigned]) -> Iterator[Verdict]:
    """What the policy asks of the unit of each device."""
    scalable = ownership.scalable_units(devices)
    for each in devices:
        if each.capabilities is None:
            continue
        features = each.capabilities.features
        second = each.policy.stage is Stage.SECOND
        if second and each.base in scalable and "ssts" not in features:
            text = "in scalable mode, which others want, its unit has no second stage (SSTS)"
            change = set_policy(each.assignment, stage=Stage.FIRST)
            yield each.verdict(verdicts.CAPABILITY, Kind.CONTRADICTION, text, change)
        for need in NEEDS:
            missing = [flag.upper() for flag in need.flags if flag not in features]
            if need.asked(each.policy) and missing:
                text = f"{need.what}: its unit has no {', '.join(missing)}"
                change = set_policy(each.assignment, **need.instead)
                yield each.verdict(verdicts.CAPABILITY, Kind.CONTRADICTION, text, change)


def interrupt_isolation(devices: list[Assigned]) -> Iterator[Verdict]:
    """Without remapping a device can send any interrupt; with it only its own."""
    for each in devices:
        if each.policy.interrupts is Interrupts.UNSAFE:
            text = "its writes to FEEx_xxxxh raise any interrupt of the host"
            yield each.verdict(verdicts.ISOLATION, Kind.NOTE, text)
        elif each.capabilities is not None and "ir" not in each.capabilities.features:
            text = "its unit has no interrupt remapping: it can raise any interrupt of the host"
            change = set_policy(each.assignment, interrupts=Interrupts.UNSAFE)
            yield each.verdict(verdicts.ISOLATION, Kind.REFUSED, text, change)


def address_widths(plan: Plan, devices: list[Assigned]) -> Iterator[Verdict]:
    """Guest memory has to be below what tables and unit can translate."""
    for each in devices:
        if each.capabilities is None:
            continue
        width = input_width(each.capabilities, each.policy.stage)
        if width is None:
            text = "its unit has no second-stage tables (SAGAW)"
            change = set_policy(each.assignment, stage=Stage.FIRST)
            yield each.verdict(verdicts.CAPABILITY, Kind.CONTRADICTION, text, change)
            continue
        end = max(memory.end for memory in plan.guest(each.guest).memory)
        if end > 1 << width:
            text = f"memory of {each.guest} reaches {end:#x}: its unit translates {width} bits"
            yield each.verdict(verdicts.WIDTH, Kind.CONTRADICTION, text)


def input_width(capabilities: Capabilities, stage: Stage) -> int | None:
    """Bits of an input address that a unit can translate; None without tables."""
    if stage is Stage.FIRST:
        return 47  # the lower half of 4-level tables (3.6)
    widths = capabilities.address_widths
    if not widths:
        return None
    levels = 4 if 2 in widths else max(widths) + 2
    return min(capabilities.max_guest_address_width, 12 + 9 * levels)


def device_features(around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """What the policy asks of each device, and what it trusts it with."""
    for each in devices:
        asked = [name for name in FEATURES if getattr(each.policy, name)]
        if asked and around.features is None:
            text = f"whether it has {', '.join(asked)} is not known"
            yield each.verdict(verdicts.FEATURE, Kind.UNKNOWN, text)
            continue
        has = (around.features or {}).get(each.bdf, frozenset())
        for name in asked:
            if name not in has:
                text = f"it has no {name} capability"
                change = set_policy(each.assignment, **{name: False})
                yield each.verdict(verdicts.FEATURE, Kind.CONTRADICTION, text, change)
        if "ats" in asked and "ats" in has:
            text = "it sends translated addresses, which no table checks"
            yield each.verdict(verdicts.TRUST, Kind.NOTE, text)


def behaviour(plan: Plan, devices: list[Assigned]) -> Iterator[Verdict]:
    """What follows from policies that every unit can carry out."""
    for each in devices:
        policy, guest = each.policy, plan.guest(each.guest)
        if policy.invalidation is Invalidation.DEFERRED:
            text = "reaches unmapped pages until the next global invalidation"
            yield each.verdict(verdicts.WINDOW, Kind.NOTE, text)
        if policy.memory is Backing.PAGE_REQUESTS and not policy.page_requests:
            text = "memory that is not pinned, and no page requests: DMA to it faults"
            change = set_policy(each.assignment, memory=Backing.PINNED)
            yield each.verdict(verdicts.REQUESTED, Kind.REFUSED, text, change)
        if policy.memory is Backing.PAGE_REQUESTS and policy.stage is Stage.NESTED:
            text = f"{each.guest} owns the first stage: its host can't answer for that"
            change = set_policy(each.assignment, memory=Backing.PINNED)
            yield each.verdict(verdicts.REQUESTED, Kind.CONTRADICTION, text, change)
        if policy.page_requests and not policy.ats:
            text = "page requests come from devices that translate for themselves (ats)"
            change = set_policy(each.assignment, page_requests=False)
            yield each.verdict(verdicts.REQUESTED, Kind.CONTRADICTION, text, change)
        if policy.dirty_tracking and policy.ats:
            text = "its device-TLB is invalidated in every round: it holds pages as dirty already"
            yield each.verdict(verdicts.MIGRATION, Kind.NOTE, text)
        yield from _tables(each, guest)


def _tables(each: Assigned, guest: Guest) -> Iterator[Verdict]:
    policy = each.policy
    if policy.shared_tables and policy.stage is Stage.FIRST:
        text = "EPT has the format of a second stage, not of a first"
        change = set_policy(each.assignment, shared_tables=False)
        yield each.verdict(verdicts.SHARED, Kind.CONTRADICTION, text, change)
    if policy.shared_tables and guest.viommu is Viommu.SHADOW:
        text = f"a shadow of what {guest.name} maps for its devices is no map of its memory"
        change = set_policy(each.assignment, shared_tables=False)
        yield each.verdict(verdicts.SHARED, Kind.CONTRADICTION, text, change)
    if policy.shared_tables and each.capabilities and "c" not in each.capabilities.features:
        text = "its unit does not snoop tables (C = 0): the processor writes EPT without flushing"
        change = set_policy(each.assignment, shared_tables=False)
        yield each.verdict(verdicts.SHARED, Kind.REFUSED, text, change)
    if (policy.stage is Stage.NESTED) != (guest.viommu is Viommu.NESTED):
        text = f"stage nested and viommu nested go together: {guest.name} owns the first stage"
        change = set_policy(
            each.assignment, stage=Stage.NESTED if guest.viommu is Viommu.NESTED else Stage.SECOND
        )
        yield each.verdict(verdicts.CAPABILITY, Kind.CONTRADICTION, text, change)


def own_tables(guest: Guest, capabilities: Capabilities) -> int:
    """Pages of the first-stage tables that a guest makes of its maps, with 4 KiB pages."""
    ranges = [(device, size) for device, _, size in guest.own_maps()]
    geometry = first_stage_geometry(4, capabilities.implementation)
    _, tables = counted_entries(ranges, geometry, 12)
    return max(tables, 1)


def room_for_tables(plan: Plan, devices: list[Assigned]) -> Iterator[Verdict]:
    """A guest that owns a first stage has its tables in its own memory."""
    for each in devices:
        if each.policy.stage is not Stage.NESTED or each.capabilities is None:
            continue
        guest = plan.guest(each.guest)
        needed = own_tables(guest, each.capabilities) * PAGE
        if needed >= guest.largest.size:
            text = f"the first stage of {guest.name} needs {needed:#x} bytes of its memory"
            change = set_policy(each.assignment, stage=Stage.SECOND)
            yield each.verdict(verdicts.MEMORY, Kind.CONTRADICTION, text, change)


def memory(plan: Plan, around: Surroundings) -> Iterator[Verdict]:
    """Guests that are pinned have all of their memory at once."""
    if around.memory is None:
        return
    pinned = {each.guest for each in plan.assignments if each.policy.memory is Backing.PINNED}
    needed = sum(guest.size for guest in plan.guests if guest.name in pinned)
    if needed > around.memory:
        text = f"guests with devices have {needed:#x} bytes, the host {around.memory:#x}"
        yield Verdict(verdicts.MEMORY, Kind.CONTRADICTION, Where(name="guest"), "host", text)
