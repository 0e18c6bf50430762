"""Interrupt remapping and posting written for reading, by bit numbers (VT-d 5.1, 5.2, 9.9 to 9.11).

It shares no code with the engine. Where the specification leaves two codes open, both are in
the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.oracle import Words


@dataclass(frozen=True)
class Setup:
    """The unit and what software has set."""

    haw: int
    posting: bool
    irreq: bool
    eimer: bool
    table: int
    size: int
    """S of IRTA_REG."""
    eime: bool
    enabled: bool
    """IRES."""
    compatibility: bool
    """CFIS."""


@dataclass(frozen=True)
class Sent:
    """An interrupt message."""

    vector: int
    delivery_mode: int
    level_triggered: bool
    logical: bool
    redirection_hint: bool
    destination: int


@dataclass(frozen=True)
class Recorded:
    """An interrupt in a posted-interrupt descriptor, and the notification if one was due."""

    descriptor: int
    vector: int
    notification: Sent | None


@dataclass(frozen=True)
class Blocked:
    """A fault; ``index`` is None where the record does not define one."""

    reasons: frozenset[int]
    index: int | None = None
    fpd: bool = False


class _Fault(Exception):  # noqa: N818 - how a request ends, not an error
    def __init__(self, reasons: set[int], index: int | None = None, fpd: bool = False) -> None:
        super().__init__()
        self.blocked = Blocked(frozenset(reasons), index, fpd)


def remap(
    words: Words, setup: Setup, source_id: int, address: int, data: int
) -> Sent | Recorded | Blocked:
    """What becomes of a 4-byte write to the interrupt range; posts in ``words``."""
    try:
        return _remap(words, setup, source_id, address, data)
    except _Fault as fault:
        return fault.blocked


def _remap(words: Words, setup: Setup, source_id: int, address: int, data: int) -> Sent | Recorded:
    if not setup.enabled:
        _check(setup.irreq, 0x2B)
        return _compatibility(address, data)
    _check(setup.eimer and not setup.eime, 0x2A)
    if not _bit(address, 4):
        _check(setup.eime or not setup.compatibility, 0x25)
        return _compatibility(address, data)
    index = (address >> 5 & 0x7FFF) + (_bit(address, 2) << 15)
    if _bit(address, 3):
        _check(data >> 16 != 0, 0x20)
        index += data & 0xFFFF
    where = setup.table + 16 * index
    _check(index >= 2 ** (setup.size + 1) or where >= 2**setup.haw, 0x21, index)
    low, high = words.read(where), words.read(where + 8)
    if low is None or high is None:
        raise _Fault({0x23}, index)
    entry = low | high << 64
    fpd = bool(_bit(entry, 1))
    _check(not _bit(entry, 0), 0x22, index, fpd)
    _check(not _source_ok(entry, source_id), 0x26, index, fpd)
    _check(_entry_invalid(setup, entry), 0x24, index, fpd)
    if _bit(entry, 15):
        return _post(words, setup, entry, index)
    return Sent(
        entry >> 16 & 0xFF,
        entry >> 5 & 7,
        bool(_bit(entry, 4)) and entry >> 5 & 7 in (0, 1),
        bool(_bit(entry, 2)),
        bool(_bit(entry, 3)),
        _destination(setup, entry >> 32 & 0xFFFF_FFFF),
    )


def _entry_invalid(setup: Setup, entry: int) -> bool:
    if entry >> 82 & 3 == 3:
        return True
    if _bit(entry, 15):
        zero = {*range(2, 8), 12, 13, *range(24, 38), *range(84, 96)}
        if not setup.posting:
            return True
        zero |= set(range(96 + max(setup.haw - 32, 0), 128))
        return _any(entry, zero)
    zero = {12, 13, 14, *range(24, 32), *range(84, 128)}
    if not setup.eime:
        zero |= {*range(32, 40), *range(48, 64)}
    return _any(entry, zero) or entry >> 5 & 7 in (3, 6)


def _source_ok(entry: int, source_id: int) -> bool:
    kind, qualifier, sid = entry >> 82 & 3, entry >> 80 & 3, entry >> 64 & 0xFFFF
    if kind == 1:
        ignored = {0: set(), 1: {2}, 2: {2, 1}, 3: {2, 1, 0}}[qualifier]
        return all(_bit(sid, n) == _bit(source_id, n) for n in range(16) if n not in ignored)
    if kind == 2:
        return sid // 256 <= source_id // 256 <= sid % 256
    return True


def _post(words: Words, setup: Setup, entry: int, index: int) -> Recorded:
    fpd = bool(_bit(entry, 1))
    where = (entry >> 96) << 32 | (entry >> 38 & 0x3FF_FFFF) << 6
    parts = [words.read(where + 8 * number) for number in range(8)]
    descriptor = 0
    for number, part in enumerate(parts):
        if part is None:
            raise _Fault({0x27}, index, fpd)
        descriptor |= part << 64 * number
    zero = {*range(258, 272), *range(280, 288), *range(320, 512)}
    if not setup.eime:
        zero |= {*range(288, 296), *range(304, 320)}
    _check(_any(descriptor, zero), 0x28, index, fpd)
    _check(where // 4096 in words.read_only, 0x27, index, fpd)
    vector, urgent = entry >> 16 & 0xFF, _bit(entry, 14)
    notify = not _bit(descriptor, 256) and bool(urgent or not _bit(descriptor, 257))
    after = descriptor | 1 << vector | notify << 256
    for number in range(8):
        words.words[where + 8 * number] = after >> 64 * number & (1 << 64) - 1
    notification = Sent(
        descriptor >> 272 & 0xFF,
        0,
        level_triggered=False,
        logical=False,
        redirection_hint=False,
        destination=_destination(setup, descriptor >> 288 & 0xFFFF_FFFF),
    )
    return Recorded(where, vector, notification if notify else None)


def _compatibility(address: int, data: int) -> Sent:
    return Sent(
        data & 0xFF,
        data >> 8 & 7,
        bool(_bit(data, 15)),
        bool(_bit(address, 2)),
        bool(_bit(address, 3)),
        address >> 12 & 0xFF,
    )


def _destination(setup: Setup, field: int) -> int:
    return field if setup.eime else field >> 8 & 0xFF


def _check(broken: bool, reason: int, index: int | None = None, fpd: bool = False) -> None:
    if broken:
        raise _Fault({reason}, index, fpd)


def _any(number: int, bits: set[int]) -> bool:
    return any(_bit(number, bit) for bit in bits)


def _bit(number: int, bit: int) -> int:
    return number >> bit & 1
