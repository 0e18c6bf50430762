"""The score card of a unit, and what changed since an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vtd.conformance.judgement import Judged, Verdict
from vtd.fuzz.departures import UNFOLLOWED
from vtd.unit.departures import FLAGS

SECTIONS = {
    **{each.name: (each.section, each.specified) for each in FLAGS},
    **{each.name: (each.section, each.specified) for each in UNFOLLOWED},
}
"""Of each departure: where the specification is, and what it says."""

SHOWN = 20
"""Cases that are listed one by one."""


class Cause(NamedTuple):
    """A departure, and the cases that fail for it, alone or with others."""

    name: str
    section: str
    specified: str
    cases: int
    smallest: str
    """The name of the case with fewest steps, of those that fail for nothing else if there are."""


class Change(NamedTuple):
    """A case that ends otherwise than before."""

    name: str
    before: str
    now: str

    @property
    def worse(self) -> bool:
        """Whether it fails, and did not."""
        return self.now == Verdict.FAILED

    def __str__(self) -> str:
        return f"{self.name}: {self.before}, now {self.now}"


@dataclass(frozen=True)
class ScoreCard:
    """Counts by kind of case, and the causes of failures."""

    counts: dict[str, Counter[Verdict]]
    causes: list[Cause]
    unexplained: list[Judged]
    inconclusive: list[Judged]
    not_applicable: Counter[str]

    @property
    def failed(self) -> int:
        """Cases that failed."""
        return sum(each[Verdict.FAILED] for each in self.counts.values())

    def rows(self) -> list[dict[str, object]]:
        """A row for each kind."""
        return [
            {
                "kind": kind,
                **{str(verdict): count[verdict] for verdict in Verdict},
                "unexplained": self._unexplained(kind),
            }
            for kind, count in self.counts.items()
        ]

    def _unexplained(self, kind: str) -> int:
        return sum(each.source == kind for each in self.unexplained)

    def cause_rows(self) -> list[dict[str, object]]:
        """A row for each cause."""
        return [each._asdict() for each in self.causes]

    def lines(self) -> Iterator[str]:
        """For people."""
        width = max([len(kind) for kind in self.counts], default=0)
        for kind, count in self.counts.items():
            total, unexplained = sum(count.values()), self._unexplained(kind)
            shown = {
                "fail for known departures": count[Verdict.FAILED] - unexplained,
                "unexplained": unexplained,
                "inconclusive": count[Verdict.INCONCLUSIVE],
            }
            more = "".join(f", {number} {what}" for what, number in shown.items() if number)
            yield f"{kind:{width}} {count[Verdict.PASSED]:6} of {total} pass{more}"
        for why, number in self.not_applicable.most_common():
            yield f"{number} not applicable: {why}"
        if self.causes:
            yield "failures by cause (docs/known-differences.md):"
        for each in self.causes:
            yield f"  {each.cases:6} {each.name} ({each.section}), smallest: {each.smallest}"
        for what, listed in (
            ("INCONCLUSIVE", self.inconclusive),
            ("UNEXPLAINED", self.unexplained),
        ):
            for judged in listed[:SHOWN]:
                yield f"{what} {judged.name}: {judged.why}"
            if len(listed) > SHOWN:
                yield f"and {len(listed) - SHOWN} more that are {what.lower()}"
        total = sum(sum(count.values()) for count in self.counts.values())
        passed = sum(count[Verdict.PASSED] for count in self.counts.values())
        yield (
            f"{passed} of {total} cases pass, {self.failed} fail, "
            f"{len(self.unexplained)} of them unexplained"
        )


def score_card(judged: Sequence[Judged]) -> ScoreCard:
    """The counts."""
    counts: dict[str, Counter[Verdict]] = {}
    for each in judged:
        if each.verdict is not Verdict.NOT_APPLICABLE:
            counts.setdefault(each.source, Counter())[each.verdict] += 1
    left = Counter(each.why for each in judged if each.verdict is Verdict.NOT_APPLICABLE)
    inconclusive = [each for each in judged if each.verdict is Verdict.INCONCLUSIVE]
    unexplained = [each for each in judged if each.unexplained]
    return ScoreCard(counts, list(_causes(judged)), unexplained, inconclusive, left)


def _causes(judged: Sequence[Judged]) -> Iterator[Cause]:
    number = Counter(name for each in judged for name in each.causes)
    for name, cases in number.most_common():
        failing = [each for each in judged if name in each.causes]
        smallest = min(failing, key=lambda each: (len(each.causes), _steps(each)))
        yield Cause(name, *SECTIONS.get(name, ("", "")), cases, smallest.name)


def _steps(judged: Judged) -> int:
    return 0 if judged.result is None else len(judged.result.case.case.steps)


def changes(before: Sequence[Judged], now: Sequence[Judged]) -> Iterator[Change]:
    """Cases of both that end otherwise, and those that only one has."""
    earlier = {each.name: each.verdict for each in before}
    for each in now:
        was = earlier.pop(each.name, None)
        if was is not each.verdict:
            yield Change(each.name, str(was or "not there"), str(each.verdict))
    for name, verdict in earlier.items():
        yield Change(name, str(verdict), "not there")
