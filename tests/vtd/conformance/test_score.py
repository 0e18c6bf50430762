"""A score card tells failures that a known departure explains from those that nothing does."""

from hypothesis import given
from hypothesis import strategies as st

from vtd.conformance.judgement import Judged, Verdict
from vtd.conformance.score import score_card

KINDS = st.sampled_from(["tables", "driver"])
JUDGED = st.lists(
    st.one_of(
        st.builds(Judged, st.just("a"), KINDS, st.sampled_from(Verdict)),
        st.builds(
            Judged,
            st.just("b"),
            KINDS,
            st.just(Verdict.FAILED),
            causes=st.just(("drop_denied_hits",)),
        ),
    )
)


@given(JUDGED)
def test_every_failure_of_a_kind_is_explained_or_not(judged: list[Judged]) -> None:
    card = score_card(judged)
    for row in card.rows():
        mine = [each for each in judged if each.source == row["kind"]]
        assert row["failed"] == sum(each.failed for each in mine)
        assert row["unexplained"] == sum(each.failed and not each.causes for each in mine)


def test_the_line_of_a_kind_says_which_failures_are_explained() -> None:
    passed = [Judged("a", "driver", Verdict.PASSED)] * 4
    failed = [Judged("b", "driver", Verdict.FAILED, causes=("drop_denied_hits",))] * 2
    unexplained = [Judged("c", "driver", Verdict.FAILED)]
    lines = list(score_card(passed + failed + unexplained).lines())
    assert lines[0] == "driver      4 of 7 pass, 2 fail for known departures, 1 unexplained"
    assert next(score_card(passed).lines()) == "driver      4 of 4 pass"
