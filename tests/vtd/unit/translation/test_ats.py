"""Translation requests: every row of Table 30, and what is granted is what requests may do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from devices.dma import (
    ATOMIC,
    NO_SNOOP,
    READ,
    REFUSED,
    WRITE,
    AddressType,
    Atomic,
    AtomicOp,
    Completion,
    CompletionStatus,
    NoWrite,
    TranslationEntry,
)
from tests.support.directed_faults import CASES, Case
from tests.support.translation_oracle import Refused
from tests.support.world import (
    HOST,
    INTERRUPTS,
    PAGE,
    SCALABLE_MODES,
    Mode,
    Started,
    World,
    capabilities,
)
from tests.support.world_strategies import flawed_worlds, valid_worlds
from tests.vtd.auditing.rig import DATA, FIRST, SECOND, Rig
from vtd.layouts.entries import PasidEntry, PasidTranslationType
from vtd.unit.caching.policy import AGGRESSIVE, KEEPS_STALE, POLICIES, CachePolicy
from vtd.unit.options import Options
from vtd.unit.port import UnitPort
from vtd.unit.reporting.events import TranslationGiven

UR, CA, EMPTY, REDUCED = "UR", "CA", "no permission", "what permissions there are"
ANSWERS = {
    UR: {0x01, 0x02, 0x0D, 0x31, 0x33, 0x39, 0x41, 0x44, 0x45, 0x46, 0x48, 0x89},
    CA: {
        0x03, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0E, 0x30, 0x38, 0x3A, 0x40, 0x42, 0x43, 0x50,
        0x52, 0x58, 0x5A, 0x5B, 0x78, 0x7A, 0x7B, 0x7C, 0x7D, 0x87,
    },
    EMPTY: {
        0x04, 0x51, 0x59, 0x5D, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x79, 0x80, 0x81,
        0x83, 0x84, 0x90, 0x91,
    },
    REDUCED: {0x05, 0x06, 0x85, 0x86},
}  # fmt: skip
"""The columns of translation requests of Table 30, once more."""
ANSWER = {code: answer for answer, codes in ANSWERS.items() for code in codes}
BEFORE_DTE = {0x30, 0x33, 0x38, 0x39, 0x3A, 0x40, 0x41, 0x42, 0x43}
"""What is found before a context entry's DTE or TT is looked at."""
UNQUALIFIED = {0x01, 0x08, 0x09, 0x0A, 0x30, 0x31, 0x33, 0x38, 0x39, 0x3A, 0x40, 0x50, 0x58}

ATS_CASES = [
    (case, mode)
    for case in CASES
    for mode in case.modes
    if mode is not Mode.LEGACY_PASS_THROUGH  # TT = 10b answers no translation request
    and "dt" in World(mode, **case.setup).unit.features
    and not (mode is Mode.PASS_THROUGH and case.reason == 0x87)
]
STATUSES = {UR: CompletionStatus.UNSUPPORTED_REQUEST, CA: CompletionStatus.COMPLETER_ABORT}


def allow_ats(world: World) -> World:
    if world.mode is Mode.LEGACY:
        world.change("context", tt=1)
    return world


def ask(started: Started, world: World, *, no_write: bool = False, count: int = 1) -> Completion:
    asked = world.request._replace(
        access=READ,
        length=8 * count,
        address_type=AddressType.TRANSLATION_REQUEST,
        payload=NoWrite() if no_write else None,
    )
    return started.port().request(asked)


def rights(entry: TranslationEntry) -> int:
    return READ * entry.r | WRITE * entry.w


def oracle(world: World, access: int) -> int | Refused:
    request = world.request
    world.ask(access=access, length=4)
    expected = world.expected()
    world.request = request
    return expected


