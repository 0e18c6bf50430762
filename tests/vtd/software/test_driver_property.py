"""The driver against a unit that keeps all it may: devices reach what the model says, always."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vtd.software.driver_machine import SETUPS, Machine, Setup, Spoil
from vtd.software.guidance import Owed
from vtd.software.invalidation_rules import Rule

REDUNDANT = {
    Rule.ROOT_POINTER_PASID: "a unit with scalable mode loses its caches when TE is cleared",
    Rule.ROOT_ENTRY_PASID: "no PASID entry is read behind a root entry that is absent",
    Rule.ROOT_ENTRY_IOTLB: "no translation is cached behind a root entry that is absent",
    Rule.CONTEXT_ENTRY_PASID: "no PASID entry is read behind a context entry that is absent",
    Rule.PASID_DIRECTORY_IOTLB: "no translation is cached behind an absent directory entry",
    Rule.DOMAIN_REUSE_CACHE: "detaching the last user has invalidated the domain already",
    Rule.DOMAIN_REUSE_IOTLB: "detaching the last user has invalidated the domain already",
}
"""Owed by the tables, though this unit has nothing left then that the rule would remove."""
NEVER_OWED = {
    Rule.ROOT_POINTER_HPT: "the driver has no host permission tables",
    Rule.ROOT_ENTRY_DEVICE_TLB: "the driver never takes a root entry away",
    Rule.PASID_DIRECTORY_DEVICE_TLB: "the driver never takes a directory entry away",
    Rule.DOMAIN_REUSE_DEVICE_TLB: "device-TLBs lost what they had when its users were detached",
    Rule.HPT_CONTEXT: "the driver has no host permission tables",
    Rule.HPT_PASID: "the driver has no host permission tables",
    Rule.HPT_TABLES: "the driver has no host permission tables",
    Rule.HPT_REDUCED: "the driver has no host permission tables",
}
"""Owed for changes that the driver does not make."""


def finds(spoil: Spoil, seeds: int = 40) -> bool:
    """Whether one of the machines notices what is wrong with a driver."""
    for seed in range(seeds):
        for setup in SETUPS:
            try:
                Machine(setup, Random(seed), spoil).run(80)
            except AssertionError:
                return True
    return False


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
@settings(max_examples=15, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_devices_reach_what_the_driver_gave_them(setup: Setup, random: Random) -> None:
    Machine(setup, random).run(30)


@pytest.mark.parametrize("rule", [rule for rule in Rule if rule not in REDUNDANT | NEVER_OWED])
def test_a_driver_that_forgets_an_invalidation_is_found(rule: Rule) -> None:
    assert finds(lambda owed: None if owed.rule is rule else owed)


def test_every_rule_has_its_occasion() -> None:
    seen: set[Rule] = set()
    for setup in SETUPS:
        for seed in range(10):
            machine = Machine(setup, Random(seed))
            machine.run(60)
            seen |= machine.seen
    assert seen == set(Rule) - set(NEVER_OWED)


def test_a_hint_that_only_leaves_changed_is_believed() -> None:
    def hint(owed: Owed) -> Owed:
        fields = {"ih": True} if "ih" in owed.descriptor.FIELDS else {}
        return owed._replace(descriptor=owed.descriptor.replace(**fields))

    assert finds(hint)


def test_a_mask_that_is_too_small_leaves_pages() -> None:
    def narrow(owed: Owed) -> Owed:
        fields = {"am": 0} if "am" in owed.descriptor.FIELDS else {}
        return owed._replace(descriptor=owed.descriptor.replace(**fields))

    assert finds(narrow)
