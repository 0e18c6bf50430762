from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetables.bits import Access
from tests.support.reference_data import vector_files
from tests.support.world import capabilities
from vtd.layouts.registers import (
    Capability,
    EnhancedCommand,
    FaultEventControl,
    FaultEventData,
    FaultRecording,
    FaultStatus,
    GlobalCommand,
    GlobalStatus,
    InterruptRemappingTableAddress,
    InvalidateAddress,
    InvalidationEventControl,
    InvalidationQueueAddress,
    IotlbInvalidate,
    PageRequestQueueHead,
    PerformanceMonitoringCounter,
    PerformanceMonitoringCounterEventCapability,
    PerformanceMonitoringOverflowStatus,
    PerformanceMonitoringPasidFilter,
    PerformanceMonitoringRequesterIdFilter,
    Register,
    RootTableAddress,
    VariableRangeMtrrBase,
)
from vtd.recordings.scenario import load_scenario
from vtd.unit.implementation import implementation_registers
from vtd.unit.monitoring.performance import capability_registers
from vtd.unit.registers.capabilities import PROFILES, Capabilities
from vtd.unit.registers.register_file import RegisterFile, RegisterWrite
from vtd.unit.registers.register_map import overlaps, register_map

XEON = PROFILES["xeon"]
RANGES = {0x100: 0x50A}
"""MTRRCAP_REG with all ranges."""
PLACES = register_map(XEON.features, XEON.cap, XEON.ecap, RANGES)

NO_SIDE_EFFECTS = (
    "regs_reset_*",
    "regs_read_only",
    "regs_read_write",
    "spec_reg_reset_legacy",
    "spec_reg_reset_scalable",
    "spec_reg_masks_*",
    "spec_reg_halves",
    "spec_reg_read_only",
)
"""Scenarios that only store and read: no command among their writes."""

AGAINST_THE_SPECIFICATION = {("regs_reset_sm_pasid", 0xE0)}
"""QEMU resets PECTL_REG with IM clear; 11.4.11.5 has it set, as the derived scenarios do."""

COUNTERS = {
    0x300: 0x000F_0005_0220_0002,  # 2 counters of 32 bits with capabilities of their own, 2 filters
    0x310: 0x0800_0000_0600,
    0x318: 0x1000_0000_0810,
    0x680: 0x0000_0000_2003_2001,  # counter 0 has 2 groups of its own
}
"""Performance-monitoring registers of some unit: 64 bits at each offset."""


def xeon() -> RegisterFile:
    return RegisterFile(XEON, RANGES)


def counting_unit(constants: Mapping[int, int]) -> RegisterFile:
    full = PROFILES["xeon"]
    return RegisterFile(
        Capabilities(
            full.version,
            full.cap.replace(ecmds=True, fro=0x240),
            full.ecap.replace(pms=True),
            full.host_address_width,
        ),
        constants,
    )


places = st.sampled_from(sorted(PLACES, key=PLACES.__getitem__))


