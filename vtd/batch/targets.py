"""What the kernel knows of the tables of requests: targets as words, by the one declaration.

A target is a few words, and a number of its form: all that many targets have in common. The layout
is in :mod:`vtd.batch.kernel`. Levels, masks and rights come from the geometry of each stage, which
has them from the layouts of entries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pagetables.walk import Stage
from vtd.batch import kernel as k
from vtd.layouts.entries import PasidEntry
from vtd.unit.requests.target import LEGACY, Target
from vtd.unit.translation.lookup import tag_width

Words = NDArray[np.int64]


def signed(word: int) -> int:
    """A 64-bit word as numpy's signed integers have it."""
    return word - (1 << 64) if word >> 63 else word


class Targets:
    """Targets in two arrays: what each has of its own, and the forms that they have."""

    def __init__(self) -> None:
        self.words: Words = np.zeros(k.TARGET, np.int64)
        self.forms: Words = np.zeros(0, np.int64)
        self._targets: list[Target] = []
        self._places: dict[Key, int] = {}
        self._form_places: dict[tuple[int, ...], int] = {}

    def __getitem__(self, place: int) -> Target:
        """The target at a place."""
        return self._targets[place // k.TARGET]

    def place_of(self, target: Target) -> int | None:
        """Where a target is, if it was added."""
        return self._places.get(_key(target))

    def add(self, target: Target, tags: int, first_tag: int, second_tag: int) -> int:
        """Add a target, with the numbers of its IOTLB tags and of those of its tables."""
        place = len(self._targets) * k.TARGET
        if place == len(self.words):
            self.words = np.concatenate([self.words, np.zeros_like(self.words)])
        roots = (0 if stage is None else stage.root for stage in (target.first, target.second))
        own = self._form_of(target), tags, *roots, first_tag, second_tag
        self.words[place : place + len(own)] = own
        self._targets.append(target)
        self._places[_key(target)] = place
        return place

    def _form_of(self, target: Target) -> int:
        words = tuple(form_words(target))
        place = self._form_places.get(words)
        if place is None:
            place = self._form_places[words] = len(self.forms)
            self.forms = np.concatenate([self.forms, np.array(words, np.int64)])
        return place


Key = tuple[type, int, int, bool]


def _key(target: Target) -> Key:
    """What a target of a unit follows from: the entry that sets it up, its PASID, and FPD."""
    return type(target.entry), target.entry, target.pasid, target.fpd


def form_words(target: Target) -> list[int]:
    """All of a target but its own tables and tags."""
    words = [0] * k.FORM
    words[k.MODE] = _mode(target)
    words[k.WIDTH], words[k.SNOOPED] = target.width, target.snooped
    words[k.LEGACY] = target.reasons is LEGACY
    words[k.WRITE_PROTECTED] = isinstance(target.entry, PasidEntry) and target.entry.wpe
    for at, stage in ((k.FIRST_STAGE, target.first), (k.SECOND_STAGE, target.second)):
        if stage is not None:
            words[at : at + k.STEPS + 5 * k.STEP] = _stage_words(stage)
    return words


def _mode(target: Target) -> int:
    if target.first is not None:
        return k.FIRST if target.second is None else k.NESTED
    return k.PASSED if target.second is None else k.SECOND


def _stage_words(stage: Stage) -> list[int]:
    geometry = stage.geometry
    words = [0] * (k.STEPS + 5 * k.STEP)
    words[k.LEVELS] = len(geometry.steps)
    words[k.PRESENT], words[k.RIGHTS] = geometry.present, geometry.rights
    words[k.RIGHTS_AT], words[k.USER] = geometry.rights_at, geometry.user
    words[k.ACCESSED], words[k.DIRTY] = stage.accessed, stage.dirty
    words[k.STAGE_SNOOPED] = stage.snooped
    # a table page that can be walked with flags enabled has to be writable too (3.8.1)
    words[k.READABLE] = geometry.read | (geometry.write if stage.accessed else 0)
    words[k.WRITABLE], words[k.TAG_WIDTH] = geometry.write, tag_width(stage)
    for level, step in enumerate(geometry.steps):
        at = k.STEPS + level * k.STEP
        words[at : at + k.STEP] = map(signed, step)
    return words
