"""The iommu-testdev: each result code, and the pattern it writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import DirectPort
from devices.models.testdev import IommuTestdev, Result
from pagetables.memory import PhysicalMemory
from tests.support.ports import PagingPort, RecordingPort


def make(port: RecordingPort) -> IommuTestdev:
    device = IommuTestdev(port.ram)
    device.connect(port)
    device.config.write(4, 2, 6)
    return device


def run(device: IommuTestdev, address: int, expected: int, length: int, attributes: int = 0) -> int:
    bar = device.bars[0]
    registers = {
        0x04: address & 0xFFFF_FFFF,
        0x08: address >> 32,
        0x0C: length,
        0x18: attributes,
        0x1C: expected & 0xFFFF_FFFF,
        0x20: expected >> 32,
        0x14: 1,
    }
    for offset, value in registers.items():
        bar.write(offset, 4, value)
    assert bar.read(0x10, 4) == Result.ARMED
    assert bar.read(0, 4) == 0
    return bar.read(0x10, 4)


@given(st.integers(0, 0x1000), st.integers(1, 64))
def test_the_pattern_lands_where_it_is_expected(address: int, length: int) -> None:
    port = RecordingPort()
    assert run(make(port), address, address, length) == Result.SUCCESS
    assert port.ram.read(address, length) == (b"\x78\x56\x34\x12" * 16)[:length]


def test_it_is_found_as_the_testdev() -> None:
    device = make(RecordingPort())
    assert device.config.read(0, 4) == 0x0005_1B36
    assert device.result == Result.IDLE


def test_the_address_goes_through_the_port_and_the_check_does_not() -> None:
    port = PagingPort()
    port.map(0x10_0000_0000, 0x9000)
    assert run(make(port), 0x10_0000_0000, 0x9000, 8) == Result.SUCCESS
    assert run(make(port), 0x10_0000_0000, 0xA000, 8) == Result.MISMATCH
    assert run(make(port), 0x10_0000_0000, 0x8000_0000, 8) == Result.READ_FAILED
    assert run(make(port), 0x20_0000_0000, 0x9000, 8) == Result.WRITE_FAILED


@pytest.mark.parametrize("length", [0, (1 << 24) + 1, 0xFFFF_FFFF])
def test_impossible_lengths_are_reported(length: int) -> None:
    assert run(make(RecordingPort()), 0, 0, length) == Result.BAD_LENGTH


@pytest.mark.parametrize(
    ("attributes", "consistent"),
    [
        (0b0000, True),
        (0b0001, True),
        (0b1000, False),
        (0b1001, True),
        (0b1010, True),
        (0b1011, False),
        (0b1100, True),
        (0b1101, True),
    ],
)
def test_secure_has_to_agree_with_a_valid_space(attributes: int, consistent: bool) -> None:
    expected = Result.SUCCESS if consistent else Result.BAD_ATTRIBUTES
    assert run(make(RecordingPort()), 0, 0, 4, attributes) == expected


def test_a_trigger_works_once_per_arming() -> None:
    device = make(RecordingPort())
    bar = device.bars[0]
    bar.read(0, 4)
    assert device.result == Result.NOT_ARMED
    run(device, 0, 0, 4)
    bar.read(0, 4)
    assert device.result == Result.NOT_ARMED
    bar.write(0x14, 4, 1)
    bar.write(0x14, 4, 0)
    assert device.result == Result.IDLE


def test_accesses_are_4_bytes() -> None:
    device = make(RecordingPort())
    bar = device.bars[0]
    bar.write(0x0C, 8, 5)
    bar.write(0x0C, 2, 5)
    assert (bar.read(0x0C, 4), bar.read(0x0C, 2)) == (0, 0xFFFF)
    bar.write(0x40, 4, 5)
    assert (bar.read(0x40, 4), bar.read(0x14, 4)) == (0, 0)


def test_without_bus_mastering_the_write_fails() -> None:
    memory = PhysicalMemory()
    memory.add_region(0, 0x1000)
    device = IommuTestdev(memory)
    device.connect(DirectPort(memory))
    assert run(device, 0, 0, 4) == Result.WRITE_FAILED
    device.reset()
    assert device.result == Result.IDLE
