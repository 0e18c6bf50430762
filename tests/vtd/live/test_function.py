"""A function as a client sees it: capabilities before and after the first reset, vectors."""

from __future__ import annotations

import pytest

from devices.config_space import Status
from devices.models.edu import Edu
from devices.models.nvme.function import Nvme
from tests.vtd.live.client import FakeDescriptor
from vtd.live.function import ServedFunction
from vtd.live.messages import CONFIG_REGION, Irq, IrqAction, IrqData

EVENTFD = IrqData.EVENTFD | IrqAction.TRIGGER
DISABLE = IrqData.NONE | IrqAction.TRIGGER


@pytest.mark.parametrize("function", [Edu(), Nvme()], ids=["edu", "nvme"])
def test_capabilities_are_seen_from_the_first_reset_on(function: Edu | Nvme) -> None:
    served, size = ServedFunction(function), function.config.size
    hidden = served.read(CONFIG_REGION, 0, size)
    assert not any(hidden[0x40:])
    assert (hidden[0x34], hidden[6] & Status.capabilities.mask) == (0, 0)
    served.reset()
    shown = served.read(CONFIG_REGION, 0, size)
    assert shown == function.config.dump()
    assert shown[0x34]
    for offset in range(0x40):
        if offset not in (6, 0x34):
            assert hidden[offset] == shown[offset]
    served.disconnected()
    assert served.read(CONFIG_REGION, 0, size) == hidden


def test_configuration_space_is_read_and_written_in_any_pieces() -> None:
    served = ServedFunction(Edu())
    whole = served.read(CONFIG_REGION, 0, 256)
    for offset, count in ((0, 1), (1, 3), (2, 6), (5, 100), (255, 1)):
        assert served.read(CONFIG_REGION, offset, count) == whole[offset : offset + count]
    served.write(CONFIG_REGION, 3, b"\xff" + (6).to_bytes(2, "little"))
    assert served.read(CONFIG_REGION, 2, 4) == whole[2:4] + b"\x06\x00"


def test_vectors_are_the_clients_while_it_has_eventfds_for_them() -> None:
    function, sent = Nvme(), list[tuple[int, int]]()
    served = ServedFunction(function, eventfds=True)
    assert served.read(CONFIG_REGION, 0x34, 1) != b"\0"  # QEMU sees the capabilities
    interrupts = served.interrupts()
    assert [interrupts.count(each) for each in Irq] == [1, 0, 5]
    msix = function.msix
    assert msix is not None
    msix._send = lambda address, data: sent.append((address, data))
    eventfds = [FakeDescriptor() for _ in range(5)]
    interrupts.set(Irq.MSIX, 0, 5, EVENTFD, b"", list(eventfds))
    msix.notify(3)
    assert [each.signals for each in eventfds] == [0, 0, 0, 1, 0]
    interrupts.set(Irq.MSIX, 0, 0, DISABLE, b"", [])
    msix.notify(3)
    assert (eventfds[3].signals, sent) == (1, [])  # MSI-X is not enabled in the function itself
    interrupts.set(Irq.MSIX, 0, 5, EVENTFD, b"", [FakeDescriptor() for _ in range(5)])
    assert msix.host is not None
    interrupts.close()
    assert msix.host is None


def test_the_pin_of_a_function_reaches_its_client() -> None:
    function, eventfd = Edu(), FakeDescriptor()
    served = ServedFunction(function)
    interrupts = served.interrupts()
    assert [interrupts.count(each) for each in Irq] == [1, 0, 0]
    interrupts.set(Irq.INTX, 0, 1, EVENTFD, b"", [eventfd])
    served.write(0, 0x60, (1).to_bytes(4, "little"))  # raise
    assert eventfd.signals == 1
    interrupts.set(Irq.INTX, 0, 1, IrqData.NONE | IrqAction.UNMASK, b"", [])
    assert eventfd.signals == 2
    served.write(0, 0x64, (1).to_bytes(4, "little"))  # acknowledge
    interrupts.set(Irq.INTX, 0, 1, IrqData.NONE | IrqAction.UNMASK, b"", [])
    assert eventfd.signals == 2
    served.disconnected()
    served.write(0, 0x60, (1).to_bytes(4, "little"))
    assert eventfd.signals == 2
