"""What outlasts the power is what flush and FUA promise, and nothing that was never written."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.nvme import namespace
from devices.models.nvme.function import Nvme
from devices.models.nvme.namespace import BLOCK, Namespace
from devices.models.nvme.structures import Admin, Io, Status
from tests.devices.models.nvme.driver import DATA, Host

BLOCKS = 8
steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 3), st.booleans()),
        st.just("flush"),
    ),
    max_size=20,
)


@given(steps, st.integers(0, 1000), st.booleans())
def test_each_block_has_one_of_its_contents_since_the_last_flush(
    program: list[tuple[int, int, bool] | str], seed: int, cache: bool
) -> None:
    blocks = Namespace(bytearray(BLOCKS * BLOCK))
    blocks.cache = cache
    possible = [{0} for _ in range(BLOCKS)]
    for number, step in enumerate(program, 1):
        if isinstance(step, str):
            blocks.flush()
            possible = [{blocks.storage[at * BLOCK]} for at in range(BLOCKS)]
            continue
        first, count, durable = step
        count = min(count, BLOCKS - first)
        blocks.write(first * BLOCK, bytes([number]) * (count * BLOCK), durable=durable)
        for at in range(first, first + count):
            possible[at] = {number} if durable or not cache else {*possible[at], number}
    now = bytes(blocks.storage)
    assert blocks.read(0, len(now)) == now
    blocks.lose_power(Random(seed))
    for at, contents in enumerate(possible):
        block = blocks.read(at * BLOCK, (at + 1) * BLOCK)
        assert len(set(block)) == 1  # no block is torn
        assert block[0] in contents


def test_something_can_be_lost_and_a_large_cache_writes_back_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = set()
    for seed in range(20):
        blocks = Namespace(bytearray(BLOCK))
        blocks.write(0, b"1" * BLOCK)
        blocks.lose_power(Random(seed))
        lost.add(blocks.storage[0])
    assert lost == {0, ord("1")}
    monkeypatch.setattr(namespace, "CACHE", BLOCK)
    blocks = Namespace(bytearray(2 * BLOCK))
    blocks.write(0, b"2" * 2 * BLOCK)
    blocks.lose_power(Random(0))
    assert bytes(blocks.storage) == b"2" * 2 * BLOCK


def test_the_host_decides_by_flush_fua_and_the_cache_feature() -> None:
    for seed in range(10):
        for durable in ("flush", "fua", "no cache", "shutdown", ""):
            host = Host()
            host.create_io_queues()
            host.ram.write(DATA, b"y" * 512)
            if durable == "no cache":
                assert host.admin(Admin.SET_FEATURES, cdw10=6, cdw11=0) == 0
                assert host.result(Admin.GET_FEATURES, cdw10=6) == 0
            assert host.io(Io.WRITE, 0, 1, cdw12=(1 << 30) * (durable == "fua")) == 0
            if durable == "flush":
                assert host.io(Io.FLUSH, 0, 1, nsid=0xFFFF_FFFF) == 0
            if durable == "shutdown":
                host.device.bars[0].write(0x14, 4, 1 | 1 << 14)
            assert isinstance(host.device, Nvme)
            host.device.lose_power(seed)
            assert host.storage[0] == ord("y") or not durable
            assert host.storage[0] in (0, ord("y"))
            assert host.device.bars[0].read(0x1C, 4) == 0


def test_a_file_keeps_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    host = Host(Nvme(blocks=16, file=str(path)))
    host.create_io_queues()
    host.ram.write(DATA, b"z" * 512)
    assert host.io(Io.WRITE, 3, 1) == 0
    assert path.read_bytes() == bytes(3 * 512) + b"z" * 512 + bytes(12 * 512)
    again = Host(Nvme(blocks=16, file=str(path)))
    again.create_io_queues()
    assert again.io(Io.READ, 3, 1) == 0
    assert again.ram.read(DATA, 512) == b"z" * 512
    several = Nvme(blocks=16, namespaces=2, file=str(path))
    assert len(several.subsystem.namespaces) == 2
    assert (tmp_path / "disk.2").stat().st_size == 16 * 512
    with pytest.raises(ValueError, match="file"):
        Nvme(file=str(tmp_path / "none" / "disk"))


def test_namespaces_are_apart_and_are_listed() -> None:
    host = Host(Nvme(blocks=64, namespaces=3))
    host.create_io_queues()
    for nsid in (1, 2, 3):
        host.ram.write(DATA, bytes([nsid]) * 512)
        assert host.io(Io.WRITE, 0, 1, nsid=nsid) == 0
    for nsid in (1, 2, 3):
        assert host.io(Io.READ, 0, 1, nsid=nsid) == 0
        assert host.ram.read(DATA, 512) == bytes([nsid]) * 512
    assert host.io(Io.READ, 0, 1, nsid=4) == Status.BAD_NAMESPACE
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=2) == 0
    assert host.ram.read(DATA, 16) == b"\1\0\0\0\2\0\0\0\3\0\0\0\0\0\0\0"
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=2, nsid=0xFFFF_FFFE) == 0x0B


def test_deallocated_blocks_read_as_zeros() -> None:
    host = Host()
    host.create_io_queues()
    host.storage[: 8 * 512] = b"d" * (8 * 512)
    ranges = bytes(4) + (2).to_bytes(4, "little") + (1).to_bytes(8, "little")
    host.ram.write(DATA, ranges)
    assert host.io(Io.DATASET, 0, 1, cdw11=1 << 2) == 0
    assert host.storage[: 4 * 512] == b"d" * 512 + bytes(1024) + b"d" * 512
    host.ram.write(DATA, bytes(4) + b"\xff" * 4 + bytes(8))
    assert host.io(Io.DATASET, 0, 1, cdw11=1 << 2) == Status.LBA_OUT_OF_RANGE
