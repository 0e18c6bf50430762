"""Protected memory regions: what they cover, what they block, and that nothing is recorded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.dma import READ, REFUSED, WRITE, AddressType, Request
from tests.support.world import HOST, PAGE, Mode, Started, World, capabilities

UNIT = 1 << 21
"""Bytes of the smallest region."""


def protect(
    started: Started, low: tuple[int, int] = (UNIT, 0), high: tuple[int, int] = (UNIT, 0)
) -> None:
    """Set base and limit of both regions, and EPM."""
    write = started.unit.write_register
    write(0x68, 4, low[0])
    write(0x6C, 4, low[1])
    write(0x70, 8, high[0])
    write(0x78, 8, high[1])
    write(0x64, 4, 1 << 31)


def passes(started: Started, address: int, length: int = 4) -> bool:
    request = Request(started.world.source_id, address, READ, length)
    answer = started.unit.admit(request)
    assert isinstance(answer, int) or answer == REFUSED
    return isinstance(answer, int)


bounds = st.integers(0, 8).map(lambda number: number * UNIT)


@given(bounds, bounds, bounds, bounds, st.integers(0, 10 * UNIT), st.integers(0, 64))
@pytest.mark.section("11.4.8.3", "11.4.8.5")
@pytest.mark.fields(
    "ProtectedLowMemoryBase.plmb",
    "ProtectedLowMemoryLimit.plml",
    "ProtectedHighMemoryBase.phmb",
    "ProtectedHighMemoryLimit.phml",
)
def test_a_region_reaches_from_its_base_to_the_end_of_its_limit(
    low_base: int, low_limit: int, high_base: int, high_limit: int, address: int, length: int
) -> None:
    length = min(length, 0x1000 - address % 0x1000)
    world = World(Mode.PASS_THROUGH)
    started = world.start()
    started.command(te=False)
    high = 1 << 33
    protect(started, (low_base, low_limit), (high | high_base, high | high_limit))
    for offset, base, limit in ((0, low_base, low_limit), (high, high_base, high_limit)):
        inside = any(base <= byte < limit + UNIT for byte in range(address, address + length)) or (
            length == 0 and base <= address < limit + UNIT
        )
        assert passes(started, offset | address, length) == (not inside)


@pytest.mark.parametrize("length", [0, 1, 4, 64])
@pytest.mark.section("11.4.8.2", "11.4.8.3")
def test_what_ends_before_a_region_or_begins_behind_it_passes(length: int) -> None:
    started = World(Mode.PASS_THROUGH).start()
    started.command(te=False)
    protect(started, (2 * UNIT, 2 * UNIT))
    assert passes(started, 2 * UNIT - max(length, 1), length)
    assert not passes(started, 2 * UNIT - max(length, 1) + 1, length)
    assert not passes(started, 3 * UNIT - 1, length)
    assert passes(started, 3 * UNIT, length)
    high = 1 << 33
    protect(started, (UNIT, 0), (high, high))
    assert not passes(started, high + UNIT - 1, length)
    assert passes(started, high + UNIT, length)


@pytest.mark.section("11.4.8.2", "11.4.8.4")
def test_low_bits_read_as_zero_and_limits_count_them_as_ones() -> None:
    started = World(Mode.LEGACY).start()
    for offset, size in ((0x68, 4), (0x6C, 4), (0x70, 8), (0x78, 8)):
        started.unit.write_register(offset, size, (1 << size * 8) - 1)
        assert started.unit.read_register(offset, size) == (1 << size * 8) - UNIT


@pytest.mark.section("11.4.8.1")
@pytest.mark.fields("ProtectedMemoryEnable.epm.prs")
def test_the_status_follows_the_enable_bit() -> None:
    started = World(Mode.LEGACY).start()
    started.unit.write_register(0x64, 4, 1 << 31)
    assert started.unit.read_register(0x64, 4) == 1 << 31 | 1
    started.unit.write_register(0x64, 4, 1)
    assert started.unit.read_register(0x64, 4) == 0


@pytest.mark.parametrize("version", [1, 2, 6])
@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.FIRST, Mode.PASS_THROUGH])
@pytest.mark.section("11.4.8.1")
def test_the_final_address_of_a_remapped_request_counts(mode: Mode, version: int) -> None:
    """Units before major version 2 exempt requests that are remapped, not passed (11.4.8.1)."""
    world = World(mode, capabilities(version=version))
    started = world.start()
    port = started.port()
    world.memory.write(HOST | PAGE, b"data")
    assert port.read(world.address, 4).data == b"data"
    protect(started, (HOST, HOST))
    blocked = version >= 2 or mode is Mode.PASS_THROUGH
    for access in (READ, WRITE):
        answer = started.unit.admit(world.request._replace(access=access))
        assert answer == (REFUSED if blocked else HOST | PAGE)
    assert port.read(world.address, 4).ok == (not blocked)
    assert port.write(world.address, b"next").ok == (not blocked)
    started.unit.write_register(0x64, 4, 0)
    assert port.read(world.address, 4).data == (b"data" if blocked else b"next")
    assert started.status() == 0
    assert started.events == []


def test_the_input_address_of_a_remapped_request_does_not_count() -> None:
    world = World(Mode.SECOND, guest=0x4000_0000)
    world.change("second1", addr=HOST | PAGE + 0x1000)
    started = world.start()
    protect(started, (0, 0), (world.address & -UNIT, 0))
    assert passes(started, world.address)


def test_tables_may_be_in_protected_memory() -> None:
    world = World(Mode.NESTED)
    started = world.start()
    protect(started, (0, 0))
    assert passes(started, world.address)


def test_interrupts_are_not_protected() -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    protect(started, (0xFEE0_0000 & -UNIT, 0xFEE0_0000))
    assert started.port().write(0xFEE0_0000, bytes(4)).ok


@pytest.mark.parametrize(("plmr", "phmr"), [(0, 0), (0, 1), (1, 0)])
def test_a_region_that_is_absent_protects_nothing(plmr: int, phmr: int) -> None:
    world = World(Mode.LEGACY, capabilities(plmr=plmr, phmr=phmr))
    started = world.start()
    started.command(te=False)
    protect(started, (0, 0), (4 * UNIT, 4 * UNIT))
    assert passes(started, 0) == (not plmr)
    assert passes(started, 4 * UNIT) == (not phmr)


@pytest.mark.section("11.4.8.1")
def test_a_translated_request_is_blocked_only_in_a_region() -> None:
    world = World(Mode.LEGACY)
    world.change("context", tt=1)
    started = world.start()
    request = world.request._replace(address=HOST | PAGE, address_type=AddressType.TRANSLATED)
    here = (HOST | PAGE) & -UNIT
    protect(started, high=(here + UNIT, here + UNIT))
    assert started.unit.admit(request) == HOST | PAGE
    protect(started, high=(here, here))
    assert started.unit.admit(request) == REFUSED
