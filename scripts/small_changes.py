"""Small changes of a module's meaning: what stands in the place of an expression or a statement.

A comparison, a connective, a shift or a mask becomes its neighbour, a number is off by one, a flag
is inverted, a check or a call is left out. Not made, since nothing behaves differently with them:
changes of annotations and overloads, of what decorators are given (``maxsize`` of a cache), of
docstrings and other texts, of the words of an error, of ``__slots__``, and of assertions, which
always hold.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
_WITHOUT_MEANING = {"annotation", "returns", "decorator_list"}


class Change(NamedTuple):
    """One of the changes of a file, with the line that it is in and the text before and after."""

    file: str
    number: int
    line: int
    column: int
    before: str
    after: str
    declares: str
    """The name that the module gives to what holds it; empty for a statement without one."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before!r} -> {self.after!r}"

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells it from others when lines come and go above it; ``|`` is where it begins."""
        line = (ROOT / self.file).read_text().splitlines()[self.line - 1]
        marked = f"{line[: self.column]}|{line[self.column :]}"
        return self.file, marked.strip(), self.before, self.after

    def code(self) -> CodeType:
        """The module with it; other lines keep their numbers."""
        path = ROOT / self.file
        tree = ast.parse(path.read_text())
        old, new = list(_all(tree))[self.number]
        ast.copy_location(new, old)
        _Put(old, new).visit(tree)
        return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)


def changes(file: str) -> list[Change]:
    """Every small change of a file, given by its path in the repository."""
    tree = ast.parse((ROOT / file).read_text())
    declared = list(_declared(tree))
    found = []
    for number, (old, new) in enumerate(_all(tree)):
        line, column = getattr(old, "lineno", 0), getattr(old, "col_offset", 0)
        names = [name for name, lines in declared if line in lines]
        before, after = ast.unparse(old), ast.unparse(new)
        found.append(Change(file, number, line, column, before, after, "".join(names)))
    return found


def _declared(tree: ast.Module) -> Iterator[tuple[str, range]]:
    for node in tree.body:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name, lines
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, lines


def _all(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    for node in _places(tree):
        for new in _small_changes(node):
            yield node, new


def _places(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in _WITHOUT_MEANING:
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST) and not _told_only(each):
                yield each
                yield from _places(each)


def _told_only(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.AnnAssign(value=None):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.FunctionDef(decorator_list=[ast.Name(id="overload")]):
            return True
    return False


def _small_changes(node: ast.AST) -> Iterator[ast.AST]:
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


class _Put(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)
