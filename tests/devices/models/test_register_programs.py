"""Register and descriptor programs by chance: nothing raises, and no request passes its fence."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from devices.function import PciFunction
from devices.models.ioat import IoatEngine
from devices.models.ioat_structures import Descriptor
from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import SglDescriptor, Submission
from tests.devices.models.nic82576.test_any_access import FencedPort

FENCE = range(0x1000, 0x8000)
OUTSIDE = (0, 0x0FC0, 0x7FC0, 0x8000, 0x9000, 0xF000, 0x40_0000, (1 << 64) - 64)
ADDRESSES = (*range(0x1000, 0x8000, 0x400), *OUTSIDE)
SIZES = (0, 1, 64, 512, 2000, 4096, 5000)


def words(draw: random.Random) -> int:
    return draw.choice(
        (draw.getrandbits(32), 1 << draw.randrange(32), draw.randrange(64), draw.choice(ADDRESSES))
    )


class Bench:
    """A function and its memory, of which it may use what is in the fence."""

    def __init__(self, function: PciFunction, seed: int) -> None:
        self.random = random.Random(seed)
        self.function = function
        self.port = FencedPort(FENCE.start, FENCE.stop)
        function.connect(self.port)
        function.config.write(4, 2, 6)
        for page in range(0, 0x1_0000, 0x1000):
            self.port.ram.write(page, self.random.randbytes(64) * 64)
        self.before = self._outside()

    def _outside(self) -> bytes:
        ram = self.port.ram
        return ram.read(0, FENCE.start) + ram.read(FENCE.stop, 0x1_0000 - FENCE.stop)

    def check(self) -> None:
        assert self._outside() == self.before

    def write(self, offset: int, size: int, value: int) -> None:
        self.function.bars[0].write(offset, size, value & (1 << 8 * size) - 1)


def ioat_program(bench: Bench) -> None:
    """Descriptors that make some sense, a channel that is told anything."""
    draw = bench.random
    for at in (*FENCE[::0x400], *draw.sample(FENCE[::64], 4)):
        bench.port.ram.write(at, Descriptor.of(
            size=draw.choice(SIZES), interrupt=draw.getrandbits(1), completion=draw.getrandbits(1),
            null=draw.random() < 0.1, opcode=draw.choice((0, 0, 0, 0x87)),
            source=draw.choice(ADDRESSES), destination=draw.choice(ADDRESSES),
            next=draw.choice(ADDRESSES),
        ).pack())  # fmt: skip
    channel = 0x80 * draw.randint(1, 2)
    plausible: tuple[Callable[[], None], ...] = (
        lambda: bench.write(channel + 0x10, 8, draw.choice(ADDRESSES)),
        lambda: bench.write(channel + 0x18, 8, draw.choice(ADDRESSES)),
        lambda: bench.write(channel, 2, draw.choice((0x1D, 9, words(draw)))),
        lambda: bench.write(channel + 4, 1, 1 << draw.randrange(8)),
        lambda: bench.write(channel + 6, 2, draw.randrange(16)),
        lambda: bench.write(3, 1, draw.getrandbits(8)),
        lambda: bench.write(draw.randrange(0x180) & -4, 4, words(draw)),
        lambda: bench.write(0x2000 + 4 * draw.randrange(8), 4, words(draw)),
    )
    if draw.random() < 0.8:
        for offset, value, size in (
            (4, 0x20, 1), (0x10, draw.choice(ADDRESSES), 8), (0x18, draw.choice(ADDRESSES), 8),
            (0, 0x1D, 2), (6, draw.randrange(8), 2),
        ):  # fmt: skip
            bench.write(channel + offset, size, value)
        bench.function.clock.advance(draw.randrange(2_000))
    for act in draw.choices(plausible, k=4):
        act()
    bench.function.clock.advance(draw.randrange(20_000))
    state = bench.function.bars[0].read(channel + 8, 8) & 7
    assert state in range(4)


def nvme_program(bench: Bench) -> None:
    """Queues with commands that make some sense, doorbells that are told anything."""
    draw = bench.random
    running = bench.function.bars[0].read(0x1C, 4) & 3 == 1
    if draw.random() < (0.05 if running else 0.9):
        bench.write(0x14, 4, 0)
        bench.write(0x24, 4, draw.choice((0x0007_0007, 0x000F_000F, words(draw))))
        for register, usual in ((0x28, 0x1000), (0x30, 0x5000)):
            bench.write(register, 8, usual if draw.random() < 0.9 else draw.choice(ADDRESSES))
        bench.write(0x14, 4, draw.choice((1, 1, words(draw) | 1)))
    for at in (*range(0x1000, 0x1200, 64), *draw.sample(range(0x1200, 0x4000, 64), 2)):
        psdt = draw.choice((0, 0, 0, 0, 1, 2, 3))
        pointer = SglDescriptor.of(
            type=draw.choice((0, 0, 1, 2, 3, 5)), address=draw.choice(ADDRESSES),
            length=draw.choice((16, 32, *SIZES)),
        ) if psdt else draw.choice(ADDRESSES) | draw.choice(ADDRESSES) << 64  # fmt: skip
        bench.port.ram.write(at, Submission.of(
            opcode=draw.choice((0, 1, 2, 4, 5, 6, 8, 9, 0xA, 0xC, 0x1C, draw.getrandbits(8))),
            psdt=psdt, cid=draw.getrandbits(16),
            nsid=draw.choice((0, 1, 2, 9, 0xFFFF_FFFF)), prp1=pointer & (1 << 64) - 1,
            prp2=pointer >> 64, cdw10=draw.choice((7 << 16 | 1, draw.randrange(16), words(draw)))
            & 0xFFFF_FFFF, cdw11=draw.choice((1, 3, 1 << 16 | 1, words(draw))) & 0xFFFF_FFFF,
            cdw12=draw.randrange(16), cdw13=0,
        ).pack())  # fmt: skip
    for _ in range(4):
        bench.write(0x1000 + 4 * draw.choice((0, 0, 1, 2, 3, 4)), 4, draw.randrange(10))
    if draw.random() < 0.2:
        bench.write(draw.randrange(0x2000) & -4, 4, words(draw))


def campaign(name: str, programs: int, seed: int) -> Counter[str]:
    """Run so many programs, 50 on each bench; what happened."""
    happened: Counter[str] = Counter()
    for number in range(0, programs, 50):
        for bench in benches(name, seed + number):
            for _ in range(50):
                (ioat_program if name == "ioat" else nvme_program)(bench)
            bench.check()
            happened["refused"] += bench.port.refused
            happened["written"] += bench.port.written
            function = bench.function
            happened["alive"] += bool(function.bars[0].read(0x1C if name == "nvme" else 0, 4))
    return happened


def benches(name: str, seed: int) -> list[Bench]:
    if name == "ioat":
        return [Bench(IoatEngine(2, descriptor_nanoseconds=500), seed)]
    device = Nvme(blocks=64, namespaces=2, vfs=1)
    found = [Bench(device, seed)]
    assert device.sriov is not None
    device.config.write(device.sriov.count.offset, 2, 1)
    device.config.write(device.sriov.control.offset, 2, 9)
    for resource in (0, 1):
        device.subsystem.assign(1, resource, 3)
    device.subsystem.switch(1, online=True)
    return [*found, Bench(device.sriov.functions[0], seed)]


@pytest.mark.parametrize("name", ["ioat", "nvme"])
def test_register_programs_by_chance(name: str) -> None:
    happened = campaign(name, 2_000, 0)
    assert happened["refused"] > 50
    assert happened["written"] > 500
    assert happened["alive"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ioat", "nvme"])
def test_a_million_register_programs(name: str) -> None:
    assert campaign(name, 1_000_000, 1)["refused"] > 0
