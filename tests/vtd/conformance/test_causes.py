"""Causes: a departure is named if the model does the same with it, and only then."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vtd.conformance.kits import probed
from vtd.conformance.causes import causes, smallest
from vtd.conformance.kit import Builder, KitCase, Wanted
from vtd.conformance.observing import observe
from vtd.conformance.wrong import wrong_steps
from vtd.fuzz.case import Case, Outcome, Step, dma_read, dma_write, reg_read, reg_write, store
from vtd.fuzz.driver import PASS_THROUGH, SECOND, ModelDriver
from vtd.fuzz.places import DATA
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


def test_a_root_fault_that_is_not_recorded_is_unexplained() -> None:
    kit = refused(dma_read("d0", 0x1000, 8), dma_write("d1", 0x1000, b"12345678"))
    got = list(observe(kit.case, KEEPS_STALE, SPECIFICATION).outcomes)
    assert got[4] == 2
    got[4], got[5] = 0, 0
    assert named(kit, got) == ()


@given(st.sets(st.integers(0, 30)), st.integers(1, 31))
def test_of_enough_names_none_is_left_that_can_be_left_out(wanted: set[int], count: int) -> None:
    names = [str(number) for number in range(count)]
    needed = {str(number) for number in wanted if number < count} or {"0"}
    assert smallest(names, lambda chosen: needed <= set(chosen)) == sorted(needed, key=int)


def test_a_device_that_stays_passed_through_has_a_flag() -> None:
    """The smallest case: it reads, gets a second stage with nothing in it, and reads again."""
    made = ModelDriver(PROFILES["qemu-scalable"], scalable=True)
    made.attach("d0", 1, made.kinds.index(PASS_THROUGH))
    made.emit(made.request("d0", DATA + 16, write=False, pasid=None))
    made.attach("d0", 2, made.kinds.index(SECOND))
    made.emit(made.request("d0", DATA + 16, write=False, pasid=None))
    builder = Builder(probed("qemu-scalable"))
    assert builder.add(Wanted("a", "test", made.case())), builder.left
    kit = KitCase.from_json(builder.image().document["cases"][0])
    got = observe(kit.case, KEEPS_STALE, Departures(keep_pass_through=True)).outcomes
    assert named(kit, got) == ("keep_pass_through",)


def test_zeroes_that_a_departing_unit_would_read_may_be_a_refusal() -> None:
    kit = refused(dma_read("d0", 0x1000, 8))
    allowed: list[list[Outcome]] = [[] for _ in kit.allowed]
    allowed[3] = [{"data": "00" * 8}]
    got: list[Outcome] = [None for _ in allowed]
    got[3] = {"fault": True}
    assert not list(wrong_steps(replace(kit, allowed=allowed, vectors={}), got, {}))
    allowed[3] = [{"data": "01" * 8}]
    assert list(wrong_steps(replace(kit, allowed=allowed, vectors={}), got, {}))


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stopped_queue_may_go_on_at_once_or_with_the_tail(at_once: bool) -> None:
    """6.5.2.11 leaves it open: each way passes, whatever else is left open."""
    kit = kit_case(
        reg_write(0x90, 8, QUEUE),
        reg_write(0x18, 4, 1 << 26),
        store(QUEUE, 0xF, 16),
        reg_write(0x88, 8, 16),
        store(QUEUE, 5 | 1 << 6, 16),
        reg_write(0x34, 4, 0x10),
        reg_read(0x80, 8, (1 << 64) - 1),
    )
    flags = Departures(resume_with_tail=not at_once)
    got = observe(kit.case, KEEPS_STALE, flags).outcomes
    assert got[-1] == (16 if at_once else 0)
    vectors = {step: lists[0] for step, lists in kit.vectors.items()}
    assert not list(wrong_steps(kit, got, vectors))
    got[-1] = 32
    assert list(wrong_steps(kit, got, vectors))


def test_a_fault_that_nothing_explains_stays_unexplained() -> None:
    kit = refused(dma_read("d0", 0x1000, 8))
    got = list(observe(kit.case, KEEPS_STALE, SPECIFICATION).outcomes)
    got[5] ^= 1 << 62
    assert named(kit, got) == ()


def test_a_case_keeps_what_is_not_compared() -> None:
    kit = refused(dma_read("d0", 0x1000, 8))
    assert replace(kit) == kit
    assert kit.allowed[0] == []
