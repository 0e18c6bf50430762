"""Asynchronous events, log pages, features, and the interrupt pin."""

from __future__ import annotations

import pytest

from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import Admin, Io, Status
from tests.devices.models.nvme.driver import DATA, ENTRIES, Host

INTMS, INTMC = 0x0C, 0x10


def event(host: Host) -> tuple[int, int, int] | None:
    """Type, information and log page of an event that is told now."""
    entry = host.reap(0)
    if entry is None:
        return None
    return entry.result & 7, entry.result >> 8 & 0xFF, entry.result >> 16 & 0xFF


def log(host: Host, page: int, length: int = 512, *, retain: bool = False) -> bytes:
    words = length // 4 - 1
    assert host.admin(
        Admin.GET_LOG_PAGE, prp1=DATA, cdw10=words << 16 | retain << 15 | page
    ) == 0  # fmt: skip
    return host.ram.read(DATA, length)


def test_a_wrong_doorbell_is_an_error_event_told_once_until_the_log_is_read() -> None:
    host = Host()
    host.submit(0, Admin.ASYNC_EVENT)
    host.device.bars[0].write(0x1010, 4, 1)  # there is no queue 2
    assert event(host) == (0, 0, 1)
    host.submit(0, Admin.ASYNC_EVENT)
    host.device.bars[0].write(0x1000, 4, ENTRIES)
    assert event(host) is None
    log(host, 1)
    host.device.bars[0].write(0x1000, 4, ENTRIES)
    assert event(host) == (0, 1, 1)


def test_an_event_waits_for_a_request() -> None:
    host = Host()
    host.device.bars[0].write(0x1010, 4, 1)
    host.submit(0, Admin.ASYNC_EVENT)
    assert event(host) == (0, 0, 1)


def test_more_requests_than_there_may_be_are_refused() -> None:
    host = Host()
    for _ in range(4):
        host.submit(0, Admin.ASYNC_EVENT)
        assert host.reap(0) is None
    assert host.admin(Admin.ASYNC_EVENT) == Status.TOO_MANY_EVENT_REQUESTS


def test_a_namespace_that_changes_is_a_notice_if_the_host_wants_those() -> None:
    device = Nvme(blocks=64, namespaces=2)
    host = Host(device)
    host.submit(0, Admin.ASYNC_EVENT)
    device.subsystem.resize(2, 128)
    assert event(host) is None
    assert host.admin(Admin.SET_FEATURES, cdw10=0x0B, cdw11=1 << 8) == 0
    device.subsystem.resize(2, 32)
    assert event(host) == (2, 0, 4)
    assert log(host, 4, retain=True)[:8] == b"\2\0\0\0\0\0\0\0"
    assert log(host, 4)[:8] == b"\2\0\0\0\0\0\0\0"
    assert log(host, 4)[:8] == bytes(8)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=0, nsid=2) == 0
    assert host.ram.read(DATA, 8) == (32).to_bytes(8, "little")


def test_a_temperature_beyond_its_threshold_is_a_health_event() -> None:
    host = Host()
    host.submit(0, Admin.ASYNC_EVENT)
    assert host.admin(Admin.SET_FEATURES, cdw10=4, cdw11=0x150) == 0
    assert event(host) is None
    host.submit(0, Admin.SET_FEATURES, cdw10=4, cdw11=0x100)
    assert event(host) == (1, 1, 2)
    assert host.reap(0) is not None
    assert log(host, 2)[0] == 2


def test_log_pages_tell_what_happened() -> None:
    host = Host()
    host.create_io_queues()
    assert host.io(Io.READ, 0, 4) == 0
    assert host.io(Io.WRITE, 0, 4) == 0
    assert host.io(Io.READ, 5000, 1) == Status.LBA_OUT_OF_RANGE
    health = log(host, 2)
    assert health[1:3] == b"\x33\1"
    assert [health[at] for at in (64, 80, 176)] == [1, 1, 1]
    errors = log(host, 1, 64)
    assert (errors[0], errors[8], int.from_bytes(errors[12:14], "little") >> 1) == (1, 1, 0x80)
    assert log(host, 3)[0] == 1
    effects = log(host, 5, 4096)
    assert [effects[4 * 0x06], effects[1024 + 4], effects[1024 + 8]] == [1, 3, 1]
    assert effects[1024 + 4 * 0x7F] == 0
    assert host.admin(Admin.GET_LOG_PAGE, prp1=DATA, cdw10=0x77) == Status.BAD_LOG_PAGE
    beyond = {"cdw10": 2, "cdw12": 516}
    assert host.admin(Admin.GET_LOG_PAGE, prp1=DATA, **beyond) == Status.BAD_FIELD
    assert host.admin(Admin.GET_LOG_PAGE, prp1=DATA, cdw10=2, cdw12=176) == 0
    assert host.ram.read(DATA, 1) == b"\3"  # the two refused just now are counted too


def test_features_are_kept_have_defaults_and_end_with_the_controller() -> None:
    host = Host()
    assert host.result(Admin.GET_FEATURES, cdw10=0x01) == 0
    assert host.admin(Admin.SET_FEATURES, cdw10=0x01, cdw11=7) == 0
    assert host.result(Admin.GET_FEATURES, cdw10=0x01) == 7
    assert host.result(Admin.GET_FEATURES, cdw10=0x101) == 0
    assert host.result(Admin.GET_FEATURES, cdw10=0x301) == 1 << 2
    saved = Admin.SET_FEATURES, {"cdw10": 1 << 31 | 1}
    assert host.admin(saved[0], **saved[1]) == Status.NOT_SAVEABLE
    assert host.admin(Admin.SET_FEATURES, cdw10=0x7F) == Status.BAD_FIELD
    host.device.bars[0].write(0x14, 4, 0)
    again = Host(host.device, port=host.port)
    assert again.result(Admin.GET_FEATURES, cdw10=0x01) == 0


@pytest.mark.parametrize("masked", [False, True])
def test_the_pin_is_asserted_while_completions_are_to_be_taken(masked: bool) -> None:
    host = Host()
    host.create_io_queues(vector=0)
    bar = host.device.bars[0]
    if masked:
        bar.write(INTMS, 4, 1)
        assert (bar.read(INTMS, 4), bar.read(INTMC, 4)) == (1, 1)
    host.submit(1, Io.FLUSH, nsid=1)
    assert host.device.intx is not masked
    if masked:
        bar.write(INTMC, 4, 1)
        assert host.device.intx
    at = host.device.config.find_capability(0x11)
    assert at is not None
    for enabled in (0x8000, 0):
        host.device.config.write(at + 2, 2, enabled)
        assert host.device.intx is not bool(enabled)
    assert host.reap(1) is not None
    assert not host.device.intx


def test_a_full_admin_queue_holds_events_back() -> None:
    host = Host()
    host.submit(0, Admin.ASYNC_EVENT)
    for _ in range(ENTRIES - 2):
        host.submit(0, Admin.ABORT)
    host.submit(0, Admin.ABORT)
    host.device.bars[0].write(0x1010, 4, 1)
    results = []
    while (entry := host.reap(0)) is not None:
        results.append(entry.result)
    assert len(results) == ENTRIES
    assert 0x1_0000 in results
