"""The whole translation written for reading: from memory, root pointer and request to the outcome.

VT-d 3.4 to 3.9, chapter 9 and Table 30 by bit numbers. It shares no code with the engine; page
tables are those of :mod:`tests.support.oracle`. Where the specification leaves the order of checks
open, every fault reason that it permits is in the answer. Left out: ATS, caches, the interrupt
range as an input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.oracle import Failed, Mapped, Nesting, Tables, Words
from tests.support.oracle import set_dirty as set_dirty_flags
from tests.support.oracle import translate as translate_pages


@dataclass(frozen=True)
class Unit:
    """The capability registers of a unit, and the address width of its platform."""

    cap: int
    ecap: int
    haw: int

    def has(self, register: str, number: int) -> bool:
        """Whether a bit of ``"cap"`` or ``"ecap"`` is set."""
        return bool((self.cap if register == "cap" else self.ecap) >> number & 1)

    @property
    def mgaw(self) -> int:
        return (self.cap >> 16 & 63) + 1

    @property
    def domain_bits(self) -> int:
        return min(4 + 2 * (self.cap & 7), 16)


@dataclass(frozen=True)
class Ask:
    """A request for one page."""

    source_id: int
    address: int
    reads: bool
    writes: bool
    zero_length: bool = False
    pasid: int | None = None
    privileged: bool = False


@dataclass(frozen=True)
class Refused:
    """The request is blocked, with one of these fault reasons."""

    reasons: frozenset[int]
    fpd: bool = False


class _Refusal(Exception):  # noqa: N818 - how a translation ends, not an error
    def __init__(self, reasons: Iterable[int], fpd: bool = False) -> None:
        super().__init__()
        self.refused = Refused(frozenset(reasons), fpd)


def translate(words: Words, unit: Unit, rtaddr: int, ask: Ask) -> int | Refused:
    """The physical address, or how the request is refused; sets flags in ``words``."""
    try:
        return _translate(words, unit, rtaddr, ask)
    except _Refusal as refusal:
        return refusal.refused


def _translate(words: Words, unit: Unit, rtaddr: int, ask: Ask) -> int:
    mode = rtaddr >> 10 & 3
    io_rights = bool(rtaddr >> 7 & 1) and unit.has("ecap", 57)
    scalable_missing = mode == 1 and not unit.has("ecap", 43)
    abort_missing = mode == 3 and not unit.has("ecap", 52)
    _check((0x30, mode == 2 or scalable_missing or abort_missing or (mode == 0 and io_rights)),
           (0x31, mode == 0 and ask.pasid is not None),
           (0x33, mode == 3 and not abort_missing))  # fmt: skip
    table = rtaddr >> 12 << 12
    if mode == 0:
        return _legacy(words, unit, table, ask)
    return _scalable(words, unit, table, ask, io_rights)


def _check(*rules: tuple[int, bool], fpd: bool = False) -> None:
    """Refuse for the reasons that apply, any of which may be the one reported."""
    broken = [reason for reason, applies in rules if applies]
    if broken:
        raise _Refusal(broken, fpd)


def _legacy(words: Words, unit: Unit, table: int, ask: Ask) -> int:
    root = _record(words, table + ask.source_id // 256 * 16, 16, 0x08)
    _check((0x01, not _bit(root, 0)))
    _check((0x0A, _any(root, {0, *range(12, unit.haw)}, 128)))
    context = _record(words, _pointer(root, 12, unit.haw) + ask.source_id % 256 * 16, 16, 0x09)
    fpd = _bit(context, 1)
    _check((0x02, not _bit(context, 0)), fpd=fpd)
    used = {0, 1, 2, 3, *range(12, unit.haw), *range(64, 71), *range(72, 72 + unit.domain_bits)}
    _check((0x0B, _any(context, used, 128)), fpd=fpd)
    kind, width_code = context >> 2 & 3, context >> 64 & 7
    supported = {0} | _supported(unit, {("ecap", 2): {1}, ("ecap", 6): {2}})
    _check((0x03, kind not in supported or not _width_supported(unit, width_code)), fpd=fpd)
    if kind == 2:
        bits = min(unit.haw, 12 + 9 * (width_code + 2))
        _check((0x04, ask.address >= 2**bits), (0x0E, _fee(ask.address)), fpd=fpd)
        return ask.address
    levels = width_code + 2
    _check((0x04, ask.address >= 2 ** min(unit.mgaw, 12 + 9 * levels)), fpd=fpd)
    tables = Tables(
        "second", levels, _pointer(context, 12, unit.haw), unit.haw, _features(unit, False)
    )
    found = translate_pages(words, tables, ask.address)
    if isinstance(found, Failed):
        reasons = {
            "READ_ERROR": {0x03 if found.level == levels else 0x07},
            "NOT_PRESENT": _denials(ask, 0x05, 0x06),
            "RESERVED": {0x0C},
        }
        raise _Refusal(reasons[found.rule], fpd)
    _check(
        (0x05, ask.writes and not found.write),
        (0x06, ask.reads and not found.read and not _exempt(unit, ask, found.write)),
        (0x0E, _fee(found.physical)),
        fpd=fpd,
    )
    return found.physical


def _scalable(words: Words, unit: Unit, table: int, ask: Ask, io_rights: bool) -> int:
    bus, function = divmod(ask.source_id, 256)
    whole = _record(words, table + bus * 16, 16, 0x38)
    half = whole >> 64 if function >= 128 else whole % 2**64
    _check((0x39, not _bit(half, 0)))
    _check((0x3A, _any(half, {0, *range(12, unit.haw)}, 64)))
    at = _pointer(half, 12, unit.haw) + function % 128 * 32
    context = _record(words, at, 32, 0x40)
    fpd = _bit(context, 1)
    _check((0x41, not _bit(context, 0)), fpd=fpd)
    used = {0, 1, *range(9, unit.haw)} | _supported(
        unit,
        {
            ("ecap", 2): {2},
            ("ecap", 40): {3},
            ("ecap", 29): {4},
            ("ecap", 55): {5},
            ("ecap", 56): {6},
            ("ecap", 49): set(range(64, 84)),
            ("ecap", 53): {84},
        },
    )
    _check((0x42, _any(context, used, 256)), fpd=fpd)
    limit = 2 ** ((context >> 9 & 7) + 13)
    rid_pasid = context >> 64 & 0xFFFFF
    invalid = (
        (_bit(context, 4) and not _bit(context, 2))
        or (ask.pasid is None and _bit(context, 6) and not _bit(context, 3))
        or rid_pasid >= limit
    )
    _check((0x43, invalid), fpd=fpd)
    if ask.pasid is None:
        pasid, privileged = rid_pasid, _bit(context, 84)
    else:
        pasid, privileged = ask.pasid, ask.privileged
        _check(
            (0x45, not _bit(context, 3)),
            (0x46, pasid >= limit),
            (0x48, pasid == rid_pasid),
            (0x89, pasid >= 2 ** ((unit.ecap >> 35 & 31) + 1)),
            fpd=fpd,
        )
    directory = _record(words, _pointer(context, 12, unit.haw) + pasid // 64 * 8, 8, 0x50)
    fpd = fpd or _bit(directory, 1)
    _check((0x51, not _bit(directory, 0)), fpd=fpd)
    _check((0x52, _any(directory, {0, 1, *range(12, unit.haw)}, 64)), fpd=fpd)
    entry = _record(words, _pointer(directory, 12, unit.haw) + pasid % 64 * 64, 64, 0x58)
    fpd = fpd or _bit(entry, 1)
    _check((0x59, not _bit(entry, 0)), fpd=fpd)
    nesting = _second_stage(unit, entry, io_rights)
    _check((0x5A, _reserved_in_pasid_entry(unit, entry)), (0x5B, _invalid(unit, entry)), fpd=fpd)
    _check((0x5D, privileged and not _bit(entry, 128)), fpd=fpd)
    kind = entry >> 6 & 7
    if kind == 4:
        _check((0x83, ask.address >= 2**unit.haw), (0x87, _fee(ask.address)), fpd=fpd)
        return ask.address
    if kind == 2:
        _check((0x84, ask.address >= 2**nesting.width), fpd=fpd)
        return _through_pages(words, unit, ask, nesting.second, None, fpd, True, False)
    levels = 5 if entry >> 130 & 3 else 4
    _check((0x80, not _canonical(ask.address, 12 + 9 * levels)), fpd=fpd)
    first = Tables(
        "first",
        levels,
        _pointer(entry >> 128, 12, unit.haw),
        unit.haw,
        _features(unit, io_rights),
        flags=True,
        extended=_bit(entry, 135),
        snooped=_bit(entry, 87),
    )
    return _through_pages(
        words,
        unit,
        ask,
        first,
        nesting if kind == 3 else None,
        fpd,
        privileged,
        privileged and not _bit(entry, 132),
    )


def _through_pages(
    words: Words,
    unit: Unit,
    ask: Ask,
    tables: Tables,
    nesting: Nesting | None,
    fpd: bool,
    privileged: bool,
    writes_anywhere: bool,
) -> int:
    """Translate by page tables; ``writes_anywhere``: R/W of the first stage does not count."""
    found = translate_pages(words, tables, ask.address, nesting)
    if isinstance(found, Failed):
        raise _Refusal({_walk_reason(tables, nesting, found)}, fpd)
    write = found.write or (writes_anywhere and _second_stage_writes(words, found, nesting))
    _check(
        (0x81, not privileged and not found.user),
        (0x85, ask.writes and not write),
        (0x86, ask.reads and not found.read and not _exempt(unit, ask, write)),
        (0x87, _fee(found.physical)),
        fpd=fpd,
    )
    if ask.writes:
        failed = set_dirty_flags(words, tables, ask.address, nesting)
        if failed is not None:
            raise _Refusal({_walk_reason(tables, nesting, failed)}, fpd)
    return found.physical


def _second_stage_writes(words: Words, found: Mapped, nesting: Nesting | None) -> bool:
    """Whether the second stage lets the page be written, whatever the first stage says."""
    if nesting is None or found.guest is None:
        return True
    page = translate_pages(words, nesting.second, found.guest)
    return isinstance(page, Mapped) and page.write


def _walk_reason(tables: Tables, nesting: Nesting | None, failed: Failed) -> int:
    if failed.kind == "first":
        top = failed.level == tables.levels
        return {
            "READ_ERROR": 0x73 if top else 0x70,
            "NOT_PRESENT": 0x71,
            "RESERVED": 0x72,
            "TABLE_BEYOND_WIDTH": 0x74,
            "TABLE_NOT_READABLE": 0x75 if top else 0x76,
            "TABLE_NOT_WRITABLE": 0x77,
            "NOT_SNOOPED": 0x90,
            "UPDATE_ERROR": 0x91,
        }[failed.rule]
    second = tables if nesting is None else nesting.second
    return {
        "READ_ERROR": 0x7B if failed.level == second.levels else 0x78,
        "NOT_PRESENT": 0x79,
        "RESERVED": 0x7A,
        "NOT_SNOOPED": 0x7C,
        "UPDATE_ERROR": 0x7D,
    }[failed.rule]


def _second_stage(unit: Unit, entry: int, io_rights: bool) -> Nesting:
    levels = min(max((entry >> 2 & 7) + 2, 3), 5)
    second = Tables(
        "second",
        levels,
        _pointer(entry, 12, unit.haw),
        unit.haw,
        _features(unit, io_rights),
        flags=_bit(entry, 9),
        snooped=_bit(entry, 87),
    )
    return Nesting(second, min(unit.mgaw, 12 + 9 * levels))


def _reserved_in_pasid_entry(unit: Unit, entry: int) -> bool:
    haw, domain = unit.haw, unit.domain_bits
    used = {0, 1, 6, 7, 8, *range(64, 64 + domain), 133, 134} | _supported(
        unit,
        {
            ("ecap", 46): {2, 3, 4, *range(12, haw)},
            ("ecap", 48): {87},
            ("ecap", 7): {88},
            ("ecap", 25): {89, 90, *range(96, 128)},
            ("ecap", 31): {128},
            ("ecap", 47): {130, 131, 132, *range(140, 128 + haw)},
            ("ecap", 34): {135},
            ("ecap", 55): {256, 257, 258, *range(268, 256 + haw), *range(320, 320 + domain)},
        },
    )
    if unit.has("ecap", 46) and unit.has("ecap", 45):
        used.add(9)
    return _any(entry, used, 512)


def _invalid(unit: Unit, entry: int) -> bool:
    kind = entry >> 6 & 7
    feature = {1: 47, 2: 46, 3: 26, 4: 6}.get(kind)
    if feature is None or not unit.has("ecap", feature):
        return True
    if kind in (2, 3) and not _width_supported(unit, entry >> 2 & 7):
        return True
    if kind in (1, 3):
        mode = entry >> 130 & 3
        if mode > 1 or (mode == 1 and not unit.has("cap", 60)):
            return True
    width = _second_stage(unit, entry, False).width
    return kind == 3 and _pointer(entry >> 128, 12, unit.haw) >= 2**width


def _record(words: Words, address: int, size: int, failed: int) -> int:
    """The bytes at an address as one number; a hole is a fault that FPD does not suppress."""
    number = 0
    for offset in range(0, size, 8):
        word = words.read(address + offset)
        if word is None:
            raise _Refusal({failed})
        number |= word << offset * 8
    return number


def _supported(unit: Unit, needs: dict[tuple[str, int], set[int]]) -> set[int]:
    return {bit for (name, number), bits in needs.items() if unit.has(name, number) for bit in bits}


def _any(number: int, used: set[int], width: int) -> bool:
    """Whether a bit outside ``used`` is set."""
    return any(_bit(number, bit) for bit in range(width) if bit not in used)


def _pointer(number: int, low: int, high: int) -> int:
    return (number & (1 << high) - 1) >> low << low


def _features(unit: Unit, io_rights: bool) -> frozenset[str]:
    names = {
        "sslps_2m": unit.has("cap", 34),
        "sslps_1g": unit.has("cap", 35),
        "fs1gp": unit.has("cap", 56),
        "sc": unit.has("ecap", 7),
        "ssirwe": io_rights,
    }
    return frozenset(name for name, present in names.items() if present)


def _width_supported(unit: Unit, code: int) -> bool:
    return code in (1, 2, 3) and unit.has("cap", 8 + code)


def _denials(ask: Ask, write: int, read: int) -> set[int]:
    return ({write} if ask.writes else set()) | ({read} if ask.reads else set())


def _exempt(unit: Unit, ask: Ask, writable: bool) -> bool:
    """The zero-length read of a write-only page."""
    return ask.zero_length and writable and unit.has("cap", 22)


def _canonical(address: int, width: int) -> bool:
    sign = [address >> number & 1 for number in range(width - 1, 64)]
    return len(set(sign)) == 1 and address < 2**64


def _fee(address: int) -> bool:
    return address // 2**20 == 0xFEE


def _bit(number: int, bit: int) -> bool:
    return number >> bit & 1 == 1