@given(places, st.data())
@pytest.mark.section("11.3")
def test_a_write_changes_each_field_by_its_access_kind(
    place: tuple[type[Register], int], data: st.DataObject
) -> None:
    register, _ = place
    numbers = st.integers(0, (1 << register.WIDTH) - 1)
    file = xeon()
    file[place] = register(data.draw(numbers))
    before = file[place]
    size = data.draw(st.sampled_from([4, 8] if register.WIDTH > 32 else [4]))
    part = data.draw(st.integers(0, register.WIDTH // 8 // size - 1))
    value = data.draw(st.integers(0, (1 << size * 8) - 1))
    file.write(PLACES[place] + part * size, size, value)
    after = file[place]
    raw = value << part * size * 8
    covered = (1 << size * 8) - 1 << part * size * 8
    kept = ~register.reserved_mask(PROFILES["xeon"].implementation)
    for bits in register.FIELDS.values():
        mask = bits.mask & kept
        if bits.access in (Access.RW, Access.WO):
            expected = before & ~covered | raw
        elif bits.access in (Access.RW1C, Access.RW1CS):
            expected = before & ~raw
        else:
            expected = before
        assert after & mask == expected & mask, bits.name
    assert not after & ~kept


@given(places, st.data())
def test_reads_show_everything_but_write_only_fields(
    place: tuple[type[Register], int], data: st.DataObject
) -> None:
    register, _ = place
    file = xeon()
    file[place] = register(data.draw(st.integers(0, (1 << register.WIDTH) - 1)))
    stored = file[place].pack()
    hidden = sum(b.mask for b in register.FIELDS.values() if b.access is Access.WO)
    expected = register(file[place] & ~hidden).pack()
    read = b"".join(
        file.read(PLACES[place] + byte, 4).to_bytes(4, "little")
        for byte in range(0, len(stored), 4)
    )
    assert read == expected


@given(st.integers(0, 0x1FFF), st.integers(0, 2**64 - 1))
@pytest.mark.section("11.2")
def test_an_8_byte_access_is_two_4_byte_accesses(offset: int, value: int) -> None:
    whole, halves = xeon(), xeon()
    whole.write(offset, 8, value)
    if offset % 8 == 0:
        halves.write(offset, 4, value & 0xFFFF_FFFF)
        halves.write(offset + 4, 4, value >> 32)
        assert whole.read(offset, 8) == whole.read(offset, 4) | whole.read(offset + 4, 4) << 32
    else:
        assert whole.read(offset, 8) == 0
    assert whole.values == halves.values


@given(
    st.integers(0, 0x3000),
    st.sampled_from([1, 2, 3, 4, 8, 16]),
    st.integers(0, 0xFF),
)
@pytest.mark.section("11.2")
def test_accesses_the_specification_does_not_provide_for_do_nothing(
    offset: int, size: int, value: int
) -> None:
    if size in (4, 8) and offset % size == 0 and offset < 0x1000:
        return
    file = xeon()
    before = dict(file.values)
    file.write(offset, size, value)
    assert file.values == before
    assert file.read(offset, size) == 0


def test_an_8_byte_write_reaches_two_adjacent_32_bit_registers() -> None:
    file = xeon()
    file.write(0x38, 8, 0x30 << 32)
    assert file[FaultEventControl] == 0
    assert file[FaultEventData].imd == 0x30


def test_a_64_bit_register_can_be_written_by_halves() -> None:
    file = xeon()
    file.write(0x20, 4, 0x1234_5000)
    file.write(0x24, 4, 1)
    assert file[RootTableAddress].rta == 0x1_1234_5000


def test_fault_records_are_128_bits_wide_and_cleared_through_their_top_half() -> None:
    file = xeon()
    record = FaultRecording.of(f=True, fr=6, sid=0x100, fi=0x7000)
    file[FaultRecording, 3] = record
    base = PROFILES["xeon"].cap.fro + 3 * 16
    assert file.read(base, 8) | file.read(base + 8, 8) << 64 == record
    file.write(base + 12, 4, 0x8000_0000)
    assert file[FaultRecording, 3] == record.replace(f=False)


def test_write_only_fields_read_as_zero_and_are_kept_for_the_hardware() -> None:
    file = xeon()
    file.write(PROFILES["xeon"].ecap.iro, 8, 0x7000 | 9)
    assert file.read(PROFILES["xeon"].ecap.iro, 8) == 0
    assert file[InvalidateAddress] == InvalidateAddress.of(addr=0x7000, am=9)


def test_fields_without_their_capability_stay_zero() -> None:
    file = RegisterFile(PROFILES["qemu"])
    file.write(0xB8, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert not file[InterruptRemappingTableAddress].eime
    file.write(0x20, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert file.read(0x20, 8) == 0xFFFF_FFFF_FFFF_FC00
    file[FaultStatus] = FaultStatus.of(ite=True, ppf=True)
    assert file.read(0x34, 4) == FaultStatus.of(ppf=True)


def test_an_absent_register_is_zero_to_everyone() -> None:
    file = RegisterFile(PROFILES["qemu"])
    assert PageRequestQueueHead not in file
    file.write(0xC0, 8, 0x20)
    file[PageRequestQueueHead] = PageRequestQueueHead.of(pqh=0x40)
    assert file.read(0xC0, 8) == file[PageRequestQueueHead] == 0
    assert (FaultRecording, 0) in file
    assert (FaultRecording, 1) not in file


def test_software_cannot_write_status() -> None:
    file = xeon()
    file[GlobalStatus] = GlobalStatus.of(tes=True)
    file.write(0x1C, 4, 0)
    file.write(0x08, 8, 0)
    assert file[GlobalStatus].tes
    assert file.read(0x08, 8) == PROFILES["xeon"].cap


def test_a_listener_learns_what_was_written_and_what_came_of_it() -> None:
    file = xeon()
    seen: list[RegisterWrite[FaultStatus]] = []
    file.on_write(FaultStatus, seen.append)
    file[FaultStatus] = FaultStatus.of(pfo=True, iqe=True)
    file.write(0x34, 4, 0x8000_0001)
    (write,) = seen
    assert write.old == FaultStatus.of(pfo=True, iqe=True)
    assert write.new == file[FaultStatus] == FaultStatus.of(iqe=True)
    assert (write.raw, write.mask, write.number) == (0x8000_0001, 0xFFFF_FFFF, 0)


def test_a_listener_learns_the_number_and_the_part_of_the_register() -> None:
    file = xeon()
    seen: list[RegisterWrite[FaultRecording]] = []
    file.on_write(FaultRecording, seen.append)
    file.write(PROFILES["xeon"].cap.fro + 5 * 16 + 8, 8, 1 << 63)
    assert seen[0].number == 5
    assert seen[0].raw.f
    assert seen[0].mask == (1 << 128) - (1 << 64)


def test_listeners_of_a_write_to_two_registers_are_told_in_order() -> None:
    file = xeon()
    seen: list[int] = []
    file.on_write(FaultEventData, lambda write: seen.append(write.raw))
    file.on_write(FaultEventControl, lambda write: seen.append(write.raw))
    file.write(0x38, 8, 2 << 32 | 1)
    assert seen == [1, 2]


def test_a_command_reaches_its_listener_though_it_reads_as_zero() -> None:
    file = xeon()
    seen: list[GlobalCommand] = []
    file.on_write(GlobalCommand, lambda write: seen.append(write.raw))
    file.write(0x18, 4, 0x4000_0000)
    assert [command.srtp for command in seen] == [True]
    assert file.read(0x18, 4) == 0


def test_the_state_is_a_copy_of_the_values() -> None:
    file = xeon()
    saved = dict(file.values)
    file.write(0x90, 8, 0x5000)
    file.values = saved
    assert file[InvalidationQueueAddress] == 0


def test_only_a_power_good_reset_clears_sticky_fields() -> None:
    file = xeon()
    file[FaultStatus] = FaultStatus.of(pfo=True)
    file[RootTableAddress] = RootTableAddress.of(rta=0x1000)
    file.write(0xA0, 4, 0)
    file.reset(power_good=False)
    assert file[FaultStatus].pfo
    assert file[RootTableAddress] == 0
    assert file[InvalidationEventControl].im
    file.reset()
    assert file[FaultStatus] == 0
    assert file[Capability] == PROFILES["xeon"].cap


@pytest.mark.parametrize(("size", "value"), [(4, 1 << 32), (8, 1 << 64), (4, -1)])
def test_a_value_wider_than_the_access_is_refused(size: int, value: int) -> None:
    with pytest.raises(ValueError, match="register write"):
        xeon().write(0x38, size, value)


@pytest.mark.section("11.1")
def test_the_window_is_as_many_pages_as_the_registers_need() -> None:
    assert xeon().size == 0x1000
    assert RegisterFile(PROFILES["qemu"]).size == 0x1000
    assert counting_unit(COUNTERS).size == 0x2000


@pytest.mark.parametrize(
    ("places", "end"),
    [
        ({"fro": 0x400, "nfr": 7, "iro": 0x500}, 0x510),  # IOTLB_REG behind IVA_REG
        ({"fro": 0x600, "nfr": 1, "iro": 0x500}, 0x620),  # two records of 16 bytes
    ],
)
def test_the_registers_end_with_the_last_byte_of_the_last_one(
    places: dict[str, int], end: int
) -> None:
    assert RegisterFile(capabilities(**places)).end == end


def test_fault_and_iotlb_registers_sit_where_the_capabilities_say() -> None:
    for profile in PROFILES.values():
        offsets = register_map(profile.features, profile.cap, profile.ecap, {})
        assert offsets[FaultRecording, 0] == profile.cap.fro
        assert offsets[InvalidateAddress, 0] == profile.ecap.iro
        assert offsets[IotlbInvalidate, 0] == profile.ecap.iro + 8


@pytest.mark.section("11.4.13.1", "11.4.13.3", "11.4.13.4", "11.4.13.5", "11.4.13.6")
@pytest.mark.fields(
    "PerformanceMonitoringCapability.cs.ncntr",
    "PerformanceMonitoringConfigurationOffset.cfgo",
    "PerformanceMonitoringFreezeOffset.fzo",
    "PerformanceMonitoringOverflowOffset.ofo",
    "PerformanceMonitoringCounterOffset.cnto",
)
def test_counters_sit_where_the_offset_registers_say() -> None:
    file = counting_unit(COUNTERS)
    file.write(0x1000, 8, 0x55)
    file.write(0x1400, 8, 0x66)
    assert file[PerformanceMonitoringCounter] == 0x55
    assert file[PerformanceMonitoringCounter, 1] == 0x66
    assert (PerformanceMonitoringCounter, 2) not in file
    assert (PerformanceMonitoringCounterEventCapability, 1) in file
    assert (PerformanceMonitoringCounterEventCapability, 2) not in file
    assert (PerformanceMonitoringCounterEventCapability, 16) not in file


@pytest.mark.fields("PerformanceMonitoringCapability.pasidfs.ridfs")
def test_counter_filters_are_present_as_far_as_they_are_supported() -> None:
    requester_filter_only = {**COUNTERS, 0x300: COUNTERS[0x300] & ~(1 << 34)}
    file = counting_unit(requester_filter_only)
    assert PerformanceMonitoringRequesterIdFilter in file
    assert PerformanceMonitoringPasidFilter not in file
    assert PerformanceMonitoringPasidFilter in counting_unit(COUNTERS)


def test_constants_are_what_their_registers_read() -> None:
    file = counting_unit(COUNTERS)
    assert file.read(0x300, 8) == COUNTERS[0x300]
    assert file.read(0x314, 4) == 0x800
    file.write(0x310, 8, 0)
    assert file.read(0x310, 8) == COUNTERS[0x310]
    assert EnhancedCommand in file


@pytest.mark.section("11.4.3")
def test_a_unit_without_performance_monitoring_has_no_register_of_it() -> None:
    places = register_map(XEON.features - {"pms"}, XEON.cap, XEON.ecap, COUNTERS)
    assert not any(register.__name__.startswith("Performance") for register, _ in places)


@pytest.mark.parametrize("constants", [{0x301: 1}, {0x300: 1 << 64}, {0x350: 1}, {0x3F0: -1}])
def test_a_constant_that_fits_no_register_is_refused(constants: Mapping[int, int]) -> None:
    with pytest.raises(ValueError, match="register constant"):
        counting_unit(constants)


def test_overlapping_registers_are_refused() -> None:
    bad = PROFILES["xeon"]
    with pytest.raises(ValueError, match="overlap"):
        RegisterFile(
            Capabilities(bad.version, bad.cap.replace(fro=0x500), bad.ecap, bad.host_address_width)
        )


def replay(scenario: dict[str, Any]) -> None:
    unit = scenario["unit"]
    file = RegisterFile(
        Capabilities.of(
            int(unit["version"], 0),
            int(unit["cap"], 0),
            int(unit["ecap"], 0),
            unit["host_address_width"],
        )
    )
    for number, step in enumerate(scenario["steps"]):
        offset, size = int(step["offset"], 0), step["size"]
        if step["op"] == "reg_write":
            file.write(offset, size, int(step["value"], 0))
        else:
            if (scenario["name"], offset) in AGAINST_THE_SPECIFICATION:
                continue
            mask = int(step.get("mask", "-1"), 0)
            assert file.read(offset, size) & mask == int(step["expect"], 0), (number, step)


def test_recorded_and_derived_register_contents() -> None:
    paths = [
        path
        for pattern in NO_SIDE_EFFECTS
        for path in vector_files()
        if fnmatch(path.name, f"{pattern}.json*")
    ]
    assert len(paths) > 15
    for path in paths:
        replay(load_scenario(path))


@pytest.mark.parametrize("supported", [False, True])
@pytest.mark.section("11.4.3", "11.4.5")
@pytest.mark.fields("ExtendedCapability.ssirws", "RootTableAddress.ssirwe")
def test_second_stage_bits_for_devices_can_be_enabled_where_they_are_reported(
    supported: bool,
) -> None:
    file = RegisterFile(capabilities(ssirws=supported))
    file.write(0x20, 8, 1 << 7)
    assert file.read(0x10, 8) >> 57 & 1 == supported
    assert file.read(0x20, 8) == supported << 7


@pytest.mark.section("11.4.3")
@pytest.mark.fields("ExtendedCapability.tdxcs")
def test_tdx_connect_is_told_and_changes_no_register() -> None:
    plain, told = (RegisterFile(capabilities(tdxcs=value)) for value in (0, 1))
    assert told.read(0x10, 8) == plain.read(0x10, 8) | 1 << 50
    for offset in range(0, 0x1000, 8):
        for file in (plain, told):
            file.write(offset, 8, (1 << 64) - 1)
        assert offset == 0x10 or plain.read(offset, 8) == told.read(offset, 8)


@pytest.mark.parametrize("counters", [1, 4, 9])
@pytest.mark.section("11.4.13.1")
def test_registers_of_counters_are_aligned_and_apart_from_all_others(counters: int) -> None:
    unit = capabilities(pms=1)
    places = register_map(unit.features, unit.cap, unit.ecap, capability_registers(counters))
    assert not overlaps(places)
    assert [place for place, at in places.items() if at % (place[0].WIDTH // 8)] == []
    values = [
        at for (register, _), at in places.items() if register is PerformanceMonitoringCounter
    ]
    assert len(values) == counters
    assert min(values) >= 0x1000  # above what other registers may be in


@pytest.mark.section("11.4.13.6")
@pytest.mark.parametrize("counters", [1, 64, 65])
def test_each_overflow_status_has_64_counters(counters: int) -> None:
    unit = capabilities(pms=1)
    constants = capability_registers(1)
    constants[0x300] += counters - 1
    places = register_map(unit.features, unit.cap, unit.ecap, constants)
    statuses = [place for place in places if place[0] is PerformanceMonitoringOverflowStatus]
    assert len(statuses) == 1 + (counters > 64)


@pytest.mark.section("11.4.13.3", "11.4.13.4")
def test_two_offset_registers_in_one_constant_do_not_touch_each_other() -> None:
    constants = capability_registers(1)
    constants[0x310] |= 1 << 32  # the lowest bit of the freeze offset
    unit = capabilities(pms=1)
    places = register_map(unit.features, unit.cap, unit.ecap, constants)
    assert places[PerformanceMonitoringRequesterIdFilter, 0] == 0x600 + 8


@pytest.mark.section("11.4.12.1")
def test_a_unit_with_memory_types_has_ten_ranges_besides_the_fixed_ones() -> None:
    file = RegisterFile(XEON, implementation_registers(XEON))
    assert file.read(0x100, 8) == 10 | 1 << 8 | 1 << 10  # VCNT, FIX, WC
    assert (VariableRangeMtrrBase, 9) in file
    assert (VariableRangeMtrrBase, 10) not in file
