"""Verdicts on three machines; what has to come out was written down from the rules first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from vtd.host.plan import PlanFile, read_plan
from vtd.host.planner import Judgement, judge, nearest
from vtd.host.rules import ONE_DEVICE, RULES, Kind
from vtd.host.surroundings import Surroundings
from vtd.machine.assembly import assemble

PLANS = Path(__file__).parents[3] / "examples" / "plans"


class Case(NamedTuple):
    """A plan, changed, and the verdicts that it has to get: kind, rule and subject."""

    name: str
    plan: str
    changes: tuple[tuple[str, str], ...]
    verdicts: tuple[tuple[str, str, str], ...]
    nearest: tuple[str, ...] | None = ()


def gets(old: str, new: str) -> tuple[tuple[str, str], ...]:
    return ((f"devices = {old}\n", f"devices = {new}\n"),)


CARD, DOCK = '["card", "card_audio"]', '["egpu", "dock_nic"]'
CASES = (
    Case("a card with all its functions", "desktop", (), ()),
    Case("a card without its audio function", "desktop", gets(CARD, '["card"]'),
         (("contradiction", "HOST-A03", "card"),), ("assign card_audio to games too",)),
    Case("graphics, by default", "desktop", gets(CARD, '["graphics"]'),
         (("refused", "HOST-R01", "graphics"),), ('graphics: policy rmrr = "relax"',)),
    Case("graphics, its region left out", "desktop",
         gets(CARD, '["graphics"]\npolicy = { rmrr = "relax" }'),
         (("note", "HOST-R01", "graphics"),)),
    Case("a USB controller, its region left out", "desktop",
         gets(CARD, '["usb"]\npolicy = { rmrr = "relax" }'), (("note", "HOST-R01", "usb"),)),
    Case("a RAID controller, whose region may not be left out", "desktop",
         gets(CARD, '["raid"]\npolicy = { rmrr = "relax" }'),
         (("refused", "HOST-R01", "raid"),), ('raid: policy rmrr = "map"',)),
    Case("a RAID controller with its region", "desktop",
         gets(CARD, '["raid"]\npolicy = { rmrr = "map" }'), (("note", "HOST-R01", "raid"),)),
    Case("guest memory over that region", "desktop",
         (*gets(CARD, '["raid"]\npolicy = { rmrr = "map" }'), ('"8 MiB" }]', '"60 MiB" }]'),
          ('"64 MiB"', '"128 MiB"')),
         (("contradiction", "HOST-R02", "raid"),),
         ("guest games: no memory from 0x3900000 to 0x390ffff",)),
    Case("more memory than there is", "desktop", (('"8 MiB" }]', '"80 MiB" }]'),),
         (("contradiction", "HOST-M01", "host"),), None),
    Case("posted interrupts where there are none", "desktop",
         gets(CARD, CARD + '\npolicy = { interrupts = "posted" }'),
         (("contradiction", "HOST-U01", "card"), ("contradiction", "HOST-U01", "card_audio")),
         ('card, card_audio: policy interrupts = "remapped"',)),
    Case("virtual functions and a disk behind a switch with ACS", "server", (), ()),
    Case("a device twice", "server", gets('["nic.vf0"]', '["nic.vf0", "disk"]'),
         (("contradiction", "HOST-A01", "disk"),), ("leave disk with the host",)),
    Case("two queues of one function for one guest", "server",
         gets('["nic.vf0"]', '["nic.vf0:q0", "nic.vf0:q1"]'),
         (("note", "HOST-A01", "nic.vf0:q1"),)),
    Case("two queues of one function", "server",
         (*gets('["nic.vf0"]', '["nic:q0"]'), *gets('["nic.vf1", "disk"]', '["nic:q1", "disk"]')),
         (("contradiction", "HOST-A04", "nic:q1"),), ("leave nic:q1 with the host",)),
    Case("the physical function of somebody else's virtual function", "server",
         gets('["nic.vf0"]', '["nic"]'), (("refused", "HOST-A05", "nic.vf1"),),
         ("leave nic.vf1 with the host",)),
    Case("what is not there", "server", gets('["nic.vf0"]', '["nic.vf7"]'),
         (("contradiction", "HOST-A01", "nic.vf7"),), ("leave nic.vf7 with the host",)),
    Case("a bridge", "server", gets('["nic.vf0"]', '["nic.vf0", "root"]'),
         (("contradiction", "HOST-A01", "root"),), ("leave root with the host",)),
    Case("a unit without interrupt remapping", "server",
         (('profile = "xeon"', 'profile = "xeon"\nset = { ir = 0, eim = 0, pi = 0, mhmv = 0 }'),
          ('interrupts = "posted"', 'interrupts = "remapped"')),
         (("refused", "HOST-I01", "nic.vf0"), ("refused", "HOST-I01", "nic.vf1"),
          ("refused", "HOST-I01", "disk")),
         ('nic.vf0: policy interrupts = "unsafe"', 'nic.vf1, disk: policy interrupts = "unsafe"')),
    Case("nested translation without a guest that has a unit", "server",
         gets('["nic.vf0"]', '["nic.vf0"]\npolicy = { stage = "nested" }'),
         (("contradiction", "HOST-U01", "nic.vf0"),), ('nic.vf0: policy stage = "second"',)),
    Case("memory beyond what the unit translates", "server",
         (("start = 0x1_0000_0000", "start = 0x8_0000_0000_0000"),),
         (("contradiction", "HOST-U02", "nic.vf1"), ("contradiction", "HOST-U02", "disk")),
         ("leave nic.vf1 with the host", "leave disk with the host")),
    Case("unmapping later", "server",
         gets('["nic.vf0"]', '["nic.vf0"]\npolicy = { invalidation = "deferred" }'),
         (("note", "HOST-N01", "nic.vf0"),)),
    Case("all of a dock", "laptop", (), ()),
    Case("half of a dock, whose switch has no ACS", "laptop", gets(DOCK, '["egpu"]'),
         (("note", "HOST-N04", "egpu"),)),
    Case("half of a dock behind a port without ACS", "laptop",
         (*gets(DOCK, '["egpu"]'), ('kind = "root_port"\nacs = true\n\n[[switch]]',
                                    'kind = "root_port"\n\n[[switch]]')),
         (("contradiction", "HOST-A03", "egpu"), ("note", "HOST-N04", "egpu")),
         ("assign dock_nic to work too",)),
    Case("the same with the ACS override", "laptop",
         (*gets(DOCK, '["egpu"]'), ('kind = "root_port"\nacs = true\n\n[[switch]]',
                                    'kind = "root_port"\n\n[[switch]]'),
          ("[[assign]]", '[policy]\nacs_override = ["downstream"]\n[[assign]]')),
         (("note", "HOST-A03", "egpu"), ("note", "HOST-N04", "egpu"))),
)  # fmt: skip


def changed(case: Case) -> PlanFile:
    text, _, _ = (PLANS / f"{case.plan}.toml").read_text().partition("[[work]]")
    for old, new in case.changes:
        assert old in text
        text = text.replace(old, new, 1)
    return read_plan(text, case.plan)


def judged(case: Case) -> tuple[Judgement, Surroundings]:
    plan, machine = changed(case)
    assert machine is not None
    around = Surroundings.of(assemble(machine))
    return judge(plan, around), around


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdicts_are_those_that_the_rules_demand(case: Case) -> None:
    judgement, around = judged(case)
    found = tuple(
        (each.kind.value, each.rule.id, each.subject)
        for each in judgement.verdicts
        if each.rule is not ONE_DEVICE
    )
    assert found == case.verdicts
    better = nearest(judgement, around)
    if judgement.works:
        assert better is not None
        assert better.changes == ()
    else:
        assert (None if better is None else better.changes) == case.nearest


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_nearest_plan_works(case: Case) -> None:
    judgement, around = judged(case)
    better = nearest(judgement, around)
    assert (better is None) == (case.nearest is None)
    if better is not None:
        assert judge(better.plan, around).works


@pytest.mark.parametrize(("plan", "told"), [("desktop", 0), ("laptop", 0), ("server", 1)])
def test_functions_of_one_device_with_two_owners_are_told(plan: str, told: int) -> None:
    judgement, _ = judged(Case("", plan, (), ()))
    notes = [each for each in judgement.verdicts if each.rule is ONE_DEVICE]
    assert [(each.kind, each.subject) for each in notes] == [(Kind.NOTE, "nic.vf1")] * told


def test_every_rule_is_met_by_a_case_or_named_here() -> None:
    met = {rule for case in CASES for _, rule, _ in case.verdicts}
    elsewhere = {
        ONE_DEVICE.id,
        "HOST-A02",
        "HOST-D01",
        "HOST-M02",
        "HOST-M03",
        "HOST-N02",
        "HOST-N03",
    }
    assert {rule.id for rule in RULES} == met | elsewhere
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_what_is_wrong_names_its_line() -> None:
    judgement, _ = judged(CASES[1])
    (verdict,) = judgement.verdicts
    text = (PLANS / "desktop.toml").read_text().splitlines()
    assert verdict.where.line is not None
    assert text[verdict.where.line - 1] == "[[assign]]"
    assert verdict.kind is Kind.CONTRADICTION
    assert "functions of one device" in verdict.text or "no ACS" in verdict.text
