"""Plans that run: what devices reach is what guest and host tables say together, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.capabilities import ExtendedCapabilityId
from devices.interrupt_programming import remappable_message
from tests.vtd.host.plan_strategies import machine, plans
from vtd.host.attempts import BYTES, MARK, try_everything
from vtd.host.guests import Passed
from vtd.host.plan import PAGE, Plan, read_plan
from vtd.host.planner import judge, nearest
from vtd.host.running import HostError, RunningHost
from vtd.host.surroundings import Surroundings
from vtd.host.workload import do_work
from vtd.machine.assembly import assemble

PLANS = Path(__file__).parents[3] / "examples" / "plans"


def run(plan: Plan) -> RunningHost | None:
    """The plan, or the nearest one that works, on the machine of random plans."""
    assembly = assemble(machine())
    around = Surroundings.of(assembly)
    better = nearest(judge(plan, around), around)
    if better is None:
        return None
    return RunningHost(judge(better.plan, around), around, assembly)


def of_text(text: str, *, forced: bool = False) -> RunningHost:
    plan, described = read_plan(text)
    assert described is not None
    assembly = assemble(described)
    around = Surroundings.of(assembly)
    return RunningHost(judge(plan, around), around, assembly, forced=forced)


def composed(passed: Passed, address: int) -> int | None:
    """Where a device address leads by the guest's maps and by where the host has its memory."""
    guest = passed.guest
    if not guest.description.maps:
        return guest.host_address(address)
    for each in guest.description.maps:
        if each.device <= address < each.device + each.size:
            return guest.host_address(each.guest + address - each.device)
    return None


def reaches_the_composition(plan: Plan, data: st.DataObject) -> None:
    """Every device of the plan, near the borders of what it may reach and anywhere else."""
    host = run(plan)
    for passed in host.passed if host else ():
        ends = [at for device, size, _ in passed.guest.reached() for at in (device, device + size)]
        near = st.sampled_from(ends or [0]).flatmap(lambda at: st.integers(-9, 9).map(at.__add__))
        for address in data.draw(st.lists(st.integers(0, 1 << 24) | near, max_size=6)):
            aligned = max(address, 0) & -BYTES
            leads = composed(passed, aligned)
            before = None if leads is None or host is None else host.physical.read(leads, BYTES)
            answer = passed.function.dma.write(aligned, MARK)
            assert answer.ok == (leads is not None)
            if leads is not None and before is not None and host is not None:
                assert host.physical.read(leads, BYTES) == MARK
                host.physical.write(leads, before)


@given(plans(), st.data())
def test_a_device_reaches_the_composition_of_both_tables(plan: Plan, data: st.DataObject) -> None:
    reaches_the_composition(plan, data)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(plans(), st.data())
def test_devices_of_ten_thousand_plans_reach_it(plan: Plan, data: st.DataObject) -> None:
    reaches_the_composition(plan, data)


@given(plans())
def test_no_plan_that_works_lets_a_device_reach_another_guest(plan: Plan) -> None:
    host = run(plan)
    if host is not None:
        assert all(each.isolated for each in try_everything(host))
        assert list(host.findings()) == []


@pytest.mark.slow
@settings(max_examples=10_000)
@given(plans())
def test_ten_thousand_plans_isolate(plan: Plan) -> None:
    host = run(plan)
    if host is not None:
        assert all(each.isolated for each in try_everything(host))


@pytest.mark.parametrize("name", ["desktop", "server", "laptop"])
def test_the_examples_run_and_isolate(name: str) -> None:
    host = of_text((PLANS / f"{name}.toml").read_text())
    assert [each.isolated for each in try_everything(host)] == [True] * len(host.passed)
    for done in do_work(host):
        assert done.refused == 0
        assert done.hits + done.misses >= done.requests
        posted = name == "server"
        assert (done.posted, done.exits) == ((10, 0) if posted else (0, 10))
    assert list(host.findings()) == []


