"""What devices of a running plan can really do, found by having them try.

Every device writes the first and last bytes of what its guest's tables give it, with its PASID too
if it has one, reads just outside, then writes to the memory of every other guest by the address
that the host has it at, and sends its own interrupt, those of others, and one that nobody has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devices.capabilities import ExtendedCapabilityId
from devices.dma import REFUSED, Completion
from vtd.host.guests import Passed, RunningGuest
from vtd.host.plan import Interrupts
from vtd.host.running import RunningHost
from vtd.unit.interrupts.outcome import Interrupt, Posted

BYTES = 8
UNPAGED = 1 << 32
"""Where the addresses of an unpaged guest end."""
MESSAGE = 0xFEE0_0000, bytes([0x31, 0, 0, 0])
"""An interrupt in compatibility format."""
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
    any_interrupt: bool
    """Whether it could send an interrupt of a vector of its choice."""
    unsafe: bool
    """Whether its policy accepts that."""

    @property
    def isolated(self) -> bool:
        """Whether it did nothing but what it is meant to."""
        wrong = self.missed or self.beyond or self.touched or self.forged
        unchecked = self.any_interrupt and not self.unsafe
        return not wrong and not unchecked and self.shared is not False


def try_everything(host: RunningHost) -> Iterator[Reach]:
    """One row for each device, in the order of the plan."""
    for passed in host.passed:
        yield _tried(host, passed)


def _tried(host: RunningHost, passed: Passed) -> Reach:
    granted, missed = 0, []
    spans = list(passed.guest.reached())
    for device, size, physical in spans:
        for offset in (0, size - BYTES):
            for pasid in dict.fromkeys((None, passed.pasid)):
                if _lands(host, passed, device + offset, physical + offset, pasid):
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
        touched=tuple(_touched(host, passed)),
        shared=_shared(host, passed),
        interrupt=_interrupt(passed),
        forged=tuple(
            other.name
            for other in host.passed
            if other.guest is not passed.guest
            and other.unit == passed.unit
            and other.handle is not None
            and isinstance(passed.send(other.handle), Interrupt | Posted)
        ),
        any_interrupt=passed.function.bus_master.write(*MESSAGE).interrupt is not None,
        unsafe=passed.policy.interrupts is Interrupts.UNSAFE,
    )


def _lands(
    host: RunningHost, passed: Passed, device: int, physical: int, pasid: int | None
) -> bool:
    """Whether a write at a device address changes just this address of the host."""
    before = host.physical.read(physical, BYTES)
    _write(passed, device, pasid)
    landed = host.physical.read(physical, BYTES) == MARK
    host.physical.write(physical, before)
    return landed


def _write(passed: Passed, address: int, pasid: int | None) -> Completion:
    """A write with a PASID needs the capability to send one."""
    config = passed.function.config
    if pasid is not None and config.find_extended_capability(ExtendedCapabilityId.PASID) is None:
        return REFUSED
    return passed.function.dma.write(address, MARK, pasid=pasid)


def _touched(host: RunningHost, passed: Passed) -> Iterator[str]:
    """Guests whose memory a write changes that uses the host's address of it."""
    for guest in host.guests.values():
        if guest is not passed.guest and any(_changed(host, passed, guest)):
            yield guest.name


def _changed(host: RunningHost, passed: Passed, guest: RunningGuest) -> Iterator[bool]:
    for each in guest.memory:
        own = passed.guest.reached_at(each.host)
        places = [each.host] if own is None else [each.host, own]
        before = [host.physical.read(place, BYTES) for place in places]
        passed.function.dma.write(each.host, MARK)
        yield host.physical.read(each.host, BYTES) == MARK != before[0]
        for place, data in zip(places, before, strict=True):
            host.physical.write(place, data)


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
    match passed.send(passed.handle):
        case Interrupt():
            return "delivered"
        case Posted():
            return "posted"
    return "blocked"
