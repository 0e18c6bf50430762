"""The matrix: each cell booted on each kernel, judged, and the results kept line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path

from vtd.live.boot import Guest, Outcome, run
from vtd.live.cells import Cell
from vtd.live.judgement import findings
from vtd.live.qemu import Qemu

KIT = "conformance kit"
"""In place of the release of a kernel."""


class Verdict(StrEnum):
    """How a cell ended."""

    PASSED = "passed"
    LINUX = "Linux fault"
    """What the kernel is known to do wrong showed, and nothing else."""
    NOTICED = "noticed"
    """A negative control: the defect was found."""
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """One cell on one kernel."""

    cell: str
    kernel: str
    cpus: int
    verdict: Verdict
    checks: int
    """Checks that passed."""
    found: tuple[str, ...]
    """All findings, expected ones too."""
    unexpected: tuple[str, ...]
    """What makes the cell fail."""
    uses: int
    """Uses of cached entries that were audited."""
    faults: int
    """Requests and interrupts that were blocked."""
    seconds: float
    about: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """What is not booted again."""
        return self.cell, self.kernel, self.cpus

    def to_json(self) -> dict[str, object]:
        """As a row."""
        return asdict(self)


def judge(cell: Cell, release: str, outcome: Outcome) -> tuple[Verdict, list[str], list[str]]:
    """The verdict on a boot, what was found, and what of it was not expected."""
    found = list(findings(outcome))
    if cell.noticed:
        return (Verdict.NOTICED, found, []) if found else (Verdict.FAILED, [], ["nothing noticed"])
    if not any(verdict.state == "ok" for verdict in outcome.verdicts) and not found:
        found = ["no check was run"]
    fault = cell.expected(release)
    if fault is None:
        return (Verdict.FAILED if found else Verdict.PASSED), found, found
    everything = list(findings(outcome, None)) or found
    others = [each for each in everything if not fault.shows.search(each)]
    if not found and not cell.certain:
        return Verdict.PASSED, found, found
    recorded = (f"fault reason {each.reason:#04x}" for each in outcome.blocked)
    if not others and not fault.proof.search("\n".join([*everything, *recorded, outcome.console])):
        others.append(f"the Linux fault {fault.name} does not show")
    return (Verdict.FAILED if others else Verdict.LINUX), found, others


def boot_cell(
    cell: Cell,
    guest: Guest | Qemu,
    cpus: int,
    now: Callable[[], int],
    note: Callable[[str], None] = lambda _: None,
    keep: Callable[[Cell, Outcome], None] = lambda *_: None,
) -> Result:
    """Boot one cell and judge it; ``keep`` is given all that the guest said.

    A cell with the conformance kit wants a QEMU alone, and the extra of the fuzzer.
    """
    begin = now()
    if isinstance(guest, Qemu):
        from vtd.live.kit_run import run_kit  # noqa: PLC0415 - needs an extra

        release, outcome = KIT, run_kit(guest, cell.boot, cell.kit, now, note)
    else:
        release = guest.release
        outcome = run(guest, replace(cell.boot, cpus=cpus), now, note)
    keep(cell, outcome)
    verdict, found, unexpected = judge(cell, release, outcome)
    fault = cell.expected(release)
    return Result(
        cell.name,
        release,
        cpus,
        verdict,
        sum(each.state == "ok" for each in outcome.verdicts),
        tuple(found),
        tuple(unexpected),
        outcome.uses,
        outcome.counts.get("faults", 0),
        round((now() - begin) / 1e9, 1),
        fault.name if verdict is Verdict.LINUX and fault else cell.about,
    )


def chosen(known: dict[str, Cell], patterns: list[str]) -> list[Cell]:
    """The cells whose name matches a pattern; all without one. ValueError if one matches none."""
    if not patterns:
        return list(known.values())
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in known):
            near = ", ".join(get_close_matches(pattern, known))
            hint = f"perhaps {near}" if near else "see --list"
            raise ValueError(f"{pattern!r}: no cell of this name, {hint}")
    return [
        cell for name, cell in known.items() if any(fnmatch(name, pattern) for pattern in patterns)
    ]


def read_results(path: Path) -> Iterator[Result]:
    """The results in a file, one a line; ValueError names a line that is none."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            raw = json.loads(line)
            raw |= {"verdict": Verdict(raw["verdict"])}
            raw |= {name: tuple(raw[name]) for name in ("found", "unexpected")}
            yield Result(**raw)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: line {number}: no result: {error}") from error
