"""The invalidation queue and the register interface: what is accepted, refused and reported."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import BitRecord
from tests.support.world import HOLE, HOST, PAGE, QUEUE, STATUS, Mode, Started, World, capabilities
from vtd.layouts import descriptors as d
from vtd.layouts.descriptors import DESCRIPTORS, DescriptorType
from vtd.layouts.registers import RootTableAddress, TranslationTableMode
from vtd.unit.caching.cache import UNBOUNDED
from vtd.unit.caching.policy import AGGRESSIVE, CachePolicy
from vtd.unit.departures import Departures
from vtd.unit.options import Options
from vtd.unit.registers.capabilities import Capabilities
from vtd.unit.reporting.events import Event
from vtd.unit.requests.request import kind_of

T = DescriptorType
LEGACY, SCALABLE, ABORT = (
    TranslationTableMode.LEGACY,
    TranslationTableMode.SCALABLE,
    TranslationTableMode.ABORT_DMA,
)
FULL = capabilities(hpts=1)
VALID: dict[DescriptorType, BitRecord] = {
    T.CC_INV: d.ContextCacheInvalidateDescriptor.of(g=1),
    T.IOTLB_INV: d.IotlbInvalidateDescriptor.of(g=1),
    T.DEV_TLB_INV: d.DeviceTlbInvalidateDescriptor.of(),
    T.IEC_INV: d.InterruptEntryCacheInvalidateDescriptor.of(),
    T.INV_WAIT: d.InvalidationWaitDescriptor.of(),
    T.P_IOTLB_INV: d.PasidIotlbInvalidateDescriptor.of(g=2),
    T.PC_INV: d.PasidCacheInvalidateDescriptor.of(g=3),
    T.P_DEV_TLB_INV: d.PasidDeviceTlbInvalidateDescriptor.of(),
    T.PAGE_GRP_RESP: d.PageGroupResponseDescriptor.of(),
    T.HPT_INV: d.HostPermissionInvalidateDescriptor.of(g=1),
}
INVALID_TAIL, FETCH, TYPE, RESERVED, WIDTH, MISALIGNED, MODE = range(1, 8)


def start(
    ttm: TranslationTableMode = LEGACY,
    *,
    wide: bool | None = None,
    unit: Capabilities = FULL,
    size: int = 0,
) -> Started:
    """A unit with queued invalidation on and these tables."""
    world = World(Mode.LEGACY if ttm is LEGACY else Mode.SECOND, unit)
    world.root = RootTableAddress.of(rta=world.root.rta, ttm=ttm)
    started = world.start()
    started.enable_queue(wide=ttm is not LEGACY if wide is None else wide, size=size)
    return started


def wait(data: int = 0, *, event: bool = False, address: int = STATUS) -> BitRecord:
    """A wait descriptor that writes its status."""
    return d.InvalidationWaitDescriptor.of(
        sw=True, if_=event, status_data=data, status_address=address
    )


def status_word(started: Started) -> int:
    return int.from_bytes(started.world.memory.read(STATUS, 4), "little")


@pytest.mark.parametrize("type_", DescriptorType)
@pytest.mark.parametrize(
    ("ttm", "wide", "types"),
    [
        (LEGACY, False, range(1, 6)),
        (LEGACY, True, range(1, 6)),
        (SCALABLE, True, range(1, 11)),
        (ABORT, True, range(1, 11)),
    ],
)
@pytest.mark.section("6.5.2")
def test_types_are_valid_as_table_26_says(
    ttm: TranslationTableMode, wide: bool, types: range, type_: DescriptorType
) -> None:
    if not wide and DESCRIPTORS[type_].WIDTH == 256:
        pytest.skip("does not fit")
    started = start(ttm, wide=wide)
    started.submit(VALID[type_])
    if type_ in types:
        assert started.queue_error is None
        assert started.head == started.tail
    else:
        assert started.queue_error == TYPE
        assert started.head == 0


@pytest.mark.parametrize(
    ("type_", "flag"),
    [
        (T.DEV_TLB_INV, "dt"),
        (T.P_DEV_TLB_INV, "dt"),
        (T.PAGE_GRP_RESP, "prs"),
        (T.HPT_INV, "hpts"),
    ],
)
def test_a_type_without_its_capability_is_invalid(type_: DescriptorType, flag: str) -> None:
    started = start(SCALABLE, unit=capabilities(**{"hpts": 1, flag: 0}))
    started.submit(VALID[type_])
    assert started.queue_error == TYPE


@pytest.mark.parametrize("number", [0, 0xB, 0xF, 0x11, 0x15, 0x7F])
@pytest.mark.parametrize("wide", [False, True])
def test_unknown_types_are_invalid(number: int, wide: bool) -> None:
    started = start(wide=wide)
    started.submit(number & 15 | number >> 4 << 9)
    assert started.queue_error == TYPE


@pytest.mark.parametrize("type_", DescriptorType)
@pytest.mark.section("6.5.2", "11.4.9.9")
def test_each_reserved_bit_is_an_error(type_: DescriptorType) -> None:
    record = DESCRIPTORS[type_]
    reserved = (1 << 256) - 1 & ~((1 << record.WIDTH) - 1) | record.RESERVED
    bits = [number for number in range(256) if reserved >> number & 1]
    started = start(SCALABLE)
    for number in bits:
        started.submit(VALID[type_] | 1 << number)
        assert started.queue_error == RESERVED, number
        repair(started)


@pytest.mark.parametrize("dit", [False, True])
@pytest.mark.parametrize("bit", [12, 15, 52, 63])
@pytest.mark.parametrize("type_", [T.DEV_TLB_INV, T.P_DEV_TLB_INV])
@pytest.mark.section("6.5.2.5", "6.5.2.6")
def test_pfsid_is_reserved_without_dit(type_: DescriptorType, bit: int, dit: bool) -> None:
    started = start(SCALABLE, unit=capabilities(dit=dit))
    started.submit(VALID[type_] | 1 << bit)
    assert started.queue_error == (None if dit else RESERVED)


def repair(started: Started) -> None:
    """Put a harmless descriptor at the head of a wide queue and clear IQE."""
    started.world.memory.write(QUEUE + started.head, int(VALID[T.INV_WAIT]).to_bytes(32, "little"))
    started.unit.write_register(0x34, 4, 1 << 4)
    assert started.queue_error is None
    assert started.head == started.tail


@pytest.mark.parametrize(
    ("type_", "granularity"),
    [
        (T.CC_INV, 0), (T.IOTLB_INV, 0), (T.P_IOTLB_INV, 0), (T.P_IOTLB_INV, 1), (T.PC_INV, 2),
        (T.HPT_INV, 0),
    ],
)  # fmt: skip
def test_reserved_granularities_are_errors(type_: DescriptorType, granularity: int) -> None:
    started = start(SCALABLE)
    started.submit(VALID[type_].replace(g=granularity))
    assert started.queue_error == RESERVED
    assert started.head == 0


@pytest.mark.parametrize(
    ("type_", "granularity"),
    [
        *((T.CC_INV, g) for g in (1, 2, 3)),
        *((T.IOTLB_INV, g) for g in (1, 2, 3)),
        *((T.IEC_INV, g) for g in (0, 1)),
        *((T.P_IOTLB_INV, g) for g in (2, 3)),
        *((T.PC_INV, g) for g in (0, 1, 3)),
        *((T.HPT_INV, g) for g in (1, 2, 3)),
    ],
)
def test_every_other_granularity_is_carried_out(type_: DescriptorType, granularity: int) -> None:
    started = start(SCALABLE)
    started.submit(VALID[type_].replace(g=granularity), wait(0x1234))
    assert started.queue_error is None
    assert status_word(started) == 0x1234


@pytest.mark.parametrize(
    ("unit", "mask", "ok"),
    [
        (FULL, 18, True),
        (FULL, 19, False),
        (capabilities(psi=0), 0, False),
        (capabilities(mamv=63), 63, True),
    ],
)
@pytest.mark.section("6.5.2.3")
def test_page_selective_iotlb_invalidation_is_bound_to_psi_and_mamv(
    unit: Capabilities, mask: int, ok: bool
) -> None:
    started = start(unit=unit)
    started.submit(VALID[T.IOTLB_INV].replace(g=3, am=mask))
    assert (started.queue_error is None) == ok


@pytest.mark.parametrize(
    ("largest", "granularity", "mask", "ok"),
    [(15, 1, 15, True), (15, 1, 16, False), (3, 1, 3, True), (3, 1, 4, False), (3, 0, 31, True)],
)
@pytest.mark.section("6.5.2.8")
def test_index_selective_interrupt_invalidation_is_bound_to_mhmv(
    largest: int, granularity: int, mask: int, ok: bool
) -> None:
    """11.4.3."""
    descriptor = VALID[T.IEC_INV].replace(g=granularity, im=mask)
    unit = capabilities(mhmv=largest)
    started = start(unit=unit)
    started.submit(descriptor)
    assert started.queue_error == (None if ok else RESERVED)
    recorded = World(Mode.LEGACY, unit).start(Options(departures=Departures(ignore_mhmv=True)))
    recorded.enable_queue(wide=False)
    recorded.submit(descriptor)
    assert recorded.queue_error is None


@pytest.mark.parametrize("with_tail", [False, True])
@pytest.mark.section("6.5.2.11")
def test_a_stopped_queue_goes_on_once_the_error_is_cleared(with_tail: bool) -> None:
    """Or, where that is the unit's choice, with the next write of the tail."""
    options = Options(departures=Departures(resume_with_tail=with_tail))
    started = World(Mode.LEGACY, capabilities()).start(options)
    started.enable_queue(wide=False)
    started.submit(0xF)
    unit = started.unit
    tail = unit.read_register(0x88, 8)
    started.world.memory.load(QUEUE, VALID[T.IEC_INV].to_bytes(16, "little"))
    unit.write_register(0x34, 4, 0x10)
    assert unit.read_register(0x80, 8) == (0 if with_tail else tail)
    unit.write_register(0x88, 8, tail)
    assert unit.read_register(0x80, 8) == tail


