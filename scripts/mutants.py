"""Plants bugs that real remapping units and drivers of them had, and shows that each is found.

Each mutant of :mod:`scripts.planted_bugs` changes one text of a copy of the packages; properties of
``vtd fuzz``, or the recorded vectors, then run on the copy until something fails. Prints who was
found by what, after how many cases and seconds of CPU; exits with 1 if one survives. With
``--as-targets`` the copy is a program outside, as a user's unit is, and ``vtd fuzz --target`` has
30 seconds for it with all its properties.
"""

from __future__ import annotations

import argparse
import ast
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import NamedTuple

from scripts.planted_bugs import MUTANTS, OF_UNITS_IN_THE_FIELD, Mutant

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vtd", "devices", "pagetables")


class Found(NamedTuple):
    """How a mutant was found."""

    by: str
    cases: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=60, help="of CPU time for each mutant, on one core"
    )
    parser.add_argument("--only", default="", help="mutants whose name has this text")
    parser.add_argument(
        "--as-targets",
        action="store_true",
        help="run vtd fuzz --target on those that units in the field had",
    )
    parser.add_argument("--report", type=Path, help="write the results to this page (Markdown)")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    if options.as_targets:
        chosen = [mutant for mutant in chosen if mutant.name in OF_UNITS_IN_THE_FIELD]
    results: list[tuple[Mutant, Found | None]] = []
    print(f"{'mutant':66} {'found by':28} {'cases':>6} {'seconds':>8}")
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            plant(mutant, Path(folder))
            if options.as_targets:
                found = fuzz(Path(folder))
            else:
                found = hunt(mutant, Path(folder), options.seconds)
        results.append((mutant, found))
        by, cases, seconds = found or ("survives", "", "")
        print(f"{mutant.name:66} {by:28} {cases:>6} {seconds:>8}", flush=True)
    killed = sum(found is not None for _, found in results)
    print(f"{killed} of {len(chosen)} mutants killed")
    if options.report is not None:
        text = page_of_targets(results) if options.as_targets else page(results, options.seconds)
        options.report.write_text(text)
    return int(killed < len(chosen))


def page(results: list[tuple[Mutant, Found | None]], seconds: float) -> str:
    """The results as a page of the documentation."""
    rows = [
        f"| {mutant.name} | `{mutant.file}` | "
        + (f"{found.by} | {found.cases} | {found.seconds} |" if found else "survives | | |")
        for mutant, found in results
    ]
    killed = sum(found is not None for _, found in results)
    return (
        "# Planted bugs\n\n"
        f"Written by `scripts/mutants --report docs/planted-bugs.md`: {killed} of {len(rows)} bugs "
        f"were found, each in {seconds:.0f} s of CPU time on one core.\n\n"
        "| bug | in | found by | cases | seconds |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n"
    )


def page_of_targets(results: list[tuple[Mutant, Found | None]]) -> str:
    """What ``vtd fuzz --target`` found, as a page of the documentation."""
    rows = [
        f"| {mutant.name} | "
        + (f"{found.by} | {found.cases} | {found.seconds} |" if found else "survives | | |")
        for mutant, found in results
    ]
    killed = sum(found is not None for _, found in results)
    return (
        "# Bugs of targets\n\n"
        "Units of emulators had these bugs. Written by `scripts/mutants --as-targets --report "
        "docs/bugs-of-targets.md`: `vtd fuzz --target command:... --jobs 1 --seconds "
        f"{FUZZED:.0f}` found {killed} of {len(rows)}, by the property named and after so many "
        "cases; seconds are CPU time of both programs, with making the failure short.\n\n"
        "| bug | found by | cases | seconds |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def plant(mutant: Mutant | None, folder: Path) -> None:
    """Copy the packages, and change one of them."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    if mutant is not None:
        (folder / mutant.file).write_text(changed(mutant))


def changed(mutant: Mutant) -> str:
    """The file with the bug; ValueError if the text is not there once, or the rest no Python."""
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.file} has the text {text.count(mutant.old)} times"
        )
    text = text.replace(mutant.old, mutant.new)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{mutant.name}: {mutant.file} is no Python: {error}") from error
    return text


def command_of(folder: Path) -> str:
    """The copy in a folder as a target of ``vtd fuzz``."""
    inside = ["env", "-C", str(folder), sys.executable, "-c", TARGET]
    return f"command:{shlex.join(inside)}"


def hunt(mutant: Mutant, folder: Path, seconds: float) -> Found | None:
    """How what the mutant names finds it; None if it does not."""
    kind, _, name = mutant.found_by.rpartition(":")
    where, words = folder, [HUNTER, name, "", str(seconds)]
    if kind == "target":
        where, words = ROOT, [HUNTER, name, command_of(folder), str(seconds / 2)]
    elif name == "vectors":
        words = [REPLAYER, str(ROOT / "tests" / "vectors")]
    try:
        run = subprocess.run(
            [sys.executable, "-c", *words],
            cwd=where,
            capture_output=True,
            text=True,
            check=False,
            timeout=20 * seconds + 60,
        )
    except subprocess.TimeoutExpired:
        return Found("hangs", 0, seconds)
    if run.returncode != 0:
        raise RuntimeError(f"{mutant.name}: {run.stderr[-2000:]}")
    words = run.stdout.split()
    return Found(words[1], int(words[2]), float(words[3])) if words[0] == "killed" else None


FUZZED = 30.0
"""Seconds for a unit that somebody wrote, as a user would give it."""


def fuzz(folder: Path) -> Found | None:
    """How ``vtd fuzz --target`` finds the copy in a folder; None if it does not."""
    words = ["--target", command_of(folder), "--seconds", str(FUZZED), "--jobs", "1"]
    before = getrusage(RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-m", "vtd.cli", "fuzz", *words, "--format", "json", "--save", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode not in (0, 1):
        raise RuntimeError(run.stderr[-2000:])
    after = getrusage(RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    document = json.loads(run.stdout)
    if not document["failures"]:
        return None
    return Found(document["failures"][0]["property"], document["cases"], round(seconds, 1))


HUNTER = """
import sys, time
from vtd.fuzz.campaign import run_until_found
from vtd.fuzz.target_names import close_targets
name, target, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
found = run_until_found(name, limit, time.process_time, target=target)
close_targets()
seconds = found.seconds * (2 if target else 1)
by = name + "," * bool(target) + "as-a-target" * bool(target)
print("killed" if found.failures else "survives", by, found.tally.cases, f"{seconds:.1f}")
"""
"""A target takes about as much CPU time as the engine that it is compared with."""
TARGET = """
import json, sys
from vtd.recordings.scenario import ScenarioRun
for line in sys.stdin:
    case = json.loads(line)
    run = ScenarioRun(case, as_recorded=False)
    print(json.dumps({"outcomes": [run.step(step)[1] for step in case["steps"]]}), flush=True)
"""
REPLAYER = """
import sys, time
from pathlib import Path
from vtd.recordings.replay import replay
for number, path in enumerate(sorted(Path(sys.argv[1]).glob("*.json.gz")), 1):
    if replay(path).mismatches:
        print("killed", path.name.split(".")[0], number, f"{time.process_time():.1f}")
        break
else:
    print("survives")
"""

if __name__ == "__main__":
    raise SystemExit(main())
