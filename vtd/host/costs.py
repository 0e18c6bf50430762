"""What a guest's address space costs: tables and entries, and descriptors for every change.

Tables are counted as the builder makes them, descriptors by asking the guidance of the driver for
what one page owes (6.5.3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pagetables.geometry import Geometry, first_stage_geometry, second_stage_geometry
from pagetables.memory import FRAME_SIZE
from vtd.host.ownership import Assigned, scalable_units
from vtd.host.plan import Invalidation, Plan, Policy, Stage
from vtd.layouts.entries import PasidTranslationType
from vtd.software.guidance import Endpoint, Guidance, User
from vtd.unit.registers.capabilities import Capabilities


@dataclass(frozen=True)
class GuestCost:
    """One guest behind one unit."""

    guest: str
    unit: int
    """Base of its registers."""
    leaves: int
    """Entries that map its memory."""
    tables: int
    """Pages of page tables."""
    unmap: int
    """Descriptors for one page that is unmapped."""
    interrupts: int
    """Interrupt-remapping entries, one for each device."""


def guest_costs(plan: Plan, devices: list[Assigned]) -> tuple[GuestCost, ...]:
    """The costs of each guest behind each unit whose registers are known."""
    return tuple(_costs(plan, devices))


def _costs(plan: Plan, devices: list[Assigned]) -> Iterator[GuestCost]:
    scalable = scalable_units(devices)
    together: dict[tuple[str, int], list[Assigned]] = {}
    for each in devices:
        if each.unit is not None and each.capabilities is not None:
            together.setdefault((each.guest, each.unit.register_base), []).append(each)
    for (guest, unit), members in together.items():
        policy, capabilities = members[0].policy, members[0].capabilities
        assert capabilities is not None  # as sorted above
        geometry = _geometry(capabilities, policy)
        if geometry is None:
            continue
        ranges = [(each.start, each.size) for each in plan.guest(guest).memory]
        leaves, tables = counted_entries(ranges, geometry, policy.page_size)
        yield GuestCost(
            guest=guest,
            unit=unit,
            leaves=leaves,
            tables=tables,
            unmap=_descriptors(members, capabilities, scalable=unit in scalable),
            interrupts=len(members),
        )


def _geometry(capabilities: Capabilities, policy: Policy) -> Geometry | None:
    if policy.stage is Stage.FIRST:
        return first_stage_geometry(4, capabilities.implementation)
    widths = capabilities.address_widths
    if not widths:
        return None
    return second_stage_geometry(4 if 2 in widths else max(widths) + 2, capabilities.implementation)


def counted_entries(
    ranges: Iterable[tuple[int, int]], geometry: Geometry, largest: int
) -> tuple[int, int]:
    """Leaves and tables that map ranges (start, bytes) with pages as large as fit.

    ``largest``: log2 of the largest page.
    """
    sizes = [level.shift for level in geometry.levels if level.shift <= largest and level.leaf]
    leaves = 0
    tables: set[tuple[int, int]] = set()
    for start, size in ranges:
        address, end = start, start + size
        while address < end:
            shift = max(
                shift
                for shift in sizes
                if address % (1 << shift) == 0 and address + (1 << shift) <= end
            )
            count = _run(address, end, shift, sizes)
            leaves += count
            for level in geometry.levels:
                if level.shift >= shift:
                    covered = level.shift + 9
                    last = address + (count << shift) - 1
                    tables.update(
                        (level.shift, number)
                        for number in range(address >> covered, (last >> covered) + 1)
                    )
            address += count << shift
    return leaves, len(tables)


def _run(address: int, end: int, shift: int, sizes: list[int]) -> int:
    """Pages of a size in a row: up to the end, or to where a larger one fits."""
    stop = end & -(1 << shift)
    for larger in sizes:
        border = (address + (1 << larger) - 1) & -(1 << larger)
        if larger > shift and address < border and border + (1 << larger) <= end:
            stop = min(stop, border)
    return (stop - address) >> shift


def _descriptors(members: list[Assigned], capabilities: Capabilities, *, scalable: bool) -> int:
    """Invalidations for one unmapped page; none at once where they are put off."""
    policy = members[0].policy
    if policy.invalidation is Invalidation.DEFERRED:
        return 0
    guidance = Guidance(capabilities, scalable=scalable)
    kind = PasidTranslationType.SECOND_STAGE
    if policy.stage is Stage.FIRST:
        kind = PasidTranslationType.FIRST_STAGE
    users = [
        User(Endpoint(int(each.bdf.source_id), ats=policy.ats), None, 1, kind) for each in members
    ]
    owed = guidance.first_stage if policy.stage is Stage.FIRST else guidance.second_stage
    return len(list(owed(users, [(0, FRAME_SIZE)], leaves_only=True)))