@pytest.mark.parametrize("fields", [{}, {"fn": 1}, {"sw": 1}, {"if_": 1}])
@pytest.mark.section("6.5.2.9")
def test_a_wait_descriptor_need_not_tell_anybody(fields: dict[str, int]) -> None:
    descriptor = VALID[T.INV_WAIT].replace(if_=0, sw=0, fn=0).replace(**fields)
    started = start(unit=capabilities())
    started.submit(descriptor)
    assert started.queue_error is None
    departing = Options(departures=Departures(refuse_silent_wait=True))
    recorded = World(Mode.LEGACY, capabilities()).start(departing)
    recorded.enable_queue(wide=False)
    recorded.submit(descriptor)
    assert (recorded.queue_error is None) == bool(fields)


@pytest.mark.parametrize("granularity", [2, 3])
@pytest.mark.parametrize("mask", [0, 9, 10, 63])
@pytest.mark.section("6.5.2.4", "11.4.2")
def test_pasid_based_iotlb_invalidation_is_not_bound_to_psi_and_mamv(
    granularity: int, mask: int
) -> None:
    unit = capabilities(psi=0, mamv=9)
    descriptor = VALID[T.P_IOTLB_INV].replace(g=granularity, am=mask)
    started = start(SCALABLE, unit=unit)
    started.submit(descriptor)
    assert started.queue_error is None
    recorded = World(Mode.FIRST, unit).start(Options(departures=Departures(limit_pasid_masks=True)))
    recorded.enable_queue(wide=True)
    recorded.submit(descriptor)
    refused = granularity == 3 and mask > 9
    assert recorded.queue_error == (RESERVED if refused else None)


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.NESTED])
@pytest.mark.parametrize(("levels", "width"), [(4, 48), (5, 57)])
@pytest.mark.parametrize("half", [0, 1], ids=["lower half", "upper half"])
@pytest.mark.parametrize("name", ["first1", "first2"])
@pytest.mark.section("6.5.2.4")
def test_pasid_based_iotlb_invalidation_compares_the_address_bits_that_tag_entries(
    mode: Mode, levels: int, width: int, half: int, name: str
) -> None:
    """Tables 18 and 19, and 6.2.5.2: bits 47:12 or 56:12, whatever is above them."""
    high = 0x2A if half == 0 else (1 << 34) - (1 << width - 31) + 0x2A
    world = World(mode, first_levels=levels, high=high)
    started = world.start(Options(caches=CachePolicy(paging_structure=UNBOUNDED)))
    started.enable_queue(wide=True)

    def invalidate(address: int) -> None:
        started.submit(VALID[T.P_IOTLB_INV].replace(g=3, did=5, addr=address & -0x1000))

    assert started.admit() == HOST | PAGE
    world.put(name, 0)
    invalidate(world.address ^ 1 << width - 1)
    assert started.admit() == HOST | PAGE
    invalidate(world.address ^ 1 << width)
    assert started.admit() is None


