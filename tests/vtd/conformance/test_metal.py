"""Real machines: one unit that is asked for, with nothing behind it that matters, is read."""

from dataclasses import replace

import pytest

from tests.vtd.conformance.interpreter import BASE, Machine, configuration
from tests.vtd.conformance.kits import built, judged, probed, received
from tests.vtd.conformance.test_kit import instructions
from vtd.conformance.format import Op, Reset
from vtd.conformance.image import Image, KitError
from vtd.conformance.kit import Builder, Wanted
from vtd.conformance.metal import one_unit, register_cases
from vtd.conformance.probe import Probe
from vtd.conformance.running import check_devices
from vtd.dmar.description import build
from vtd.dmar.table import Table
from vtd.fuzz.case import Case, reg_write
from vtd.unit.registers.capabilities import PROFILES

OTHER = 0xFED9_1000
TABLE = f"""
[[structure]]
type = "DRHD"
register_base = {OTHER:#x}
[[structure.scope]]
type = "pci_endpoint"
path = ["04.0"]
[[structure]]
type = "DRHD"
register_base = {BASE:#x}
flags = ["include_pci_all"]
"""
REGION = """
[[structure]]
type = "RMRR"
base = 0x7f000000
limit = 0x7f0fffff
[[structure.scope]]
type = "pci_endpoint"
path = ["04.0"]
"""


def machine(table: str = TABLE, **functions: int) -> Probe:
    """A real one with two units; ``functions`` are classes of devices, by place in hexadecimal."""
    found = probed()
    spaces = dict(found.functions)
    for place, kind in functions.items():
        space = bytearray(configuration(0))
        space[0x0B] = kind
        spaces[int(place[1:], 16)] = bytes(space)
    width = f"[header]\nhost_address_width = {found.host_address_width - 1}\n"
    units = (found.unit, replace(found.unit, base=OTHER))
    return replace(
        found, dmar=build(width + table).pack(), units=units, functions=spaces, virtual=False
    ).checked()


def image_of(probe: Probe, base: int = BASE) -> Image:
    builder = Builder(one_unit(probe, base), reset=Reset.NONE)
    for wanted in register_cases(builder.probe):
        assert builder.add(wanted), builder.left
    return builder.image()


def test_a_real_machine_is_left_alone_unless_a_unit_of_it_is_named() -> None:
    with pytest.raises(KitError, match=f"a real machine: --metal .*, {BASE:#x}, {OTHER:#x}"):
        Builder(machine())
    with pytest.raises(KitError, match="no unit at 0x1000: 0xfed90000, 0xfed91000"):
        one_unit(machine(), 0x1000)


def test_a_unit_is_read_and_nothing_else_is_done() -> None:
    image = image_of(machine())
    assert {op for op, _, _ in instructions(image)} == {Op.READ}
    assert all(each.driver == 0 for each in image.header.devices)
    unit = Machine(PROFILES["qemu"], virtual=False)
    verdicts = judged(image, unit)
    assert len(verdicts) > 10
    assert [(each.name, each.why) for each in verdicts if not each.passed] == []
    assert "Capability" in {each.name for each in verdicts}


def test_another_unit_is_noticed_by_what_it_reads() -> None:
    verdicts = judged(image_of(machine()), Machine(PROFILES["qemu-scalable"], virtual=False))
    assert {each.name for each in verdicts if each.failed} >= {"ExtendedCapability"}


def test_cases_that_write_are_left_out() -> None:
    builder = Builder(one_unit(machine(), BASE), reset=Reset.NONE)
    assert not builder.add(Wanted("a", "test", Case(PROFILES["qemu"], (reg_write(0x18, 4, 0),))))
    assert builder.left[0].why == "does more than read registers"


@pytest.mark.parametrize(
    ("probe", "base", "why"),
    [
        (machine(TABLE + REGION), OTHER, "reserved memory region .*00:04.0"),
        (machine(p0038=0x03), BASE, "graphics .*00:07.0"),
        (machine(p0038=0x01), BASE, "disks.*00:07.0"),
        (machine(p0020=0x01), OTHER, "disks.*00:04.0"),
    ],
)
def test_what_must_not_be_disturbed_keeps_its_unit_away(probe: Probe, base: int, why: str) -> None:
    """Other units of the machine may be looked at."""
    with pytest.raises(KitError, match=why):
        one_unit(probe, base)
    other = OTHER if base == BASE else BASE
    assert one_unit(probe, other).unit.base == other


def test_an_image_for_virtual_machines_does_nothing_on_a_real_one() -> None:
    image = built(probed(), 1, "driver")
    frames = list(received(Machine(PROFILES["qemu"], virtual=False), image))
    with pytest.raises(KitError, match="no hypervisor"):
        check_devices(image, frames)


def test_the_table_of_one_unit_names_no_other() -> None:
    assert [each.register_base for each in Table.parse(one_unit(machine(), OTHER).dmar).units] == [
        OTHER
    ]
