"""With domains of their own no virtual function changes another's memory; queues do."""

from __future__ import annotations

import random

import pytest

from devices.function import Bar
from vtd.commands.demo_connectivity_machine import PLACES, SIZE, Connectivity

RECEIVE, TRANSMIT = 0xC000, 0xE000
BROADCAST = b"\xff" * 6 + b"\2\0\0\0\0\x09\x88\xb5" + bytes(range(100))
ADDRESSES = [place + offset for place in PLACES.values() for offset in (0x100, 0x2000, 0x8000)]


class Wild:
    """A guest that writes anything into its rings, and its queue's registers, at random."""

    def __init__(self, scene: Connectivity, bar: Bar, receive: int, transmit: int) -> None:
        self.scene, self.bar = scene, bar
        self.receive, self.transmit = receive, transmit

    def program(self, draw: random.Random) -> None:
        """One program of guest A: rings in its memory or anywhere, buffers anywhere."""
        own = PLACES["A"]
        for ring in (own, own + 0x800):
            words = b"".join(
                (draw.choice(ADDRESSES) & -2).to_bytes(8, "little")
                + draw.choice((0, 0x40 << 46 | 0x2B30_0040, draw.getrandbits(64))).to_bytes(
                    8, "little"
                )
                for _ in range(8)
            )
            self.scene.memory.write(ring, words)
        for base, ring in ((self.receive, own), (self.transmit, own + 0x800)):
            self._write(base + 0x28, 0)
            self._write(base, draw.choice((ring, ring, *ADDRESSES)) & -0x80)
            self._write(base + 8, 128)
            self._write(base + 0xC, draw.choice((2, 0x0200_0402, 0x0A00_0402)))
            self._write(base + 0x10, 0)
            self._write(base + 0x38, draw.choice((0, draw.choice(ADDRESSES) | 1)))
            self._write(base + 0x28, 1 << 25)
            self._write(base + 0x18, draw.randrange(8))
        self.scene.nic.receive(BROADCAST)

    def _write(self, offset: int, value: int) -> None:
        self.bar.write(offset, 4, value)


def scene() -> Connectivity:
    """The demo's machine; the host lets broadcasts into all pools."""
    found = Connectivity()
    write = found.nic.bars[0].write
    write(0x0018, 4, 1 << 14)
    write(0x0100, 4, 1 << 1 | 1 << 15 | 1 << 26)
    write(0x581C, 4, 7 << 7 | 1 << 30)
    for pool in range(8):
        write(0x5AD0 + 4 * pool, 4, 0x8800_2600 | 1 << 24 | 1 << 27)
    for register in (0x0C8C, 0x0C90):
        write(register, 4, 0xFF)
    return found


def others(found: Connectivity) -> list[bytes]:
    """What is in the memory of everybody but guest A."""
    return [found.memory.read(place, SIZE) for who, place in PLACES.items() if who != "A"]


@pytest.mark.parametrize("seed", range(4))
def test_no_virtual_function_changes_what_is_not_its_own(seed: int) -> None:
    found, draw = scene(), random.Random(seed)
    wild = Wild(found, found.nic.sriov.functions[0].bars[0], 0x2800, 0x3800)
    before, own = others(found), found.memory.read(PLACES["A"], SIZE)
    for _ in range(60):
        wild.program(draw)
        found.assembly.clock.advance(1_000_000)
        assert others(found) == before
    assert found.memory.read(PLACES["A"] + 0x2000, 0x8000) != own[0x2000:0xA000]
    assert found.faults


def test_the_same_does_not_hold_for_a_queue() -> None:
    found, draw = scene(), random.Random(0)
    wild = Wild(found, found.nic.bars[0], RECEIVE + 0x80, TRANSMIT + 0x80)
    before = others(found)
    for _ in range(60):
        wild.program(draw)
        found.assembly.clock.advance(1_000_000)
    assert others(found) != before