@pytest.mark.parametrize(
    ("ttm", "wide", "unit", "error"),
    [
        (SCALABLE, False, FULL, WIDTH),
        (ABORT, False, FULL, WIDTH),
        (LEGACY, True, capabilities(smts=0, adms=0), WIDTH),
        (LEGACY, True, capabilities(smts=0), None),
        (TranslationTableMode.RESERVED_2, False, FULL, MODE),
        (TranslationTableMode.RESERVED_2, True, FULL, MODE),
    ],
)
@pytest.mark.section("11.4.9.3")
@pytest.mark.fields("InvalidationQueueAddress.dw", "InvalidationQueueErrorRecord.iqei")
def test_descriptor_width_and_translation_table_mode_have_to_fit(
    ttm: TranslationTableMode, wide: bool, unit: Capabilities, error: int | None
) -> None:
    started = start(ttm, wide=wide, unit=unit)
    started.submit(VALID[T.CC_INV])
    assert started.queue_error == error


def test_a_tail_within_a_wide_descriptor_is_misaligned() -> None:
    started = start(wide=True)
    started.unit.write_register(0x88, 8, 0x30)
    assert started.queue_error == MISALIGNED


@pytest.mark.parametrize("size", range(7))
@pytest.mark.section("11.4.9.2")
@pytest.mark.fields("InvalidationQueueAddress.qs", "InvalidationQueueErrorRecord.iqei")
def test_a_tail_beyond_the_queue_is_invalid(size: int) -> None:
    started = start(size=size)
    started.unit.write_register(0x88, 8, 0x1000 << size)
    assert started.queue_error == INVALID_TAIL