@pytest.mark.parametrize("fpd", [False, True], ids=["", "FPD"])
@pytest.mark.parametrize(
    ("case", "mode"),
    ATS_CASES,
    ids=[f"{case.reason:02X}h {mode.value}: {case.name}" for case, mode in ATS_CASES],
)
@pytest.mark.section("4.1.2", "4.2.3", "7.1.3")
def test_each_row_has_its_answer(case: Case, mode: Mode, fpd: bool) -> None:
    world = allow_ats(World(mode, **case.setup))
    case.breaks(world)
    if fpd:
        world.change("context", fpd=True)
    started = world.start()
    completion = ask(started, world, no_write=world.request.access == READ)
    answer = ANSWER[case.reason]
    record = started.record()
    assert completion.status is STATUSES.get(answer, CompletionStatus.SUCCESS)
    assert not any(entry.x or entry.global_ for entry in completion.entries)
    recorded = answer in STATUSES or case.reason == 0x91
    assert record.f == (recorded and not (fpd and case.reason not in UNQUALIFIED))
    if record.f:
        assert record.fr == case.reason
        assert record.at == AddressType.TRANSLATION_REQUEST
        assert record.fi == world.request.address
    if answer is EMPTY:
        (entry,) = completion.entries
        assert not (entry.r or entry.w or entry.u)
        assert entry.size == 0x1000
        assert entry.address % 0x1000 == 0  # bits 11:0 of a translation are its attributes
        assert entry.priv == world.request.privileged
    if answer is REDUCED:
        reads, writes = oracle(world, READ), oracle(world, WRITE)
        (entry,) = completion.entries
        assert entry.r == isinstance(reads, int)
        assert entry.w == (isinstance(writes, int) and world.request.access != READ)


@pytest.mark.parametrize("pasid", [None, 0x45])
@pytest.mark.parametrize("fpd", [False, True])
@pytest.mark.fault("SCT.5 t")
def test_a_context_entry_without_dte_is_unsupported(pasid: int | None, fpd: bool) -> None:
    world = World(Mode.SECOND, pasid=pasid)
    world.change("context", dte=False, fpd=fpd)
    started = world.start()
    assert ask(started, world).status is CompletionStatus.UNSUPPORTED_REQUEST
    assert started.record().f == (not fpd)
    assert fpd or started.record().fr == 0x44


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.LEGACY_PASS_THROUGH])
@pytest.mark.fault("LCT.5 t")
def test_a_context_entry_of_another_type_is_unsupported(mode: Mode) -> None:
    world = World(mode)
    started = world.start()
    assert ask(started, world).status is CompletionStatus.UNSUPPORTED_REQUEST
    assert started.record().fr == 0x0D


def test_eptr_without_paside_is_a_lack_of_paside_to_requests_with_pasid() -> None:
    unit = capabilities(ptrs=1)
    for pasid, code, status in ((None, 0x43, CA), (0x45, 0x45, UR)):
        world = World(Mode.SECOND, unit, pasid=pasid)
        world.change("context", eptr=True, paside=False)
        started = world.start()
        assert ask(started, world).status is STATUSES[status]
        assert started.record().fr == code
        assert world.start().refusal() is not None  # and the same to untranslated ones


@pytest.mark.parametrize("caches", [KEEPS_STALE, AGGRESSIVE], ids=["", "faults are kept"])
def test_dte_is_looked_at_before_paside_whatever_eptr_is(caches: CachePolicy) -> None:
    for eptr in (False, True):
        world = World(Mode.SECOND, capabilities(ptrs=1, cm=1), pasid=0x45)
        world.change("context", eptr=eptr, paside=False, dte=False, pre=False)
        started = world.start(Options(caches=caches))
        for _ in range(2):
            ask(started, world)
            assert started.record().fr == 0x44
            started.clear_records()
            started.unit.faults.next_index = 0


def test_nothing_is_translated_or_recorded_while_remapping_is_off() -> None:
    world = World(Mode.SECOND)
    started = world.start()
    started.command(te=False)
    assert ask(started, world).status is CompletionStatus.UNSUPPORTED_REQUEST
    assert not started.status()


