"""Steps that a failure does not need are left out, but none that keeps caches and tables agreed."""

from __future__ import annotations

from dataclasses import replace

from vtd.fuzz.case import Case, dma_read
from vtd.fuzz.driver import ModelDriver
from vtd.fuzz.places import QUEUE
from vtd.fuzz.properties import Violation
from vtd.fuzz.shrinking import is_sound, shrunk
from vtd.unit.registers.capabilities import PROFILES

WANTED = dma_read("d0", 0x1234, 8)


def fails_with_the_read(case: Case) -> Violation | None:
    if WANTED not in case.steps:
        return None
    return Violation("the read", case)


def failing() -> Violation:
    driver = ModelDriver(PROFILES["client"])
    driver.attach("d0", 1, 0)
    driver.map(1, 0, 0, 4)
    driver.emit(WANTED)
    driver.detach("d0")
    return Violation("the read", driver.case())


def never(*_: object) -> bool:
    return False


def always(_: Case) -> bool:
    return True


def test_nothing_is_left_that_can_go() -> None:
    found = shrunk(failing(), fails_with_the_read, never, always)
    assert found.case is not None
    assert found.case.steps == (WANTED,)


def test_commands_and_invalidations_stay_where_caches_count() -> None:
    found = shrunk(failing(), fails_with_the_read, never, never)
    assert found.case is not None
    rest = [step for step in found.case.steps if step != WANTED]
    queue = [step for step in rest if step["op"] == "mem_write"]
    assert queue and all(step["addr"].startswith("0x104") for step in queue)
    assert {step["op"] for step in rest} == {"mem_write", "reg_write"}


def test_another_failure_does_not_count() -> None:
    def fails_otherwise(case: Case) -> Violation | None:
        return Violation("something else", case)

    whole = failing()
    assert shrunk(whole, fails_otherwise, never, always) is whole


def test_time_that_is_up_ends_it() -> None:
    whole = failing()
    assert shrunk(whole, fails_with_the_read, lambda: True, always) is whole


def test_a_case_is_sound_while_every_unit_has_to_do_the_same() -> None:
    driver = ModelDriver(PROFILES["client"])
    driver.attach("d0", 1, 0)
    driver.map(1, 0, 0, 4)
    driver.emit(dma_read("d0", 0, 8))
    driver.unmap(1, 0, 4)
    driver.emit(dma_read("d0", 0, 8))
    case = driver.case()
    assert is_sound(case)
    queue = hex(QUEUE >> 12)
    given = [step for step in case.steps if not str(step.get("addr", "")).startswith(queue)]
    assert not is_sound(replace(case, steps=tuple(given)))