@pytest.mark.parametrize("invalidation", ["strict", "deferred"])
@pytest.mark.parametrize("viommu", ["shadow", "nested"])
def test_a_guest_unmaps_pages_while_its_device_works(viommu: str, invalidation: str) -> None:
    text = (PLANS / "server.toml").read_text()
    text = text.replace('name = "web"', f'name = "web"\nviommu = "{viommu}"')
    stage = "nested" if viommu == "nested" else "second"
    policy = f'policy = {{ stage = "{stage}", invalidation = "{invalidation}" }}'
    text = text.replace('devices = ["nic.vf0"]', f'devices = ["nic.vf0"]\n{policy}')
    host = of_text(text.replace("bytes = 1500", "bytes = 1500\nunmaps = 300"))
    done, other = do_work(host)
    assert (done.unmaps, done.refused, other.unmaps) == (300, 0, 0)
    if invalidation == "strict":
        assert done.late == 0
        assert done.invalidations >= 300
    else:
        assert done.late == 300
        assert done.invalidations <= 4  # one for each full queue, and page requests aside
    assert list(host.findings()) == []
    assert all(each.isolated for each in try_everything(host))


BEHIND_ONE_BRIDGE = """
[[memory]]
start = 0
size = "32 MiB"
[[unit]]
profile = "qemu"
base = 0xfed90000
include_all = true
[[bridge]]
name = "old"
at = "00:1e.0"
kind = "pcie_to_pci"
[[function]]
name = "one"
at = "old/01.0"
[[function]]
name = "two"
at = "old/02.0"
[[guest]]
name = "a"
memory = [{ start = 0, size = "1 MiB" }]
[[guest]]
name = "b"
memory = [{ start = 0x800000, size = "1 MiB" }]
[[assign]]
guest = "a"
devices = ["one"]
[[assign]]
guest = "b"
devices = ["two"]
"""


def test_a_split_group_is_refused_and_does_harm_when_it_is_forced() -> None:
    with pytest.raises(HostError, match="in one group with two"):
        of_text(BEHIND_ONE_BRIDGE)
    host = of_text(BEHIND_ONE_BRIDGE, forced=True)
    found = {each.device: each for each in try_everything(host)}
    assert not found["two"].isolated
    guest = host.guests["a"]
    host.passed[1].function.dma.write(0x3000, b"of the other guest")
    assert host.physical.read(guest.memory[0].host + 0x3000, 18) == b"of the other guest"


def test_whoever_has_a_physical_function_takes_virtual_ones_away() -> None:
    text, _, _ = (PLANS / "server.toml").read_text().partition("[[work]]")
    split = text.replace('devices = ["nic.vf0"]', 'devices = ["nic.vf0", "nic"]')
    with pytest.raises(HostError, match="its physical function nic is given to web"):
        of_text(split)
    host = of_text(split, forced=True)
    passed = {each.name: each for each in host.passed}
    device, _, _ = next(passed["nic.vf1"].guest.reached())
    assert passed["nic.vf1"].function.dma.write(device, MARK).ok
    physical = passed["nic"].function
    at = physical.config.find_extended_capability(ExtendedCapabilityId.SRIOV)
    assert at is not None
    physical.config.write(at + 8, 2, 0)  # VF Enable off: the driver of web may do that
    assert not passed["nic.vf1"].function.dma.write(device, MARK).ok


@pytest.mark.section("3.16")
def test_a_device_without_its_reserved_region_fails_and_with_it_works() -> None:
    text, _, _ = (PLANS / "desktop.toml").read_text().partition("[[guest]]")
    rest = """
[[guest]]
name = "a"
memory = [{ start = 0, size = "4 MiB" }]
[[assign]]
guest = "a"
devices = ["raid"]
"""
    forced = of_text(text + rest, forced=True)
    assert not forced.passed[0].function.dma.write(0x3900000, MARK).ok
    mapped = of_text(text + rest + 'policy = { rmrr = "map" }')
    assert mapped.passed[0].function.dma.write(0x3900000, MARK).ok
    assert mapped.physical.read(0x3900000, BYTES) == MARK


