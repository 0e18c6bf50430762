"""Makes small changes of the engine at random places and shows that fast tests notice them.

The changes are those of :mod:`scripts.small_changes`. The tests run once with coverage; then each
change meets the tests that come to its line, quick ones and those beside the module first, until
one fails; most of the others come at the end, to what has survived by then. One process
collects the tests and is forked for each change, which other code of functions makes in place; a
module is imported anew only where the change is run by its import. Properties are not made small.

Prints what survives; exits with 1 if more than ``--allowed`` per cent do. What is listed in
``scripts/equivalent_changes.toml`` as a change of nothing, with its reason, is counted apart.

``--folder`` keeps the coverage and what was found. Another run goes on there: what was noticed
is not tried again, what survived meets only the tests of files that have changed since.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.machinery import SourceFileLoader
from itertools import accumulate, zip_longest
from pathlib import Path, PurePath
from types import CodeType, FunctionType
from typing import NamedTuple, TextIO

import hypothesis
import pytest
from coverage import CoverageData

from scripts.small_changes import ROOT, Change, changes

PACKAGES = ("vtd", "devices", "pagetables")
SUBJECTS = ("vtd/unit", "vtd/layouts", "pagetables")
TESTS = (
    "tests/pagetables",
    "tests/vtd/layouts",
    "tests/vtd/unit",
    "tests/vtd/test_spec_review.py",
    "tests/vtd/recordings/test_replay.py",
)
OPTIONS = ("-qq", "-s", "-n0", "-p", "no:cacheprovider", "--assert=plain")
EQUIVALENT = ROOT / "scripts" / "equivalent_changes.toml"
BY_IMPORT = "by import"
SLOW = 1.0
"""Seconds of a test that comes late."""
FEW = 20.0
"""Seconds of quick tests elsewhere that a change meets before all others."""
ERRORS = os.fdopen(os.dup(2), "w", buffering=1)
"""For what goes wrong while pytest is silent."""
MEMORY = 8 << 30
"""What a changed engine may take."""


class Coverage:
    """Which tests come to a line, and how many seconds they took, as of the first run."""

    def __init__(self, folder: Path, tests: Sequence[str]) -> None:
        known = folder / "tests.json"
        self._file = folder / "coverage"
        self.tests = tests
        sources = _digests(*PACKAGES)
        if not known.exists():
            known.write_text(json.dumps([sources, _digests("tests"), self._measured()]))
        of_what, self._tests, self.seconds = json.loads(known.read_text())
        if of_what != sources:
            raise SystemExit(f"{folder} is about other sources: give another folder")
        self._data = CoverageData(str(self._file))
        self._data.read()
        self._lines = cache(self._data.contexts_by_lineno)

    def _measured(self) -> dict[str, float]:
        measured = [f"--cov={subject.replace('/', '.')}" for subject in SUBJECTS]
        contexts = ("-vvv", "--durations=0", "--cov-context=test", "--cov-report=")
        pytest_ = (sys.executable, "-Bm", "pytest", *OPTIONS[2:-1])
        done = subprocess.run(
            [*pytest_, *contexts, *measured, *self.tests],
            cwd=ROOT, env={**os.environ, "COVERAGE_FILE": str(self._file)},
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"the tests fail without a change:\n{done.stdout[-2000:]}")
        times = re.findall(r"^(\d+\.\d+)s \w+ +(.*)$", done.stdout, re.MULTILINE)
        seconds: dict[str, float] = defaultdict(float)
        for took, test in times:
            seconds[test] += float(took)
        return seconds

    def contexts(self, file: str, lines: Iterable[int]) -> set[str]:
        """Tests that come to lines of a file; an empty name stands for an import."""
        found = self._lines(str(ROOT / file))
        return {name.partition("|")[0] for line in lines for name in found.get(line, ())}

    def fresh(self) -> set[str]:
        """Files of tests that have changed since."""
        now = _digests("tests")
        return {file for file in now if now[file] != self._tests.get(file)}


def _digests(*folders: str) -> dict[str, str]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


class Trial(NamedTuple):
    """A change, and the tests that it meets, in their order."""

    change: Change
    tests: list[str]


class Plan:
    """Which tests a change meets: those that come to its line.

    Where an import comes to it, also those that have to do with what is declared there.
    """

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._fresh = sorted(coverage.fresh())
        self._users = cache(self._find_users)

    def by_import(self, change: Change) -> bool:
        """Whether an import comes to its line."""
        return "" in self._coverage.contexts(change.file, [change.line])

    def in_tests(self, change: Change) -> bool:
        """Whether tests come to its line, and not imports alone."""
        return self._coverage.contexts(change.file, [change.line]) != {""}

    def near(self, change: Change) -> list[str]:
        """Quick tests of the module's folder."""
        return [each for each in self._quick(change) if _near(change.file, each)]

    def far(self, change: Change) -> list[str]:
        """The quickest tests elsewhere, some seconds of them."""
        return self._elsewhere(change)[0]

    def rest(self, change: Change) -> list[str]:
        """All others."""
        return self._elsewhere(change)[1] + self._ordered(change, lambda seconds: seconds > SLOW)

    def _elsewhere(self, change: Change) -> tuple[list[str], list[str]]:
        tests = [each for each in self._quick(change) if not _near(change.file, each)]
        ends = accumulate(self._coverage.seconds.get(test, 0.0) for test in tests)
        few = sum(end <= FEW for end in ends)
        return tests[:few], tests[few:]

    def fresh(self, _change: Change) -> list[str]:
        """Files of tests that are not as they were."""
        return self._fresh

    def _quick(self, change: Change) -> list[str]:
        return self._ordered(change, lambda seconds: seconds <= SLOW)

    def _ordered(self, change: Change, wanted: Callable[[float], bool]) -> list[str]:
        seconds = self._coverage.seconds
        found = self._coverage.contexts(change.file, [change.line])
        if "" in found:
            found = (found | self._users(change.declares)) - {""}
        chosen = [test for test in found if wanted(seconds.get(test, 0.0))]
        return sorted(chosen, key=lambda test: (seconds.get(test, 0.0), test))

    def _find_users(self, name: str) -> set[str]:
        """Tests that name what a module declares, or come to a line that does."""
        if not name:
            return set()
        word = re.compile(rf"\b{name}\b")
        found = set()
        for path, text in _sources():
            rows = enumerate(text.splitlines(), start=1)
            lines = [number for number, row in rows if word.search(row)]
            found |= self._coverage.contexts(path, lines)
        tests = self._coverage.seconds
        files = {test.partition("::")[0] for test in tests}
        naming = {file for file in files if word.search(_says(ROOT / file))}
        return found | {test for test in tests if test.partition("::")[0] in naming}


