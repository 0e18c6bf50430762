"""Whatever a guest writes to a BAR, a ring or a mailbox: nothing raises, no request goes astray."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.dma import REFUSED, Completion, Request
from devices.function import Bar, PciFunction
from devices.models.nic82576.controller import Nic82576
from devices.models.nic82576.registers import CELLS
from devices.network.link import Sink
from tests.devices.models.nic82576.machines import OUTSIDE, frame_for, vf_mac
from tests.devices.network.packets import ip_packet
from tests.devices.ports import RAM_SIZE, RecordingPort

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
        self.refused = 0

    def request(self, request: Request) -> Completion:
        last = request.address + max(request.length, 1) - 1
        if request.address >> 20 != 0xFEE and not (
            request.address in self.fence and last in self.fence
        ):
            self.refused += 1
            return REFUSED
        return super().request(request)


class Bench:
    """A controller with two virtual functions, each function behind a port of its own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.nic = Nic82576()
        self.nic.attach(Sink())
        self.nic.config.write(0x170, 2, 2)
        self.nic.config.write(0x168, 9, 2)
        self.functions: list[PciFunction] = [self.nic, *self.nic.sriov.functions]
        self.ports = []
        for function in self.functions:
            port = FencedPort(0x1000, 0x8000)
            for page in range(0, RAM_SIZE // 16, 0x1000):
                port.ram.write(page, self.random.randbytes(64) * 64)
            function.connect(port)
            function.config.write(4, 6, 2)
            self.ports.append(port)
        self.before = [port.ram.read(0x8000, RAM_SIZE - 0x8000) for port in self.ports]
        self.nic.clock.advance(1_000_000_000)
        for offset, value in ((0x0100, 0x0400_803A), (0x0400, 0xA), (0x5818, 3), (0x581C, 2 << 7)):
            self.nic.bars[0].write(offset, value, 4)

    def bar(self, number: int) -> Bar:
        return self.functions[number].bars[0]

    def check(self) -> None:
        for port, before in zip(self.ports, self.before, strict=True):
            assert port.ram.read(0x8000, RAM_SIZE - 0x8000) == before
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
            bench.bar(number).write(offset if not number else offset & 0x3FFF, value, 4)
        for frame in frames:
            bench.nic.receive(frame)
        bench.nic.clock.advance(10_000_000)
    bench.check()


def register_program(bench: Bench, length: int) -> None:
    """Rings that make some sense, and everything else by chance."""
    draw = bench.random
    write = bench.nic.bars[0].write
    for queue in draw.sample(range(16), 3):
        for base in (0xC000, 0xE000):
            at = base + 0x40 * queue
            write(at, draw.choice((0x1000, 0x2000, 0x7F80, 0x9000)), 4)
            write(at + 4, draw.choice((0, 0, 0, 1)), 4)
            write(at + 8, 16 * draw.choice((8, 16, 64)), 4)
            write(at + 0xC, draw.choice((1, 2, 0x0200_0402, 0x0A00_0402, 0x0400_0201)), 4)
            write(at + 0x28, 1 << 25, 4)
            write(at + 0x18, draw.randrange(8), 4)
    for _ in range(length):
        number = draw.choice((0, 0, 1, 2))
        offset = draw.choice(HOT if draw.random() < 0.5 else OFFSETS)
        value = draw.choice((draw.getrandbits(32), 1 << draw.randrange(32), draw.randrange(64)))
        bench.bar(number).write(offset if not number else offset & 0x3FFF, value, 4)
        if draw.random() < 0.2:
            bench.nic.receive(draw.choice(FRAMES))
        if draw.random() < 0.2:
            bench.nic.clock.advance(draw.randrange(1_000_000))


def campaign(programs: int, seed: int, tell: Callable[[int], None] = lambda _: None) -> int:
    """Run register programs, 50 on each bench; how many requests were refused."""
    refused = 0
    for number in range(0, programs, 50):
        bench = Bench(seed + number)
        for _ in range(50):
            register_program(bench, 20)
        bench.check()
        refused += sum(port.refused for port in bench.ports)
        tell(number)
    return refused


def test_register_programs_by_chance() -> None:
    assert campaign(1_000, 0) > 0


@pytest.mark.slow
def test_a_million_register_programs() -> None:
    assert campaign(1_000_000, 1) > 0
