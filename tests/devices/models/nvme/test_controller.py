"""The NVMe controller, driven as a host drives it, and refused at each of its DMA streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.models.nvme.controller import CAPABILITIES
from devices.models.nvme.function import MSIX_TABLE, Nvme
from devices.models.nvme.identify import VERSION, namespace_page
from devices.models.nvme.structures import (
    Admin,
    Io,
    Status,
)
from tests.devices.models.nvme.driver import DATA, ENABLE, ENTRIES, IO_CQ, IO_SQ, LIST, Host


@pytest.fixture
def host() -> Host:
    host = Host()
    host.create_io_queues()
    return host


def test_registers_read_as_declared() -> None:
    host = Host(start=False)
    bar = host.device.bars[0]
    assert bar.read(0, 8) == CAPABILITIES
    assert bar.read(4, 4) == CAPABILITIES >> 32
    assert bar.read(8, 4) == VERSION
    bar.write(0x28, 8, 0x1_2345_6789)
    assert bar.read(0x28, 8) == 0x1_2345_6000
    bar.write(0x24, 4, 0xFFFF_FFFF)
    assert bar.read(0x24, 4) == 0x0FFF_0FFF
    for offset, size in ((2, 4), (0, 2), (0x200, 4)):
        bar.write(offset, size, 0xFFFF)
        assert bar.read(offset, size) == 0


def test_identify_describes_controller_and_namespace(host: Host) -> None:
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=1) == 0
    page = host.ram.read(DATA, 4096)
    assert (page[0:2], page[512:514], page[516]) == (b"\x36\x1b", b"\x66\x44", 1)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=0, nsid=1) == 0
    assert host.ram.read(DATA, 4096) == namespace_page(2048)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=2, nsid=0) == 0
    assert host.ram.read(DATA, 8) == b"\1" + bytes(7)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=2, nsid=1) == 0
    assert host.ram.read(DATA, 8) == bytes(8)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=3, nsid=1) == 0
    assert host.ram.read(DATA, 2) == b"\1\x08"


def test_the_number_of_queues_is_granted_before_there_are_any() -> None:
    host = Host()
    assert host.result(Admin.SET_FEATURES, cdw10=7, cdw11=0x00FF_00FF) == 0x0003_0003
    assert host.result(Admin.GET_FEATURES, cdw10=7) == 0x0003_0003
    assert host.admin(Admin.SET_FEATURES, cdw10=7, cdw11=0xFFFF) == Status.BAD_FIELD
    host.create_io_queues()
    assert host.admin(Admin.SET_FEATURES, cdw10=7, cdw11=0) == Status.COMMAND_SEQUENCE


@given(
    block=st.integers(0, 1900),
    blocks=st.integers(1, 60),
    offset=st.integers(0, 1023).map(lambda word: 4 * word),
)
def test_what_was_written_is_read_back_through_any_prps(
    block: int, blocks: int, offset: int
) -> None:
    host = Host()
    host.create_io_queues()
    length = blocks * 512
    data = bytes(index * 7 & 0xFF for index in range(length))
    host.ram.write(DATA + offset, data)
    pages = [*range(DATA + 0x1000, DATA + offset + length, 0x1000)]
    for at, page in enumerate(pages):
        host.ram.write(LIST + 8 * at, page.to_bytes(8, "little"))
    prp2 = pages[0] if len(pages) == 1 else LIST if pages else 0
    assert host.io(Io.WRITE, block, blocks, DATA + offset, prp2) == 0
    assert host.storage[block * 512 : block * 512 + length] == data
    host.ram.write(DATA, bytes(offset + length))
    assert host.io(Io.READ, block, blocks, DATA + offset, prp2) == 0
    assert host.ram.read(DATA + offset, length) == data
    assert host.io(Io.COMPARE, block, blocks, DATA + offset, prp2) == 0


def test_the_last_slot_of_a_list_page_leads_to_the_next(host: Host) -> None:
    pages = [DATA + 0x1000 * number for number in range(1, 5)]
    start = LIST + 0x1000 - 16
    host.ram.write(start, pages[0].to_bytes(8, "little") + (0x7000).to_bytes(8, "little"))
    host.ram.write(0x7000, b"".join(page.to_bytes(8, "little") for page in pages[1:]))
    host.ram.write(DATA, bytes(range(256)) * 80)
    assert host.io(Io.WRITE, 0, 40, DATA, start) == 0
    assert host.storage[: 40 * 512] == bytes(range(256)) * 80


@pytest.mark.parametrize(
    ("prp1", "prp2", "blocks"),
    [
        (DATA + 2, 0, 1),
        (DATA, DATA + 8, 16),
        (DATA, LIST + 4, 40),
        (DATA, LIST + 0x1000 - 8, 40),
        (DATA, LIST, 40),
    ],
)
def test_misplaced_prps_are_reported(host: Host, prp1: int, prp2: int, blocks: int) -> None:
    host.ram.write(LIST, (DATA + 8).to_bytes(8, "little"))
    host.ram.write(LIST + 0x1000 - 8, (LIST + 0x1000 - 8).to_bytes(8, "little"))
    assert host.io(Io.READ, 0, blocks, prp1, prp2) == Status.BAD_PRP_OFFSET


def test_queues_wrap_and_the_phase_flips(host: Host) -> None:
    for _ in range(3 * ENTRIES):
        assert host.io(Io.FLUSH, 0, 1) == 0
    assert host.reap(1) is None


def test_a_full_completion_queue_holds_commands_back(host: Host) -> None:
    for _ in range(ENTRIES - 1):
        host.submit(1, Io.FLUSH, nsid=1)
    host.submit(1, Io.FLUSH, nsid=1)
    taken = [host.reap(1) for _ in range(ENTRIES)]
    assert [entry.cid for entry in taken if entry is not None] == list(range(ENTRIES))


def test_completions_interrupt_through_msix(host: Host) -> None:
    at = host.device.config.find_capability(0x11)
    assert at is not None
    host.device.config.write(at + 2, 2, 0x8000)
    for vector in (0, 1):
        for offset, value in ((0, 0xFEE0_0000), (8, 0x40 + vector), (12, 0)):
            host.device.bars[0].write(MSIX_TABLE + 16 * vector + offset, 4, value)
    host.admin(Admin.ABORT)
    host.io(Io.FLUSH, 0, 1)
    assert host.port.messages == [(0xFEE0_0000, 0x40), (0xFEE0_0000, 0x41)]


def test_write_zeroes_needs_no_data(host: Host) -> None:
    host.storage[:1024] = b"\xff" * 1024
    assert host.io(Io.WRITE_ZEROES, 1, 1, prp1=1) == 0
    assert host.storage[:1024] == b"\xff" * 512 + bytes(512)
    assert host.io(Io.COMPARE, 0, 1) == Status.COMPARE_FAILURE


@pytest.mark.parametrize(
    ("opcode", "fields", "status"),
    [
        (0x7F, {}, Status.BAD_OPCODE),
        (Admin.IDENTIFY, {"cdw10": 9}, Status.BAD_FIELD),
        (Admin.IDENTIFY, {"cdw10": 0, "nsid": 2}, Status.BAD_NAMESPACE),
        (Admin.IDENTIFY, {"cdw10": 1, "psdt": 1}, Status.BAD_FIELD),
        (Admin.GET_FEATURES, {"cdw10": 0x7F}, Status.BAD_FIELD),
        (Admin.GET_LOG_PAGE, {"cdw10": 0xFFFF_0002, "cdw11": 0xFFFF}, Status.BAD_FIELD),
        (Admin.GET_LOG_PAGE, {"cdw10": 0x007F_0002, "prp1": DATA}, Status.SUCCESS),
        (Admin.CREATE_CQ, {"cdw10": 7 << 16 | 1, "cdw11": 1}, Status.QID_INVALID),
        (Admin.CREATE_CQ, {"cdw10": 7 << 16 | 9, "cdw11": 1}, Status.QID_INVALID),
        (Admin.CREATE_CQ, {"cdw10": 2, "cdw11": 1}, Status.QUEUE_SIZE),
        (Admin.CREATE_CQ, {"cdw10": 0x800 << 16 | 2, "cdw11": 1}, Status.QUEUE_SIZE),
        (Admin.CREATE_CQ, {"cdw10": 7 << 16 | 2, "cdw11": 0}, Status.BAD_FIELD),
        (Admin.CREATE_CQ, {"cdw10": 7 << 16 | 2, "cdw11": 1, "prp1": 8}, Status.BAD_PRP_OFFSET),
        (Admin.CREATE_CQ, {"cdw10": 7 << 16 | 2, "cdw11": 9 << 16 | 3}, Status.BAD_VECTOR),
        (Admin.CREATE_SQ, {"cdw10": 7 << 16 | 2, "cdw11": 1}, Status.CQ_INVALID),
        (Admin.CREATE_SQ, {"cdw10": 7 << 16 | 2, "cdw11": 3 << 16 | 1}, Status.CQ_INVALID),
        (Admin.DELETE_CQ, {"cdw10": 1}, Status.BAD_QUEUE_DELETION),
        (Admin.DELETE_CQ, {"cdw10": 2}, Status.QID_INVALID),
        (Admin.DELETE_SQ, {"cdw10": 0}, Status.QID_INVALID),
    ],
)
def test_admin_commands_are_checked(
    host: Host, opcode: int, fields: dict[str, int], status: Status
) -> None:
    assert host.admin(opcode, **fields) == status


def test_queues_are_deleted_in_order(host: Host) -> None:
    assert host.admin(Admin.DELETE_SQ, cdw10=1) == 0
    assert host.admin(Admin.DELETE_CQ, cdw10=1) == 0
    host.device.bars[0].write(0x1008, 4, 1)
    host.device.bars[0].write(0x100C, 4, 1)
    assert host.reap(1) is None


def test_io_commands_are_checked(host: Host) -> None:
    assert host.io(Io.READ, 2048, 1) == Status.LBA_OUT_OF_RANGE
    assert host.io(Io.READ, 0, 1025) == Status.BAD_FIELD
    assert host.io(0x7F, 0, 1) == Status.BAD_OPCODE
    host.submit(1, Io.READ, nsid=2)
    entry = host.reap(1)
    assert entry is not None
    assert (entry.status, entry.dnr) == (Status.BAD_NAMESPACE, 1)


@pytest.mark.parametrize(("page", "blocks"), [(DATA, 1), (DATA + 0x1000, 16), (LIST, 40)])
@pytest.mark.parametrize("opcode", [Io.READ, Io.WRITE])
def test_refused_data_or_list_is_a_transfer_error(
    host: Host, page: int, blocks: int, opcode: int
) -> None:
    del host.port.pages[page, None]
    prp2 = LIST if blocks > 16 else DATA + 0x1000
    assert host.io(opcode, 0, blocks, DATA, prp2) == Status.DATA_TRANSFER_ERROR
    assert not host.fatal


@pytest.mark.parametrize("page", [IO_SQ, IO_CQ])
def test_refused_queue_memory_stops_the_controller(host: Host, page: int) -> None:
    del host.port.pages[page, None]
    host.submit(1, Io.FLUSH, nsid=1)
    assert host.fatal
    host.port.map(page, page)
    host.submit(1, Io.FLUSH, nsid=1)
    assert host.reap(1) is None


def test_disabling_resets_the_controller(host: Host) -> None:
    bar = host.device.bars[0]
    bar.write(0x14, 4, ENABLE | 1 << 14)
    assert bar.read(0x1C, 4) == 1 | 2 << 2
    bar.write(0x14, 4, 0)
    assert bar.read(0x1C, 4) == 0
    bar.write(0x14, 4, 0)
    host.submit(1, Io.FLUSH, nsid=1)
    assert host.reap(1) is None


@pytest.mark.parametrize(("queues", "mps"), [(0, 0), (0x0007_0007, 5)])
def test_an_impossible_configuration_is_fatal(queues: int, mps: int) -> None:
    host = Host(start=False)
    host.device.bars[0].write(0x24, 4, queues)
    host.device.bars[0].write(0x14, 4, ENABLE | mps << 7)
    assert host.device.bars[0].read(0x1C, 4) == 2


def test_an_async_event_request_stays_outstanding(host: Host) -> None:
    host.submit(0, Admin.ASYNC_EVENT)
    assert host.reap(0) is None
    assert host.admin(Admin.ABORT) == 0


def test_doorbells_outside_their_queue_are_ignored(host: Host) -> None:
    for offset in (0x1008, 0x100C, 0x1FF8):
        host.device.bars[0].write(offset, 4, ENTRIES)
    assert host.io(Io.FLUSH, 0, 1) == 0


def test_reset_forgets_everything_but_the_data(host: Host) -> None:
    host.storage[0] = 1
    host.device.reset()
    assert host.device.bars[0].read(0x28, 8) == 0
    assert host.storage[0] == 1


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="blocks"):
        Nvme(blocks=0)
    with pytest.raises(ValueError, match="queue_pairs"):
        Nvme(queue_pairs=65)
