"""The edu device: registers, DMA in simulated time, interrupts, refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.edu import BUFFER_SIZE, BUFFER_START, DMA_NANOSECONDS, Edu, EduError
from tests.support.ports import RecordingPort

RUN, TO_MEMORY, INTERRUPT = 1, 2, 4


def make(dma_mask: int = (1 << 28) - 1) -> tuple[Edu, RecordingPort]:
    edu, port = Edu(dma_mask), RecordingPort()
    edu.connect(port)
    edu.config.write(4, 2, 6)
    return edu, port


def transfer(edu: Edu, source: int, destination: int, count: int, command: int) -> None:
    bar = edu.bars[0]
    for offset, value in ((0x80, source), (0x88, destination), (0x90, count), (0x98, command)):
        bar.write(offset, 8, value)


def test_it_is_found_as_edu() -> None:
    edu, _ = make()
    assert edu.config.read(0, 4) == 0x11E81234
    assert edu.config.read(8, 4) == 0x00FF0010
    assert edu.config.read(0x40, 4) == 0x0080_0005
    assert edu.bars[0].read(0, 4) == 0x0100_00ED


@given(st.integers(0, 0xFFFF_FFFF))
def test_liveness_reads_the_complement(value: int) -> None:
    edu, _ = make()
    edu.bars[0].write(4, 4, value)
    assert edu.bars[0].read(4, 4) == value ^ 0xFFFF_FFFF


@given(st.one_of(st.integers(0, 40), st.integers(0, 0xFFFF_FFFF)))
def test_factorial_is_modulo_2_to_the_32(number: int) -> None:
    edu, _ = make()
    edu.bars[0].write(8, 4, number)
    expected = math.factorial(number) & 0xFFFF_FFFF if number <= 40 else 0
    assert edu.bars[0].read(8, 4) == expected


@given(
    data=st.binary(min_size=1, max_size=BUFFER_SIZE),
    start=st.integers(0, BUFFER_SIZE - 1),
    address=st.integers(0, 0xF000),
)
def test_a_round_trip_through_the_buffer_moves_the_bytes(
    data: bytes, start: int, address: int
) -> None:
    data = data[: BUFFER_SIZE - start]
    edu, port = make()
    port.ram.write(address, data)
    transfer(edu, address, BUFFER_START + start, len(data), RUN)
    edu.clock.advance(DMA_NANOSECONDS)
    transfer(edu, BUFFER_START + start, 0x2_0000 + address, len(data), RUN | TO_MEMORY)
    edu.clock.advance(DMA_NANOSECONDS)
    assert port.ram.read(0x2_0000 + address, len(data)) == data
    assert edu.errors == []


def test_a_transfer_takes_100_ms_and_holds_its_registers() -> None:
    edu, port = make()
    port.ram.write(0x1000, b"1234")
    transfer(edu, 0x1000, BUFFER_START, 4, RUN)
    edu.clock.advance(DMA_NANOSECONDS - 1)
    assert edu.busy
    assert edu.buffer[:4] == bytes(4)
    edu.bars[0].write(0x80, 8, 0)
    edu.bars[0].write(0x98, 8, 0)
    assert edu.bars[0].read(0x80, 8) == 0x1000
    edu.clock.advance(1)
    assert not edu.busy
    assert edu.bars[0].read(0x98, 4) == 0
    assert edu.buffer[:4] == b"1234"
    edu.clock.advance(DMA_NANOSECONDS)


def test_a_command_without_run_is_ignored() -> None:
    edu, _ = make()
    edu.bars[0].write(0x98, 4, INTERRUPT)
    assert edu.bars[0].read(0x98, 4) == 0


@pytest.mark.parametrize(
    ("device_address", "count"),
    [(0, 4), (BUFFER_START - 1, 2), (BUFFER_START + 1, BUFFER_SIZE), (BUFFER_START, 1 << 63)],
)
@pytest.mark.parametrize("direction", [0, TO_MEMORY])
def test_a_transfer_outside_the_buffer_is_a_recorded_error(
    device_address: int, count: int, direction: int
) -> None:
    edu, port = make()
    source, destination = (device_address, 0) if direction else (0, device_address)
    transfer(edu, source, destination, count, RUN | direction | INTERRUPT)
    edu.clock.advance(DMA_NANOSECONDS)
    assert edu.errors == [EduError(device_address, count)]
    assert port.ram.read(0, 16) == bytes(16)
    assert not edu.busy


def test_a_refused_read_leaves_all_ones_and_a_refused_write_is_lost() -> None:
    edu, _ = make()
    transfer(edu, 0x800_0000, BUFFER_START, 4, RUN)
    edu.clock.advance(DMA_NANOSECONDS)
    assert edu.buffer[:4] == b"\xff\xff\xff\xff"
    transfer(edu, BUFFER_START, 0x800_0000, 4, RUN | TO_MEMORY | INTERRUPT)
    edu.clock.advance(DMA_NANOSECONDS)
    assert edu.interrupt_status == 0x100


def test_the_dma_mask_cuts_the_address() -> None:
    edu, port = make(dma_mask=0xFFFF)
    transfer(edu, BUFFER_START, 0x5_2000, 4, RUN | TO_MEMORY)
    edu.buffer[:4] = b"1234"
    edu.clock.advance(DMA_NANOSECONDS)
    assert port.ram.read(0x2000, 4) == b"1234"


def test_the_pin_is_held_until_acknowledged() -> None:
    edu, _ = make()
    bar = edu.bars[0]
    bar.write(0x60, 4, 0b11)
    assert edu.intx
    bar.write(0x64, 4, 0b01)
    assert edu.intx
    assert bar.read(0x24, 4) == 0b10
    bar.write(0x64, 4, 0b10)
    assert not edu.intx
    bar.write(0x60, 4, 0)
    assert not edu.intx


def test_msi_is_sent_on_each_raise() -> None:
    edu, port = make()
    edu.config.write(0x44, 4, 0xFEE0_0018)
    edu.config.write(0x4C, 2, 0x41)
    edu.config.write(0x42, 2, 1)
    edu.bars[0].write(0x20, 4, 0xFF)
    assert edu.bars[0].read(0x20, 4) == 0x80
    edu.bars[0].write(8, 4, 5)
    edu.bars[0].write(0x60, 4, 2)
    edu.bars[0].write(0x64, 4, 3)
    assert port.messages == [(0xFEE0_0018, 0x41)] * 2
    assert not edu.intx


@pytest.mark.parametrize(("offset", "size"), [(4, 8), (4, 2), (0x80, 2), (0x60, 4), (0xA0, 8)])
def test_other_accesses_read_all_ones(offset: int, size: int) -> None:
    edu, _ = make()
    edu.bars[0].write(offset, size, 0)
    assert edu.bars[0].read(offset, size) == (1 << 8 * size) - 1


def test_reset_stops_the_transfer() -> None:
    edu, _ = make()
    transfer(edu, 0, BUFFER_START, 4, RUN)
    edu.reset()
    assert not edu.busy


def test_a_transfer_may_take_no_time_or_any() -> None:
    edu, port = Edu(transfer_time=0), RecordingPort()
    edu.connect(port)
    edu.config.write(4, 2, 6)
    edu.buffer[:4] = b"word"
    transfer(edu, BUFFER_START, 0x2000, 4, RUN | TO_MEMORY)
    assert not edu.busy
    assert port.memory.read(0x2000, 4) == b"word"
    slow = Edu(transfer_time=2 * DMA_NANOSECONDS)
    slow.connect(port)
    slow.config.write(4, 2, 6)
    transfer(slow, BUFFER_START, 0x3000, 4, RUN | TO_MEMORY)
    slow.clock.advance(DMA_NANOSECONDS)
    assert slow.busy
    slow.clock.advance(DMA_NANOSECONDS)
    assert not slow.busy
    with pytest.raises(ValueError, match="transfer_time: -1 is negative"):
        Edu(transfer_time=-1)
