"""What a project settles once: rules to select and ignore, severities that fail, known findings.

``[tool.vtd]`` of pyproject.toml or of vtd.toml, where the keys may stand at the top too, in the
current folder: ``select``, ``ignore`` (lists of beginnings of rule ids), ``fail-on``, ``baseline``,
and ``[[tool.vtd.path]]`` tables with ``match`` (a pattern of paths) and any of the first three,
which the last matching one sets for a file. Options of the command line come before all of it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from vtd.commands.reading import read_text
from vtd.dmar.report import FileFindings

FILES = ("vtd.toml", "pyproject.toml")
KEYS = {"select", "ignore", "fail-on", "baseline", "path"}
PATH_KEYS = {"match", "select", "ignore", "fail-on"}


class ConfigurationError(ValueError):
    """A configuration or baseline that can't be used; the message names the key."""


class Settings(NamedTuple):
    """What holds for one file; None for what was not set."""

    select: list[str] | None = None
    ignore: list[str] | None = None
    fail_on: str | None = None


@dataclass(frozen=True)
class Configuration:
    """The settings of a project."""

    values: Mapping[str, Any]

    @property
    def baseline(self) -> str | None:
        """File of known findings."""
        value: str | None = self.values.get("baseline")
        return value

    def settings(self, file: str) -> Settings:
        """The settings for a file."""
        found = dict(self.values)
        for each in self.values.get("path", ()):
            if fnmatch(file, each["match"]):
                found |= each
        return Settings(found.get("select"), found.get("ignore"), found.get("fail-on"))


def read_configuration(file: Path | None) -> Configuration:
    """The configuration in a file, or in the current folder; ConfigurationError if it is wrong."""
    for path in [file] if file else map(Path, FILES):
        if file or path.is_file():
            values = _table(path)
            if values is not None:
                _check(values, KEYS, str(path))
                return Configuration(values)
    return Configuration({})


def _table(path: Path) -> dict[str, Any] | None:
    try:
        data = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    tool = data.get("tool")
    found = tool.get("vtd") if isinstance(tool, dict) else None
    if isinstance(found, dict):
        return found
    return None if path.name == "pyproject.toml" else data


def _check(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for name, value in values.items():
        if name not in known:
            raise ConfigurationError(f"{where}: unknown key {name!r}")
        if name in ("select", "ignore"):
            good = isinstance(value, list) and all(isinstance(each, str) for each in value)
        elif name == "path":
            good = isinstance(value, list) and all(
                isinstance(each, dict) and isinstance(each.get("match"), str) for each in value
            )
        else:
            good = isinstance(value, str)
        if not good:
            raise ConfigurationError(f"{where}: {name} has a value of the wrong kind")
        for each in value if name == "path" else ():
            _check(each, PATH_KEYS, f"{where}: path")


Known = frozenset[tuple[str, str, str]]
"""File, rule and message of findings that are known."""


def read_baseline(file: str) -> Known:
    """The findings of a baseline, which is a report in JSON."""
    try:
        data = json.loads(read_text(file))
        return frozenset(
            (each["file"], finding["rule"], finding["message"])
            for each in data
            for finding in each["findings"]
        )
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: no report in JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{file}: no report of vtd dmar validate --format json") from error


def without_known(result: FileFindings, known: Known) -> FileFindings:
    """What a baseline does not have, and how many findings it has."""
    new = [each for each in result.findings if (result.file, each.rule, each.message) not in known]
    return result._replace(findings=new, known=len(result.findings) - len(new))