def test_interrupts_that_nobody_checks_can_be_forged() -> None:
    text, _, _ = (PLANS / "server.toml").read_text().partition("[[work]]")
    unsafe = text.replace('interrupts = "posted"', 'interrupts = "unsafe"')
    host = of_text(unsafe)
    sent = host.passed[0].function.dma.write(0xFEE0_0000, (0x31).to_bytes(4, "little"))
    assert sent.interrupt is not None
    checked = of_text(text)
    blocked = checked.passed[0].function.dma.write(0xFEE0_0000, (0x31).to_bytes(4, "little"))
    assert blocked.interrupt is None


ASKING = """
[[memory]]
start = 0
size = "32 MiB"
[[unit]]
profile = "xeon"
base = 0xfed9_0000
include_all = true
[[function]]
name = "engine"
at = "00:05.0"
ats = { page_requests = 8 }
[[guest]]
name = "a"
memory = [{ start = 0x10_0000, size = "1 MiB" }]
[policy]
memory = "page-requests"
ats = true
page_requests = true
[[assign]]
guest = "a"
devices = ["engine"]
"""


def test_memory_that_is_not_pinned_comes_when_a_device_asks_for_it() -> None:
    host = of_text(ASKING)
    (passed,) = host.passed
    (domain,) = passed.guest.domains.values()
    assert domain.physical(0x10_3000) is None
    (reach,) = try_everything(host)
    assert reach.isolated
    assert reach.granted == 2
    assert domain.physical(0x10_3000) is None
    assert passed.function.dma.write(0x10_3000, MARK).ok
    assert domain.physical(0x10_3000) == passed.guest.host_address(0x10_3000)
    assert not passed.function.dma.write(0x30_0000, MARK).ok
    assert list(host.findings()) == []


def test_memory_that_is_not_pinned_faults_where_nobody_asks() -> None:
    silent = ASKING.replace("page_requests = true\n", "").replace("ats = true\n", "")
    with pytest.raises(HostError, match="no page requests"):
        of_text(silent)
    (reach,) = try_everything(of_text(silent, forced=True))
    assert len(reach.missed) == 2


def test_a_device_with_pasids_reaches_its_guest_by_both_ways() -> None:
    plain = (
        ASKING.partition("[policy]")[0]
        .replace("ats = { page_requests = 8 }", "")
        .replace('at = "00:05.0"', 'at = "00:05.0"\nmodel = "dma_engine"')
    )
    assigned = '[[assign]]\nguest = "a"\ndevices = ["engine"]\n'
    policy = "policy = { pasid = true, ats = true, dirty_tracking = true }\n"
    host = of_text(plain + assigned + policy)
    (reach,) = try_everything(host)
    assert reach.isolated
    assert (reach.granted, reach.interrupt) == (4, "delivered")
    (passed,) = host.passed
    assert passed.domain is not None
    written = passed.domain.read_and_clear_dirty(0x10_0000, 1 << 20)
    assert written == [(0x10_0000, PAGE), (0x1F_F000, PAGE)]
    assert list(host.findings()) == []


def test_more_devices_than_a_page_has_interrupt_entries_run_behind_one_unit() -> None:
    count = 300
    host = of_text(
        '[[memory]]\nstart = 0\nsize = "64 MiB"\n'
        '[[unit]]\nprofile = "xeon"\nbase = 0xfed9_0000\ninclude_all = true\n'
        '[[bridge]]\nname = "port"\nat = "00:1c.0"\nkind = "root_port"\nacs = true\n'
        '[[function]]\nname = "nic"\nat = "port/00.0"\n'
        f"sriov = {{ total = {count}, first_offset = 1, stride = 1 }}\nvfs = {count}\n"
        '[[guest]]\nname = "guest"\nmemory = [{ start = 0, size = "1 MiB" }]\n'
        f'[[assign]]\nguest = "guest"\ndevices = {[f"nic.vf{each}" for each in range(count)]}\n'
    )
    assert len(host.passed) == count
    assert len({passed.handle for passed in host.passed}) == count
    for passed in (host.passed[0], host.passed[-1]):
        assert passed.handle is not None
        message = remappable_message(passed.handle, 0)
        data = message.data.to_bytes(4, "little")
        assert passed.function.dma.write(message.address, data).interrupt is not None
        assert passed.function.dma.write(0x1000, MARK).ok
        assert host.physical.read(passed.guest.host_address(0x1000) or 0, len(MARK)) == MARK
