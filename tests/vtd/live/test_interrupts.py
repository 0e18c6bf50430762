"""Eventfds of a function: who is signalled, and the pin that masks itself."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.live.client import FakeDescriptor
from vtd.live.interrupts import Interrupts
from vtd.live.messages import Irq, IrqAction, IrqData
from vtd.live.requests import RequestError

PIN = IrqData.EVENTFD | IrqAction.TRIGGER


def with_pin() -> tuple[Interrupts, FakeDescriptor]:
    interrupts, eventfd = Interrupts({Irq.INTX: 1}), FakeDescriptor()
    interrupts.set(Irq.INTX, 0, 1, PIN, b"", [eventfd])
    return interrupts, eventfd


@given(st.lists(st.sampled_from(["assert", "withdraw", "mask", "unmask"]), max_size=12))
def test_the_pin_is_signalled_once_for_each_time_it_is_asserted_and_unmasked(
    steps: list[str],
) -> None:
    interrupts, eventfd = with_pin()
    level = masked = False
    expected = 0
    for step in steps:
        if step in ("assert", "withdraw"):
            level = step == "assert"
            interrupts.set_level(level)
        else:
            masked = step == "mask"
            action = IrqAction.MASK if masked else IrqAction.UNMASK
            interrupts.set(Irq.INTX, 0, 1, IrqData.NONE | action, b"", [])
        if level and not masked:
            expected, masked = expected + 1, True
        assert eventfd.signals == expected


def test_a_pin_that_was_asserted_before_there_was_an_eventfd_is_signalled_when_there_is_one() -> (
    None
):
    interrupts, eventfd = Interrupts({Irq.INTX: 1}), FakeDescriptor()
    interrupts.set_level(True)
    interrupts.set(Irq.INTX, 0, 1, PIN, b"", [eventfd])
    assert eventfd.signals == 1


def test_vectors_have_eventfds_of_their_own_which_are_closed_when_replaced() -> None:
    interrupts = Interrupts({Irq.MSIX: 4})
    first = [FakeDescriptor() for _ in range(4)]
    interrupts.set(Irq.MSIX, 0, 4, PIN, b"", list(first))
    interrupts.trigger(Irq.MSIX, 2)
    assert [each.signals for each in first] == [0, 0, 1, 0]
    other = FakeDescriptor()
    interrupts.set(Irq.MSIX, 2, 1, PIN, b"", [other])
    assert [each.closed for each in first] == [0, 0, 1, 0]
    interrupts.set(Irq.MSIX, 0, 2, PIN, b"", [])  # taken away
    interrupts.set(Irq.MSIX, 0, 0, IrqData.NONE | IrqAction.TRIGGER, b"", [])  # all of them
    assert [each.closed for each in (*first, other)] == [1, 1, 1, 1, 1]
    interrupts.trigger(Irq.MSIX, 2)
    assert other.signals == 0


def test_a_client_may_trigger_vectors_itself() -> None:
    interrupts = Interrupts({Irq.MSI: 3})
    eventfds = [FakeDescriptor() for _ in range(3)]
    interrupts.set(Irq.MSI, 0, 3, PIN, b"", list(eventfds))
    interrupts.set(Irq.MSI, 0, 3, IrqData.BOOL | IrqAction.TRIGGER, bytes([1, 0, 1]), [])
    interrupts.set(Irq.MSI, 1, 2, IrqData.NONE | IrqAction.TRIGGER, b"", [])
    assert [each.signals for each in eventfds] == [1, 1, 2]


@pytest.mark.parametrize(
    ("index", "start", "count", "flags", "data", "descriptors"),
    [
        (3, 0, 1, PIN, b"", 1),  # no such kind
        (Irq.MSI, 0, 3, PIN, b"", 3),  # more vectors than there are
        (Irq.MSI, 0xFFFF_FFFF, 1, PIN, b"", 1),
        (Irq.MSI, 0, 2, PIN, b"", 1),  # fewer eventfds than vectors
        (Irq.MSI, 0, 1, PIN, b"", 2),
        (Irq.MSI, 0, 1, PIN, b"x", 1),
        (Irq.MSI, 0, 2, IrqData.BOOL | IrqAction.TRIGGER, b"x", 0),
        (Irq.MSI, 0, 1, IrqData.NONE | IrqAction.MASK, b"", 0),  # only the pin has a mask
        (Irq.MSI, 0, 1, IrqData.NONE | IrqAction.UNMASK, b"", 0),
        (Irq.INTX, 0, 1, IrqData.EVENTFD | IrqAction.MASK, b"", 1),
        (Irq.INTX, 0, 1, IrqData.NONE | IrqAction.MASK | IrqAction.UNMASK, b"", 0),
        (Irq.INTX, 0, 1, IrqData.NONE | IrqData.BOOL | IrqAction.MASK, b"", 0),
        (Irq.INTX, 0, 1, PIN | 0x40, b"", 1),
        (Irq.INTX, 0, 1, 0, b"", 0),
    ],
)
def test_what_can_not_be_set_is_refused_and_keeps_no_descriptor(
    index: int, start: int, count: int, flags: int, data: bytes, descriptors: int
) -> None:
    interrupts = Interrupts({Irq.INTX: 1, Irq.MSI: 2})
    given_ones = [FakeDescriptor() for _ in range(descriptors)]
    left = list(given_ones)
    with pytest.raises(RequestError) as refused:
        interrupts.set(index, start, count, flags, data, left)  # type: ignore[arg-type]
    assert refused.value.number == errno.EINVAL
    assert left == given_ones


def test_nothing_is_left_open() -> None:
    interrupts, eventfd = with_pin()
    interrupts.close()
    assert eventfd.closed == 1
    interrupts.set_level(True)
    assert eventfd.signals == 0