@pytest.mark.fields("InvalidationQueueAddress.iqa")
def test_a_queue_that_can_not_be_read_is_a_fetch_error() -> None:
    started = start()
    started.unit.write_register(0x90, 8, HOLE)
    started.submit(VALID[T.CC_INV])
    assert started.queue_error == FETCH


@pytest.mark.section("6.5.2.11")
def test_nothing_is_fetched_until_the_error_is_cleared() -> None:
    started = start()
    started.submit(wait(1), 0xF, wait(2))
    assert (started.queue_error, started.head, status_word(started)) == (TYPE, 0x10, 1)
    started.submit(wait(3))
    assert (started.head, status_word(started)) == (0x10, 1)
    started.unit.write_register(0x34, 4, 1 << 4)
    assert (started.queue_error, started.head) == (TYPE, 0x10)  # it is still there
    started.world.memory.write(QUEUE + 0x10, VALID[T.CC_INV].pack())
    started.unit.write_register(0x34, 4, 1 << 4)
    assert started.queue_error is None
    assert (started.head, status_word(started)) == (0x40, 3)


@pytest.mark.section("6.5.2.11")
def test_an_error_is_a_fault_event() -> None:
    started = start()
    started.unit.write_register(0x3C, 4, 0x41)
    started.unit.write_register(0x40, 4, 0xFEE0_1000)
    started.unit.write_register(0x38, 4, 0)
    started.submit(0xF)
    assert [(message.address, message.data) for message in started.messages] == [
        (0xFEE0_1000, 0x41)
    ]


@pytest.mark.section("6.5.2")
@pytest.mark.fields("InvalidationQueueHead.qh", "InvalidationQueueTail.qt")
def test_the_queue_wraps() -> None:
    started = start()
    for number in range(600):
        started.submit(wait(number))
        assert status_word(started) == number
        assert started.head == (number + 1) * 16 % 0x1000


def test_a_full_queue_is_one_descriptor_short_of_its_size() -> None:
    started = start(SCALABLE, size=1)
    started.submit(*[wait(number) for number in range(255)])
    assert status_word(started) == 254
    assert started.head == 255 * 32


