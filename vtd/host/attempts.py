"""What devices of a running plan can really do, found by having them try.

Every device writes the first and last bytes of what its guest's tables give it, reads just outside,
then writes to the memory of every other guest by the address that the host has it at, and sends its
own interrupt and those of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devices.interrupt_programming import remappable_message
from vtd.host.guests import Passed, RunningGuest
from vtd.host.running import RunningHost
from vtd.unit.interrupts.outcome import Interrupt, Posted

BYTES = 8
UNPAGED = 1 << 32
"""Where the addresses of an unpaged guest end."""
MARK = b"\xa5wrote\x5a\n"


@dataclass(frozen=True)
class Reach:
    """What one device reached."""

    device: str
    guest: str
    granted: int
    """Places of its guest's memory that it is meant to reach, and did."""
    missed: tuple[int, ...]
    """Device addresses that it is meant to reach, and did not, or that led elsewhere."""
    beyond: tuple[int, ...]
    """Device addresses outside its guest's memory that it reached."""
    touched: tuple[str, ...]
    """Other guests whose memory changed when it wrote."""
    shared: bool | None
    """Whether it reads what a processor of its guest wrote; None where no address is the same."""
    interrupt: str
    """What became of its own interrupt: delivered, posted, blocked, none."""
    forged: tuple[str, ...]
    """Devices whose interrupts it could send."""

    @property
    def isolated(self) -> bool:
        """Whether it did nothing but what it is meant to."""
        wrong = self.missed or self.beyond or self.touched or self.forged
        return not wrong and self.shared is not False


def try_everything(host: RunningHost) -> Iterator[Reach]:
    """One row for each device, in the order of the plan."""
    for passed in host.passed:
        yield _tried(host, passed)


def _tried(host: RunningHost, passed: Passed) -> Reach:
    granted, missed = 0, []
    spans = list(passed.guest.reached())
    for device, size, physical in spans:
        for offset in (0, size - BYTES):
            if _lands(host, passed, device + offset, physical + offset):
                granted += 1
            else:
                missed.append(device + offset)
    edges = sorted({edge for device, size, _ in spans for edge in (device - BYTES, device + size)})
    beyond = [
        edge
        for edge in edges
        if edge >= 0 and not _inside(spans, edge) and passed.function.dma.read(edge, BYTES).ok
    ]
    return Reach(
        device=passed.name,
        guest=passed.guest.name,
        granted=granted,
        missed=tuple(missed),
        beyond=tuple(beyond),
        touched=tuple(_touched(host, passed, spans)),
        shared=_shared(host, passed),
        interrupt=_interrupt(passed),
        forged=tuple(
            other.name
            for other in host.passed
            if other.guest is not passed.guest
            and other.unit == passed.unit
            and other.handle is not None
            and _sent(passed, other.handle)
        ),
    )


def _lands(host: RunningHost, passed: Passed, device: int, physical: int) -> bool:
    """Whether a write at a device address changes just this address of the host."""
    before = host.physical.read(physical, BYTES)
    passed.function.dma.write(device, MARK)
    landed = host.physical.read(physical, BYTES) == MARK
    host.physical.write(physical, before)
    return landed


def _touched(host: RunningHost, passed: Passed, spans: list[tuple[int, int, int]]) -> Iterator[str]:
    """Guests whose memory a write changes that uses the host's address of it."""
    for guest in host.guests.values():
        if guest is not passed.guest and any(_changed(host, passed, guest, spans)):
            yield guest.name


def _changed(
    host: RunningHost, passed: Passed, guest: RunningGuest, spans: list[tuple[int, int, int]]
) -> Iterator[bool]:
    for each in guest.memory:
        if not _inside(spans, each.host):
            before = host.physical.read(each.host, BYTES)
            passed.function.dma.write(each.host, MARK)
            yield host.physical.read(each.host, BYTES) == MARK != before
            host.physical.write(each.host, before)


def _shared(host: RunningHost, passed: Passed) -> bool | None:
    """Whether processor and device see one memory: the processor stores, the device loads."""
    for device, physical, size in passed.guest.description.own_maps():
        if physical + size <= UNPAGED and passed.guest.host_address(physical) is not None:
            processor = host.processor(passed.guest).guest
            before = processor.load(physical, BYTES)
            if not isinstance(before, bytes):
                return False
            processor.store(physical, MARK)
            seen = passed.function.dma.read(device, BYTES).data == MARK
            processor.store(physical, before)
            return seen
    return None


def _inside(spans: list[tuple[int, int, int]], address: int) -> bool:
    return any(device <= address < device + size for device, size, _ in spans)


def _interrupt(passed: Passed) -> str:
    if passed.handle is None:
        return "none"
    match _outcome(passed, passed.handle):
        case Interrupt():
            return "delivered"
        case Posted():
            return "posted"
    return "blocked"


def _sent(passed: Passed, handle: int) -> bool:
    return isinstance(_outcome(passed, handle), Interrupt | Posted)


def _outcome(passed: Passed, handle: int) -> object:
    message = remappable_message(handle)
    return passed.function.dma.write(message.address, message.data.to_bytes(4, "little")).interrupt
