"""The chipset function: where registers are, who sees it, and what a reset of the machine does."""

from __future__ import annotations

import pytest

from devices.config_space import Command
from devices.function import PciFunction
from pagetables.memory import PhysicalMemory
from vtd.live.chipset import BAR_SIZE, Chipset, ServedChipset
from vtd.live.messages import CONFIG_REGION
from vtd.unit.registers.capabilities import PROFILES
from vtd.unit.unit import RemappingUnit

BASE = 0xFD00_0000
FIRST, SECOND = BASE, BASE + 0x1_0000


def units(*addresses: int) -> dict[int, RemappingUnit]:
    names = ("qemu", "client")
    return {
        address: RemappingUnit(PROFILES[name], PhysicalMemory())
        for address, name in zip(addresses, names, strict=False)
    }


def test_each_unit_is_where_its_address_says() -> None:
    made = units(FIRST, SECOND)
    served = ServedChipset(Chipset(made))
    for address, unit in made.items():
        cap = served.read(0, address - BASE + 8, 8)
        assert int.from_bytes(cap, "little") == unit.capabilities.cap
        served.write(
            0, address - BASE + 0x40, (0xFEE0_0000 | address & 0xF_0000).to_bytes(4, "little")
        )
        assert unit.read_register(0x40, 4) == 0xFEE0_0000 | address & 0xF_0000
    assert served.read(0, 0x8000, 4) == b"\xff" * 4  # nothing is between them


@pytest.mark.parametrize("second", [BASE + BAR_SIZE, BASE - 0x1000, BASE + BAR_SIZE - 0x800])
def test_units_that_no_one_bar_holds_are_refused(second: int) -> None:
    with pytest.raises(ValueError, match=r"unit 0x[0-9a-f]+: its registers are not in the 16 MiB"):
        Chipset(units(FIRST, second))


def test_the_function_is_gone_once_an_operating_system_has_found_a_unit() -> None:
    chipset = Chipset(units(FIRST, SECOND))
    served = ServedChipset(chipset)
    for offset, count in ((0, 4), (8, 4), (12, 4), (16, 8)):  # what firmware reads
        served.read(0, offset, count)
    assert served.read(CONFIG_REGION, 0, 2) == b"\x86\x80"
    served.read(0, 0x1_0008, 8)
    assert served.read(CONFIG_REGION, 0, 2) == b"\xff\xff"
    assert served.read(0, 8, 8) != b"\xff" * 8
    served.reset()
    assert served.read(CONFIG_REGION, 0, 2) == b"\x86\x80"
    served.read(0, 8, 8)
    assert served.read(CONFIG_REGION, 0, 2) == b"\xff\xff"


def test_a_reset_is_one_of_all_units() -> None:
    made = units(FIRST, SECOND)
    served = ServedChipset(Chipset(made))
    for unit in made.values():
        unit.write_register(0x40, 4, 0xFEE0_1000)
    served.reset()
    assert [unit.read_register(0x40, 4) for unit in made.values()] == [0, 0]


def test_firmware_is_asked_to_have_turned_bus_mastering_on_by_the_class() -> None:
    chipset: PciFunction = Chipset(units(FIRST))
    assert chipset.config.read(8, 4) >> 8 == 0x0C0330  # xHCI


def test_where_the_bar_is_is_told_when_it_is_switched_on() -> None:
    chipset, told = Chipset(units(FIRST)), list[int]()
    chipset.on_placed = told.append
    chipset.config.write(0x10, 4, 0xFFFF_FFFF)  # sizing
    chipset.config.write(0x10, 4, 0xFC00_0000)
    assert not told
    chipset.config.write(4, 2, Command.of(mse=1))
    chipset.config.write(4, 2, Command.of(mse=1, bme=1))
    assert told == [0xFC00_0000]


def test_the_first_look_of_firmware_is_told_once() -> None:
    chipset, told = Chipset(units(FIRST, SECOND)), list[int]()
    chipset.on_probed = lambda: told.append(1)
    served = ServedChipset(chipset)
    for _ in range(3):
        served.read(0, 0, 1)
    served.reset()
    served.read(0, 0x1_0000, 4)
    assert len(told) == 2
