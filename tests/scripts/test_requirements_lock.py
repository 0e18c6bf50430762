"""The lock files: complete, exact, and the same wherever they were made."""

import re
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = {"linux": ("Linux", "posix"), "darwin": ("Darwin", "posix"), "win32": ("Windows", "nt")}


HEAVY = {"batch", "plots", "report", "tui", "all"}
"""The extras that only ``requirements-extras.lock`` has."""

COMPLETE = ["requirements.lock", "requirements-extras.lock"]
each_lock = pytest.mark.parametrize("name", [*COMPLETE, "requirements-docs.lock"])


def entries(lock: str) -> list[str]:
    """Its requirements, a line each, with their hashes."""
    return re.sub(r"\s*#.*", "", lock).replace("\\\n", "").strip().splitlines()


def pinned(name: str) -> list[Requirement]:
    """The versions in a lock file."""
    return [Requirement(each.split("--hash")[0]) for each in entries((ROOT / name).read_text())]


def asked_for(name: str) -> list[Requirement]:
    """What the project asks for to be developed, with the extras that a lock file has."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    groups = pyproject["dependency-groups"]
    left_out = HEAVY if name == "requirements.lock" else set[str]()
    extras = project["optional-dependencies"].items()
    requirements = [
        *pyproject["build-system"]["requires"],
        *project["dependencies"],
        *(each for extra, wanted in extras if extra not in left_out for each in wanted),
        *groups["dev"],
        *([] if left_out else groups["browser"]),
    ]
    return [each for each in map(Requirement, requirements) if each.name != project["name"]]


def applies(requirement: Requirement, environment: dict[str, str], extra: str = "") -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate(environment | {"extra": extra})


def needed(wanted: list[Requirement], environment: dict[str, str]) -> set[Requirement]:
    """What is asked for, and all that this needs there, as far as it is installed here."""
    found: set[Requirement] = set()
    todo = list(wanted)
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
@pytest.mark.parametrize("name", COMPLETE)
def test_a_lock_is_complete_without_resolving(name: str, python: str, system: str) -> None:
    environment = cast("dict[str, str]", default_environment()) | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": system,
        "platform_system": SYSTEMS[system][0],
        "os_name": SYSTEMS[system][1],
    }
    locked = {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in pinned(name)
        if applies(each, environment)
    }
    asked = asked_for(name)
    wanted = needed(asked, environment)
    assert len(wanted) > len(asked)
    for each in wanted:
        assert each.specifier.contains(locked[canonicalize_name(each.name)], prereleases=True)


@pytest.mark.parametrize("name", COMPLETE)
def test_what_is_installed_is_what_is_locked(name: str) -> None:
    if name != "requirements.lock" and find_spec("numba") is None:
        pytest.skip("requirements-extras.lock is not installed (scripts/setup --extras)")
    here = cast("dict[str, str]", default_environment())
    for each in pinned(name):
        if applies(each, here):
            assert each.specifier.contains(metadata.version(each.name), prereleases=True)


def test_the_lock_with_the_extras_has_the_versions_of_the_one_without() -> None:
    extended = {(each.name, str(each.marker)): each.specifier for each in pinned(COMPLETE[1])}
    for each in pinned(COMPLETE[0]):
        assert extended[each.name, str(each.marker)] == each.specifier


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
    locked = pinned("requirements-docs.lock")
    for wanted in map(Requirement, groups["docs"]):
        versions = [each.specifier for each in locked if each.name == wanted.name]
        assert versions
        for version in versions:
            assert wanted.specifier.contains(str(version).removeprefix("=="))
