"""What a guest costs is what the builder of tables really makes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pagetables.build import FramePool, TableBuilder
from pagetables.geometry import second_stage_geometry
from pagetables.memory import PhysicalMemory
from tests.vtd.host.plan_strategies import guests, machine
from vtd.host.costs import guest_costs
from vtd.host.ownership import Assigned, assigned_devices
from vtd.host.plan import Assignment, Guest, Plan, Policy
from vtd.host.surroundings import Surroundings
from vtd.machine.assembly import assemble

AROUND = Surroundings.of(assemble(machine()))


def devices(plan: Plan) -> list[Assigned]:
    found, _, wrong = assigned_devices(plan, AROUND)
    assert not wrong
    return found


@given(guests("a"), st.sampled_from((12, 21, 30)))
def test_tables_and_entries_are_those_of_the_builder(guest: Guest, largest: int) -> None:
    policy = Policy(page_size=largest)
    plan = Plan(
        guests=(guest,),
        assignments=(Assignment(guest="a", devices=("disk",), policy=policy),),
    )
    (cost,) = guest_costs(plan, devices(plan))
    memory = PhysicalMemory()
    memory.add_region(0, 1 << 24)
    pool = FramePool(0, 1 << 24)
    capabilities = next(iter(AROUND.capabilities.values()))
    geometry = second_stage_geometry(4, capabilities.implementation)
    leaves = 0

    def count(change: object) -> None:
        nonlocal leaves
        leaves += change.page  # type: ignore[attr-defined]

    builder = TableBuilder(memory, geometry, pool, largest=largest, changed=count)
    for each in guest.memory:
        builder.map(each.start, each.start, each.size, "rw")
    assert (cost.leaves, cost.tables) == (leaves, pool.used)


def test_a_unit_with_caching_of_two_devices_counts_each_once() -> None:
    guest = Guest(name="a", memory=(), cpus=1)
    plan = Plan(
        guests=(guest,),
        assignments=(Assignment(guest="a", devices=("nic.vf0", "nic.vf1")),),
    )
    (cost,) = guest_costs(plan, devices(plan))
    assert (cost.leaves, cost.tables, cost.unmap, cost.interrupts) == (0, 0, 1, 2)
