"""Virtual functions: their controllers work with what virtualization management gave them."""

from __future__ import annotations

import pickle

import pytest

from devices.models.nvme.function import Nvme
from devices.models.nvme.structures import Admin, Io, Status
from tests.devices.models.nvme.driver import DATA, ENABLE, Host

OFFLINE, ASSIGN, ONLINE = 7, 8, 9
QUEUES, VECTORS = 0, 1


def device_with_functions(count: int = 3) -> tuple[Nvme, Host]:
    device = Nvme(blocks=64, vfs=count)
    host = Host(device)
    assert device.sriov is not None
    device.config.write(device.sriov.count.offset, 2, count)
    device.config.write(device.sriov.control.offset, 2, 9)
    return device, host


def manage(host: Host, action: int, controller: int, resource: int = 0, count: int = 0) -> int:
    """The status of a virtualization management command."""
    return host.admin(
        Admin.VIRTUALIZATION, cdw10=controller << 16 | resource << 8 | action, cdw11=count
    )


def bring_up(host: Host, controller: int) -> None:
    for resource in (QUEUES, VECTORS):
        assert manage(host, ASSIGN, controller, resource, 3) == 0
    assert manage(host, ONLINE, controller) == 0


def test_a_function_works_once_it_was_given_queues_and_switched_on() -> None:
    device, host = device_with_functions()
    assert device.sriov is not None
    function = device.sriov.functions[0]
    early = Host(function, start=False)
    early.device.bars[0].write(0x24, 4, 0x0007_0007)
    early.device.bars[0].write(0x14, 4, ENABLE)
    assert early.fatal  # it is offline
    bring_up(host, 1)
    early.device.bars[0].write(0x14, 4, 0)
    guest = Host(function)
    assert guest.port is not host.port
    assert guest.result(Admin.SET_FEATURES, cdw10=7, cdw11=0x0007_0007) == 0x0001_0001
    guest.create_io_queues()
    guest.ram.write(DATA, b"v" * 512)
    assert guest.io(Io.WRITE, 2, 1) == 0
    assert host.storage[1024:1536] == b"v" * 512  # they share the namespace
    assert guest.admin(Admin.VIRTUALIZATION, cdw10=1 << 16 | ONLINE) == Status.BAD_OPCODE
    assert guest.admin(Admin.IDENTIFY, prp1=DATA, cdw10=1) == 0
    page = guest.ram.read(DATA, 4096)
    assert (page[76] & 0b110, int.from_bytes(page[78:80], "little")) == (0b110, 1)


def test_controllers_are_listed_with_what_they_have() -> None:
    _, host = device_with_functions()
    bring_up(host, 2)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=0x15) == 0
    page = host.ram.read(DATA, 4096)
    assert page[0] == 3
    second = page[64:96]
    assert (second[0], second[4], second[8], second[10], second[12]) == (2, 1, 2, 3, 3)
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=0x14) == 0
    page = host.ram.read(DATA, 4096)
    assert [int.from_bytes(page[at : at + 4], "little") for at in (32, 36, 64, 68)] == [
        12,
        3,
        12,
        3,
    ]
    assert host.admin(Admin.IDENTIFY, prp1=DATA, cdw10=0x13) == 0
    assert host.ram.read(DATA, 10) == b"\4\0\0\0\1\0\2\0\3\0"


@pytest.mark.parametrize(
    ("action", "controller", "resource", "count", "status"),
    [
        (ASSIGN, 9, QUEUES, 1, Status.BAD_CONTROLLER),
        (ASSIGN, 1, QUEUES, 1, Status.BAD_SECONDARY_STATE),
        (ASSIGN, 2, QUEUES, 10, Status.BAD_RESOURCE_COUNT),
        (ASSIGN, 2, 2, 1, Status.BAD_RESOURCE),
        (ONLINE, 2, 0, 0, Status.BAD_SECONDARY_STATE),
        (3, 2, 0, 0, Status.BAD_FIELD),
    ],
)
def test_management_that_can_not_be_is_refused(
    action: int, controller: int, resource: int, count: int, status: Status
) -> None:
    _, host = device_with_functions()
    bring_up(host, 1)
    assert manage(host, action, controller, resource, count) == status


def test_switching_off_takes_the_resources_back() -> None:
    _, host = device_with_functions()
    bring_up(host, 1)
    assert manage(host, ASSIGN, 2, QUEUES, 10) == Status.BAD_RESOURCE_COUNT
    assert manage(host, OFFLINE, 1) == 0
    assert manage(host, ASSIGN, 2, QUEUES, 10) == 0


def test_enabling_functions_again_leaves_nothing_behind_and_a_device_can_be_copied() -> None:
    device, _ = device_with_functions()
    assert device.sriov is not None
    for enabled in (0, 9) * 5:
        device.config.write(device.sriov.control.offset, 2, enabled)
    assert len(device.subsystem.changed_namespaces) == 4
    copied = pickle.loads(pickle.dumps(device))
    assert copied.subsystem.namespaces[1].blocks == 64
