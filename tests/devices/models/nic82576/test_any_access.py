"""Whatever a guest writes to a BAR, a ring or a mailbox: nothing raises, no request goes astray."""

import random
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import REFUSED, WRITE, Completion, Request
from devices.function import Bar, PciFunction
from devices.models.nic82576.controller import Nic82576
from devices.models.nic82576.registers import CELLS
from devices.network.link import Sink
from tests.devices.models.nic82576.drivers import enable_msix
from tests.devices.models.nic82576.machines import OUTSIDE, frame_for, vf_mac
from tests.devices.network.packets import ip_packet
from tests.support.ports import RAM_SIZE, RecordingPort

OFFSETS = sorted(CELLS)
HOT = [
    *(base + 0x40 * queue + at for base in (0xC000, 0xE000) for queue in (0, 1, 8) for at in
      (0, 4, 8, 0xC, 0x10, 0x18, 0x28, 0x38)),
    0x0000, 0x0018, 0x0020, 0x0100, 0x0400, 0x0C8C, 0x0C90, 0x1514, 0x3500, 0x5000, 0x5818,
]  # fmt: skip
VALUES = st.one_of(
    st.integers(0, 0xFFFF_FFFF),
    st.sampled_from([0, 1, 0x100, 1 << 25, 0x0200_0402, 0x0A00_0402, 0x8000, 1 << 26, 3, 5, 0x22]),
    st.integers(0, 31).map(lambda bit: 1 << bit),
)
WRITES = st.lists(st.tuples(st.sampled_from(HOT) | st.sampled_from(OFFSETS), VALUES), max_size=40)
FRAMES = [
    frame_for(b"\xff" * 6),
    frame_for(vf_mac(0), 1514),
    frame_for(OUTSIDE, 3000),
    frame_for(OUTSIDE, 14),
    ip_packet(bytes(100), 6),
    ip_packet(bytes(1000), 17, version=6),
]