@pytest.mark.section("11.4.9.1")
def test_switching_the_queue_off_takes_the_head_back() -> None:
    started = start()
    started.submit(wait(1), wait(2))
    started.command(qie=False)
    assert started.head == 0
    started.unit.write_register(0x88, 8, 0x10)
    assert (started.head, status_word(started)) == (0, 2)
    started.command(qie=True)
    assert (started.head, status_word(started)) == (0x10, 1)


def test_a_unit_without_queued_invalidation_has_none() -> None:
    features = {"qi": 0, "ir": 0, "dt": 0, "smts": 0}
    started = World(Mode.LEGACY, capabilities(**features)).start()
    started.command(qie=True)
    assert started.unit.read_register(0x1C, 4) >> 26 & 1 == 0
    started.unit.write_register(0x88, 8, 0x10)
    assert started.head == 0


def test_a_head_within_a_wide_descriptor_counts_from_its_start() -> None:
    """Software may not change the width while the queue is in use; it must not hang the unit."""
    started = start()
    started.submit(VALID[T.CC_INV])
    for offset in range(0x10, 0x1000, 32):
        started.world.memory.write(QUEUE + offset, VALID[T.CC_INV].pack())
    started.unit.write_register(0x90, 8, QUEUE | 1 << 11)
    started.unit.write_register(0x88, 8, 0x40)
    assert started.queue_error == RESERVED  # two descriptors in one


@pytest.mark.section("6.5.2.9")
def test_a_wait_descriptor_writes_four_bytes() -> None:
    started = start()
    started.world.memory.write(STATUS, bytes(range(1, 17)))
    started.submit(wait(0xDEAD_BEEF, address=STATUS + 4))
    assert started.world.memory.read(STATUS, 16) == (
        bytes(range(1, 5)) + bytes.fromhex("efbeadde") + bytes(range(9, 17))
    )


def test_a_status_address_without_memory_does_no_harm() -> None:
    started = start()
    started.submit(wait(1, address=HOLE), wait(2))
    assert started.queue_error is None
    assert status_word(started) == 2


def test_status_address_bits_at_and_above_the_haw_are_ignored() -> None:
    started = start()
    started.submit(wait(7, address=STATUS | 1 << 46 | 1 << 63))
    assert status_word(started) == 7


@pytest.mark.section("6.5.2.10", "11.4.9.4", "11.4.9.6", "11.4.9.7")
@pytest.mark.fields("InvalidationCompletionStatus.iwc")
def test_completion_is_an_event_once_per_iwc() -> None:
    started = start()
    started.unit.write_register(0xA4, 4, 0x42)
    started.unit.write_register(0xA8, 4, 0xFEE0_2000)
    started.unit.write_register(0xAC, 4, 0x1)
    started.submit(wait(1, event=True))
    assert started.messages == []  # masked
    assert started.unit.read_register(0xA0, 4) == 0xC000_0000
    started.unit.write_register(0xA0, 4, 0)
    assert [tuple(message) for message in started.messages] == [(0x1_FEE0_2000, 0x42)]
    started.submit(wait(2, event=True))
    assert len(started.messages) == 1  # IWC is still set
    started.unit.write_register(0x9C, 4, 1)
    started.submit(wait(3), wait(4, event=True))
    assert len(started.messages) == 2
    assert started.unit.read_register(0x9C, 4) == 1


@pytest.mark.section("6.5.2.10")
def test_clearing_iwc_withdraws_a_pending_event() -> None:
    started = start()
    started.submit(wait(1, event=True))
    started.unit.write_register(0x9C, 4, 0)
    assert started.unit.read_register(0xA0, 4) == 0xC000_0000
    started.unit.write_register(0x9C, 4, 1)
    assert started.unit.read_register(0xA0, 4) == 0x8000_0000
    started.unit.write_register(0xA0, 4, 0)
    assert started.messages == []


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=8), st.booleans())
def test_random_descriptors_are_carried_out_or_reported(raw: list[bytes], scalable: bool) -> None:
    started = start(SCALABLE if scalable else LEGACY)
    words = [int.from_bytes(data[: 32 if scalable else 16], "little") for data in raw]
    started.submit(*words)
    if started.queue_error is None:
        assert started.head == started.tail or not started.status().iqe
    else:
        assert started.queue_error in (TYPE, RESERVED)


