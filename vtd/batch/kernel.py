"""The compiled part: requests through caches and page walks, until one needs more than these.

A request here does what :func:`vtd.unit.translation.translate.translate` does: IOTLB, tables of its
requester, walk with paging-structure caches and flags, rights, IOTLB. At anything else the kernel
stops before it has changed anything, and says why; the unit carries out that request.

Everything is 64-bit words. A *store* is a cache, or another table by two keys, in one array: a
header, rows of eight words that stay where they are, a hash index, and for each set of a cache its
entries from the next to be replaced to the newest. Targets are made by
:mod:`vtd.batch.targets`, which takes levels and masks from the one declaration of them.
All that is compiled is in this file: numba's cache on disk follows changes of no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

try:
    from llvmlite import ir  # numba is built on it
    from numba import njit, types
    from numba.core.cgutils import get_or_insert_function
    from numba.extending import intrinsic
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "vtd.batch needs the batch extra: pip install '.[batch]'", name=missing.name
    ) from missing

from devices.dma import ATOMIC, READ, WRITE
from devices.interrupt_messages import INTERRUPT_RANGE
from pagetables.second_stage import SNOOP
from pagetables.walk import ADDRESS, FRAME_NUMBER
from vtd.batch.columns import NO_PASID, PRIVILEGED, RowKind

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function when it is first called, or take it from the cache on disk."""
    done: F = njit(cache=True, nogil=True)(function)
    return done


