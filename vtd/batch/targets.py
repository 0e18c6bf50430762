"""What the kernel knows of the tables of a request: a target as words, by the one declaration.

The layout is in :mod:`vtd.batch.kernel`. Levels, masks and rights come from the geometry of each
stage, which has them from the layouts of entries.
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


def target_words(target: Target, tags: int, first_tag: int, second_tag: int) -> list[int]:
    """A target as words, with the numbers of its IOTLB tags and of those of its tables."""
    words = [0] * k.TARGET
    words[k.MODE] = _mode(target)
    words[k.WIDTH], words[k.SNOOPED], words[k.TAGS] = target.width, target.snooped, tags
    words[k.LEGACY] = target.reasons is LEGACY
    words[k.WRITE_PROTECTED] = isinstance(target.entry, PasidEntry) and target.entry.wpe
    for at, stage, tag in (
        (k.FIRST_STAGE, target.first, first_tag),
        (k.SECOND_STAGE, target.second, second_tag),
    ):
        if stage is not None:
            words[at : at + k.STEPS + 5 * k.STEP] = _stage_words(stage, tag)
    return words


def _mode(target: Target) -> int:
    if target.first is not None:
        return k.FIRST if target.second is None else k.NESTED
    return k.PASSED if target.second is None else k.SECOND


def _stage_words(stage: Stage, tag: int) -> list[int]:
    geometry = stage.geometry
    words = [0] * (k.STEPS + 5 * k.STEP)
    words[k.ROOT], words[k.LEVELS] = stage.root, len(geometry.steps)
    words[k.PRESENT], words[k.RIGHTS] = geometry.present, geometry.rights
    words[k.RIGHTS_AT], words[k.USER] = geometry.rights_at, geometry.user
    words[k.ACCESSED], words[k.DIRTY] = stage.accessed, stage.dirty
    words[k.STAGE_SNOOPED], words[k.TABLE_TAG] = stage.snooped, tag
    # a table page that can be walked with flags enabled has to be writable too (3.8.1)
    words[k.READABLE] = geometry.read | (geometry.write if stage.accessed else 0)
    words[k.WRITABLE], words[k.TAG_WIDTH] = geometry.write, tag_width(stage)
    for level, step in enumerate(geometry.steps):
        at = k.STEPS + level * k.STEP
        words[at : at + k.STEP] = map(signed, step)
    return words
