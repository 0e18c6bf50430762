"""Memory that clients map: against a model of ranges, and whose word counts."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.memory import BusError, PhysicalMemory
from vtd.live.guest_memory import GuestMemory
from vtd.live.requests import RequestError

FRAME = 4096
FRAMES = 12


@pytest.fixture
def ram() -> Iterator[int]:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, FRAMES * FRAME)
    for number in range(FRAMES):
        os.pwrite(fd, b"%04d" % number, number * FRAME)
    yield fd
    os.close(fd)


steps = st.lists(
    st.tuples(st.sampled_from(["map", "flash", "unmap"]), st.integers(0, 11), st.integers(0, 5)),
    max_size=14,
)


@given(steps, st.booleans())
def test_memory_is_what_is_mapped_and_was_not_unmapped(
    steps: list[tuple[str, int, int]], provides: bool
) -> None:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, 20 * FRAME)
    for number in range(20):
        os.pwrite(fd, b"%04d" % number, number * FRAME)
    guest = GuestMemory(PhysicalMemory())
    if not provides:
        guest.client().map(1 << 40, FRAME, fd, 0, read_only=False)
    client = guest.client()
    model: dict[int, bool] = {}
    """Frame numbers, and whether a file is there."""
    try:
        for step, first, count in steps:
            numbers = range(first, first + count)
            try:
                if step == "unmap":
                    client.unmap(first * FRAME, count * FRAME)
                    assert set(numbers) & set(model)
                    for number in numbers:
                        model.pop(number, None)
                else:
                    file = fd if step == "map" else None
                    start = first * FRAME
                    client.map(start, count * FRAME, file, start, read_only=False)
                    assert not set(numbers) & set(model)
                    model.update(dict.fromkeys(numbers, step == "map"))
            except RequestError as refused:
                taken = bool(set(numbers) & set(model))
                expected = errno.ENOENT if step == "unmap" else errno.EEXIST
                assert refused.number == (expected if count else errno.EINVAL)
                assert not count or taken == (step != "unmap")
            for number in range(18):
                if provides and model.get(number):
                    assert guest.memory.read(number * FRAME, 4) == b"%04d" % number
                else:
                    with pytest.raises(BusError):
                        guest.memory.read(number * FRAME, 1)
        client.close()
        assert len(guest.memory.regions) == (not provides)
    finally:
        os.close(fd)


def test_read_only_memory_is_not_written(ram: int) -> None:
    guest = GuestMemory(PhysicalMemory())
    guest.client().map(0, FRAME, ram, FRAME, read_only=True)
    assert guest.memory.read(0, 4) == b"0001"
    with pytest.raises(BusError, match="read-only"):
        guest.memory.write(0, b"x")


def test_the_next_client_provides_memory_when_the_first_is_gone(ram: int) -> None:
    guest = GuestMemory(PhysicalMemory())
    first, second = guest.client(), guest.client()
    first.map(0, FRAME, ram, 0, read_only=False)
    second.map(0, FRAME, ram, FRAME, read_only=False)
    assert guest.memory.read(0, 4) == b"0000"
    first.close()
    second.close()
    guest.client().map(0, FRAME, ram, 2 * FRAME, read_only=False)
    assert guest.memory.read(0, 4) == b"0002"


@pytest.mark.parametrize(
    ("start", "size", "offset"),
    [
        (8, FRAME, 0),
        (0, 100, 0),
        (0, 1 << 63, 0),
        ((1 << 52) - FRAME, 2 * FRAME, 0),
        ((1 << 64) - FRAME, FRAME, 0),
        (0, FRAME, 8),
        (0, FRAME, FRAMES * FRAME),  # beyond the end of the file
        (0, FRAME, 1 << 63),
    ],
)
def test_what_can_not_be_mapped_is_refused(start: int, size: int, offset: int, ram: int) -> None:
    guest = GuestMemory(PhysicalMemory())
    client = guest.client()
    with pytest.raises(RequestError) as refused:
        client.map(start, size, ram, offset, read_only=False)
    assert refused.value.number == errno.EINVAL
    assert not guest.memory.regions
    with pytest.raises(RequestError):
        client.unmap(0, FRAME)


def test_a_descriptor_that_is_no_file_is_refused() -> None:
    read_end, write_end = os.pipe()
    for fd in (read_end, 999_999):
        with pytest.raises(RequestError):
            GuestMemory(PhysicalMemory()).client().map(0, FRAME, fd, 0, read_only=False)
    os.close(read_end)
    os.close(write_end)
