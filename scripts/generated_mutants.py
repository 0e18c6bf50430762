"""Makes small changes of the engine at random places and shows that fast tests notice them.

Each change is one of: a comparison, a connective, a shift or a mask turned into its neighbour, a
number off by one, a flag inverted, a check or a call left out. Tests run on a copy of the packages,
and only those that come to the changed line, the quick ones of the module first; those above
``--slow`` seconds run at the end, on what has survived by then. Prints what does; exits with 1 if
more than ``--allowed`` per cent do.

``--folder`` keeps the copy and what was found. Another run goes on there: what was noticed is
not tried again, what survived is tried with the tests as they are now.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import itertools
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vtd", "devices", "pagetables")
COPIED = (*PACKAGES, "tests", "scripts", "docs", "pyproject.toml", "README.md")
SUBJECTS = ("vtd/unit", "vtd/layouts", "pagetables")
TESTS = (
    "tests/pagetables",
    "tests/vtd/layouts",
    "tests/vtd/unit",
    "tests/vtd/test_spec_review.py",
    "tests/vtd/recordings/test_replay.py",
)
NO_SUCH_TEST = 4
"""Exit code of pytest."""
BATCHES = (0, 20, 200, None)
"""Where the first, quickest tests end that run together, and the next; each costs an import."""
PYTEST = (sys.executable, "-Bm", "pytest", "-q", "-n0", "-p", "no:cacheprovider")
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip


class Change(NamedTuple):
    """A changed statement of a file."""

    file: str
    line: int
    before: str
    after: str
    text: str
    """The whole file with it."""


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Each small change of a node, as what stands in its place."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            yield _with(node, ops=[_COMPARISONS[type(op)]()])
        case ast.BoolOp():
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.BinOp() if type(node.op) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(node.op)]())
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Constant(value=bool()):
            yield _with(node, value=not node.value)
        case ast.Constant(value=int(number)):
            yield _with(node, value=number + 1)
        case ast.If(body=[ast.Return() | ast.Raise() | ast.Continue() | ast.Break()], orelse=[]):
            yield _with(node, test=ast.Constant(False))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def places(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below one that run, so no annotations."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield each
                yield from places(each)


class _Put(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


def all_changes(path: Path) -> list[tuple[int, int]]:
    """Number of the node and of its change, for each small change of a file."""
    return [
        (number, which)
        for number, node in enumerate(places(ast.parse(path.read_text())))
        for which, _ in enumerate(changes(node))
    ]


def changed(path: Path, number: int, which: int) -> Change:
    """The file with one of these."""
    tree = ast.parse(path.read_text())
    old = list(places(tree))[number]
    new = list(changes(old))[which]
    before, after, line = ast.unparse(old), ast.unparse(new), getattr(old, "lineno", 0)
    ast.fix_missing_locations(ast.copy_location(new, old))
    _Put(old, new).visit(tree)
    name = path.relative_to(ROOT).as_posix()
    return Change(name, line, before, after, ast.unparse(ast.fix_missing_locations(tree)))


class Suite:
    """The tests, on a copy of the packages in a folder: which come to a line, and their seconds."""

    def __init__(self, folder: Path, slow: float) -> None:
        self._folder = folder
        self._slow = slow
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
            else:
                shutil.copy2(ROOT / name, folder / name)
        digest = hashlib.sha256()
        for name in (*PACKAGES, "tests"):
            for path in sorted((folder / name).rglob("*.py")):
                digest.update(path.read_bytes())
        known, of_what = folder / "seconds.json", ""
        self._seconds: dict[str, float] = {}
        if known.exists():
            of_what, self._seconds = json.loads(known.read_text())
        if of_what != digest.hexdigest():
            self._seconds = self._run_all()
            known.write_text(json.dumps([digest.hexdigest(), self._seconds]))
        self._data = CoverageData(str(folder / ".coverage"))
        self._data.read()

    def _run_all(self) -> dict[str, float]:
        measured = [f"--cov={subject.replace('/', '.')}" for subject in SUBJECTS]
        contexts = ("-vv", "--durations=0", "--cov-context=test", "--cov-report=")
        done = subprocess.run(
            [*PYTEST, *contexts, *measured, *TESTS],
            cwd=self._folder, capture_output=True, check=False, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"the tests fail without a change:\n{done.stdout[-2000:]}")
        times = re.findall(r"^(\d+\.\d+)s call +(.*)$", done.stdout, re.MULTILINE)
        return {test: float(seconds) for seconds, test in times}

    def tests_of(self, change: Change, *, slow: bool) -> list[str]:
        """The quick tests that come to the changed line, or to what is declared there.

        ``slow``: the slow ones instead, and for a declaration all others too.
        """
        contexts = self._contexts(change.file, {change.line})
        tests = contexts - {""}
        if "" in contexts:
            tests |= self._users(change)
        quick = {test for test in tests if self._seconds.get(test, 0.0) <= self._slow}
        if slow:
            tests = (self._seconds.keys() if "" in contexts else tests) - quick
        return sorted(tests if slow else quick, key=lambda test: self._rank(change.file, test))

    def _contexts(self, file: str, lines: set[int]) -> set[str]:
        """Tests that come to lines of a file; an empty name stands for its import."""
        found = self._data.contexts_by_lineno(str(self._folder / file))
        names = (name for line in lines for name in found.get(line, ()))
        return {name.partition("|")[0] for name in names}

    def _users(self, change: Change) -> set[str]:
        """Tests that name what is declared at a line, or come to a line that does."""
        tree = ast.parse((self._folder / change.file).read_text())
        names = [name for name, node in _declared(tree) if _holds(node, change.line)]
        if not names:
            return set()
        word = re.compile(rf"\b(?:{'|'.join(names)})\b")
        found = set()
        for subject in SUBJECTS:
            for path in (self._folder / subject).rglob("*.py"):
                rows = enumerate(path.read_text().splitlines(), start=1)
                lines = {number for number, row in rows if word.search(row)}
                found |= self._contexts(path.relative_to(self._folder).as_posix(), lines)
        files = {_file(test) for test in self._seconds}
        naming = {file for file in files if word.search((self._folder / file).read_text())}
        return found - {""} | {test for test in self._seconds if _file(test) in naming}

    def _rank(self, file: str, test: str) -> float:
        """Its seconds, of which those of tests beside the file count less."""
        path = Path("tests") / file
        own = path.with_name(f"test_{path.name}").as_posix()
        near = test.startswith(f"{path.parent.as_posix()}/")
        weight = 0.1 if test.startswith(own) else 0.3 if near else 1
        return weight * self._seconds.get(test, 0.0)

    def noticed(self, change: Change, *, slow: bool = False) -> str:
        """The quick test that fails with the change, or has no end; empty if all pass.

        ``slow``: the other tests instead.
        """
        tests = self.tests_of(change, slow=slow)
        place = self._folder / change.file
        kept = place.rename(place.with_suffix(".kept"))
        place.write_text(change.text)
        try:
            for start, end in itertools.pairwise(BATCHES):
                by = self._first_failure(tests[start:end])
                if by:
                    return by
        finally:
            kept.replace(place)
        return ""

    def _first_failure(self, tests: list[str]) -> str:
        if not tests:
            return ""
        limit = 20 + int(2 * sum(self._seconds.get(test, 0.0) for test in tests))
        code, failed = self._run(tests, limit)
        if code == NO_SUCH_TEST:  # the change is part of a test's name
            code, failed = self._run(list(dict.fromkeys(_file(test) for test in tests)), limit)
        return (failed or f"exit {code}") if code else ""

    def _run(self, tests: list[str], limit: int) -> tuple[int, str]:
        """The exit code, and the first test that fails; ``limit`` is in seconds of CPU time."""
        names = self._folder / "tests.txt"
        names.write_text("\n".join(tests))
        done = subprocess.run(
            ["sh", "-c", 'ulimit -t "$0"; exec "$@"', str(limit), *PYTEST, "-x", f"@{names}"],
            cwd=self._folder, capture_output=True, check=False, text=True,
        )  # fmt: skip
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return done.returncode, failed[1] if failed else ""


def _file(test: str) -> str:
    return test.partition("::")[0]


def _declared(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """What a module declares, by name."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name, node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="changes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="files whose path has this text")
    parser.add_argument("--allowed", type=float, default=3, help="per cent that may survive")
    parser.add_argument("--slow", type=float, default=1, help="seconds of a test that comes late")
    parser.add_argument("--folder", type=Path, help="where what is found stays (default: nowhere)")
    options = parser.parse_args()
    files = sorted(path for subject in SUBJECTS for path in (ROOT / subject).rglob("*.py"))
    every = [
        (path, *change)
        for path in files
        if options.only in path.as_posix()
        for change in all_changes(path)
    ]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    chosen_changes = [changed(*each) for each in chosen]  # before anybody edits the files
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        survived = len(survivors(chosen_changes, folder, options.slow))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{survived} of {len(chosen)} changes survive (of {len(every)} possible);"
        f" {used.ru_utime + used.ru_stime:.0f} s of CPU time"
    )
    return int(100 * survived > options.allowed * len(chosen))


def survivors(changes: Sequence[Change], folder: Path, slow: float) -> list[Change]:
    """What no test notices; what the folder knows to be noticed is not tried again."""
    results = folder / "results.jsonl"
    known = {}
    if results.exists():
        for line in results.read_text().splitlines():
            *key, by = json.loads(line)
            known[tuple(key)] = by
    suite = Suite(folder, slow)

    def noticed(change: Change, *, slow: bool) -> str:
        key = change[:4]
        by = known.get(key)
        if not by:
            by = suite.noticed(change, slow=slow)
            with results.open("a") as out:
                print(json.dumps([*key, by]), file=out)
        what = by or ("SURVIVES" if slow else "survives the quick tests")
        place = f"{change.file}:{change.line}"
        print(f"{place}: {change.before!r} -> {change.after!r}: {what}", flush=True)
        return by

    survived_last = sorted(changes, key=lambda change: known.get(change[:4]) == "")
    left = [change for change in survived_last if not noticed(change, slow=False)]
    return [change for change in left if not noticed(change, slow=True)]


if __name__ == "__main__":
    raise SystemExit(main())
