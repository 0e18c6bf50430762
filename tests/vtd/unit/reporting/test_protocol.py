"""Software that writes registers against the rules is told so; software that keeps them is not."""

from __future__ import annotations

import pickle

import pytest

from tests.support.world import Mode, World, capabilities
from vtd.layouts.registers import GlobalCommand
from vtd.unit.reporting.events import Event, RegisterMisused
from vtd.unit.unit import RemappingUnit

TE, SRTP, QIE, IRE, SIRTP = (
    GlobalCommand.FIELDS[name].mask for name in ("te", "srtp", "qie", "ire", "sirtp")
)
GCMD, RTADDR, CCMD, IQT, IQA, IRTA, IOTLB = 0x18, 0x20, 0x28, 0x88, 0x90, 0xB8, 0x508
PMEN, PLMBASE, PLMLIMIT, PHMBASE, PHMLIMIT = 0x64, 0x68, 0x6C, 0x70, 0x78
EIME, EPM = 1 << 11, 1 << 31
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
    (
        "IRE again without SIRTP",
        [(GCMD, SIRTP), (GCMD, IRE), (GCMD, 0), (GCMD, IRE)],
        "IRE is set with no",
    ),
    ("tail left", [(IQT, 0x20), (GCMD, QIE)], "QIE is set with a tail"),
    (
        "queue not empty",
        [(IQA, 1 << 40), (GCMD, QIE), (IQT, 0x20), (GCMD, 0)],
        "QIE is cleared before",
    ),
    ("mode switched", [(GCMD, SRTP), (GCMD, TE), (RTADDR, 1 << 10)], "TTM or SSIRWE is changed"),
    ("queue moved", [(GCMD, QIE), (IQA, 0x8000)], "the queue is moved"),
    ("context command", [(GCMD, QIE), (CCMD, IVT | 1 << 61)], "by register beside the queue"),
    ("mode of interrupts", [(GCMD, SIRTP), (GCMD, IRE), (IRTA, EIME)], "EIME is changed while"),
    *(
        (
            f"protected region {offset:x}",
            [(PMEN, EPM), (offset, 0x20_0000)],
            "a protected region is",
        )
        for offset in (PLMBASE, PLMLIMIT, PHMBASE, PHMLIMIT)
    ),
    ("IOTLB command", [(GCMD, QIE), (IOTLB, IVT | 1 << 60)], "by register beside the queue"),
]
RIGHT: list[Writes] = [
    [(RTADDR, 0x1000), (GCMD, SRTP), (GCMD, TE), (GCMD, TE | SRTP), (GCMD, 0)],
    [(GCMD, SRTP), (GCMD, TE), (GCMD, 0), (GCMD, SRTP), (GCMD, TE), (GCMD, TE)],
    [(GCMD, SIRTP), (GCMD, IRE), (GCMD, 0), (GCMD, SIRTP), (GCMD, IRE)],
    [(IRTA, EIME), (GCMD, SIRTP), (GCMD, IRE), (IRTA, 0x4000 | EIME), (GCMD, 0), (IRTA, 0)],
    [(PLMBASE, 0x20_0000), (PHMLIMIT, 0x20_0000), (PMEN, EPM), (PMEN, 0), (PHMBASE, 0x20_0000)],
    [(CCMD, IVT | 1 << 61), (IOTLB, IVT | 1 << 60), (IQA, 0x8000), (GCMD, QIE), (GCMD, 0)],
    [(GCMD, SRTP), (GCMD, TE), (RTADDR, 0x7000), (GCMD, SRTP | TE)],
    [(GCMD, QIE), (CCMD, 1 << 61), (IOTLB, 1 << 60)],
]  # fmt: skip


def plain_unit() -> RemappingUnit:
    has = capabilities(esrtps=0, plmr=1, phmr=1, eim=1)
    return RemappingUnit(has, World(Mode.LEGACY, has).memory)


def mistakes(writes: Writes, unit: RemappingUnit | None = None) -> list[str]:
    unit = unit or plain_unit()
    events: list[Event] = []
    unit.subscribe(events.append)
    for offset, value in writes:
        unit.write_register(offset, 4 if offset in (GCMD, PMEN, PLMBASE, PLMLIMIT) else 8, value)
    unit.unsubscribe(events.append)
    return [each.mistake for each in events if isinstance(each, RegisterMisused)]


@pytest.mark.parametrize(
    ("writes", "mistake"), [each[1:] for each in WRONG], ids=[w[0] for w in WRONG]
)
@pytest.mark.section("6.9", "11.4.4.1", "11.4.8.2", "11.4.8.3", "11.4.8.4", "11.4.8.5", "11.4.10")
def test_a_rule_that_is_broken_is_told_once(writes: Writes, mistake: str) -> None:
    (told,) = mistakes(writes)
    assert told.startswith(mistake) or mistake in told
    assert not mistakes(writes[:-1])


@pytest.mark.section("11.4.10")
def test_a_unit_that_needs_extended_mode_is_told_of_a_table_without_it() -> None:
    has = capabilities(eim=1, eimer=1)
    unit = RemappingUnit(has, World(Mode.LEGACY, has).memory)
    assert mistakes([(IRTA, EIME), (GCMD, SIRTP), (IRTA, 0)], unit) == []
    assert mistakes([(GCMD, SIRTP)], unit) == ["SIRTP is set without EIME, which EIMER asks for"]


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


@pytest.mark.parametrize("one_shot", ["srtp", "sirtp", "wbf"])
@pytest.mark.parametrize("function", ["te", "qie", "ire", "cfi"])
@pytest.mark.section("11.4.4.1")
def test_no_one_shot_command_goes_with_another_function(one_shot: str, function: str) -> None:
    told, *_ = mistakes([(GCMD, GlobalCommand.of(**{one_shot: True, function: True}))])
    assert told.endswith(", ".join(sorted((one_shot.upper(), function.upper()))))
