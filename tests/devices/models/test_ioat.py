"""The I/OAT engine, driven as Linux and the VFIO self test drive it, refused at each DMA stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.models.ioat import ERRORS, MSIX_TABLE, IoatEngine
from devices.models.ioat_structures import RECOVERABLE, ChannelState, Descriptor
from tests.support.ports import PagingPort

RING, COMPLETION, SOURCE, DESTINATION = 0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000
CHANCTRL, CHANCMD, DMACOUNT, CHANSTS, CHAINADDR, CHANCMP, CDAR, CHANERR = (
    0x00, 0x04, 0x06, 0x08, 0x10, 0x18, 0x20, 0x28,
)  # fmt: skip
SUSPEND, RESUME, RESET = 4, 0x10, 0x20
RUN = 0x1D
"""Armed, completion on error, abort on any error, interrupt on error: as ``ioatdma`` sets it."""
ACTIVE, DONE, SUSPENDED, HALTED = ChannelState


class Host:
    """A driver of one channel: memory mapped one to one, an MSI-X vector for each channel."""

    def __init__(self, channels: int = 1, channel: int = 0, *, vectors: bool = True) -> None:
        self.device = IoatEngine(channels)
        self.port = PagingPort()
        self.ram = self.port.ram
        for page in range(0, 0x10_0000, 0x1000):
            self.port.map(page, page)
        self.device.connect(self.port)
        self.device.config.write(4, 2, 6)
        self.bar = self.device.bars[0]
        self.base = 0x80 * (channel + 1)
        if vectors:
            assert self.device.msix is not None
            for vector in range(channels):
                for offset, value in ((0, 0xFEE0_0000), (4, 0), (8, vector), (12, 0)):
                    self.bar.write(MSIX_TABLE + 16 * vector + offset, 4, value)
            self.device.msix.control.value = self.device.msix.control.value.replace(enable=1)
            self.bar.write(3, 1, 0x09)

    def get(self, register: int, size: int = 4) -> int:
        return self.bar.read(self.base + register, size)

    def set(self, register: int, value: int, size: int = 4) -> None:
        self.bar.write(self.base + register, size, value)

    @property
    def state(self) -> ChannelState:
        return ChannelState(self.get(CHANSTS, 8) & 7)

    def reset(self) -> None:
        """As both programs do: quiet, errors written back, RESET, and the state checked."""
        if self.state in (ACTIVE, DONE):
            self.set(CHANCMD, SUSPEND, 1)
            assert self.state not in (ACTIVE, DONE)
        self.set(CHANERR, self.get(CHANERR))
        self.device.config.write(ERRORS, 4, self.device.config.read(ERRORS, 4))
        self.set(CHANCMD, RESET, 1)
        assert self.get(CHANCMD, 1) == 0
        assert self.state is HALTED
        assert self.get(CHANERR) == 0

    def descriptor(self, number: int, **fields: int) -> int:
        """Put a descriptor into the ring, by default followed by the next one; its address."""
        address = RING + 64 * number
        values = {"size": 64, "source": SOURCE, "destination": DESTINATION, "next": address + 64}
        self.ram.write(address, Descriptor.of(**(values | fields)).pack())
        return address

    def start(self, control: int = RUN) -> None:
        """Control, completion address and chain, in the halves that a 32-bit driver writes."""
        self.set(CHANCTRL, control, 2)
        for register, value in ((CHANCMP, COMPLETION), (CHAINADDR, RING)):
            self.set(register, value & 0xFFFF_FFFF)
            self.set(register + 4, value >> 32)

    def run(self, count: int) -> None:
        """The doorbell, and all the time it takes."""
        self.set(DMACOUNT, count, 2)
        self.device.clock.advance(count * self.device.descriptor_nanoseconds)

    def completed(self) -> int:
        return int.from_bytes(self.ram.read(COMPLETION, 8), "little")


def test_the_self_test_of_linux_passes() -> None:
    """Null descriptor, then 2000 bytes with completion and interrupt; suspended and reset."""
    host = Host()
    assert host.bar.read(8, 1) >= 0x30
    assert host.bar.read(0, 1) & 0x1F == 1
    assert host.bar.read(1, 1) & 0x1F
    host.reset()
    host.start()
    null = host.descriptor(0, null=1, completion=1, interrupt=1, size=1, source=0, destination=0)
    host.run(1)
    assert host.state is DONE
    assert host.completed() == null | DONE
    host.set(CHANCTRL, RUN, 2)
    pattern = bytes(each & 0xFF for each in range(2000))
    host.ram.write(SOURCE, pattern)
    copy = host.descriptor(1, size=2000, completion=1, interrupt=1)
    host.run(2)
    assert host.completed() == copy | DONE
    assert host.ram.read(DESTINATION, 2000) == pattern
    assert host.port.messages == [(0xFEE0_0000, 0)] * 2
    assert host.get(CDAR, 8) == copy + 64
    host.set(CHANCMD, SUSPEND, 1)
    assert host.state is SUSPENDED
    host.reset()
    host.set(0x30, 0xFFFF_FFFF)


@given(
    st.lists(st.tuples(st.integers(1, 65535), st.booleans(), st.booleans()), max_size=4),
)
@settings(max_examples=10)
def test_a_descriptor_that_follows_itself_runs_as_often_as_the_self_test_of_vfio_counts(
    rounds: list[tuple[int, bool, bool]],
) -> None:
    """CHAINADDR anew in one write, an absolute count, no RESUME; one MSI for each send_msi."""
    host = Host()
    host.device.descriptor_nanoseconds = 1
    for count, interrupt, unmapped in rounds:
        times = 1 if interrupt else count % 300 + 1
        host.descriptor(0, next=RING, interrupt=interrupt, size=8, source=0xF_F000)
        messages = len(host.port.messages)
        if unmapped:
            del host.port.pages[0xF_F000, None]
        host.set(CHAINADDR, RING, 8)
        host.set(CHANCTRL, 0x0009, 2)
        host.run(times)
        if unmapped:
            assert host.state is HALTED
            assert host.get(CHANERR) == 0x100
            assert host.completed() == 0  # nothing at address 0, or anywhere
            host.port.map(0xF_F000, 0xF_F000)
            host.reset()
            continue
        assert host.state is DONE
        assert len(host.port.messages) == messages + interrupt
        host.set(CHANCMD, SUSPEND, 1)
        assert host.state is SUSPENDED


copies = st.tuples(
    st.integers(1, 0x1000),
    st.integers(SOURCE, DESTINATION + 0x3000),
    st.integers(SOURCE, DESTINATION + 0x3000),
    st.booleans(),
)


@given(st.lists(copies, min_size=1, max_size=8), st.integers(1, 8), st.data())
def test_a_chain_moves_what_its_copies_move_in_order(
    chain: list[tuple[int, int, int, bool]], stop: int, data: st.DataObject
) -> None:
    """Suspended in the middle at any point, then resumed, it is the same."""
    host = Host()
    host.ram.write(SOURCE, data.draw(st.binary(min_size=64, max_size=64)) * 0x500)
    model = bytearray(host.ram.read(0, 0x10_0000))
    host.start()
    for number, (size, source, destination, told) in enumerate(chain):
        host.descriptor(number, size=size, source=source, destination=destination, completion=told)
        model[destination : destination + size] = bytes(model[source : source + size])
    host.set(DMACOUNT, len(chain), 2)
    tick = host.device.descriptor_nanoseconds
    host.device.clock.advance(stop * tick)
    done = min(stop, len(chain))
    assert host.state is (DONE if done == len(chain) else ACTIVE)
    assert host.get(CHANSTS, 8) & ~7 == RING + 64 * (done - 1)
    host.set(CHANCMD, SUSPEND, 1)
    host.device.clock.advance(100 * tick)
    assert host.get(CHANSTS, 8) == RING + 64 * (done - 1) | SUSPENDED
    host.set(CHANCMD, RESUME, 1)
    host.device.clock.advance(100 * tick)
    assert host.state is DONE
    completing = [number for number, each in enumerate(chain) if each[3]]
    expected = 0
    if completing:
        state = DONE if completing[-1] == len(chain) - 1 else ACTIVE
        expected = RING + 64 * completing[-1] | state
    assert host.completed() == expected
    host.ram.write(COMPLETION, bytes(8))
    start = SOURCE
    assert host.ram.read(start, 0x6_0000) == model[start : start + 0x6_0000]


REFUSED = {
    "source": (SOURCE, "r", 0x100),
    "destination": (DESTINATION, "w", 0x200),
    "descriptor": (RING + 0x1000, "r", 0x004),
    "completion": (COMPLETION, "w", 0x1000),
}


@pytest.mark.parametrize(("page", "access", "error"), REFUSED.values(), ids=REFUSED)
def test_each_refusal_has_its_bit_and_only_data_is_announced(
    page: int, access: str, error: int
) -> None:
    """Linux stops for good (BUG) if a completion record tells of another error, or of none."""
    host = Host()
    host.start()
    good = host.descriptor(0, source=0x5_0000, destination=0x6_0000, completion=error != 0x1000)
    bad = RING + 0x1000 if error == 0x004 else RING + 64
    host.descriptor(0, source=0x5_0000, destination=0x6_0000, next=bad,
                    completion=error != 0x1000)  # fmt: skip
    host.descriptor((bad - RING) // 64, completion=1, interrupt=1)
    host.port.map(page, page, "rw".replace(access, ""))
    host.run(2)
    assert host.state is HALTED
    assert host.get(CHANERR) == error
    assert host.device.config.read(ERRORS, 4) == error
    assert host.get(CHANSTS, 8) & ~7 == (bad if error == 0x1000 else good)
    if error & RECOVERABLE:
        assert host.completed() == good | HALTED
        assert host.port.messages == [(0xFEE0_0000, 0)]
    else:
        assert host.completed() == (0 if error == 0x1000 else good | ACTIVE)
        assert host.port.messages == []
    host.port.map(page, page)
    host.reset()
    host.start()
    host.descriptor(0, completion=1)
    host.run(1)
    assert host.completed() == RING | DONE


def test_a_refusal_of_the_first_descriptor_names_none() -> None:
    host = Host()
    host.start()
    host.descriptor(0)
    del host.port.pages[SOURCE, None]
    host.run(1)
    assert host.completed() == HALTED


WRONG = {
    "no length": ({"size": 0}, 1 << 11),
    "too long": ({"size": 0x1001}, 1 << 11),
    "another operation": ({"opcode": 0x87}, 1 << 10),
    "source beyond 2^64": ({"source": (1 << 64) - 8}, 1 << 0),
    "destination beyond 2^64": ({"destination": (1 << 64) - 8}, 1 << 1),
}


@pytest.mark.parametrize(("fields", "error"), WRONG.values(), ids=WRONG)
def test_a_wrong_descriptor_halts_quietly(fields: dict[str, int], error: int) -> None:
    host = Host()
    host.start()
    host.descriptor(0, completion=1, interrupt=1, **fields)
    host.run(1)
    assert (host.state, host.get(CHANERR)) == (HALTED, error)
    assert (host.completed(), host.port.messages) == (0, [])


def test_a_chain_that_is_not_aligned_or_written_while_active_halts() -> None:
    host = Host()
    host.start()
    host.set(CHAINADDR, RING + 8, 8)
    host.run(1)
    assert (host.state, host.get(CHANERR)) == (HALTED, 1 << 3)
    host.reset()
    host.start()
    host.set(DMACOUNT, 2, 2)
    host.set(CHAINADDR, RING, 8)
    assert (host.state, host.get(CHANERR)) == (HALTED, 1 << 4)


def test_a_count_that_is_reached_starts_nothing() -> None:
    host = Host()
    host.start()
    host.run(0)
    assert host.state is DONE
    host.set(CHANCMD, SUSPEND, 1)
    host.set(CHANCMD, RESUME, 1)
    assert host.state is DONE
    host.reset()
    host.set(CHANCMD, SUSPEND, 1)
    assert host.state is HALTED


def test_an_interrupt_comes_once_until_it_is_armed_again() -> None:
    host = Host()
    host.start()
    for number in range(3):
        host.descriptor(number, interrupt=1)
    host.run(3)
    assert len(host.port.messages) == 1
    host.set(CHANCTRL, RUN, 2)
    assert len(host.port.messages) == 2  # what became due meanwhile
    host.set(CHANCTRL, RUN, 2)
    assert len(host.port.messages) == 2
    assert host.get(CHANCTRL, 2) == RUN & ~1


@pytest.mark.parametrize("channel", range(4))
def test_each_channel_has_its_registers_and_its_vector(channel: int) -> None:
    host = Host(4, channel)
    host.start()
    host.descriptor(0, interrupt=1)
    host.run(1)
    assert host.port.messages == [(0xFEE0_0000, channel)]
    states = [host.bar.read(0x80 * (n + 1) + CHANSTS, 8) & 7 for n in range(4)]
    assert states == [DONE if n == channel else HALTED for n in range(4)]


def test_without_vectors_all_channels_share_the_pin() -> None:
    """INTRCTRL says that one wants it, ATTNSTATUS which; reading that takes the pin back."""
    host = Host(2, 1, vectors=False)
    host.start()
    host.descriptor(0, interrupt=1)
    host.run(1)
    assert (host.bar.read(3, 1), host.device.intx) == (0b10, False)
    host.bar.write(3, 1, 1)
    assert (host.bar.read(3, 1), host.device.intx) == (0b111, True)
    assert host.bar.read(4, 4) == 0b10
    assert (host.bar.read(3, 1), host.bar.read(4, 4), host.device.intx) == (1, 0, False)


def test_without_vectors_a_message_may_be_shared() -> None:
    host = Host(vectors=False)
    host.device.single.control.value = host.device.single.control.value.replace(enable=1)
    address = host.device.single.address.offset
    host.device.config.write(address, 4, 0xFEE0_1000)
    host.bar.write(3, 1, 1)
    host.start()
    host.descriptor(0, interrupt=1)
    host.run(1)
    assert host.port.messages == [(0xFEE0_1000, 0)]
    assert not host.device.intx


def test_a_reset_of_the_function_ends_everything() -> None:
    host = Host()
    host.start()
    host.descriptor(0)
    host.set(DMACOUNT, 1, 2)
    host.device.reset()
    host.device.config.write(4, 2, 6)
    host.device.clock.advance(1_000_000)
    assert host.ram.read(DESTINATION, 64) == bytes(64)
    assert host.state is HALTED


def test_impossible_engines_are_refused() -> None:
    for arguments in ({"channels": 0}, {"channels": 5}, {"transfer_log2": 21}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            IoatEngine(**arguments)


words = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 0x10_0000),
    st.sampled_from([RING, SOURCE, DESTINATION, COMPLETION, 0, 1, 0x20, 0x1D, 0xFEE0_0000]),
)


@given(
    st.lists(st.tuples(st.integers(0, 0x108), words, st.sampled_from([1, 2, 4, 8])), max_size=12),
    st.lists(st.tuples(st.integers(0, 127), words), max_size=40),
    st.integers(0, 40_000),
)
@settings(max_examples=40)
def test_whatever_is_written_nothing_raises_and_no_dma_gets_past_the_port(
    writes: list[tuple[int, int, int]], memory: list[tuple[int, int]], nanoseconds: int
) -> None:
    """Registers and descriptors at random: memory that nothing maps keeps its bytes."""
    host = Host()
    unmapped = bytes(range(256)) * 256
    host.ram.write(0, unmapped)
    for page in range(0, 0x1_0000, 0x1000):
        del host.port.pages[page, None]
    for quadword, value in memory:
        host.ram.write(RING + 8 * quadword, value.to_bytes(8, "little"))
    for register, value, size in ((CHAINADDR, RING, 8), (CHANCTRL, RUN, 2), (DMACOUNT, 9, 2)):
        host.set(register, value, size)
    for offset, value, size in writes:
        host.bar.write(offset & -size, size, value & (1 << 8 * size) - 1)
        host.device.clock.advance(nanoseconds // 8)
    host.device.clock.advance(nanoseconds)
    assert host.state in ChannelState
    assert host.ram.read(0, len(unmapped)) == unmapped


@pytest.mark.parametrize("command", [SUSPEND, RESET])
def test_who_is_interrupted_may_stop_the_channel_at_once(command: int) -> None:
    """Nothing is executed after the command, although more descriptors are ready."""
    host = Host()
    msix = host.device.msix
    assert msix is not None
    msix.host = lambda vector: host.set(CHANCMD, command, 1)
    host.start()
    host.descriptor(0)
    host.descriptor(1, interrupt=1)
    host.descriptor(2, destination=0x6_0000)
    host.ram.write(SOURCE, b"x" * 64)
    host.run(3)
    assert host.state is (SUSPENDED if command == SUSPEND else HALTED)
    assert host.ram.read(DESTINATION, 64) == b"x" * 64
    assert host.ram.read(0x6_0000, 64) == bytes(64)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([SOURCE, SOURCE + 0x1800, DESTINATION, 0x9_0000]),
            st.sampled_from([SOURCE + 0x2000, DESTINATION, DESTINATION + 0x1800, 0x9_0000]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.sampled_from([SOURCE, SOURCE + 0x2000, DESTINATION, DESTINATION + 0x2000])),
    st.sampled_from([RUN, 0x0009, 0x0005]),
)
def test_linux_never_meets_a_completion_that_it_stops_for(
    chain: list[tuple[int, int, bool]], refused: set[int], control: int
) -> None:
    """A halt that a record tells of is one of read or write data, and names a descriptor done."""
    host = Host()
    for page in refused:
        del host.port.pages[page, None]
    host.start(control)
    for number, (source, destination, told) in enumerate(chain):
        host.descriptor(
            number, size=0x1000, source=source, destination=destination, completion=told
        )
    host.run(len(chain))
    completed, errors = host.completed(), host.get(CHANERR)
    executed = host.get(CHANSTS, 8) & ~7
    assert executed in {0, *(RING + 64 * number for number in range(len(chain)))}
    if completed & 7 == HALTED:
        assert errors in (0x100, 0x200)
        assert completed & ~7 == executed
        assert control & 4
    assert (host.state is HALTED) == bool(errors)
