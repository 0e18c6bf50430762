"""Scatter-gather lists: the bytes go where the descriptors say, however they are chained."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.models.nvme.structures import Io, SglDescriptor, SglType, Status
from tests.devices.models.nvme.driver import DATA, LIST, Host

LENGTH = 4 * 512


def pointer(descriptor: SglDescriptor) -> dict[str, int]:
    """The data pointer of a command."""
    return {"prp1": descriptor & (1 << 64) - 1, "prp2": descriptor >> 64, "psdt": 1}


def chained(host: Host, data: list[SglDescriptor], cuts: list[int]) -> SglDescriptor:
    """Descriptors in segments of a few each, from the last one to the first; what leads to them."""
    segments, at = [], 0
    for cut in cuts:
        if at < len(data) - cut:
            segments.append(data[at : at + cut])
            at += cut
    segments.append(data[at:])
    leads: SglDescriptor | None = None
    for number, segment in reversed(list(enumerate(segments))):
        entries = segment + ([leads] if leads is not None else [])
        address = LIST + 0x200 * number
        host.ram.write(address, b"".join(entry.pack() for entry in entries))
        kind = SglType.LAST_SEGMENT if leads is None else SglType.SEGMENT
        leads = SglDescriptor.of(type=kind, address=address, length=16 * len(entries))
    assert leads is not None
    return leads


@given(
    st.lists(st.tuples(st.integers(1, 700), st.booleans()), min_size=1, max_size=7),
    st.lists(st.integers(1, 3), max_size=3),
)
@settings(max_examples=50)
def test_any_chain_gathers_and_scatters_the_same_bytes(
    parts: list[tuple[int, bool]], cuts: list[int]
) -> None:
    """Bit buckets take what is read, and nothing of what is written."""
    host = Host()
    host.create_io_queues()
    data = bytes(index * 7 & 0xFF for index in range(LENGTH))
    descriptors, memory, at, left = [], bytearray(), DATA, LENGTH
    kept = []
    for size, bucket in [*parts, (LENGTH, False)]:
        size = min(size, left)  # noqa: PLW2901 - what is left of the transfer
        if not size:
            break
        kind = SglType.BIT_BUCKET if bucket else SglType.DATA
        descriptors.append(SglDescriptor.of(type=kind, address=at, length=size))
        kept.append((LENGTH - left, size, at, bucket))
        at += size + 13
        left -= size
    host.storage[:LENGTH] = data
    host.ram.write(DATA, bytes(0x2000))
    assert host.io(Io.READ, 0, 4, **pointer(chained(host, descriptors, cuts))) == 0
    memory = bytearray(0x2000)
    for start, size, address, bucket in kept:
        if not bucket:
            memory[address - DATA : address - DATA + size] = data[start : start + size]
    assert host.ram.read(DATA, 0x2000) == memory
    if not any(bucket for *_, bucket in kept):
        assert host.io(Io.WRITE, 8, 4, **pointer(chained(host, descriptors, cuts))) == 0
        assert host.storage[8 * 512 : 12 * 512] == data


def test_one_descriptor_needs_no_list_and_may_be_longer_than_the_data() -> None:
    host = Host()
    host.create_io_queues()
    host.ram.write(DATA + 3, b"x" * 512)
    only = SglDescriptor.of(type=SglType.DATA, address=DATA + 3, length=10_000)
    assert host.io(Io.WRITE, 0, 1, **pointer(only)) == 0
    assert host.storage[:512] == b"x" * 512


WRONG = {
    "too short": ([(SglType.DATA, DATA, 100)], Status.SGL_LENGTH),
    "unknown type": ([(7, DATA, 512)], Status.SGL_TYPE),
    "a segment of no whole descriptors": ([(SglType.SEGMENT, LIST, 24)], Status.SGL_SEGMENT),
    "an empty segment": ([(SglType.LAST_SEGMENT, LIST, 0)], Status.SGL_SEGMENT),
    "a segment of itself": ([(SglType.SEGMENT, LIST, 16)], Status.SGL_COUNT),
    "a segment after the last": ([(SglType.LAST_SEGMENT, LIST + 0x40, 16)], Status.SGL_SEGMENT),
    "a list that is refused": ([(SglType.SEGMENT, 0x80_0000, 16)], Status.DATA_TRANSFER_ERROR),
    "data that is refused": ([(SglType.DATA, 0x80_0000, 512)], Status.DATA_TRANSFER_ERROR),
    "data beyond 2^64": ([(SglType.DATA, (1 << 64) - 8, 512)], Status.DATA_TRANSFER_ERROR),
}


@pytest.mark.parametrize(("descriptors", "status"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("opcode", [Io.READ, Io.WRITE])
def test_a_wrong_list_ends_the_command(
    descriptors: list[tuple[int, int, int]], status: Status, opcode: int
) -> None:
    host = Host()
    host.create_io_queues()
    kind, address, length = descriptors[0]
    first = SglDescriptor.of(type=kind, address=address, length=length)
    host.ram.write(LIST, first.pack())
    host.ram.write(LIST + 0x40, SglDescriptor.of(type=SglType.SEGMENT, length=16).pack())
    assert host.io(opcode, 0, 1, **pointer(first)) == status
    assert not host.fatal
