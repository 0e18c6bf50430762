"""EPT walks a second time, from the text of SDM 28.2.2 and 28.2.3 and with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vtd.guest.x86.capabilities import VmxCapabilities


class EptVerdict(NamedTuple):
    """What becomes of an address."""

    kind: str
    """``page``, ``violation`` or ``misconfiguration``."""
    physical: int = 0
    rights: int = 0


def ept_verdict(
    frames: Mapping[int, Mapping[int, int]],
    root: int,
    gpa: int,
    levels: int,
    caps: VmxCapabilities,
    *,
    mode_based: bool,
) -> EptVerdict:
    """The walk through tables given by frame and index; a frame that is missing is no memory."""
    if gpa >> 12 + 9 * levels:
        return EptVerdict("violation")
    present = 0x407 if mode_based else 7
    frame, rights = root, present
    for level in range(levels, 0, -1):
        index = gpa >> 12 + 9 * (level - 1) & 511
        entry = frames[frame].get(index, 0) if frame in frames else (1 << 64) - 1
        if entry & present == 0:
            return EptVerdict("violation")
        leaf = level == 1 or (level in (2, 3) and bool(entry & 0x80))
        if _misconfigured(entry, level, leaf, caps):
            break
        rights &= entry
        if leaf:
            size = 12 + 9 * (level - 1)
            page = entry >> size << size & (1 << 52) - 1
            return EptVerdict("page", page | gpa & (1 << size) - 1, rights)
        frame = entry >> 12 & (1 << 40) - 1
    return EptVerdict("misconfiguration")


def _misconfigured(entry: int, level: int, leaf: bool, caps: VmxCapabilities) -> bool:
    """28.2.3.1, for an entry that is present."""
    cap = caps.ept_vpid
    large = leaf and level > 1
    conditions = (
        entry & 3 == 2,
        not entry & 1 and not cap.execute_only,
        large and not (cap.pages_2m if level == 2 else cap.pages_1g),
        leaf and entry >> 3 & 7 in (2, 3, 7),
        entry >> caps.physical_width & (1 << 52 - caps.physical_width) - 1,
        not leaf and entry & 0xF8,
        large and entry >> 12 & (1 << 9 * (level - 1)) - 1,
    )
    return any(conditions)