@st.composite
def plausible(draw: st.DrawFn) -> int:
    """A descriptor whose fields hold anything and whose reserved bits are 0."""
    record = type(VALID[draw(st.sampled_from(DescriptorType))])
    number: int = record(0)
    for bits in record.FIELDS.values():
        number |= draw(st.integers(0, bits.max)) << bits.low
    kind = next(kind for kind, value in DESCRIPTORS.items() if value is record)
    return number & ~0xE0F | kind


@given(st.lists(plausible(), min_size=1, max_size=8))
def test_any_field_values_are_carried_out_or_reported(words: list[int]) -> None:
    started = start(SCALABLE)
    started.submit(*words)
    assert started.queue_error in (None, RESERVED)


# Register interface


def registers_of(unit: Capabilities) -> Iterator[int]:
    yield unit.iotlb_offset
    yield unit.iotlb_offset + 8


def context_command(started: Started, value: int) -> int:
    """Write CCMD_REG as a driver does; CAIG."""
    started.unit.write_register(0x28, 8, 1 << 63 | value)
    result = started.unit.read_register(0x28, 8)
    assert result >> 63 == 0
    return result >> 59 & 3


def iotlb_command(started: Started, value: int, where: int = 0) -> int:
    """Write IVA_REG and IOTLB_REG; IAIG."""
    address, command = registers_of(started.unit.capabilities)
    started.unit.write_register(address, 8, where)
    started.unit.write_register(command, 8, 1 << 63 | value)
    result = started.unit.read_register(command, 8)
    assert result >> 63 == 0
    return result >> 57 & 3


@pytest.mark.parametrize("granularity", range(4))
@pytest.mark.section("6.5.1.1", "11.4.6.1")
def test_register_invalidation_reports_what_was_done(granularity: int) -> None:
    started = World(Mode.LEGACY).start()
    assert context_command(started, granularity << 61) == granularity
    assert iotlb_command(started, granularity << 60) == granularity


@pytest.mark.parametrize(
    ("mode", "unit", "queue"),
    [
        (Mode.SECOND, capabilities(), False),
        (Mode.LEGACY, capabilities(version=6), False),
        (Mode.LEGACY, capabilities(), True),
    ],
    ids=["scalable mode", "version 6", "beside the queue"],
)
@pytest.mark.section("6.5.1")
def test_register_invalidation_is_for_legacy_mode_without_a_queue(
    mode: Mode, unit: Capabilities, queue: bool
) -> None:
    started = World(mode, unit).start()
    if queue:
        started.enable_queue(wide=False)
    assert context_command(started, 1 << 61) == 0
    assert iotlb_command(started, 1 << 60) == 0


@pytest.mark.section("6.5.1.2", "11.4.6.4")
def test_register_invalidation_checks_the_address_mask() -> None:
    started = World(Mode.LEGACY).start()
    assert iotlb_command(started, 3 << 60, 18) == 3
    assert iotlb_command(started, 3 << 60, 19) == 0


@pytest.mark.section("6.5.1.2")
def test_register_invalidation_without_psi_is_coarser() -> None:
    started = World(Mode.LEGACY, capabilities(psi=0)).start()
    assert iotlb_command(started, 3 << 60 | 5 << 32) == 2


@pytest.mark.parametrize("mask", range(4))
@pytest.mark.section("6.5.1.1", "11.4.6.1")
@pytest.mark.fields("ContextCommand.fm.sid.did")
def test_a_function_mask_leaves_low_bits_of_the_source_id_out(mask: int) -> None:
    world = World(Mode.LEGACY)
    started = world.start()
    context, entry = world.places["context"][0], world.get("context").pack()
    functions = [0x0108 | function for function in range(8)]
    for source_id in functions:
        world.memory.load(context + 16 * (source_id - 0x0108), entry)
        assert started.admit(world.request._replace(source_id=source_id)) is not None
    named = 0x0108 | 5
    value = mask << 32 | named << 16 | world.get("context").did
    assert context_command(started, 3 << 61 | value) == 3
    left = {source_id for source_id, _ in started.unit.caches.context}
    ignored = (0b000, 0b100, 0b110, 0b111)[mask]
    assert left == {each for each in functions if (each ^ named) & ~ignored}


