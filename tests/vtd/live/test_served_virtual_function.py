"""Functions as clients see them: virtual ones by themselves, and none that the model drives."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vtd.live.machine import LiveMachine
from vtd.live.messages import CONFIG_REGION
from vtd.live.qemu_arguments import qemu_arguments
from vtd.machine.assembly import assemble
from vtd.machine.description import read_machine

MACHINE = """
[[unit]]
base = 0xfd000000
profile = "qemu"
include_all = true

[[function]]
at = "00:05.0"
model = "nic82576"
vfs = 1
parameters = { driven = DRIVEN }
"""


def served(driven: bool) -> LiveMachine:
    assembly = assemble(read_machine(MACHINE.replace("DRIVEN", str(driven).lower())))
    return LiveMachine(assembly.platform, assembly.clock)


def test_a_virtual_function_by_itself_has_ids_and_bars() -> None:
    _, virtual = served(True).endpoints
    function = virtual.served
    assert function.read(CONFIG_REGION, 0, 4) == bytes.fromhex("8680ca10")
    bars = function.read(CONFIG_REGION, 0x10, 24)
    assert bars == bytes((0xC, *bytes(11), 0xC, *bytes(11)))
    assert function.read(CONFIG_REGION, 0x34, 1) == b"\0"
    function.reset()
    assert function.read(CONFIG_REGION, 1, 2) == bytes.fromhex("80ca")
    assert function.read(CONFIG_REGION, 0x34, 1) == b"\xa0"
    assert function.region_size(0) == function.region_size(3) == 0x4000
    assert function.region_size(1) == 0


def test_a_function_that_the_model_drives_is_no_guests() -> None:
    for driven, places in ((True, ["15.0"]), (False, ["05.0", "15.0"])):
        arguments = qemu_arguments(served(driven), Path("dmar"), lambda each: Path(each.name))
        devices = [json.loads(each) for each in arguments if each.startswith("{")]
        functions = [each["addr"] for each in devices if "chipset" not in each["socket"]["path"]]
        assert functions == places


@given(data=st.data())
def test_the_sr_iov_capability_is_a_null_one_and_virtual_functions_stay(
    data: st.DataObject,
) -> None:
    machine = served(False)
    _, physical, virtual = machine.endpoints
    owner, function = physical.served, virtual.served.function
    sriov = owner.function.sriov
    assert sriov is not None
    owner.reset()
    place, config = sriov.place, owner.function.config
    shown = owner.read(CONFIG_REGION, 0, config.size)
    truth = config.read_bytes(0, config.size)
    assert shown[: place.start] == truth[: place.start]
    assert shown[place.stop :] == truth[place.stop :]
    assert shown[place.start + 2 : place.start + 4] == truth[place.start + 2 : place.start + 4]
    assert not any(shown[place.start : place.start + 2] + shown[place.start + 4 : place.stop])
    for offset in data.draw(st.lists(st.integers(place.start - 3, place.stop - 1))):
        owner.write(CONFIG_REGION, offset, data.draw(st.binary(min_size=4, max_size=4)))
    owner.reset()
    assert config.read_bytes(0, config.size) == truth
    assert function in machine.platform.topology.functions()
