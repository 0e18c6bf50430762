"""docs/architecture.md shows the imports as they are and names what exists."""

import importlib
import re
from pathlib import Path

import pytest

from scripts.architecture import from_top

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE)))
MODULES = {
    file: importlib.import_module(file[:-3].removesuffix("/__init__").replace("/", "."))
    for file in FILES
}
NAMED_AT_FILE = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", PAGE)
NAMES = sorted(set(re.findall(r"`([A-Za-z]\w*(?:\.\w+)*)`", PAGE)))


def has(owner: object, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def test_the_picture_has_every_chapter() -> None:
    chapters = {f"vtd.unit.{path.name}" for path in (ROOT / "vtd" / "unit").glob("[a-z]*/")}
    assert chapters - {"vtd.unit.__pycache__"} <= set(from_top())


def test_the_page_follows_files_of_every_layer() -> None:
    assert {name.split("/")[0] for name in FILES} == {"vtd", "devices", "pagetables"}
    assert len(NAMED_AT_FILE) > 30


@pytest.mark.parametrize(("file", "name"), NAMED_AT_FILE)
def test_a_name_is_in_the_file_that_is_said(file: str, name: str) -> None:
    module = MODULES[file]
    assert has(module, name)
    outermost, *_ = name.split(".")
    assert getattr(module, outermost).__module__ == module.__name__


@pytest.mark.parametrize("name", NAMES)
def test_a_name_without_a_file_is_in_one_of_those_named(name: str) -> None:
    assert any(has(module, name) for module in MODULES.values())
