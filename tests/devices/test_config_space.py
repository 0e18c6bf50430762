"""Configuration space: access kinds, header and capability chains as software sees them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.config_space import (
    BusNumbers,
    Command,
    ConfigSpace,
    ConfigSpaceError,
    Identification,
    Status,
)
from devices.function import Identity, PciFunction
from pagetables.bits import BitRecord, Bits

WORD = st.integers(0, 0xFFFF_FFFF)


class Scratch(BitRecord, width=64):
    """A register wider than one access."""

    value = Bits(63, 0)


RECORDS: dict[int, type[BitRecord]] = {
    width: type(f"Wide{width}", (BitRecord,), {"value": Bits(width - 1, 0)}, width=width)
    for width in (8, 16, 24, 32, 64)
}


@given(WORD)
def test_software_cannot_change_what_is_read_only(value: int) -> None:
    config = ConfigSpace()
    config.add(0, Identification.of(vendor_id=0x1234, device_id=0x11E8))
    config.write(0, 4, value)
    assert config.read(0, 4) == 0x11E81234


@given(before=st.integers(0, 0xFFFF), written=st.integers(0, 0xFFFF))
def test_writing_one_clears_error_bits_and_nothing_else(before: int, written: int) -> None:
    config = ConfigSpace()
    status = config.add(6, Status())
    status.value = Status(before)
    config.write(6, 2, written)
    errors = sum(bits.mask for bits in Status.FIELDS.values() if bits.access.value == "RW1C")
    assert status.value == before & ~(written & errors)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 7), WORD), max_size=12))
def test_partial_accesses_add_up_to_the_bytes(writes: list[tuple[int, int, int]]) -> None:
    config = ConfigSpace()
    scratch = config.add(0x40, Scratch())
    expected = bytearray(8)
    for size, at, value in writes:
        config.write(0x40 + at, size, value)
        if at % size == 0:
            expected[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    assert scratch.value.pack() == expected
    assert config.dump()[0x40:0x48] == expected


@given(
    widths=st.lists(st.sampled_from([0, 8, 16, 24, 32, 64]), max_size=8),
    writes=st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 39), WORD), max_size=12),
)
def test_neighbours_share_an_access_byte_by_byte(
    widths: list[int], writes: list[tuple[int, int, int]]
) -> None:
    config, at = ConfigSpace(), 0x40
    there = bytearray(64)
    for width in widths:  # 0 is a gap of a byte
        if width:
            config.add(at, RECORDS[width]())
            there[at - 0x40 : at - 0x40 + width // 8] = b"\xff" * (width // 8)
        at += width // 8 or 1
    expected = bytearray(64)
    for size, somewhere, value in writes:
        place = somewhere & -size
        config.write(0x40 + place, size, value)
        expected[place : place + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    expected = bytearray(byte & known for byte, known in zip(expected, there, strict=True))
    for size in (1, 2, 4):
        for place in range(0, 64, size):
            found = config.read(0x40 + place, size)
            assert found == int.from_bytes(expected[place : place + size], "little")


def test_one_access_reaches_every_register_under_it() -> None:
    config = ConfigSpace()
    command = config.add(4, Command())
    config.add(6, Status.of(capabilities=1))
    config.write(4, 4, 0xFFFF_FFFF)
    assert command.value == 0x547
    assert config.read(4, 4) == 0x0010_0547


@pytest.mark.parametrize(("offset", "size"), [(1, 2), (2, 4), (4096, 4), (-4, 4), (0, 8), (0, 3)])
def test_an_access_that_does_not_exist_reads_all_ones(offset: int, size: int) -> None:
    config = ConfigSpace()
    config.write(offset, size, 0)
    assert config.read(offset, size) == (1 << 8 * size) - 1


def test_reset_restores_initial_values() -> None:
    config = ConfigSpace()
    buses = config.add(0x18, BusNumbers())
    config.write(0x18, 4, 0x00050100)
    assert (buses.value.secondary, buses.value.subordinate) == (1, 5)
    config.reset()
    assert buses.value == 0


def chain(config: ConfigSpace) -> list[tuple[int, int]]:
    """(id, offset) of each capability, the way software walks the list below 100h."""
    found = []
    offset = config.read(0x34, 1)
    while offset:
        found.append((config.read(offset, 1), offset))
        offset = config.read(offset + 1, 1)
    return found


def extended_chain(config: ConfigSpace) -> list[tuple[int, int]]:
    """(id, offset) of each capability, the way software walks the list from 100h on."""
    found = []
    offset = 0x100
    while offset and config.read(offset, 4):
        header = config.read(offset, 4)
        found.append((header & 0xFFFF, offset))
        offset = header >> 20
    return found


@given(st.lists(st.tuples(st.integers(1, 0xFF), st.sampled_from([8, 10, 12, 24])), max_size=6))
def test_software_finds_every_capability_in_order(wanted: list[tuple[int, int]]) -> None:
    config = ConfigSpace()
    placed = [(number, config.add_capability(number, size)) for number, size in wanted]
    extended = [(number, config.add_extended_capability(number, size)) for number, size in wanted]
    assert chain(config) == placed
    assert extended_chain(config) == extended
    ends = sorted((at, at + size) for (_, at), (_, size) in zip(placed, wanted, strict=True))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
    for number, _ in wanted:
        first = next(at for known, at in placed if known == number)
        assert config.find_capability(number) == first
    assert config.find_extended_capability(0x1234) is None


def test_capabilities_go_where_they_are_put() -> None:
    config = ConfigSpace()
    assert config.add_capability(5, 0x18, 0x50) == 0x50
    assert config.add_capability(1, 8, 0x40) == 0x40
    assert config.add_capability(0x11, 12) == 0x68
    assert chain(config) == [(5, 0x50), (1, 0x40), (0x11, 0x68)]


def test_layout_mistakes_are_refused() -> None:
    config = ConfigSpace(256)
    config.add(0, Identification())
    with pytest.raises(ConfigSpaceError, match="Command"):
        config.add(2, Command())
    with pytest.raises(ConfigSpaceError, match="no room"):
        config.add(254, Identification())
    with pytest.raises(ConfigSpaceError, match="no room"):
        config.add_capability(5, 0x100)
    with pytest.raises(ConfigSpaceError, match="0x100"):
        ConfigSpace().add_extended_capability(0xF, 8, 0x140)


@given(st.integers(-4, 0x110), st.binary(max_size=24))
def test_byte_ranges_are_what_single_accesses_are(offset: int, data: bytes) -> None:
    """Bytes beyond the space are all ones and dropped; no byte is touched that is not written."""
    ranged, single = (
        PciFunction(Identity(1, 2, 3), config_size=256),
        PciFunction(Identity(1, 2, 3), config_size=256),
    )
    for function in (ranged, single):
        function.add_bar(0, 0x1000)
        function.add_msi(4, maskable=True)
    ranged.config.write_bytes(offset, data)
    for at, byte in enumerate(data):
        single.config.write(offset + at, 1, byte)
    assert ranged.config.dump() == single.config.dump()
    read = ranged.config.read_bytes(offset, len(data))
    dump = ranged.config.dump()
    assert list(read) == [
        dump[at] if 0 <= at < 256 else 0xFF for at in range(offset, offset + len(data))
    ]


def test_a_doubleword_of_a_range_is_one_write() -> None:
    """What a write of a register causes is caused once, as if it had come alone."""
    function = PciFunction(Identity(1, 2, 3))
    seen: list[int] = []

    def commanded(_: Command, after: Command) -> Command:
        seen.append(int(after))
        return after

    function.command.on_write = commanded
    function.config.write_bytes(2, bytes([0, 0, 6, 4, 0, 0, 7]))
    assert seen == [0x406]
