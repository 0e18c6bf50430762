"""What outlasts the power is what flush and FUA promise, and nothing that was never written."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.models import block_storage
from devices.models.block_storage import BLOCK, BlockStorage
from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import Admin, Io, Status
from devices.models.virtio_blk import VirtioBlk
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
    blocks = BlockStorage(bytearray(BLOCKS * BLOCK))
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
        blocks = BlockStorage(bytearray(BLOCK))
        blocks.write(0, b"1" * BLOCK)
        blocks.lose_power(Random(seed))
        lost.add(blocks.storage[0])
    assert lost == {0, ord("1")}
    monkeypatch.setattr(block_storage, "CACHE", BLOCK)
    blocks = BlockStorage(bytearray(2 * BLOCK))
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


FEW = 3
"""Blocks, so that a short program meets one of them several times."""
COMMANDS = st.one_of(
    st.tuples(
        st.sampled_from(["write", "fua", "zeroes", "zeroes fua", "deallocate"]),
        st.integers(1, 2),
        st.integers(0, FEW - 1),
        st.integers(1, 2),
    ),
    st.tuples(st.just("flush"), st.sampled_from([1, 0xFFFF_FFFF]), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["cache off", "cache on"]), st.just(1), st.just(0), st.just(0)),
)


@settings(max_examples=150)
@given(st.lists(COMMANDS, min_size=10, max_size=40), st.integers(0, 3), st.integers(0, 1000))
def test_what_was_promised_outlasts_a_power_cut(
    program: list[tuple[str, int, int, int]], unreaped: int, seed: int
) -> None:
    """By the completion that a host has seen; commands after that may have come to anything."""
    host = Host(Nvme(blocks=FEW, namespaces=2))
    host.create_io_queues()
    assert isinstance(host.device, Nvme)
    cache = True
    now = {(nsid, at): 0 for nsid in (1, 2) for at in range(FEW)}
    possible = {place: {0} for place in now}
    for number, (what, nsid, first, count) in enumerate(program, 1):
        promised = number <= len(program) - unreaped
        if what.startswith("cache"):
            cache = what == "cache on"
            assert host.admin(Admin.SET_FEATURES, cdw10=6, cdw11=cache) == 0
        blocks = [(nsid, at) for at in range(first, min(first + count, FEW))]
        host.ram.write(DATA, bytes([number]) * (len(blocks) * BLOCK))
        if what in {"write", "fua"}:
            options = len(blocks) - 1 | (what == "fua") << 30
            assert host.io(Io.WRITE, first, len(blocks), nsid=nsid, cdw12=options) == 0
        elif what.startswith("zeroes"):
            options = len(blocks) - 1 | ("fua" in what) << 30
            assert host.io(Io.WRITE_ZEROES, first, len(blocks), nsid=nsid, cdw12=options) == 0
        elif what == "deallocate":
            one = bytes(4) + len(blocks).to_bytes(4, "little") + first.to_bytes(8, "little")
            host.ram.write(DATA, one)
            assert host.io(Io.DATASET, 0, 1, nsid=nsid, cdw11=1 << 2) == 0
        elif what == "flush":
            assert host.io(Io.FLUSH, 0, 1, nsid=nsid) == 0
        for place in blocks:
            now[place] = number if what in {"write", "fua"} else 0
            durable = promised and ("fua" in what or not cache)
            possible[place] = {now[place]} if durable else {*possible[place], now[place]}
        if promised and what in {"flush", "cache off"}:
            flushed = (1, 2) if nsid == 0xFFFF_FFFF or what == "cache off" else (nsid,)
            possible |= {place: {now[place]} for place in now if place[0] in flushed}
    for cut in range(8):
        for nsid, kept in copy.deepcopy(host.device.subsystem.namespaces).items():
            kept.lose_power(Random(cut))
            for at in range(FEW):
                assert kept.storage[at * BLOCK] in possible[nsid, at]
    host.device.lose_power(seed)
    again = Host(host.device, port=host.port)
    again.create_io_queues()
    for (nsid, at), contents in possible.items():
        assert again.io(Io.READ, at, 1, nsid=nsid) == 0
        block = again.ram.read(DATA, BLOCK)
        assert len(set(block)) == 1  # blocks are written whole or not at all
        assert block[0] in contents


@pytest.mark.parametrize("model", [Nvme, VirtioBlk])
def test_what_cannot_be_a_disk_is_named(model: type[Nvme | VirtioBlk], tmp_path: Path) -> None:
    for blocks in (-1, 0, 1 << 32, 1 << 80):
        with pytest.raises(ValueError, match=r"^blocks: "):
            model(blocks=blocks)
    for path in (tmp_path, tmp_path / "none" / "disk"):
        with pytest.raises(ValueError, match=f"^file: {path}: "):
            model(file=str(path))


def test_a_file_that_is_longer_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"kept" * 4096)
    assert Nvme(blocks=16, file=str(path)).subsystem.namespaces[1].blocks == 16
    assert path.read_bytes() == b"kept" * 4096


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
