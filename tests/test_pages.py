"""What pages say of the code is there: links, files, modules, and names in them."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TOPS = "vtd|devices|pagetables|scripts|tests|examples|docs"
OURS = ("vtd", "devices", "pagetables")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def exists(dotted: str) -> bool:
    """Whether a module has this name, or a class, function or attribute in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError as error:
            if error.name is not None and not error.name.startswith(OURS):
                pytest.skip(f"{dotted} needs {error.name}: scripts/setup --extras")
            continue
        for name in parts[count:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


@page
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"(`+).*?\1", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target


@page
def test_files_that_are_named_are_there(path: Path) -> None:
    for name in re.findall(rf"`((?:{TOPS})/[\w./-]*)`", path.read_text()):
        assert (ROOT / name).exists(), name


@page
def test_modules_and_what_is_said_to_be_in_them_are_there(path: Path) -> None:
    names = re.findall(r"`((?:vtd|devices|pagetables)(?:\.\w+)+)(?=[`(])", path.read_text())
    for name in names:
        assert name.endswith((".toml", ".json")) or exists(name), name


def test_the_changelog_sends_nobody_to_what_is_not_there() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    modules = [row for row in rows if row[0].startswith("`vtd.") and "the same below" in row[1]]
    assert len(modules) > 8
    for was, now in modules:
        for module in re.findall(r"`vtd\.(\w+)`", was):
            assert exists(f"{now.split('`')[1]}.{module}"), module
    for _, now in rows:
        for module in re.findall(r"`((?:vtd|devices|pagetables)(?:\.\w+)+)`", now):
            assert exists(module), module
        for module, names in re.findall(r"^`([\w.]+)` ((?:`[\w.]+`(?:, )?)+)$", now):
            for name in re.findall(r"`([\w.]+)`", names):
                assert exists(f"{module}.{name}"), name


def test_a_name_that_is_not_there_is_noticed() -> None:
    assert exists("vtd.unit.port.UnitPort.request")
    assert not exists("vtd.unit.port.UnitPort.resolve")
    assert not exists("vtd.refill")


def test_decisions_have_numbers_of_their_own() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    for number, path in enumerate(decisions, start=1):
        assert path.name.startswith(f"{number:04}-")
        assert path.read_text().startswith(f"# {number}. ")
