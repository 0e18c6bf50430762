"""Rules about who gets which function: groups, requester ids, virtual functions, regions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from devices.capabilities import PortType
from devices.source_id import Bdf
from vtd.dmar.assignment import DISPLAY, USB, ReservedRegion
from vtd.dmar.records import Drhd
from vtd.host import reasons
from vtd.host.plan import PAGE, Assignment, Guest, GuestMemory, Plan, Policy, Rmrr, Stage
from vtd.host.reasons import Reason
from vtd.host.surroundings import Device, Surroundings, UnknownDeviceError
from vtd.host.verdicts import (
    Change,
    Verdict,
    add_devices,
    drop_device,
    set_memory,
    set_override,
    set_policy,
)
from vtd.unit.registers.capabilities import Capabilities


class Assigned(NamedTuple):
    """A device of a plan that is there, and its surroundings."""

    assignment: Assignment
    name: str
    device: Device
    unit: Drhd | None
    capabilities: Capabilities | None
    """Of the unit; None if not known."""

    @property
    def bdf(self) -> Bdf:
        return self.device.bdf

    @property
    def guest(self) -> str:
        return self.assignment.guest

    @property
    def policy(self) -> Policy:
        return self.assignment.policy

    @property
    def base(self) -> int | None:
        """Where the registers of its unit are."""
        return self.unit.register_base if self.unit else None

    def verdict(self, reason: Reason, *changes: Change, **words: object) -> Verdict:
        """A verdict about this device, in words; leaving it with the host always helps."""
        if reason.stops:
            changes = (*changes, drop_device(self.assignment, self.name))
        text = reason.text.format(**words)
        return Verdict(reason, self.assignment.where, self.name, text, changes)


def assigned_devices(
    plan: Plan, around: Surroundings
) -> tuple[list[Assigned], list[Assigned], list[Verdict]]:
    """The devices that are there, each once, those that can't be given, and what is wrong."""
    found: list[Assigned] = []
    rivals: list[Assigned] = []
    wrong: list[Verdict] = []
    owners: dict[Bdf, Assigned] = {}
    for assignment in plan.assignments:
        for name in assignment.devices:
            try:
                device = around.device(name)
            except UnknownDeviceError as error:
                text = reasons.NO_DEVICE.text.format(name=error)
                change = drop_device(assignment, name)
                wrong.append(Verdict(reasons.NO_DEVICE, assignment.where, name, text, (change,)))
                continue
            unit = around.unit(device.bdf)
            capabilities = around.capabilities.get(unit.register_base) if unit else None
            each = Assigned(assignment, name, device, unit, capabilities)
            other = owners.setdefault(device.bdf, each)
            if other is not each:
                wrong.append(_twice(each, other))
                if other.guest != each.guest:
                    rivals.append(each)
            elif around.is_bridge(device.bdf):
                wrong.append(each.verdict(reasons.BRIDGE, bdf=device.bdf))
                rivals.append(each)
            else:
                found.append(each)
    return found, rivals, wrong


def _twice(each: Assigned, other: Assigned) -> Verdict:
    words = {"bdf": each.bdf, "name": other.name, "guest": other.guest}
    if each.guest == other.guest:
        return each.verdict(reasons.TWICE, **words)
    queues = each.device.queue or other.device.queue
    return each.verdict(reasons.QUEUES if queues else reasons.GIVEN, **words)


def scalable_units(devices: Iterable[Assigned]) -> set[int | None]:
    """Units, by the base of their registers, that the policy of some device wants in scalable mode.

    Legacy mode will do for the others (3.4).
    """
    return {
        each.base
        for each in devices
        if each.policy.stage is not Stage.SECOND
        or each.policy.pasid
        or each.policy.page_requests
        or each.policy.dirty_tracking
    }