def inner(function: F) -> F:
    """Compile a function that only compiled ones call."""
    done: F = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return done


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, pointer: Any) -> Any:
    """The word at an address of this process."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.get_value_type(types.int64)
        return builder.load(builder.inttoptr(arguments[0], word.as_pointer()))

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def save(typing: Any, pointer: Any, value: Any) -> Any:
    """Store a word at an address of this process."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.get_value_type(types.int64)
        builder.store(arguments[1], builder.inttoptr(arguments[0], word.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def fetch(typing: Any, array: Any, at: Any) -> Any:
    """Have a word of such an array be in the processor's caches soon; it need not be there."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.gep(arguments[0], [arguments[1]])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        prefetch = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def pointer(typing: Any, array: Any) -> Any:
    """The words of an array without their bounds, which are one argument instead of seven."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return made.data

    return types.CPointer(types.int64)(array), generate


# Header of a store
MASK, INDEX, SETS, FREE, USED, CAPACITY, SIZE = range(7)
WAYS, SET_COUNT, SET_SHIFT, REFRESHES, RANDOM, MOVES = range(7, 13)
"""The shape; whether a use makes an entry the newest, whether a renewed one becomes so."""
HITS, MISSES, INSERTIONS, EVICTIONS = range(13, 17)
"""What was counted since the last time somebody took the counts."""
DRAWS = 24
"""A Mersenne Twister: 624 words, and which comes next."""
HEADER = 656
UNBOUNDED_WAYS = -1

# A row: two keys, what there is, next of the same hash, neighbours in the order of replacement
KEY, TAG, ONE, TWO, THREE, CHAIN, OLDER, NEWER = range(8)
ROW = 8
OLDEST, NEWEST, COUNT = range(3)
SET = 4
ROOM = 64
"""Rows that a request may fill: at most one for each entry that it reads."""

_MIX_ONE, _MIX_TWO = -0x61C8864680B583EB, -0x3D4D51C2D82B14B1


@inner
def _place(store: Any, key: int, tag: int) -> int:
    mixed = (key ^ tag * _MIX_TWO) * _MIX_ONE
    return store[INDEX] + ((mixed >> 32 ^ mixed >> 15) & store[MASK])  # type: ignore[no-any-return]


@compiled
def find(store: Any, key: int, tag: int) -> int:
    """The row with these keys, 0 if there is none."""
    row = store[_place(store, key, tag)]
    while row != 0 and (store[row] != key or store[row + TAG] != tag):
        row = store[row + CHAIN]
    return row  # type: ignore[no-any-return]


@inner
def set_of(store: Any, key: int) -> int:
    """Where the head of the set is in which a key has its place."""
    count = store[SET_COUNT]
    if count == 1:
        return store[SETS]  # type: ignore[no-any-return]
    number = key >> store[SET_SHIFT]
    number = number & count - 1 if count & count - 1 == 0 else number % count
    return store[SETS] + number * SET  # type: ignore[no-any-return]


@inner
def _unlink(store: Any, head: int, row: int) -> None:
    older, newer = store[row + OLDER], store[row + NEWER]
    if older:
        store[older + NEWER] = newer
    else:
        store[head + OLDEST] = newer
    if newer:
        store[newer + OLDER] = older
    else:
        store[head + NEWEST] = older


@inner
def _link(store: Any, head: int, row: int) -> None:
    newest = store[head + NEWEST]
    store[row + OLDER], store[row + NEWER] = newest, 0
    if newest:
        store[newest + NEWER] = row
    else:
        store[head + OLDEST] = row
    store[head + NEWEST] = row


@compiled
def renew(store: Any, row: int) -> None:
    """Make an entry the newest of its set."""
    if store[row + NEWER]:
        head = set_of(store, store[row])
        _unlink(store, head, row)
        _link(store, head, row)


@compiled
def use(store: Any, row: int) -> None:
    """Count a hit, and have the entry be the newest if a use does that."""
    store[HITS] += 1
    if store[REFRESHES]:
        renew(store, row)


@inner
def _unhash(store: Any, row: int) -> None:
    at = _place(store, store[row], store[row + TAG])
    if store[at] == row:
        store[at] = store[row + CHAIN]
    else:
        before = store[at]
        while store[before + CHAIN] != row:
            before = store[before + CHAIN]
        store[before + CHAIN] = store[row + CHAIN]


@compiled
def remove(store: Any, row: int) -> None:
    """Take an entry out."""
    head = set_of(store, store[row])
    _unlink(store, head, row)
    store[head + COUNT] -= 1
    _unhash(store, row)
    store[row + CHAIN] = store[FREE]
    store[row + TAG] = -1
    store[FREE] = row
    store[SIZE] -= 1


@compiled
def put(store: Any, key: int, tag: int, one: int, two: int, three: int) -> int:
    """Keep an entry as the newest; a full set loses one first. There has to be a row left."""
    row = find(store, key, tag)
    if not row:
        return add(store, key, tag, one, two, three)
    store[INSERTIONS] += 1
    if store[MOVES]:
        renew(store, row)
    store[row + ONE], store[row + TWO], store[row + THREE] = one, two, three
    return row


@inner
def add(store: Any, key: int, tag: int, one: int, two: int, three: int) -> int:
    """As :func:`put`, for an entry that there is not yet."""
    head = set_of(store, key)
    if store[head + COUNT] == store[WAYS]:
        row = store[head + OLDEST]
        if store[RANDOM]:
            for _ in range(below(store, store[WAYS])):
                row = store[row + NEWER]
        _unlink(store, head, row)
        _unhash(store, row)
        store[EVICTIONS] += 1
    else:
        row = store[FREE]
        if row:
            store[FREE] = store[row + CHAIN]
        else:
            row = HEADER + store[USED] * ROW
            store[USED] += 1
        store[head + COUNT] += 1
        store[SIZE] += 1
    store[row], store[row + TAG] = key, tag
    store[row + ONE], store[row + TWO], store[row + THREE] = one, two, three
    at = _place(store, key, tag)
    store[row + CHAIN] = store[at]
    store[at] = row
    _link(store, head, row)
    store[INSERTIONS] += 1
    return row  # type: ignore[no-any-return]


@compiled
def clear(store: Any) -> None:
    """Take everything out."""
    for at in range(store[INDEX], store[INDEX] + store[MASK] + 1):
        store[at] = 0
    for at in range(store[SETS], store[SETS] + store[SET_COUNT] * SET):
        store[at] = 0
    for row in range(HEADER, HEADER + store[USED] * ROW, ROW):
        store[row + TAG] = -1
    store[FREE] = store[USED] = store[SIZE] = 0


@compiled
def index(store: Any) -> None:
    """Fill the hash index anew, after the store has moved to a larger array."""
    for row in range(HEADER, HEADER + store[USED] * ROW, ROW):
        if store[row + TAG] != -1:
            at = _place(store, store[row], store[row + TAG])
            store[row + CHAIN] = store[at]
            store[at] = row


@compiled
def ordered(store: Any, head: int, rows: Any) -> None:
    """The rows of a set, from the next to be replaced to the newest."""
    row, number = store[head + OLDEST], 0
    while row:
        rows[number] = row
        number += 1
        row = store[row + NEWER]


@inner
def below(store: Any, count: int) -> int:
    """A random number below ``count``, as :meth:`random.Random.choice` draws it."""
    bits = 0
    while count >> bits:
        bits += 1
    while True:
        number = _draw(store) >> 32 - bits
        if number < count:
            return number


@inner
def _draw(store: Any) -> int:
    if store[DRAWS + 624] >= 624:
        for each in range(624):
            word = store[DRAWS + each] & 0x8000_0000 | store[DRAWS + (each + 1) % 624] & 0x7FFF_FFFF
            twisted = store[DRAWS + (each + 397) % 624] ^ word >> 1
            store[DRAWS + each] = twisted ^ 0x9908_B0DF if word & 1 else twisted
        store[DRAWS + 624] = 0
    word = store[DRAWS + store[DRAWS + 624]]
    store[DRAWS + 624] += 1
    word ^= word >> 11
    word ^= word << 7 & 0x9D2C_5680
    word ^= word << 15 & 0xEFC6_0000
    return word ^ word >> 18  # type: ignore[no-any-return]


# A target, in one line of a processor's cache
FORM_OF, TAGS, FIRST_ROOT, SECOND_ROOT, FIRST_TAG, SECOND_TAG, TARGET = 0, 1, 2, 3, 4, 5, 8
# Its form, which others have too; ROOT and TABLE_TAG of the stages are those of the last target
PASSED, SECOND, FIRST, NESTED = range(4)
MODE, WIDTH, SNOOPED, LEGACY, WRITE_PROTECTED = range(5)
FIRST_STAGE, SECOND_STAGE, FORM = 8, 48, 88
ROOT, LEVELS, PRESENT, RIGHTS, RIGHTS_AT, USER, ACCESSED, DIRTY, STAGE_SNOOPED, TABLE_TAG = range(
    10
)
READABLE, WRITABLE, TAG_WIDTH = 10, 11, 12
STEPS, STEP = 13, 4
# A table in a paging-structure cache: frame, rights; width of the tags, and host frame + 1 or 0
WIDTH_AT, HOST = 48, (1 << 48) - 1

# How a walk ends: the number of a WalkRule, or one of these
(
    FOUND,
    READ_ERROR,
    NOT_PRESENT,
    RESERVED,
    NOT_SNOOPED,
    UPDATE_ERROR,
    TABLE_BEYOND_WIDTH,
    TABLE_NOT_READABLE,
    TABLE_NOT_WRITABLE,
    BEYOND_WIDTH,
    BEYOND_HOST_WIDTH,
    NOT_CANONICAL,
    FIRST_BEYOND_WIDTH,
    USER_DENIED,
    RIGHT_MISSING,
    INTERRUPTS,
) = range(16)
UNKNOWN_FRAME, FRAME_TO_OWN, LEFT_TO_UNIT, NO_ROOM, LOG_FULL = range(16, 21)
"""Why the kernel stops: a frame is to be looked up or made writable, the unit has to do it."""

# Notes of a walk, and of the whole run
FRAME, NEEDS_CHANGE, READS, FAULT_SHIFT, FAULT_STAGE, MISSING = range(6)
LEAF, LEAF_SHIFT, LEAF_RIGHTS, LEAF_FRAME, LEAF_PLACE = range(6, 11)
STORES, MEMO, MEMOS, MEMO_WORDS = 16, 17, 256, 8
"""Where the lowest tables are that walks came to in this run: stage, and number of stores until
then, address bits, pointer, rights, frame, root. Nobody else changes tables meanwhile."""
AHEAD, MANY = 8, 1024
"""Where there are many kinds of request, their rows are fetched before they are needed: the hash
index AHEAD rows of a trace before the row of the kind, and this as long before the target."""
PLACES = MEMO + MEMOS * MEMO_WORDS
NOTES = PLACES + 2 * AHEAD

# A frame: pointer, and whether it may be written in place
POINTER, OWN = ONE, TWO
UNDECIDED, OWNED, READ_ONLY = range(3)


@inner
def _set_flags(
    frames: Any, row: int, place: int, entry: int, flags: int, real: bool, notes: Any
) -> int:
    own = frames[row + OWN]
    if own == UNDECIDED:
        notes[FRAME] = frames[row]
        return FRAME_TO_OWN
    if own == READ_ONLY:
        return UPDATE_ERROR
    notes[NEEDS_CHANGE] = 1
    if real:
        if load(place) != entry:
            return LEFT_TO_UNIT
        save(place, entry | flags)
        notes[STORES] += 1
    return FOUND


@inner
def _prefix(address: int, shift: int) -> int:
    return address >> shift & (1 << 64 - shift) - 1


@inner
def _walk(
    forms: Any,
    stage: int,
    frames: Any,
    cache: Any,
    address: int,
    real: bool,
    notes: Any,
) -> int:
    """:func:`vtd.unit.translation.translate.walk_tables` on memory itself; the leaf into notes."""
    count, present, accessed = (
        forms[stage + LEVELS],
        forms[stage + PRESENT],
        forms[stage + ACCESSED],
    )
    frame, rights, done = forms[stage + ROOT], forms[stage + RIGHTS], 0
    cached, tag = cache[WAYS] != 0, forms[stage + TABLE_TAG] << 6
    if cached:
        notes[NEEDS_CHANGE] = 1
        row = 0
        for level in range(count - 1, 0, -1):
            shift = forms[stage + STEPS + (level - 1) * STEP]
            row = find(cache, _prefix(address, shift), tag | shift)
            if row:
                done, frame, rights = level, cache[row + ONE], cache[row + TWO]
                if real:
                    use(cache, row)
                break
        if not row and real:
            cache[MISSES] += 1
    known, memo = 0, MEMO + ((address >> 21) + frame * 7 & MEMOS - 1) * MEMO_WORDS
    this, root = notes[STORES] << 32 | stage, frame
    if (
        not cached
        and notes[memo] == this
        and notes[memo + 1] == address >> 21
        and notes[memo + 5] == root
    ):
        done = count - 1
        pointer, rights, known = notes[memo + 2], notes[memo + 3], notes[memo + 4]
        notes[READS] += done
    for level in range(done, count):
        at = stage + STEPS + level * STEP
        shift = forms[at]
        notes[FAULT_SHIFT] = shift
        row = known
        if not known:
            row = find(frames, frame, 0)
            if not row:
                notes[FRAME] = frame
                return UNKNOWN_FRAME
            pointer = frames[row + POINTER]
            if not pointer:
                return READ_ERROR
            if level == count - 1 and (real or not notes[NEEDS_CHANGE]):
                notes[memo], notes[memo + 1] = notes[STORES] << 32 | stage, address >> 21
                notes[memo + 2], notes[memo + 3], notes[memo + 4] = pointer, rights, row
                notes[memo + 5] = root
        place = pointer + (address >> shift & 511) * 8
        entry = load(place)
        notes[READS] += 1
        rights &= entry
        if entry & forms[at + 1] or not rights & present:
            break
        if accessed and entry & accessed != accessed:
            if not forms[stage + STAGE_SNOOPED]:
                return NOT_SNOOPED
            code = _set_flags(frames, row, place, entry, accessed, real, notes)
            if code:
                return code
        frame = entry >> 12 & FRAME_NUMBER
        if cached and real:
            prefix, width = _prefix(address, shift), forms[stage + TAG_WIDTH] << WIDTH_AT
            add(cache, prefix, tag | shift, frame, rights, width)  # it was sought above
    if not rights & present:
        return NOT_PRESENT
    if not entry & forms[at + 2] or entry & forms[at + 3]:
        return RESERVED
    if entry & accessed != accessed:
        if not forms[stage + STAGE_SNOOPED]:
            return NOT_SNOOPED
        code = _set_flags(frames, row, place, entry, accessed, real, notes)
        if code:
            return code
        entry |= accessed
    notes[LEAF], notes[LEAF_SHIFT], notes[LEAF_RIGHTS] = entry, shift, rights
    notes[LEAF_FRAME], notes[LEAF_PLACE] = row, place
    return FOUND


@inner
def _walk_guest_table(
    forms: Any,
    form: int,
    frames: Any,
    second: Any,
    address: int,
    need: int,
    denied: int,
    real: bool,
    notes: Any,
) -> int:
    """The second-stage walk for a first-stage table, as :mod:`pagetables.nested` does it."""
    shift, stage = notes[FAULT_SHIFT], form + SECOND_STAGE
    notes[FAULT_STAGE] = FIRST_STAGE
    if address >> forms[form + WIDTH]:
        return TABLE_BEYOND_WIDTH
    notes[FAULT_STAGE] = SECOND_STAGE
    code = _walk(forms, stage, frames, second, address, real, notes)
    if code:
        return code
    notes[FAULT_STAGE], notes[FAULT_SHIFT] = FIRST_STAGE, shift
    return FOUND if notes[LEAF_RIGHTS] & need == need else denied


@inner
def _output(notes: Any, address: int) -> int:
    within = (1 << notes[LEAF_SHIFT]) - 1
    return notes[LEAF] & ADDRESS & ~within | address & within  # type: ignore[no-any-return]


@inner
def _set_guest_flags(
    forms: Any,
    form: int,
    frames: Any,
    second: Any,
    place: int,
    host: int,
    entry: int,
    flags: int,
    real: bool,
    notes: Any,
) -> int:
    """Flags of a first-stage entry at a guest address; ``host`` is where that is."""
    if second[WAYS]:
        return LEFT_TO_UNIT
    if not forms[form + FIRST_STAGE + STAGE_SNOOPED]:
        return NOT_SNOOPED
    stage, shift = form + SECOND_STAGE, notes[FAULT_SHIFT]
    code = _walk_guest_table(
        forms, form, frames, second, place, forms[stage + WRITABLE],
        TABLE_NOT_WRITABLE, real, notes,
    )  # fmt: skip
    if code:
        return code
    leaf, dirty = notes[LEAF], forms[stage + DIRTY]
    if dirty & ~leaf:
        notes[FAULT_STAGE], notes[FAULT_SHIFT] = SECOND_STAGE, notes[LEAF_SHIFT]
        if not forms[stage + STAGE_SNOOPED]:
            return NOT_SNOOPED
        row, at = notes[LEAF_FRAME], notes[LEAF_PLACE]
        code = _set_flags(frames, row, at, leaf, dirty, real, notes)
        if code:
            return code
        notes[FAULT_STAGE], notes[FAULT_SHIFT] = FIRST_STAGE, shift
    frame = find(frames, host, 0)
    at = frames[frame + POINTER] + (place >> 3 & 511) * 8
    return _set_flags(frames, frame, at, entry, flags, real, notes)


@inner
def _walk_guest(
    forms: Any,
    form: int,
    frames: Any,
    first: Any,
    second: Any,
    address: int,
    real: bool,
    notes: Any,
) -> int:
    """The first-stage walk whose tables the second stage finds.

    Of the leaf, LEAF_PLACE is the guest address and LEAF_FRAME the host frame of its table.
    """
    stage = form + FIRST_STAGE
    count, present, accessed = (
        forms[stage + LEVELS],
        forms[stage + PRESENT],
        forms[stage + ACCESSED],
    )
    frame, rights, done = forms[stage + ROOT], forms[stage + RIGHTS], 0
    cached, tag = first[WAYS] != 0, forms[stage + TABLE_TAG] << 6
    reached, known, known_host = 0, -1, -1
    readable = forms[form + SECOND_STAGE + READABLE]
    if cached:
        notes[NEEDS_CHANGE] = 1
        row = 0
        for level in range(count - 1, 0, -1):
            shift = forms[stage + STEPS + (level - 1) * STEP]
            row = find(first, _prefix(address, shift), tag | shift)
            if row:
                done, frame, rights = level, first[row + ONE], first[row + TWO]
                if first[row + THREE] & HOST:
                    known, known_host = frame, (first[row + THREE] & HOST) - 1
                if real:
                    use(first, row)
                break
        if not row and real:
            first[MISSES] += 1
    for level in range(done, count):
        at = stage + STEPS + level * STEP
        shift = forms[at]
        notes[FAULT_STAGE], notes[FAULT_SHIFT] = FIRST_STAGE, shift
        host = known_host
        if frame != known:
            code = _walk_guest_table(
                forms, form, frames, second, frame << 12, readable,
                TABLE_NOT_READABLE, real, notes,
            )  # fmt: skip
            if code:
                return code
            host = _output(notes, frame << 12) >> 12
            if cached and real and reached:
                where = forms[stage + TAG_WIDTH] << WIDTH_AT | host + 1
                prefix = _prefix(address, reached)
                add(first, prefix, tag | reached, frame, rights, where)  # it was sought above
        row = find(frames, host, 0)
        if not row:
            notes[FRAME] = host
            return UNKNOWN_FRAME
        pointer = frames[row + POINTER]
        if not pointer:
            return READ_ERROR
        number = address >> shift & 511
        entry = load(pointer + number * 8)
        notes[READS] += 1
        rights &= entry
        if entry & forms[at + 1] or not rights & present:
            break
        if accessed and entry & accessed != accessed:
            code = _set_guest_flags(
                forms, form, frames, second, frame << 12 | number << 3, host,
                entry, accessed, real, notes,
            )  # fmt: skip
            if code:
                return code
        frame, reached = entry >> 12 & FRAME_NUMBER, shift
    if not rights & present:
        return NOT_PRESENT
    if not entry & forms[at + 2] or entry & forms[at + 3]:
        return RESERVED
    if entry & accessed != accessed:
        code = _set_guest_flags(
            forms, form, frames, second, frame << 12 | number << 3, host,
            entry, accessed, real, notes,
        )  # fmt: skip
        if code:
            return code
        entry |= accessed
    notes[LEAF], notes[LEAF_SHIFT], notes[LEAF_RIGHTS] = entry, shift, rights
    notes[LEAF_FRAME], notes[LEAF_PLACE] = host, frame << 12 | number << 3
    return FOUND


INTERRUPTS_START, INTERRUPTS_END = INTERRUPT_RANGE.start, INTERRUPT_RANGE.stop
INTERRUPT_MEGABYTE = INTERRUPTS_START >> 20

# What a translation leaves in the notes
PHYSICAL, SHIFT, GRANTED, SNOOP_IT = range(12, 16)


@inner
def _translate(
    forms: Any,
    form: int,
    frames: Any,
    first: Any,
    second: Any,
    address: int,
    access: int,
    privileged: int,
    real: bool,
    notes: Any,
) -> int:
    """:func:`vtd.unit.translation.translate.translate`, but for the caches of the lookup."""
    notes[NEEDS_CHANGE] = notes[READS] = 0
    mode, width = forms[form + MODE], forms[form + WIDTH]
    granted, shift, user_denied, snoop, dirty = (
        READ | WRITE,
        12,
        False,
        forms[form + SNOOPED],
        0,
    )
    physical = address
    one, two = form + FIRST_STAGE, form + SECOND_STAGE
    first_leaf = first_shift = first_frame = first_place = 0
    if mode == PASSED:
        if address >> width:
            return BEYOND_HOST_WIDTH
    elif mode == SECOND:
        if address >> width:
            return BEYOND_WIDTH
    else:
        upper = address >> forms[one + STEPS] + 8
        if upper not in (0, -1):
            return NOT_CANONICAL
        if mode == FIRST:
            notes[FAULT_STAGE] = FIRST_STAGE
            code = _walk(forms, one, frames, first, address, real, notes)
        else:
            code = _walk_guest(forms, form, frames, first, second, address, real, notes)
        if code:
            return code
        rights, shift = notes[LEAF_RIGHTS], notes[LEAF_SHIFT]
        first_leaf, first_shift = notes[LEAF], shift
        first_frame, first_place = notes[LEAF_FRAME], notes[LEAF_PLACE]
        physical = _output(notes, address)
        granted = rights >> forms[one + RIGHTS_AT] & 3
        user_denied = not privileged and not rights & forms[one + USER]
        if privileged and not forms[form + WRITE_PROTECTED]:
            granted |= WRITE
        dirty = forms[one + DIRTY] & ~first_leaf
    second_dirty = 0
    if mode in (SECOND, NESTED):
        if mode == NESTED and physical >> width:
            return FIRST_BEYOND_WIDTH
        notes[FAULT_STAGE] = SECOND_STAGE
        code = _walk(forms, two, frames, second, physical, real, notes)
        if code:
            return code
        granted &= notes[LEAF_RIGHTS] >> forms[two + RIGHTS_AT]
        snoop |= notes[LEAF] & SNOOP != 0
        shift = notes[LEAF_SHIFT] if mode == SECOND else min(shift, notes[LEAF_SHIFT])
        physical = _output(notes, physical)
        second_dirty = forms[two + DIRTY] & ~notes[LEAF]
    if user_denied:
        return USER_DENIED
    if access & ~granted:
        notes[MISSING] = access & ~granted
        return RIGHT_MISSING
    if physical >> 20 == INTERRUPT_MEGABYTE:
        return INTERRUPTS
    if dirty or second_dirty:
        if access & WRITE:
            leaf, row, place = notes[LEAF], notes[LEAF_FRAME], notes[LEAF_PLACE]
            leaf_shift = notes[LEAF_SHIFT]
            if dirty:
                notes[FAULT_STAGE], notes[FAULT_SHIFT] = FIRST_STAGE, first_shift
                if not forms[one + STAGE_SNOOPED]:
                    return NOT_SNOOPED
                if mode == NESTED:
                    code = _set_guest_flags(
                        forms, form, frames, second, first_place, first_frame,
                        first_leaf, dirty, real, notes,
                    )  # fmt: skip
                else:
                    code = _set_flags(
                        frames, first_frame, first_place, first_leaf, dirty, real, notes
                    )
                if code:
                    return code
            if second_dirty:
                notes[FAULT_STAGE], notes[FAULT_SHIFT] = SECOND_STAGE, leaf_shift
                if not forms[two + STAGE_SNOOPED]:
                    return NOT_SNOOPED
                code = _set_flags(frames, row, place, leaf, second_dirty, real, notes)
                if code:
                    return code
        else:
            granted = granted & ~WRITE | granted << 2
    if shift > 12:
        start = physical >> shift << shift
        end = start + (1 << shift)
        if start < INTERRUPTS_END and end > INTERRUPTS_START:
            shift = 12
    notes[PHYSICAL], notes[SHIFT] = physical, shift
    notes[GRANTED], notes[SNOOP_IT] = granted, snoop
    return FOUND


# Of a row of requests, as words
DMA, MARKER = int(RowKind.DMA), int(RowKind.MARKER)
ADDRESS_WORD, LENGTH_WORD, KIND_WORD, REQUEST = 1, 3, 4, 5
OUTCOME = 2
# What is carried from call to call
AT_ROW, AT_ADDRESS, EPOCH, LOOKUPS, FAULTS, NEEDED = range(6)
CONTROL = 8

# A kind of request: its target, since which epoch that is known, privilege and page sizes
TARGET_OF, KNOWN_SINCE, MARKS = ONE, TWO, THREE
IS_PRIVILEGED, HAS_2M, HAS_1G = 1, 2, 4
# A translation: where it leads, and rights, snoop bit, number of the tags; a number of a fault
LEADS_TO, GRANTS, FAULT = ONE, TWO, THREE
SNOOP_BIT, TAGS_AT = 8, 16

# Outcomes: the second word
STATUS_PASSED, STATUS_REFUSED = 1, 2
HIT, READS_AT = 1 << 16, 32
# The log of faults: row, address, then what decides the reason
LOGGED_ROW, LOGGED_ADDRESS, LOGGED_WHY, LOGGED = 0, 1, 2, 3
WHY_SHIFT, WHY_STAGE, WHY_ACCESS, WHY_MISSING, WHY_TARGET = 8, 16, 24, 28, 32

PAGE_NUMBER = (1 << 52) - 1


@inner
def _key(rows: Any, at: int) -> int:
    """The kind of request of a row."""
    word, pasid = rows[at * REQUEST + KIND_WORD], rows[at * REQUEST + LENGTH_WORD] >> 32
    attributes = word >> 48 & PRIVILEGED
    return pasid & 0xFFFF_FFFF | (word & 0xFFFF) << 32 | attributes << 48  # type: ignore[no-any-return]


@inner
def _look_ahead(rows: Any, at: int, count: int, kinds: Any, targets: Any, notes: Any) -> None:
    """Fetch what rows behind this one will need of their kinds of request."""
    far = at + 3 * AHEAD
    if far >= count:
        return
    place = PLACES + (at & AHEAD - 1)
    fetch(targets, kinds[notes[place + AHEAD] + TARGET_OF])
    row = kinds[notes[place]]
    fetch(kinds, row)
    notes[place + AHEAD] = row
    notes[place] = _place(kinds, _key(rows, far), 0)
    fetch(kinds, notes[place])


@compiled
def run(
    control_words: Any,
    row_words: Any,
    outcome_words: Any,
    iotlb_words: Any,
    first_words: Any,
    second_words: Any,
    kind_words: Any,
    target_words: Any,
    form_words: Any,
    frame_words: Any,
    log_words: Any,
) -> int:
    """Carry out requests from row AT_ROW on; why it stopped, FOUND at the end."""
    note_words = np.zeros(NOTES, np.int64)
    control, rows, outcomes = pointer(control_words), pointer(row_words), pointer(outcome_words)
    iotlb, first, second = pointer(iotlb_words), pointer(first_words), pointer(second_words)
    kinds, targets, forms = pointer(kind_words), pointer(target_words), pointer(form_words)
    frames = pointer(frame_words)
    log, notes = pointer(log_words), pointer(note_words)
    count, room = len(row_words) // REQUEST, len(log_words) // LOGGED
    last_key, kind, marks, many = -1, 0, 0, kinds[SIZE] > MANY
    at, faults = control[AT_ROW], control[FAULTS]
    code = FOUND
    while at < count:
        word, address = rows[at * REQUEST + KIND_WORD], rows[at * REQUEST + ADDRESS_WORD]
        about, access = word >> 32 & 0xFF, word >> 40 & 0xFF
        attributes = word >> 48 & 0xFF
        if about == MARKER:
            outcomes[at * OUTCOME] = outcomes[at * OUTCOME + 1] = 0
            at += 1
            continue
        if about != DMA or not 0 < access <= ATOMIC or attributes > PRIVILEGED:
            code = LEFT_TO_UNIT
            break
        if many:
            _look_ahead(rows, at, count, kinds, targets, notes)
        lengths = rows[at * REQUEST + LENGTH_WORD]
        length, pasid = lengths & 0xFFFF_FFFF, lengths >> 32 & 0xFFFF_FFFF
        key = _key(rows, at)
        if key != last_key:
            kind = find(kinds, key, 0)
            if not kind:
                code = LEFT_TO_UNIT
                break
            last_key, marks = key, kinds[kind + MARKS]
        page = address
        left = length
        outcome = HIT
        if (address & 0xFFF) + length > 4096 or access == ATOMIC:
            if access == ATOMIC:
                if length & length - 1 or (length and address & length - 1):
                    code = LEFT_TO_UNIT
                    break
            elif -(1 << 33) < address < 0:
                code = LEFT_TO_UNIT
                break
            elif control[AT_ADDRESS]:
                outcome = outcomes[at * OUTCOME + 1]
                page += control[AT_ADDRESS]
                left -= control[AT_ADDRESS]
                control[AT_ADDRESS] = 0
        while True:
            number = page >> 12 & PAGE_NUMBER
            if number >> 8 == INTERRUPT_MEGABYTE and pasid == NO_PASID:
                code = LEFT_TO_UNIT
                break
            shift = 12
            entry = find(iotlb, number, kind << 6 | 12)
            if not entry and marks > IS_PRIVILEGED:
                if marks & HAS_2M:
                    shift = 21
                    entry = find(iotlb, number >> 9, kind << 6 | 21)
                if not entry and marks & HAS_1G:
                    shift = 30
                    entry = find(iotlb, number >> 18, kind << 6 | 30)
            failed = False
            if entry and not access & ~iotlb[entry + GRANTS]:
                use(iotlb, entry)
                physical = iotlb[entry + LEADS_TO] | page & (1 << shift) - 1
            else:
                code = _miss(
                    control, iotlb, first, second, kinds, targets, forms, frames,
                    kind, entry, page, access, length, notes,
                )  # fmt: skip
                if code >= UNKNOWN_FRAME:
                    break
                marks = kinds[kind + MARKS]
                outcome = (outcome & ~HIT) + (notes[READS] << READS_AT)
                physical = notes[PHYSICAL]
                if code:
                    log[faults * LOGGED + LOGGED_ROW], log[faults * LOGGED + LOGGED_ADDRESS] = (
                        at,
                        page,
                    )
                    log[faults * LOGGED + LOGGED_WHY] = (
                        code
                        | notes[FAULT_SHIFT] << WHY_SHIFT
                        | notes[FAULT_STAGE] << WHY_STAGE
                        | access << WHY_ACCESS
                        | notes[MISSING] << WHY_MISSING
                        | kinds[kind + TARGET_OF] << WHY_TARGET
                    )
                    faults += 1
                    failed, code = True, FOUND
            if failed:
                outcome = outcome & ~0xFF | STATUS_REFUSED
                outcomes[at * OUTCOME] = 0
            elif not outcome & 0xFF:
                outcome |= STATUS_PASSED
                outcomes[at * OUTCOME] = physical
            part = 4096 - (page & 0xFFF)
            if left <= part or access == ATOMIC or (failed and access == READ):
                break
            page += part
            left -= part
            if faults == room:
                code = LOG_FULL
                break
        outcomes[at * OUTCOME + 1] = outcome
        if code:
            control[AT_ADDRESS] = page - address
            break
        at += 1
        if faults == room:
            code = LOG_FULL
            break
    control[AT_ROW], control[FAULTS], control[NEEDED] = at, faults, notes[FRAME]
    return code


@inner
def _miss(
    control: Any,
    iotlb: Any,
    first: Any,
    second: Any,
    kinds: Any,
    targets: Any,
    forms: Any,
    frames: Any,
    kind: int,
    entry: int,
    address: int,
    access: int,
    length: int,
    notes: Any,
) -> int:
    """A request within a page that the IOTLB does not decide."""
    if kinds[kind + KNOWN_SINCE] != control[EPOCH]:
        return LEFT_TO_UNIT
    if entry and (iotlb[entry + FAULT] or length == 0):  # 0 bytes may be read where W is granted
        return LEFT_TO_UNIT
    for store in (iotlb, first, second):
        if store[CAPACITY] - store[SIZE] < ROOM:
            return NO_ROOM
    target, privileged = kinds[kind + TARGET_OF], kinds[kind + MARKS] & IS_PRIVILEGED
    form = targets[target + FORM_OF]
    one, two = form + FIRST_STAGE, form + SECOND_STAGE
    forms[one + ROOT], forms[one + TABLE_TAG] = (
        targets[target + FIRST_ROOT],
        targets[target + FIRST_TAG],
    )
    forms[two + ROOT], forms[two + TABLE_TAG] = (
        targets[target + SECOND_ROOT],
        targets[target + SECOND_TAG],
    )
    notes[FAULT_SHIFT] = notes[FAULT_STAGE] = notes[MISSING] = 0
    code = _translate(forms, form, frames, first, second, address, access, privileged, False, notes)
    if code >= UNKNOWN_FRAME:
        return code
    if code == RIGHT_MISSING and length == 0:
        return LEFT_TO_UNIT
    if code == READ_ERROR and forms[form + LEGACY]:
        return LEFT_TO_UNIT
    if notes[NEEDS_CHANGE]:
        code = _translate(
            forms, form, frames, first, second, address, access, privileged, True, notes
        )
        if code >= UNKNOWN_FRAME:
            return code
    if entry:
        use(iotlb, entry)
    else:
        iotlb[MISSES] += 1
    control[LOOKUPS] += 1
    if code:
        return code
    if iotlb[WAYS]:
        shift = notes[SHIFT]
        granted = notes[GRANTED] | notes[SNOOP_IT] << SNOOP_BIT | targets[target + TAGS] << TAGS_AT
        number, tag = address >> shift & (1 << 64 - shift) - 1, kind << 6 | shift
        start = notes[PHYSICAL] >> shift << shift
        if entry:
            put(iotlb, number, tag, start, granted, 0)
        else:
            add(iotlb, number, tag, start, granted, 0)
        if shift == 21:
            kinds[kind + MARKS] |= HAS_2M
        elif shift == 30:
            kinds[kind + MARKS] |= HAS_1G
    return FOUND
