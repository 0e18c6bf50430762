"""Devices of a plan that work by their own engines: what they move, and what is refused."""

from __future__ import annotations

import pytest

from devices.models.nvme.function import Nvme
from vtd.host.attempts import try_everything
from vtd.host.engines import PAGES, engine_of
from vtd.host.plan import PAGE, read_plan
from vtd.host.planner import judge
from vtd.host.running import HostError, RunningHost
from vtd.host.surroundings import Surroundings
from vtd.host.workload import do_work
from vtd.machine.assembly import assemble
from vtd.unit.reporting.events import Event, RequestBlocked

MACHINE = """
[[memory]]
start = 0
size = "64 MiB"
[[unit]]
profile = "xeon"
base = 0xfed90000
include_all = true
[[bridge]]
name = "port"
at = "00:01.0"
kind = "root_port"
acs = true
[[function]]
name = "nic"
at = "port/00.0"
model = "nic82576"
vfs = 2
bus_master = true
[[bridge]]
name = "other"
at = "00:02.0"
kind = "root_port"
acs = true
[[function]]
name = "alone"
at = "other/00.0"
model = "nic82576"
[[function]]
name = "disk"
at = "00:04.0"
model = "nvme"
[[function]]
name = "copier"
at = "00:05.0"
model = "ioat"
[[function]]
name = "edu"
at = "00:06.0"
model = "edu"
[[guest]]
name = "one"
memory = [{ start = 0x100000, size = "2 MiB" }]
[[guest]]
name = "two"
memory = [{ start = 0x100000, size = "4 MiB" }]
[[assign]]
guest = "one"
devices = ["nic.vf0", "disk"]
[[assign]]
guest = "two"
devices = ["nic.vf1", "copier", "alone", "edu"]
"""
NETWORK = ("nic.vf0", "nic.vf1", "alone")
MODELS = ("disk", "copier", *NETWORK)


def host(work: str = "") -> RunningHost:
    plan, machine = read_plan(MACHINE + work)
    assert machine is not None
    assembly = assemble(machine)
    around = Surroundings.of(assembly)
    return RunningHost(judge(plan, around), around, assembly)


def work(device: str, **values: object) -> str:
    lines = [f"{name} = {str(value).lower()}\n" for name, value in values.items()]
    return f'[[work]]\ndevice = "{device}"\nengine = true\n{"".join(lines)}'


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("device", MODELS)
def test_an_engine_does_its_work_through_the_unit(device: str, writes: bool) -> None:
    running = host(work(device, requests=100, bytes=1024, writes=writes, interrupts=0))
    (done,) = do_work(running)
    assert (done.operations, done.bytes, done.refused) == (100, 100 * 1024, 0)
    assert done.operation != "requests"
    assert done.requests >= 300  # descriptor, data, completion
    assert done.misses > 0
    assert list(running.findings()) == []
    assert all(each.isolated for each in try_everything(running))


def test_engines_fill_memory_with_what_they_have() -> None:
    running = host(work("disk", requests=8, bytes=512) + work("alone", requests=4, bytes=300))
    (disk,) = (each for each in running.passed if each.name == "disk")
    assert isinstance(disk.function, Nvme)
    storage = disk.function.subsystem.namespaces[1].storage
    assert isinstance(storage, bytearray)
    storage[:512] = b"sector 0" * 64
    list(do_work(running))
    guests = {name: each.memory[0].host for name, each in running.guests.items()}
    first = PAGES * PAGE
    read = running.physical.read
    assert read(guests["one"] + first, 512) == read(guests["one"] + first + 512, 512)
    assert read(guests["one"] + first, 16) == b"sector 0" * 2
    assert read(guests["two"] + first + 12, 2) == b"\x88\xb5"  # the type of a frame


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("device", MODELS)
def test_what_the_unit_refuses_is_blocked_and_the_engine_goes_on(device: str, writes: bool) -> None:
    running = host()
    (passed,) = (each for each in running.passed if each.name == device)
    engine = engine_of(passed, running.physical)
    start, _, _ = next(passed.guest.reached())
    assert passed.domain is not None
    assert passed.unit is not None
    passed.domain.unmap(start + 0x10_0000, PAGE)
    size, happened = engine.size_of(1024), list[Event]()
    running.unit(passed.unit).subscribe(happened.append)
    assert engine.move(start + 0x11_0000, size, writes=writes)
    assert not any(isinstance(each, RequestBlocked) for each in happened)
    reported = engine.move(start + 0x10_0000, size, writes=writes)
    assert reported == (device in NETWORK)  # a controller drops the frame and says it is done
    assert any(isinstance(each, RequestBlocked) for each in happened)
    assert engine.move(start + 0x12_0000, size, writes=writes)


def test_a_model_without_an_engine_is_named() -> None:
    with pytest.raises(HostError, match="edu: its model has no engine that a plan can use"):
        list(do_work(host(work("edu"))))


def test_the_queues_of_an_engine_need_room() -> None:
    running = host(work("disk"))
    (passed,) = (each for each in running.passed if each.name == "disk")
    guest = running.guests["one"]
    guest.memory = (guest.memory[0]._replace(size=PAGES * PAGE),)
    with pytest.raises(HostError, match="disk: its guest has no room for the queues"):
        engine_of(passed, running.physical)
