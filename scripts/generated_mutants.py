"""Makes small changes of the engine at random places and shows that fast tests notice them.

Each change is one of: a comparison, a connective, a shift or a mask turned into its neighbour, a
number off by one, a flag inverted, a check or a call left out. The tests of the module run on a
copy of the packages, then those of its folder, then those of the whole unit. Prints what survives;
exits with 1 if more than ``--allowed`` per cent do.
"""

from __future__ import annotations

import argparse
import ast
import copy
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vtd", "devices", "pagetables")
LINKED = ("tests", "pyproject.toml", "scripts", "docs", "README.md")
SUBJECTS = ("vtd/unit", "vtd/layouts", "pagetables")
EVERYTHING = (
    "tests/vtd/unit",
    "tests/vtd/test_spec_review.py",
    "tests/vtd/recordings/test_replay.py",
)
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


def tests_of(file: str) -> list[list[str]]:
    """Rounds of tests: of the module, of its folder, of the unit."""
    path = Path("tests") / file
    own = path.with_name(f"test_{path.name}")
    rounds = [[str(own)], [str(path.parent)], list(EVERYTHING)]
    return [each for each in rounds if all((ROOT / name).exists() for name in each)]


def noticed(change: Change, folder: Path, seconds: float) -> str:
    """The tests that fail with the change; empty if none does, or not in time.

    That those of the module come to no end is a failure.
    """
    (folder / change.file).write_text(change.text)
    for number, tests in enumerate(tests_of(change.file)):
        command = [sys.executable, "-m", "pytest", "-xq", "-n0", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return "" if number else f"{tests[0]} (no end)"
        if done.returncode:
            return tests[0]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="changes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="files whose path has this text")
    parser.add_argument("--seconds", type=float, default=600, help="for each round of tests")
    parser.add_argument("--allowed", type=float, default=3, help="per cent that may survive")
    options = parser.parse_args()
    files = sorted(path for subject in SUBJECTS for path in (ROOT / subject).rglob("*.py"))
    every = [
        (path, *change)
        for path in files
        if options.only in path.as_posix()
        for change in all_changes(path)
    ]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    survived = 0
    for path, number, which in chosen:
        change = changed(path, number, which)
        with tempfile.TemporaryDirectory() as folder:
            for package in PACKAGES:
                shutil.copytree(ROOT / package, Path(folder) / package)
            for name in LINKED:
                (Path(folder) / name).symlink_to(ROOT / name)
            by = noticed(change, Path(folder), options.seconds)
        survived += not by
        place = f"{change.file}:{change.line}"
        print(f"{place}: {change.before!r} -> {change.after!r}: {by or 'SURVIVES'}", flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{survived} of {len(chosen)} changes survive (of {len(every)} possible);"
        f" {used.ru_utime + used.ru_stime:.0f} s of CPU time"
    )
    return int(100 * survived > options.allowed * len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
