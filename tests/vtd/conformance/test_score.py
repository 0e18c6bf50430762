"""What a score card says of cases, and what changed since another one."""

from vtd.conformance.judgement import Judged, Verdict
from vtd.conformance.score import SHOWN, changes, score_card
from vtd.unit.departures import FLAGS

KNOWN = FLAGS[0]


def cases(
    verdict: Verdict, count: int, why: str = "", causes: tuple[str, ...] = ()
) -> list[Judged]:
    return [Judged(f"{verdict} {n}", "vectors", verdict, why, causes) for n in range(count)]


def test_a_card_tells_what_is_wrong_as_briefly_as_it_can() -> None:
    judged = [
        *cases(Verdict.PASSED, 5),
        *cases(Verdict.INCONCLUSIVE, 2, "silent"),
        *cases(Verdict.NOT_APPLICABLE, 3, "no PASIDs"),
        *cases(Verdict.FAILED, SHOWN + 1, "step 1"),
        Judged("known", "vectors", Verdict.FAILED, "", (KNOWN.name,)),
    ]
    card = score_card(judged)
    total = SHOWN + 9
    assert list(card.lines()) == [
        f"vectors      5 of {total} pass, 1 fail for known departures, {SHOWN + 1} unexplained, "
        "2 inconclusive",
        "3 not applicable: no PASIDs",
        "failures by cause (docs/known-differences.md):",
        f"       1 {KNOWN.name} ({KNOWN.section}), smallest: known",
        "INCONCLUSIVE inconclusive 0: silent",
        "INCONCLUSIVE inconclusive 1: silent",
        *(f"UNEXPLAINED failed {number}: step 1" for number in range(SHOWN)),
        "and 1 more that are unexplained",
        f"5 of {total} cases pass, {SHOWN + 2} fail, {SHOWN + 1} of them unexplained",
    ]
    (row,) = card.rows()
    assert (row["passed"], row["unexplained"]) == (5, SHOWN + 1)


def test_what_ends_otherwise_or_is_in_one_alone_has_changed() -> None:
    same, broke, left = cases(Verdict.PASSED, 3)
    came = Judged("came", "vectors", Verdict.PASSED)
    now = Judged(broke.name, "vectors", Verdict.FAILED)
    found = list(changes([same, broke, left], [same, now, came]))
    assert [str(each) for each in found] == [
        "passed 1: passed, now failed",
        "came: not there, now passed",
        "passed 2: passed, now not there",
    ]
    assert [each.worse for each in found] == [True, False, False]
