"""Functions as clients see them: virtual ones by themselves, and none that the model drives."""

from __future__ import annotations

import json
from pathlib import Path

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
