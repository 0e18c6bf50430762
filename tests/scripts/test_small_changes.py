"""Small changes: which there are, and that each is the module with that change alone."""

import ast
from pathlib import Path
from types import CodeType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import small_changes
from scripts.generated_mutants import equivalent
from scripts.small_changes import ROOT, Change, changes

PATHS = sorted((ROOT / "pagetables").glob("*.py"))
FILES = [name for name in (path.relative_to(ROOT).as_posix() for path in PATHS) if changes(name)]


def of(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Change]:
    (folder / "module.py").write_text(text)
    monkeypatch.setattr(small_changes, "ROOT", folder)
    return changes("module.py")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a < b", ["a <= b"]),
        ("a is not b", ["a is b"]),
        ("a and b", ["a or b"]),
        ("a & b << c", ["a | b << c", "b >> c"]),
        ("not a", ["a"]),
        ("a = 7", ["8"]),
        ("a = True", ["False"]),
        ("f(a)", ["pass"]),
        ("if a:\n    raise Fault", ["if False:\n    raise Fault"]),
    ],
)
def test_each_kind_of_change(
    text: str, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [change.after for change in of(text, tmp_path, monkeypatch)] == made


@pytest.mark.parametrize(
    "text",
    [
        "def f(a: Literal[1]) -> Literal[2]:\n    '''Doc.'''",
        "@cache(maxsize=1)\ndef f():\n    return a",
        "a: Bits(1)",
        "raise Fault(f'{a + 1} is too much')",
        "__slots__ = ('a', *b[1:])",
        "assert a == 1",
        "if TYPE_CHECKING:\n    f(1)",
        "@overload\ndef f(a=False): ...",
    ],
)
def test_what_nothing_behaves_differently_with_is_not_changed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of(text, tmp_path, monkeypatch) == []


@given(st.sampled_from(FILES).flatmap(lambda file: st.sampled_from(changes(file))))
def test_a_changed_module_is_another_with_lines_and_names_as_they_were(change: Change) -> None:
    text = (ROOT / change.file).read_text()
    now = compile(text, str(ROOT / change.file), "exec", dont_inherit=True)
    changed = change.code()
    assert changed != now
    assert change.before != change.after
    assert (changed.co_filename, _names(changed)) == (now.co_filename, _names(now))


def _names(code: CodeType) -> list[tuple[str, int]]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    functions = [each for each in inner if "<" not in each.co_name]
    return [(code.co_qualname, code.co_firstlineno)] + [
        name for each in functions for name in _names(each)
    ]


def test_a_change_says_what_declares_it() -> None:
    found = changes("pagetables/walk.py")
    tree = ast.parse((ROOT / "pagetables/walk.py").read_text())
    declared = {
        node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    for change in found:
        if change.declares in declared:
            node = declared[change.declares]
            assert node.lineno <= change.line <= (node.end_lineno or 0)


def test_what_is_listed_as_a_change_of_nothing_is_a_change_of_the_engine() -> None:
    reasons = equivalent()
    files = {file for file, *_ in reasons}
    places = {change.place for file in files for change in changes(file)}
    assert set(reasons) <= places
    assert all(reasons.values())
