"""What the bench times of the 82576 is what its cases say."""

from __future__ import annotations

import pytest

from scripts import bench_nic
from scripts.bench_nic import BUFFERS, RECEIVE, TRANSMIT
from tests.devices.network.packets import sound


@pytest.mark.parametrize("offloads", [False, True])
def test_every_frame_is_sent_and_received(offloads: bool) -> None:
    made = bench_nic.port(8, offloads=offloads)
    made.nic.bars[0].write(TRANSMIT + 0x18, 4, 7 * made.slots)
    assert made.sink.frames == [made.frame] * 7
    for number in range(8):
        made.memory.write(BUFFERS + (number << 12), bytes(bench_nic.SIZE))
    made.receive()
    assert made.nic.bars[0].read(RECEIVE + 0x10, 4) == 7
    for number in range(7):
        assert made.memory.read(BUFFERS + (number << 12), bench_nic.SIZE) == made.frame
    made.send()
    assert made.nic.bars[0].read(TRANSMIT + 0x10, 4) == 7 * made.slots
    assert not offloads or sound(made.frame)


@pytest.mark.parametrize("offloads", [False, True])
def test_requests_by_hand_are_as_many(offloads: bool) -> None:
    made = bench_nic.port(8, offloads=offloads)
    counters = made.unit.caches.iotlb.counters
    for run, by_hand, each in (
        (made.send, made.requests_of_sending, 6 if offloads else 3),
        (made.receive, made.requests_of_receiving, 3),
    ):
        before = counters.lookups
        run()
        between = counters.lookups
        by_hand()
        assert counters.lookups - between == between - before == 7 * each


def test_a_small_iotlb_hits_the_ring_alone() -> None:
    assert bench_nic.hit_rate(16, 16) == 1.0
    assert bench_nic.hit_rate(16, 4) < 0.7
