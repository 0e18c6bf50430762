"""The lock file: complete, exact, and the same wherever it was made."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lock() -> str:
    """The text of the lock file."""
    return (ROOT / "requirements.lock").read_text()


def normalized(requirement: str) -> str:
    """The name in a requirement, spelled as the lock file spells it."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_of_the_project_is_locked(lock: str) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    wanted = [
        *pyproject["build-system"]["requires"],
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
        *pyproject["dependency-groups"]["dev"],
    ]
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {normalized(requirement) for requirement in wanted} - {"vtd"} <= locked


def test_every_requirement_is_one_version_with_hashes(lock: str) -> None:
    without_comments = re.sub(r"\s*#.*", "", lock)
    requirements = without_comments.replace("\\\n", "").strip().splitlines()
    assert len(requirements) > 1
    for requirement in requirements:
        assert re.fullmatch(r"\S+==[^-]+(--hash=sha256:[0-9a-f]{64} *)+", requirement)


def test_no_host_and_no_machine_path_is_in_the_lock_file(lock: str) -> None:
    assert "://" not in lock
    assert not re.search(r"(?<![\w.])[/~]\w", lock)
