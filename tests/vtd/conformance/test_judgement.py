"""Verdicts: broken units fail, and a unit that could not be reset is not blamed."""

from dataclasses import replace
from functools import cache

import pytest

from tests.vtd.conformance.interpreter import Machine
from tests.vtd.conformance.kits import built, judged, probed
from vtd.conformance.format import ResetProof, Status
from vtd.conformance.image import Image
from vtd.conformance.judgement import Judged, Verdict, judge
from vtd.conformance.kit import KitCase
from vtd.conformance.results import CaseResult
from vtd.conformance.score import changes, score_card
from vtd.unit.registers.capabilities import PROFILES

NOTICED = (
    "no-page-invalidation",
    "no-context-invalidation",
    "no-interrupt-invalidation",
    "no-write-check",
    "wrong-entry",
    "wrong-fault-reason",
    "wrong-fault-source",
    "wrong-fault-address",
    "no-fault-record",
    "no-fault-event",
    "no-wait-status",
    "interrupts-pass",
)
"""Defects of a unit that a few dozen cases notice; all of one kit may be about something else."""


@cache
def kit(seed: int) -> Image:
    return built(probed(), 6, "tables", "driver", "interrupts", "protocol", seed=seed)


@pytest.fixture
def image() -> Image:
    return kit(0)


@pytest.mark.parametrize("defect", NOTICED)
def test_a_broken_unit_fails(defect: str) -> None:
    machines = ((kit(seed), Machine(PROFILES["qemu"], defect)) for seed in range(0, 60, 10))
    assert any(each.failed for image, machine in machines for each in judged(image, machine))


def result(image: Image, number: int = 0) -> CaseResult:
    return passed(image)[number]


def passed(image: Image) -> list[CaseResult]:
    found = [each.result for each in judged(image, Machine(PROFILES["qemu"]))]
    return [each for each in found if each is not None]


def test_a_unit_that_was_not_reset_is_not_blamed(image: Image) -> None:
    good = result(image)
    proof = ResetProof.parse(good.output)
    for name, value in (("fault_status", 2), ("global_status", 1 << 31), ("queue_tail", 16)):
        proof_bytes = ResetProof.build({**proof, name: value})
        bad = replace(good, output=proof_bytes + good.output[ResetProof.sizeof() :])
        assert judge(bad).verdict is Verdict.INCONCLUSIVE
        assert name in judge(bad).why
    sticky = ResetProof.build({**proof, "global_status": 1 << 30 | 1 << 24})
    kept = replace(good, output=sticky + good.output[ResetProof.sizeof() :])
    assert judge(kept).passed


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (None, Verdict.FAILED),
        (Status.TIME, Verdict.FAILED),
        (Status.NO_RESET, Verdict.INCONCLUSIVE),
        (Status.CRASHED, Verdict.INCONCLUSIVE),
    ],
)
def test_how_a_case_ends_decides(image: Image, status: Status | None, verdict: Verdict) -> None:
    assert judge(replace(result(image), status=status, output=b"")).verdict is verdict


def test_a_score_card_counts_and_says_what_changed(image: Image) -> None:
    good = judged(image, Machine(PROFILES["qemu"]))
    bad = judged(image, Machine(PROFILES["qemu"], "no-write-check"))
    assert score_card(good).failed == 0
    worse = [each for each in changes(good, bad) if each.worse]
    assert len(worse) == score_card(bad).failed > 0
    assert not list(changes(good, good))
    assert any("unexplained" in line for line in score_card(bad).lines())


def test_a_case_comes_back_from_its_document(image: Image) -> None:
    for each in image.document["cases"][:5]:
        case = KitCase.from_json(each)
        assert KitCase.from_json(case.to_json()).to_json() == case.to_json()


def test_nothing_explains_a_broken_unit(image: Image) -> None:
    """A cause is a departure that does the same, not just any that differs."""
    found: list[Judged] = judged(image, Machine(PROFILES["qemu"], "wrong-fault-source"))
    failed = [each.result for each in found if each.failed and each.result is not None]
    assert judge(failed[0]).unexplained
