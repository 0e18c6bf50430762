"""Software that writes registers against the rules is told so; software that keeps them is not."""

from __future__ import annotations

import pickle

import pytest

from tests.vtd.world import Mode, World, capabilities
from vtd.layouts.registers import GlobalCommand
from vtd.unit.reporting.events import Event, RegisterMisused
from vtd.unit.unit import RemappingUnit

TE, SRTP, QIE, IRE, SIRTP = (
    GlobalCommand.FIELDS[name].mask for name in ("te", "srtp", "qie", "ire", "sirtp")
)
GCMD, RTADDR, CCMD, IQT, IQA, IOTLB = 0x18, 0x20, 0x28, 0x88, 0x90, 0x508
IVT = 1 << 63
Writes = list[tuple[int, int]]

WRONG: list[tuple[str, Writes, str]] = [
    ("two functions", [(GCMD, SRTP), (GCMD, TE | QIE)], "several functions changed in one write"),
    (
        "a function and a one-shot",
        [(GCMD, SRTP | TE)],
        "several functions changed in one write: SRTP, TE",
    ),
    ("TE without SRTP", [(GCMD, TE)], "TE is set with no SRTP"),
    (
        "TE again without SRTP",
        [(GCMD, SRTP), (GCMD, TE), (GCMD, 0), (GCMD, TE)],
        "TE is set with no",
    ),
    ("IRE without SIRTP", [(GCMD, IRE)], "IRE is set with no SIRTP"),
    ("tail left", [(IQT, 0x20), (GCMD, QIE)], "QIE is set with a tail"),
    (
        "queue not empty",
        [(IQA, 1 << 40), (GCMD, QIE), (IQT, 0x20), (GCMD, 0)],
        "QIE is cleared before",
    ),
    ("mode switched", [(GCMD, SRTP), (GCMD, TE), (RTADDR, 1 << 10)], "TTM or SSIRWE is changed"),
    ("queue moved", [(GCMD, QIE), (IQA, 0x8000)], "the queue is moved"),
    ("context command", [(GCMD, QIE), (CCMD, IVT | 1 << 61)], "by register beside the queue"),
    ("IOTLB command", [(GCMD, QIE), (IOTLB, IVT | 1 << 60)], "by register beside the queue"),
]
RIGHT: list[Writes] = [
    [(RTADDR, 0x1000), (GCMD, SRTP), (GCMD, TE), (GCMD, TE | SRTP), (GCMD, 0)],
    [(GCMD, SRTP), (GCMD, TE), (GCMD, 0), (GCMD, SRTP), (GCMD, TE), (GCMD, TE)],
    [(GCMD, SIRTP), (GCMD, IRE), (GCMD, 0), (GCMD, SIRTP), (GCMD, IRE)],
    [(CCMD, IVT | 1 << 61), (IOTLB, IVT | 1 << 60), (IQA, 0x8000), (GCMD, QIE), (GCMD, 0)],
    [(GCMD, SRTP), (GCMD, TE), (RTADDR, 0x7000), (GCMD, SRTP | TE)],
]  # fmt: skip


def mistakes(writes: Writes, unit: RemappingUnit | None = None) -> list[str]:
    if unit is None:
        has = capabilities(esrtps=0)
        unit = RemappingUnit(has, World(Mode.LEGACY, has).memory)
    events: list[Event] = []
    unit.subscribe(events.append)
    for offset, value in writes:
        unit.write_register(offset, 4 if offset == GCMD else 8, value)
    unit.unsubscribe(events.append)
    return [each.mistake for each in events if isinstance(each, RegisterMisused)]


@pytest.mark.parametrize(
    ("writes", "mistake"), [each[1:] for each in WRONG], ids=[w[0] for w in WRONG]
)
@pytest.mark.section("6.9", "11.4.4.1")
def test_a_rule_that_is_broken_is_told_once(writes: Writes, mistake: str) -> None:
    (told,) = mistakes(writes)
    assert told.startswith(mistake) or mistake in told
    assert not mistakes(writes[:-1])


@pytest.mark.parametrize("writes", RIGHT)
def test_software_that_keeps_the_rules_is_not_told(writes: Writes) -> None:
    assert mistakes(writes) == []


def test_the_event_names_register_and_section() -> None:
    started = World(Mode.LEGACY).start()
    started.events.clear()
    started.unit.write_register(IQA, 8, 0)
    assert not started.events
    started.unit.write_register(GCMD, 4, 0)
    started.unit.write_register(GCMD, 4, TE)
    (event,) = started.events
    assert isinstance(event, RegisterMisused)
    assert event[:2] == ("GlobalCommand", "11.4.4.1")


def test_a_copy_of_a_unit_knows_what_was_set_and_a_reset_forgets_it() -> None:
    world = World(Mode.LEGACY)
    unit = RemappingUnit(world.unit, world.memory)
    assert not mistakes([(GCMD, SRTP)], unit)
    assert not mistakes([(GCMD, TE)], pickle.loads(pickle.dumps(unit)))
    unit.reset()
    assert mistakes([(GCMD, TE)], unit)