class FencedPort(RecordingPort):
    """Lets through what lies in its fence, and remembers whether anything else was tried."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.fence = range(start, end)
        self.refused = self.written = 0

    def outside(self) -> dict[int, bytes]:
        """The memory beyond the fence: frames by number, without blank ones."""
        frames = self.ram.snapshot()
        return {each: frames[each] for each in frames if each << 12 not in self.fence}

    def request(self, request: Request) -> Completion:
        last = request.address + max(request.length, 1) - 1
        if request.address >> 20 != 0xFEE and not (
            request.address in self.fence and last in self.fence
        ):
            self.refused += 1
            return REFUSED
        self.written += request.access == WRITE
        return super().request(request)


class Bench:
    """A controller with two virtual functions, each function behind a port of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nic = Nic82576()
        self.sink = Sink()
        self.nic.attach(self.sink)
        self.nic.config.write(0x170, 2, 2)
        self.nic.config.write(0x168, 2, 9)
        self.functions: list[PciFunction] = [self.nic, *self.nic.sriov.functions]
        self.ports = []
        for function in self.functions:
            port = FencedPort(0x1000, 0x8000)
            for page in range(0, RAM_SIZE // 16, 0x1000):
                port.ram.write(page, self.random.randbytes(64) * 64)
            function.connect(port)
            function.config.write(4, 2, 6)
            self.ports.append(port)
            enable_msix(function, function.bars[3], 3)
        for at in range(0x1700, 0x1720, 4):
            self.nic.bars[0].write(at, 4, 0x8180_8281)
        for number in (1, 2):
            for offset, value in ((0x1700, 0x8081), (0x1740, 0x82), (0x1524, 7)):
                self.bar(number).write(offset, 4, value)
        self.before = [port.outside() for port in self.ports]
        self.nic.clock.advance(1_000_000_000)
        for offset, value in ((0x0100, 0x0400_803A), (0x0400, 0xA), (0x5818, 3), (0x581C, 2 << 7)):
            self.nic.bars[0].write(offset, 4, value)

    def bar(self, number: int) -> Bar:
        return self.functions[number].bars[0]

    def check(self) -> None:
        assert [port.outside() for port in self.ports] == self.before
        for offset in OFFSETS[:: self.random.randrange(20, 60)]:
            assert 0 <= self.nic.bars[0].read(offset, 4) < 1 << 32


@given(
    writes=st.lists(st.tuples(st.integers(0, 2), WRITES), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    frames=st.lists(st.sampled_from(FRAMES), max_size=4),
)
@settings(max_examples=60)
def test_nothing_raises_and_refused_requests_change_nothing(
    writes: list[tuple[int, list[tuple[int, int]]]], seed: int, frames: list[bytes]
) -> None:
    bench = Bench(seed)
    for number, accesses in writes:
        for offset, value in accesses:
            bench.bar(number).write(offset if not number else offset & 0x3FFF, 4, value)
        for frame in frames:
            bench.nic.receive(frame)
        bench.nic.clock.advance(10_000_000)
    bench.check()


def transmit_descriptor(draw: random.Random) -> int:
    """A context, data or legacy descriptor with fields that mostly make sense."""
    kind = draw.choice((2, 3, 3, 3, 0))
    if kind == 2:
        lengths = draw.choice((14, 18, 127)) << 9 | draw.choice((20, 40, 24, 0, 511))
        types = 0x2020_0000 | draw.getrandbits(3) << 10
        sizes = draw.choice((20, 8, 255, 0)) << 8 | draw.choice((64, 1000, 1460, 5, 0)) << 16
        return lengths | draw.getrandbits(16) << 16 | (types | sizes << 32) << 64
    address = draw.choice((0x3000, 0x3400, 0x4000, 0x7FF0, 0x9000))
    length = draw.choice((60, 134, 1054, 1054, 2, 0x4000, 0xFFFF))
    high = length | (0x2230_0000 if kind else 0) | draw.getrandbits(8) << 24
    return address | (high | draw.getrandbits(32) << 32) << 64


def fill_rings(bench: Bench, port: FencedPort) -> None:
    """Rings at 1000h (receive) and 2000h (transmit), packets where they point."""
    draw = bench.random
    for slot in range(64):
        buffers = draw.choice((0x5000, 0x6000, 0, 0x7F00, 0x9000)), draw.choice((0x5800, 0x8000))
        port.ram.write(0x1000 + 16 * slot, struct.pack("<QQ", *buffers))
        port.ram.write(0x2000 + 16 * slot, transmit_descriptor(draw).to_bytes(16, "little"))
    for at, frame in ((0x3000, FRAMES[4]), (0x3400, FRAMES[5]), (0x4000, FRAMES[1])):
        port.ram.write(at, frame)


def prepare(bench: Bench) -> None:
    """Ports that are on, rings that make some sense, now and then something quite different."""
    draw = bench.random
    write = bench.nic.bars[0].write
    for port in bench.ports:
        if draw.random() < 0.1:
            fill_rings(bench, port)
    for offset, value in ((0x0000, 0x40), (0x0100, 0x0400_803A), (0x0400, 0xA), (0x5000, 0x2B00)):
        if draw.random() < 0.8:
            write(offset, 4, value)
    if draw.random() < 0.2:
        write(0x0020, 4, draw.getrandbits(31) & ~(0x1F << 21) | 1 << 21)
        write(0x0014, 4, draw.getrandbits(12) | 1)
    if draw.random() < 0.2:
        write(0x1514, 4, draw.choice((0xC000_0011, 0, 0x10)))
        write(0x1524, 4, 0x1FF_FFFF)
        write(0x00D0, 4, 0x77D4_FBFD)
    if draw.random() < 0.02:
        bench.nic.config.write(0x168, 2, draw.choice((8, 9)))
    write(0x5818, 4, 0x00FF_0000 | draw.choice((0, 2, 3, 3, 5)))
    if draw.random() < 0.1:
        write(0x3500, 4, draw.choice((1 << 31, 0, 0xFFFF, draw.getrandbits(32))))


def start_queues(bench: Bench) -> None:
    """Two queues of each direction, with rings that mostly are where some are."""
    draw, write = bench.random, bench.nic.bars[0].write
    for queue in draw.sample((0, 1, 2, 5, 8, 9), 2):
        for base, ring in ((0xC000, 0x1000), (0xE000, 0x2000)):
            at = base + 0x40 * queue
            write(at, 4, ring if draw.random() < 0.9 else draw.getrandbits(16))
            write(at + 4, 4, 0 if draw.random() < 0.95 else 1)
            write(at + 8, 4, 16 * draw.choice((8, 16, 64)))
            write(at + 0xC, 4, draw.choice((1, 2, 0x0200_0402, 0x0A00_0402, 0x0400_0201)))
            write(at + 0x28, 4, 1 << 25)
            write(at + 0x18, 4, draw.randrange(8))


def register_program(bench: Bench, length: int) -> None:
    """Everything by chance, on a controller that does something."""
    prepare(bench)
    start_queues(bench)
    draw = bench.random
    for _ in range(length):
        number = draw.choice((0, 0, 1, 2))
        offset = draw.choice(HOT if draw.random() < 0.5 else OFFSETS)
        offset = offset if not number else offset & 0x3FFF
        value = draw.choice((draw.getrandbits(32), 1 << draw.randrange(32), draw.randrange(64)))
        bar = bench.bar(number)
        if draw.random() < 0.3:
            assert 0 <= bar.read(offset, 4) < 1 << 32
        else:
            bar.write(offset, 4, value)
        if draw.random() < 0.2:
            bench.nic.receive(draw.choice(FRAMES))
        if draw.random() < 0.1:
            bench.nic.clock.advance(draw.randrange(1_000_000_000))


def campaign(programs: int, seed: int) -> Counter[str]:
    """Run register programs, 50 on each bench; how often what happened."""
    happened: Counter[str] = Counter()
    for number in range(0, programs, 50):
        bench = Bench(seed + number)
        for _ in range(50):
            register_program(bench, 10)
        bench.check()
        happened["refused"] += sum(port.refused for port in bench.ports)
        happened["messages"] += sum(len(port.messages) for port in bench.ports)
        happened["sent"] += len(bench.sink.frames)
        happened["written"] += sum(port.written for port in bench.ports)
    return happened


def test_register_programs_by_chance() -> None:
    happened = campaign(2_000, 0)
    assert all(happened[what] > 100 for what in ("refused", "sent", "written", "messages"))


@pytest.mark.slow
def test_a_million_register_programs() -> None:
    assert campaign(1_000_000, 1)["refused"] > 0
