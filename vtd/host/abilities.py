"""Rules about what units, devices and the host's memory can do of what a policy asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pagetables.geometry import first_stage_geometry
from vtd.host import ownership, reasons
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
from vtd.host.reasons import Reason
from vtd.host.surroundings import FEATURES, Surroundings
from vtd.host.verdicts import Verdict, set_policy
from vtd.machine.reading import Where
from vtd.unit.registers.capabilities import Capabilities


class Need(NamedTuple):
    """What a policy needs of a unit: the mnemonics of its flags, and what to do without."""

    asked: Callable[[Policy], bool]
    reason: Reason
    flags: tuple[str, ...]
    instead: dict[str, Any]


NEEDS = (
    Need(lambda p: p.interrupts is Interrupts.POSTED, reasons.NO_POSTING, ("ir", "pi"),
         {"interrupts": Interrupts.REMAPPED}),
    Need(lambda p: p.stage is Stage.FIRST, reasons.NO_FIRST, ("smts", "fsts"),
         {"stage": Stage.SECOND}),
    Need(lambda p: p.stage is Stage.NESTED, reasons.NO_NESTING, ("smts", "nest", "fsts", "ssts"),
         {"stage": Stage.SECOND}),
    Need(lambda p: p.ats, reasons.NO_DEVICE_TLBS, ("dt",), {"ats": False, "page_requests": False}),
    Need(lambda p: p.page_requests, reasons.NO_REQUESTS, ("prs", "dt"), {"page_requests": False}),
    Need(lambda p: p.pasid, reasons.NO_PASIDS, ("smts", "pasid"), {"pasid": False}),
    Need(lambda p: p.dirty_tracking, reasons.NO_DIRTY, ("smts", "ssads"),
         {"dirty_tracking": False}),
    Need(lambda p: p.page_size == 21 and p.stage is not Stage.FIRST, reasons.NO_2M, ("sslps_2m",),
         {"page_size": 12}),
    Need(lambda p: p.page_size == 30 and p.stage is not Stage.FIRST, reasons.NO_1G, ("sslps_1g",),
         {"page_size": 21}),
    Need(lambda p: p.page_size == 30 and p.stage is Stage.FIRST, reasons.NO_FIRST_1G, ("fs1gp",),
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
            change = set_policy(each.assignment, stage=Stage.FIRST)
            yield each.verdict(reasons.NO_SCALABLE_SECOND, change)
        for need in NEEDS:
            missing = [flag.upper() for flag in need.flags if flag not in features]
            if need.asked(each.policy) and missing:
                change = set_policy(each.assignment, **need.instead)
                yield each.verdict(need.reason, change, flags=", ".join(missing))


def interrupt_isolation(devices: list[Assigned]) -> Iterator[Verdict]:
    """Without remapping a device can send any interrupt; with it only its own."""
    for each in devices:
        if each.policy.interrupts is Interrupts.UNSAFE:
            yield each.verdict(reasons.UNSAFE)
        elif each.capabilities is not None and "ir" not in each.capabilities.features:
            change = set_policy(each.assignment, interrupts=Interrupts.UNSAFE)
            yield each.verdict(reasons.NO_INTERRUPT_REMAPPING, change)


def address_widths(plan: Plan, devices: list[Assigned]) -> Iterator[Verdict]:
    """Guest memory has to be below what tables and unit can translate."""
    for each in devices:
        if each.capabilities is None:
            continue
        width = input_width(each.capabilities, each.policy.stage)
        if width is None:
            change = set_policy(each.assignment, stage=Stage.FIRST)
            yield each.verdict(reasons.NO_TABLES, change)
            continue
        end = max(memory.end for memory in plan.guest(each.guest).memory)
        if end > 1 << width:
            yield each.verdict(reasons.WIDTH, guest=each.guest, end=end, width=width)


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
            yield each.verdict(reasons.FEATURES_OPEN, names=", ".join(asked))
            continue
        has = (around.features or {}).get(each.bdf, frozenset())
        for name in asked:
            if name not in has:
                change = set_policy(each.assignment, **{name: False})
                yield each.verdict(reasons.WITHOUT[name], change)
        if "ats" in asked and "ats" in has:
            yield each.verdict(reasons.TRUSTED)


def behaviour(plan: Plan, devices: list[Assigned]) -> Iterator[Verdict]:
    """What follows from policies together, and with the guest."""
    scalable = ownership.scalable_units(devices)
    for each in devices:
        policy, guest = each.policy, plan.guest(each.guest)
        if policy.invalidation is Invalidation.DEFERRED:
            yield each.verdict(reasons.DEFERRED)
        if policy.memory is Backing.PAGE_REQUESTS and not policy.page_requests:
            change = set_policy(each.assignment, memory=Backing.PINNED)
            yield each.verdict(reasons.UNASKED, change)
        if policy.memory is Backing.PAGE_REQUESTS and policy.stage is Stage.NESTED:
            change = set_policy(each.assignment, memory=Backing.PINNED)
            yield each.verdict(reasons.NESTED_REQUESTS, change, guest=each.guest)
        if policy.page_requests and not policy.ats:
            change = set_policy(each.assignment, page_requests=False)
            yield each.verdict(reasons.REQUESTS_WITHOUT_ATS, change)
        if policy.dirty_tracking and policy.ats:
            yield each.verdict(reasons.TRACKED_TLB)
        if policy.shared_tables:
            flag = "smpwcs" if each.base in scalable else "c"
            yield from _shared(each, guest, flag)
        yield from _nested(each, guest)


def _shared(each: Assigned, guest: Guest, flag: str) -> Iterator[Verdict]:
    """EPT that is the second stage too; ``flag`` says whether the unit snoops page walks (3.10)."""
    change = set_policy(each.assignment, shared_tables=False)
    if each.policy.stage is Stage.FIRST:
        yield each.verdict(reasons.SHARED_FIRST, change)
    if guest.viommu is Viommu.SHADOW:
        yield each.verdict(reasons.SHARED_SHADOW, change, guest=guest.name)
    if each.capabilities and flag not in each.capabilities.features:
        yield each.verdict(reasons.SHARED_UNSNOOPED, change, flag=flag.upper())


def _nested(each: Assigned, guest: Guest) -> Iterator[Verdict]:
    policy = each.policy
    if (policy.stage is Stage.NESTED) != (guest.viommu is Viommu.NESTED):
        change = set_policy(
            each.assignment, stage=Stage.NESTED if guest.viommu is Viommu.NESTED else Stage.SECOND
        )
        yield each.verdict(reasons.ONE_NESTED, change, guest=guest.name)


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
            change = set_policy(each.assignment, stage=Stage.SECOND)
            yield each.verdict(reasons.TABLE_ROOM, change, guest=guest.name, needed=needed)


def memory(plan: Plan, around: Surroundings) -> Iterator[Verdict]:
    """Guests that are pinned have all of their memory at once."""
    if around.memory is None:
        return
    pinned = {each.guest for each in plan.assignments if each.policy.memory is Backing.PINNED}
    needed = sum(guest.size for guest in plan.guests if guest.name in pinned)
    if needed > around.memory:
        text = reasons.HOST_MEMORY.text.format(needed=needed, there=around.memory)
        yield Verdict(reasons.HOST_MEMORY, Where(name="guest"), "host", text)