@given(st.data(), st.sampled_from([Mode.LEGACY, *SCALABLE_MODES]), st.booleans())
@pytest.mark.section("4.1.2")
def test_granted_is_what_untranslated_requests_may_do(
    data: st.DataObject, mode: Mode, no_write: bool
) -> None:
    world = allow_ats(data.draw(flawed_worlds(mode)))
    request = world.request
    assume(request.pasid is not None or request.address >> 20 != 0xFEE)
    assume(mode is not Mode.LEGACY or world.get("context").tt == 1)
    reads, writes = oracle(world, READ), oracle(world, WRITE)
    outputs = [where for where in (reads, writes) if isinstance(where, int)]
    assume(not any(where >> 30 == 3 for where in outputs))  # 87h judges the whole range
    refusals = [refused for refused in (reads, writes) if isinstance(refused, Refused)]
    codes = set().union(*(refused.reasons for refused in refusals))
    assume(not (mode is Mode.PASS_THROUGH and 0x87 in codes))
    if no_write and isinstance(reads, int):
        codes = set()
    allowed = {ANSWER[code] for code in codes}
    scalable = mode is not Mode.LEGACY and 0x31 not in codes
    if scalable and not codes & BEFORE_DTE and not world.get("context").dte:
        allowed = {UR}

    started = world.start()
    completion = ask(started, world, no_write=no_write)
    if completion.status is CompletionStatus.UNSUPPORTED_REQUEST:
        assert UR in allowed
        return
    if completion.status is CompletionStatus.COMPLETER_ABORT:
        assert CA in allowed
        return
    (entry,) = completion.entries
    if not rights(entry):
        assert allowed & {EMPTY, REDUCED}
        return
    assert allowed <= {REDUCED} or no_write
    assert entry.r == isinstance(reads, int)
    assert entry.w == (isinstance(writes, int) and not no_write)
    assert entry.address == outputs[0] & -entry.size


