"""Causes: a departure is named if the model does the same with it, and only then."""

from dataclasses import replace

import pytest

from tests.vtd.conformance.kits import probed
from vtd.conformance.causes import causes
from vtd.conformance.kit import Builder, KitCase, Wanted
from vtd.conformance.observing import observe
from vtd.conformance.wrong import wrong_steps
from vtd.fuzz.case import Case, Step, dma_read, dma_write, reg_read, reg_write, store
from vtd.unit.caching.policy import KEEPS_STALE
from vtd.unit.departures import SPECIFICATION, Departures
from vtd.unit.registers.capabilities import PROFILES

QUEUE = 0x30_0000
ROOT = 0x10_0000
FAULT = [reg_read(0x34, 4, 0x3), reg_read(0x228, 8, (1 << 64) - 1)]


def kit_case(*steps: Step) -> KitCase:
    builder = Builder(probed())
    assert builder.add(Wanted("a", "test", Case(PROFILES["qemu"], steps))), builder.left
    return KitCase.from_json(builder.image().document["cases"][0])


def named(kit: KitCase, got: list[object]) -> tuple[str, ...]:
    vectors = {step: lists[0] for step, lists in kit.vectors.items()}
    assert list(wrong_steps(kit, got, vectors))
    return causes(kit, got, vectors)


def test_a_wait_that_is_refused_has_a_flag() -> None:
    kit = kit_case(
        reg_write(0x90, 8, QUEUE),
        reg_write(0x18, 4, 1 << 26),
        store(QUEUE, 5, 16),
        reg_write(0x88, 8, 16),
        reg_read(0x80, 8, (1 << 64) - 1),
        reg_read(0x34, 4, 0x10),
    )
    got = observe(kit.case, KEEPS_STALE, Departures(refuse_silent_wait=True)).outcomes
    assert named(kit, got) == ("refuse_silent_wait",)


@pytest.mark.parametrize(("value", "known"), [(0x40_0003, True), (0x30_0000, False)])
def test_another_queue_address_is_known_and_another_size_is_not(value: int, known: bool) -> None:
    kit = kit_case(reg_write(0x90, 8, 0x30_0003), reg_read(0x90, 8, (1 << 64) - 1))
    assert named(kit, [None, value]) == (("read_latched_queue_address",) if known else ())


def refused(*requests: Step) -> KitCase:
    """Requests that meet a root table without entries, each looked at."""
    steps = [reg_write(0x20, 8, ROOT), reg_write(0x18, 4, 1 << 30), reg_write(0x18, 4, 1 << 31)]
    for request in requests:
        steps += [request, *FAULT, reg_write(0x22C, 4, 1 << 31)]
    return kit_case(*steps)


def test_a_root_fault_that_is_not_recorded_is_known() -> None:
    kit = refused(dma_read("d0", 0x1000, 8), dma_write("d1", 0x1000, b"12345678"))
    got = list(observe(kit.case, KEEPS_STALE, SPECIFICATION).outcomes)
    assert got[4] == 2
    got[4], got[5] = 0, 0
    assert named(kit, got) == ("forget_root_faults",)


def test_a_fault_that_nothing_explains_stays_unexplained() -> None:
    kit = refused(dma_read("d0", 0x1000, 8))
    got = list(observe(kit.case, KEEPS_STALE, SPECIFICATION).outcomes)
    got[5] ^= 1 << 62
    assert named(kit, got) == ()


def test_a_case_keeps_what_is_not_compared() -> None:
    kit = refused(dma_read("d0", 0x1000, 8))
    assert replace(kit) == kit
    assert kit.allowed[0] == []
