"""Causes, masks and vectors, in MSI-X mode and without."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.devices.models.nic82576.drivers import enable_msix
from tests.devices.models.nic82576.machines import OUTSIDE, Machine, VirtualMachines, frame_for

LINK, RESET_SEEN = 1 << 2, 1 << 30
FRAME = frame_for(OUTSIDE)


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.up()
    machine.driver.vectors()
    return machine


@pytest.mark.parametrize("auto_mask", [True, False])
def test_a_vector_masks_itself_where_software_wants_it(machine: Machine, auto_mask: bool) -> None:
    rings = machine.driver.open()
    machine.driver.write(0x1514, 0x8000_0011 | auto_mask << 30)
    rings.send(FRAME)
    assert machine.messages() == [0x41]
    assert bool(machine.driver.read(0x1524) & 2) == (not auto_mask)
    rings.send(FRAME)
    assert machine.messages() == [0x41] * (not auto_mask)
    machine.driver.write(0x1524, 2)
    assert machine.messages() == [0x41] * auto_mask


def test_a_cause_that_is_not_cleared_by_itself_is_signalled_once(machine: Machine) -> None:
    rings = machine.driver.open()
    machine.driver.write(0x152C, 0)
    machine.driver.write(0x1530, 0)
    for _ in range(3):
        rings.send(FRAME)
    assert machine.messages() == [0x41]
    assert machine.driver.read(0x1580) == 2
    assert machine.driver.read(0x1580) == 0
    rings.send(FRAME)
    machine.driver.write(0x1580, 2)
    rings.send(FRAME)
    assert machine.messages() == [0x41, 0x41]


@pytest.mark.parametrize(
    ("gpie", "mask", "cleared"),
    [(0x11, LINK, True), (0x10, LINK, False), (0x10, 0, True), (0, LINK, True)],
)
def test_when_reading_the_causes_clears_them(
    machine: Machine, gpie: int, mask: int, cleared: bool
) -> None:
    driver = machine.driver
    driver.read(0x00C0)
    driver.write(0x1514, gpie)
    driver.write(0x00D0, mask)
    driver.write(0x00C8, LINK)
    assert driver.read(0x00C0) & LINK
    assert bool(driver.read(0x00C0) & LINK) == (not cleared)


def test_an_acknowledged_cause_masks_what_software_listed(machine: Machine) -> None:
    driver = machine.driver
    driver.read(0x00C0)
    driver.write(0x00E0, LINK)
    driver.write(0x00D0, LINK | 1)
    driver.write(0x00C8, LINK)
    assert driver.read(0x00C0) == LINK | 1 << 31
    assert driver.read(0x00D0) == driver.read(0x00D8) == 1
    machine.messages()
    driver.write(0x00C8, LINK)
    assert machine.messages() == []
    driver.write(0x00D0, LINK)
    assert machine.messages() == [0x40]


def test_a_reset_that_was_seen_has_the_vector_of_the_timer(machine: Machine) -> None:
    driver = machine.driver
    driver.read(0x00C0)
    driver.write(0x1514, 0x11)
    driver.write(0x1740, 0x8382)
    driver.write(0x1524, 0xFF)
    driver.write(0x00D0, RESET_SEEN | LINK)
    driver.write(0x00C8, RESET_SEEN)
    driver.write(0x00C8, LINK)
    assert machine.messages() == [0x42, 0x43]


OPERATIONS = st.lists(
    st.sampled_from(["send", "software", "mask", "unmask", "hold", "release", "function"])
    | st.integers(1, 300),
    max_size=40,
)


@given(operations=OPERATIONS, interval=st.sampled_from([0, 5, 100, 8000]), auto=st.booleans())
def test_a_cause_is_never_forgotten(operations: list[str | int], interval: int, auto: bool) -> None:
    """Whatever masks it on its way, it is signalled once nothing does any more."""
    machine = Machine()
    machine.up()
    driver, nic = machine.driver, machine.nic
    driver.vectors()
    rings = driver.open()
    driver.write(0x1684, interval << 2)
    driver.write(0x1530, 2 * auto)
    owed = False
    for operation in operations:
        if isinstance(operation, int):
            nic.clock.advance(operation * 1000)
        elif operation in {"send", "software"}:
            owed = True
            if operation == "send":
                rings.send(FRAME)
            else:
                driver.write(0x1520, 2)
        elif operation in {"mask", "unmask"}:
            driver.write(0x1528 if operation == "mask" else 0x1524, 2)
        elif operation in {"hold", "release"}:
            nic.bars[3].write(28, 4, int(operation == "hold"))
        else:
            nic.config.write(0x72, 2, nic.config.read(0x72, 2) ^ 0x4000)
        owed = owed and not machine.messages()
    nic.bars[3].write(28, 4, 0)
    nic.config.write(0x72, 2, 0x8000)
    driver.write(0x1524, 2)
    nic.clock.advance(10_000_000)
    assert bool(machine.messages()) >= owed
    assert driver.read(0x1580) == 0


def test_masks_have_only_the_bits_that_there_are(machine: Machine) -> None:
    machine.driver.write(0x00D0, 0xFFFF_FFFF)
    assert machine.driver.read(0x00D0) == 0x77D4_FBFD
    machine.driver.write(0x00D8, 0x0F)
    assert machine.driver.read(0x00D0) == 0x77D4_FBF0
    machine.driver.write(0x1524, 0xFFFF_FFFF)
    assert machine.driver.read(0x1524) == 0xC000_FFFF
    machine.driver.write(0x1514, 0x10)
    machine.driver.write(0x1528, 0xFFFF_FFFF)
    machine.driver.write(0x1524, 0xFFFF_FFFF)
    assert machine.driver.read(0x1524) == 0x01FF_FFFF


def test_without_messages_the_pin_is_driven() -> None:
    machine = Machine()
    machine.up()
    levels: list[bool] = []
    machine.nic.on_intx = levels.append
    driver = machine.driver
    driver.read(0x00C0)
    driver.write(0x00D0, LINK)
    driver.write(0x00C8, LINK)
    driver.write(0x00C8, LINK)
    assert levels == [True]
    driver.read(0x00C0)
    assert levels == [True, False]


def test_msi_has_one_vector_for_everything() -> None:
    machine = Machine()
    machine.up()
    for at, value, size in ((0x54, 0xFEE0_0000, 4), (0x5C, 0x77, 2), (0x52, 1, 2)):
        machine.nic.config.write(at, size, value)
    rings = machine.driver.open()
    machine.driver.write(0x1514, 0)
    machine.driver.write(0x00D0, 0x81)
    machine.driver.read(0x00C0)
    rings.send(FRAME)
    machine.driver.read(0x00C0)
    machine.nic.receive(frame_for(machine.driver.mac))
    assert machine.messages() == [0x77, 0x77]
    assert not machine.nic.intx


def test_a_mailbox_can_be_kept_from_interrupting() -> None:
    machine = VirtualMachines()
    machine.start_guests()
    driver = machine.driver
    driver.write(0x1524, 1)
    driver.read(0x00C0)
    driver.write(0x0C84, 0xFD)
    machine.messages()
    machine.guests[1].write(0x0C40, 1)
    assert machine.messages() == []
    machine.guests[0].write(0x0C40, 1)
    assert machine.messages() == [0x40]


def test_a_reset_virtual_function_has_no_vectors_left() -> None:
    machine = VirtualMachines()
    machine.start_guests()
    guest = machine.guests[1]
    other = [machine.guests[0].read(at) for at in (0x152C, 0x1530, 0x1700)]
    guest.write(0x0000, 1 << 26)
    assert [guest.read(at) for at in (0x152C, 0x1530, 0x1700, 0x1740)] == [0, 0, 0, 0]
    assert [machine.guests[0].read(at) for at in (0x152C, 0x1530, 0x1700)] == other


def test_virtual_functions_have_moderation_of_their_own() -> None:
    machine = VirtualMachines()
    machine.start_guests()
    for guest in machine.guests:
        guest.write(0x1530, 0)
    machine.guests[1].write(0x1680, 1000 << 2)
    for port in machine.ports:
        port.messages.clear()
    for _ in range(4):
        for rings in machine.guest_rings:
            rings.send(FRAME)
    assert [len(port.messages) for port in machine.ports] == [4, 1]
    machine.nic.clock.advance(1_000_000)
    assert [len(port.messages) for port in machine.ports] == [4, 2]


def test_queues_of_a_virtual_function_that_is_gone_are_the_ports() -> None:
    machine = VirtualMachines()
    machine.start_guests()
    machine.nic.config.write(0x168, 2, 0)
    assert not machine.driver.read(0x0008) >> 14 & 0x1F
    enable_msix(machine.nic, machine.nic.bars[3], 10)
    machine.driver.write(0x1700, 0x8585)
    machine.driver.write(0x1524, 1 << 5)
    machine.messages()
    machine.guest_rings[0].ram = machine.port.ram
    machine.port.ram.write(0x1_0000, machine.ports[0].ram.read(0x1_0000, 0xF000))
    machine.guest_rings[0].bar = machine.nic.bars[0]
    machine.guest_rings[0].send(FRAME)
    assert machine.messages() == [0x45]
    assert machine.sink.frames == [FRAME]