@given(st.data(), st.sampled_from([Mode.LEGACY, *SCALABLE_MODES]), st.booleans())
def test_an_entry_holds_for_the_whole_range_of_its_size(
    data: st.DataObject, mode: Mode, no_write: bool
) -> None:
    world = allow_ats(data.draw(valid_worlds(mode)))
    completion = ask(world.start(), world, no_write=no_write)
    (entry,) = completion.entries
    assert entry.size in {1 << 12, 1 << 21, 1 << 30}
    assert entry.priv == world.request.privileged
    assert not (entry.x or entry.global_ or entry.u)
    start = world.request.address & -entry.size
    for offset in (0, entry.size // 2, entry.size - 4):
        for access, granted in ((READ, entry.r), (WRITE, entry.w)):
            if granted:
                there = world.request._replace(address=start + offset, access=access, length=4)
                assert world.start().admit(there) == entry.address + offset


@given(st.data(), st.sampled_from(SCALABLE_MODES))
@pytest.mark.section("4.2.3.1")
def test_flags_are_set_as_by_the_accesses_that_are_granted(data: st.DataObject, mode: Mode) -> None:
    world = data.draw(valid_worlds(mode))
    no_write = data.draw(st.booleans())
    ask(world.start(), world, no_write=no_write)
    flags = world.memory.snapshot()
    accesses = (READ,) if no_write else (READ, WRITE)
    for access in accesses:
        world.start().admit(world.request._replace(access=access, length=4))
    assert world.memory.snapshot() == flags


@pytest.mark.parametrize("supported", [False, True])
@pytest.mark.parametrize("no_write", [False, True])
def test_no_write_counts_as_a_read_where_nwfs_is_reported(no_write: bool, supported: bool) -> None:
    world = World(Mode.FIRST, capabilities(nwfs=supported))
    (entry,) = ask(world.start(), world, no_write=no_write).entries
    reads_only = no_write and supported
    assert entry.r
    assert entry.w == (not reads_only)
    leaf = world.get("first1")
    assert leaf.a
    assert leaf.d == (not reads_only)


def test_a_translation_without_write_permission_leaves_dirty_clear() -> None:
    world = World(Mode.SECOND)
    world.change("pasid", ssade=True)
    world.change("second1", w=False)
    (entry,) = ask(world.start(), world).entries
    assert (entry.r, entry.w) == (True, False)
    assert world.get("second1").a
    assert not world.get("second1").d


@pytest.mark.parametrize("no_write", [False, True])
@pytest.mark.parametrize("mode", [Mode.LEGACY, *SCALABLE_MODES])
@pytest.mark.fault("S.1 t", "S.2 t")
def test_interrupt_addresses_without_pasid_are_for_untranslated_writes(
    mode: Mode, no_write: bool
) -> None:
    world = allow_ats(World(mode))
    world.ask(address=INTERRUPTS | 0x12000)
    started = world.start()
    (entry,) = ask(started, world, no_write=no_write).entries
    assert (entry.r, entry.w, entry.u) == (False, not no_write, not no_write)
    assert entry.size == 0x1000
    assert not started.status()


def test_interrupt_addresses_with_pasid_are_translated() -> None:
    world = World(Mode.FIRST, pasid=0x45, high=3)
    started = world.start()
    port = started.port()
    (entry,) = port.translate(INTERRUPTS, pasid=0x45).entries
    assert not rights(entry)  # nothing is mapped there
    assert not entry.u
    through = World(Mode.PASS_THROUGH, pasid=0x45).start().port()
    (entry,) = through.translate(INTERRUPTS, pasid=0x45).entries
    assert not (rights(entry) or entry.u)


@pytest.mark.parametrize("mode", [Mode.LEGACY, Mode.SECOND])
def test_a_large_page_with_interrupt_addresses_in_it(mode: Mode) -> None:
    """SGN.8.2 judges the range, LGN.4 the address; a piece without them is given then."""
    world = allow_ats(World(mode, second_size=30))
    world.change("second3", addr=INTERRUPTS >> 30 << 30)
    started = world.start()
    started.admit(world.request)  # puts a 4 KiB piece into the IOTLB
    completion = ask(started, world)
    if mode is Mode.SECOND:
        assert completion.status is CompletionStatus.COMPLETER_ABORT
        assert started.record().fr == 0x87
    else:
        (entry,) = completion.entries
        assert (entry.size, entry.address) == (0x1000, INTERRUPTS >> 30 << 30 | PAGE)


@pytest.mark.parametrize("address", [0x8000_0000, 0xBFFF_F000, 1 << 32])
def test_pages_that_are_cached_far_from_the_interrupts_are_answered_with(address: int) -> None:
    """Pages have 1 GiB at most, so no larger one around these has any of FEEx_xxxxh."""
    world = allow_ats(World(Mode.LEGACY))
    world.change("second1", addr=address)
    started = world.start()
    assert ask(started, world).entries[0].address == address
    world.put("second1", 0)
    assert ask(started, world).entries[0].address == address


@pytest.mark.parametrize(
    ("features", "size"),
    [
        ({}, 1 << 30),
        ({"sslps": 1, "fs1gp": 0}, 1 << 21),
        ({"sslps": 0, "fs1gp": 0, "fsts": 0, "nest": 0}, 1 << 12),
    ],
)
@pytest.mark.section("4.2.3")
def test_pass_through_gives_the_largest_page(features: dict[str, int], size: int) -> None:
    world = World(Mode.PASS_THROUGH, capabilities(**features))
    (entry,) = ask(world.start(), world).entries
    assert (entry.size, entry.address) == (size, world.request.address & -size)
    assert rights(entry) == READ | WRITE
    assert not (entry.u or entry.x or entry.priv or entry.global_)
    (entry,) = ask(world.start(Options(largest_pass_through_page=False)), world).entries
    assert entry.size == 0x1000


@given(st.integers(0, (1 << 46) - 1))
@example(INTERRUPTS - 1)
@example(INTERRUPTS + 0x10_0000)
def test_pass_through_regions_have_no_interrupt_addresses(address: int) -> None:
    assume(address >> 20 != 0xFEE)
    world = World(Mode.PASS_THROUGH)
    (entry,) = world.start().port().translate(address & -0x1000).entries
    assert entry.address <= address < entry.address + entry.size
    assert entry.address + entry.size <= INTERRUPTS or entry.address >= INTERRUPTS + 0x10_0000


@pytest.mark.parametrize("snoop", [False, True])
@pytest.mark.parametrize("pgsnp", [False, True])
@pytest.mark.parametrize("mode", [Mode.LEGACY, *SCALABLE_MODES])
@pytest.mark.section("4.1.2")
def test_non_snooped_is_told_as_table_10_says(mode: Mode, pgsnp: bool, snoop: bool) -> None:
    world = allow_ats(World(mode))
    if "pasid" in world.places:
        world.change("pasid", pgsnp=pgsnp)
    if "second1" in world.places:
        world.change("second1", snp=snoop)
    (entry,) = ask(world.start(), world).entries
    by_entry = pgsnp and mode is not Mode.LEGACY
    by_page = snoop and mode in (Mode.LEGACY, Mode.SECOND, Mode.NESTED)
    assert entry.n == (by_entry or by_page)


@pytest.mark.section("4.2.3.2")
def test_several_translations_are_consecutive_and_of_one_size() -> None:
    world = World(Mode.SECOND)
    started = world.start()
    entries = ask(started, world, count=6).entries
    assert [entry.address for entry in entries[:4]] == [HOST + PAGE + 0x1000 * n for n in range(4)]
    assert [rights(entry) for entry in entries] == [READ | WRITE] * 4 + [0] * 2
    given_events = [event for event in started.events if isinstance(event, TranslationGiven)]
    assert [event.address - world.request.address for event in given_events] == [
        0x1000 * number for number in range(6)
    ]


@pytest.mark.parametrize("kind", [FIRST, SECOND])
@pytest.mark.section("4.2.3.2")
def test_translations_of_another_size_are_left_out(kind: PasidTranslationType) -> None:
    """4.2.3.2: all translations of a completion have the size of the first."""
    rig = Rig(caches=KEEPS_STALE)
    table = rig.first() if kind is FIRST else rig.second()
    table.map(0x1F_E000, DATA, 0x2000)
    table.map(0x20_0000, 0x20_0000, 0x20_0000)
    rig.context(dte=True)
    rig.pasid(0, kind, table=table)
    rig.start()
    for address, sizes in (
        (0x1F_E000, [0x1000] * 2),
        (0x1F_F000, [0x1000]),
        (0x20_0000, [1 << 21]),
    ):
        entries = rig.port().translate(address, 3).entries
        assert [entry.size for entry in entries if rights(entry)] == sizes


@pytest.mark.section("4.2.3")
def test_translations_without_pasid_are_not_privileged() -> None:
    """4.2.3: Priv is that of the request, whatever RID_PRIV says."""
    world = World(Mode.SECOND)
    world.change("context", rid_priv=True)
    world.change("pasid", sre=True)
    (entry,) = ask(world.start(), world).entries
    assert rights(entry) == READ | WRITE
    assert not entry.priv


@pytest.mark.section("4.2.3.2", "7.1.2")
def test_a_refusal_further_on_ends_the_completion_and_is_not_recorded() -> None:
    world = World(Mode.SECOND)
    world.set_bits(f"second1 {PAGE + 0x2000:#x}", 1 << 46)
    started = world.start()
    assert len(ask(started, world, count=4).entries) == 2
    assert not started.status()


@pytest.mark.parametrize("count", [0, 17])
@pytest.mark.section("4.1.1", "4.2.1")
def test_a_malformed_number_of_translations_is_unsupported(count: int) -> None:
    world = World(Mode.SECOND)
    started = world.start()
    assert ask(started, world, count=count).status is CompletionStatus.UNSUPPORTED_REQUEST
    assert not started.status()


@pytest.mark.parametrize(
    "changes",
    [
        {"access": WRITE, "payload": bytes(8)},
        {"access": ATOMIC, "payload": Atomic(AtomicOp.SWAP, bytes(8))},
        {"address_type": AddressType.RESERVED},
        {"address_type": AddressType.RESERVED, "access": WRITE, "payload": bytes(8)},
        {"address_type": AddressType.RESERVED, "access": READ | NO_SNOOP},
        {"length": 4},
        {"length": 12},
        {"length": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("pasid", [None, 0x45])
@pytest.mark.section("4.2.1")
def test_protocol_errors_are_unsupported_and_no_faults(
    changes: dict[str, Any], pasid: int | None
) -> None:
    world = World(Mode.SECOND, pasid=pasid)
    kind = AddressType.TRANSLATION_REQUEST
    request = world.request._replace(length=8, address_type=kind)
    started = world.start()
    assert started.port().request(request).entries
    assert started.port().request(request._replace(**changes)) == REFUSED
    assert not started.status()


def test_the_last_page_of_the_address_space_has_nothing_after_it() -> None:
    world = World(Mode.FIRST, high=(1 << 34) - 1)
    assert len(world.start().port().translate((1 << 64) - 0x1000, 4).entries) == 1


@given(st.data(), st.sampled_from([Mode.LEGACY, *SCALABLE_MODES]), st.booleans())
def test_what_is_cached_changes_no_answer(data: st.DataObject, mode: Mode, no_write: bool) -> None:
    world = allow_ats(data.draw(flawed_worlds(mode)))
    request = world.request
    assume(request.pasid is not None or request.address >> 20 != 0xFEE)

    def answer(started: Started) -> Completion:
        """The answer as it is for the page alone: large pages may be kept in pieces (6.2.4.1)."""
        given = ask(started, world, no_write=no_write)
        entries = tuple(
            each._replace(address=each.address | request.address & each.size - 0x1000, size=0)
            for each in given.entries[:1]
        )
        return given._replace(entries=entries)

    fresh = answer(world.start())
    for policy in POLICIES.values():
        started = world.start(Options(caches=policy))
        for access in (READ, WRITE):
            started.admit(request._replace(access=access, length=4))
        first, again = answer(started), answer(started)
        assert first == again == fresh


def test_the_iotlb_serves_translation_requests_until_invalidated() -> None:
    """Software has to invalidate the IOTLB before the device-TLB (6.5.2.5)."""
    world = World(Mode.SECOND)
    started = world.start(Options(caches=AGGRESSIVE))
    port: UnitPort = started.port()
    before = port.translate(world.request.address)
    world.put("second1", 0)
    assert port.translate(world.request.address) == before
    started.unit.caches.invalidate_iotlb_domain(PasidEntry(world.get("pasid")).did)
    (entry,) = port.translate(world.request.address).entries
    assert not rights(entry)


CM_CASES = [
    (case, mode)
    for case, mode in ATS_CASES
    if "unit" not in case.setup and mode in (Mode.LEGACY, Mode.SECOND)
]


@pytest.mark.parametrize(
    ("case", "mode"),
    CM_CASES,
    ids=[f"{case.reason:02X}h {mode.value}: {case.name}" for case, mode in CM_CASES],
)
def test_faults_that_are_cached_under_cm_have_the_same_answers(case: Case, mode: Mode) -> None:
    world = allow_ats(World(mode, capabilities(cm=1), **case.setup))
    case.breaks(world)
    no_write = world.request.access == READ
    fresh = ask(world.start(), world, no_write=no_write)
    started = world.start(Options(caches=AGGRESSIVE))
    for access in (READ, WRITE):
        started.admit(world.request._replace(access=access, length=4))
    assert ask(started, world, no_write=no_write) == fresh


def test_an_entry_that_changes_while_its_flag_is_set_is_walked_again() -> None:
    world = World(Mode.FIRST)
    where, _ = world.places["first1"]
    changed = world.get("first1").replace(rw=False)

    def change(kind: str, address: int, size: int, value: int) -> None:
        if kind == "update" and address == where and value & changed.FIELDS["d"].mask:
            world.memory.write(where, changed.replace(a=True).pack())

    world.hook = change
    (entry,) = ask(world.start(), world).entries
    assert (entry.r, entry.w) == (True, False)
    assert not world.get("first1").d


def test_a_flag_update_that_fails_is_answered_and_recorded() -> None:
    """SFS.10, for the dirty flag alone: the read right that is left is not given."""
    world = World(Mode.FIRST)
    for level in range(1, 5):
        world.change(f"first{level}", a=True)
    world.make_read_only(world.places["first1"][0] >> 12)
    started = world.start()
    (entry,) = ask(started, world).entries
    assert not rights(entry)
    assert started.record().fr == 0x91
    (entry,) = ask(started, world, no_write=True).entries
    assert entry.r


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.section("6.2.4")
def test_a_translation_comes_from_the_iotlb_while_that_has_the_page(kept: bool) -> None:
    world = World(Mode.SECOND)
    started = world.start(Options(caches=KEEPS_STALE))
    if kept:
        assert started.admit() == HOST | PAGE
    world.change("second1", addr=HOST)
    started.unit.caches.second_stage.clear()
    (entry,) = started.port().translate(world.address).entries
    assert entry.address == (HOST | PAGE if kept else HOST)
