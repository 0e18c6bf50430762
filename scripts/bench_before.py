"""The cases of :mod:`scripts.bench` at another revision beside those of this tree, in turns.

Each round runs the benchmark of the other revision in a work tree of its own, and then this one,
with the same interpreter and packages. A case is compared by its name.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

Costs = dict[str, float]
"""Multiples of an empty call, by case."""


class RevisionError(ValueError):
    """There is no such revision, or it has no benchmark that can run."""


class Change(NamedTuple):
    """A case before and after, in multiples of an empty call; None where there is no such case."""

    name: str
    before: float | None
    after: float | None

    @property
    def times(self) -> float | None:
        """How many times as fast it has become."""
        return None if not (self.before and self.after) else self.before / self.after


def compare(revision: str, rounds: int, progress: Callable[[str], None]) -> list[Change]:
    """The medians over ``rounds`` rounds; RevisionError if the revision can't be measured."""
    before: list[Costs] = []
    after: list[Costs] = []
    with work_tree(revision) as tree:
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            before.append(costs(tree))
            after.append(costs(ROOT))
    return changes(before, after)


def changes(before: list[Costs], after: list[Costs]) -> list[Change]:
    """The cases of this tree in their order, then those that only the other revision has."""
    names = dict.fromkeys(name for each in (*after, *before) for name in each)
    return [Change(name, _median(before, name), _median(after, name)) for name in names]


def _median(runs: list[Costs], name: str) -> float | None:
    values = [run[name] for run in runs if name in run]
    return statistics.median(values) if values else None


@contextmanager
def work_tree(revision: str) -> Iterator[Path]:
    """The files of a revision for as long as they are needed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        done = _git("worktree", "add", "--detach", str(tree), revision)
        if done.returncode:
            raise RevisionError(f"{revision}: {_last_line(done.stderr)}")
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def costs(tree: Path) -> Costs:
    """One round of the benchmark in a tree."""
    command = [sys.executable, "-m", "scripts.bench", "--rounds", "1", "--format", "json"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    try:
        rows = json.loads(done.stdout)
        return {row["name"]: row["empty_calls"] for row in rows if "empty_calls" in row}
    except (ValueError, TypeError, KeyError) as error:
        raise RevisionError(f"no figures from {tree}: {_last_line(done.stderr)}") from error


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
