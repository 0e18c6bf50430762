"""What a guest may do by chance to each model: benches, and programs of registers and descriptors.

Programs make some sense, so that devices work, and now and then none at all. The 82576 has its
own, in ``nic82576/test_any_access.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from devices.ats import AtsAgent
from devices.capabilities import ExtendedCapabilityId
from devices.dma import (
    DONE,
    MESSAGE,
    REFUSED,
    AddressType,
    AtomicOp,
    Completion,
    CompletionStatus,
    PageGroupResponse,
    PageRequest,
    Request,
    TranslationEntry,
)
from devices.function import PciFunction
from devices.models.dma_engine import Atomic, DmaEngine, Read, SendMessage, Translate, Via, Write
from devices.models.dsa import GROUPS, MSIX_TABLE, QUEUES, Dsa
from devices.models.dsa_structures import Command, GroupConfiguration, Operation, QueueConfiguration
from devices.models.dsa_structures import Descriptor as Work
from devices.models.edu import BUFFER_START, Edu, EduRegister
from devices.models.inert import Inert
from devices.models.ioat import IoatEngine
from devices.models.ioat_structures import Descriptor
from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import SglDescriptor, Submission
from devices.models.testdev import IommuTestdev, Register
from devices.models.virtio_blk import VirtioBlk
from devices.models.virtio_structures import FEATURES
from devices.models.virtio_structures import Descriptor as Buffer
from pagetables.memory import PhysicalMemory
from tests.devices.models.nic82576.test_any_access import FencedPort

FENCE = range(0x1000, 0x8000)
OUTSIDE = (0, 0x0FC0, 0x7FC0, 0x8000, 0x9000, 0xF000, 0x40_0000, (1 << 64) - 64)
ADDRESSES = (*range(0x1000, 0x8000, 0x400), *OUTSIDE)
SIZES = (0, 1, 64, 512, 2000, 4096, 5000)


def words(draw: random.Random) -> int:
    return draw.choice(
        (draw.getrandbits(32), 1 << draw.randrange(32), draw.randrange(64), draw.choice(ADDRESSES))
    )


def some(draw: random.Random, places: range) -> list[int]:
    """All of them now and then, otherwise two: what is elsewhere stays from programs before."""
    return list(places) if draw.random() < 0.1 else draw.sample(places, 2)


class Bench:
    """A function and its memory, of which it may use what is in the fence."""

    def __init__(self, function: PciFunction, seed: int, port: FencedPort | None = None) -> None:
        self.random = random.Random(seed)
        self.function = function
        self.port = FencedPort(FENCE.start, FENCE.stop) if port is None else port
        function.connect(self.port)
        function.config.write(4, 2, 6)
        for page in range(0, 0x1_0000, 0x1000):
            self.port.ram.write(page, self.random.randbytes(64) * 64)
        self.before = self.port.outside()

    def check(self) -> None:
        assert self.port.outside() == self.before

    def write(self, offset: int, size: int, value: int, bar: int = 0) -> None:
        self.function.bars[bar].write(offset, size, value & (1 << 8 * size) - 1)

    def read(self, offset: int, size: int, bar: int = 0) -> int:
        value = self.function.bars[bar].read(offset, size)
        assert 0 <= value < 1 << 8 * size
        return value

    def configure(self) -> None:
        """Write anything to configuration space; what lets the function work mostly comes back."""
        draw, config = self.random, self.function.config
        if draw.random() < 0.2:
            size = draw.choice((1, 2, 4))
            config.write(draw.randrange(0x200) & -size, size, words(draw) & (1 << 8 * size) - 1)
            if draw.random() < 0.9:
                config.write(4, 2, 6)
            if draw.random() < 0.02:
                self.function.reset()
                config.write(4, 2, 6)


class TranslatingPort(FencedPort):
    """Translates the pages of its fence for a device-TLB, one to one; some may only be read.

    Page requests are kept in ``asked`` until :meth:`answer` is called.
    """

    def __init__(self) -> None:
        super().__init__(FENCE.start, FENCE.stop)
        self.asked: list[PageRequest] = []

    def request(self, request: Request) -> Completion:
        if request.access == MESSAGE:
            if isinstance(request.payload, PageRequest):
                self.asked.append(request.payload)
            return DONE
        if request.address_type is not AddressType.TRANSLATION_REQUEST:
            return super().request(request)
        entries = []
        for number in range(request.length // 8):
            page = (request.address & -4096) + 4096 * number
            inside = page in self.fence
            self.refused += not inside
            entries.append(TranslationEntry(
                address=page, size=4096, r=inside, w=inside and page % 0x3000 != 0,
                u=False, n=False, x=False, priv=False, global_=False,
            ))  # fmt: skip
        return Completion(CompletionStatus.SUCCESS, entries=tuple(entries)) if entries else REFUSED

    def answer(self, agent: AtsAgent, draw: random.Random) -> None:
        """Answer what was asked, now and then wrongly, or not at all."""
        for each in self.asked:
            if each.last and draw.random() < 0.9:
                group = each.group_index if draw.random() < 0.95 else draw.randrange(512)
                code = draw.choice((0, 0, 0, 1, 0xF))
                agent.page_response(PageGroupResponse(code, group, each.pasid))
        self.asked.clear()


def enable_translation(function: PciFunction) -> None:
    """What a driver does to have a device-TLB, PASIDs and page requests."""
    for capability, offset, size, value in (
        (ExtendedCapabilityId.PASID, 6, 2, 1),
        (ExtendedCapabilityId.PRI, 0xC, 4, 32),
        (ExtendedCapabilityId.PRI, 4, 2, 1),
        (ExtendedCapabilityId.ATS, 6, 2, 0x8000),
    ):
        at = function.config.find_extended_capability(capability)
        assert at is not None
        function.config.write(at + offset, size, value)


def ioat_program(bench: Bench) -> None:
    """Descriptors that make some sense, a channel that is told anything."""
    draw = bench.random
    for at in some(draw, FENCE[::0x400]) + draw.sample(FENCE[::64], 2):
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
    assert bench.read(channel + 8, 8) & 7 in range(4)


def nvme_program(bench: Bench) -> None:
    """Queues with commands that make some sense, doorbells that are told anything."""
    draw = bench.random
    running = bench.read(0x1C, 4) & 3 == 1
    if draw.random() < (0.05 if running else 0.9):
        bench.write(0x14, 4, 0)
        bench.write(0x24, 4, draw.choice((0x0007_0007, 0x000F_000F, words(draw))))
        for register, usual in ((0x28, 0x1000), (0x30, 0x5000)):
            bench.write(register, 8, usual if draw.random() < 0.9 else draw.choice(ADDRESSES))
        bench.write(0x14, 4, draw.choice((1, 1, words(draw) | 1)))
    for at in some(draw, range(0x1000, 0x1200, 64)) + draw.sample(range(0x1200, 0x4000, 64), 1):
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


def edu_program(bench: Bench) -> None:
    """Transfers that mostly lie in the buffer, registers that are told anything."""
    draw = bench.random
    bench.configure()
    inside = BUFFER_START + draw.choice((0, 0, 0, 64, 0xF00, 0x1000))
    command = draw.choice((1, 3, 3, 7, draw.randrange(8)))
    addresses = [draw.choice(ADDRESSES), inside]
    if command & 2 and draw.random() < 0.9:
        addresses.reverse()
    for register, value in (
        (EduRegister.DMA_SOURCE, addresses[0]),
        (EduRegister.DMA_DESTINATION, addresses[1]),
        (EduRegister.DMA_COUNT, draw.choice(SIZES)),
        (EduRegister.DMA_COMMAND, command),
    ):
        if draw.random() < 0.95:
            bench.write(register, draw.choice((4, 8)), value)
    for _ in range(3):
        offset = draw.choice((*EduRegister, draw.randrange(0x1000)))
        bench.write(offset, draw.choice((1, 2, 4, 4, 4, 8)), words(draw) << draw.choice((0, 32)))
        bench.read(offset, draw.choice((1, 2, 4, 8)))
    bench.function.clock.advance(draw.randrange(400_000_000))


def testdev_program(bench: Bench) -> None:
    """Writes that are looked for where they should, or should not, have gone."""
    draw = bench.random
    bench.configure()
    address = draw.choice(ADDRESSES)
    expected = address if draw.random() < 0.8 else draw.choice(ADDRESSES)
    for register, value in (
        (Register.ADDRESS_LOW, address), (Register.ADDRESS_HIGH, address >> 32),
        (Register.EXPECTED_LOW, expected), (Register.EXPECTED_HIGH, expected >> 32),
        (Register.LENGTH, draw.choice((*SIZES, 4, 4, 1 << draw.randrange(24)))),
        (Register.ATTRIBUTES, draw.choice((2, 2, words(draw)))), (Register.DOORBELL, 1),
    ):  # fmt: skip
        bench.write(register, 4, value)
    if draw.random() < 0.2:
        bench.write(draw.randrange(0x30), draw.choice((1, 2, 4, 8)), words(draw))
    bench.read(Register.TRIGGER, 4)
    bench.read(draw.randrange(0x30), draw.choice((1, 2, 4, 8)))


def inert_program(bench: Bench) -> None:
    """Its vectors and its configuration space; a message whenever it is told to send one."""
    draw = bench.random
    bench.configure()
    for _ in range(4):
        bench.write(draw.randrange(0x9000), draw.choice((1, 2, 4, 8)), words(draw))
    msix = bench.function.msix
    assert msix is not None
    for vector in range(4):
        bench.write(16 * vector, 4, draw.choice((0xFEE0_0000, draw.choice(ADDRESSES))))
        bench.write(16 * vector + 12, 4, draw.getrandbits(2) & draw.getrandbits(2))
    msix.control.value = msix.control.value.replace(enable=1)
    msix.notify(draw.randrange(6))


def virtio_program(bench: Bench) -> None:
    """Chains that make some sense, a ring whose index goes on by a few."""
    draw, ram = bench.random, bench.port.ram
    bench.configure()
    descriptors, available, used = 0x1000, 0x3000, 0x4000
    if bench.read(20, 1) != 15 or draw.random() < 0.05:
        features = FEATURES | 1 << 33 if draw.random() < 0.9 else words(draw) << 16
        start = [(20, 1, 0), (20, 1, 3)]
        for half in range(2):
            start += [(8, 4, half), (12, 4, features >> 32 * half)]
        start += [(20, 1, 11), (22, 2, 0), (24, 2, draw.choice((8, 8, 1, 256)))]
        for at, usual in ((32, descriptors), (40, available), (48, used)):
            address = usual if draw.random() < 0.95 else draw.choice(ADDRESSES)
            start += [(at, 4, address), (at + 4, 4, address >> 32)]
        for at, size, value in (*start, (28, 2, 1), (20, 1, 15)):
            bench.write(at, size, value)
        ram.write(available, bytes(4 + 2 * 256))
    kind = draw.choice((0, 0, 1, 1, 4, 8, 9))
    sector = draw.choice((0, 0, 1, 63, 64, draw.getrandbits(64)))
    ram.write(0x5000, kind.to_bytes(8, "little") + sector.to_bytes(8, "little"))
    chain = [(0x5000, 16, False)]
    chain += [
        (draw.choice(ADDRESSES), draw.choice(SIZES), kind != 1 if draw.random() < 0.95 else False)
        for _ in range(draw.randrange(3))
    ]
    chain.append(
        (draw.choice((0x5100, 0x5100, draw.choice(ADDRESSES))), draw.choice((1, 1, 5)), True)
    )
    indirect = draw.random() < 0.3
    table = 0x6000 if indirect else descriptors
    for number, (address, length, write) in enumerate(chain):
        last = number + 1 == len(chain)
        ram.write(table + 16 * number, Buffer.of(
            address=address, length=length, write=write, indirect=draw.random() < 0.02,
            next=not last, next_index=number + 1 if draw.random() < 0.95 else words(draw) & 0xFFFF,
        ).pack())  # fmt: skip
    if indirect:
        whole = Buffer.of(address=table, length=16 * len(chain), indirect=1)
        ram.write(descriptors, whole.pack())
    index = int.from_bytes(ram.read(available + 2, 2), "little")
    if draw.random() < 0.1:
        slot = available + 4 + 2 * draw.randrange(8)
        ram.write(slot, draw.choice((0, 0, 1, words(draw) & 0xFFFF)).to_bytes(2, "little"))
    posted = draw.choice((1, 1, 1, 2)) if draw.random() < 0.95 else words(draw)
    ram.write(available + 2, (index + posted & 0xFFFF).to_bytes(2, "little"))
    bench.write(0x3000, 2, 0)
    if draw.random() < 0.2:
        offset = draw.choice((draw.randrange(64), draw.randrange(0x4000)))
        bench.write(offset, draw.choice((1, 2, 4, 8)), words(draw))
        bench.read(offset, draw.choice((1, 2, 4, 8)))
    bench.read(0x1000, 1)


def dsa_program(bench: Bench) -> None:
    """Queues that mostly can be enabled, descriptors that mostly can be carried out."""
    draw, device = bench.random, bench.function
    assert isinstance(device, Dsa)
    assert isinstance(bench.port, TranslatingPort)
    if draw.random() < 0.1:
        bench.configure()
    queue = draw.randrange(2)
    if draw.random() < 0.2 or not device.configuration(queue).enabled:
        dsa_start(bench, queue)
    for record in some(draw, range(0x1000, 0x1400, 64)):
        bench.port.ram.write(record, dsa_work(draw).pack())
    for _ in range(draw.randrange(1, 4)):
        raw = dsa_work(draw).pack()
        for at in range(0, 64, 8):
            part = int.from_bytes(raw[at : at + 8], "little")
            bench.write(0x4000 * queue + at, 8, part, bar=2)
    if draw.random() < 0.3:
        command = draw.choice((*Command, draw.randrange(32)))
        bench.write(0xA0, 4, draw.getrandbits(1) << 31 | command << 20 | draw.choice((1, 2, 3)))
    if draw.random() < 0.1:
        offset = draw.choice((draw.randrange(0x900), MSIX_TABLE + draw.randrange(0x90))) & -4
        bench.write(offset, 4, words(draw))
        bench.read(offset, 4)
    for _ in range(3):
        device.clock.advance(draw.randrange(10_000))
        bench.port.answer(device.agent, draw)


def dsa_start(bench: Bench, queue: int) -> None:
    """Set a work queue up and enable it."""
    draw, device = bench.random, bench.function
    if draw.random() < 0.3:
        bench.write(0xA0, 4, Command.RESET_DEVICE << 20)
        enable_translation(device)
    bench.write(0xC0, 4, 3)
    for each in range(2):
        raw = QueueConfiguration.of(
            size=draw.choice((16, 16, 1, 0)), dedicated=1, priority=1, pasid=1, pasid_enabled=1,
            block_on_fault=draw.getrandbits(1), max_transfer=draw.choice((12, 21)),
            max_batch=draw.choice((2, 5)), privileged=draw.random() < 0.1,
        ).pack()  # fmt: skip
        for at in range(0, 32, 4):
            part = int.from_bytes(raw[at : at + 4], "little")
            bench.write(QUEUES + 32 * each + at, 4, part)
    group = GroupConfiguration.of(queues=3, engines=1)
    for at in range(0, 64, 8):
        bench.write(GROUPS + at, 8, group >> 8 * at)
    bench.write(0xA0, 4, Command.ENABLE_DEVICE << 20)
    bench.write(0xA0, 4, Command.ENABLE_QUEUE << 20 | queue)


def dsa_work(draw: random.Random) -> Work:
    """A descriptor; a batch has its list where such descriptors are."""
    operation = draw.choice((*Operation, Operation.MOVE, Operation.MOVE, draw.getrandbits(8)))
    source, size = draw.choice(ADDRESSES), draw.choice((*SIZES, 4, 4))
    if operation == Operation.BATCH and draw.random() < 0.9:
        source, size = 0x1000, draw.choice((2, 3, 4, 16))
    return Work.of(
        pasid=1, flags=draw.choice((0xC, 0xE, 0xC, 0x1C, 0, draw.getrandbits(24))),
        operation=operation, completion=draw.choice((0x2000, 0x2020, draw.choice(ADDRESSES))),
        source=source, destination=draw.choice(ADDRESSES), size=size,
        vector=draw.randrange(4), seed=draw.getrandbits(32), seed_address=draw.choice(ADDRESSES),
    )  # fmt: skip


def dma_engine_program(bench: Bench) -> None:
    """Commands of every kind, while software switches its capabilities."""
    draw, engine = bench.random, bench.function
    assert isinstance(engine, DmaEngine)
    assert isinstance(bench.port, TranslatingPort)
    bench.configure()
    if draw.random() < 0.3:
        enable_translation(engine)
    address, size = draw.choice(ADDRESSES), draw.choice(SIZES)
    pasid, privileged = draw.choice((None, 1)), draw.random() < 0.1
    via = draw.choice((*Via, Via.DEVICE_TLB))
    engine.submit(draw.choice((
        Read(address, size, pasid, privileged, via),
        Write(address, draw.randbytes(size), pasid, privileged, via),
        Atomic(AtomicOp.FETCH_ADD, address, bytes(8), pasid, privileged),
        Translate(address, draw.randrange(1, 5), draw.random() < 0.5, pasid, privileged),
        SendMessage(0xFEE0_0000, draw.randrange(256)),
    )))  # fmt: skip
    engine.run()
    bench.port.answer(engine.ats, draw)
    engine.run()
    bench.write(draw.randrange(0x9000) & -4, 4, words(draw))


def testdev(seed: int) -> list[Bench]:
    """It reads memory behind the back of the unit, as is its purpose: that of its port."""
    memory = PhysicalMemory()
    bench = Bench(IommuTestdev(memory), seed)
    assert isinstance(bench.function, IommuTestdev)
    bench.function.memory = bench.port.ram
    return [bench]


def nvme(seed: int) -> list[Bench]:
    """A controller and one of its virtual functions, with resources."""
    device = Nvme(blocks=64, namespaces=2, vfs=1)
    found = [Bench(device, seed)]
    assert device.sriov is not None
    device.config.write(device.sriov.count.offset, 2, 1)
    device.config.write(device.sriov.control.offset, 2, 9)
    for resource in (0, 1):
        device.subsystem.assign(1, resource, 3)
    device.subsystem.switch(1, online=True)
    return [*found, Bench(device.sriov.functions[0], seed)]


def translating(function: PciFunction, seed: int) -> list[Bench]:
    """A function that a driver has given a device-TLB, PASIDs and page requests."""
    bench = Bench(function, seed, TranslatingPort())
    enable_translation(function)
    return [bench]


PROGRAMS: dict[str, tuple[Callable[[int], Sequence[Bench]], Callable[[Bench], None]]] = {
    "dma_engine": (lambda seed: translating(DmaEngine(), seed), dma_engine_program),
    "dsa": (lambda seed: translating(Dsa(queues=2), seed), dsa_program),
    "edu": (lambda seed: [Bench(Edu(), seed)], edu_program),
    "inert": (lambda seed: [Bench(Inert(msix_vectors=4), seed)], inert_program),
    "ioat": (lambda seed: [Bench(IoatEngine(2, descriptor_nanoseconds=500), seed)], ioat_program),
    "nvme": (nvme, nvme_program),
    "testdev": (testdev, testdev_program),
    "virtio_blk": (lambda seed: [Bench(VirtioBlk(blocks=64), seed)], virtio_program),
}
"""Model: benches with the functions of one, and what one program does to each."""
