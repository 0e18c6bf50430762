"""Forty wrong drivers, each found by the audit, and the right one, which is not.

A rule is forgotten, or what it calls for is weakened: a narrower range, another tag, a hint that
does not hold, the wrong order, or no waiting. The audit alone decides; what devices reach does not
count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.vtd.software.driver_machine import SETUPS, Machine, Setup, Spoil, correct, in_order
from vtd.layouts.descriptors import (
    ContextCacheInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
)
from vtd.software.guidance import Owed
from vtd.software.invalidation_rules import Rule

CC, PC, IOTLB, P_IOTLB, DEV, P_DEV, IEC = (
    ContextCacheInvalidateDescriptor,
    PasidCacheInvalidateDescriptor,
    IotlbInvalidateDescriptor,
    PasidIotlbInvalidateDescriptor,
    DeviceTlbInvalidateDescriptor,
    PasidDeviceTlbInvalidateDescriptor,
    InterruptEntryCacheInvalidateDescriptor,
)


class Bug(NamedTuple):
    """A way of being wrong."""

    spoil: Spoil = correct
    reorder: Callable[[list[Owed]], list[Owed]] = in_order
    waits: bool = True


def forget(*rules: Rule) -> Bug:
    return Bug(lambda owed: None if owed.rule in rules else owed)


def weaken(kinds: tuple[type, ...], change: Callable[[Any], dict[str, int]]) -> Bug:
    """Descriptors of these kinds with other fields."""

    def spoil(owed: Owed) -> Owed:
        if not isinstance(owed.descriptor, kinds):
            return owed
        return owed._replace(descriptor=owed.descriptor.replace(**change(owed.descriptor)))

    return Bug(spoil)


def last(*kinds: type) -> Bug:
    """Descriptors of these kinds after all others."""
    return Bug(
        reorder=lambda owed: sorted(owed, key=lambda each: isinstance(each.descriptor, kinds))
    )


def first(*kinds: type) -> Bug:
    """Descriptors of these kinds before all others."""
    return Bug(
        reorder=lambda owed: sorted(owed, key=lambda each: not isinstance(each.descriptor, kinds))
    )


def only_one(*kinds: type) -> Bug:
    """Of several such descriptors the first alone."""

    def reorder(owed: list[Owed]) -> list[Owed]:
        kept = [each for each in owed if isinstance(each.descriptor, kinds)][:1]
        return [each for each in owed if each in kept or not isinstance(each.descriptor, kinds)]

    return Bug(reorder=reorder)


FORGOTTEN = (
    Rule.ROOT_POINTER_CONTEXT,
    Rule.ROOT_POINTER_IOTLB,
    Rule.ROOT_ENTRY_CONTEXT,
    Rule.CONTEXT_ENTRY_CONTEXT,
    Rule.CONTEXT_ENTRY_IOTLB,
    Rule.CONTEXT_ENTRY_DEVICE_TLB,
    Rule.PASID_DIRECTORY_PASID,
    Rule.PASID_ENTRY_PASID,
    Rule.PASID_ENTRY_DOMAIN_IOTLB,
    Rule.PASID_ENTRY_IOTLB,
    Rule.PASID_ENTRY_DEVICE_TLB,
    Rule.FIRST_STAGE_IOTLB,
    Rule.FIRST_STAGE_DEVICE_TLB,
    Rule.SECOND_STAGE_IOTLB,
    Rule.SECOND_STAGE_DEVICE_TLB,
    Rule.INTERRUPT_POINTER,
    Rule.INTERRUPT_ENTRY,
)
BUGS: dict[str, Bug] = {
    **{f"forgets {rule.name}": forget(rule) for rule in FORGOTTEN},
    "second stage: IH always": weaken((IOTLB,), lambda each: {"ih": True}),
    "first stage: IH always": weaken((P_IOTLB,), lambda each: {"ih": True}),
    "second stage: AM = 0": weaken((IOTLB,), lambda each: {"am": 0}),
    "first stage: AM = 0": weaken((P_IOTLB,), lambda each: {"am": 0}),
    "second stage: AM one too small": weaken((IOTLB,), lambda each: {"am": max(each.am - 1, 0)}),
    "first stage: AM one too small": weaken((P_IOTLB,), lambda each: {"am": max(each.am - 1, 0)}),
    "second stage: the page before": weaken(
        (IOTLB,), lambda each: {"addr": each.addr - 0x1000 & (1 << 64) - 0x1000}
    ),
    "first stage: the page before": weaken(
        (P_IOTLB,), lambda each: {"addr": each.addr - 0x1000 & (1 << 64) - 0x1000}
    ),
    "first stage: 32 bits of the address": weaken(
        (P_IOTLB,), lambda each: {"addr": each.addr & 0xFFFF_F000}
    ),
    "second stage: one range of several": only_one(IOTLB),
    "first stage: one range of several": only_one(P_IOTLB),
    "context cache: another function": weaken((CC,), lambda each: {"sid": each.sid ^ 1}),
    "context cache: another domain-id": weaken((CC,), lambda each: {"did": each.did ^ 1}),
    "PASID cache: another domain-id": weaken((PC,), lambda each: {"did": each.did ^ 1}),
    "PASID cache: another PASID": weaken((PC,), lambda each: {"pasid": each.pasid ^ 1}),
    "IOTLB: another domain-id": weaken((IOTLB,), lambda each: {"did": each.did ^ 1}),
    "IOTLB of a PASID: another PASID": weaken((P_IOTLB,), lambda each: {"pasid": each.pasid ^ 1}),
    "device-TLB: 4 KiB only": weaken(
        (DEV, P_DEV), lambda each: {"s": False, "addr": each.addr & ~0xFFF}
    ),
    "device-TLB: another function": weaken((DEV, P_DEV), lambda each: {"sid": each.sid ^ 1}),
    "device-TLB: another PASID": weaken((P_DEV,), lambda each: {"pasid": each.pasid ^ 1}),
    "interrupt entries: the one before": weaken((IEC,), lambda each: {"iidx": each.iidx ^ 1}),
    "IOTLB before the caches that tag it": first(IOTLB, P_IOTLB),
    "device-TLB before the IOTLB": first(DEV, P_DEV),
    "context cache after the others": last(CC),
    "frames are given back without waiting": Bug(waits=False),
}


def audited(
    bug: Bug, setups: tuple[Setup, ...], seeds: int, steps: int, every: int
) -> Iterator[Machine]:
    """Machines of the driver with a bug, at intervals until what they do makes no sense any more.

    ``every`` is the number of steps from one look to the next.
    """
    for seed in range(seeds):
        for setup in setups:
            random = Random(f"{setup.name} {seed}")  # another story for each setup
            machine = Machine(setup, random, bug.spoil, reorder=bug.reorder, waits=bug.waits)
            for _ in range(steps // every):
                try:
                    for _ in range(every):
                        random.choice(machine.steps)()
                except AssertionError:  # a device reached what it should not, or not what it should
                    yield machine
                    break
                yield machine


@pytest.mark.parametrize("name", BUGS)
def test_the_audit_finds_a_planted_bug(name: str) -> None:
    scalable = "PASID" in name or "first stage" in name or "FIRST_STAGE" in name
    likely = sorted(  # first where most is cached
        SETUPS,
        key=lambda setup: (
            setup.scalable is not scalable,
            not setup.device_tlbs,
            "cm" not in setup.changes,
        ),
    )
    machines = audited(BUGS[name], tuple(likely), seeds=10, steps=300, every=30)
    found = (debt for machine in machines for debt in machine.audit.findings)
    assert next(found, None) is not None


def test_there_are_forty() -> None:
    assert len(BUGS) >= 40


@pytest.mark.slow
def test_nothing_is_found_in_the_intact_driver() -> None:
    operations = 0
    for seed in range(400):
        for setup in SETUPS:
            Machine(setup, Random(seed)).run(200)
            operations += 200
    assert operations > 1_000_000