def _says(path: Path) -> str:
    """What a file of tests says, and the lists beside it that it reads."""
    text = path.read_text()
    lists = (each.read_text() for each in path.parent.glob("*.txt") if each.name in text)
    return "\n".join([text, *lists])


def _near(file: str, test: str) -> bool:
    return test.startswith(f"tests/{PurePath(file).parent.as_posix()}/")


@cache
def _sources() -> list[tuple[str, str]]:
    paths = [path for subject in SUBJECTS for path in (ROOT / subject).rglob("*.py")]
    return [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


class Trials:
    """Instead of pytest's loop over tests: each change meets its own, in a fork."""

    def __init__(self, trials: Sequence[Trial], seconds: dict[str, float], out: TextIO) -> None:
        self._trials, self._seconds, self._out = trials, seconds, out
        self._failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Write for each change which test failed; nothing if none did."""
        items: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            items[item.nodeid].append(item)
            if self._seconds.get(item.nodeid, 0.0) <= SLOW:
                items[item.nodeid.partition("::")[0]].append(item)
        functions = defaultdict(list)
        for each in gc.get_objects():
            if isinstance(each, FunctionType):
                functions[each.__code__.co_filename].append(each)
        gc.freeze()
        for trial in self._trials:
            chosen = [item for test in trial.tests for item in items[test]]
            put = partial(_put, functions[str(ROOT / trial.change.file)], trial.change)
            last = _last(_forked(partial(self._try, put, chosen)))
            print(last, file=self._out, flush=True)
        return True

    def _try(self, put: Callable[[], bool], items: list[pytest.Item], out: TextIO) -> None:
        """Write each test when it begins, and an empty line after the last that passes."""
        if not put():
            print(BY_IMPORT, file=out)
            return
        self.run(items, out)

    def run(self, items: list[pytest.Item], out: TextIO) -> None:
        """Run tests up to the first that fails or has no end."""
        for item, following in zip_longest(items, items[1:]):
            print(item.nodeid, file=out, flush=True)
            limit = 5 + 5 * self._seconds.get(item.nodeid, 1.0)
            signal.setitimer(signal.ITIMER_PROF, limit)  # whose signal ends the process
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                return
        print(file=out)

    def pytest_internalerror(self, excrepr: object) -> None:
        """Say what went wrong here, not in a test."""
        print(excrepr, file=ERRORS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self._failed |= report.failed


class Imported(Trials):
    """One change, in a process that has not yet imported what it changes."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Write for the change which test failed, or that they can't even be collected."""
        [(_, tests)] = self._trials
        if session.testsfailed:
            print("collection", file=self._out)
            return True
        order = {test: place for place, test in enumerate(tests)}
        known = self._seconds.keys() - order.keys()
        chosen = [item for item in session.items if item.nodeid not in known]
        chosen.sort(key=lambda item: order.get(item.nodeid, -1))
        self.run(chosen, self._out)
        return True


def _put(functions: list[FunctionType], change: Change) -> bool:
    """Give functions of a module the code of the changed one; False if none is another."""
    codes = {(code.co_qualname, code.co_firstlineno): code for code in _codes(change.code())}
    other = []
    for function in functions:
        old = function.__code__
        new = codes.get((old.co_qualname, old.co_firstlineno), old)
        if new != old:
            if new.co_freevars != old.co_freevars:
                return False
            other.append((function, new))
    for function, new in other:
        function.__code__ = new
    return bool(other)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _forked(work: Callable[[TextIO], object]) -> Iterator[str]:
    """Lines that work in a process of its own writes, and what ended it if it was a signal."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        try:
            with os.fdopen(writing, "w") as out:
                work(out)
        except BaseException:
            traceback.print_exc(file=ERRORS)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            yield line.removesuffix("\n")
    os.waitpid(process, 0)


def _last(lines: Iterator[str]) -> str:
    *_, last = lines
    return last


def _silent(*arguments: str, plugin: Trials) -> int:
    """Run pytest without its output, and without making failures small."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    default = hypothesis.settings.get_profile("default")
    hypothesis.settings.register_profile(
        "changed", default, phases=phases, database=None, derandomize=True, max_examples=50,
        deadline=None, suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    return pytest.main(
        [*OPTIONS, "--hypothesis-profile=changed", "--rootdir", str(ROOT), *arguments], [plugin]
    )


def in_place(
    trials: Sequence[Trial], seconds: dict[str, float], tests: Sequence[str]
) -> Iterator[tuple[Trial, str]]:
    """What notices each change of a function; ``BY_IMPORT`` if it is not one of a function."""

    def work(out: TextIO) -> None:
        _silent(*tests, plugin=Trials(trials, seconds, out))

    if trials:
        yield from zip(trials, _forked(work), strict=True)


def imported(trial: Trial, seconds: dict[str, float]) -> str:
    """What notices a change that an import runs."""
    files = list(dict.fromkeys(test.partition("::")[0] for test in trial.tests))

    def work(out: TextIO) -> None:
        _load_changed(trial.change)
        code = _silent(*files, plugin=Imported([trial], seconds, out))
        if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
            print("import", file=out)

    return _last(_forked(work)) if files else ""


def _load_changed(change: Change) -> None:
    """Have Python find the change where it would read the file."""
    path, code, load = str(ROOT / change.file), change.code(), SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return code if loader.path == path else load(loader, name)

    setattr(SourceFileLoader, "get_code", get_code)  # noqa: B010


class Campaign:
    """What is known of changes, from a folder, and what tests find."""

    def __init__(self, folder: Path, tests: Sequence[str]) -> None:
        self._results = folder / "results.jsonl"
        self._coverage = Coverage(folder, tests)
        self._plan = Plan(self._coverage)
        self._known: dict[str, str] = {}
        if self._results.exists():
            lines = self._results.read_text().splitlines()
            self._known = dict(json.loads(line) for line in lines)

    def survivors(self, chosen: Sequence[Change]) -> list[Change]:
        """The changes that no test notices."""
        last = [each for each in chosen if self._known.get(_key(each)) == ""]
        new = [each for each in chosen if _key(each) not in self._known]
        last = self._left(last, self._plan.fresh)
        for tests in (self._plan.near, self._plan.far, self._plan.rest):
            new = self._left(new, tests)
            print(f"{len(new)} survive the tests that are {tests.__name__}", file=sys.stderr)
        self._note((change, "") for change in new)
        return [each for each in chosen if each in {*last, *new}]

    def _left(self, met: Sequence[Change], tests: Callable[[Change], list[str]]) -> list[Change]:
        """Those that survive these tests."""
        trials = [Trial(change, tests(change)) for change in met]
        left = []
        for trial, by in self._met(trials):
            if by:
                self._note([(trial.change, by)])
            else:
                left.append(trial.change)
        return left

    def _met(self, trials: list[Trial]) -> Iterator[tuple[Trial, str]]:
        seconds = self._coverage.seconds
        of_functions: list[Trial] = []
        left: list[Trial] = []
        for trial in trials:
            (of_functions if self._plan.in_tests(trial.change) else left).append(trial)
        for trial, by in in_place(of_functions, seconds, self._coverage.tests):
            if by == BY_IMPORT or (not by and self._plan.by_import(trial.change)):
                left.append(trial)
            else:
                yield trial, by
        for trial in left:
            yield trial, imported(trial, seconds)

    def _note(self, found: Iterable[tuple[Change, str]]) -> None:
        with self._results.open("a") as out:
            for change, by in found:
                print(json.dumps([_key(change), by]), file=out)
                print(f"{change}: {by or 'SURVIVES'}", file=sys.stderr, flush=True)


def _key(change: Change) -> str:
    return f"{change.file} {change.number}"


def equivalent() -> dict[tuple[str, str, str, str], str]:
    """Why a change is none: by file, line of the source, text before and after."""
    rows = tomllib.loads(EQUIVALENT.read_text())["change"]
    return {(row["file"], row["line"], row["before"], row["after"]): row["reason"] for row in rows}


def drawn(every: Iterable[Change], count: int, seed: int) -> list[Change]:
    """Changes at random places, nearly the same ones when the engine has changed elsewhere."""
    alike: Counter[tuple[str, ...]] = Counter()
    lots: dict[Change, bytes] = {}
    for change in every:
        place = change.place
        lots[change] = hashlib.sha256(repr((seed, place, alike[place])).encode()).digest()
        alike[place] += 1
    return sorted(lots, key=lots.__getitem__)[:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="changes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="files whose path has this text")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files or folders of tests")
    parser.add_argument("--allowed", type=float, default=3, help="per cent that may survive")
    parser.add_argument("--folder", type=Path, help="where what is found stays (default: nowhere)")
    options = parser.parse_args()
    files = sorted(path for subject in SUBJECTS for path in (ROOT / subject).rglob("*.py"))
    names = [path.relative_to(ROOT).as_posix() for path in files]
    every = [change for name in names if options.only in name for change in changes(name)]
    chosen = drawn(every, options.count, options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        survived = Campaign(folder, options.tests).survivors(chosen)
    reasons = equivalent()
    unexplained = 0
    for change in survived:
        reason = reasons.get(change.place)
        unexplained += reason is None
        print(f"{change}: {reason or 'SURVIVES'}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{unexplained} of {len(chosen)} changes (of {len(every)} possible) survive, and"
        f" {len(survived) - unexplained} that change nothing;"
        f" {used.ru_utime + used.ru_stime:.0f} s of CPU time"
    )
    return int(100 * unexplained > options.allowed * len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
