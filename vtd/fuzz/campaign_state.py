"""How far campaigns have come, in a file: another one goes on from there."""

from __future__ import annotations

import json
import stat
from pathlib import Path

LARGEST_STATE = 1 << 20
"""Bytes of a file of seeds that are done, far more than any campaign writes."""


class State:
    """The seeds that are done, in a JSON file, so that another campaign goes on from there.

    ValueError for a file that is not one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.next_seed: dict[str, int] = {}
        if path.exists():
            try:
                self.next_seed = _read_state(path)
            except (OSError, ValueError, RecursionError) as error:
                why = "nested too deeply" if isinstance(error, RecursionError) else error
                raise ValueError(f"{path}: not the state of a campaign: {why}") from error

    def first(self, key: str, otherwise: int) -> int:
        """The first seed that a campaign of this name has not done."""
        return self.next_seed.get(key, otherwise)

    def save(self, key: str, seed: int) -> None:
        """Note that all seeds below ``seed`` are done."""
        self.next_seed[key] = seed
        written = self._path.with_name(f"{self._path.name}.new")
        written.write_text(json.dumps(self.next_seed, indent=1) + "\n", encoding="utf-8")
        written.replace(self._path)


def _read_state(path: Path) -> dict[str, int]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no plain file")
    if status.st_size > LARGEST_STATE:
        raise ValueError(f"{status.st_size} bytes")
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise ValueError("no JSON object")
    for key, value in stored.items():
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise ValueError(f"{key[:40]!r} has no seed")
    return stored