def groups(plan: Plan, around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """Every group has one owner; bridges in it carry nothing of their own."""
    owners = {each.bdf: each for each in devices}
    told: set[tuple[tuple[Bdf, ...], str]] = set()
    for each in devices:
        if each.bdf in around.groups.unplaced:
            yield each.verdict(reasons.UNPLACED)
        group = around.group(each.bdf, plan.policy.acs_override)
        if plan.policy.acs_override and group != around.group(each.bdf):
            shared = [bdf for bdf in around.group(each.bdf) if bdf not in group]
            yield each.verdict(reasons.OVERRIDE, others=", ".join(map(around.name, shared)))
        others = [
            bdf
            for bdf in group
            if not around.is_bridge(bdf) and (bdf not in owners or owners[bdf].guest != each.guest)
        ]
        if others and (group, each.guest) not in told:
            told.add((group, each.guest))
            yield _split(each, others, owners, around, plan)


def _split(
    each: Assigned,
    others: list[Bdf],
    owners: dict[Bdf, Assigned],
    around: Surroundings,
    plan: Plan,
) -> Verdict:
    group = set(around.group(each.bdf, plan.policy.acs_override))
    joins = [join for join in around.groups.joins if {join.first, join.second} <= group]
    why = "; ".join(dict.fromkeys(join.reason for join in joins))
    whose = ", ".join(
        f"{around.name(bdf)} ({owners[bdf].guest if bdf in owners else 'host'})" for bdf in others
    )
    if any(not join.known for join in joins):
        return each.verdict(reasons.GROUP_OPEN, others=whose, why=why)
    changes = []
    free = tuple(around.name(bdf) for bdf in others if bdf not in owners)
    if len(free) == len(others):
        changes.append(add_devices(each.assignment, free))
    overridden = around.group(each.bdf, ("downstream", "multifunction"))
    if not plan.policy.acs_override and set(overridden).isdisjoint(others):
        changes.append(set_override("downstream", "multifunction"))
    return each.verdict(reasons.GROUP, *changes, others=whose, why=why)


def functions_of_one_device(around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """Functions of one device with different owners: it could send with the id of either."""
    owners: dict[tuple[int, int], Assigned] = {}
    for each in devices:
        physical = around.tree.physical_function(each.bdf) or each.bdf
        other = owners.setdefault((physical.segment, physical.source_id >> 3), each)
        if other.guest != each.guest:
            yield each.verdict(reasons.ONE_DEVICE, name=other.name, guest=other.guest)


def peers(around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """Devices of others behind neighbouring ports of a switch that does not redirect requests."""
    owners = {each.bdf: each for each in devices}
    for each in devices:
        for port in around.tree.bridges_above(each.bdf):
            if around.function(port).express_type != PortType.DOWNSTREAM_PORT:
                continue
            below = set(around.tree.bridges_above(each.bdf))
            above = around.tree.bridge_above(port)
            others = [
                bdf
                for bdf in around.tree.functions
                if bdf not in below
                and bdf != each.bdf
                and not around.is_bridge(bdf)
                and above in around.tree.bridges_above(bdf)
                and port not in around.tree.bridges_above(bdf)
                and (bdf not in owners or owners[bdf].guest != each.guest)
            ]
            if others and not around.redirects(port):
                names = ", ".join(map(around.name, others))
                yield each.verdict(reasons.PEERS, port=around.name(port), others=names)


def units(around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """Every device is behind a unit."""
    for each in devices:
        if each.unit is None:
            undecided = around.scopes.undecided(each.bdf, Drhd)
            yield each.verdict(reasons.UNIT_OPEN if undecided else reasons.NO_UNIT, bdf=each.bdf)
        elif each.capabilities is None:
            yield each.verdict(reasons.UNIT_REGISTERS, base=each.unit.register_base)


def virtual_functions(around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """A guest with a physical function can reset and reprogram the virtual ones."""
    owners = {each.bdf: each for each in devices}
    for each in devices:
        physical = around.tree.physical_function(each.bdf)
        owner = owners.get(physical) if physical is not None else None
        if owner is not None and owner.guest != each.guest:
            yield each.verdict(reasons.PHYSICAL, name=owner.name, guest=owner.guest)


def regions(plan: Plan, around: Surroundings, devices: list[Assigned]) -> Iterator[Verdict]:
    """Reserved regions by the policy, and the holes that those mapped one to one need."""
    for each in devices:
        needed = around.regions.get(each.bdf, [])
        if not needed:
            continue
        ranges = ", ".join(f"{one.region.base:#x}-{one.region.limit:#x}" for one in needed)
        relaxable = _relaxable(around, each.bdf)
        match each.policy.rmrr:
            case Rmrr.MAP:
                yield from _holes(plan.guest(each.guest), each, needed)
            case Rmrr.RELAX if relaxable:
                yield each.verdict(reasons.REGION_LEFT_OUT, ranges=ranges)
            case Rmrr.RELAX if relaxable is None:
                yield each.verdict(reasons.REGION_OPEN, ranges=ranges)
            case _:
                change = set_policy(each.assignment, rmrr=Rmrr.RELAX if relaxable else Rmrr.MAP)
                yield each.verdict(reasons.REGION, change, ranges=ranges)


def _relaxable(around: Surroundings, bdf: Bdf) -> bool | None:
    class_code = around.function(bdf).class_code
    if class_code is None:
        return None
    return class_code == USB or class_code >> 8 == DISPLAY


def _holes(guest: Guest, each: Assigned, needed: Iterable[ReservedRegion]) -> Iterator[Verdict]:
    for one in needed:
        start = one.region.base & -PAGE
        end = one.region.end + PAGE - 1 & -PAGE
        words = {"guest": guest.name, "range": f"{start:#x}-{end - 1:#x}"}
        if any(memory.start < end and start < memory.end for memory in guest.memory):
            left = _without(guest, start, end)
            hole = set_memory(guest, left, f"no memory from {start:#x} to {end - 1:#x}")
            changes = (hole,) if left.memory else ()
            yield each.verdict(reasons.MEMORY_OVER_REGION, *changes, **words)
        else:
            yield each.verdict(reasons.REGION_MAPPED, **words)


def _without(guest: Guest, start: int, end: int) -> Guest:
    """The guest with a hole in its memory."""
    left: list[GuestMemory] = []
    for each in guest.memory:
        for first, last in ((each.start, min(each.end, start)), (max(each.start, end), each.end)):
            if first < last:
                left.append(GuestMemory(where=each.where, start=first, size=last - first))
    return replace(guest, memory=tuple(left))
