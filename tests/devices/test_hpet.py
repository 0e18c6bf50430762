"""The HPET: messages at the ticks asked for, in explicit time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.hpet import Hpet
from tests.support.ports import RecordingPort

ENABLE, PERIODIC, SET_VALUE, MODE_32, FSB, LEVEL = 1 << 2, 1 << 3, 1 << 6, 1 << 8, 1 << 14, 1 << 1
ROUTE = 0xFEE0_0018_0000_0055
MESSAGE = (0xFEE0_0018, 0x55)


def make(timers: int = 3) -> tuple[Hpet, RecordingPort]:
    port = RecordingPort()
    return Hpet(port, timers), port


def arm(hpet: Hpet, comparator: int, configuration: int = ENABLE | FSB, timer: int = 0) -> None:
    base = 0x100 + 0x20 * timer
    hpet.write(base, 8, configuration)
    hpet.write(base + 8, 8, comparator)
    hpet.write(base + 0x10, 8, ROUTE + timer)
    hpet.write(0x10, 4, 1)


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(1, 5000))
def test_a_one_shot_timer_sends_once_at_its_tick(steps: list[int], comparator: int) -> None:
    hpet, port = make()
    arm(hpet, comparator)
    for nanoseconds in steps:
        hpet.clock.advance(nanoseconds)
    assert hpet.counter == sum(steps) // 10
    assert port.messages == [MESSAGE] * (sum(steps) // 10 >= comparator)


@given(st.integers(1, 300), st.integers(0, 20_000))
def test_a_periodic_timer_sends_every_period(period: int, nanoseconds: int) -> None:
    hpet, port = make()
    arm(hpet, period, ENABLE | FSB | PERIODIC | SET_VALUE)
    hpet.clock.advance(nanoseconds)
    assert len(port.messages) == nanoseconds // 10 // period


def test_timers_send_in_order_of_time() -> None:
    hpet, port = make()
    for timer, comparator in enumerate((30, 10, 20)):
        arm(hpet, comparator, timer=timer)
    hpet.clock.advance(1000)
    assert [data for _, data in port.messages] == [0x56, 0x57, 0x55]


def test_the_period_may_differ_from_the_first_comparator() -> None:
    hpet, port = make()
    arm(hpet, 100, ENABLE | FSB | PERIODIC | SET_VALUE)
    hpet.write(0x108, 8, 10)
    hpet.clock.advance(990)
    assert len(port.messages) == 0
    hpet.clock.advance(110)
    assert len(port.messages) == 2


def test_a_32_bit_timer_wraps() -> None:
    hpet, port = make()
    hpet.write(0xF0, 8, 0xFFFF_FFF0)
    arm(hpet, 0x1_0000_0010, ENABLE | FSB | MODE_32)
    hpet.clock.advance(0x1F * 10)
    assert port.messages == []
    hpet.clock.advance(10)
    assert port.messages == [MESSAGE]


def test_nothing_happens_while_disabled() -> None:
    hpet, port = make()
    arm(hpet, 10)
    hpet.write(0x10, 4, 0)
    hpet.clock.advance(1000)
    assert (hpet.counter, port.messages) == (0, [])


def test_without_message_delivery_only_the_status_shows_a_level_match() -> None:
    hpet, port = make()
    arm(hpet, 10, ENABLE | LEVEL, timer=1)
    hpet.clock.advance(100)
    assert port.messages == []
    assert hpet.read(0x20, 4) == 0b10
    hpet.write(0x20, 4, 0b01)
    assert hpet.status == 0b10
    hpet.write(0x20, 4, 0b10)
    assert hpet.status == 0


def test_the_counter_is_written_only_while_halted() -> None:
    hpet, _ = make()
    hpet.write(0xF0, 4, 5)
    hpet.write(0xF4, 4, 1)
    assert hpet.read(0xF0, 8) == 0x1_0000_0005
    hpet.write(0x10, 4, 1)
    hpet.write(0xF0, 8, 0)
    assert hpet.read(0xF0, 8) == 0x1_0000_0005
    assert hpet.read(0x10, 4) == 1


def test_capabilities_describe_the_block() -> None:
    hpet, _ = make(timers=8)
    hpet.write(0, 8, 0)
    assert hpet.read(4, 4) == 10_000_000
    assert hpet.read(0, 4) == 0x8086_2701
    assert hpet.read(0x100, 4) & 0x8000


@given(st.integers(0, (1 << 64) - 1))
def test_what_a_timer_can_do_is_read_only(value: int) -> None:
    hpet, _ = make()
    hpet.write(0x100, 8, value)
    fixed = 0xFFFF_FFFF_0000_8030
    assert hpet.read(0x100, 8) & fixed == 0x8030


def test_other_accesses_read_zero_and_change_nothing() -> None:
    hpet, _ = make(timers=1)
    for offset, size in ((0x102, 4), (0x100, 2), (0x120, 8), (0x118, 8), (0x200, 4)):
        hpet.write(offset, size, 0xFFFF)
        assert hpet.read(offset, size) == 0
    assert hpet.read(0x100, 8) == 0x8030


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="timers"):
        make(33)
    with pytest.raises(ValueError, match="period"):
        Hpet(RecordingPort(), period=0)
