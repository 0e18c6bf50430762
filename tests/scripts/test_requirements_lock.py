"""The lock file: complete, exact, and the same wherever it was made."""

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = {"linux": ("Linux", "posix"), "darwin": ("Darwin", "posix"), "win32": ("Windows", "nt")}


@pytest.fixture(scope="module")
def lock() -> str:
    """The text of the lock file."""
    return (ROOT / "requirements.lock").read_text()


each_lock = pytest.mark.parametrize("name", ["requirements.lock", "requirements-docs.lock"])


def entries(lock: str) -> list[str]:
    """Its requirements, a line each, with their hashes."""
    return re.sub(r"\s*#.*", "", lock).replace("\\\n", "").strip().splitlines()


def asked_for() -> list[Requirement]:
    """What the project asks for, with every extra and to be developed."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    requirements = [
        *pyproject["build-system"]["requires"],
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
        *pyproject["dependency-groups"]["dev"],
    ]
    return [each for each in map(Requirement, requirements) if each.name != project["name"]]


def applies(requirement: Requirement, environment: dict[str, str], extra: str = "") -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate(environment | {"extra": extra})


def needed(environment: dict[str, str]) -> set[Requirement]:
    """What is asked for, and all that this needs there, as far as it is installed here."""
    found: set[Requirement] = set()
    todo = asked_for()
    while todo:
        requirement = todo.pop()
        if requirement in found:
            continue
        found.add(requirement)
        try:
            further = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            continue
        todo += [
            each
            for each in map(Requirement, further)
            if any(applies(each, environment, extra) for extra in ("", *requirement.extras))
        ]
    return found


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_is_complete_without_resolving(lock: str, python: str, system: str) -> None:
    environment = cast("dict[str, str]", default_environment()) | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": SYSTEMS[system][0],
        "os_name": SYSTEMS[system][1],
    }
    pins = [Requirement(each.split("--hash")[0]) for each in entries(lock)]
    locked = {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in pins
        if applies(each, environment)
    }
    wanted = needed(environment)
    assert len(wanted) > len(asked_for())
    for each in wanted:
        assert each.specifier.contains(locked[canonicalize_name(each.name)], prereleases=True)


def test_what_is_installed_is_what_is_locked(lock: str) -> None:
    here = cast("dict[str, str]", default_environment())
    for each in (Requirement(entry.split("--hash")[0]) for entry in entries(lock)):
        if applies(each, here):
            assert each.specifier.contains(metadata.version(each.name), prereleases=True)


@each_lock
def test_every_requirement_is_one_version_with_hashes(name: str) -> None:
    requirements = entries((ROOT / name).read_text())
    assert len(requirements) > 1
    for requirement in requirements:
        assert re.fullmatch(r"\S+==[^-]+(--hash=sha256:[0-9a-f]{64} *)+", requirement)


@each_lock
def test_no_host_and_no_machine_path_is_in_the_lock_file(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    assert not re.search(r"(?<![\w.])[/~]\w", lock)


def test_the_lock_of_the_documentation_has_what_its_group_asks_for() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    pins = entries((ROOT / "requirements-docs.lock").read_text())
    locked = [Requirement(each.split("--hash")[0]) for each in pins]
    for wanted in map(Requirement, groups["docs"]):
        versions = [each.specifier for each in locked if each.name == wanted.name]
        assert versions
        for version in versions:
            assert wanted.specifier.contains(str(version).removeprefix("=="))