@pytest.mark.parametrize("hint", [False, True])
@pytest.mark.parametrize("draining", [0, 3 << 48])
@pytest.mark.section("6.5.1.2", "11.4.6.4")
@pytest.mark.fields("InvalidateAddress.addr.ih.am", "IotlbInvalidate.dr.dw.did")
def test_the_hint_keeps_paging_structure_caches(hint: bool, draining: int) -> None:
    world = World(Mode.LEGACY)
    started = world.start(Options(caches=AGGRESSIVE))
    assert started.admit() is not None
    where = world.address & -0x1000 | hint << 6
    value = 3 << 60 | draining | world.get("context").did << 32
    assert iotlb_command(started, value, where) == 3
    caches = started.unit.caches
    assert caches.iotlb.peek(kind_of(world.request), world.address) is None
    assert bool(len(caches.second_stage)) is hint


@pytest.mark.section("6.5.4", "6.5.5")
def test_nothing_that_was_answered_is_still_on_its_way_when_a_wait_ends() -> None:
    world = World(Mode.SECOND)
    started = world.start()
    started.enable_queue(wide=True)
    order: list[str] = []
    names = {STATUS: "status", HOST | PAGE: "data"}
    world.memory.watch(lambda address, _: order.append(names.get(address, "")))
    assert started.port().write(world.address, b"data").ok
    drained = d.IotlbInvalidateDescriptor.of(g=1, dw=True, dr=True)
    started.submit(drained, wait())
    assert [each for each in order if each] == ["data", "status"]
    started.command(te=False, qie=True)
    assert started.port().write(0xFEE0_0000, bytes(4)).interrupt is not None  # before the wait
    started.submit(VALID[T.IEC_INV], wait())
    assert [each for each in order if each] == ["data", "status", "status"]


@pytest.mark.parametrize("command", [0x28, capabilities().iotlb_offset + 8])
@pytest.mark.section("11.4.6.3")
def test_the_write_of_the_upper_half_starts_the_command(command: int) -> None:
    started = World(Mode.LEGACY).start()
    assert started.admit() is not None
    caches: list[Any] = [started.unit.caches.context, started.unit.caches.iotlb]
    cache = caches[command != 0x28]
    assert len(cache) == 1
    everything = 1 << 29 if command == 0x28 else 1 << 28
    started.unit.write_register(command, 4, 0)
    started.unit.write_register(command + 4, 4, everything)  # no ICC or IVT
    assert len(cache) == 1
    started.unit.write_register(command + 4, 4, 1 << 31 | everything)
    assert len(cache) == 0


def test_software_may_queue_more_from_within_an_event() -> None:
    started = start()
    started.unit.write_register(0xA0, 4, 0)
    told: list[int] = []

    def react(_: Event) -> None:
        told.append(status_word(started))
        if len(told) < 4:
            started.unit.write_register(0x9C, 4, 1)
            started.submit(wait(len(told) + 1, event=True))

    started.unit.subscribe(react)
    started.submit(wait(1, event=True))
    assert told == [1, 2, 3, 4]
    assert started.head == started.tail == 0x40


def test_recorded_units_take_narrow_descriptors_in_scalable_mode() -> None:
    world = World(Mode.SECOND)
    departures = Departures(
        accept_narrow_queue=True,
        drop_pasid_entries_with_context=True,
        accept_register_invalidation=True,
    )
    started = world.start(Options(departures=departures))
    started.enable_queue(wide=False)
    assert started.admit() is not None
    started.submit(VALID[T.CC_INV], wait(5))
    assert (started.queue_error, status_word(started)) == (None, 5)
    assert len(started.unit.caches.pasid) == 0
    assert context_command(started, 1 << 61) == 1
    started.submit(VALID[T.P_IOTLB_INV] & 0xFFFF)
    assert started.queue_error == TYPE


def test_host_permission_invalidation_is_accepted_where_nothing_is_cached() -> None:
    started = start(SCALABLE)
    for granularity in (1, 2, 3):
        started.submit(VALID[T.HPT_INV].replace(g=granularity, hptdid=7, am=3, ih=2))
    assert started.queue_error is None
