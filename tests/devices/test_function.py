"""PciFunction: BAR sizing, decoding, the bus master gate, reset and the interrupt pin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.capabilities import DeviceCapabilities, PortType
from devices.dma import AtomicOp
from devices.function import BarError, Identity, PciFunction
from tests.support.ports import RecordingPort

IDENTITY = Identity(
    0x1234,
    0x5678,
    0x00FF00,
    revision=3,
    subsystem_vendor_id=0x1AF4,
    subsystem_id=0x1100,
    interrupt_pin=1,
)


class Scratch:
    """A region that remembers the last write."""

    def __init__(self) -> None:
        self.last: tuple[int, int, int] | None = None

    def read(self, offset: int, size: int) -> int:
        return offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.last = (offset, value, size)


@pytest.fixture
def function() -> PciFunction:
    return PciFunction(IDENTITY)


@pytest.fixture
def port() -> RecordingPort:
    return RecordingPort()


def test_header_reads_as_declared(function: PciFunction) -> None:
    read = function.config.read
    assert (read(0, 4), read(8, 4), read(0x2C, 4), read(0x3D, 1), read(0xE, 1)) == (
        0x56781234,
        0x00FF0003,
        0x11001AF4,
        1,
        0,
    )


@given(st.integers(4, 31), st.booleans())
def test_all_ones_written_to_a_bar_reads_its_size(order: int, prefetchable: bool) -> None:
    function = PciFunction(IDENTITY)
    function.add_bar(1, 1 << order, prefetchable=prefetchable)
    function.config.write(0x14, 4, 0xFFFF_FFFF)
    value = function.config.read(0x14, 4)
    assert value & 0xF == prefetchable << 3
    assert (~(value & ~0xF) + 1) & 0xFFFF_FFFF == 1 << order


@given(st.integers(4, 63))
def test_a_wide_bar_is_sized_over_two_registers(order: int) -> None:
    function = PciFunction(IDENTITY)
    function.add_bar(2, 1 << order, wide=True)
    for offset in (0x18, 0x1C):
        function.config.write(offset, 4, 0xFFFF_FFFF)
    value = function.config.read(0x18, 4) | function.config.read(0x1C, 4) << 32
    assert value & 0xF == 0x4
    assert (~(value & ~0xF) + 1) & (1 << 64) - 1 == 1 << order


@pytest.mark.parametrize(
    ("index", "size", "wide"),
    [(0, 8, False), (0, 48, False), (0, 1 << 32, False), (6, 16, False), (5, 16, True)],
)
def test_impossible_bars_are_refused(index: int, size: int, wide: bool) -> None:
    with pytest.raises(BarError):
        PciFunction(IDENTITY).add_bar(index, size, wide=wide)


def test_a_bar_is_claimed_only_while_memory_space_is_enabled(function: PciFunction) -> None:
    bar = function.add_bar(0, 0x1000)
    function.config.write(0x10, 4, 0xE000_0000)
    assert function.bar_at(0xE000_0010) is None
    function.config.write(4, 2, 2)
    assert function.bar_at(0xE000_0010) == (bar, 0x10)
    assert function.bar_at(0xE000_1000) is None


def test_regions_of_a_bar_see_their_own_offsets(function: PciFunction) -> None:
    bar = function.add_bar(0, 0x1000)
    scratch = Scratch()
    bar.place(0x100, 0x10, scratch)
    assert bar.read(0x104, 4) == 4
    bar.write(0x108, 4, 0x1_0000_0001)
    assert scratch.last == (8, 1, 4)
    bar.write(0x10E, 4, 0)
    assert scratch.last == (8, 1, 4)
    assert bar.read(0x200, 4) == 0xFFFF_FFFF
    with pytest.raises(BarError):
        bar.place(0xFF8, 0x10, scratch)


def test_no_request_leaves_without_bus_master_enable(
    function: PciFunction, port: RecordingPort
) -> None:
    function.connect(port)
    port.ram.write(0x1000, b"\1\2\3\4")
    function.add_msi()
    function.config.write(0x42, 2, 1)

    assert not function.dma.read(0x1000, 4).ok
    assert not function.dma.write(0x1000, b"\0").ok
    assert not function.dma.atomic(AtomicOp.SWAP, 0x1000, bytes(4)).ok
    function.send_message(0xFEE0_0000, 1)
    assert port.messages == []

    function.config.write(4, 2, 4)
    assert function.dma.read(0x1000, 4).data == b"\1\2\3\4"
    assert function.dma.write(0x1000, b"\0").ok
    assert function.dma.atomic(AtomicOp.SWAP, 0x1000, bytes(4)).data == b"\0\2\3\4"
    function.send_message(0xFEE0_0000, 1)
    assert port.messages == [(0xFEE0_0000, 1)]


def test_an_unconnected_function_reaches_nothing(function: PciFunction) -> None:
    function.config.write(4, 2, 4)
    assert not function.dma.read(0, 4).ok
    assert not function.dma.write(0, b"\0").ok
    assert not function.dma.atomic(AtomicOp.SWAP, 0, bytes(4)).ok


def test_function_level_reset_clears_everything_but_the_connection(
    function: PciFunction, port: RecordingPort
) -> None:
    function.connect(port)
    pcie = function.add_pci_express()
    function.add_bar(0, 0x1000)
    msix = function.add_msix(4, table=(0, 0), pending=(0, 0x800))
    function.config.write(4, 2, 6)
    function.config.write(0x10, 4, 0xE000_0000)
    msix.pending = 1
    function.config.write(pcie.control.offset, 2, 0x8000)
    assert function.config.read(4, 2) == 0
    assert function.bars[0].address == 0
    assert msix.pending == 0
    assert not pcie.control.value.initiate_flr
    assert function.port is port


def test_flr_needs_the_capability(function: PciFunction) -> None:
    pcie = function.add_pci_express(PortType.ENDPOINT, DeviceCapabilities())
    function.config.write(4, 2, 6)
    function.config.write(pcie.control.offset, 2, 0x8000)
    assert function.config.read(4, 2) == 6
    assert pcie.control.value == 0


def test_msix_structures_need_their_bar(function: PciFunction) -> None:
    with pytest.raises(BarError, match="BAR3"):
        function.add_msix(4, table=(3, 0), pending=(3, 0x800))


def test_the_pin_follows_the_device_unless_disabled(function: PciFunction) -> None:
    changes: list[bool] = []
    function.on_intx = changes.append
    function.set_intx(True)
    function.set_intx(True)
    assert function.config.read(6, 2) & 8
    function.config.write(4, 2, 0x400)
    function.config.write(4, 2, 0)
    function.set_intx(False)
    assert changes == [True, False, True, False]
